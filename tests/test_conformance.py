"""Every file of the conformance collection: readable ones are upscaled, broken ones named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import make_model

from srgan_infer import SuperResolver
from srgan_infer.errors import ImageError
from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.rows import DecodedImage
from srgan_infer.images.write import create

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "conformance"
if not FOLDER.is_dir():
    pytest.skip("the conformance images are not there", allow_module_level=True)

# Not images, but what lies beside them.
OTHER = {"LICENSE", "README", "expected_xmp.bin", "test.scan", "test1.icc.txt"} | {
    "test3.icc",
    "test3.icc.txt",
}
# Sound files of kinds that Pillow cannot read: they must say so.
BEYOND_PILLOW = {
    *("V3_A4_R4_G4_B4.bmp", "V3_A4_R4_G4_B4_Top_Down.bmp", "V3_X4_R4_G4_B4.bmp"),
    *("V3_X4_R4_G4_B4_Top_Down.bmp", "pal2.bmp", "pal2color.bmp", "rgb16-231.bmp"),
    *("rgb32-111110.bmp", "rgb32bf.bmp", "rgba16-1924.bmp", "rgba32-61754.bmp"),
    *("pal4rlecut.bmp", "rgb32f_color.tiff"),
    "testorig12.jpg",  # 12 bits a channel
}
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())


def is_broken(path: Path) -> bool:
    return path.name.lower().startswith("bad_") or (
        path.parent.name == "pngsuite" and path.name.startswith("x")
    )


def named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(FOLDER))) for path in paths]


READABLE = [p for p in FILES if not is_broken(p) and p.name not in OTHER | BEYOND_PILLOW]
UNREADABLE = [p for p in FILES if p not in READABLE]


def double(image: DecodedImage) -> Array:
    """Twice as large by repetition, alpha last: the shape of what a network would give."""
    rows = image.color[0 : image.color.shape[0]]
    if image.alpha is not None:
        rows = np.dstack([rows, image.alpha[:]])
    return rows.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("path", named(READABLE))
def test_readable(path: Path) -> None:
    file = open_file(path)
    width, height = file.size
    output = io.BytesIO()
    sources = []
    with create(
        output,
        format="png",
        size=(2 * width, 2 * height),
        channels=file.channels,
        dtype=file.dtype,
        metadata=file.metadata,
        n_frames=file.n_frames,
    ) as writer:
        for image in file.frames():
            sources.append(double(image))
            writer.write(sources[-1])
    assert len(sources) == file.n_frames
    big = open_file(output)
    assert big.size == (2 * width, 2 * height)
    assert big.dtype == (np.uint16 if file.dtype == np.float32 else file.dtype)
    results = [double(image)[::4, ::4] for image in big.frames()]
    if file.n_frames == 1 and file.dtype != np.float32:
        assert big.channels == file.channels
        source = sources[0][::2, ::2]
        seen = source[..., -1] > 0 if file.channels in (2, 4) else slice(None)
        assert np.array_equal(results[0][seen], source[seen])
    assert big.metadata.icc == file.metadata.icc
    assert big.metadata.xmp == file.metadata.xmp
    assert set(big.metadata.text) >= set(file.metadata.text)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return SuperResolver.from_pretrained(make_model(tmp_path_factory.mktemp("model")))


SMALL = [p for p in READABLE if p.stat().st_size < 20000]


@pytest.mark.filterwarnings("ignore::srgan_infer.errors.ImageWarning")
@pytest.mark.parametrize("path", named(SMALL))
def test_small_ones_are_upscaled(path: Path, resolver: SuperResolver) -> None:
    file = open_file(path)
    if file.size[0] * file.size[1] * file.n_frames > 200_000:
        pytest.skip("small as a file, large as an image")
    output = io.BytesIO()
    resolver.upscale_file(path, output, format="png")
    big = open_file(output)
    assert big.size == (4 * file.size[0], 4 * file.size[1])
    assert big.dtype == (np.uint16 if file.dtype == np.float32 else file.dtype)
    # Pillow joins frames that are equal.
    if big.n_frames > 1:
        assert sum(big.metadata.durations) == sum(file.metadata.durations)
    assert file.n_frames > 1 or big.channels == file.channels
    assert all(image.color.shape[:2] == big.size[::-1] for image in big.frames())


@pytest.mark.parametrize("path", named(UNREADABLE))
def test_broken_and_foreign_files_give_one_clear_sentence(path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        list(open_file(path).frames())
    text = str(caught.value)
    assert text.startswith(str(path))
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text.removeprefix(str(path))) > 15


CUT = [p for p in READABLE if p.stat().st_size > 200 and p.suffix != ".bin"]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Tag data larger")
@pytest.mark.parametrize("path", named(CUT[::3]))
def test_truncated_files_are_not_half_a_image(path: Path) -> None:
    whole = open_file(path)
    data = path.read_bytes()
    cut = io.BytesIO(data[: len(data) * 6 // 10])
    cut.name = path.name
    try:
        frames = list(open_file(cut).frames())
    except ImageError:
        return
    # What a format keeps behind its pixels may be missed, but no pixel.
    assert len(frames) == whole.n_frames
    for frame, other in zip(frames, whole.frames(), strict=True):
        assert np.array_equal(double(frame), double(other))


def one(name: str) -> tuple[SourceImage, Array]:
    file = open_file(next(FOLDER.rglob(name)))
    return file, double(next(file.frames()))[::2, ::2]


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [
        ("basn0g01.png", 1, "uint8"),
        ("basn0g16.png", 1, "uint16"),
        ("basn2c16.png", 3, "uint16"),
        ("basi4a16.png", 2, "uint16"),
        ("basn6a16.png", 4, "uint16"),
        ("basn3p08.png", 3, "uint8"),
        ("tbbn3p08.png", 4, "uint8"),
        ("tbbn0g04.png", 2, "uint8"),
        ("tbwn0g16.png", 2, "uint16"),
        ("tbbn2c16.png", 4, "uint16"),
        ("rgb-3c-16b.tiff", 3, "uint16"),
        ("monkey16.ppm", 3, "uint16"),
        ("fax4.tiff", 1, "uint8"),
        ("anim.webp", 4, "uint8"),
        ("any-disposal.gif", 4, "uint8"),
    ],
)
def test_channels_and_depth(name: str, channels: int, dtype: str) -> None:
    file, pixels = one(name)
    assert (file.channels, str(file.dtype)) == (channels, dtype)
    assert (pixels.shape[2], str(pixels.dtype)) == (channels, dtype)


def test_sixteen_bit_colour_has_its_low_bytes() -> None:
    # PngSuite's gradients: the same image with 8 and with 16 bits.
    _, deep = one("basn2c16.png")
    steps = len(np.unique(deep[..., 0]))
    assert steps > 16
    assert deep.max() == 65535
    assert (deep % 257 != 0).any()
    _, interlaced = one("basi2c16.png")
    assert np.array_equal(deep, interlaced)


def test_a_transparent_grey_is_found_at_any_depth() -> None:
    # The same image; its background is one transparent value of 4 and of 16 bits.
    for name in ("tbbn0g04.png", "tbwn0g16.png"):
        _, pixels = one(name)
        alpha = pixels[..., 1]
        assert 0.2 < (alpha == 0).mean() < 0.8, name
