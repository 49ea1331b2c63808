"""What the page does, without the page: models, turns, estimates, results."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import threading
import time
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srgan_infer import weights
from srgan_infer.errors import ImageError, ImageWarning, UpscaleError
from srgan_infer.images.formats import FORMATS
from srgan_infer.resolver import FilePlan, SuperResolver

POLL_SECONDS = 0.1
KEPT_MODELS = 8
FAILED = "not-upscaled.txt"

Say = Callable[[float, str], None]


class CancelError(Exception):
    """The visitor has cancelled, or left."""


@dataclass(frozen=True)
class Options:
    """What a visitor chose.

    Parameters
    ----------
    model
        Its name.
    strength
        In [0, 1], of the default model; None for that model itself.
    outscale
        Size of the result over that of the source.
    size
        (W, H) to fit into, one of them None; counts instead of ``outscale``.
    format
        Of the result; None for that of the source.
    quality
        1 to 100; None for the format's default.
    """

    model: str = weights.DEFAULT
    strength: float | None = None
    outscale: float | None = None
    size: tuple[int | None, int | None] | None = None
    format: str | None = None
    quality: int | None = None

    @property
    def sizing(self) -> dict[str, Any]:
        """The size in the words of :meth:`SuperResolver.upscale_file`."""
        return {"outscale": self.outscale} if self.size is None else {"size": self.size}


@dataclass(frozen=True)
class Forecast:
    """What one image will become.

    Parameters
    ----------
    name
        Of the source.
    plan
        What will be done; None if nothing can be.
    seconds
        What it will take.
    problem
        Why it cannot be done; one sentence.
    """

    name: str
    plan: FilePlan | None = None
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What one image became.

    Parameters
    ----------
    name
        Of the source.
    source
        Its file.
    options
        What was asked for.
    target
        The file that was written; None if there is none.
    problem
        Why there is none; one sentence.
    size, frames, pages, warnings, suggested_model
        As in :class:`srgan_infer.FileResult`.
    seconds
        What it took.
    """

    name: str
    source: Path
    options: Options
    target: Path | None = None
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    frames: int = 1
    pages: int = 1
    warnings: tuple[str, ...] = ()
    suggested_model: str | None = None
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """For programs, ready for JSON."""
        if self.target is None:
            return {"name": self.name, "reason": self.problem}
        return {
            "name": self.name,
            "result": self.target.name,
            "size": list(self.size),
            "frames": self.frames,
            "pages": self.pages,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "suggested_model": self.suggested_model,
        }


@dataclass
class Service:
    """Upscales for many visitors, with one computation at a time on each device.

    Parameters
    ----------
    folder
        Where results go; whoever made it deletes it.
    devices
        Names of the devices that compute nothing at the moment.
    loading
        Further arguments of :meth:`SuperResolver.from_pretrained`.
    max_pixels
        Largest image that is taken, counted over all frames and pages; None for no limit.
    queue
        Number of visitors who may wait; None for no limit.
    """

    folder: Path
    devices: list[str]
    loading: dict[str, Any] = field(default_factory=dict)
    max_pixels: int | None = None
    queue: int | None = None

    def __post_init__(self) -> None:
        self._first_device = self.devices[0]
        self._waiting: list[object] = []
        self._running: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self.resolver = functools.lru_cache(KEPT_MODELS * len(self.devices))(self._resolver)
        self._speed = functools.lru_cache(None)(SuperResolver.seconds_per_pixel)

    def _resolver(self, model: str, strength: float | None, device: str) -> SuperResolver:
        """A ready model; those that were used last are kept."""
        return SuperResolver.from_pretrained(
            model,
            strength=strength,
            device=device,
            max_pixels=self.max_pixels,
            **self.loading,
        )

    def any_resolver(self, options: Options) -> SuperResolver:
        """A model to ask, or to compute something very small with."""
        return self.resolver(options.model, options.strength, self._first_device)

    def forecast(self, sources: Sequence[Path], options: Options) -> list[Forecast]:
        """What each image will become and take; nothing is computed but a short trial."""
        return [self._forecast(source, options) for source in sources]

    def _forecast(self, source: Path, options: Options) -> Forecast:
        try:
            plan = self._plan(self.any_resolver(options), source, options)
        except (UpscaleError, ValueError, OSError) as error:
            return Forecast(source.name, problem=_sentence(error, source))
        speed = self._speed(self.any_resolver(Options(options.model)))
        return Forecast(source.name, plan, speed * plan.input_pixels)

    def _plan(self, resolver: SuperResolver, source: Path, options: Options) -> FilePlan:
        plan = resolver.plan_file(
            source, format=options.format, quality=options.quality, **options.sizing
        )
        # A size over the network's own has it run again, over all that it made.
        if self.max_pixels is not None and plan.input_pixels > self.max_pixels:
            raise ImageError(
                f"{source} takes {plan.input_pixels / 1e6:.1f} million pixels of computation, and "
                f"{self.max_pixels / 1e6:g} million are allowed here: ask for a smaller result, "
                "or make the image smaller first."
            )
        return plan

    async def upscale(
        self, sources: Sequence[Path], options: Options, visitor: str, say: Say
    ) -> list[Result]:
        """Upscale a visitor's images, each in its turn.

        Parameters
        ----------
        sources
            The images.
        options
            For all of them.
        visitor
            Whose they are; see :meth:`stop`.
        say
            Told the part that is done, in [0, 1], and what happens now.

        Returns
        -------
        list of Result
            One for each source; those that failed have a ``problem``.

        Raises
        ------
        CancelError
            After :meth:`stop`.
        ImageError
            If too many are waiting already.
        """
        if self.queue is not None and len(self._waiting) >= self.queue:
            raise ImageError(
                f"The queue is full: {len(self._waiting)} are waiting already. "
                "Try again in a few minutes."
            )
        results: list[Result] = []
        stop = threading.Event()
        self._running[visitor].add(stop)
        try:
            for index, source in enumerate(sources):

                def part(done: float, words: str, index: int = index) -> None:
                    say((index + done) / len(sources), words)

                device = await self._turn(stop, part)
                try:
                    results.append(await self._computed(source, options, device, stop, part))
                finally:
                    self.devices.append(device)
        finally:
            self._running[visitor].discard(stop)
            if not self._running[visitor]:
                del self._running[visitor]
        return results

    async def _turn(self, stop: threading.Event, say: Say) -> str:
        """Wait for a device, first come, first served.

        A visitor with many images queues again for each, so that one with a
        single image does not wait for all of them.
        """
        ticket = object()
        self._waiting.append(ticket)
        try:
            while self._waiting[0] is not ticket or not self.devices:
                before = self._waiting.index(ticket)
                say(0.0, f"waiting, {before} before yours" if before else "waiting, yours is next")
                await asyncio.sleep(POLL_SECONDS)
                if stop.is_set():
                    raise CancelError
            return self.devices.pop()
        finally:
            self._waiting.remove(ticket)

    async def _computed(
        self, source: Path, options: Options, device: str, stop: threading.Event, say: Say
    ) -> Result:
        """One image in a thread that has ended when this returns, also by cancellation."""
        work = asyncio.ensure_future(
            asyncio.to_thread(self._one, source, options, device, stop, say)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([work])
            raise

    def _one(
        self, source: Path, options: Options, device: str, stop: threading.Event, say: Say
    ) -> Result:
        start = time.perf_counter()
        result = Result(source.name, source, options)

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise CancelError
            seconds = time.perf_counter() - start
            left = f", {duration(seconds / done * (total - done))} left" if done else ""
            say(done / total, f"{source.name}{left}")

        try:
            say(0.0, source.name)
            resolver = self.resolver(options.model, options.strength, device)
            plan = self._plan(resolver, source, options)
            folder = self.folder / secrets.token_hex(16)
            folder.mkdir()
            target = folder / f"{source.stem}_upscaled{_suffix(plan.format)}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageWarning)  # they are in the result too
                done = resolver.upscale_file(
                    source, target, quality=options.quality, progress=step, **options.sizing
                )
        except CancelError:
            raise
        except (UpscaleError, ValueError, OSError) as error:
            return replace(result, problem=_sentence(error, source))
        except Exception as error:
            logging.getLogger(__name__).exception("An image failed.")
            reason = f"Internal error, please report it: {type(error).__name__}: {error}"
            return replace(result, problem=" ".join(reason.split()))
        return replace(
            result,
            target=target,
            size=done.size,
            frames=done.frames,
            pages=done.pages,
            warnings=done.warnings,
            suggested_model=done.suggested_model,
            seconds=time.perf_counter() - start,
        )

    def stop(self, visitor: str | None = None) -> None:
        """End what a visitor has running or waiting, or all; within a step of the network."""
        for name, stops in list(self._running.items()):
            if visitor in (None, name):
                for stop in stops:
                    stop.set()

    def file_of(self, results: Sequence[Result]) -> Path | None:
        """What is downloaded: the one result, or a zip of many that names those that failed."""
        done = [result for result in results if result.target is not None]
        if not done:
            return None
        if len(results) == 1:
            return done[0].target
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        target = folder / "upscaled.zip"
        taken: set[str] = set()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
            for result in done:
                assert result.target is not None
                file.write(result.target, _free_name(result.target.name, taken))
            failed = [f"{one.name}: {one.problem}\n" for one in results if one.target is None]
            if failed:
                file.writestr(FAILED, "".join(failed))
        return target


def _free_name(name: str, taken: set[str]) -> str:
    """A name that no other result in the zip has."""
    path, number = Path(name), 1
    while name.lower() in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    taken.add(name.lower())
    return name


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def _sentence(error: Exception, source: Path) -> str:
    """The library's own words, with the visitor's name for the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{source.name}: {error.strerror}."
    return str(error).replace(str(source), source.name)


def _suffix(format: str) -> str:
    return next(kind.suffixes[0] for kind in FORMATS if kind.name == format)
