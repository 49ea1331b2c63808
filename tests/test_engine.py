import sys
import threading
import tracemalloc
import types
from collections.abc import Generator as Closable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from srgan_infer.engine import devices
from srgan_infer.engine import engine as engine_module
from srgan_infer.engine.devices import cgroup_free, choose_device, free_memory, parse_memory
from srgan_infer.engine.engine import Engine
from srgan_infer.engine.plan import Tile, cut, plan_bands, plan_tiles
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.images.resize import OutputSize, output_size
from srgan_infer.network.generator import INPUT_SKIPS, Generator, GeneratorConfig
from srgan_infer.network.stream import RowStream

SMALL = GeneratorConfig(channels=4, blocks=2)
PIXELS = (np.uint8, np.uint16, np.float32)
Pixels = npt.NDArray[Any]


def generator_of(config: GeneratorConfig = SMALL, seed: int = 0) -> Generator:
    """A random generator whose result uses the range from 0 to 1."""
    torch.manual_seed(seed)
    generator = Generator(config).eval()
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if value.dim() == 4:
                value.mul_(1.5)
            elif name == "output.bias":
                value.fill_(0.5)
    return generator


@torch.inference_mode()
def plain(generator: Generator, pixels: Pixels) -> Pixels:
    """Whole-image inference in plain PyTorch: float64 H×W×C, scaled to the pixels' range."""
    top = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    x = torch.from_numpy(pixels.astype(np.float32) / np.float32(top))
    x = x.expand(-1, -1, 3).permute(2, 0, 1)[None]
    out: Pixels = generator(x)[0].permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        out = (out * np.array([0.299, 0.587, 0.114], np.float32)).sum(2, keepdims=True)
    result: Pixels = np.clip(out.astype(np.float64), 0, 1) * top
    return result


def run(engine: Engine, pixels: Pixels, tile: Tile = "auto") -> Pixels:
    plan = engine.plan(pixels.shape[0], pixels.shape[1], tile)
    return np.concatenate(list(engine.run(pixels, plan)))


def assert_equal(result: Pixels, expected: Pixels, pixels: Pixels) -> None:
    assert result.dtype == pixels.dtype
    assert result.shape == expected.shape
    if pixels.dtype == np.float32:
        assert np.abs(result - expected).max() <= 1e-4
        return
    difference = np.abs(result.astype(np.int64) - np.rint(expected).astype(np.int64))
    # 1e-4 of the range of 16 bits is 6.6 levels.
    assert difference.max() <= (1 if pixels.dtype == np.uint8 else 7)
    if pixels.dtype == np.uint8:
        # At most one in a thousand, where there are a thousand.
        assert (difference > 0).sum() <= max(1, difference.size // 1000)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(PIXELS),
    tile=st.one_of(st.sampled_from(["auto", "whole"]), st.integers(1, 70)),
    skip=st.sampled_from(INPUT_SKIPS),
    scale=st.sampled_from([2, 4]),
    seed=st.integers(0, 99),
)
def test_any_tile_size_equals_the_whole_image(
    height: int,
    width: int,
    channels: int,
    dtype: type[np.generic],
    tile: Tile,
    skip: str,
    scale: int,
    seed: int,
) -> None:
    config = GeneratorConfig(channels=4, blocks=2, input_skip=skip, scale=scale)
    generator = generator_of(config, seed)
    pixels = noise((height, width, channels), dtype, seed)
    result = run(Engine(generator, "cpu", "float32"), pixels, tile)
    assert_equal(result, plain(generator, pixels), pixels)


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    channels=st.sampled_from([1, 3]),
    tile=st.one_of(st.just("whole"), st.integers(3, 60)),
    skip=st.sampled_from(INPUT_SKIPS),
)
def test_tiles_equal_the_whole_image(
    height: int, width: int, channels: int, tile: Tile, skip: str
) -> None:
    """The path of GPUs and of half precision, here in float32."""
    generator = generator_of(GeneratorConfig(channels=4, blocks=1, input_skip=skip))
    engine = Engine(generator, "cpu", "float32")
    pixels = noise((height, width, channels))
    plan = plan_tiles(engine.config, height, width, tile, 2**40)
    assert plan.kind == "tiles"
    result = np.concatenate(list(engine.run(pixels, plan)))
    assert_equal(result, plain(generator, pixels), pixels)


@pytest.mark.parametrize("less", [0, 1, 4])
@pytest.mark.parametrize("kind", ["bands", "tiles"])
def test_a_smaller_halo_than_derived_breaks_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, less: int
) -> None:
    """With kernels that read their two far corners alone, the rim counts as much as can be."""
    config = GeneratorConfig(channels=4, blocks=1)
    generator = Generator(config).eval()
    with torch.no_grad():
        for value in generator.parameters():
            value.fill_(0)
            if value.dim() == 4:
                value[:, :, 0, 0] = value[:, :, -1, -1] = 0.5 / value.shape[1]
    halo = config.halo - less
    monkeypatch.setattr(GeneratorConfig, "halo", property(lambda self: halo))
    engine = Engine(generator, "cpu", "float32")
    pixels = noise((40, 60, 3), np.float32)
    make = partial(plan_bands, itemsize=4) if kind == "bands" else plan_tiles
    plan = make(config, height=40, width=60, tile=20, budget=2**40)
    result = np.concatenate(list(engine.run(pixels, plan)))
    error = np.abs(result - plain(generator, pixels)).max()
    assert error <= 1e-6 if less == 0 else error > 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close_and_the_same_for_every_tile(dtype: str) -> None:
    generator = generator_of(GeneratorConfig(channels=8, blocks=8, input_skip="bilinear"))
    engine = Engine(generator, "cpu", dtype)
    pixels = noise((50, 44, 3))
    whole = run(engine, pixels, "whole").astype(int)
    assert np.abs(whole - np.rint(plain(generator, pixels))).max() <= 2
    for tile in (16, 33):
        assert np.abs(run(engine, pixels, tile) - whole).max() <= 1


@pytest.mark.parametrize("capable", [False, True])
def test_bfloat16_unasked_is_for_processors_that_have_it_and_8_bits(
    monkeypatch: pytest.MonkeyPatch, capable: bool
) -> None:
    capabilities = {"amx_bf16": False, "avx512_bf16": capable}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    generator = generator_of(GeneratorConfig(channels=8, blocks=8))
    engine = Engine(generator, "cpu")
    assert engine.dtype == (torch.bfloat16 if capable else torch.float32)
    deep = noise((20, 24, 3), np.float32)
    assert np.abs(run(engine, deep) - plain(generator, deep)).max() <= 1e-5
    asked = run(Engine(generator, "cpu", "bfloat16"), deep)
    assert np.abs(asked - plain(generator, deep)).max() > 1e-5


def test_no_bfloat16_where_its_instructions_are_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert Engine(generator_of(), "cpu").dtype == torch.float32


def test_a_tile_that_overflows_in_float16_is_run_again_in_float32() -> None:
    generator = generator_of()
    with torch.no_grad():
        values = generator.state_dict()
        for name in ("weight", "bias"):
            values[f"stem.{name}"].mul_(1e6)
            values[f"upsample.0.conv.{name}"].mul_(1e-6)
    engine = Engine(generator, "cpu", "float16")
    pixels = noise((30, 30, 3))
    with torch.inference_mode():
        x = torch.from_numpy(pixels).half().div(255).permute(2, 0, 1)[None]
        (result,) = RowStream(engine.network).push(x, last=True)
        assert not torch.isfinite(result).all()
    assert_equal(run(engine, pixels, 16), plain(generator, pixels), pixels)


def test_several_threads_on_one_engine_give_the_same_results() -> None:
    engine = Engine(generator_of(), "cpu")
    images = [noise((30 + step, 70 - 5 * step, 3), seed=step) for step in range(6)]
    alone = [run(engine, pixels, 16) for pixels in images]
    together: dict[int, Pixels] = {}

    def work(step: int) -> None:
        together[step] = run(engine, images[step], 16)

    threads = [threading.Thread(target=work, args=(step,)) for step in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, together[step]) for step, one in enumerate(alone))


def limited(
    monkeypatch: pytest.MonkeyPatch, pixels: int, error: RuntimeError | None = None
) -> list[int]:
    """Memory for tiles of so many pixels; returns the sizes that were tried."""
    tried: list[int] = []
    push = RowStream.push

    def push_or_fail(self: RowStream, rows: torch.Tensor, last: bool) -> Iterator[torch.Tensor]:
        tried.append(rows.shape[2] * rows.shape[3])
        if tried[-1] > pixels:
            raise error or torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return push(self, rows, last)

    monkeypatch.setattr(RowStream, "push", push_or_fail)
    return tried


@pytest.mark.parametrize(
    "error", [None, RuntimeError("MPS backend out of memory (allocated: 8 GB)")]
)
def test_tiles_shrink_when_gpu_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError | None
) -> None:
    generator = generator_of(GeneratorConfig(channels=4, blocks=1))
    engine = Engine(generator, "cpu", "float16")
    pixels = noise((150, 140, 3))
    expected = run(engine, pixels, 37).astype(int)
    tried = limited(monkeypatch, 80 * 80, error)
    reports: list[tuple[int, int]] = []
    plan = engine.plan(150, 140, "whole")
    result = np.concatenate(
        list(engine.run(pixels, plan, lambda done, total: reports.append((done, total))))
    )
    assert tried[0] == 150 * 140
    assert max(tried[-4:]) <= 80 * 80
    assert np.abs(result - expected).max() <= 1
    assert reports[-1][0] == reports[-1][1]


def test_running_out_with_the_smallest_tiles_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(generator_of(), "cpu", "float16")
    limited(monkeypatch, 0)
    with pytest.raises(OutOfMemoryError, match="tiles of 256, 128, 64, 32 pixels"):
        run(engine, noise((256, 200, 3)), "whole")


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(generator_of(), "cpu", "float16")
    tried = limited(monkeypatch, 0, RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(engine, noise((64, 64, 3)), "whole")
    assert len(tried) == 1


def run_together(engine: Engine, images: Pixels, output: OutputSize | None = None) -> Pixels:
    plan = engine.plan(images.shape[1], images.shape[2], output=output)
    return np.stack(list(engine.run_batch(images, plan)))


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 6),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(PIXELS),
    precision=st.sampled_from(["float32", "float16"]),
    outscale=st.sampled_from([None, 1.5]),
    skip=st.sampled_from(INPUT_SKIPS),
    seed=st.integers(0, 99),
)
def test_a_batch_equals_its_images_one_by_one(
    count: int,
    height: int,
    width: int,
    channels: int,
    dtype: type[np.generic],
    precision: str,
    outscale: float | None,
    skip: str,
    seed: int,
) -> None:
    generator = generator_of(GeneratorConfig(channels=4, blocks=2, input_skip=skip), seed)
    engine = Engine(generator, "cpu", precision)
    images = noise((count, height, width, channels), dtype, seed)
    output = output_size((width, height), 4, outscale=outscale)
    plan = engine.plan(height, width, output=output)
    together = run_together(engine, images, output)
    assert together.dtype == images.dtype
    half = precision == "float16"
    limits: dict[Any, float] = {np.uint8: 1, np.uint16: 200 if half else 7}
    for image, result in zip(images, together, strict=True):
        alone = np.concatenate(list(engine.run(image, plan)))
        assert result.shape == alone.shape
        difference = np.abs(result.astype(np.float64) - alone)
        assert difference.max() <= limits.get(dtype, 3e-3 if half else 1e-4)


def test_a_batch_that_does_not_fit_a_gpu_is_run_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(generator_of(), "cpu", "float16")
    images = noise((5, 12, 9, 3))
    expected = run_together(engine, images)
    tried = limited(monkeypatch, 12 * 9)
    push = RowStream.push

    def push_few(self: RowStream, rows: torch.Tensor, last: bool) -> Any:
        if rows.shape[0] > 1:
            tried.append(-1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return push(self, rows, last)

    monkeypatch.setattr(RowStream, "push", push_few)
    result = run_together(engine, images)
    assert tried == [-1, *[12 * 9] * 5]
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_batch_that_overflows_in_float16_is_right_all_the_same() -> None:
    generator = generator_of()
    with torch.no_grad():
        generator.stem.weight.mul_(1e5)
        generator.trunk.weight.mul_(1e-5)
    engine = Engine(generator, "cpu", "float16")
    images = noise((4, 8, 8, 3))
    exact = Engine(generator, "cpu", "float32")
    assert np.abs(run_together(engine, images).astype(int) - run_together(exact, images)).max() <= 1


def test_batches_are_of_small_images_that_fit_the_memory() -> None:
    engine = Engine(generator_of(), "cpu", "float32")

    def at_once(side: int, **options: Any) -> int:
        output = output_size((side, side), 4, outscale=options.pop("outscale", None))
        return engine.batch_size(engine.plan(side, side, output=output), **options)

    assert [at_once(side) for side in (8, 16, 32, 33, 500)] == [64, 16, 4, 1, 1]
    assert at_once(8, outscale=2) == 64
    assert at_once(8, outscale=8) == 1  # the second pass is over larger images
    assert engine.batch_size(engine.plan(8, 8, 4)) == 1  # cut into tiles as was asked for
    peak = engine.plan(8, 8).peak_bytes
    assert at_once(8, max_memory=10 * peak) == 10
    assert at_once(8, max_memory=2 * peak) == 1


def test_memory_that_runs_out_on_the_cpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(generator_of(), "cpu")
    limited(monkeypatch, 0, RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(OutOfMemoryError, match="smaller max_memory or tile"):
        run(engine, noise((64, 64, 3)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no glibc")
def test_the_thread_of_the_network_gives_memory_back_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back: list[int] = []
    library = types.SimpleNamespace(malloc_trim=given_back.append)
    monkeypatch.setattr(devices, "ctypes", types.SimpleNamespace(CDLL=lambda name: library))
    half = devices.KEPT_BYTES // 2
    with devices.network_thread() as thread:
        for size in (half, half, half - 1, half, 1, 3 * half):
            thread.submit(devices.release_heap, size).result()
    assert len(given_back) == 3
    with ThreadPoolExecutor(1) as thread:  # any other at once
        thread.submit(devices.release_heap, 1).result()
    assert len(given_back) == 4
    devices.release_heap(10 * half)  # the main thread keeps what it has
    assert len(given_back) == 4


def test_rows_are_read_once_and_in_order() -> None:
    pixels = noise((300, 20, 3))

    read: list[tuple[int, int]] = []

    class Source:
        shape, dtype = pixels.shape, pixels.dtype

        def __getitem__(self, rows: slice, /) -> Pixels:
            read.append((rows.start, rows.stop))
            return pixels[rows]

    engine = Engine(generator_of(), "cpu")
    list(engine.run(Source(), engine.plan(300, 20, 32)))
    assert read == [(span.start, span.stop) for span in cut(300, 32, 0)]


def test_read_only_pixels_and_progress(recwarn: pytest.WarningsRecorder) -> None:
    pixels = noise((40, 50, 3))
    pixels.flags.writeable = False
    engine = Engine(generator_of(), "cpu")
    plan = engine.plan(40, 50, 16)
    reports: list[tuple[int, int]] = []
    list(engine.run(pixels, plan, lambda done, total: reports.append((done, total))))
    assert reports == [(done, plan.steps) for done in range(1, plan.steps + 1)]
    # Three bands and the rows held back, in four columns.
    assert plan.steps == 4 * 4
    assert not recwarn.list


def test_an_interrupt_between_bands_ends_the_run() -> None:
    engine = Engine(generator_of(), "cpu")
    pixels = noise((60, 60, 3))

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(engine.run(pixels, engine.plan(60, 60, 8), interrupt))
    assert not torch.is_inference_mode_enabled()


def test_closing_the_run_releases_it() -> None:
    engine = Engine(generator_of(), "cpu")
    pixels = noise((400, 100, 3), np.float32)
    tracemalloc.start()
    rows = engine.run(pixels, engine.plan(400, 100, 64))
    next(rows)
    assert not torch.is_inference_mode_enabled()
    assert isinstance(rows, Closable)
    rows.close()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
    assert next(rows, None) is None


def test_a_source_that_does_not_fit_the_plan_is_an_error() -> None:
    engine = Engine(generator_of(), "cpu")
    plan = engine.plan(10, 20)
    with pytest.raises(ValueError, match="10 x 20"):
        engine.run(noise((20, 10, 3)), plan)
    with pytest.raises(ValueError, match="1 or 3"):
        engine.run(noise((10, 20, 4)), plan)
    with pytest.raises(ValueError, match="float64"):
        engine.run(np.zeros((10, 20, 3)), plan)


def test_plans_fit_the_budget_whatever_the_image() -> None:
    engine = Engine(Generator(), "cpu")
    for height, width in ((1, 1), (192, 192), (8000, 2000), (2000, 30000), (40, 100_000)):
        for budget in ("700MB", "2GB"):
            plan = engine.plan(height, width, max_memory=budget)
            assert plan.peak_bytes <= parse_memory(budget)
            assert plan.columns[-1].stop == width
            assert plan.rows[-1].stop == height
    tall = [
        engine.plan(height, 2000, max_memory="2GB").peak_bytes for height in (500, 8000, 80_000)
    ]
    assert max(tall) <= 1.1 * min(tall)


def test_a_budget_that_is_too_small_says_what_to_do() -> None:
    engine = Engine(Generator(), "cpu")
    with pytest.raises(OutOfMemoryError, match="larger max_memory"):
        engine.plan(500, 500, max_memory="1MB")
    with pytest.raises(OutOfMemoryError, match="smaller tile"):
        engine.plan(4000, 4000, tile="whole", max_memory="1GB")


def test_a_plan_describes_itself() -> None:
    plan = Engine(generator_of(), "cpu").plan(100, 300, tile=50)
    assert str(plan).startswith("300x100 to 1200x400 in 12 bands of 50x50, about ")


@pytest.mark.parametrize("tile", [0, -1, 1.5, "big", True])
def test_a_wrong_tile_is_an_error(tile: Any) -> None:
    with pytest.raises(ValueError, match="tile must be"):
        Engine(generator_of(), "cpu").plan(10, 10, tile)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (1000, 1000),
        ("1000", 1000),
        ("2GB", 2 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("1.5g", 3 * 2**29),
        ("64kB", 2**16),
        ("1TB", 2**40),
    ],
)
def test_memory_in_words(text: int | str, count: int) -> None:
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "2XB", "much", 0, -5, True, "nan"])
def test_wrong_memory_is_an_error(text: int | str) -> None:
    with pytest.raises(ValueError, match="memory must be"):
        parse_memory(text)


def test_devices_and_number_types() -> None:
    engine = Engine(generator_of())
    assert engine.device == choose_device("auto")
    if engine.device.type == "cpu":
        assert engine.dtype in (torch.float32, torch.bfloat16)
    for device in ("cuda:99", "tpu", "meta"):
        with pytest.raises(ValueError, match="device"):
            Engine(generator_of(), device)
    for dtype in ("int8", torch.float64, "half"):
        with pytest.raises(ValueError, match="dtype must be"):
            Engine(generator_of(), "cpu", dtype)


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert min(cgroup_free(tmp_path)) == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert min(cgroup_free(tmp_path)) > 2**60
    assert min(cgroup_free(tmp_path / "absent")) > 2**60
    assert free_memory(torch.device("cpu")) > 2**20


def test_the_default_budget_is_read_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Generator(), "cpu")
    monkeypatch.setattr(engine_module, "free_memory", lambda device: 2**29)
    assert engine.plan(2000, 4000).peak_bytes <= 2**28
    monkeypatch.setattr(engine_module, "free_memory", lambda device: 2**20)
    with pytest.raises(OutOfMemoryError):
        engine.plan(2000, 4000)


def test_columns_and_rows_are_cut_as_evenly_as_can_be() -> None:
    plan = Engine(generator_of(), "cpu").plan(90, 130, tile=50)
    assert plan.rows == cut(90, 50, 0)
    assert plan.columns == cut(130, 50, SMALL.halo)


def test_tf32_is_off_while_the_network_starts_and_then_as_before() -> None:
    cuda = torch.device("cuda")
    before = devices.tf32_settings()
    with devices.true_float32(cuda), devices.true_float32(cuda):
        assert not torch.backends.cudnn.allow_tf32
    assert devices.tf32_settings() == before
    with devices.true_float32(torch.device("cpu")):
        assert devices.tf32_settings() == before
