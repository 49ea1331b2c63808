"""What a run leaves to look at: metrics.jsonl, TensorBoard scalars, sample pictures."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter


@torch.no_grad()
def sample_grid(model: nn.Module, low: Tensor, high: Tensor) -> Tensor:
    """3×H×W uint8: input (enlarged by pixel doubling), result and original of three crops."""
    count = min(3, len(low))
    device = next(model.parameters()).device
    fake = model(low[:count].to(device)).clamp(0, 1).cpu()
    scale = high.shape[-1] // low.shape[-1]
    near = low[:count].repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    rows = [torch.cat(row, -1) for row in zip(near, fake, high[:count], strict=True)]
    return (torch.cat(rows, -2) * 255).round().byte()


class MetricsFile:
    """``metrics.jsonl``, TensorBoard scalars and sample pictures of one run's folder."""

    def __init__(self, out: Path, step: int) -> None:
        self.out = out
        self.path = out / "metrics.jsonl"
        # What an interrupted run wrote after its last checkpoint will be written again.
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept))
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
        self.last: dict[str, float] = {}

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append one line of numbers."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.last |= values

    def picture(self, step: int, grid: Tensor) -> None:
        """Write a sample grid, 3×H×W uint8."""
        self.board.add_image("samples", grid, step)
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(self.out / "samples.png")

    def shown(self) -> dict[str, str]:
        """The last validation's PSNR, for the progress bar."""
        return {"PSNR": f"{self.last['val_psnr']:.2f}"} if "val_psnr" in self.last else {}

    def close(self) -> None:
        """Flush the logs."""
        self.board.close()
