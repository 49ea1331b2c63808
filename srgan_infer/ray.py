"""``python -m srgan_infer.ray IN OUT``: images of a data set on all machines of a Ray cluster.

The data set is cut into pieces, each of which is read, upscaled and written by one worker.
What is written is named after the piece alone and appears whole or not at all, so a piece
that is done twice, after a worker or the whole job was killed, is in the output once.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from srgan_infer.batch import UpscaleBatch
from srgan_infer.errors import UpscaleError
from srgan_infer.files import new_file
from srgan_infer.images.formats import FALLBACK, READ, WRITTEN, choose_format
from srgan_infer.stores import Place, Remote, place

FAILED = "failed.jsonl"

# Images of a folder, or rows of a table, that are done at a time by one worker.
PIECE = 64
# Pieces that Ray schedules one by one; of longer lists it schedules several together.
BLOCKS = 10_000
# Times that a piece is begun again after its worker died, before it is given up.
RETRIES = 4
# Members of an archive that are upscaled together.
AT_ONCE = 32
COLUMNS = ("image", "bytes", "img", "jpg", "png")


@dataclass(frozen=True)
class Piece:
    """What one worker does in one go.

    Attributes
    ----------
    kind
        ``"images"``, ``"parquet"`` or ``"tar"``.
    source
        The folder, or the file.
    target
        The folder, or the file that is written.
    names
        Of images: sources inside the folder.
    group, start, rows
        Of a table: the row group, and rows of it.
    """

    kind: str
    source: str
    target: str
    names: tuple[str, ...] = ()
    group: int = 0
    start: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Options:
    """How images are upscaled.

    Attributes
    ----------
    model
        As of :class:`srgan_infer.batch.UpscaleBatch`.
    format, quality
        Likewise.
    column
        Of a table, the one with the images.
    device
        Of each worker.
    """

    model: str = "srgan"
    format: str | None = None
    quality: int | None = None
    column: str | None = None
    device: str = "auto"


class Worker:
    """Does pieces; Ray makes one in each of its actors."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._upscale = UpscaleBatch(
            options.model,
            into="bytes",
            format=options.format,
            quality=options.quality,
            device=options.device,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do pieces, told as JSON in the column ``piece``; one row for each image comes out.

        Its columns are ``piece``, ``name``, ``status`` (``"done"``, ``"kept"`` where the
        result was there, or ``"failed"``) and ``error``.
        """
        rows: list[tuple[str, str, str, str]] = []
        for text in batch["piece"]:
            piece = Piece(**json.loads(text))
            try:
                told = list(self.do(piece))
            except (UpscaleError, OSError, ValueError, tarfile.TarError) as error:
                told = [(piece.source, "failed", " ".join(str(error).split()))]
            rows += [(str(text), *one) for one in told]
        columns = ("piece", "name", "status", "error")
        return {name: [row[index] for row in rows] for index, name in enumerate(columns)}

    def do(self, piece: Piece) -> Iterator[tuple[str, str, str]]:
        """Name, status and reason of each image of a piece."""
        if piece.kind == "images":
            # Several at once, so that a GPU does not wait for the store.
            with ThreadPoolExecutor(self._upscale.workers()) as pool:
                yield from pool.map(functools.partial(self._image, piece), piece.names)
        elif _exists(place(piece.target)):
            yield piece.target, "kept", ""
        elif piece.kind == "parquet":
            yield from self._table(piece)
        else:
            yield from self._tar(piece)

    def _image(self, piece: Piece, name: str) -> tuple[str, str, str]:
        target = place(piece.target) / result_name(name, self._options.format)
        try:
            if _exists(target):
                return name, "kept", ""
            with _fetched(place(piece.source) / name) as file:
                done = self._upscale({"bytes": [file.read_bytes()]})
            if error := done["error"][0]:
                return name, "failed", error
            with _new(target) as new:
                new.write(done["bytes"][0])
        except (UpscaleError, OSError) as problem:
            return name, "failed", str(problem)
        return name, "done", ""

    def _table(self, piece: Piece) -> Iterator[tuple[str, str, str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _opened(place(piece.source)) as file:
            table = pq.ParquetFile(file).read_row_group(piece.group)
        table = table.slice(piece.start, piece.rows)
        name = self._options.column or image_column(table.schema.names, piece.source)
        field = table.schema.field(name)
        values = table.column(name).to_pylist()
        inner = [value["bytes"] if isinstance(value, dict) else value for value in values]
        done = self._upscale({"bytes": inner})
        results = [
            {**value, "bytes": data} if isinstance(value, dict) else data
            for value, data in zip(values, done["bytes"], strict=True)
        ]
        table = table.set_column(
            table.schema.get_field_index(name), field, pa.array(results, field.type)
        )
        if "error" in table.schema.names:
            table = table.drop_columns("error")
        table = table.append_column("error", pa.array(done["error"], pa.string()))
        with _new(place(piece.target)) as target:
            pq.write_table(table, target)
        for index, error in enumerate(done["error"]):
            row = f"{piece.source}, row group {piece.group}, row {piece.start + index}"
            yield row, "failed" if error else "done", error or ""

    def _tar(self, piece: Piece) -> Iterator[tuple[str, str, str]]:
        told = []
        with (
            _fetched(place(piece.source)) as source,
            _new(place(piece.target)) as target,
            tarfile.open(source) as before,
            tarfile.open(fileobj=target, mode="w") as after,
        ):
            members = filter(tarfile.TarInfo.isfile, before)
            while group := list(itertools.islice(members, AT_ONCE)):
                datas = [_content(before, member) for member in group]
                images = [_is_image(member.name) for member in group]
                done = self._upscale({"bytes": list(itertools.compress(datas, images))})
                results = iter(zip(done["bytes"], done["error"], strict=True))
                for member, data, is_image in zip(group, datas, images, strict=True):
                    name = member.name
                    if is_image:
                        result, error = next(results)
                        told.append((f"{piece.source}: {name}", error))
                        if error:
                            name, data = f"{name}.error", error.encode()
                        else:
                            name, data = result_name(name, self._options.format), result
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mtime, entry.mode = len(data), member.mtime, member.mode
                    after.addfile(entry, io.BytesIO(data))
        for name, error in told:
            yield name, "failed" if error else "done", error or ""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in READ


def result_name(name: str, format: str | None) -> str:
    """The name of a result: the source's, with another extension where that must be."""
    stem, extension = os.path.splitext(name)
    if format is None:
        return name if extension.lower() in WRITTEN else stem + FALLBACK
    kind = choose_format(Path(), format)
    return name if extension.lower() in kind.suffixes else stem + kind.suffixes[0]


def image_column(names: Sequence[str], where: str) -> str:
    """The column of a table that holds the images, by its name."""
    for name in COLUMNS:
        if name in names:
            return name
    raise UpscaleError(f"{where} has the columns {', '.join(names)}; say which with --column.")


def pieces(
    source: str, target: str, size: int = PIECE, others: Counter[str] | None = None
) -> Iterator[Piece]:
    """Cut a folder of images, of tables or of tar archives into pieces.

    Parameters
    ----------
    source, target
        Folders or addresses, or a single file and a folder.
    size
        Images or rows in each; a tar archive is one piece.
    others
        Gets the number of files that are nothing of this, by their extension.

    Raises
    ------
    UpscaleError
        If there is nothing to do, or a table cannot be read.
    """
    root = place(source)
    images: list[str] = []
    empty = True
    for name in _names(root):
        file = root / name if name else root
        extension = file.suffix.lower()
        if extension == ".parquet":
            yield from _of_table(file, place(target) / (name or file.name), size)
        elif extension == ".tar":
            yield Piece("tar", str(file), str(place(target) / (name or file.name)))
        elif extension in READ:
            if not name:
                source, name = str(root.parent), root.name
            images.append(name)
            if len(images) == size:
                yield Piece("images", source, target, tuple(images))
                images = []
        else:
            if others is not None:
                others[extension] += 1
            continue
        empty = False
    if images:
        yield Piece("images", source, target, tuple(images))
    if empty:
        raise UpscaleError(f"There is no image, no .parquet and no .tar in {source}.")


def _of_table(file: Place, target: Place, size: int) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    try:
        with _opened(file) as stream:
            metadata = pq.ParquetFile(stream).metadata
    except (UpscaleError, OSError, ValueError):
        # It fails alone, and says why, when it is its turn.
        yield Piece("parquet", str(file), str(target))
        return
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for start in range(0, rows, size):
            name = f"{target.stem}-{group:05d}-{start:07d}.parquet"
            result = str(target.parent / name)
            count = min(size, rows - start)
            yield Piece("parquet", str(file), result, (), group, start, count)


def _names(root: Place) -> Iterator[str]:
    """What lies in a folder and below, by its name inside; one empty name for a file."""
    if isinstance(root, Remote):
        if root.suffix.lower() in READ | {".parquet", ".tar"}:
            yield ""
            return
        base = root.url.rstrip("/") + "/"
        for one in root.walk(recursive=True):
            name = one.url.removeprefix(base)
            if not any(part.startswith(".") or not part for part in name.split("/")):
                yield name
        return
    if root.is_file():
        yield ""
        return
    if not root.is_dir():
        raise UpscaleError(f"There is no {root}.")
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _exists(file: Place) -> bool:
    return file.size() is not None if isinstance(file, Remote) else file.exists()


@contextmanager
def _fetched(file: Place) -> Iterator[Path]:
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="srgan-infer-") as folder:
        local = Path(folder, "file")
        file.fetch(local)
        yield local


@contextmanager
def _opened(file: Place) -> Iterator[IO[bytes]]:
    """For reading here and there: of a large table in a store only what is wanted."""
    opened = file.open() if isinstance(file, Remote) else file.open("rb")
    with opened:
        yield opened


@contextmanager
def _new(file: Place) -> Iterator[IO[bytes]]:
    """A file that appears when it is whole."""
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as new:
            yield new.stream
        return
    with tempfile.TemporaryDirectory(prefix="srgan-infer-") as folder:
        local = Path(folder, f"file{file.suffix}")
        with local.open("wb") as stream:
            yield stream
        file.put(local)


def run(
    source: str,
    target: str,
    options: Options,
    *,
    workers: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    size: int = PIECE,
) -> dict[str, int]:
    """Upscale a data set on the cluster that Ray is connected to.

    Parameters
    ----------
    source, target
        As of :func:`pieces`. Local folders have to be there on every machine.
    options
        How.
    workers
        Actors. If ``None``, as many as there is room for now.
    cpus, gpus
        Of each: by default one GPU where the cluster has any, and two CPUs.
    size
        As of :func:`pieces`.

    Returns
    -------
    dict
        How many images are ``"done"``, were ``"kept"`` and ``"failed"``, and how many files are
        ``"not taken"``; a kept file of a table or an archive counts as one. The failed ones are
        in ``failed.jsonl`` in ``target``, with reasons; tables and archives have them too.
    """
    import ray

    UpscaleBatch(options.model, device="cpu").resolver()  # which says what is wrong at once
    # The workers are in folders of their own.
    source, target = _absolute(source), _absolute(target)
    if os.path.isdir(options.model):
        options = replace(options, model=os.path.abspath(options.model))
    there = ray.cluster_resources()
    gpus = min(1.0, there.get("GPU", 0.0)) if gpus is None else gpus
    cpus = min(2, max(1, int(there["CPU"]))) if cpus is None else cpus
    if workers is None:
        room = there["GPU"] // gpus if gpus else there["CPU"] // cpus
        workers = max(1, int(room))
    others: Counter[str] = Counter()
    listed = list(_without_collisions(pieces(source, target, size, others), options.format))
    todo = {json.dumps(asdict(piece)) for piece, _ in listed}
    failures = [failure for _, found in listed for failure in found]
    counts = {"done": 0, "kept": 0, "failed": len(failures), "not taken": others.total()}
    # A piece whose worker dies again and again is given up, and the others are done.
    ray.data.DataContext.get_current().max_errored_blocks = -1
    items = [{"piece": text} for text in sorted(todo)]
    results = ray.data.from_items(items, override_num_blocks=min(len(items), BLOCKS)).map_batches(
        Worker,
        fn_constructor_args=(options,),
        batch_size=1,
        # One piece at a time, so that none dies of another one.
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=cpus,
        num_gpus=gpus or None,
        max_task_retries=RETRIES,
    )
    for row in results.iter_rows():
        todo.discard(row["piece"])
        counts[row["status"]] += 1
        if row["status"] == "failed":
            failures.append((row["name"], row["error"]))
    for text in todo:
        piece = Piece(**json.loads(text))
        reason = f"Its worker died {RETRIES + 1} times, or failed; see Ray's log."
        failures += [(name, reason) for name in piece.names or (piece.source,)]
        counts["failed"] += len(piece.names) or 1
    _tell_failures(place(target) / FAILED, failures)
    return counts


def _absolute(name: str) -> str:
    file = place(name)
    return str(file) if isinstance(file, Remote) else os.path.abspath(name)


def _without_collisions(
    found: Iterable[Piece], format: str | None
) -> Iterator[tuple[Piece, list[tuple[str, str]]]]:
    """Pieces of images whose results have names of their own, and what is left out."""
    taken: set[str] = set()
    for piece in found:
        kept, left = [], []
        for name in piece.names:
            result = result_name(name, format)
            if result in taken:
                left.append((name, f"Another image becomes {result} too; do them apart."))
            else:
                taken.add(result)
                kept.append(name)
        yield replace(piece, names=tuple(kept)), left


def _tell_failures(file: Place, failures: list[tuple[str, str]]) -> None:
    if not failures and not _exists(file):
        return
    lines = [json.dumps({"input": name, "reason": reason}) + "\n" for name, reason in failures]
    with _new(file) as new:
        new.write("".join(lines).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all is done, 1 if an image failed, 2 if nothing was begun."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_infer.ray",
        description="Upscale a folder of images, parquet tables or tar archives with Ray. "
        "Running it again goes on where it was killed.",
    )
    add = parser.add_argument
    add("source", metavar="IN", help="a folder, local on every machine, or s3:// or gs://")
    add("target", metavar="OUT", help="likewise; gets files of the same kind")
    add("--model", default="srgan", help="as of srgan-upscale")
    add("--format", help="png, jpg, webp, ...; else as each source")
    add("--quality", type=int, help="1 to 100, of lossy formats")
    add("--column", help="of parquet, the one with the images; else " + ", ".join(COLUMNS))
    add("--workers", type=int, metavar="N", help="as many as there is room for if absent")
    add("--cpus", type=int, metavar="N", help="of each worker, 2 if absent")
    add("--gpus", type=float, metavar="N", help="of each worker, 1 if absent and there is any")
    add("--piece", type=int, metavar="N", default=PIECE, help="images done in one go")
    add("--device", default="auto", help="of each worker: auto, cpu or cuda")
    args = parser.parse_args(arguments)
    options = Options(args.model, args.format, args.quality, args.column, args.device)
    try:
        import ray
        import ray.data
    except ImportError:
        return _refuse("Ray is needed: pip install 'srgan-infer[ray]'.")
    try:
        if args.format is not None:
            choose_format(Path(), args.format)
        if not ray.is_initialized():
            ray.init()
        counts = run(
            args.source,
            args.target,
            options,
            workers=args.workers,
            cpus=args.cpus,
            gpus=args.gpus,
            size=args.piece,
        )
    except (UpscaleError, ValueError) as error:
        return _refuse(str(error))
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    sys.stderr.write(f"{told or 'no image'}\n")
    if counts["failed"]:
        sys.stderr.write(f"reasons are in {place(args.target) / FAILED}\n")
    return 1 if counts["failed"] else 0


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"srgan_infer.ray: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
