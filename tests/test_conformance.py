"""Files of every kind: sound ones are read and upscaled, broken ones named."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import pytest
from conformance import Made, cut, flipped, sound
from helpers import make_model

from srgan_infer import SuperResolver
from srgan_infer.errors import ImageError
from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.rows import DecodedImage
from srgan_infer.images.write import create

Array = npt.NDArray[Any]

# More files, where they lie beside a checkout: PngSuite, and those of image-rs and mozjpeg.
FOLDER = Path(__file__).parents[2] / "shared" / "data" / "conformance"
# Not images, but what lies beside them.
OTHER = {"LICENSE", "README", "expected_xmp.bin", "test.scan", "test1.icc.txt"} | {
    "test3.icc",
    "test3.icc.txt",
}
# Sound files of kinds that are not read: they must say so.
NOT_READ = {
    *("V3_A4_R4_G4_B4.bmp", "V3_A4_R4_G4_B4_Top_Down.bmp", "V3_X4_R4_G4_B4.bmp"),
    *("V3_X4_R4_G4_B4_Top_Down.bmp", "pal2.bmp", "pal2color.bmp", "rgb16-231.bmp"),
    *("rgb32-111110.bmp", "rgb32bf.bmp", "rgba16-1924.bmp", "rgba32-61754.bmp"),
    *("pal4rlecut.bmp", "rgb32f_color.tiff"),  # whose values go beyond 1
    "testorig12.jpg",  # 12 bits a channel
}


def is_broken(path: Path) -> bool:
    return path.name.lower().startswith("bad_") or (
        path.parent.name == "pngsuite" and path.name.startswith("x")
    )


LYING = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.name not in OTHER]
READ = list(sound()) + [
    Made(str(path.relative_to(FOLDER)), path.read_bytes(), frames=0)
    for path in LYING
    if not is_broken(path) and path.name not in NOT_READ
]
UNREAD = [path for path in LYING if is_broken(path) or path.name in NOT_READ]
every = pytest.mark.parametrize("made", READ, ids=[made.name for made in READ])


def pixels_of(image: DecodedImage) -> Array:
    rows = image.color[0 : image.color.shape[0]]
    if image.alpha is None:
        return rows
    return np.dstack([rows, image.alpha[0 : image.color.shape[0]]])


def visible(file: SourceImage, pixels: Array) -> Array | slice:
    return pixels[..., -1] > 0 if file.channels in (2, 4) else slice(None)


@pytest.mark.parametrize("made", sound(), ids=[made.name for made in sound()])
def test_made_files_are_read_exactly(made: Made) -> None:
    file = open_file(made.data)
    frames = [pixels_of(frame) for frame in file.frames()]
    assert len(frames) == made.frames
    assert file.warnings == ()
    assert all(frame.shape == (*file.size[::-1], file.channels) for frame in frames)
    if made.pixels is not None:
        assert frames[0].dtype == made.pixels.dtype
        assert frames[0].shape == made.pixels.shape
        seen = visible(file, made.pixels)
        assert np.array_equal(frames[0][seen], made.pixels[seen])
        if file.channels in (2, 4):
            assert np.array_equal(frames[0][..., -1], made.pixels[..., -1])


@every
def test_what_is_read_can_be_written_and_read_again(made: Made) -> None:
    file = open_file(made.data)
    output = io.BytesIO()
    sources = []
    with create(
        output,
        format="png",
        size=file.size,
        channels=file.channels,
        dtype=file.dtype,
        metadata=file.metadata,
        n_frames=file.n_frames,
    ) as writer:
        for image in file.frames():
            sources.append(pixels_of(image))
            writer.write(sources[-1])
    assert len(sources) == file.n_frames
    again = open_file(output)
    assert again.size == file.size
    assert again.dtype == (np.uint16 if file.dtype == np.float32 else file.dtype)
    results = [pixels_of(image) for image in again.frames()]
    if file.n_frames == 1 and file.dtype != np.float32:
        assert again.channels == file.channels
        seen = visible(file, sources[0])
        assert np.array_equal(results[0][seen], sources[0][seen])
    assert again.metadata.icc == file.metadata.icc
    assert again.metadata.xmp == file.metadata.xmp
    assert set(again.metadata.text) >= set(file.metadata.text)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return SuperResolver.from_pretrained(make_model(tmp_path_factory.mktemp("model")))


def is_small(made: Made) -> bool:
    file = open_file(made.data)
    return file.size[0] * file.size[1] * file.n_frames <= 50_000


SMALL = [made for made in READ if len(made.data) < 20000 and is_small(made)]


@pytest.mark.filterwarnings("ignore::srgan_infer.errors.ImageWarning")
@pytest.mark.parametrize("made", SMALL, ids=[made.name for made in SMALL])
def test_small_ones_are_upscaled(made: Made, resolver: SuperResolver) -> None:
    file = open_file(made.data)
    output = io.BytesIO()
    resolver.upscale_file(made.data, output, format="png")
    big = open_file(output)
    assert big.size == (4 * file.size[0], 4 * file.size[1])
    assert big.dtype == (np.uint16 if file.dtype == np.float32 else file.dtype)
    # Pillow joins frames that are equal.
    if big.n_frames > 1:
        assert sum(big.metadata.durations) == sum(file.metadata.durations)
    assert file.n_frames > 1 or big.channels == file.channels
    assert all(image.color.shape[:2] == big.size[::-1] for image in big.frames())


def outcome(data: bytes) -> ImageError | tuple[SourceImage, list[Array]]:
    """What becomes of a file: its frames, or the reason why there are none."""
    try:
        file = open_file(data, max_pixels=10**6)
        return file, [pixels_of(frame) for frame in file.frames()]
    except ImageError as error:
        return error


def is_one_sentence(error: ImageError, name: str) -> bool:
    text = str(error)
    said = text.removeprefix(name)
    return text.startswith(name) and text.endswith(".") and "\n" not in text and len(said) > 15


@pytest.mark.parametrize("path", UNREAD, ids=[path.name for path in UNREAD])
def test_broken_and_foreign_files_give_one_clear_sentence(path: Path) -> None:
    if path.name == "pal4rlecut.bmp" and int(PIL.__version__.split(".")[0]) < 13:
        return  # which earlier releases of Pillow take for a whole image
    with pytest.raises(ImageError) as caught:
        list(open_file(path).frames())
    assert is_one_sentence(caught.value, str(path))


@every
def test_files_that_are_cut_are_not_half_an_image(made: Made) -> None:
    whole = [pixels_of(frame) for frame in open_file(made.data).frames()]
    for what, data in cut(made.data):
        found = outcome(data)
        if isinstance(found, ImageError):
            assert is_one_sentence(found, "The image")
            continue
        # What a format keeps behind its pixels may be missed, but no pixel.
        file, frames = found
        assert len(frames) == len(whole) or "frames may be missing" in file.warnings[0], what
        for frame, other in zip(frames, whole, strict=False):
            assert np.array_equal(frame, other), what


def changed() -> Iterator[tuple[str, bytes]]:
    for made in sound():
        for what, data in flipped(made.data):
            yield f"{made.name}, {what}", data


def test_a_flipped_bit_gives_an_image_or_one_sentence() -> None:
    refused = 0
    for name, data in changed():
        found = outcome(data)
        if isinstance(found, ImageError):
            refused += 1
            assert is_one_sentence(found, "The image"), name
        else:
            file, frames = found
            assert all(frame.shape == (*file.size[::-1], file.channels) for frame in frames), name
    assert refused > 100  # the rest are bits of pixels
