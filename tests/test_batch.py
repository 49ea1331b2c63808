"""Images in the rows of a table."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_infer import SuperResolver, WeightsError
from srgan_infer.batch import UpscaleBatch


def encoded(size: tuple[int, int] = (6, 5), format: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture
def upscale(model_folder: Path) -> UpscaleBatch:
    return UpscaleBatch(str(model_folder), device="cpu")


def test_columns_in_columns_out(upscale: UpscaleBatch, model_folder: Path) -> None:
    data = encoded()
    batch = {"bytes": [data, encoded(format="JPEG")], "id": np.array([7, 8])}
    out = upscale(batch)
    assert set(out) == {"bytes", "id", "upscaled", "error"}
    assert out["error"] == [None, None]
    assert list(out["id"]) == [7, 8]
    expected = SuperResolver.from_pretrained(model_folder, device="cpu")(opened(data))
    assert np.array_equal(np.asarray(opened(out["upscaled"][0])), np.asarray(expected))
    assert opened(out["upscaled"][1]).format == "JPEG"
    assert set(batch) == {"bytes", "id"}  # as it was given


def test_errors_are_rows(upscale: UpscaleBatch) -> None:
    out = upscale({"bytes": np.array([b"no image", encoded(), None], dtype=object)})
    assert [result is None for result in out["upscaled"]] == [True, False, True]
    assert out["error"][0].endswith(".")
    assert out["error"][1] is None
    assert out["error"][2] == "There is no image in this row."


def test_a_defect_of_ours_is_a_row_too(
    upscale: UpscaleBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*arguments: object, **options: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(SuperResolver, "upscale_file", defective)
    assert "report it: KeyError" in upscale({"bytes": [encoded()]})["error"][0]


def test_a_wrong_model_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        UpscaleBatch(str(tmp_path / "nowhere"))({"bytes": [encoded()]})


def test_other_kinds_of_columns(model_folder: Path) -> None:
    upscale = UpscaleBatch(str(model_folder), column="image", into="image", device="cpu")
    struct = {"bytes": encoded(), "path": "a.png"}
    out = upscale({"image": [struct, opened(encoded())]})
    assert out["image"][0]["path"] == "a.png"
    assert opened(out["image"][0]["bytes"]).size == (24, 20)
    assert out["image"][1].size == (24, 20)


def test_format_and_quality(model_folder: Path) -> None:
    small, large = (
        UpscaleBatch(str(model_folder), device="cpu", format="webp", quality=quality)
        for quality in (10, 95)
    )
    batch = {"bytes": [encoded((40, 30))]}
    first, second = small(batch)["upscaled"][0], large(batch)["upscaled"][0]
    assert opened(first).format == "WEBP"
    assert len(first) < len(second)


def test_several_at_once_are_the_same(model_folder: Path) -> None:
    batch = {"bytes": [encoded((3 + index, 4)) for index in range(9)]}
    one, four = (
        UpscaleBatch(str(model_folder), device="cpu", workers=workers)(batch)["upscaled"]
        for workers in (1, 4)
    )
    assert one == four


def test_the_model_does_not_travel(upscale: UpscaleBatch) -> None:
    before = pickle.dumps(upscale)
    upscale({"bytes": [encoded()]})
    assert pickle.dumps(upscale) == before
    assert pickle.loads(before)({"bytes": [encoded()]})["error"] == [None]


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, srgan_infer.batch; print({'ray', 'torch', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_with_datasets(upscale: UpscaleBatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    table = datasets.Dataset.from_dict({"bytes": [encoded(), b"no image", encoded()]})
    out = table.map(upscale, batched=True, batch_size=2)
    assert [error is None for error in out["error"]] == [True, False, True]
    assert opened(out[2]["upscaled"]).size == (24, 20)


def test_with_daft(upscale: UpscaleBatch) -> None:
    daft = pytest.importorskip("daft", reason="needs daft")

    def of_series(images: Any) -> Any:
        return upscale({"bytes": images.to_pylist()})["upscaled"]

    column = daft.func.batch(return_dtype=daft.DataType.binary())(of_series)
    table = daft.from_pydict({"bytes": [encoded(), b"no image"]})
    out = table.with_column("upscaled", column(table["bytes"])).to_pydict()
    assert opened(out["upscaled"][0]).size == (24, 20)
    assert out["upscaled"][1] is None
