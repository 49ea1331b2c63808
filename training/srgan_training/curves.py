"""The curves of a run as one image, beside its numbers."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from srgan_training.logbook import METRICS

CURVES = "curves.png"
# Key in metrics.jsonl → title; what a run does not have gets no panel.
PANELS = {
    "loss": "loss",
    "val_psnr": "PSNR of held-back crops (dB)",
    "val_feature_distance": "feature distance of held-back crops",
    "val_judge_distance": "distance by the judge",
}


def draw_curves(run: Path) -> Path | None:
    """Draw loss, PSNR and both distances over the steps from a run's ``metrics.jsonl``.

    Returns
    -------
    Path
        Of ``curves.png`` in the run's folder; None where there is nothing to draw.
    """
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    curves = {key: [(line["step"], line[key]) for line in lines if key in line] for key in PANELS}
    shown = {key: points for key, points in curves.items() if points}
    if not shown:
        return None
    figure = Figure(figsize=(5 * len(shown), 3.2), layout="constrained")
    for axes, (key, points) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        axes.plot(*zip(*points, strict=True), linewidth=1.2, marker="." if len(points) < 20 else "")
        axes.set_title(PANELS[key], fontsize=10)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    file = run / CURVES
    figure.savefig(file, dpi=110)
    return file
