"""Animated PNG: frames are put together as the specification says, in 8 and in 16 bits."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from conformance import GREY, GREY_ALPHA, PALETTE, PNG_SAMPLES, RGB, RGBA, chunk
from helpers import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer import ImageError, SuperResolver
from srgan_infer.images import apng
from srgan_infer.images.read import open_file

Array = npt.NDArray[Any]
Canvas = dict[tuple[int, int], tuple[Fraction, ...]]
WIDTH, HEIGHT = 5, 4
TYPES = [(GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16), (GREY_ALPHA, 16), (RGBA, 8), (RGBA, 16)]


def frame(size: tuple[int, int], kind: int, bits: int, seed: int) -> Array:
    values = [0, 1, 2**bits // 2, 2**bits - 2, 2**bits - 1]
    picked = np.random.default_rng(seed).choice(values, (size[1], size[0], PNG_SAMPLES[kind]))
    return picked.astype(f"u{bits // 8}")


def control(number: int, part: dict[str, Any]) -> bytes:
    (width, height), (left, top) = part["size"], part["place"]
    return struct.pack(
        ">IIIIIHHBB", number, width, height, left, top, 1, 25, part["dispose"], part["blend"]
    )


def packed(pixels: Array) -> bytes:
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def animated(
    parts: list[dict[str, Any]],
    kind: int,
    bits: int,
    *extra: tuple[bytes, bytes],
    still: Array | None = None,
) -> bytes:
    """An APNG; with ``still``, this is what programs show that know no animations."""
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    data += chunk(b"acTL", struct.pack(">II", len(parts), 0))
    data += b"".join(chunk(*one) for one in extra)
    if still is not None:
        data += chunk(b"IDAT", packed(still))
    number = 0
    for index, part in enumerate(parts):
        data += chunk(b"fcTL", control(number, part))
        number += 1
        if index == 0 and still is None:
            data += chunk(b"IDAT", packed(part["pixels"]))
        else:  # in two pieces
            content = packed(part["pixels"])
            for piece in (content[:9], content[9:]):
                data += chunk(b"fdAT", struct.pack(">I", number) + piece)
                number += 1
    return data + chunk(b"IEND", b"")


def shown(parts: list[dict[str, Any]], kind: int, bits: int) -> list[Canvas]:
    """What each frame shows, by the book and in exact numbers: colours and alpha from 0 to 1."""
    top = 2**bits - 1
    empty = (Fraction(0),) * (2 if kind in (GREY, GREY_ALPHA) else 4)
    canvas = {(x, y): empty for x in range(WIDTH) for y in range(HEIGHT)}
    result = []
    for index, part in enumerate(parts):
        before = dict(canvas)
        (width, height), (left, top_) = part["size"], part["place"]
        inside = [(x, y) for x in range(left, left + width) for y in range(top_, top_ + height)]
        for x, y in inside:
            color = [Fraction(int(v), top) for v in part["pixels"][y - top_, x - left]]
            if kind in (GREY, RGB):
                color.append(Fraction(1))
            if part["blend"] == apng.OVER:
                *below, under = canvas[x, y]
                *above, over = color
                alpha = over + under * (1 - over)
                mixed = [
                    (a * over + b * under * (1 - over)) / alpha if alpha else Fraction(0)
                    for a, b in zip(above, below, strict=True)
                ]
                color = [*mixed, alpha]
            # Frames are laid on what is stored, which is rounded.
            canvas[x, y] = tuple(Fraction(int(v * top + Fraction(1, 2)), top) for v in color)
        result.append(dict(canvas))
        dispose = part["dispose"]
        if dispose == apng.RESTORE and index:
            canvas = before
        elif dispose:
            canvas |= dict.fromkeys(inside, empty)
    return result


@st.composite
def part(draw: st.DrawFn, kind: int, bits: int) -> dict[str, Any]:
    left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    size = draw(st.integers(1, WIDTH - left)), draw(st.integers(1, HEIGHT - top))
    return {
        "size": size,
        "place": (left, top),
        "dispose": draw(st.integers(0, 2)),
        "blend": draw(st.integers(0, 1)),
        "pixels": frame(size, kind, bits, draw(st.integers(0, 2**32))),
    }


def whole(pixels: Array, dispose: int = 0, blend: int = 0) -> dict[str, Any]:
    return {
        "size": (WIDTH, HEIGHT),
        "place": (0, 0),
        "dispose": dispose,
        "blend": blend,
        "pixels": pixels,
    }


def read(data: bytes) -> tuple[Any, list[Array]]:
    """The file, and its frames as (H, W, channels), hidden colours as they come."""
    file = open_file(data)
    frames = []
    for image in file.frames():
        planes = [image.color[0:HEIGHT]]
        if image.alpha is not None:
            planes.append(image.alpha[0:HEIGHT][..., None])
        frames.append(np.concatenate(planes, axis=2))
    return file, frames


@settings(deadline=None)
@given(st.data())
def test_frames_are_put_together_by_the_book(data: st.DataObject) -> None:
    kind, bits = data.draw(st.sampled_from(TYPES))
    parts = data.draw(st.lists(part(kind, bits), min_size=2, max_size=4))
    still = data.draw(st.sampled_from([None, frame((WIDTH, HEIGHT), kind, bits, 1)]))
    if still is None:
        parts[0] |= whole(frame((WIDTH, HEIGHT), kind, bits, 2), parts[0]["dispose"])
    file, frames = read(animated(parts, kind, bits, still=still))
    assert file.n_frames == len(frames) == len(parts)
    assert file.warnings == ()
    top = 2**bits - 1
    for found, right in zip(frames, shown(parts, kind, bits), strict=True):
        assert found.dtype == f"u{bits // 8}"
        assert found.shape[2] == file.channels
        for (x, y), (*color, alpha) in right.items():
            pixel = [Fraction(int(value), top) for value in found[y, x]]
            if file.channels in (2, 4):
                assert pixel.pop() == alpha
            else:
                assert alpha == 1
            assert not alpha or pixel == color


def test_images_without_transparency_get_it_only_where_something_is_empty() -> None:
    pixels = frame((WIDTH, HEIGHT), RGB, 16, 0)
    small = {**whole(pixels[1:3, 1:4]), "size": (3, 2), "place": (1, 1)}
    cases = (
        ([whole(pixels), whole(pixels)], 3),
        ([whole(pixels, apng.CLEAR), whole(pixels)], 3),
        ([whole(pixels), {**small, "dispose": apng.CLEAR}, small], 3),
        ([whole(pixels, apng.CLEAR), small], 4),
        ([whole(pixels, apng.RESTORE), small], 4),
    )
    for parts, channels in cases:
        assert open_file(animated(parts, RGB, 16)).channels == channels
    assert open_file(animated([small, whole(pixels)], RGB, 16, still=pixels)).channels == 4


@pytest.mark.parametrize(("kind", "bits"), [(GREY, 16), (RGB, 16), (GREY, 8), (RGB, 8)])
def test_a_transparent_colour(kind: int, bits: int) -> None:
    pixels = frame((WIDTH, HEIGHT), kind, bits, 3)
    key = b"".join(struct.pack(">H", int(value)) for value in pixels[1, 2])
    parts = [whole(pixels), whole(frame((WIDTH, HEIGHT), kind, bits, 4), blend=apng.OVER)]
    file, (first, second) = read(animated(parts, kind, bits, (b"tRNS", key)))
    assert file.channels == pixels.shape[2] + 1
    clear = (pixels == pixels[1, 2]).all(axis=2)
    assert np.array_equal(first[..., -1] == 0, clear)
    assert np.array_equal(first[~clear][:, :-1], pixels[~clear])
    through = (parts[1]["pixels"] == pixels[1, 2]).all(axis=2)
    assert np.array_equal(second[~through][:, :-1], parts[1]["pixels"][~through])
    assert np.array_equal(second[through & ~clear], first[through & ~clear])


def test_palettes() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (16, 3)).astype(np.uint8)
    parts = [
        whole(np.random.default_rng(seed).integers(0, 16, (HEIGHT, WIDTH, 1)).astype(np.uint8))
        for seed in range(2)
    ]
    extra = (b"PLTE", colors.tobytes()), (b"tRNS", bytes([255] * 15 + [100]))
    _, frames = read(animated(parts, PALETTE, 8, *extra))
    for one, found in zip(parts, frames, strict=True):
        assert np.array_equal(found[..., :3], colors[one["pixels"][..., 0]])
        assert np.array_equal(found[..., 3], np.where(one["pixels"][..., 0] == 15, 100, 255))


class TestResults:
    @pytest.fixture(scope="class")
    def sr(self, tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
        return SuperResolver.from_pretrained(make_model(tmp_path_factory.mktemp("model")))

    def data(self, kind: int = RGBA) -> bytes:
        return animated([whole(frame((WIDTH, HEIGHT), kind, 16, n)) for n in range(3)], kind, 16)

    @pytest.mark.parametrize("kind", [GREY, RGB, GREY_ALPHA, RGBA])
    def test_sixteen_bits_are_kept(self, kind: int, sr: SuperResolver) -> None:
        data, out = self.data(kind), io.BytesIO()
        result = sr.upscale_file(data, out)
        assert (result.frames, result.warnings) == (3, ())
        file = open_file(out)
        assert (file.n_frames, file.channels) == (3, PNG_SAMPLES[kind])
        assert file.dtype == np.uint16
        assert file.metadata.durations == (40, 40, 40)
        for image, source in zip(file.frames(), open_file(data).frames(), strict=True):
            planes = [source.color[0:HEIGHT]]
            if source.alpha is not None:
                planes.append(source.alpha[0:HEIGHT][..., None])
            alone = sr(np.concatenate(planes, axis=2))
            color = image.color[0 : 4 * HEIGHT]
            seen = np.ones(color.shape[:2], bool)
            if image.alpha is not None:
                alpha = image.alpha[0 : 4 * HEIGHT]
                assert np.array_equal(alpha, alone[..., -1])
                seen = alpha > 0
            assert np.array_equal(color[seen], alone[..., : color.shape[2]][seen])
        # Others see the first frame, and all of its bits.
        first = imagecodecs.png_decode(out.getvalue())
        assert first.dtype == np.uint16
        with Image.open(out) as opened:
            assert getattr(opened, "n_frames", 1) == 3

    @pytest.mark.parametrize("format", ["gif", "webp"])
    def test_formats_of_eight_bits_say_so(self, format: str, sr: SuperResolver) -> None:
        plan = sr.plan_file(self.data(), format=format)
        assert any("8 bits a channel" in warning for warning in plan.warnings)
        assert sr.upscale_file(self.data(), io.BytesIO(), format=format).frames == 3

    def test_sixteen_bits_take_twice_the_memory_of_eight(self, sr: SuperResolver) -> None:
        eight = animated([whole(frame((WIDTH, HEIGHT), RGBA, 8, n)) for n in range(2)], RGBA, 8)
        sixteen = animated([whole(frame((WIDTH, HEIGHT), RGBA, 16, n)) for n in range(2)], RGBA, 16)
        assert sr.plan_file(sixteen).memory_bytes > sr.plan_file(eight).memory_bytes


class TestDamage:
    def parts(self) -> list[dict[str, Any]]:
        return [whole(frame((WIDTH, HEIGHT), RGB, 16, n)) for n in range(3)]

    def test_frames_out_of_order(self) -> None:
        data = animated(self.parts(), RGB, 16)
        at = data.index(b"fdAT") - 4
        (length,) = struct.unpack_from(">I", data, at)
        without = data[:at] + data[at + 12 + length :]
        with pytest.raises(ImageError, match="its frames are out of order"):
            open_file(without)

    @pytest.mark.parametrize("place", [(1, 0), (0, 1), (2**31, 0)])
    def test_a_frame_beside_the_image(self, place: tuple[int, int]) -> None:
        parts = self.parts()
        parts[1]["place"] = place
        with pytest.raises(ImageError, match="lies beside the image"):
            open_file(animated(parts, RGB, 16))

    @pytest.mark.parametrize("kind", [b"fdAT", b"fcTL"])
    def test_a_wrong_checksum(self, kind: bytes) -> None:
        data = bytearray(animated(self.parts(), RGB, 16))
        data[data.rindex(kind) + 24] ^= 4
        with pytest.raises(ImageError, match=f"the checksum of its {kind.decode()} data is wrong"):
            list(open_file(data).frames())

    def test_pixels_that_are_missing(self) -> None:
        parts = self.parts()
        parts[2]["pixels"] = parts[2]["pixels"][:1]
        frames = open_file(animated(parts, RGB, 16)).frames()
        next(frames)
        next(frames)
        with pytest.raises(ImageError, match="cut short: rows are missing"):
            next(frames)
