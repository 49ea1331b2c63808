"""Draws docs/images/bands.svg: which rows each layer computes and keeps in one band.

python benchmarks/bands_picture.py
"""

from __future__ import annotations

from pathlib import Path

ROW, WIDE, GAP, TOP, LEFT = 13, 92, 34, 86, 20
ROWS, BAND, FED = 24, 6, 18
# Name, rows on each side that the layer reads.
LAYERS = (
    ("image", 0),
    ("stem 9×9", 4),
    ("block: 3×3", 1),
    ("block: 3×3, + skip", 1),
    ("next 3×3", 1),
)
GONE, KEPT, NEW, AHEAD = "#e9ebee", "#e2a33b", "#3f9463", "#ffffff"


def bars() -> list[str]:
    """One bar of rows for each layer."""
    parts = []
    done = FED  # rows of the layer to the left that are there
    for step, (name, reach) in enumerate(LAYERS):
        done -= reach
        # The next layer has yet to give the row ``done - its reach``, and reads its reach above.
        next_reach = LAYERS[step + 1][1] if step + 1 < len(LAYERS) else 1
        kept = done - 2 * next_reach
        x = LEFT + step * (WIDE + GAP)
        parts.append(f'<text x="{x + WIDE / 2}" y="{TOP - 12}" class="name">{name}</text>')
        for row in range(ROWS):
            colour = AHEAD
            if row < done:
                colour = KEPT if row >= kept else GONE
            if done - BAND <= row < done:
                colour = NEW
            y = TOP + row * ROW
            parts.append(
                f'<rect x="{x}" y="{y}" width="{WIDE}" height="{ROW - 2}" rx="2" fill="{colour}"/>'
            )
            if row >= kept and done - BAND <= row < done:
                parts.append(
                    f'<rect x="{x}" y="{y}" width="9" height="{ROW - 2}" rx="2" fill="{KEPT}"/>'
                )
        if step:
            y = TOP + (done - 1) * ROW + ROW // 2
            parts.append(f'<path d="M{x - GAP + 3} {y + reach * ROW} L{x - 4} {y}" class="lag"/>')
    return parts


def legend() -> list[str]:
    """What the colours mean."""
    entries = (
        (LEFT, NEW, "computed in this band"),
        (LEFT + 168, KEPT, "kept for the next band"),
        (LEFT + 338, GONE, "given on and forgotten"),
        (LEFT + 508, AHEAD, "not there yet"),
    )
    parts = []
    for x, colour, text in entries:
        parts.append(f'<rect x="{x}" y="20" width="14" height="14" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="32">{text}</text>')
    return parts


def main() -> None:
    """Write the file."""
    width = 2 * LEFT + len(LAYERS) * WIDE + (len(LAYERS) - 1) * GAP
    height = TOP + ROWS * ROW + 18
    style = (
        "text{font:12px sans-serif;fill:#222}.name{text-anchor:middle;font-weight:600}"
        "rect{stroke:#b9bec6;stroke-width:.6}.lag{stroke:#555;stroke-width:1.3;fill:none}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<style>{style}</style>",
        f'<rect width="{width}" height="{height}" fill="#fbfbfc" style="stroke:none"/>',
        *legend(),
        *bars(),
        "</svg>",
    ]
    target = Path(__file__).parent.parent / "docs/images/bands.svg"
    target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
