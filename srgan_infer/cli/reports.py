"""What the command says: lines about images for people or programs, and progress bars."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from srgan_infer.cli.streams import give_up_standard_output
from srgan_infer.errors import printable

if TYPE_CHECKING:
    from srgan_infer.cli.jobs import Job

# Of the lines of --json: raised when a field goes or changes its meaning, not when one comes.
SCHEMA = 1

# Told the image's name, the steps done and their number.
Step = Callable[[str, int, int], None]

# Different reasons that the summary of a long list names.
MOST_KINDS = 20


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes
    ----------
    job
        The image.
    status
        ``"done"``, ``"planned"``, ``"skipped"`` or ``"failed"``.
    reason
        Why it was skipped or failed; one sentence.
    facts
        Sizes, times and the like, ready for JSON.
    warnings
        Sentences on what could not be kept.
    """

    job: Job
    status: str
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def line(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "schema": SCHEMA,
            "input": self.job.name,
            "output": None if self.job.target is None else str(self.job.target),
            "status": self.status,
            "reason": self.reason,
            "warnings": self.warnings,
            **self.facts,
            **({"not_taken": dict(self.job.not_taken)} if self.job.not_taken else {}),
        }

    def kind(self) -> str:
        """The reason without the names of this image, as of others that fare alike."""
        job, kind = self.job, self.reason or ""
        for name in {job.name, str(job.target), str(job.source)}:
            kind = kind.replace(name, "…")
        return kind


class Report:
    """Tells about outcomes, for people on stderr or as JSON on stdout, and counts them."""

    def __init__(self, total: int | None, as_json: bool, quiet: bool) -> None:
        self.json = as_json
        self.quiet = quiet or as_json
        self.total = total
        self.counts = {"done": 0, "planned": 0, "skipped": 0, "failed": 0}
        self.not_taken = 0
        self.bars = sys.stderr.isatty() and not quiet
        self.advised = False
        self.lost = False
        self.failures: Counter[str] = Counter()

    def tell(self, outcome: Outcome) -> None:
        """One line about one image."""
        job = outcome.job
        self.not_taken += sum(job.not_taken.values())
        if not (job.not_taken and job.skipped):  # a folder, which is no image
            self.counts[outcome.status] += 1
        if self.json:
            self._print(json.dumps(outcome.line()))
        if outcome.status == "failed":
            if len(self.failures) < MOST_KINDS or outcome.kind() in self.failures:
                self.failures[outcome.kind()] += 1
            named = job.name in str(outcome.reason)
            self.say(f"srgan-upscale: {'' if named else f'{job.name}: '}{outcome.reason}")
        elif not self.quiet:
            self.say(f"{job.name}: {sentence(outcome)}")
        if not self.quiet:
            for warning in outcome.warnings:
                self.say(f"{job.name}: warning: {warning}")
            if (model := outcome.facts.get("suggested_model")) and not self.advised:
                self.advised = True  # once a batch
                self.say(f"{job.name}: this JPEG is heavily compressed; try --model {model}")

    def finish(self) -> int:
        """Sum up, and give the exit status."""
        if self.total != 1 and not self.quiet:
            counts = {**self.counts, "not taken": self.not_taken}
            self.say(", ".join(f"{n} {what}" for what, n in counts.items() if n) or "no image")
            if self.total is None:
                for kind, count in self.failures.most_common(MOST_KINDS):
                    self.say(f"  {count} failed: {kind}")
        return 1 if self.counts["failed"] or self.lost else 0

    def _print(self, line: str) -> None:
        """A line on stdout; where that cannot take it, the work goes on, and the status tells."""
        if self.lost:
            return
        try:
            print(line, flush=True)  # noqa: T201
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = True
            give_up_standard_output()
            self.say(f"srgan-upscale: standard output cannot be written: {error.strerror}.")

    def say(self, line: str) -> None:
        """A line on stderr, above the bars if there are any."""
        line = printable(line)
        if self.bars:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)  # noqa: T201


def sentence(outcome: Outcome) -> str:
    """What became of an image that did not fail."""
    if outcome.status == "skipped":
        return f"skipped. {outcome.reason}"
    facts = outcome.facts
    width, height = facts["output_size"]
    frames = "".join(f", {facts[what]} {what}" for what in ("frames", "pages") if facts[what] > 1)
    target = outcome.job.target or "standard output"
    if outcome.status == "planned":
        return (
            f"{target}, {width}x{height}{frames}: {facts['plan']}, "
            f"{duration(facts['estimated_seconds'])}"
        )
    passes = f", {facts['passes']} passes of the network" if facts["passes"] > 1 else ""
    return f"{target}, {width}x{height}{frames}{passes}, {facts['seconds']:.1f} s"


def duration(seconds: float) -> str:
    """An estimated time in words."""
    if seconds < 100:
        return f"about {seconds:.0f} s" if seconds >= 1 else "less than 1 s"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"


@contextmanager
def bars(
    report: Report, images: int | None, workers: int
) -> Iterator[tuple[Callable[[], None], list[Step]]]:
    """Progress of the batch, and of each worker's image, on a terminal."""
    if not report.bars:
        yield (lambda: None), [lambda name, done, total: None] * workers
        return
    from tqdm import tqdm

    single = images is not None and images < 2
    with tqdm(
        total=images, unit="image", desc="Images", disable=single, dynamic_ncols=True
    ) as whole:
        below = 0 if single else 1
        bars = [
            tqdm(unit="step", position=below + index, leave=False, dynamic_ncols=True)
            for index in range(workers if images is None else min(workers, images))
        ]

        def mover(bar: Any) -> Step:
            def move(name: str, done: int, total: int) -> None:
                if bar.desc != f"{short(name)}: ":
                    bar.set_description(short(name), refresh=False)
                    bar.reset(total)
                bar.total = total
                bar.update(done - bar.n)

            return move

        def advance() -> None:
            whole.update()

        moves = [mover(bar) for bar in bars]
        try:
            yield advance, moves + moves[:1] * (workers - len(moves))
        finally:
            for bar in bars:
                bar.close()


def short(name: str) -> str:
    """A file's name, in few enough letters to stand before a bar."""
    name = printable(os.path.basename(name) or name)
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"
