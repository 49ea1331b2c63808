"""TIFF files of several pages: each is upscaled, and none is like it was alone."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from helpers import make_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer import ImageError, ImageWarning, SuperResolver
from srgan_infer.cli.main import main
from srgan_infer.images import pages as pages_module
from srgan_infer.images import tiff
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.read import open_file
from srgan_infer.images.write import create

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def sr(model: Path) -> SuperResolver:
    return SuperResolver.from_pretrained(model)


KINDS: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {
    "grey": ((), np.uint8, {"photometric": "minisblack"}),
    "colour": ((3,), np.uint8, {"photometric": "rgb"}),
    "transparent": ((4,), np.uint8, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "16 bits": ((3,), np.uint16, {"photometric": "rgb", "predictor": True}),
    "float": ((), np.float32, {"photometric": "minisblack"}),
    "black and white": ((), np.bool_, {"photometric": "minisblack"}),
    "tiles": ((3,), np.uint8, {"photometric": "rgb", "tile": (16, 16)}),
}


PLAIN: dict[str, Any] = {"metadata": None}


@st.composite
def leaves(draw: st.DrawFn) -> tuple[Array, dict[str, Any]]:
    """The pixels of a page, and how they are written."""
    channels, dtype, options = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), *channels)
    seed = draw(st.integers(0, 99))
    pixels = noise(shape, np.uint8, seed) > 127 if dtype == np.bool_ else noise(shape, dtype, seed)
    told = {
        "description": draw(st.sampled_from([None, "a letter", "its other side"])),
        "resolution": draw(st.sampled_from([None, (300, 300), (200, 100)])),
        "compression": draw(st.sampled_from([None, "zlib"])) if "predictor" not in options else 8,
        # A thumbnail now and then, which is no page.
        "subfiletype": draw(st.sampled_from([0, 0, 0, 2, 1])),
        "iccprofile": draw(st.sampled_from([None, bytes(16) + b"RGB " + bytes(112)])),
        "metadata": None,
    }
    return pixels, options | told


def written(
    leaves: list[tuple[Array, dict[str, Any]]], big: bool = False, order: Any = "<"
) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as writer:
        for pixels, options in leaves:
            writer.write(pixels, **options)
    return file.getvalue()


def simple(*shapes: tuple[int, ...]) -> bytes:
    """Pages of bytes of these shapes."""
    return written(
        [
            (
                noise(shape, seed=seed),
                PLAIN | {"photometric": ("minisblack", "rgb")[len(shape) - 2]},
            )
            for seed, shape in enumerate(shapes)
        ]
    )


def pages_of(file: tifffile.TiffFile) -> list[Any]:
    return list(file.pages)


def content(data: bytes) -> list[tuple[Array, dict[int, Any]]]:
    """Pixels and tags of every directory, but for what says where they lie in the file."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        own = {254, 273, 279, 297, 34665}
        return [
            (page.asarray(), {tag.code: tag.value for tag in page.tags if tag.code not in own})
            for page in pages_of(file)
        ]


def upscaled(sr: SuperResolver, data: bytes, format: str = "TIFF", **options: Any) -> bytes:
    output = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        sr.upscale_file(data, output, format=format, **options)
    return output.getvalue()


@settings(max_examples=40, deadline=None)
@given(
    made=st.lists(leaves(), min_size=1, max_size=4).filter(
        lambda found: any(one[1]["subfiletype"] != 1 for one in found)
    ),
    big=st.booleans(),
    order=st.sampled_from("<>"),
    size=st.sampled_from([{}, {"outscale": 2}, {"size": (9, 9)}, {"outscale": 5}]),
)
def test_each_page_is_what_it_is_alone(
    sr: SuperResolver, made: Any, big: bool, order: Any, size: dict[str, Any]
) -> None:
    full = [one for one in made if one[1]["subfiletype"] != 1]
    found = content(upscaled(sr, written(made, big, order), **size))
    assert len(found) == len(full)
    for one, (pixels, tags) in zip(full, found, strict=True):
        [(alone, alone_tags)] = content(upscaled(sr, written([one], big, order), **size))
        assert pixels.dtype == alone.dtype
        assert np.array_equal(pixels, alone)
        assert tags == alone_tags


@pytest.mark.parametrize("compression", ["jpeg", "group4", "tiff_lzw"])
@pytest.mark.parametrize("as_path", [False, True])
def test_scans_as_programs_write_them(
    sr: SuperResolver, tmp_path: Path, compression: str, as_path: bool
) -> None:
    mode = "1" if compression == "group4" else "L" if compression == "tiff_lzw" else "RGB"
    scans = [Image.fromarray(noise((40 + n, 30, 3), seed=n)).convert(mode) for n in range(3)]
    for number, scan in enumerate(scans):
        scan.info["dpi"] = (300 + number, 300 + number)
    path = tmp_path / "scan.tif"
    options = {"compression": compression}
    scans[0].save(path, save_all=True, append_images=scans[1:], dpi=(300, 300), **options)
    out = tmp_path / "large.tif"
    result = sr.upscale_file(path if as_path else path.read_bytes(), str(out))
    assert (result.pages, result.frames, result.size) == (3, 1, (120, 160))
    with Image.open(path) as source, Image.open(out) as large:
        assert large.n_frames == 3  # type: ignore[attr-defined]
        for number in range(3):
            source.seek(number)
            large.seek(number)
            alone = io.BytesIO()
            source.copy().convert("L" if mode == "1" else mode).save(alone, "PNG")
            with Image.open(io.BytesIO(upscaled(sr, alone.getvalue(), "PNG"))) as wanted:
                assert np.array_equal(np.asarray(large), np.asarray(wanted))
            assert large.info["dpi"] == source.info["dpi"]


def test_a_page_behind_its_thumbnail_is_the_one_that_is_decoded(sr: SuperResolver) -> None:
    """Also where Pillow decodes it, which takes the first image of a file."""
    rows, columns = np.mgrid[:32, :48]
    smooth = (3 * rows + 2 * columns).astype(np.uint8)
    data = written(
        [
            (noise((8, 12, 3)), {"photometric": "rgb", "subfiletype": 1}),
            (smooth, {"photometric": "minisblack", "compression": "jpeg", "metadata": None}),
        ]
    )
    opened = open_file(data)
    assert (opened.size, opened.n_pages) == ((48, 32), 1)
    found = next(opened.frames()).color[0:32][..., 0]
    assert np.abs(found.astype(int) - smooth).max() < 9


def test_other_formats_take_the_first_page_and_say_so(sr: SuperResolver, tmp_path: Path) -> None:
    data = simple((6, 8, 3), (5, 5), (7, 7))
    for name in ("a.png", "a.jpg", "a.webp"):
        with pytest.warns(ImageWarning, match="Only the first of the 3 pages"):
            result = sr.upscale_file(data, tmp_path / name)
        assert (result.pages, result.size) == (1, (32, 24))
        with Image.open(tmp_path / name) as image:
            assert (image.size, getattr(image, "n_frames", 1)) == ((32, 24), 1)
    with pytest.warns(ImageWarning, match="Only the first of the 3 pages"):
        assert sr(data).size == (32, 24)


def test_the_plan_and_the_progress_know_the_pages(sr: SuperResolver) -> None:
    data = simple((40, 30, 3), (5, 5), (20, 64))
    seen: list[tuple[int, int]] = []
    plan = sr.plan_file(data, tile=16)
    assert (plan.pages, plan.frames, plan.format) == (3, 1, "TIFF")
    assert plan.input_pixels == 40 * 30 + 5 * 5 + 20 * 64
    assert [cut.size for cut in plan.cuts] == [(120, 160), (20, 20), (256, 80)]
    upscaled(sr, data, tile=16, progress=lambda *step: seen.append(step))
    assert seen == [(number, plan.steps) for number in range(1, plan.steps + 1)]
    # Many pages take the memory of one.
    assert sr.plan_file(simple(*[(40, 30)] * 9)).memory_bytes == (
        sr.plan_file(simple((40, 30))).memory_bytes
    )
    assert sr.plan_file(data, "out.png").pages == 1


def test_max_pixels_counts_the_pages_that_are_taken(sr: SuperResolver) -> None:
    data = simple((10, 10), (10, 10), (10, 10))
    for call in (sr.plan_file, lambda file, **options: upscaled(sr, file, **options)):
        call(data, max_pixels=300)
        with pytest.raises(ImageError, match="300 pixels in 3 pages, which is more than the 299"):
            call(data, max_pixels=299)
    assert upscaled(sr, data, "PNG", max_pixels=100)
    with pytest.raises(ImageError, match="10×10 pixels, which is more than the 99"):
        upscaled(sr, data, "PNG", max_pixels=99)


def test_what_holds_for_some_pages_is_said_of_them(sr: SuperResolver) -> None:
    colour = PLAIN | {"photometric": "rgb"}
    odd = (noise((4, 4, 4)), colour | {"extrasamples": ["unspecified"]})
    plain = (noise((4, 4, 3)), colour)
    sentence = "It has a channel that is neither colour nor transparency: left out."

    def told(*made: Any) -> tuple[str, ...]:
        data = written(list(made))
        planned = sr.plan_file(data).warnings
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert sr.upscale_file(data, io.BytesIO()).warnings == planned
        assert tuple(str(one.message) for one in heard) == planned
        return planned

    assert told(odd, odd, odd) == (sentence,)
    assert told(plain, odd) == (f"Page 2: {sentence}",)
    assert told(odd, plain, odd) == (f"Pages 1, 3: {sentence}",)
    assert told(plain, *[odd] * 7) == (f"Pages 2, 3, 4, 5, 6 and 2 more: {sentence}",)


def test_a_damaged_page_is_named_and_nothing_is_left(sr: SuperResolver, tmp_path: Path) -> None:
    data = bytearray(simple((9, 9, 3), (9, 9, 3)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        entry = pages_of(file)[1].tags[273]
    struct.pack_into("<H", data, entry.offset + 2, 4)
    struct.pack_into("<II", data, entry.offset + 4, 1, len(data) - 5)
    (tmp_path / "in.tif").write_bytes(data)
    with pytest.raises(ImageError, match=r"in\.tif, page 2, cannot be used: it is cut short"):
        sr.upscale_file(tmp_path / "in.tif", tmp_path / "out.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_a_page_that_cannot_be_read_is_found_before_the_first_is_computed(
    sr: SuperResolver, tmp_path: Path
) -> None:
    jpeg2000 = 34712
    data = bytearray(simple((4, 4), (4, 4)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        entry = pages_of(file)[1].tags[259]
    struct.pack_into("<H", data, entry.offset + 8, jpeg2000)
    (tmp_path / "in.tif").write_bytes(data)

    def never(done: int, total: int) -> None:
        raise AssertionError

    with pytest.raises(ImageError, match=r"in\.tif, page 2, .*JPEG 2000"):
        sr.upscale_file(tmp_path / "in.tif", tmp_path / "out.tif", progress=never)
    with pytest.raises(ImageError, match="page 2"):
        sr.plan_file(tmp_path / "in.tif", "out.tif")
    with pytest.warns(ImageWarning, match="first of the 2 pages"):
        sr.upscale_file(tmp_path / "in.tif", tmp_path / "out.png")


def test_a_chain_that_breaks_off_is_told_of(sr: SuperResolver) -> None:
    data = simple((4, 4), (5, 5), (6, 6))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        third = pages_of(file)[2].offset
    cut = data[: third + 5]
    output = io.BytesIO()
    with pytest.warns(ImageWarning, match="Page 2: What follows it .* pages may be missing"):
        assert sr.upscale_file(cut, output).pages == 2


def test_directories_in_a_circle_end_and_too_many_are_refused(
    sr: SuperResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(simple((4, 4), (5, 5), (6, 6)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        first, _, last = pages_of(file)
        end = last.offset + 2 + 12 * len(last.tags)
    struct.pack_into("<I", data, end, first.offset)
    assert open_file(bytes(data)).n_pages == 3
    monkeypatch.setattr(pages_module, "MOST", 2)
    with pytest.raises(ImageError, match="more than 2 pages; split it"):
        open_file(bytes(data))


def test_pages_that_exceed_four_gigabytes_together_become_a_bigtiff(
    sr: SuperResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", 12000)
    few, many = simple((20, 20)), simple(*[(20, 20)] * 2)
    assert upscaled(sr, few)[2] == 42
    large = upscaled(sr, many)
    assert large[2] == 43
    [(alone, _)] = content(upscaled(sr, few))
    assert np.array_equal(content(large)[0][0], alone)


def test_the_command_knows_pages(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    source.write_bytes(simple((6, 8, 3), (5, 5)))
    name = [str(source), str(target), "--model", str(model)]
    assert main([*name, "--dry-run"]) == 0
    assert "32x24, 2 pages" in capsys.readouterr().err
    assert main([*name, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["pages"], planned["frames"], planned["steps"]) == (2, 1, 2)
    assert main([*name, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["pages"], done["output_size"]) == (2, [32, 24])
    assert [len(pixels) for pixels, _ in content(target.read_bytes())] == [24, 20]


def test_pages_that_were_announced_have_to_come(tmp_path: Path) -> None:
    page: dict[str, Any] = {"size": (2, 2), "channels": 1, "dtype": np.uint8}
    rows = np.zeros((2, 2, 1), np.uint8)

    def write(n_pages: int, heights: list[int]) -> None:
        with create(tmp_path / "a.tif", n_pages=n_pages, **page) as writer:
            writer.write(rows[: heights[0]])
            for height in heights[1:]:
                writer.next_page(**page, metadata=Metadata())
                writer.write(rows[:height])

    with pytest.raises(ValueError, match="1 of 2 pages"):
        write(2, [2])
    with pytest.raises(ValueError, match="1 of 2 rows"):
        write(2, [1, 2])
    with pytest.raises(ValueError, match="1 pages were announced"):
        write(1, [2, 2])
    assert not list(tmp_path.iterdir())
    write(2, [2, 2])


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, tifffile
from srgan_infer.images.read import open_file
from srgan_infer.images.write import create

def highest(count):
    source = Path(sys.argv[1]) / f"{count}.tif"
    page = np.zeros((300, 400, 3), np.uint8)
    with tifffile.TiffWriter(source) as file:
        for number in range(count):
            page[number:, :, 1] = number
            file.write(page, photometric="rgb", metadata=None)
    size, kind = (1600, 1200), np.dtype(np.uint8)
    with create(source.with_suffix(".out.tif"), size=size, channels=3, n_pages=count) as writer:
        for number, page in enumerate(open_file(source).pages()):
            if number:
                writer.next_page(size, 3, kind, page.metadata)
            for image in page.frames():
                for top in range(0, 300, 10):
                    writer.write(image.color[top : top + 10].repeat(4, 0).repeat(4, 1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = highest(4)
print(highest(30) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_memory_does_not_grow_with_the_pages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    all_pages = 30 * 1600 * 1200 * 3
    assert int(done.stdout) < all_pages / 4
    with tifffile.TiffFile(tmp_path / "30.out.tif") as file:
        assert [page.shape for page in pages_of(file)] == [(1200, 1600, 3)] * 30
