"""Small images of one size at once: together they keep a device busier than alone."""

from __future__ import annotations

import numpy as np
import torch

from srgan_infer.engine.devices import copy_to_host, free_cache, is_out_of_memory, true_float32
from srgan_infer.engine.tensors import network_values, to_network, to_pixels, to_values
from srgan_infer.network.stream import Network, RowStream


def run_batch(network: Network, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Upscale images that each go through the network in one piece.

    Parameters
    ----------
    network
        The prepared layers.
    images
        N×H×W×C, C 1 or 3; uint8, uint16, or float32 in [0, 1].
    device
        Where the layers are.

    Returns
    -------
    numpy.ndarray or None
        N×(scale·H)×(scale·W)×C of the same dtype, or None if half precision overflowed or the
        memory of a GPU ran out: then each image is run alone, which knows what to do.
    """
    try:
        return _run(network, images, device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except clause, whose error keeps the batch's tensors alive.
    free_cache(device)
    return None


@torch.inference_mode()
def _run(network: Network, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    values = torch.from_numpy(network_values(images))
    x = to_network(values, device, network.feature_dtype)
    with true_float32(device):
        (out,) = RowStream(network).push(x, last=True)
    # Checked before clipping, which hides infinity.
    finite = None if network.feature_dtype == torch.float32 else torch.isfinite(out).all()
    result, whole = copy_to_host(to_values(out, images.dtype, images.shape[3]), finite).wait()
    return to_pixels(result, images.dtype) if whole else None
