"""The public class: a model on a device, ready to upscale images."""

from __future__ import annotations

import copy
import math
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from srgan_infer import arrays, video, weights
from srgan_infer.engine.devices import (
    free_memory,
    mebibytes,
    network_thread,
    parse_memory,
    settle_in_process,
)
from srgan_infer.engine.engine import Engine
from srgan_infer.engine.plan import Plan, Progress, Tile, check_tile
from srgan_infer.errors import ImageError, ImageWarning, OutOfMemoryError, in_words, printable
from srgan_infer.files import free_room
from srgan_infer.images.alpha import alpha_rows, join_alpha
from srgan_infer.images.formats import (
    FORMATS,
    Format,
    check_output,
    choose_format,
    encoder_bytes,
)
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.pil_source import check_source
from srgan_infer.images.pillow import from_pil, to_pil
from srgan_infer.images.read import (
    ImageFile,
    SourceImage,
    check_limit,
    limit_of_files,
    open_file,
    refuse_address,
)
from srgan_infer.images.resize import Box, check_size, output_size
from srgan_infer.images.rows import SPOOL_PIXELS, Channels, DecodedImage, RowSource, is_grey
from srgan_infer.images.tiff import page_bytes
from srgan_infer.images.write import create
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.threads import map_in_order
from srgan_infer.version import __version__

Array = npt.NDArray[Any]

# JPEG files of this quality and below look better with the model for photographs.
COMPRESSED_QUALITY = 80
# Pages that a sentence on some of many names.
PAGES_NAMED = 5


@dataclass(frozen=True)
class _Asked:
    """What one call asks for beside its image."""

    outscale: float | None
    size: Box | None
    megapixels: float | None
    tile: Tile
    max_memory: int | str | None
    max_pixels: int | None


@dataclass(frozen=True)
class FileResult:
    """What :meth:`SuperResolver.upscale_file` did.

    Attributes
    ----------
    size
        Width and height of the result, in pixels; of its first page, where there are several.
    frames
        Number of frames; 1 unless the file is an animation.
    warnings
        Sentences on what could not be kept.
    suggested_model
        Name of the bundled model that suits the source better than the default one
        that was used, if there is one.
    target
        The file that was written; ``None`` if the target was a file object.
    passes
        How many times the network ran over each frame; more than once where the result is
        larger than the network's scale makes it.
    pages
        Number of pages; 1 unless it is a TIFF file.
    """

    size: tuple[int, int]
    frames: int
    warnings: tuple[str, ...]
    suggested_model: str | None = None
    target: Path | None = None
    passes: int = 1
    pages: int = 1


@dataclass(frozen=True)
class FilePlan:
    """What :meth:`SuperResolver.upscale_file` would do.

    Attributes
    ----------
    format
        Name of the format that would be written, such as ``"PNG"``.
    input_size, size
        Width and height of the source, upright, and of the result, in pixels; of their first
        pages, where there are several.
    frames
        Number of frames; 1 unless the file is an animation.
    cuts
        How each page is cut, and the memory that computing it takes; of other files than
        TIFF one, for every frame.
    memory_bytes
        Estimated memory at the highest point, without the program: computing, the decoded
        source with its transparency, and what is held of the result while it is encoded.
    temporary_bytes
        Space for temporary files: frames that wait for an encoder that needs all of them,
        and the pixels of a large source.
    warnings
        Sentences on what cannot be kept.
    suggested_model
        Name of the bundled model that suits the source better than the default one
        that would be used, if there is one.
    """

    format: str
    input_size: tuple[int, int]
    size: tuple[int, int]
    frames: int
    cuts: tuple[Plan, ...]
    memory_bytes: int
    temporary_bytes: int
    warnings: tuple[str, ...]
    suggested_model: str | None = None
    _most_bytes: int | None = None

    @property
    def cut(self) -> Plan:
        """How each frame, or the first page, is cut."""
        return self.cuts[0]

    @property
    def pages(self) -> int:
        """Number of pages; 1 unless it is a TIFF file."""
        return len(self.cuts)

    @property
    def input_pixels(self) -> int:
        """Pixels that the network has to read, over all frames, pages and passes."""
        return self.frames * sum(cut.input_pixels for cut in self.cuts)

    @property
    def steps(self) -> int:
        """What progress is counted in, over all frames, pages and passes."""
        return self.frames * sum(cut.steps for cut in self.cuts)


class SuperResolver:
    """Upscales images with one model on one device.

    Nothing is kept between calls: an instance may be used from several
    threads at once.

    Parameters
    ----------
    model
        Verified weights; :meth:`from_pretrained` finds them by name.
    device
        ``"auto"`` (CUDA, then Apple MPS, then CPU) or a torch device.
    dtype
        ``"auto"`` (for 8-bit images half precision where it is fast and within a
        level, float32 elsewhere), ``"float32"``, ``"float16"``, ``"bfloat16"`` or the
        torch dtype. float32 is float32 on a GPU too, never TF32.
    tile
        ``"auto"``, the edge of a tile in input pixels, or ``"whole"`` for the
        image in one piece. The result does not depend on it.
    max_memory
        Bytes, or text such as ``"2GB"``, that the computation may use; a safe
        part of the free memory if ``None``.
    max_pixels
        Refuse images of more pixels than this, over all frames and pages that would be
        upscaled, before they are decoded. If ``None``: files of any size, unless the program
        that this is part of has changed ``PIL.Image.MAX_IMAGE_PIXELS``.

    Raises
    ------
    ValueError
        If the device or the dtype is unknown or absent, or an option has a value that
        means nothing.
    OutOfMemoryError
        If ``max_memory`` is too little for any image.
    """

    def __init__(
        self,
        model: weights.Weights,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        tile: Tile = "auto",
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        check_limit(max_pixels)
        check_tile(tile)
        self._weights = model
        self._engine = Engine(weights.build(model), device, dtype)
        self._tile = tile
        self._max_memory = max_memory
        self._max_pixels = max_pixels
        if max_memory is not None:
            self._engine.plan(1, 1, tile, max_memory)  # refused here if no image at all fits

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = weights.DEFAULT,
        *,
        strength: float | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        tile: Tile = "auto",
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        timeout: float = weights.TIMEOUT,
    ) -> SuperResolver:
        """Load a model by name.

        Parameters
        ----------
        model
            ``"srgan"`` (sharp, invents texture), ``"srresnet"`` (faithful),
            ``"srgan-photo"`` (for compressed photographs), a folder, or a Hugging
            Face Hub repository ``"user/repo"``.
        strength
            In [0, 1]: blends the bundled ``srresnet`` (0) and ``srgan`` (1).
            Goes with the default model only.
        device, dtype, tile, max_memory, max_pixels
            As in :class:`SuperResolver`.
        revision, cache_dir, token, local_files_only, force_download
            Of a Hub repository, as in ``huggingface_hub.hf_hub_download``.
        timeout
            Seconds that fetching from the Hub may take in all, whatever it does.

        Raises
        ------
        WeightsError
            If the model cannot be found, fetched, verified or understood.
        ValueError
            If an option has a value that means nothing.
        """
        settle_in_process(torch.device("cpu"), os.getpid())
        if strength is None:
            loaded = weights.load(
                model,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
                timeout=timeout,
            )
        elif model == weights.DEFAULT:
            loaded = weights.blend(
                weights.load(weights.FAITHFUL), weights.load(weights.PERCEPTUAL), strength
            )
        else:
            raise ValueError(
                f"strength blends the bundled {weights.FAITHFUL} and {weights.PERCEPTUAL}, so it "
                f"does not go with model {os.fspath(model)!r}; give one of the two."
            )
        return cls(
            loaded,
            device=device,
            dtype=dtype,
            tile=tile,
            max_memory=max_memory,
            max_pixels=max_pixels,
        )

    @property
    def config(self) -> GeneratorConfig:
        """The network's description."""
        return self._weights.config

    @property
    def scale(self) -> int:
        """Magnification: 4 for the bundled models."""
        return self._weights.config.scale

    @property
    def name(self) -> str:
        """What the model was asked for by."""
        return self._weights.name

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the weights file; two joined by ``+`` for a blend."""
        return self._weights.sha256

    @property
    def module(self) -> Generator:
        """The generator as a module of its own in evaluation mode, float32 on the CPU.

        It takes N×3×H×W in [0, 1] and gives N×3×(scale·H)×(scale·W), not clipped. It is a
        copy: hooks, ``torch.compile`` and fine-tuning do not change this resolver.
        """
        # Built from the same tensors as the engine, which a step of training would change.
        return copy.deepcopy(weights.build(self._weights)).requires_grad_(True)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._engine.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network runs in."""
        return self._engine.dtype

    def __repr__(self) -> str:
        return f"SuperResolver({self.name!r}, ×{self.scale}, {self.device}, {self.dtype})"

    @overload
    def __call__(
        self,
        image: Image.Image | ImageFile,
        *,
        outscale: float | None = ...,
        size: Box | None = ...,
        megapixels: float | None = ...,
        tile: Tile | None = ...,
        max_memory: int | str | None = ...,
        max_pixels: int | None = ...,
        progress: bool | Progress = ...,
    ) -> Image.Image: ...

    @overload
    def __call__(
        self,
        image: Array,
        *,
        layout: str | None = ...,
        outscale: float | None = ...,
        size: Box | None = ...,
        megapixels: float | None = ...,
        tile: Tile | None = ...,
        max_memory: int | str | None = ...,
        max_pixels: int | None = ...,
        progress: bool | Progress = ...,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        image: Tensor,
        *,
        layout: str | None = ...,
        outscale: float | None = ...,
        size: Box | None = ...,
        megapixels: float | None = ...,
        tile: Tile | None = ...,
        max_memory: int | str | None = ...,
        max_pixels: int | None = ...,
        progress: bool | Progress = ...,
    ) -> Tensor: ...

    def __call__(
        self,
        image: Image.Image | Array | Tensor | ImageFile,
        *,
        layout: str | None = None,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
        progress: bool | Progress = False,
    ) -> Image.Image | Array | Tensor:
        """Upscale one image.

        Parameters
        ----------
        image
            One of

            - a PIL image of any mode, as it lies in memory; one is refused that still leads
              to a file which Pillow gets wrong;
            - a NumPy array, H×W or H×W×C with C = 1 grey, 2 grey and alpha,
              3 RGB, 4 RGBA; uint8, uint16, or floating point in [0, 1];
            - a torch tensor, C×H×W or N×C×H×W with the same C; uint8, or
              floating point in [0, 1];
            - a file, of which the first frame is taken: its path, its bytes, or a
              binary file object.
        layout
            The axes of an array or tensor that is laid out otherwise, such as ``"NHWC"``
            or ``"CHW"``; the result has the same.
        outscale
            How many times as large the result is, above 0 and at most 16; ``scale`` if
            nothing says a size. Under ``scale`` the upscaled rows are reduced by a
            Lanczos filter; over it the network runs over its own result once more first.
        size
            (width, height) of a box that the result fills with its ratio kept; either of
            them may be None.
        megapixels
            Largest number of millions of pixels of the result.
        tile, max_memory, max_pixels
            For this call; ``None`` is what was given at construction.
        progress
            ``True`` for a progress bar on stderr, or a function that is called
            with the number of steps done and in total. What it raises ends the work and
            comes out as it is.

        Returns
        -------
        PIL image, ndarray or Tensor
            The same kind, dtype, channel layout (and torch device), ``scale`` times as
            large or as asked for; a PIL image for a file. The input is not changed. Small
            images with N are run together, which rounds otherwise than one by one: floats
            differ by at most 1e-4, 8-bit values by a level.

        Raises
        ------
        ImageError
            If the image has a shape, type or values that mean no image.
        OutOfMemoryError
            If the memory does not suffice even for the smallest tiles.
        """
        asked = self._asked(outscale, size, megapixels, tile, max_memory, max_pixels)
        with _reporting(progress) as moved, in_words(moved) as report:
            big: Image.Image | Array | Tensor = self._one(image, layout, asked, report, _here)
        return big

    def map(
        self,
        images: Iterable[Any],
        *,
        workers: int | None = None,
        errors: Literal["raise", "yield"] = "raise",
        layout: str | None = None,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
    ) -> Iterator[Any]:
        """Upscale many images, one after the other, while others are decoded.

        The network runs in a thread of its own and goes on while the caller does something
        with a result, such as saving it.

        Parameters
        ----------
        images
            Whatever a call takes, in any mixture: a list, a generator, a ``DataLoader``.
            Taken in the caller's thread, a few ahead of the results. Small arrays or tensors
            of one shape that follow each other in a list or tuple are run together.
        workers
            Threads that decode; as many images and one more are in memory besides the one
            that was yielded last. Two if ``None``.
        errors
            ``"raise"`` ends at the first image that fails; ``"yield"`` yields its exception
            in its place and goes on.
        layout, outscale, size, megapixels, tile, max_memory, max_pixels
            As for a call, of every image.

        Yields
        ------
        PIL image, ndarray, Tensor or Exception
            What a call returns, in the order of the images.

        Raises
        ------
        ValueError
            If an option has a value that means nothing.
        """
        if errors not in ("raise", "yield"):
            raise ValueError(f'errors must be "raise" or "yield", not {errors!r}.')
        count = 2 if workers is None else workers
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"workers must be a whole number above 0, not {workers!r}.")
        check_size(outscale, size, megapixels)
        asked = self._asked(outscale, size, megapixels, tile, max_memory, max_pixels)
        return self._map(images, count, errors == "raise", layout, asked)

    def _map(
        self, images: Iterable[Any], workers: int, raises: bool, layout: str | None, asked: _Asked
    ) -> Iterator[Any]:
        stop = threading.Event()

        def go_on(done: int, total: int) -> None:
            if stop.is_set():
                raise CancelledError

        with network_thread() as network:

            def run(task: Callable[[], Any]) -> Any:
                return network.submit(task).result()

            def some(group: list[Any]) -> list[Any]:
                if len(group) > 1:
                    return self._together(group, layout, asked, go_on, run)
                with in_words():
                    return [self._one(group[0], layout, asked, go_on, run)]

            if isinstance(images, (list, tuple)):
                groups: Iterable[list[Any]] = self._groups(images)
            else:
                groups = ([image] for image in images)  # as they come
            done = map_in_order(some, groups, workers)
            try:
                for results in done:
                    for result in [results] if isinstance(results, Exception) else results:
                        if raises and isinstance(result, Exception):
                            raise result
                        yield result
            finally:
                stop.set()
                done.close()

    def _groups(self, images: Sequence[Any]) -> Iterator[list[Any]]:
        """Small arrays or tensors of one shape that follow each other, any other image alone."""
        most = 4 * self._engine.batch_pixels  # values, of up to four channels
        for _, alike in groupby(images, _shape):
            group = list(alike)
            count = 1
            if isinstance(group[0], (np.ndarray, Tensor)):
                count = max(most // max(math.prod(group[0].shape), 1), 1)
            yield from (group[first : first + count] for first in range(0, len(group), count))

    def _together(
        self,
        images: list[Any],
        layout: str | None,
        asked: _Asked,
        report: Progress | None,
        run: Callable[[Callable[[], Any]], Any],
    ) -> list[Any]:
        """What calls return or raise, of arrays or tensors of one shape."""
        results: list[Any] = []
        parts: list[DecodedImage] = []
        self._engine.settle()
        for image in images:
            try:
                with in_words():
                    found = _parts(image, layout, asked)
                results.append(slice(len(parts), len(parts) + len(found)))
                parts += found
            except Exception as error:
                results.append(error)
        if not parts:
            return results
        try:
            with in_words():
                big = run(lambda: self._all(parts, asked, report))
        except Exception as error:
            return [error if isinstance(one, slice) else one for one in results]
        return [
            _like(big[one], image, layout) if isinstance(one, slice) else one
            for one, image in zip(results, images, strict=True)
        ]

    def _one(
        self,
        image: Any,
        layout: str | None,
        asked: _Asked,
        report: Progress | None,
        run: Callable[[Callable[[], Any]], Any],
    ) -> Any:
        """What a call returns; ``run`` calls what the network does, where it is to run."""
        self._engine.settle()
        if isinstance(image, Image.Image):
            _check_pixels(image.width * image.height, asked)
            _warn(check_source(image))
            source, metadata = from_pil(image)
            big = run(lambda: self._alone(source, asked, report))
            return _as_pil(big, image.mode, metadata)
        if isinstance(image, (np.ndarray, Tensor)):
            parts = _parts(image, layout, asked)
            return _like(run(lambda: self._all(parts, asked, report)), image, layout)
        if isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(
            image, "read"
        ):
            file = open_file(image, max_pixels=limit_of_files(asked.max_pixels))
            frame = next(file.frames())
            _warn((*file.warnings, *frame.warnings))
            big = run(lambda: self._alone(frame, asked, report))
            return _as_pil(big, file.mode, file.metadata)
        raise ImageError(
            "An image is a PIL image, a NumPy array, a torch tensor, a path, bytes or a binary "
            f"file, not {type(image).__name__}; convert it, or give several to sr.map."
        )

    def upscale_file(
        self,
        source: ImageFile,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        format: str | None = None,
        quality: int | None = None,
        overwrite: bool = True,
        strip_metadata: bool = False,
        keep_dates: bool = False,
        note: bool = False,
        damaged: Literal["refuse", "keep"] = "refuse",
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
        progress: bool | Progress = False,
        network: Executor | None = None,
    ) -> FileResult:
        """Upscale an image file into another one.

        PNG and TIFF are written while they are computed, so that the result is
        never whole in memory. The target appears when it is complete: after a
        failure there is the old file or none. Metadata is carried over, the
        EXIF orientation applied, and every frame of an animation upscaled. So is every page
        from one TIFF file to another; thumbnails and smaller versions are left out.

        Parameters
        ----------
        source
            A path, the bytes of a file, or a binary file object.
        target
            A path, or a binary file object.
        format
            Such as ``"PNG"`` or ``"JPEG"``. If ``None``: by the target's name; for a
            file object the source's format, PNG where that cannot be written.
        quality
            1 to 100, of formats that lose detail.
        overwrite
            Whether a file that is at the target, or appears there while the result is
            computed, is replaced. If not, it stays, and the result goes beside it, to
            ``name-1.png`` or the next number that is free, with a warning.
        strip_metadata
            Whether everything is left out that the image does not need to look the same:
            colour profile and signalling, resolution and timing stay.
        keep_dates
            Whether the result gets the times of access and modification of the source,
            where both are paths.
        note
            Whether an entry is added to the history in XMP: upscaled, by which model
            and version.
        damaged
            ``"keep"`` upscales what there is of a JPEG that is cut short, with a warning.
        outscale, size, megapixels
            The size of the result, as for a call.
        tile, max_memory, max_pixels
            For this call; ``None`` is what was given at construction.
        progress
            ``True`` for a progress bar on stderr, or a function that is called
            with the number of steps done and in total, over all frames and pages.
            What it raises ends the work, leaves no file, and comes out as it is: so cancel.
        network
            Where the network runs: an executor with one thread, for programs in which
            several threads upscale files, so that some decode and encode while one
            computes. The caller's thread if ``None``.

        Raises
        ------
        ImageError
            If the source cannot be read or the target not written.
        OutOfMemoryError
            If the memory does not suffice even for the smallest tiles.
        ValueError
            If an option has a value that means nothing.
        """
        self._engine.settle()
        asked = self._asked(outscale, size, megapixels, tile, max_memory, max_pixels)
        found: list[list[str]] = []
        with _reporting(progress) as moved, in_words(moved) as report:
            dates = _dates(source) if keep_dates else None
            limit = limit_of_files(asked.max_pixels)
            file = open_file(source, max_pixels=limit, damaged=damaged)
            kind = _format(file, target, format)
            plan = self._plan_file(file, target, kind, quality, asked, strip_metadata, note)
            if quality is None and file.lossless and kind.name == "WEBP":
                quality = 100  # lossless stays lossless
            pages = self._pages(file, kind, asked, strip_metadata, note)
            first = next(pages)
            with create(
                _file(target),
                format=kind.name,
                size=plan.size,
                channels=first.channels,
                dtype=first.dtype,
                metadata=first.metadata,
                n_frames=first.n_frames,
                n_pages=plan.pages,
                most_bytes=plan._most_bytes,
                quality=quality,
                overwrite=overwrite,
            ) as writer:
                steps = _Steps(report, plan.steps)
                for number, page in enumerate(chain((first,), pages)):
                    cut = plan.cuts[number]
                    if number:
                        writer.next_page(cut.size, page.channels, page.dtype, page.metadata)
                    found.append([])
                    for image in page.frames():
                        found[-1] += image.warnings
                        bands = self._bands(image, cut, steps.of(cut))
                        if network is None:
                            writer.write_all(bands)
                        else:
                            network.submit(writer.write_all, bands).result()
        late = _set_dates(writer.path, dates)
        said = dict.fromkeys((*plan.warnings, *_by_page(found), *writer.moved, *late))
        lost = tuple(map(printable, said))
        _warn(lost)
        return FileResult(
            plan.size,
            plan.frames,
            lost,
            plan.suggested_model,
            writer.path,
            len(plan.cut.passes),
            plan.pages,
        )

    def plan_file(
        self,
        source: ImageFile,
        target: str | os.PathLike[str] | BinaryIO | None = None,
        *,
        format: str | None = None,
        quality: int | None = None,
        strip_metadata: bool = False,
        note: bool = False,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
    ) -> FilePlan:
        """Say what :meth:`upscale_file` would do, from the source's header.

        Parameters
        ----------
        source, format, quality, strip_metadata, note
            As of :meth:`upscale_file`.
        outscale, size, megapixels, tile, max_memory, max_pixels
            Likewise.
        target
            Likewise, ``None`` standing for any file object; nothing is written.

        Raises
        ------
        ImageError
            If the source cannot be read or its result not be written.
        OutOfMemoryError
            If the memory does not suffice even for the smallest tiles.
        ValueError
            If an option has a value that means nothing.
        """
        asked = self._asked(outscale, size, megapixels, tile, max_memory, max_pixels)
        file = open_file(source, max_pixels=limit_of_files(asked.max_pixels))
        kind = _format(file, target, format)
        return self._plan_file(file, target, kind, quality, asked, strip_metadata, note)

    def _pages(
        self, file: SourceImage, kind: Format, asked: _Asked, strip: bool, note: bool
    ) -> Iterator[SourceImage]:
        """The pages of a file that its result holds, with the metadata that they get."""
        pages = file.pages(limit_of_files(asked.max_pixels)) if kind.paged else iter((file,))
        return (self._with_metadata(page, strip, note) for page in pages)

    def _with_metadata(self, page: SourceImage, strip: bool, note: bool) -> SourceImage:
        metadata = page.metadata.stripped() if strip else page.metadata
        if note:
            # A folder is named without the path to it, which is nobody's business.
            name = Path(self.name).name if Path(self.name).is_dir() else self.name
            metadata = metadata.noted(
                f"srgan-infer {__version__}",
                f"upscaled by the model {name} (SHA-256 {self.sha256})",
                datetime.now().astimezone().isoformat(timespec="seconds"),
            )
        return replace(page, metadata=metadata)

    def _plan_file(
        self,
        file: SourceImage,
        target: str | os.PathLike[str] | BinaryIO | None,
        kind: Format,
        quality: int | None,
        asked: _Asked,
        strip: bool,
        note: bool,
    ) -> FilePlan:
        name = Path(target) if isinstance(target, (str, os.PathLike)) else Path()
        cuts: list[Plan] = []
        known: dict[tuple[int, int], Plan] = {}
        told: list[tuple[str, ...]] = []
        memory = temporary = on_disk = most = 0
        for page in self._pages(file, kind, asked, strip, note):
            width, height = page.size
            if page.size not in known:
                known[page.size] = self._plan(height, width, asked)
            cut = known[page.size]
            lost = check_output(
                name,
                format=kind.name,
                size=cut.size,
                channels=page.channels,
                dtype=page.dtype,
                n_frames=page.n_frames,
                quality=quality,
                metadata=page.metadata,
            )
            encoder, spooled = encoder_bytes(
                kind, cut.size, page.channels, page.dtype, page.n_frames
            )
            if kind.memory and page.n_frames == 1:
                self._check_memory(kind.name, encoder, asked)
            if spooled:
                _check_room(Path(tempfile.gettempdir()), spooled)
            pixels = width * height * page.channels * page.dtype.itemsize
            # Pillow has four bytes for the three of a colour.
            decoded = pixels if page.channels in (1, 4) else pixels // page.channels * 4
            memory = max(memory, cut.peak_bytes + encoder + decoded)
            temporary = max(temporary, spooled + (pixels if width * height >= SPOOL_PIXELS else 0))
            stored = kind.dtype_for(page.dtype)
            values = cut.size[0] * cut.size[1] * page.channels
            on_disk += int(values * stored.itemsize * kind.density)
            if kind.paged:
                kept = kind.channels_for(page.channels, stored)
                most += page_bytes(cut.size, kept, stored, page.metadata)
            cuts.append(cut)
            told.append((*page.warnings, *lost))
        if isinstance(target, (str, os.PathLike)):
            _check_room(name, on_disk)
        return FilePlan(
            format=kind.name,
            input_size=file.size,
            size=cuts[0].size,
            frames=file.n_frames,
            cuts=tuple(cuts),
            memory_bytes=memory,
            temporary_bytes=temporary,
            warnings=_by_page(told),
            suggested_model=suggested_model(self.name, file),
            _most_bytes=most if len(cuts) > 1 else None,
        )

    def _check_memory(self, name: str, needed: int, asked: _Asked) -> None:
        """Refuse a result that cannot be held while it is encoded."""
        if asked.max_memory is None:
            room = free_memory(torch.device("cpu"))
        else:
            room = parse_memory(asked.max_memory)
        if needed > room:
            raise OutOfMemoryError(
                f"{name} is encoded from memory and takes about {mebibytes(needed)}, but "
                f"{mebibytes(room)} may be used; choose PNG or TIFF, or a larger max_memory."
            )

    def upscale_video(
        self,
        source: ImageFile,
        target: str | os.PathLike[str],
        *,
        codec: str | None = None,
        crf: int | None = None,
        overwrite: bool = True,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
        max_pixels: int | None = None,
        progress: bool | Progress = False,
    ) -> FileResult:
        """Upscale a video file into another one; needs the extra ``[video]``.

        Frames keep their times, also where the rate varies. The first video stream is
        upscaled; sound, subtitles and chapters are copied where the target's container can
        carry them. The matrix, range, primaries and transfer of the colours, the shape of
        the pixels and depths above 8 bits stay; a rotation is applied to the pixels. Each
        frame is upscaled for itself: the model ``"srresnet"`` flickers least. The target
        appears when it is complete.

        Parameters
        ----------
        source
            A path, the bytes of a file, or a binary file object that can seek; a video that
            FFmpeg reads, or an animated GIF.
        target
            A path that ends in .mp4, .m4v, .mkv, .mov or .webm.
        codec
            FFmpeg's name of an encoder. If ``None``, libx264 for 8 bits and libx265 for
            more; in WebM libvpx-vp9 and libsvtav1.
        crf
            Constant rate factor, 0 to 63: lower is better and larger. If ``None``, one at
            which no difference is seen.
        overwrite, outscale, size, megapixels, tile, max_memory
            As for :meth:`upscale_file`; a size becomes even where the pixel format needs
            that, with a warning.
        max_pixels
            Most pixels of the source, over all frames.
        progress
            ``True`` for a progress bar on stderr, or a function that is called with the
            number of frames done and, estimated, in total.

        Raises
        ------
        ImageError
            If the source cannot be read, is interlaced or HDR that cannot be kept, or the
            target cannot be written.
        OutOfMemoryError
            If the memory does not suffice even for the smallest tiles.
        ValueError
            If an option has a value that means nothing.
        """
        asked = self._asked(outscale, size, megapixels, tile, max_memory, max_pixels)
        plan = self.plan_video(
            source,
            target,
            codec=codec,
            crf=crf,
            outscale=outscale,
            size=size,
            megapixels=megapixels,
            max_pixels=max_pixels,
        )
        width, height = plan.clip.size
        cut = self._engine.plan(height, width, asked.tile, asked.max_memory, plan.output)

        def upscale(pixels: Array) -> Array:
            return np.concatenate(list(self._bands(DecodedImage(pixels, None), cut, None)))

        with _reporting(progress) as report:
            path, frames = video.convert(
                source, target, plan, upscale, overwrite=overwrite, progress=report
            )
        lost = plan.warnings
        if path != Path(os.path.realpath(target)):
            lost += (f"{os.fspath(target)} is there and stays: the result is {path.name}.",)
        _warn(lost)
        return FileResult(plan.size, frames, lost, None, path, plan.output.passes)

    def plan_video(
        self,
        source: ImageFile,
        target: str | os.PathLike[str],
        *,
        codec: str | None = None,
        crf: int | None = None,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        max_pixels: int | None = None,
    ) -> video.VideoPlan:
        """Say what :meth:`upscale_video` would do, from the head and the first frame.

        Parameters and errors are those of :meth:`upscale_video`.
        """
        limit = self._max_pixels if max_pixels is None else max_pixels
        return video.plan_video(
            source,
            target,
            self.scale,
            outscale=outscale,
            size=size,
            megapixels=megapixels,
            codec=codec,
            crf=crf,
            max_pixels=limit,
        )

    def seconds_per_pixel(self) -> float:
        """Time that the network takes for one input pixel, measured now on a small image."""
        trial = np.zeros((96, 96, 3), np.uint8)
        self(trial)  # the first run on a device is slow
        start = time.perf_counter()
        self(trial)
        return (time.perf_counter() - start) / trial[..., 0].size

    def plan(
        self,
        height: int,
        width: int,
        *,
        outscale: float | None = None,
        size: Box | None = None,
        megapixels: float | None = None,
        tile: Tile | None = None,
        max_memory: int | str | None = None,
    ) -> Plan:
        """How an image of ``height``×``width`` input pixels would be cut, and its memory.

        Parameters
        ----------
        height, width
            Of the input, in pixels.
        outscale, size, megapixels, tile, max_memory
            As for a call.
        """
        asked = self._asked(outscale, size, megapixels, tile, max_memory, None)
        return self._plan(height, width, asked)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder that :meth:`from_pretrained` and the Hub understand."""
        weights.store(self._weights, Path(folder))

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        fixed: int | None = None,
        half: bool = False,
        overwrite: bool = True,
    ) -> None:
        """Write the model as one file for other programs.

        ``.onnx`` is for ONNX Runtime, OpenCV and all that read this format. Its input
        ``input`` is N×3×H×W float32, RGB in [0, 1]; its output ``output`` is
        N×3×(scale·H)×(scale·W) float32, clipped to [0, 1]. Before it is written its result is
        compared with this library's in ONNX Runtime. The scale, the halo that a tile
        needs, the SHA-256 of the weights, the model's name and licence are in its
        ``metadata_props``. It takes the extra ``srgan-infer[export]``.

        ``.safetensors`` is for programs that load models through spandrel; see
        :mod:`srgan_infer.spandrel`.

        Parameters
        ----------
        path
            Ends in ``.onnx`` or ``.safetensors``.
        fixed
            Height and width, in pixels, that the ONNX file takes, one image at a time;
            images of any size if ``None``.
        half
            Store float16, and compute in it: half the size. Input and output stay
            float32 in ONNX.
        overwrite
            Replace a file that exists; otherwise it is an error.

        Raises
        ------
        UpscaleError
            If packages are missing, or if the result is not the same: more than 1e-4
            off, 4e-3 with ``half``. Nothing is written then.
        ValueError
            If an option has a value that means nothing.
        OSError
            If the disk is full or may not be written.
        """
        weights.export(self._weights, Path(path), fixed=fixed, half=half, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload srgan-infer model",
        create_pr: bool = False,
    ) -> str:
        """Upload the model to the Hugging Face Hub, creating the repository if need be.

        Parameters
        ----------
        repo_id
            ``"user/repo"``.
        private
            Visibility of a repository that is created.
        token
            Access token with write permission; ``None`` takes the stored login.
        revision
            Branch to upload to; the default branch if ``None``.
        commit_message
            Of the upload.
        create_pr
            Whether the upload becomes a pull request to a repository that exists, instead
            of a commit.

        Returns
        -------
        str
            Address of the repository, or of the pull request.

        Raises
        ------
        WeightsError
            If the Hub cannot be reached or refuses.
        """
        return weights.push(
            self._weights,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    def _asked(
        self,
        outscale: float | None,
        size: Box | None,
        megapixels: float | None,
        tile: Tile | None,
        max_memory: int | str | None,
        max_pixels: int | None,
    ) -> _Asked:
        """Size, tile and memory for one call."""
        return _Asked(
            outscale,
            size,
            megapixels,
            self._tile if tile is None else tile,
            self._max_memory if max_memory is None else max_memory,
            self._max_pixels if max_pixels is None else max_pixels,
        )

    def _plan(self, height: int, width: int, asked: _Asked) -> Plan:
        """How an image is cut to get what is asked for."""
        output = output_size(
            (width, height),
            self.scale,
            outscale=asked.outscale,
            size=asked.size,
            megapixels=asked.megapixels,
        )
        return self._engine.plan(height, width, asked.tile, asked.max_memory, output)

    def _all(
        self, images: Sequence[DecodedImage], asked: _Asked, report: Progress | None
    ) -> list[Array]:
        """The upscaled images, which have one size, each an (H, W, C) array."""
        height, width, _ = images[0].color.shape
        cut = self._plan(height, width, asked)
        steps = _Steps(report, len(images) * cut.steps)
        count = self._engine.batch_size(cut, asked.max_memory)
        if min(count, len(images)) == 1:
            return [self._whole(image, cut, steps.of(cut)) for image in images]
        sources = [_network_rows(image) for image in images]
        done: dict[int, Array] = {}
        for channels in (1, 3):
            alike = [index for index, one in enumerate(sources) if one.shape[2] == channels]
            for first in range(0, len(alike), count):
                chosen = alike[first : first + count]
                batch = np.stack([sources[index][0:height] for index in chosen])
                results = self._engine.run_batch(batch, cut)
                for index, big in zip(chosen, results, strict=True):
                    done[index] = _assembled(images[index], iter((big,)), cut)
                    if (move := steps.of(cut)) is not None:
                        move(cut.steps, cut.steps)
        return [done[index] for index in range(len(images))]

    def _alone(self, image: DecodedImage, asked: _Asked, report: Progress | None) -> Array:
        height, width, _ = image.color.shape
        return self._whole(image, self._plan(height, width, asked), report)

    def _whole(self, image: DecodedImage, plan: Plan, report: Progress | None) -> Array:
        """The upscaled image in one (H, W, C) array, alpha last."""
        return _assembled(image, self._engine.run(_network_rows(image), plan, report), plan)

    def _bands(self, image: DecodedImage, plan: Plan, report: Progress | None) -> Iterator[Array]:
        """The upscaled image from top to bottom, (h, W, C), alpha last."""
        return _completed(image, self._engine.run(_network_rows(image), plan, report), plan)


def _network_rows(image: DecodedImage) -> RowSource:
    """What the network reads: of grey that is stored as colour the grey, which it would tint."""
    if image.color.shape[2] == 3 and is_grey(image.color):
        return Channels(image.color, 0, 1)
    return image.color


def _completed(image: DecodedImage, bands: Iterator[Array], plan: Plan) -> Iterator[Array]:
    """What the network made of an image, with the image's channels, alpha last."""
    if image.color.shape[2] == 3:
        bands = (rows.repeat(3, axis=2) if rows.shape[2] == 1 else rows for rows in bands)
    if image.alpha is None:
        return bands
    return join_alpha(bands, alpha_rows(image.alpha, plan.passes[-1].upscaled, plan.size))


def _assembled(image: DecodedImage, bands: Iterator[Array], plan: Plan) -> Array:
    """The same in one (H, W, C) array."""
    channels = image.color.shape[2] + (image.alpha is not None)
    big = np.empty((plan.size[1], plan.size[0], channels), image.color.dtype)
    top = 0
    for rows in _completed(image, bands, plan):
        big[top : top + len(rows)] = rows
        top += len(rows)
    return big


def _parts(image: Array | Tensor, layout: str | None, asked: _Asked) -> list[DecodedImage]:
    """The images in an array or tensor, no more than is allowed."""
    from_any: Any = arrays.from_array if isinstance(image, np.ndarray) else arrays.from_tensor
    parts: list[DecodedImage] = from_any(image, layout)
    height, width, _ = parts[0].color.shape
    _check_pixels(len(parts) * height * width, asked)
    return parts


def _like(big: list[Array], image: Array | Tensor, layout: str | None) -> Array | Tensor:
    """Results as the array or tensor that came."""
    if isinstance(image, np.ndarray):
        return arrays.to_array(big, image, layout)
    return arrays.to_tensor(big, image, layout)


def _shape(image: Any) -> Any:
    """What arrays or tensors share that can be run at once; of anything else nothing."""
    if isinstance(image, (np.ndarray, Tensor)):
        return type(image), tuple(image.shape), image.dtype
    return object()


def _here(task: Callable[[], Any]) -> Any:
    """Run the network in the thread that asks for it."""
    return task()


def _as_pil(big: Array, mode: str, metadata: Metadata) -> Image.Image:
    """Upscaled pixels as a PIL image, as near to ``mode`` as Pillow has one."""
    if big.dtype != np.uint8 and big.shape[2] > 1:
        kind, top = ("16-bit", 65535) if big.dtype == np.uint16 else ("floating point", 1)
        _warn((f"Pillow has no {kind} colour: the image has 8 bits; upscale_file keeps it.",))
        big = np.round(big * (255 / top)).astype(np.uint8)
    if metadata.color is not None and not metadata.icc:
        what = "HDR" if metadata.color.hdr else "of other colours than sRGB"
        _warn((f"The image is {what}, which a PIL image cannot say; upscale_file does.",))
    return to_pil(big, mode, metadata)


def _format(
    file: SourceImage, target: str | os.PathLike[str] | BinaryIO | None, format: str | None
) -> Format:
    """What a file is written as."""
    if format is None and not isinstance(target, (str, os.PathLike)):
        # What has no name gets the source's format, or one that holds everything.
        format = file.format if file.format in {kind.name for kind in FORMATS} else "PNG"
    return choose_format(Path(target) if isinstance(target, (str, os.PathLike)) else Path(), format)


def _by_page(told: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Sentences on pages: those on all of them as they are, others with their numbers."""
    pages: dict[str, list[int]] = {}
    for number, sentences in enumerate(told, 1):
        for sentence in dict.fromkeys(sentences):
            pages.setdefault(sentence, []).append(number)
    return tuple(
        sentence if len(numbers) == len(told) else f"{_numbered(numbers)}: {sentence}"
        for sentence, numbers in pages.items()
    )


def _numbered(pages: list[int]) -> str:
    """Numbers of pages in words."""
    if len(pages) == 1:
        return f"Page {pages[0]}"
    more = f" and {len(pages) - PAGES_NAMED} more" if len(pages) > PAGES_NAMED else ""
    return f"Pages {', '.join(map(str, pages[:PAGES_NAMED]))}{more}"


def suggested_model(name: str, file: SourceImage) -> str | None:
    """The bundled model that suits a file better than the default, where that one is used."""
    compressed = file.jpeg_quality is not None and file.jpeg_quality <= COMPRESSED_QUALITY
    return weights.PHOTO if compressed and name == weights.DEFAULT else None


def _dates(source: ImageFile) -> tuple[int, int] | None:
    """Times of access and modification in nanoseconds; None of what is no file."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    with suppress(OSError):  # said when it is opened
        status = os.stat(source)
        return status.st_atime_ns, status.st_mtime_ns
    return None


def _set_dates(path: Path | None, dates: tuple[int, int] | None) -> tuple[str, ...]:
    """Give a result the times of its source, or say that it does not take them."""
    if path is None or dates is None:
        return ()
    try:
        os.utime(path, ns=dates)
    except OSError as error:
        return (f"The dates of {path} stay those of now: {error.strerror or error}.",)
    return ()


def _file(file: str | os.PathLike[str] | BinaryIO) -> Path | BinaryIO:
    """What a file is written to."""
    if isinstance(file, (str, os.PathLike)):
        refuse_address(os.fspath(file))
        return Path(file)
    return file


def _check_pixels(pixels: int, asked: _Asked) -> None:
    """Refuse an image in memory that is larger than was allowed."""
    if asked.max_pixels is not None and pixels > asked.max_pixels:
        raise ImageError(
            f"The image has {pixels} pixels, which is more than the {asked.max_pixels} that "
            "max_pixels allows."
        )


def _check_room(place: Path, needed: int) -> None:
    """Refuse, before anything is computed, what a disk has no room for."""
    free = free_room(place)
    if needed > free and (place.is_dir() or place.is_file() or not place.exists()):
        raise ImageError(
            f"{place} needs about {mebibytes(needed)} or more, but {mebibytes(free)} are free "
            "there; make room, or choose another folder or format."
        )


def _warn(sentences: tuple[str, ...]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, ImageWarning, stacklevel=3)


class _Steps:
    """Progress of several images, counted together.

    Parameters
    ----------
    report
        Told of all of them.
    total
        Their steps, as planned.
    """

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report = report
        self._done = 0
        self._total = total

    def of(self, cut: Plan) -> Progress | None:
        """Progress of the next image; should memory run out, it takes more steps than planned."""
        report, before, others = self._report, self._done, self._total - cut.steps
        if report is None:
            return None

        def move(done: int, steps: int) -> None:
            self._done, self._total = before + done, others + steps
            report(self._done, self._total)

        return move


@contextmanager
def _reporting(progress: bool | Progress) -> Iterator[Progress | None]:
    """A progress function: the user's own, or one that moves a bar on stderr."""
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress or sys.stderr is None:  # as in a program without a console
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(unit="step") as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
