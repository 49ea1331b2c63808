"""Where and how the network runs: device, number type, memory budget, back-off.

On the CPU a picture streams through the network in thin bands (bands.py).
On a GPU, and in float16, it is cut into tiles with the derived halo, because
a tile can be run again: in float32 where half precision overflowed, or
smaller where memory ran out. Both give what inference on the whole picture
gives.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srgan_infer.bands import Network, Room, Stream, prepare
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.generator import Generator, GeneratorConfig
from srgan_infer.rows import RowSource
from srgan_infer.tiles import Span, cut

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Low-resolution pixels in one band: large enough that starting an operation and
# copying the rows kept cost little, small enough for a layer to stay in the cache.
BAND_PIXELS = 40960
# Likewise for the sub-pixel layers, whose tensors are 16 times as large.
TAIL_PIXELS = 4096
# Just under the largest block from whose freeing glibc learns.
LARGE_BLOCK = 31 << 20
# Narrower columns would mostly recompute each other's halo.
WIDEST_COLUMN = 4096
LARGEST_TILE = 1024
SMALLEST_TILE = 32
# The part of the free memory that is used unless the caller says otherwise.
SAFE_PART = 0.5

ProgressFn = Callable[[int, int], None]
Tile = int | Literal["auto"] | None


@dataclass(frozen=True)
class Plan:
    """How a picture is cut.

    Attributes
    ----------
    kind
        ``"bands"`` or ``"tiles"``.
    height, width
        Of the picture, in pixels.
    scale
        Magnification.
    rows, columns
        The pieces, top to bottom and left to right.
    tail_rows
        Rows that the sub-pixel layers take at a time; None for no limit.
    peak_bytes
        Estimated memory at the highest point, without the picture itself and
        the program.
    """

    kind: Literal["bands", "tiles"]
    height: int
    width: int
    scale: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tail_rows: int | None
    peak_bytes: int

    @property
    def steps(self) -> int:
        """Pieces to run, one more for each column of several bands: the rows held back."""
        held_back = self.kind == "bands" and len(self.rows) > 1
        return (len(self.rows) + held_back) * len(self.columns)

    def __str__(self) -> str:
        tall = max(span.stop - span.start for span in self.rows)
        wide = max(span.stop - span.start for span in self.columns)
        count = len(self.rows) * len(self.columns)
        return (
            f"{self.width}x{self.height} to {self.width * self.scale}x{self.height * self.scale}"
            f" in {count} {self.kind if count > 1 else self.kind[:-1]}"
            f" of {wide}x{tall}, about {self.peak_bytes / 2**20:.0f} MiB"
        )


class Engine:
    """A generator made ready for one device. Nothing changes after construction.

    Parameters
    ----------
    generator
        The network; its weights are copied.
    device
        ``"auto"`` picks CUDA, then Apple MPS, then the CPU.
    dtype
        ``"auto"`` picks for 8-bit pictures float16 on CUDA GPUs that are fast
        at it, and bfloat16 for the inner convolutions on CPUs with instructions
        for it; float32 elsewhere; or ``"float32"``, ``"float16"``,
        ``"bfloat16"``. On CUDA float32 is TF32 unless
        ``torch.backends.cudnn.allow_tf32`` is off.

    Raises
    ------
    ValueError
        If the device or the number type is unknown or absent.
    """

    def __init__(
        self,
        generator: Generator,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        self.config: GeneratorConfig = generator.config
        self.device: torch.device = choose_device(device)
        self.dtype: torch.dtype = choose_dtype(dtype, self.device)
        self.network: Network = prepare(generator, self.device, self.dtype)
        # What a tile that overflows in half precision is run with.
        self.exact: Network = (
            self.network
            if self.dtype == torch.float32
            else prepare(generator, self.device, torch.float32)
        )
        # Exact to a level is enough for 8 bits; deeper pictures get no half precision unasked.
        rough = self.dtype != torch.float32 and dtype == "auto"
        self.deep: Network = self.exact if rough else self.network

    def plan(
        self,
        height: int,
        width: int,
        tile: Tile = "auto",
        max_memory: int | str | None = None,
    ) -> Plan:
        """Decide how a picture is cut.

        Parameters
        ----------
        height, width
            Of the picture, in pixels, from 1 up.
        tile
            ``"auto"``, the largest edge of a piece in pixels of the input, or
            None for the picture in one piece.
        max_memory
            Bytes, or text such as ``"2GB"``; by default half of what is free.

        Raises
        ------
        ValueError
            If an argument is out of range.
        OutOfMemoryError
            If no cut fits.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a picture needs at least one pixel, not {width}x{height}.")
        if isinstance(tile, bool) or not (
            tile is None or tile == "auto" or (isinstance(tile, int) and tile >= 1)
        ):
            raise ValueError(f'tile must be "auto", a positive integer or None, not {tile!r}.')
        if max_memory is None:
            free = free_memory(self.device)
            budget = int(free * (SAFE_PART if tile == "auto" else 1))
        else:
            budget = parse_memory(max_memory)
        if self.device.type == "cpu" and self.dtype != torch.float16:
            plan = self._plan_bands(height, width, tile, budget)
            if plan.peak_bytes <= budget or tile != "auto":
                return check(plan, budget)
            # The rows that the layers of a very wide picture keep can take more
            # than tiles, which compute their halos again but keep nothing.
        return check(self._plan_tiles(height, width, tile, budget), budget)

    def _plan_bands(self, height: int, width: int, tile: Tile, budget: int) -> Plan:
        config = self.config
        wide = width if tile is None else min(width, WIDEST_COLUMN if tile == "auto" else tile)
        tall = height
        if tile is not None:
            tall = min(height, max(config.scale, BAND_PIXELS // wide))
            if tile != "auto":
                tall = min(tall, tile)
        size = self.network.features.itemsize

        def planned() -> Plan:
            rows, columns = cut(height, tall, 0), cut(width, wide, config.halo)
            tail = None if tile is None else max(1, min(tall, TAIL_PIXELS // wide))
            peak = size * band_values(config, rows, columns, width, tail or height)
            return Plan("bands", height, width, config.scale, rows, columns, tail, peak)

        plan = planned()
        while plan.peak_bytes > budget and tile == "auto" and (tall > 1 or wide > 2 * config.halo):
            # Thinner bands cost nothing but time to start operations;
            # narrower columns recompute their halos, so they come second.
            if tall > 4 or wide <= 2 * config.halo:
                tall = -(-tall // 2)
            else:
                wide = -(-wide // 2)
            plan = planned()
        return plan

    def _plan_tiles(self, height: int, width: int, tile: Tile, budget: int) -> Plan:
        edge = max(height, width) if tile is None else LARGEST_TILE if tile == "auto" else tile
        plan = self._tiles(height, width, edge)
        while plan.peak_bytes > budget and tile == "auto" and edge > SMALLEST_TILE:
            edge //= 2
            plan = self._tiles(height, width, edge)
        return plan

    def _tiles(self, height: int, width: int, edge: int) -> Plan:
        rows, columns = (cut(length, edge, self.config.halo) for length in (height, width))
        # Both number types' worth, since a tile may be run again in float32.
        peak = 4 * tile_values(self.config, rows, columns)
        peak += 4 * 3 * (rows[0].stop - rows[0].start) * width * self.config.scale**2
        return Plan("tiles", height, width, self.config.scale, rows, columns, None, peak)

    def run(
        self, source: RowSource, plan: Plan, progress: ProgressFn | None = None
    ) -> Iterator[np.ndarray]:
        """Enlarge a picture.

        Parameters
        ----------
        source
            H×W×C rows, C 1 or 3; uint8, uint16, or float32 in [0, 1].
        plan
            From :meth:`plan`, for the same height and width.
        progress
            Called with the number of pieces done and to do after each piece.

        Yields
        ------
        numpy.ndarray
            h×(scale·W)×C rows from top to bottom, of the source's dtype;
            together scale·H rows. Integers are clipped and rounded, floats
            clipped to [0, 1]. Grey is the luma (BT.601) of the enlarged grey.

        Raises
        ------
        ValueError
            If the source is of another size than the plan or no picture.
        OutOfMemoryError
            If memory runs out even with the smallest tiles.
        """
        if len(source.shape) != 3 or source.shape[2] not in (1, 3):
            raise ValueError(f"expected H x W x 1 or 3 values, not the shape {source.shape}.")
        if source.shape[:2] != (plan.height, plan.width):
            raise ValueError(
                f"the plan is for {plan.height} x {plan.width} pixels,"
                f" the picture has {source.shape[0]} x {source.shape[1]}."
            )
        if source.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected uint8, uint16 or float32, not {source.dtype}.")
        report = progress or (lambda done, total: None)
        run = self._run_bands if plan.kind == "bands" else self._run_tiles
        return run(source, plan, report)

    def _network(self, dtype: np.dtype[Any]) -> Network:
        """The network for a picture's type."""
        return self.network if dtype == np.uint8 else self.deep

    def _run_bands(
        self, source: RowSource, plan: Plan, progress: ProgressFn
    ) -> Iterator[np.ndarray]:
        # Held for as long as this run.
        _lid = keep_room(plan.peak_bytes)
        network = self._network(source.dtype)
        room = Room()
        streams = [Stream(network, plan.tail_rows, room) for _ in plan.columns]
        # The last step feeds nothing: the layers give the rows that they held
        # back, which together with a band would be much more than a band.
        bands = plan.rows if len(plan.rows) == 1 else (*plan.rows, None)
        nothing = np.empty((0, plan.width, source.shape[2]), source.dtype)
        done = 0
        for band in bands:
            rows = nothing if band is None else np.asarray(source[band.start : band.stop])
            last, parts = band is bands[-1], []
            for stream, column in zip(streams, plan.columns, strict=True):
                parts.append(self._band(stream, rows[:, column.first : column.last], last, column))
                done += 1
                progress(done, plan.steps)
            if parts[0].shape[0]:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @torch.inference_mode()
    def _band(self, stream: Stream, rows: np.ndarray, last: bool, column: Span) -> np.ndarray:
        """One band of one column through the network."""
        try:
            x = to_network(
                torch.from_numpy(network_values(rows)), self.device, self.network.features
            )
            crop = column.crop(self.config.scale)
            return np.concatenate(
                [
                    to_picture(to_values(out[..., crop], rows.dtype, rows.shape[2]), rows.dtype)
                    for out in stream.push(x, last)
                ]
            )
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise OutOfMemoryError(
                    f"memory ran out in a band of {rows.shape[1]}x{rows.shape[0]} pixels;"
                    " give a smaller max_memory or tile."
                ) from error
            raise

    def _run_tiles(
        self, source: RowSource, plan: Plan, progress: ProgressFn
    ) -> Iterator[np.ndarray]:
        rows, columns = plan.rows, plan.columns
        edge = max(span.stop - span.start for span in (*rows, *columns))
        tried: list[str] = []
        done = 0
        while rows:
            strip = None
            try:
                strip = self._strip(source, rows, columns, done, progress)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if strip is not None:
                done += len(columns)
                rows = rows[1:]
                yield strip
                continue
            # Outside the except clause, whose error keeps the failed tile's tensors alive.
            free_cache(self.device)
            tried.append(str(edge))
            edge //= 2
            if edge < SMALLEST_TILE:
                raise OutOfMemoryError(
                    f"memory of {self.device} ran out with tiles of {', '.join(tried)} pixels;"
                    " free some of it, or use the CPU."
                )
            rows = cut(plan.height, edge, self.config.halo, rows[0].start)
            columns = cut(plan.width, edge, self.config.halo)

    @torch.inference_mode()
    def _strip(
        self,
        source: RowSource,
        rows: tuple[Span, ...],
        columns: tuple[Span, ...],
        done: int,
        progress: ProgressFn,
    ) -> np.ndarray:
        """The first of ``rows`` tile by tile, as (scale·h)×(scale·W)×C."""
        row, total = rows[0], done + len(rows) * len(columns)
        read = np.asarray(source[row.first : row.last])
        network = self._network(read.dtype)
        scale = self.config.scale
        height, width = (row.stop - row.start) * scale, columns[-1].stop * scale
        strip = np.empty((height, width, read.shape[2]), read.dtype)
        # The next tile is on its way before the result of this one is awaited.
        flying: deque[Flight] = deque()
        for column in (*columns, None):
            if column is not None:
                block = read[:, column.first : column.last]
                flying.append(launch(network, block, row, column, self.device))
            if len(flying) > 1 or column is None:
                flight = flying.popleft()
                values = land(flight)
                if values is None:
                    again = launch(self.exact, flight.block, row, flight.column, self.device)
                    values = land(again)
                assert values is not None
                strip[:, flight.column.enlarged(scale)] = to_picture(values, read.dtype)
                done += 1
                progress(done, total)
        return strip


@dataclass(frozen=True)
class Flight:
    """A tile on the device, its result not yet awaited.

    Attributes
    ----------
    block
        The pixels it was made from.
    column
        Its place.
    values
        The result in host memory, complete once ``landed`` is reached.
    finite
        Whether every value was finite, likewise; None where nothing can overflow.
    landed
        The event to wait for; None where everything is done at once.
    """

    block: np.ndarray
    column: Span
    values: Tensor
    finite: Tensor | None
    landed: torch.cuda.Event | None


def launch(
    network: Network, block: np.ndarray, row: Span, column: Span, device: torch.device
) -> Flight:
    """Start a tile: copy it to the device, run it, quantise it, and start to copy it back."""
    values = torch.from_numpy(network_values(block))
    on_cuda = device.type == "cuda"
    if on_cuda:
        values = values.pin_memory()
    x = to_network(values, device, network.features)
    scale = network.config.scale
    (out,) = Stream(network).push(x, last=True)
    out = out[:, :, row.crop(scale), column.crop(scale)]
    # Checked before clipping, which hides infinity.
    finite = None if network.features == torch.float32 else torch.isfinite(out).all()
    result = to_values(out, block.dtype, block.shape[2])
    if not on_cuda:
        return Flight(block, column, result.cpu(), finite, None)
    # A stream of its own, so that copying back overlaps with the next tile.
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))
    landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(copies):
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        result.record_stream(copies)
        if finite is not None:
            flag = torch.empty((), dtype=torch.bool, pin_memory=True)
            flag.copy_(finite, non_blocking=True)
            finite.record_stream(copies)
            finite = flag
        landed.record(copies)
    return Flight(block, column, host, finite, landed)


def land(flight: Flight) -> Tensor | None:
    """Wait for a tile; None if it overflowed in half precision."""
    if flight.landed is not None:
        flight.landed.synchronize()
    if flight.finite is not None and not bool(flight.finite):
        return None
    return flight.values


def keep_room(size: int) -> Tensor | None:
    """Have the C library keep about ``size`` bytes for as long as the result lives; Linux only.

    glibc gives large blocks, and free memory at the top of its heap, back to the
    system, which clears every page when it is next asked for: on wide pictures
    that took a tenth of the time. Where a block of 31 MiB has been freed, smaller
    ones come from the heap (mallopt(3)); and what lies below a block that is in
    use is not the top. The memory is only set aside: what is not used is never there.
    """
    if sys.platform != "linux":
        return None
    torch.empty(LARGE_BLOCK, dtype=torch.uint8)
    block = LARGE_BLOCK // 2
    below = [torch.empty(block, dtype=torch.uint8) for _ in range(-(-size // block))]
    lid = torch.empty(block // 2, dtype=torch.uint8)
    del below
    return lid


def network_values(pixels: np.ndarray) -> np.ndarray:
    """Pixels as an array that torch takes: uint8 stays, the rest becomes float32 in [0, 1]."""
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(65535)
    return np.require(pixels, requirements=("C", "W"))


def to_network(pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """h×w×C pixels as 1×3×h×w in [0, 1], channels last, on the device."""
    x = pixels.to(device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = x.float() / 255
    x = x.to(dtype)
    if x.shape[2] == 1:
        x = x.expand(-1, -1, 3)
    return x.contiguous().permute(2, 0, 1)[None]


def to_values(out: Tensor, dtype: np.dtype[Any], channels: int) -> Tensor:
    """A result as h×w×C in the range of ``dtype``, clipped and rounded, where it is.

    Parameters
    ----------
    out
        1×3×h×w, nominally in [0, 1].
    dtype
        uint8, uint16 or float32.
    channels
        3, or 1 for the luma.
    """
    x = out[0].permute(1, 2, 0).float()
    if channels == 1:
        x = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    x = x.clamp(0, 1)
    if dtype == np.uint8:
        return x.mul_(255).round_().to(torch.uint8)
    if dtype == np.uint16:
        return x.mul_(65535).round_().to(torch.int32)
    return x


def to_picture(values: Tensor, dtype: np.dtype[Any]) -> np.ndarray:
    """Values as an array of the picture's type."""
    return values.numpy().astype(dtype, copy=False)


def band_values(
    config: GeneratorConfig,
    rows: tuple[Span, ...],
    columns: tuple[Span, ...],
    width: int,
    tail_rows: int,
) -> int:
    """Estimated number of values in memory at the highest point of a run in bands."""
    channels, body = config.channels, config.body_kernel // 2
    wide = max(span.length for span in columns)
    read = sum(span.length for span in columns)
    growth = 1 << (config.doublings - 1)
    lag = body * (2 * config.blocks + 1)
    tall = max(span.length for span in rows)
    # The strip of features, and above it room for the rows that all layers keep.
    strip = tall + body + (lag + body if len(rows) > 1 else 0)
    # A residual block: its input in the layer's type, and two results.
    work = 3 * tall * wide * channels
    # The last sub-pixel layer: its input, its result, and both behind the rows kept.
    last = tail_rows * wide * growth**2
    work = max(work, tall * wide * channels + last * (channels * (2 + 4 + 4) + 36))
    work += strip * wide * channels
    # Features that wait for the long skip.
    kept = (lag + max(span.length for span in rows)) * channels
    if len(rows) > 1 or tail_rows < rows[0].length:
        kept += 2 * (config.stem_kernel // 2) * 3 + 2 * lag * channels
        kept += sum(2 * body * channels << step for step in range(config.doublings))
        kept += 2 * -(-(config.output_kernel // 2) // 2) * 12 * config.output_kernel * growth
    # The result as floats, and put together from columns as pixels; in the last
    # step with the rows that all layers held back.
    result = 2 * max(tall, lag if len(rows) > 1 else 0) * config.scale**2 * width * 3
    return work + kept * read + result


def tile_values(config: GeneratorConfig, rows: tuple[Span, ...], columns: tuple[Span, ...]) -> int:
    """Estimated number of values on the device at the highest point of a run in tiles."""
    area = max(span.length for span in rows) * max(span.length for span in columns)
    last = area << 2 * (config.doublings - 1)
    # As for bands; a library's workspace may take as much again as the largest result.
    return last * config.channels * (2 + 4 + 4) + last * 4 * 3 * 6


def check(plan: Plan, budget: int) -> Plan:
    """The plan, if it fits."""
    if plan.peak_bytes > budget:
        raise OutOfMemoryError(
            f"the smallest plan that the arguments allow needs about {mebibytes(plan.peak_bytes)},"
            f" but {mebibytes(budget)} may be used; give a smaller tile or a larger max_memory."
        )
    return plan


def mebibytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**20:.0f} MiB"


def choose_device(device: str | torch.device) -> torch.device:
    """The device itself; ``"auto"`` is the fastest there is."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device must be "auto", "cpu", "cuda" or "mps", not {device!r}.'
        ) from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise ValueError(f'there is no CUDA device {chosen}; use device="cpu" or "auto".')
        return torch.device(
            "cuda", torch.cuda.current_device() if chosen.index is None else chosen.index
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError('there is no MPS device; use device="cpu" or "auto".')
    if chosen.type not in ("cpu", "mps"):
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "mps", not {device!r}.')
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number type itself; ``"auto"`` is half only where that is fast and within a level.

    In bfloat16 only the inner convolutions have 8 bits (:func:`srgan_infer.bands.prepare`).
    """
    if dtype == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if multiplies_bfloat16() else torch.float32
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (7, 0):
            return torch.float32
        # The GTX 16 series has no tensor cores, and is known to overflow.
        slow = "GTX 16" in torch.cuda.get_device_name(device)
        return torch.float32 if slow else torch.float16
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise ValueError(f'dtype must be "auto", {", ".join(map(repr, DTYPES))}, not {dtype!r}.')
    return chosen


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it that PyTorch uses: AMX, or AVX-512 BF16."""
    # With this variable users switch instructions off.
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() not in ("ALL", "DEFAULT"):
        return False
    # Older releases of PyTorch cannot tell.
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def parse_memory(text: int | str) -> int:
    """Bytes from a number or a text such as ``"2GB"``, ``"512 MiB"`` or ``"1.5g"``.

    Both kB/MB/GB and KiB/MiB/GiB are powers of 1024.

    Raises
    ------
    ValueError
        If it is none, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(text).lower())
    count = 0
    if match and not isinstance(text, bool):
        count = int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))
    if count < 1:
        raise ValueError(f'memory must be a number of bytes or a text such as "2GB", not {text!r}.')
    return count


def free_memory(device: torch.device) -> int:
    """Free bytes on the device, or in RAM within the limits of the container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What the allocator holds and does not use can be had as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(spare)
    return min(free_ram(), *cgroup_free(Path("/sys/fs/cgroup")))


def free_ram() -> int:
    """Free bytes of the machine's RAM."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            return int(match[1]) * 1024
    if sys.platform == "win32":
        import ctypes

        class Status(ctypes.Structure):
            """MEMORYSTATUSEX."""

            _fields_ = [
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                ("total", ctypes.c_ulonglong),
                ("free", ctypes.c_ulonglong),
                ("pages", ctypes.c_ulonglong * 2),
                ("addresses", ctypes.c_ulonglong * 3),
            ]

        status = Status(length=ctypes.sizeof(Status))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status.free)
    try:
        # Without a count of free pages, half of what there is.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 2**31


def cgroup_free(root: Path) -> list[int]:
    """Bytes that a container's limits (cgroup version 2 or 1) leave; one entry a limit."""
    found = [2**62]
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        try:
            top, now = limit.read_text().strip(), int(used.read_text())
            stat = (used.parent / "memory.stat").read_text()
        except (OSError, ValueError):
            continue
        if top.isdigit():
            # Cached files are counted as used, and given up when memory is asked for.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
            found.append(max(0, int(top) - now + (int(cached[1]) if cached else 0)))
    return found


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory ran out; anything else must not be tried again."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "MPS backend out of memory" in str(
        error
    )


def free_cache(device: torch.device) -> None:
    """Give back what the allocator holds and does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
