"""Where and how the network runs: device, dtype, memory budget, back-off.

On the CPU an image streams through the network in thin bands.
On a GPU, and in float16, it is cut into tiles with the derived halo, because
a tile can be run again: in float32 where half precision overflowed, or
smaller where memory ran out. Both give what inference on the whole image
gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from srgan_infer.engine.bands import run_bands
from srgan_infer.engine.batches import run_batch
from srgan_infer.engine.devices import (
    choose_device,
    choose_dtype,
    free_memory,
    parse_memory,
    settle_in_process,
)
from srgan_infer.engine.plan import Plan, Progress, Tile, check, check_tile, plan_bands, plan_tiles
from srgan_infer.engine.tiles import run_tiles
from srgan_infer.images.resize import OutputSize, Reducer, output_size, reduce_rows
from srgan_infer.images.rows import PassingRows, RowSource
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.network.stream import Network, prepare

# The part of the free memory that is used unless the caller says otherwise.
SAFE_PART = 0.5

# Pixels of small images that are run at once. On a CPU as measured (benchmarks/batch.py): images
# of which fewer than four fit gain nothing there. On a GPU it is not measured.
BATCH_PIXELS = {"cpu": 4096}
BATCH_PIXELS_ELSEWHERE = 1 << 18
SMALLEST_BATCH = 4


class Engine:
    """A generator made ready for one device. Nothing changes after construction.

    Parameters
    ----------
    generator
        The network; its weights are copied.
    device
        ``"auto"`` picks CUDA, then Apple MPS, then the CPU.
    dtype
        ``"auto"`` picks for 8-bit images float16 on CUDA GPUs that are fast
        at it, and bfloat16 for the inner convolutions on CPUs with instructions
        for it; float32 elsewhere; or ``"float32"``, ``"float16"``,
        ``"bfloat16"``.

    Raises
    ------
    ValueError
        If the device or the dtype is unknown or absent.
    """

    def __init__(
        self,
        generator: Generator,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        self.config: GeneratorConfig = generator.config
        self.device: torch.device = choose_device(device)
        self._process = os.getpid()
        self.settle()
        self.dtype: torch.dtype = choose_dtype(dtype, self.device)
        self.network: Network = prepare(generator, self.device, self.dtype)
        # What a tile that overflows in half precision is run with.
        self.exact: Network = (
            self.network
            if self.dtype == torch.float32
            else prepare(generator, self.device, torch.float32)
        )
        # Exact to a level is enough for 8 bits; 16-bit images get no half precision unasked.
        rough = self.dtype != torch.float32 and dtype == "auto"
        self._sixteen_bit: Network = self.exact if rough else self.network

    def settle(self) -> None:
        """Make ready for work in this process, which may be forked from the first one.

        Raises
        ------
        UpscaleError
            If it is, and the device is no CPU.
        """
        settle_in_process(self.device, self._process)

    def plan(
        self,
        height: int,
        width: int,
        tile: Tile = "auto",
        max_memory: int | str | None = None,
        output: OutputSize | None = None,
    ) -> Plan:
        """Decide how an image is cut.

        Parameters
        ----------
        height, width
            Of the image, in pixels, from 1 up.
        tile
            ``"auto"``, the largest edge of a piece in pixels of the input, or
            "whole" for the image in one piece.
        max_memory
            Bytes, or text such as ``"2GB"``; by default half of what is free.
        output
            The size of the result; ``scale`` times the image if None.

        Raises
        ------
        ValueError
            If an argument is out of range.
        OutOfMemoryError
            If no cut fits.
        """
        if height < 1 or width < 1:
            raise ValueError(f"an image needs at least one pixel, not {width}x{height}.")
        check_tile(tile)
        budget = self._budget(tile, max_memory)
        output = output or output_size((width, height), self.config.scale)
        held = 0
        if output.is_reduced:
            held = Reducer.bytes_held(output.upscaled, output.size, 3)
        passes: list[Plan] = []
        for number in range(output.passes):
            # Every pass may take an equal part of what those before it leave.
            part = (budget - held) // (output.passes - number)
            before = self.config.scale**number
            plan = self._plan_pass(before * height, before * width, tile, part)
            held += plan.peak_bytes
            passes.append(plan)
        reduced = output.size if output.is_reduced else None
        later: Plan | None = None
        for plan in reversed(passes):
            later = replace(plan, reduced=reduced, next_pass=later)
        assert later is not None
        return replace(later, peak_bytes=held)

    def _budget(self, tile: Tile, max_memory: int | str | None) -> int:
        """Bytes that may be used."""
        if max_memory is not None:
            return parse_memory(max_memory)
        return int(free_memory(self.device) * (SAFE_PART if tile == "auto" else 1))

    @property
    def batch_pixels(self) -> int:
        """The most pixels that images of a batch have together."""
        return BATCH_PIXELS.get(self.device.type, BATCH_PIXELS_ELSEWHERE)

    def batch_size(self, plan: Plan, max_memory: int | str | None = None) -> int:
        """How many images of a plan's size are best run at once; 1 for one by one.

        Parameters
        ----------
        plan
            From :meth:`plan`.
        max_memory
            As of :meth:`plan`.
        """
        if plan.pieces > 1 or plan.next_pass is not None:
            return 1
        count = self.batch_pixels // (plan.height * plan.width)
        count = min(count, self._budget("auto", max_memory) // max(plan.peak_bytes, 1))
        return count if count >= SMALLEST_BATCH else 1

    def run_batch(self, images: np.ndarray, plan: Plan) -> Iterator[np.ndarray]:
        """Upscale images of one size at once, as :meth:`run` does one by one, within rounding.

        Parameters
        ----------
        images
            N×H×W×C, C 1 or 3; uint8, uint16, or float32 in [0, 1]; N at most
            :meth:`batch_size`.
        plan
            From :meth:`plan`, for the same height and width.

        Yields
        ------
        numpy.ndarray
            The upscaled H'×W'×C images.
        """
        big = run_batch(self.network_for(images.dtype), images, self.device)
        for index, image in enumerate(images):
            if big is None:
                rows = self.run(image, plan)
            elif plan.reduced:
                rows = reduce_rows(iter((big[index],)), plan.upscaled, plan.reduced)
            else:
                rows = iter((big[index],))
            yield np.concatenate(list(rows))

    def _plan_pass(self, height: int, width: int, tile: Tile, budget: int) -> Plan:
        """How the network runs once over an image."""
        if self.device.type == "cpu" and self.dtype != torch.float16:
            plan = plan_bands(
                self.config, self.network.feature_dtype.itemsize, height, width, tile, budget
            )
            if plan.peak_bytes <= budget or tile != "auto":
                return check(plan, budget)
            # The rows that the layers of a very wide image keep can take more
            # than tiles, which compute their halos again but keep nothing.
        return check(plan_tiles(self.config, height, width, tile, budget), budget)

    def run(
        self, source: RowSource, plan: Plan, progress: Progress | None = None
    ) -> Iterator[np.ndarray]:
        """Upscale an image.

        Parameters
        ----------
        source
            H×W×C rows, C 1 or 3; uint8, uint16, or float32 in [0, 1].
        plan
            From :meth:`plan`, for the same height and width.
        progress
            Called with the number of pieces done and to do after each piece.

        Yields
        ------
        numpy.ndarray
            h×W'×C rows from top to bottom, of the source's dtype; together H' rows,
            where (W', H') is the plan's size. Integers are clipped and rounded, floats
            clipped to [0, 1]. Grey is the luma (BT.601) of the upscaled grey.

        Raises
        ------
        ValueError
            If the source is of another size than the plan or no image.
        OutOfMemoryError
            If memory runs out even with the smallest tiles.
        """
        if len(source.shape) != 3 or source.shape[2] not in (1, 3):
            raise ValueError(f"expected H x W x 1 or 3 values, not the shape {source.shape}.")
        if source.shape[:2] != (plan.height, plan.width):
            raise ValueError(
                f"the plan is for {plan.height} x {plan.width} pixels,"
                f" the image has {source.shape[0]} x {source.shape[1]}."
            )
        if source.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected uint8, uint16 or float32, not {source.dtype}.")
        passes = plan.passes
        done, total = [0] * len(passes), [one.pieces for one in passes]

        def report(number: int) -> Progress:
            def move(pieces: int, of: int) -> None:
                done[number], total[number] = pieces, of
                if progress is not None:
                    progress(sum(done), sum(total))

            return move

        rows = self._run_pass(source, plan, report(0))
        for number, one in enumerate(passes[1:], 1):
            shape = (one.height, one.width, source.shape[2])
            rows = self._run_pass(PassingRows(rows, shape, source.dtype), one, report(number))
        return reduce_rows(rows, passes[-1].upscaled, plan.reduced) if plan.reduced else rows

    def _run_pass(self, source: RowSource, plan: Plan, progress: Progress) -> Iterator[np.ndarray]:
        """The network once over the image."""
        network = self.network_for(source.dtype)
        if plan.kind == "bands":
            return run_bands(network, source, plan, self.device, progress)
        return run_tiles(network, self.exact, source, plan, self.device, progress)

    def network_for(self, dtype: np.dtype[Any]) -> Network:
        """The network for an image's type."""
        return self.network if dtype == np.uint8 else self._sixteen_bit
