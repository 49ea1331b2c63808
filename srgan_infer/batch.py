"""Images in the rows of a table: a callable for Ray Data, datasets, Daft and their kind."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from srgan_infer.errors import UpscaleError
from srgan_infer.threads import MOST, processors

if TYPE_CHECKING:
    from srgan_infer.resolver import SuperResolver


class UpscaleBatch:
    """Upscales a column of images; what goes wrong with one is told in the ``error`` column.

    None of these libraries is imported. The model is loaded with the first batch, once in
    each process that an instance gets to::

        ds.map_batches(UpscaleBatch, fn_constructor_kwargs={"model": "srresnet"},
                       compute=ray.data.ActorPoolStrategy(size=8), num_gpus=1)
        dataset.map(UpscaleBatch(column="image"), batched=True, batch_size=16)

    Parameters
    ----------
    model
        As of :meth:`srgan_infer.SuperResolver.from_pretrained`.
    column
        Name of the column with the images: encoded, as ``bytes`` or ``{"bytes": ...}``, or
        as PIL images.
    into
        Name of the column for the results, which are of the same kind; may be ``column``.
    format, quality
        Of encoded results, as of :meth:`srgan_infer.SuperResolver.upscale_file`; by
        default each is in the format of its source, PNG where that cannot be written.
    workers
        Images at once. If ``None``: one on a CPU; on a GPU one for each processor, up to
        eight, so that it does not wait for decoding and encoding.
    options
        Further ones of :meth:`srgan_infer.SuperResolver.from_pretrained`, such as
        ``device``.
    """

    def __init__(
        self,
        model: str = "srgan",
        *,
        column: str = "bytes",
        into: str = "upscaled",
        format: str | None = None,
        quality: int | None = None,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        self.column = column
        self.into = into
        self._model = model
        self._options = options
        self._encoding: dict[str, Any] = {"format": format, "quality": quality}
        self._workers = workers
        self._resolver: SuperResolver | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, which each process loads itself."""
        return {**self.__dict__, "_resolver": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Upscale a batch.

        Parameters
        ----------
        batch
            Columns of one length, by name.

        Returns
        -------
        dict
            The same columns, and ``into`` with the results (``None`` where there is none)
            and ``error`` with the reasons (``None`` where all is well), as lists.

        Raises
        ------
        WeightsError, ValueError
            If the model or an option is wrong: of no image's fault.
        KeyError
            If there is no such column.
        """
        images = batch[self.column]
        if (workers := self.workers()) == 1:
            done = [self._one(image) for image in images]
        else:
            with ThreadPoolExecutor(workers) as pool:
                done = list(pool.map(self._one, images))
        results, errors = [one[0] for one in done], [one[1] for one in done]
        return {**batch, self.into: results, "error": errors}

    def workers(self) -> int:
        """How many images are upscaled at once."""
        if self._workers is not None:
            return self._workers
        return 1 if self.resolver().device.type == "cpu" else min(processors(), MOST)

    def resolver(self) -> SuperResolver:
        """The model, ready."""
        if self._resolver is None:
            from srgan_infer.resolver import SuperResolver

            self._resolver = SuperResolver.from_pretrained(self._model, **self._options)
        return self._resolver

    def _one(self, image: Any) -> tuple[Any, str | None]:
        try:
            return self._upscale(image), None
        except UpscaleError as error:
            return None, str(error)
        except Exception as error:
            # A defect must not end a job of days either, but it is not passed off as a file's.
            reason = f"Internal error, please report it: {type(error).__name__}: {error}"
            return None, " ".join(reason.split())

    def _upscale(self, image: Any) -> Any:
        if isinstance(image, Mapping):
            return {**image, "bytes": self._encoded(image["bytes"])}
        if isinstance(image, (bytes, bytearray, memoryview)) or image is None:
            return self._encoded(image)
        return self.resolver()(image)

    def _encoded(self, data: bytes | bytearray | memoryview | None) -> bytes:
        if data is None:
            raise UpscaleError("There is no image in this row.")
        result = io.BytesIO()
        self.resolver().upscale_file(io.BytesIO(data), result, **self._encoding)
        return result.getvalue()
