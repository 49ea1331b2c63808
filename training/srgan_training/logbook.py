"""What a run leaves to look at: metrics.jsonl, TensorBoard scalars, sample images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from srgan_training.config import TrainConfig
from srgan_training.data import Batch

METRICS = "metrics.jsonl"


@torch.no_grad()
def sample_grid(model: nn.Module, held_back: Batch) -> Tensor:
    """3×H×W uint8: input (enlarged by pixel doubling), result and original of three crops."""
    low, high = held_back.low[:3], held_back.high[:3]
    device = next(model.parameters()).device
    fake = model(low.to(device)).clamp(0, 1).cpu()
    scale = high.shape[-1] // low.shape[-1]
    near = low.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    rows = [torch.cat(row, -1) for row in zip(near, fake, high, strict=True)]
    return (torch.cat(rows, -2) * 255).round().byte()


class Logbook:
    """Sums up losses between log lines, and writes what the main process has to tell.

    Parameters
    ----------
    out
        The run's folder: ``metrics.jsonl``, ``samples.png`` and ``tensorboard/``.
    step
        Where the run goes on.
    config
        Its settings, for the throughput.
    accelerator
        Means are over its processes.
    """

    def __init__(self, out: Path, step: int, config: TrainConfig, accelerator: Accelerator) -> None:
        self.out, self.config, self.accelerator = out, config, accelerator
        self.sums: dict[str, Tensor] = {}
        self.last: dict[str, float] = {}
        self.counted = 0
        self.restart_clock()
        self.board = None
        if accelerator.is_main_process:
            # What an interrupted run wrote after its last checkpoint will be written again.
            path = out / METRICS
            lines = path.read_text().splitlines() if path.is_file() else []
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            path.write_text("".join(f"{line}\n" for line in kept))
            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def restart_clock(self) -> None:
        """Measure the throughput from now on."""
        self.started = time.monotonic()

    def count(self, losses: dict[str, Tensor]) -> None:
        """Add one step's losses, on their device."""
        for name, value in losses.items():
            finite = torch.nan_to_num(value.detach(), 0.0, 0.0, 0.0)
            self.sums[name] = self.sums.get(name, torch.zeros_like(finite)) + finite
        self.counted += 1

    def write_means(self, step: int, more: dict[str, float]) -> None:
        """Write the means of the steps since the last time, ``more`` and the throughput."""
        if not self.counted:
            return
        totals = self.accelerator.reduce(torch.stack(list(self.sums.values())), "mean").tolist()
        means = {name: total / self.counted for name, total in zip(self.sums, totals, strict=True)}
        self.add(step, {**means, **more, **self.throughput()})
        self.sums, self.counted = {}, 0
        self.restart_clock()

    def throughput(self) -> dict[str, float]:
        """Steps, crops, and megapixels of high-resolution crop a second."""
        steps = self.counted / (time.monotonic() - self.started)
        crops = steps * self.config.batch
        edge = self.config.data.crop * self.config.generator.scale
        return {"steps/s": steps, "crops/s": crops, "megapixels/s": crops * edge**2 / 1e6}

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append one line of numbers."""
        self.last |= values
        if self.board is None:
            return
        with (self.out / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def image(self, step: int, grid: Tensor) -> None:
        """Write a sample grid, 3×H×W uint8."""
        if self.board is not None:
            self.board.add_image("samples", grid, step)
            Image.fromarray(grid.permute(1, 2, 0).numpy()).save(self.out / "samples.png")

    def shown(self) -> dict[str, str]:
        """The last loss and the last validation's PSNR, for the progress bar."""
        names = {"loss": "loss", "val_psnr": "PSNR"}
        return {names[key]: f"{self.last[key]:.4g}" for key in names if key in self.last}

    def close(self) -> None:
        """Flush the logs."""
        if self.board is not None:
            self.board.close()
