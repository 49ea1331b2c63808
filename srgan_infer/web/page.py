"""The page: what is on it, and what happens when something is chosen.

Annotations are evaluated here, since Gradio reads those of its handlers.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from srgan_infer import weights
from srgan_infer.errors import ImageError, UpscaleError
from srgan_infer.images.formats import FORMATS
from srgan_infer.web import markup, view
from srgan_infer.web.guard import FILES_IN_ONE_UPLOAD
from srgan_infer.web.service import CancelError, Options, Result, Service

HERE = Path(__file__).parent
CSS = HERE / "page.css"
VIEWER = HERE / "viewer.js"
SIZES = HERE / "sizes.js"
SOURCE_FORMAT = "source"
KEPT_SECONDS = 3600

MODELS = {
    "srgan": "sharp; invents plausible texture",
    "srgan-photo": "for compressed photographs; removes JPEG traces",
    "srresnet": "faithful; smoother, invents nothing",
}
# Labels that Gradio's own English lacks; screen readers would read out their keys.
MISSING_LABELS = {"common.upload": "Upload"}
OTHER_MODEL = "the model of this server"
TITLE = """# Upscale images
Four times larger with a neural network. Profiles, EXIF, transparency and 16 bits are kept."""
# A click on the overview moves the detail there.
OVERVIEW = """
element.addEventListener("click", (event) => {
  const box = element.querySelector(".overview img")?.getBoundingClientRect();
  if (!box) return;
  trigger("click", {
    x: (event.clientX - box.left) / box.width,
    y: (event.clientY - box.top) / box.height,
  });
});
"""


def build(service: Service, first: Options, max_upload: int | None) -> Any:
    """The page as a ``gradio.Blocks``.

    Parameters
    ----------
    service
        What computes.
    first
        The model and the strength that are chosen at first.
    max_upload
        Bytes of the largest file that is taken; None for no limit.
    """
    import gradio as gr

    with gr.Blocks(title="Upscale images", analytics_enabled=False) as page:
        parts = _layout(first, service.any_resolver(first).scale, max_upload)
        _connect(page, parts, Handlers(service))
    # Mounting takes translations too, but after it has read them for the browser.
    page.i18n_instance = gr.I18n(en=MISSING_LABELS)
    # How many may wait is said by the service, in words.
    return page.queue(max_size=None)


def theme() -> Any:
    """Gradio's plain theme in the fonts of the visitor's system."""
    import gradio as gr

    plain = gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # Gradio's own colours of these are too faint to be read by everyone.
    return plain.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_dark="#b91c1c",
        button_cancel_text_color="white",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
    )


class Handlers:
    """What happens: from the values of the page's parts to new ones.

    Parameters
    ----------
    service
        What computes.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def forecast(self, images: list[str] | None, *chosen: Any) -> str:
        """Say what will be done."""
        if not images:
            return ""
        sources = [Path(name) for name in images]
        found = await asyncio.to_thread(self._service.forecast, sources, options(*chosen))
        return markup.forecast(found)

    async def upscale(
        self,
        images: list[str] | None,
        chosen: Options,
        visitor: str,
        say: Callable[[float, str], None],
    ) -> tuple[str | None, dict[str, Any], list[Result]]:
        """Give the file to download, facts for programs, and the results to look at."""
        facts: dict[str, Any] = {"done": [], "failed": [], "cancelled": False}
        try:
            if not images:
                raise ImageError("Choose at least one image first.")
            sources = [Path(name) for name in images]
            results = await self._service.upscale(sources, chosen, visitor, say)
        except CancelError:
            return None, {**facts, "cancelled": True}, []
        except (UpscaleError, ValueError) as error:
            return None, {**facts, "failed": [{"name": "", "reason": str(error)}]}, []
        for result in results:
            facts["done" if result.target else "failed"].append(result.facts())
        file = await asyncio.to_thread(self._service.file_of, results)
        return str(file) if file else None, facts, results

    async def show(self, facts: dict[str, Any], results: list[Result]) -> list[Any]:
        """Say what was done, and show the first result."""
        import gradio as gr

        done = [result for result in results if result.target]
        names = [(result.name, index) for index, result in enumerate(done)]
        return [
            gr.update(interactive=True),
            gr.update(visible=False),
            markup.report(facts),
            gr.update(choices=names, value=0 if done else None, visible=len(done) > 1),
            gr.update(visible=bool(done)),
            *await self.look(results, 0),
        ]

    async def look(self, results: list[Result], index: int | None) -> list[Any]:
        """Show one result: the whole of it, or an overview and a detail."""
        import gradio as gr

        done = [result for result in results if result.target]
        if index is None or index >= len(done):
            return ["", "", gr.update(visible=False), 0.5, 0.5, ""]
        result = done[index]
        folder = self._service.folder
        if view.is_whole(result.size):
            pair = await _shown(view.pair, result.source, result.target, folder)
            return [markup.viewer(pair), "", gr.update(visible=False), 0.5, 0.5, ""]
        image = await _shown(view.overview, result.source, folder)
        detail = await self.detail(results, index, 0.5, 0.5)
        whole = markup.overview(image, result.size)
        return ["", whole, gr.update(visible=True), 0.5, 0.5, detail]

    async def detail(
        self, results: list[Result], index: int | None, across: float, down: float
    ) -> str:
        """Show a part of one result."""
        result = [result for result in results if result.target][index or 0]
        resolver = self._service.any_resolver(result.options)
        folder, center = self._service.folder, (across, down)
        pair = await _shown(view.detail, resolver, result.source, result.size, center, folder)
        return markup.viewer(pair, exact=True)

    def leave(self, visitor: str) -> None:
        """Stop what a visitor has running."""
        self._service.stop(visitor)


def options(
    model: str,
    strength: float,
    outscale: float,
    width: float,
    height: float,
    format: str,
    quality: float,
) -> Options:
    """The values of the page's parts as the library's options."""
    box = (int(width) if width else None, int(height) if height else None)
    return Options(
        model=model,
        strength=strength if model == weights.DEFAULT and strength != 1 else None,
        outscale=outscale,
        size=box if width or height else None,
        format=None if format == SOURCE_FORMAT else format,
        quality=int(quality) if quality else None,
    )


async def _shown(make: Callable[..., Any], *values: Any) -> Any:
    """What a function makes in a thread; None if its files are there no more."""
    try:
        return await asyncio.to_thread(make, *values)
    except (ImageError, OSError):
        if all(value.exists() for value in values if isinstance(value, Path)):
            raise
        return None


def _layout(first: Options, scale: int, max_upload: int | None) -> SimpleNamespace:
    """The parts of the page, by name."""
    import gradio as gr

    parts = SimpleNamespace(results=gr.State([], time_to_live=KEPT_SECONDS))
    gr.Markdown(TITLE, elem_id="title")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            parts.images = gr.File(
                label="Images: drop one or many, or click",
                file_count="multiple",
                type="filepath",
                elem_id="images",
                height=180,
            )
            if max_upload is not None:
                gr.HTML(elem_id="sizes", js_on_load=_sizes(max_upload))
            parts.forecast = gr.HTML(elem_id="forecast")
            _choices(parts, first, scale)
            with gr.Row():
                parts.run = gr.Button("Upscale", variant="primary", elem_id="run")
                parts.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
        with gr.Column(scale=3, min_width=320):
            _results(parts)
    parts.facts = gr.JSON(visible=False)
    return parts


def _sizes(max_upload: int) -> str:
    """The script that refuses large files, with the limits."""
    script = SIZES.read_text(encoding="utf-8").replace("$FILE", str(max_upload))
    return script.replace("$TOGETHER", str(FILES_IN_ONE_UPLOAD * max_upload))


def _choices(parts: SimpleNamespace, first: Options, scale: int) -> None:
    """Model, strength, size and format."""
    import gradio as gr

    names = list(dict.fromkeys((*MODELS, first.model)))
    parts.model = gr.Radio(
        [(f"{name}: {MODELS.get(name, OTHER_MODEL)}", name) for name in names],
        value=first.model,
        label="Model",
        elem_id="models",
    )
    parts.strength = gr.Slider(
        0,
        1,
        1 if first.strength is None else first.strength,
        step=0.05,
        label="Strength",
        info="0 is as faithful as srresnet, 1 as sharp as srgan.",
        visible=first.model == weights.DEFAULT,
        elem_id="strength",
    )
    with gr.Accordion("Output", open=False):
        parts.outscale = gr.Slider(0.5, 16, scale, step=0.5, label="Times as large")
        with gr.Row():
            box: Any = {"info": "pixels; 0 is any", "precision": 0, "min_width": 120}
            parts.width = gr.Number(0, label="Fit into width", **box)
            parts.height = gr.Number(0, label="Fit into height", **box)
        parts.format = gr.Dropdown(
            [("As the source", SOURCE_FORMAT)]
            + [(kind.name, kind.name) for kind in FORMATS if kind.writable],
            value=SOURCE_FORMAT,
            label="Format",
        )
        parts.quality = gr.Number(
            0,
            label="Quality",
            info="1 to 100, of formats that lose detail; 0 is a good one",
            precision=0,
        )


def _results(parts: SimpleNamespace) -> None:
    """Where results are told and shown."""
    import gradio as gr

    viewer = VIEWER.read_text(encoding="utf-8")
    parts.status = gr.HTML(markup.note(markup.EMPTY), elem_id="status", min_height=60)
    # The group is shown and hidden, not the button: an update makes a component anew, and
    # Gradio would then copy the file to a folder of its own.
    with gr.Group(visible=False) as parts.download:
        parts.file = gr.DownloadButton("Download", variant="primary", elem_id="download")
    parts.which = gr.Dropdown([], label="Look at", visible=False, interactive=True, elem_id="which")
    parts.viewer = gr.HTML(elem_id="viewer", js_on_load=viewer)
    parts.overview = gr.HTML(elem_id="overview", js_on_load=OVERVIEW)
    with gr.Row(visible=False) as parts.place:
        parts.across = gr.Slider(0, 1, 0.5, step=0.01, label="Detail: left to right")
        parts.down = gr.Slider(0, 1, 0.5, step=0.01, label="Detail: top to bottom")
    parts.detail = gr.HTML(elem_id="detail", js_on_load=viewer)


def _connect(page: Any, parts: SimpleNamespace, handlers: Handlers) -> None:
    """Say which part makes what happen."""
    import gradio as gr

    tracked = gr.Progress()

    # The names of its parameters are those of the API.
    async def upscale(
        request: gr.Request,
        images: list[str] | None,
        model: str = parts.model.value,
        strength: float = parts.strength.value,
        outscale: float = parts.outscale.value,
        width: float = 0,
        height: float = 0,
        format: str = SOURCE_FORMAT,
        quality: float = 0,
        progress: Any = tracked,
    ) -> tuple[str | None, dict[str, Any], list[Result]]:
        """Upscale images, each in its turn.

        Gives the result, or a zip of several, and a report: what is done, what failed and
        why, and whether it was cancelled.
        """
        return await handlers.upscale(
            images,
            options(model, strength, outscale, width, height, format, quality),
            request.session_hash or "",
            lambda done, words: progress(done, desc=words),
        )

    def leave(request: gr.Request) -> None:
        handlers.leave(request.session_hash or "")

    def point(event: gr.EventData) -> tuple[float, float]:
        return round(min(max(event.x, 0.0), 1.0), 3), round(min(max(event.y, 0.0), 1.0), 3)

    def start() -> list[Any]:
        hidden = gr.update(visible=False)
        return [gr.update(interactive=False), gr.update(visible=True), "", hidden, hidden]

    chosen = [parts.model, parts.strength, parts.outscale, parts.width, parts.height]
    chosen += [parts.format, parts.quality]
    looks = [parts.viewer, parts.overview, parts.place, parts.across, parts.down, parts.detail]
    place = [parts.results, parts.which, parts.across, parts.down]
    at_once: Any = {
        "api_visibility": "private",
        "concurrency_limit": None,
        "show_progress": "hidden",
    }
    # Images are prepared for one visitor at a time.
    preparing: Any = {
        "api_visibility": "private",
        "concurrency_id": "preparing",
        "concurrency_limit": 1,
        "show_progress": "minimal",
    }
    gr.on(
        [part.change for part in (parts.images, *chosen)],
        handlers.forecast,
        [parts.images, *chosen],
        parts.forecast,
        trigger_mode="always_last",
        **{**at_once, "concurrency_limit": 2},
    )
    parts.model.change(
        lambda name: gr.update(visible=name == weights.DEFAULT),
        parts.model,
        parts.strength,
        **at_once,
    )
    parts.run.click(
        start, None, [parts.run, parts.cancel, parts.status, parts.download, parts.which], **at_once
    ).then(
        upscale,
        [parts.images, *chosen],
        [parts.file, parts.facts, parts.results],
        api_name="upscale",
        show_progress_on=parts.status,
        concurrency_limit=None,
    ).then(
        handlers.show,
        [parts.facts, parts.results],
        [parts.run, parts.cancel, parts.status, parts.which, parts.download, *looks],
        show_progress_on=parts.status,
        **preparing,
    )
    parts.cancel.click(leave, None, None, **at_once)
    parts.which.input(handlers.look, [parts.results, parts.which], looks, **preparing)
    gr.on(
        [parts.across.input, parts.down.input],
        handlers.detail,
        place,
        parts.detail,
        trigger_mode="always_last",
        **preparing,
    )
    parts.overview.click(point, None, [parts.across, parts.down], **at_once).then(
        handlers.detail, place, parts.detail, **preparing
    )
    page.unload(leave)
