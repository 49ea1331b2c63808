"""The command ``srgan-upscale``: names to files, progress to the terminal, failures to the status.

It forwards to :class:`srgan_infer.SuperResolver`, where the defaults live.
torch is imported only once there is something to compute.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from srgan_infer.cli.reports import Outcome, Report, Step, bars, duration
from srgan_infer.cli.streams import foreign_lines, give_up_standard_output, standard_streams
from srgan_infer.errors import UpscaleError, in_words, printable
from srgan_infer.threads import MOST, Room, processors
from srgan_infer.version import __version__

if TYPE_CHECKING:
    from srgan_infer.cli.jobs import Job, Shard
    from srgan_infer.cli.manifest import Manifest
    from srgan_infer.resolver import FileResult, SuperResolver

# Jobs that are told beforehand, or one by one as a long list is read.
Jobs = Sequence["Job"] | Iterator["Job"]

# With the number of their job; None comes with the number of all jobs.
Outcomes = queue.SimpleQueue[tuple[int, Outcome | Exception | None]]

DONE, SOME_FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = """\
Make images four times larger with a neural network.

  srgan-upscale in.jpg out.png            one image
  srgan-upscale in.jpg                    beside it, as in_upscaled.jpg
  srgan-upscale a.jpg b.png -o large      several, into a folder
  srgan-upscale photos -o large --recursive
  srgan-upscale in.jpg out.png --size 1600x
  srgan-upscale clip.mp4 clip4x.mkv       a video
  cat in.jpg | srgan-upscale - > out.jpg
"""

EPILOG = """\
Two names without -o are the input and the output. OUTPUT is a folder if it
exists as one, ends in a slash, has no extension, or if several images go
there. Results that exist are never replaced unless --overwrite is given.

Exit status: 0 all done; 1 an image failed, the others are done; 2 nothing was
begun (bad usage, no model); 130 interrupted.
"""


# Memory for what is decoded and encoded beside the network. Larger images go alone.
SHARED_BYTES = 1 << 30


@dataclass(frozen=True)
class Side:
    """What the threads of one device share.

    Attributes
    ----------
    network
        The thread in which the network runs.
    room
        For what is held of images while they are decoded and encoded.
    """

    network: Executor
    room: Room


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        Without the program's name; those of the process if ``None``.

    Returns
    -------
    int
        The exit status.
    """
    with standard_streams():
        try:
            try:
                return _main(sys.argv[1:] if arguments is None else arguments)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            give_up_standard_output()  # who read it has left
            return SOME_FAILED
        except OSError as error:
            give_up_standard_output()
            return _refuse(_system_reason(error, "standard output cannot be written"))


def _main(arguments: Sequence[str]) -> int:
    parser = _parser()
    args = _parse(parser, list(arguments))
    if args.doctor:
        from srgan_infer.cli.doctor import examine

        return examine(args.device, as_json=args.json)
    if args.export or args.convert:
        from srgan_infer.cli import models

        try:
            return models.export(args) if args.export else models.convert(args)
        except (UpscaleError, ValueError) as error:
            return _refuse(str(error))
        except OSError as error:
            return _refuse(_system_reason(error))
    if args.serve:
        from srgan_infer.cli import serve

        try:
            return serve.serve(args, _options(args))
        except (UpscaleError, ValueError) as error:
            return _refuse(str(error))
    if not args.inputs and args.from_file is None:
        parser.print_usage(sys.stderr)
        return _refuse("Name at least one image, or - for standard input.")

    from srgan_infer.cli.jobs import UsageError

    try:
        jobs = _jobs(args)
        if isinstance(jobs, Sequence):
            _check_streams(args, jobs)
            if not any(_is_open(job) for job in jobs):
                return _tell_settled(args, jobs)
        with in_words():
            resolvers = _resolvers(args)
    except (UsageError, UpscaleError, ValueError) as error:
        return _refuse(str(error))
    except ImportError as error:
        return _refuse(
            f"A library cannot be loaded ({error}); give it more memory, or install again."
        )
    if args.dry_run:
        return _dry_run(args, jobs, resolvers)
    return _run(args, jobs, resolvers)


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Names and options in any order; all behind ``--`` are names."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_intermixed_args(arguments[:end])
    args.inputs = [*getattr(args, "inputs", []), *arguments[end + 1 :]]
    return args


class Parser(argparse.ArgumentParser):
    """Tells what is wrong, control characters escaped, and what to do."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and end with status 2."""
        if "expected one argument" in message:
            message += "; one that begins with a dash is given as --suffix=-x"
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="srgan-upscale",
        usage="srgan-upscale INPUT... [-o OUTPUT] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="files, folders, patterns, or - for standard input; put -- before names that "
        "begin with a dash",
    )
    add("-o", "--output", metavar="OUTPUT", default=None, help="file or folder, - for stdout")
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--model",
        metavar="NAME",
        help="srgan (sharp), srresnet (faithful), srgan-photo (for compressed photographs), "
        "folder or user/repo",
    )
    add("--strength", type=float, metavar="S", help="blend, 0 is srresnet and 1 is srgan")
    add(
        "--export",
        metavar="FILE",
        default=None,
        help="write the model for other programs: .onnx, or .safetensors for spandrel",
    )
    add("--fixed", type=int, metavar="N", default=None, help="ONNX for images of NxN only")
    add("--half", action="store_true", default=False, help="export in float16, half the size")
    add(
        "--convert",
        nargs=2,
        metavar=("CHECKPOINT", "FOLDER"),
        default=None,
        help="make a model of another repository's SRGAN checkpoint",
    )
    add("--licence", metavar="TEXT", default=None, help="of the checkpoint, for its model card")
    group = parser.add_argument_group("computing")
    add = group.add_argument
    add("--device", metavar="D", default="auto", help="auto, cpu, mps, cuda, or cuda:0,cuda:1")
    add("--dtype", metavar="T", help="auto, float32, float16 or bfloat16")
    add("--tile", type=_tile, metavar="N", help="auto, edge in input pixels, or whole")
    add("--max-memory", metavar="SIZE", help="such as 2GB; a safe part of what is free if absent")
    add(
        "--max-pixels",
        type=_count,
        metavar="N",
        help="refuse larger images, counting all frames and pages; such as 16M",
    )
    group = parser.add_argument_group("size, one of")
    add = group.add_argument
    add(
        "--outscale",
        type=float,
        metavar="F",
        help="times as large as the source, up to 16; 4 if no size is given",
    )
    add("--size", type=_size, metavar="WxH", help="to fit 1600x1200, 1600x or x1200 pixels")
    add("--megapixels", type=float, metavar="M", help="at most this many million pixels")
    group = parser.add_argument_group("files")
    add = group.add_argument
    add("-r", "--recursive", action="store_true", default=False, help="enter subfolders")
    add("--format", metavar="F", default=None, help="png, jpg, webp, tif, ...; else as named")
    add("--quality", type=int, metavar="Q", default=None, help="1 to 100, of lossy formats")
    add("--codec", metavar="C", default=None, help="of a video: libx264, libx265, libsvtav1, ...")
    add("--crf", type=int, metavar="N", default=None, help="of a video: lower is better")
    add("--suffix", metavar="TEXT", default=None, help="put behind the names of results")
    add(
        "--strip-metadata",
        action="store_true",
        default=False,
        help="leave out all but colours, resolution and timing",
    )
    add("--keep-dates", action="store_true", default=False, help="results get the source's dates")
    add("--note", action="store_true", default=False, help="note model and version in XMP")
    add(
        "--damaged",
        choices=("refuse", "keep"),
        default="refuse",
        help="keep: upscale what there is of a JPEG that is cut short",
    )
    existing = group.add_mutually_exclusive_group()
    add = existing.add_argument
    add("--overwrite", action="store_true", default=False, help="replace results that exist")
    add("--skip-existing", action="store_true", default=False, help="leave results that exist")
    group = parser.add_argument_group("long lists")
    add = group.add_argument
    add(
        "--from-file",
        metavar="LIST",
        default=None,
        help="a file with one name a line, - for standard input; results keep the folders",
    )
    add("--root", metavar="DIR", default=None, help="what the names in LIST are relative to")
    add("--shard", type=_shard, metavar="I/N", default=None, help="part I, from 0, of N parts")
    add(
        "--manifest",
        metavar="FILE",
        default=None,
        help="append a JSON line for each image; --skip-existing believes it",
    )
    add(
        "--retry-failed",
        action="store_true",
        default=False,
        help="only what failed last by the manifest",
    )
    group = parser.add_argument_group("the page in the browser (extra: web)")
    add = group.add_argument
    add("--serve", action="store_true", default=False, help="serve it until Ctrl-C is pressed")
    add("--host", metavar="H", default="127.0.0.1", help="address to listen at; this machine's")
    add("--port", type=int, metavar="P", default=7860, help="7860 if absent; 0 is a free one")
    add("--max-upload", type=_count, metavar="SIZE", help="of a file, such as 20MB")
    add("--queue", type=int, metavar="N", help="visitors who may wait")
    group = parser.add_argument_group("reports")
    add = group.add_argument
    add("--dry-run", action="store_true", default=False, help="say what would be done")
    add("-q", "--quiet", action="store_true", default=False, help="say nothing but errors")
    add("--json", action="store_true", default=False, help="one line an image on stdout")
    add("--doctor", action="store_true", default=False, help="check the installation")
    add("--version", action="version", version=f"srgan-infer {__version__}")
    return parser


def _tile(text: str) -> int | str:
    if text in ("auto", "whole"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto, whole nor a number") from None


def _shard(text: str) -> Shard:
    from srgan_infer.cli.jobs import Shard

    index, slash, count = text.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Shard(int(index), int(count))
    raise argparse.ArgumentTypeError(f"{text!r} is not like 0/8, with parts from 0 to 7")


def _count(text: str) -> int:
    """A number with an ending of thousands, ``16M`` and ``20MB`` alike."""
    number = text.upper().removesuffix("B")
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(number[-1:], 1)
    try:
        return round(float(number[:-1] if factor > 1 else number) * factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 16M") from None


def _size(text: str) -> tuple[int | None, int | None]:
    from srgan_infer.images.resize import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _sizing(args: argparse.Namespace) -> dict[str, Any]:
    """The output size, where one was given."""
    names = ("outscale", "size", "megapixels")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What goes to ``from_pretrained``: only what was given."""
    names = ("model", "strength", "dtype", "tile", "max_memory", "max_pixels")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def _refuse(sentence: str) -> int:
    print(printable(f"srgan-upscale: {sentence}"), file=sys.stderr)  # noqa: T201
    return BAD_USAGE


def _report(args: argparse.Namespace, jobs: Jobs) -> Report:
    return Report(len(jobs) if isinstance(jobs, Sequence) else None, args.json, args.quiet)


def _is_open(job: Job) -> bool:
    return not job.problem and not job.skipped


def _jobs(args: argparse.Namespace) -> Jobs:
    """The images to do; two names without -o are input and output."""
    from srgan_infer.cli import jobs
    from srgan_infer.stores import is_remote

    names, output = list(args.inputs), args.output
    short = output is None and len(names) == 2 and args.from_file is None
    if short:
        names, output = names[:1], names[1]
    if args.quality is not None and not 1 <= args.quality <= 100:
        raise jobs.UsageError(f"--quality must be between 1 and 100, not {args.quality}.")
    if args.retry_failed and args.manifest is None:
        raise jobs.UsageError("--retry-failed needs the --manifest that says what failed.")
    choices = {
        "format": args.format,
        "suffix": args.suffix,
        "overwrite": args.overwrite,
        "skip_existing": args.skip_existing,
        "shard": args.shard,
    }
    if args.from_file or args.manifest or any(map(is_remote, (*names, output or ""))):
        if short and args.overwrite:
            raise jobs.UsageError(f"Two names may be two inputs: to replace {output} say -o.")
        return _long_jobs(args, names, output, choices)
    if args.root is not None:
        raise jobs.UsageError("--root is what the names of --from-file are relative to.")
    planned = jobs.plan(names, output, recursive=args.recursive, **choices)
    if short and args.overwrite:
        _protect_second_input(planned)
    return planned


def _long_jobs(
    args: argparse.Namespace, names: list[str], output: str | None, choices: dict[str, Any]
) -> Iterator[Job]:
    """The images to do where there may be too many to look at them beforehand."""
    from srgan_infer.cli.lists import Lists, plan_lazily
    from srgan_infer.cli.manifest import Records

    records = None
    if args.manifest is not None and (args.skip_existing or args.retry_failed):
        records = Records(args.manifest)
    lists = Lists(names, args.from_file, args.root, args.recursive)
    return plan_lazily(lists, output, records=records, retry_failed=args.retry_failed, **choices)


def _protect_second_input(planned: list[Job]) -> None:
    """``*.jpg --overwrite`` may have become two photographs: keep the second one."""
    from srgan_infer.cli.jobs import UsageError
    from srgan_infer.images.read import open_file

    for job in planned:
        if not isinstance(job.source, Path) or not isinstance(job.target, Path):
            continue
        if not os.path.isfile(job.target):
            continue
        if not job.source.is_file():
            continue  # a pipe gives its bytes only once
        try:
            before, after = open_file(job.source).size, open_file(job.target).size
        except UpscaleError:
            continue
        if after[0] <= before[0]:
            raise UsageError(
                f"{job.target} is no larger than {job.source}, so it may be meant as an input: "
                f"to replace it say -o {job.target}, to upscale both say -o FOLDER."
            )


def _check_streams(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Refuse an image on a standard output that cannot take it."""
    from srgan_infer.cli.jobs import UsageError

    closed = getattr(sys.stdout, "name", None) == os.devnull
    if args.json and closed:
        raise UsageError("Standard output is closed, but --json writes to it; open it.")
    if not any(_is_open(job) and job.target is None for job in jobs) or args.dry_run:
        return
    if closed:
        raise UsageError("Standard output is closed, but the image goes there; give -o.")
    if args.json:
        raise UsageError("--json and the image cannot both go to standard output; give -o.")
    if sys.stdout.isatty():
        raise UsageError("An image is not written to a terminal; give -o or redirect it.")


def _resolvers(args: argparse.Namespace) -> list[SuperResolver]:
    """One ready instance for each device; options are checked before an image is opened."""
    from srgan_infer.images.resize import check_size
    from srgan_infer.resolver import SuperResolver

    check_size(**{"outscale": None, "size": None, "megapixels": None, **_sizing(args)})
    devices = [name.strip() for name in args.device.split(",")]
    return [SuperResolver.from_pretrained(device=name, **_options(args)) for name in devices]


def _run(args: argparse.Namespace, jobs: Jobs, resolvers: Sequence[SuperResolver]) -> int:
    """Do the jobs and tell about each."""
    report = _report(args, jobs)
    with ExitStack() as stack:
        stack.enter_context(_termination_as_ctrl_c())
        said = stack.enter_context(foreign_lines())
        try:
            manifest = stack.enter_context(_manifest(args))
        except OSError as error:
            return _refuse(f"--manifest: {_system_reason(error)}")
        advance, steps = stack.enter_context(bars(report, report.total, len(resolvers)))
        if report.total == 1:
            # Not in a thread: outside the main one, glibc's allocator lets the memory of
            # ever new tensors grow.
            outcomes = (_upscale(args, job, resolvers[0], steps[0]) for job in jobs)
        else:
            outcomes = _share(args, iter(jobs), resolvers, steps)
        stack.enter_context(closing(outcomes))
        for outcome in outcomes:
            outcome = replace(outcome, warnings=(*outcome.warnings, *said()))
            report.tell(outcome)
            if manifest is not None and outcome.status in ("done", "failed"):
                try:
                    manifest.add(outcome.line())
                except OSError as error:
                    # Without its record the run could not be gone on with.
                    report.say(f"srgan-upscale: --manifest: {_system_reason(error)}")
                    return SOME_FAILED
            advance()
    return report.finish()


@contextmanager
def _manifest(args: argparse.Namespace) -> Iterator[Manifest | None]:
    if args.manifest is None:
        yield None
        return
    from srgan_infer.cli.manifest import Manifest

    with closing(Manifest(args.manifest)) as manifest:
        yield manifest


def _share(
    args: argparse.Namespace,
    jobs: Iterator[Job],
    resolvers: Sequence[SuperResolver],
    steps: Sequence[Step],
) -> Generator[Outcome, None, None]:
    """Do the jobs in several threads for each device; outcomes come in the order of the jobs.

    In one thread of a device the network runs. In the others images are decoded and
    encoded, so that the network need not wait for that.

    Ctrl-C reaches the main thread only. The others then end at their next
    step, so that they leave no half file.
    """
    from srgan_infer.engine.devices import network_thread

    waiting: queue.SimpleQueue[tuple[int, Job] | None] = queue.SimpleQueue()
    outcomes: Outcomes = queue.SimpleQueue()
    stop = threading.Event()
    room = Room(SHARED_BYTES)
    networks = [network_thread() for _ in resolvers]

    def work(resolver: SuperResolver, step: Step, network: Executor) -> None:
        def step_or_stop(name: str, done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            step(name, done, total)

        side = Side(network, room)
        with suppress(KeyboardInterrupt):
            while (task := waiting.get()) is not None and not stop.is_set():
                number, job = task
                outcomes.put((number, _upscale(args, job, resolver, step_or_stop, side)))

    count = min(processors(), MOST) + 1
    workers = [
        threading.Thread(target=work, args=one, daemon=True)
        for one in zip(resolvers, steps, networks, strict=True)
        for _ in range(count)
    ]
    # Few are taken beforehand: the list may be long, or still being written.
    slots = threading.Semaphore(len(workers) + count)

    def feed() -> None:
        number = 0
        try:
            for number, job in enumerate(jobs, 1):
                slots.acquire()
                if stop.is_set():
                    return
                waiting.put((number - 1, job))
            outcomes.put((number, None))
        except Exception as error:
            outcomes.put((number, error))

    # A thread of its own, which may wait for the next name while results are told.
    feeder = threading.Thread(target=feed, daemon=True)
    for thread in (*workers, feeder):
        thread.start()
    try:
        told, total = 0, -1
        ready: dict[int, Outcome] = {}
        while told != total:
            number, outcome = _next(outcomes, workers)
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is None:
                total = number
            else:
                ready[number] = outcome
            while told in ready:
                yield ready.pop(told)
                told += 1
                slots.release()
    finally:
        stop.set()
        slots.release()
        for _ in workers:
            waiting.put(None)
        for worker in workers:
            worker.join()
        for network in networks:
            network.shutdown()


def _next(
    outcomes: Outcomes, workers: Sequence[threading.Thread]
) -> tuple[int, Outcome | Exception | None]:
    """Wait for an outcome in short spells, since Windows delivers Ctrl-C only in between."""
    while True:
        alive = any(worker.is_alive() for worker in workers)
        try:
            return outcomes.get(timeout=0.2)
        except queue.Empty:
            if not alive:
                raise RuntimeError("A worker ended without a result.") from None


def _upscale(
    args: argparse.Namespace,
    job: Job,
    resolver: SuperResolver,
    step: Step,
    side: Side | None = None,
) -> Outcome:
    """One image; whatever goes wrong with it is its outcome."""
    if (settled := _settled(job)) is not None:
        return settled
    start = time.perf_counter()
    try:
        if isinstance(job.target, Path):
            job.target.parent.mkdir(parents=True, exist_ok=True)
        with _files(job) as (source, target):
            result = _result(args, job, resolver, source, target, step, side)
            written = None if result.target is None else result.target.stat().st_size
        if job.target is None:
            sys.stdout.buffer.flush()
    except UpscaleError as error:
        return Outcome(job, "failed", str(error))
    except OSError as error:
        return Outcome(job, "failed", _system_reason(error))
    except Exception as error:
        # A defect must not end a batch either, but it is not passed off as the image's fault.
        reason = f"Internal error, please report it: {type(error).__name__}: {error}"
        return Outcome(job, "failed", " ".join(reason.split()))
    facts = {
        "output_size": result.size,
        "output_bytes": written,
        "frames": result.frames,
        "pages": result.pages,
        "passes": result.passes,
        "seconds": round(time.perf_counter() - start, 3),
        "device": str(resolver.device),
        "suggested_model": result.suggested_model,
    }
    done = replace(job, target=result.target) if isinstance(job.target, Path) else job
    return Outcome(done, "done", facts=facts, warnings=result.warnings)


def _result(
    args: argparse.Namespace,
    job: Job,
    resolver: SuperResolver,
    source: Any,
    target: Any,
    step: Step,
    side: Side | None,
) -> FileResult:
    """Upscale an image or a video."""
    overwrite = args.overwrite or job.replaces

    def progress(done: int, total: int) -> None:
        step(job.name, done, total)

    if job.is_video:
        _check_video(job)
        upscale = partial(
            resolver.upscale_video,
            source,
            target,
            codec=args.codec,
            crf=args.crf,
            overwrite=overwrite,
            **_sizing(args),
            progress=progress,
        )
        return upscale() if side is None else side.network.submit(upscale).result()
    options = {
        "format": args.format,
        "quality": args.quality,
        "strip_metadata": args.strip_metadata,
        "note": args.note,
        **_sizing(args),
    }
    with ExitStack() as stack:
        if side is not None:
            plan = resolver.plan_file(source, target, **options)
            stack.enter_context(side.room.take(plan.memory_bytes - plan.cut.peak_bytes))
        return resolver.upscale_file(
            source,
            target,
            overwrite=overwrite,
            keep_dates=args.keep_dates,
            damaged=args.damaged,
            **options,
            progress=progress,
            network=None if side is None else side.network,
        )


def _check_video(job: Job) -> None:
    """Refuse a video without a name."""
    from srgan_infer.errors import ImageError

    if job.target is None:
        raise ImageError("A video goes into a file, not to standard output; give -o NAME.mp4.")


def _tell_settled(args: argparse.Namespace, jobs: Sequence[Job]) -> int:
    report = _report(args, jobs)
    for outcome in filter(None, map(_settled, jobs)):
        report.tell(outcome)
    return report.finish()


def _settled(job: Job) -> Outcome | None:
    """What became of a job that needs no work."""
    if job.problem:
        return Outcome(job, "failed", job.problem)
    return Outcome(job, "skipped", job.skipped) if job.skipped else None


@contextmanager
def _files(job: Job) -> Iterator[tuple[Any, Any]]:
    """What is read and what is written: local files or standard streams."""
    from srgan_infer.stores import local_files

    with local_files(job.source, job.target) as (source, target):
        yield source or sys.stdin.buffer, target or sys.stdout.buffer


def _system_reason(error: OSError, what: str = "") -> str:
    """What the system refused, and where."""
    where = error.filename or what
    return f"{where}: {error.strerror or error}." if where else f"{error.strerror or error}."


def _dry_run(args: argparse.Namespace, jobs: Jobs, resolvers: Sequence[SuperResolver]) -> int:
    """Say what would be done, from the headers and a short trial of the speed."""
    report = _report(args, jobs)
    resolver = resolvers[0]
    speed = resolver.seconds_per_pixel()
    total = 0.0
    for job in jobs:
        if (settled := _settled(job)) is not None:
            report.tell(settled)
            continue
        try:
            with _files(job) as (source, target):
                facts, warnings, pixels = _planned(args, job, resolver, source, target)
        except UpscaleError as error:
            report.tell(Outcome(job, "failed", str(error)))
            continue
        except OSError as error:
            report.tell(Outcome(job, "failed", _system_reason(error)))
            continue
        seconds = speed * pixels
        total += seconds
        facts |= {"estimated_seconds": round(seconds, 1), "device": str(resolver.device)}
        report.tell(Outcome(job, "planned", facts=facts, warnings=warnings))
    status = report.finish()
    if not report.quiet and report.total != 1:
        report.say(f"{duration(total / len(resolvers))} in all")
    return status


def _planned(
    args: argparse.Namespace, job: Job, resolver: SuperResolver, source: Any, target: Any
) -> tuple[dict[str, Any], tuple[str, ...], int]:
    """Facts and warnings of what would be done, and the pixels that the network has to read."""
    if job.is_video:
        from srgan_infer.video import FLICKER

        _check_video(job)
        video = resolver.plan_video(source, target, codec=args.codec, crf=args.crf, **_sizing(args))
        facts = {
            "input_size": video.clip.size,
            "output_size": video.size,
            "frames": video.frames,
            "pages": 1,
            "passes": video.output.passes,
            "plan": str(video),
        }
        pixels = resolver.plan(*video.clip.size[::-1], **_sizing(args)).input_pixels
        return facts, (*video.warnings, FLICKER), video.frames * pixels
    plan = resolver.plan_file(
        source,
        None if job.target is None else target,
        format=args.format,
        quality=args.quality,
        strip_metadata=args.strip_metadata,
        note=args.note,
        **_sizing(args),
    )
    facts = {
        "input_size": plan.input_size,
        "output_size": plan.size,
        "frames": plan.frames,
        "pages": plan.pages,
        "passes": len(plan.cut.passes),
        "plan": str(plan.cut),
        "steps": plan.steps,
        "memory_bytes": plan.memory_bytes,
        "temporary_bytes": plan.temporary_bytes,
        "suggested_model": plan.suggested_model,
    }
    return facts, plan.warnings, plan.input_pixels


@contextmanager
def _termination_as_ctrl_c() -> Iterator[None]:
    """Let a polite kill end the command in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # SIGHUP, of a terminal that is closed, does not exist on Windows.
    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in signals}
    # One that is ignored stays so, as under nohup.
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def end(number: int, frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # a second one must not stop the tidying up
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
