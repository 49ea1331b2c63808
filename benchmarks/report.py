"""The report on what was measured: Markdown and a plot."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

FLOOR = "direct-convolution floor"
OURS, OURS_FLOAT32 = "srgan-infer", "srgan-infer, float32"
TITLES = {
    "192": "192×192, processor",
    "512": "512×512, processor",
    "1mp": "1 Mpixel, processor",
    "avx2": "192×192, without AVX-512",
}


def write(results: dict[str, Any], docs: Path) -> None:
    """Write benchmarks.md and images/benchmarks.png."""
    parts = results["parts"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`; [performance.md](performance.md) explains it.",
        "Within a part all contenders take turns, each in its own process: seconds are medians"
        " with the quartiles in brackets, ratios are medians of the ratios within a round.",
        "",
        ", ".join(f"{name} {value}" for name, value in results["machine"].items()) + ".",
    ]
    for name, title in TITLES.items():
        if name in parts:
            lines += ["", f"## {title}", "", *table(parts[name])]
            if "left_out" in parts[name]:
                lines += ["", parts[name]["left_out"]]
    if "pixels" in parts:
        lines += ["", "## Time for a pixel as images grow", "", *growth(parts["pixels"])]
    if "files" in parts:
        lines += ["", "## From a JPEG file to a PNG file, start of the process included", ""]
        lines += ["| what | seconds |", "|---|---|"]
        lines += [f"| {n} | {spread(s)} |" for n, s in parts["files"]["seconds"].items()]
    if "memory" in parts:
        lines += ["", "## Peak resident memory, from a JPEG file to a PNG file", ""]
        lines += ["| image | MiB | seconds |", "|---|---|---|"]
        for name, peak in parts["memory"]["peaks"].items():
            lines.append(f"| {name} | {peak['mebibytes']:.0f} | {peak['seconds']:.1f} |")
    lines += ["", "## GPU", ""]
    device = parts.get("gpu", {})
    if "device" not in device:
        lines.append("Not measured: there was no CUDA GPU.")
    else:
        for side in (key for key in device if key.isdigit()):
            lines += [f"{device['device']}, {side}×{side}:", "", *table(device[side]), ""]
    (docs / "benchmarks.md").write_text("\n".join(lines) + "\n")
    plot(parts, docs / "images" / "benchmarks.png")


def spread(seconds: list[float]) -> str:
    """Median and quartiles."""
    if len(seconds) < 2:
        return f"{seconds[0]:.3f}"
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of their time over ours, round by round."""
    return statistics.median(t / o for o, t in zip(ours, theirs, strict=True))


def table(part: dict[str, Any]) -> list[str]:
    """Contenders from slow to fast."""
    ours = {name: part["seconds"][name] for name in (OURS, OURS_FLOAT32) if name in part["seconds"]}
    heads = ["contender", "seconds", "GFLOP/s", *(f"its time over {name}" for name in ours)]
    heads += ["off by at most", "identical"]
    lines = [row(heads), row(["---"] * len(heads))]
    for name, seconds in sorted(part["seconds"].items(), key=lambda x: -statistics.median(x[1])):
        same = part["same"].get(name)
        rate = part["gflop"] / statistics.median(seconds)
        cells = [name, spread(seconds), f"{rate:.0f}"]
        cells += [f"{ratio(reference, seconds):.2f}" for reference in ours.values()]
        cells += [str(same["levels"]), f"{same['identical']:.3%}"] if same else ["", ""]
        lines.append(row(cells))
    return lines


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def growth(part: dict[str, Any]) -> list[str]:
    """Microseconds for an input pixel."""
    first = next(iter(part["seconds"].values()))
    lines = ["| image | seconds | µs a pixel | to the smallest |", "|---|---|---|---|"]
    areas = [side * side for side in part["sides"]]
    for (name, seconds), area in zip(part["seconds"].items(), areas, strict=True):
        cost = statistics.median(seconds) / area * 1e6
        times = ratio(first, seconds) * areas[0] / area
        lines.append(f"| {name} | {spread(seconds)} | {cost:.2f} | {times:.3f} |")
    return lines


def plot(parts: dict[str, Any], path: Path) -> None:
    """Bars of the contenders' times over ours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in ("192", "512", "1mp") if name in parts]
    if not shown:
        return
    heights = [len(parts[name]["seconds"]) for name in shown]
    figure, axes = pyplot.subplots(
        len(shown),
        1,
        figsize=(8, 0.8 + 0.36 * sum(heights) + 0.6 * len(shown)),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axis, name in zip(axes[:, 0], shown, strict=True):
        seconds = parts[name]["seconds"]
        order = sorted(seconds, key=lambda key: -statistics.median(seconds[key]))
        values = [statistics.median(seconds[key]) for key in order]
        colours = [
            "#2b7a4b" if key.startswith(OURS) else "#bbbbbb" if key == FLOOR else "#6f86a8"
            for key in order
        ]
        bars = axis.barh(order, values, color=colours)
        axis.bar_label(bars, [f"{value:.2f} s" for value in values], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(TITLES[name], loc="left", fontsize=10)
        axis.set_xlim(0, max(values) * 1.12)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("seconds, less is better", fontsize=8)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
