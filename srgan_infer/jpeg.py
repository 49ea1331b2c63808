"""How strongly a JPEG file is compressed."""

from __future__ import annotations

from PIL import Image

# Sum of the 64 luma steps in Annex K of ITU-T T.81, which libjpeg scales by its quality.
ANNEX_K_SUM = 3688


def estimated_quality(image: Image.Image) -> int | None:
    """The quality at which libjpeg would quantise luma as coarsely as an opened file does.

    Parameters
    ----------
    image
        A file opened by Pillow; its pixels are not read.

    Returns
    -------
    int or None
        1 to 100, too high below 10, where steps end at 255; ``None`` without JPEG
        quantisation tables.
    """
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    percent: float = 100 * sum(tables[min(tables)]) / ANNEX_K_SUM
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return min(max(round(quality), 1), 100)
