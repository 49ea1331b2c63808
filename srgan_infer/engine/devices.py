"""Devices: which there are, what dtype is fast there, how much memory is free."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srgan_infer.errors import UpscaleError

if sys.platform == "linux":
    import resource

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Just under the largest block from whose freeing glibc learns.
LARGE_BLOCK = 31 << 20
# What the thread of the network may keep of the memory of small images.
KEPT_BYTES = 128 << 20


def hold_heap(size: int) -> Tensor | None:
    """Have the C library keep about ``size`` bytes for as long as the result lives; Linux only.

    glibc gives large blocks, and free memory at the top of its heap, back to the
    system, which clears every page when it is next asked for: on wide images
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


_thread = threading.local()


def network_thread() -> ThreadPoolExecutor:
    """One thread for the network, where others decode and encode.

    It gives memory back only when its runs have taken :data:`KEPT_BYTES` together: the
    system clears every page that is asked for again, which for small images took a
    tenth of the time.
    """

    def begin() -> None:
        _thread.keeps = KEPT_BYTES

    return ThreadPoolExecutor(1, initializer=begin)


def release_heap(size: int) -> None:
    """Outside the main thread, give the C library's free memory back; Linux only.

    glibc has a heap for every thread and keeps what is freed there: a server with a few
    worker threads grew by several times what its images need.

    Parameters
    ----------
    size
        Bytes that the run took.
    """
    if sys.platform != "linux" or threading.current_thread() is threading.main_thread():
        return
    keeps = getattr(_thread, "keeps", 0)
    _thread.taken = getattr(_thread, "taken", 0) + size
    if _thread.taken < keeps:
        return
    _thread.taken = 0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries lack it
    if trim is not None:
        trim(0)


# The process whose threads PyTorch works with.
_process = os.getpid()


def settle_in_process(device: torch.device, made_in: int) -> None:
    """Have PyTorch work in a process that was forked from another.

    Its threads do not come along, and what waits for them waits for ever; so it is to use
    none. Nothing is done at the time of the fork, only when there is something to compute.

    Parameters
    ----------
    device
        What is to be used.
    made_in
        The process in which that began.

    Raises
    ------
    UpscaleError
        If it is no CPU and was used before the fork already.
    """
    global _process
    here = os.getpid()
    if here != made_in and device.type != "cpu":
        raise UpscaleError(
            f"this instance was made on {device} before the process was forked, where it cannot "
            'be used; make it in the worker, or start workers by "spawn".'
        )
    if here != _process:
        torch.set_num_threads(1)
        _process = here


def mebibytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**20:.0f} MiB"


_float32_lock = threading.Lock()
_float32_users = 0
_float32_before: list[tuple[Any, tuple[str, Any]]] = []


@contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """Have float32 convolutions that start in here computed as float32, not as TF32.

    The switch is global and the caller's, so it is turned for no longer than it takes to
    start them, by all threads together.
    """
    global _float32_users, _float32_before
    if device.type != "cuda":
        yield
        return
    with _float32_lock:
        if not _float32_users:
            _float32_before = tf32_settings()
            torch.backends.cudnn.allow_tf32 = False
        _float32_users += 1
    try:
        yield
    finally:
        with _float32_lock:
            _float32_users -= 1
            if not _float32_users:
                for place, value in _float32_before:
                    setattr(place, *value)


def tf32_settings() -> list[tuple[Any, tuple[str, Any]]]:
    """Where PyTorch keeps whether cuDNN may use TF32, with the name and value of each setting."""
    cudnn: Any = torch.backends.cudnn
    # From 2.9 on a setting for each kind of operation stands behind the old one, and reading
    # the old one is an error where these differ.
    parts = [part for part in (getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)) if part]
    if parts:
        return [(part, ("fp32_precision", part.fp32_precision)) for part in parts]
    return [(cudnn, ("allow_tf32", cudnn.allow_tf32))]


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """In memory that a GPU copies from while the host goes on; elsewhere as it is."""
    return values.pin_memory() if device.type == "cuda" else values


@dataclass(frozen=True)
class HostCopy:
    """A tensor on its way from a device to the host.

    Attributes
    ----------
    values
        In host memory, complete once ``arrived`` is reached.
    finite
        Whether every value was finite, likewise; None where nothing can overflow.
    arrived
        The event to wait for; None where everything is done at once.
    """

    values: Tensor
    finite: Tensor | None
    arrived: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, bool]:
        """The values, and whether all are finite."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values, self.finite is None or bool(self.finite)


def copy_to_host(values: Tensor, finite: Tensor | None) -> HostCopy:
    """Start to copy a result back; on CUDA that overlaps with what is computed next."""
    device = values.device
    if device.type != "cuda":
        return HostCopy(values.cpu(), finite, None)
    # A stream of its own, so that copying back overlaps with the next tile.
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(copies):
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        values.record_stream(copies)
        if finite is not None:
            flag = torch.empty((), dtype=torch.bool, pin_memory=True)
            flag.copy_(finite, non_blocking=True)
            finite.record_stream(copies)
            finite = flag
        arrived.record(copies)
    return HostCopy(host, finite, arrived)


def devices() -> dict[str, str]:
    """Name of each device that torch can use, and what it is."""
    found = {"cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def choose_device(device: str | torch.device) -> torch.device:
    """The device itself; ``"auto"`` is the fastest there is."""
    try:
        return _choose_device(device)
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        raise UpscaleError(
            "CUDA was used before the process was forked, and cannot be used in both; use it in "
            'the worker alone, or start workers by "spawn".'
        ) from error


def _choose_device(device: str | torch.device) -> torch.device:
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
    """The dtype itself; ``"auto"`` is half only where that is fast and within a level.

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
    count = 0.0
    if match and not isinstance(text, bool):
        count = float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")
    if not 1 <= count < 2**62:
        raise ValueError(f'memory must be a number of bytes or a text such as "2GB", not {text!r}.')
    return int(count)


def free_memory(device: torch.device) -> int:
    """Free bytes on the device, or in RAM within the limits of the container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What the allocator holds and does not use can be had as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(spare)
    return min(free_ram(), free_addresses(), *cgroup_free(Path("/sys/fs/cgroup")))


def free_ram() -> int:
    """Free bytes of the machine's RAM."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            return int(match[1]) * 1024
    if sys.platform == "win32":

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


def free_addresses() -> int:
    """Bytes that the process may still map (``ulimit -v``)."""
    if sys.platform != "linux":
        return 2**62
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return 2**62
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(limit - pages * os.sysconf("SC_PAGE_SIZE"), 0)


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
