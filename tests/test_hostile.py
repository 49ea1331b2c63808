"""What must not happen whatever files, disks, signals and neighbours do."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import unicodedata
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import torch
from PIL import Image, features

from srgan_infer import SuperResolver
from srgan_infer.cli.main import main
from srgan_infer.engine.devices import settle_in_process
from srgan_infer.errors import ImageError, OutOfMemoryError, UpscaleError
from srgan_infer.images.encoder_output import EncoderOutput

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")


@pytest.fixture
def sr(model_folder: Path) -> SuperResolver:
    return SuperResolver.from_pretrained(model_folder)


def noise(width: int = 12, height: int = 9) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    noise().save(path)
    return path


class Full(io.BytesIO):
    """A file on a disk that fills up."""

    def __init__(self, room: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.room, self.error = room, error or OSError(28, "No space left on device")

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise self.error
        return super().write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


class TestFullDisk:
    """Also r01: Pillow's JPEG 2000 encoder tries a failed write for ever."""

    @pytest.mark.parametrize("format", ["jp2", "jpg", "webp", "gif", "avif", "bmp", "ppm", "tga"])
    def test_every_encoder_ends(self, sr: SuperResolver, source: Path, format: str) -> None:
        if format == "jp2" and not features.check("jpg_2000"):
            pytest.skip("this Pillow is built without JPEG 2000")
        if format in ("webp", "avif") and not features.check(format):
            pytest.skip(f"this Pillow is built without {format}")
        with pytest.raises(ImageError, match="cannot be written: No space left on device"):
            sr.upscale_file(source, Full(300), format=format)

    def test_ctrl_c_in_an_encoder_ends_the_work(self, sr: SuperResolver, source: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            sr.upscale_file(source, Full(300, KeyboardInterrupt()), format="tga")

    @posix
    @pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
    def test_no_room_on_the_disk(self, model_folder: Path, source: Path, tmp_path: Path) -> None:
        code = f"""
import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from srgan_infer.cli.main import main
raise SystemExit(main([{str(source)!r}, "-o", {str(tmp_path / "out.jp2")!r},
                       "--model", {str(model_folder)!r}]))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert "out.jp2 cannot be written: File too large." in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "tiny-model"]

    def test_a_stream_that_cannot_seek_gets_the_whole_file(self) -> None:
        class Pipe(io.RawIOBase):
            got = b""

            def writable(self) -> bool:
                return True

            def write(self, data: Any) -> int:
                self.got += bytes(data)
                return len(data)

        pipe, plain = Pipe(), io.BytesIO()
        with EncoderOutput(cast(BinaryIO, pipe)) as output:
            noise().save(cast(BinaryIO, output), "BMP")
            assert pipe.got == b""
        noise().save(plain, "BMP")
        assert pipe.got == plain.getvalue()


class TestOverwrite:
    def test_the_default_of_the_api_replaces(self, sr: SuperResolver, source: Path) -> None:
        target = source.with_name("out.png")
        target.write_bytes(b"old")
        result = sr.upscale_file(source, target)
        assert result.target == target
        with Image.open(target) as image:
            assert image.size == (48, 36)

    def test_a_result_that_appears_meanwhile_stays(self, sr: SuperResolver, source: Path) -> None:
        target = source.with_name("out.png")

        def another(done: int, total: int) -> None:
            target.write_bytes(b"another's")

        with pytest.warns(UserWarning, match=r"out\.png is there and stays.*out-1\.png"):
            result = sr.upscale_file(source, target, overwrite=False, progress=another)
        assert target.read_bytes() == b"another's"
        assert result.target == source.with_name("out-1.png")
        with Image.open(result.target) as image:
            assert image.size == (48, 36)

    def test_the_command_replaces_only_when_told(
        self,
        model_folder: Path,
        source: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        target = source.with_name("out.png")
        original = SuperResolver.upscale_file

        def slow(self: SuperResolver, *args: Any, **options: Any) -> Any:
            target.write_bytes(b"another's")
            return original(self, *args, **options)

        monkeypatch.setattr(SuperResolver, "upscale_file", slow)
        words = [str(source), "-o", str(target), "--model", str(model_folder)]
        assert main(words) == 0
        assert target.read_bytes() == b"another's"
        assert "out-1.png, 48x36" in capsys.readouterr().err
        assert main([*words, "--overwrite"]) == 0
        assert target.read_bytes() != b"another's"

    @pytest.mark.filterwarnings("ignore:.*stays")
    def test_runs_at_the_same_time_lose_nothing(self, sr: SuperResolver, source: Path) -> None:
        target = source.with_name("out.png")
        barrier = threading.Barrier(3)

        def work() -> None:
            def step(done: int, total: int) -> None:
                if done == total:
                    barrier.wait(30)

            sr.upscale_file(source, target, overwrite=False, progress=step)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = {path.name for path in source.parent.glob("out*")}
        assert names == {"out.png", "out-1.png", "out-2.png"}
        assert len({(source.parent / name).read_bytes() for name in names}) == 1


class TestCancelling:
    """An exception from the progress callback ends the work and comes out unchanged."""

    @pytest.mark.parametrize(
        "error", [RuntimeError, OSError, MemoryError, ImageError, KeyboardInterrupt]
    )
    @pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
    def test_a_file(
        self, sr: SuperResolver, source: Path, error: type[BaseException], suffix: str
    ) -> None:
        raised = error("enough")

        def cancel(done: int, total: int) -> None:
            raise raised

        target = source.with_name(f"out.{suffix}")
        target.write_bytes(b"old")
        with pytest.raises(error) as caught:
            sr.upscale_file(source, target, progress=cancel)
        assert caught.value is raised
        assert target.read_bytes() == b"old"
        assert not list(source.parent.glob(".*.part"))

    @pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
    def test_an_array(self, sr: SuperResolver, error: type[BaseException]) -> None:
        raised = error("enough")

        def cancel(done: int, total: int) -> None:
            raise raised

        with pytest.raises(error) as caught:
            sr(np.zeros((9, 9, 3), np.uint8), progress=cancel)
        assert caught.value is raised


def command(*words: object, shell: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with redirections as a shell writes them."""
    code = "import sys; from srgan_infer.cli.main import main; sys.exit(main(sys.argv[1:]))"
    line = shlex.join([sys.executable, "-c", code, *map(str, words)])
    return subprocess.run(
        f"{line} {shell}", shell=True, capture_output=True, text=True, timeout=100, **options
    )


@posix
class TestStandardStreams:
    def test_closed_error_output(self, model_folder: Path, source: Path) -> None:
        """The result must not get what libraries write to a descriptor that is closed."""
        target = source.with_name("out.png")
        done = command(source, "-o", target, "--model", model_folder, shell="<&- 2>&-")
        assert done.returncode == 0
        with Image.open(target) as image:
            assert image.size == (48, 36)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_lines_that_cannot_be_written(self, model_folder: Path, source: Path) -> None:
        words = ["--model", model_folder, "--json"]
        done = command(source, source.with_name("out.png"), *words, shell="> /dev/full")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "srgan-upscale: standard output cannot be written: No space left on device."
        ]
        assert source.with_name("out.png").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_error_output(self, model_folder: Path, source: Path) -> None:
        target = source.with_name("out.png")
        done = command(source, target, "--model", model_folder, shell="2> /dev/full")
        assert done.returncode == 0
        assert target.exists()

    def test_closed_standard_output(self, model_folder: Path, source: Path) -> None:
        done = command(source, "-o", "-", "--model", model_folder, shell=">&-")
        assert done.returncode == 2
        assert done.stderr.startswith("srgan-upscale: Standard output is closed")


def test_no_console(
    model_folder: Path, source: Path, sr: SuperResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert sr(np.zeros((8, 8, 3), np.uint8), progress=True).shape == (32, 32, 3)
    target = source.with_name("out.png")
    assert main([str(source), str(target), "--model", str(model_folder)]) == 0
    assert target.exists()


CONTROLS = "a\x1b[2J\r\n\x07\x9b\u202eb"


@posix
class TestControlCharacters:
    """Names reach the terminal with control characters escaped."""

    @pytest.fixture
    def nasty(self, source: Path) -> Path:
        path = source.with_name(f"{CONTROLS}.png")
        source.rename(path)
        return path

    def clean(self, text: str) -> bool:
        controls = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")}
        return not controls - {"\n"}

    @pytest.mark.parametrize("words", [[], ["--dry-run"], ["--json"], ["--format", "nothing"]])
    def test_the_command(
        self,
        nasty: Path,
        model_folder: Path,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
    ) -> None:
        main([str(nasty), "-o", str(nasty.parent / CONTROLS), "--model", str(model_folder), *words])
        main([str(nasty) + "none"])
        with pytest.raises(SystemExit):
            main([f"--nothing{CONTROLS}"])
        said = capsys.readouterr()
        assert self.clean(said.out + said.err)
        assert "\\x1b[2J" in said.err

    def test_errors_and_warnings(self, nasty: Path, sr: SuperResolver) -> None:
        with pytest.raises(ImageError) as caught:
            sr.upscale_file(nasty.with_suffix(".none"), nasty.with_name("out.png"))
        assert self.clean(str(caught.value))
        with pytest.warns(UserWarning, match="stays") as warned:
            result = sr.upscale_file(nasty, nasty, overwrite=False)
        assert self.clean("".join([*(str(w.message) for w in warned), *result.warnings]))


@posix
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
)
def test_a_signal_ends_the_work_in_order(
    model_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    noise(400, 400).save(tmp_path / "in.png")
    out = tmp_path / "out"
    code = f"""
import os, sys
from srgan_infer.cli import main, reports
from srgan_infer.resolver import SuperResolver
original = SuperResolver.upscale_file
def upscale_file(self, *args, progress, **options):
    def step(done, total):
        assert [name for name in os.listdir({str(out)!r}) if name.endswith(".part")]
        os.kill(os.getpid(), {int(number)})
        progress(done, total)
    return original(self, *args, progress=step, **options)
SuperResolver.upscale_file = upscale_file
words = [{str(tmp_path / "in.png")!r}, "-o", {str(out)!r}, "--model", {str(model_folder)!r}]
sys.exit(main.main(words))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (130, "")
    assert list(out.iterdir()) == []


def test_json_lines_carry_a_schema(
    model_folder: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(source), str(source.with_name("o.png")), "--model", str(model_folder), "--json"])
    assert json.loads(capsys.readouterr().out)["schema"] == 1


@posix
def test_what_libraries_say_is_a_warning_or_nothing(model_folder: Path, tmp_path: Path) -> None:
    """libtiff writes to the descriptor, Pillow warns."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).convert("1").save(
        buffer, "TIFF", compression="group4"
    )
    data = bytearray(buffer.getvalue())
    data[10:12] = bytes([data[10] ^ 255, 99])
    (tmp_path / "in.tif").write_bytes(data)
    words = [tmp_path / "in.tif", "-o", tmp_path / "out.png", "--model", model_folder]
    quiet = command(*words, "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    told = command(*words, "--overwrite")
    lines = [line for line in told.stderr.splitlines() if "Fax" in line or "Bad code" in line]
    assert len(lines) == 1
    assert "in.tif: warning: A library says: " in lines[0]


@posix
class TestBatches:
    """What cannot be done is named, and the rest is done."""

    @pytest.fixture
    def folder(self, source: Path) -> Path:
        folder = source.parent / "photos"
        (folder / "inner").mkdir(parents=True)
        source.rename(folder / "inner" / "good.png")
        return folder

    def run(self, model_folder: Path, *names: object) -> int:
        out = model_folder.parent / "out"
        return main([*map(str, names), "-o", str(out), "-r", "--model", str(model_folder)])

    def test_a_link_to_itself(
        self, folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "loop.png").symlink_to("loop.png")
        (folder / "back").symlink_to(folder)
        assert self.run(model_folder, folder) == 1
        assert (folder.parent / "out" / "inner" / "good.png").exists()
        assert "loop.png: Too many levels of symbolic links." in capsys.readouterr().err

    def test_a_closed_folder(
        self,
        folder: Path,
        model_folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (folder / "closed").mkdir()
        original = os.scandir

        def scandir(path: Path) -> Any:  # the superuser may list every folder
            if Path(path).name == "closed":
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        monkeypatch.setattr(os, "scandir", scandir)
        assert self.run(model_folder, folder) == 1
        assert (folder.parent / "out" / "inner" / "good.png").exists()
        assert "closed: It cannot be listed: Permission denied." in capsys.readouterr().err

    @pytest.mark.parametrize("length", [245, 251, 300, 5000])
    def test_a_long_name(
        self,
        folder: Path,
        model_folder: Path,
        capsys: pytest.CaptureFixture[str],
        length: int,
    ) -> None:
        """Of the source, or of its result once the suffix is behind it."""
        long = folder / ("x" * length + ".png")
        with suppress(OSError):
            long.write_bytes((folder / "inner" / "good.png").read_bytes())
        words = ["--suffix=_large", "--model", str(model_folder)]
        status = main([str(long), str(folder / "inner"), *words, "-o", str(folder / "inner")])
        assert status == (length != 245)
        assert (folder / "inner" / "good_large.png").exists()
        assert ("ame too long" in capsys.readouterr().err) == (length != 245)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestFork:
    """gunicorn --preload, multiprocessing's old default, celery."""

    def run(self, body: str, model_folder: Path) -> None:
        code = f"""
import os, sys
import numpy as np, torch
from srgan_infer import SuperResolver, UpscaleError
torch.set_num_threads(2)
image = np.arange(3 * 90 * 120, dtype=np.uint32).astype(np.uint8).reshape(90, 120, 3)
sr = SuperResolver.from_pretrained({str(model_folder)!r})
expected = sr(image)
torch.ones(4000, 1000).exp().sum()  # has all threads at work
child = os.fork()
if not child:
    try:
        {body}
    except BaseException as error:
        print(type(error).__name__, error)
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert np.array_equal(sr(image), expected)
sys.exit(status != 0)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_an_instance_works_in_the_child(self, model_folder: Path) -> None:
        self.run("assert np.array_equal(sr(image), expected)", model_folder)

    def test_a_new_instance_works_in_the_child(self, model_folder: Path) -> None:
        made = f"SuperResolver.from_pretrained({str(model_folder)!r})"
        self.run(f"assert np.array_equal({made}(image), expected)", model_folder)

    def test_an_instance_on_a_gpu_says_where_to_make_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        with pytest.raises(UpscaleError, match=r"cuda:0 before .* make it in the worker"):
            settle_in_process(torch.device("cuda:0"), here)


class TestMemory:
    @posix
    @pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
    @pytest.mark.parametrize("room", [5, 60, 600])
    def test_limited_addresses(
        self, model_folder: Path, source: Path, tmp_path: Path, room: int
    ) -> None:
        """``ulimit -v``: done, or refused in one sentence."""
        noise(300, 250).save(source)
        code = f"""
import io, os, resource
from srgan_infer import SuperResolver, UpscaleError
sr = SuperResolver.from_pretrained({str(model_folder)!r})
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + ({room} << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for suffix in ("png", "jpg", "tif"):
    try:
        sr.upscale_file({str(source)!r}, {str(tmp_path)!r} + "/out." + suffix)
        print("done")
    except UpscaleError as error:
        print("refused", error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        verdicts = [line.split()[0] for line in done.stdout.splitlines()]
        assert len(verdicts) == 3, done.stdout + done.stderr
        assert set(verdicts) <= {"done", "refused"}
        assert room != 600 or set(verdicts) == {"done"}
        assert not list(tmp_path.glob(".*.part"))

    def test_what_runs_out_in_a_decoder_or_encoder(
        self, sr: SuperResolver, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(Image.Image, "save", no_memory)
        with pytest.raises(OutOfMemoryError, match="memory ran out"):
            sr.upscale_file(source, source.with_name("out.jpg"))
        assert sorted(path.name for path in source.parent.iterdir()) == ["in.png", "tiny-model"]

    @pytest.mark.parametrize("text", ["9" * 400, "1e400", "999999999999TB", "-1", "nan"])
    def test_absurd_amounts(self, sr: SuperResolver, text: str) -> None:
        with pytest.raises(ValueError, match="memory must be"):
            sr.plan(9, 9, max_memory=text)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs glibc and /proc")
    def test_worker_threads_give_back_what_they_freed(self, model_folder: Path) -> None:
        code = f"""
import os, threading
import numpy as np, torch
from srgan_infer import SuperResolver
torch.set_num_threads(1)
sr = SuperResolver.from_pretrained({str(model_folder)!r})
def work(seed):
    random = np.random.default_rng(seed)
    for _ in range(6):
        height, width = random.integers(60, 180, 2)
        sr(random.integers(0, 255, (height, width, 3), np.uint8))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
work(0)
before = resident()
for turn in range(3):
    threads = [threading.Thread(target=work, args=(10 * turn + i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(resident() - before)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=200
        )
        assert int(done.stdout) < 120, done.stdout + done.stderr

    def test_what_is_held_for_an_encoder_counts(self, sr: SuperResolver, tmp_path: Path) -> None:
        noise(1500, 1000).save(tmp_path / "in.png")
        for suffix in ("jpg", "bmp", "webp"):
            with pytest.raises(OutOfMemoryError, match=r"is encoded from memory .*choose PNG"):
                sr.plan_file(tmp_path / "in.png", tmp_path / f"out.{suffix}", max_memory="60MB")
        plan = sr.plan_file(tmp_path / "in.png", tmp_path / "out.png", max_memory="60MB")
        assert plan.memory_bytes < sr.plan_file(tmp_path / "in.png", "out.jpg").memory_bytes


class TestRoomOnTheDisk:
    """Looked at before anything is computed."""

    @pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "bmp"])
    def test_too_little_is_said_at_once(
        self,
        sr: SuperResolver,
        source: Path,
        suffix: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def step(done: int, total: int) -> None:
            pytest.fail("it was computed")

        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 100))
        target = source.with_name(f"out.{suffix}")
        with pytest.raises(ImageError, match=rf"out\.{suffix} needs about .* are free there"):
            sr.upscale_file(source, target, progress=step)
        with pytest.raises(ImageError, match="are free there"):
            sr.plan_file(source, source.parent / "not" / "there" / f"out.{suffix}")
        assert sr.upscale_file(source, io.BytesIO(), format=suffix).size == (48, 36)

    def test_a_result_that_just_fits_is_not_refused(self, sr: SuperResolver, source: Path) -> None:
        """The estimate is below what a photograph takes."""
        sample = Path(__file__).parents[1] / "docs" / "images" / "sample.png"
        for suffix in ("png", "tif", "jpg", "webp", "bmp"):
            if suffix == "webp" and not features.check("webp"):
                continue
            big, target = io.BytesIO(), source.with_name(f"out.{suffix}")
            SuperResolver.from_pretrained("srresnet").upscale_file(sample, big, format=suffix)
            free = len(big.getvalue())
            with pytest.MonkeyPatch.context() as patch:
                usage = shutil._ntuple_diskusage(free, 0, free)
                patch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
                sr.plan_file(sample, target)


def test_a_library_that_cannot_be_loaded(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under ``ulimit -v``."""
    monkeypatch.setitem(sys.modules, "srgan_infer.resolver", None)
    assert main([str(source), str(source.with_name("out.png"))]) == 2
    assert capsys.readouterr().err.startswith("srgan-upscale: A library cannot be loaded (")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def absurd_files() -> dict[str, tuple[bytes, int]]:
    """Files with resolutions, delays and loop counts that few formats hold; and their frames."""
    still, gif, apng = io.BytesIO(), io.BytesIO(), io.BytesIO()
    frames = [noise(), noise().transpose(Image.Transpose.ROTATE_180)]
    frames[0].save(still, "PNG")
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=9, loop=65535)
    frames[0].save(apng, "PNG", save_all=True, append_images=frames[1:], duration=9, loop=2**31 - 1)
    png = still.getvalue()
    files = {
        f"resolution{value}.png": (
            png[:33] + chunk(b"pHYs", struct.pack(">IIB", value, value, 1)) + png[33:],
            1,
        )
        for value in (0, 1, 2**31 - 1, 2**32 - 1)
    }
    for name, high, low in (("tall", 2**32 - 1, 1), ("tiny", 1, 2**32 - 1), ("zero", 0, 0)):
        buffer = io.BytesIO()
        frames[0].save(buffer, "TIFF", dpi=(300, 300))
        data = buffer.getvalue().replace(struct.pack("<II", 300, 1), struct.pack("<II", high, low))
        files[f"{name}.tif"] = data, 1
    delay = b"\x21\xf9\x04"
    at = gif.getvalue().index(delay) + 4
    files["delay.gif"] = gif.getvalue()[:at] + b"\xff\xff" + gif.getvalue()[at + 2 :], 2
    slow = bytearray(apng.getvalue())
    at = slow.index(b"fcTL")
    struct.pack_into(">HH", slow, at + 24, 65535, 1)  # eighteen hours
    slow[at + 30 : at + 34] = struct.pack(">I", zlib.crc32(slow[at : at + 30]))
    files["delay.png"] = bytes(slow), 2
    return files


@pytest.mark.parametrize("name", sorted(absurd_files()))
@pytest.mark.parametrize("format", ["png", "jpg", "webp", "tif", "gif", "avif", "bmp", "jp2"])
@pytest.mark.filterwarnings("ignore")
def test_what_a_format_cannot_hold_is_left_out(sr: SuperResolver, name: str, format: str) -> None:
    feature = {"webp": "webp", "avif": "avif", "jp2": "jpg_2000"}.get(format)
    if feature and not features.check(feature):
        pytest.skip(f"this Pillow is built without {feature}")
    data, frames = absurd_files()[name]
    target = io.BytesIO()
    if frames > 1 and format in ("jpg", "tif", "bmp", "jp2"):
        with pytest.raises(ImageError, match="holds one image"):
            sr.upscale_file(data, target, format=format)
        return
    result = sr.upscale_file(data, target, format=format)
    with Image.open(target) as image:
        image.load()
        assert image.size == result.size == (48, 36)
        assert getattr(image, "n_frames", 1) == frames


@pytest.mark.parametrize("mode", ["RGB", "L", "RGB16"])
def test_transparency_behind_the_pixels_of_a_png_comes_too_late(
    sr: SuperResolver, mode: str
) -> None:
    buffer = io.BytesIO()
    if mode == "RGB16":
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 9, 16, 2, 0, 0, 0))
        pixels = chunk(b"IDAT", zlib.compress(bytes(9 * (1 + 12 * 6))))
        buffer.write(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))
    else:
        noise().convert(mode).save(buffer, "PNG")
    key = struct.pack(">HHH", 1, 2, 3) if mode != "L" else struct.pack(">H", 1)
    end = len(buffer.getvalue()) - 12
    data = buffer.getvalue()[:end] + chunk(b"tRNS", key) + buffer.getvalue()[end:]
    for format in ("png", "jpg"):
        assert sr.upscale_file(data, io.BytesIO(), format=format).size == (48, 36)
