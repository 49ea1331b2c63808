"""HTML of what the page says: forecasts, reports, the viewer."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from srgan_infer.web.guard import FILE
from srgan_infer.web.service import Forecast, duration
from srgan_infer.web.view import Pair

LISTED = 20

EMPTY = "Choose an image and press Upscale: before and after are then shown here."
CANCELLED = "Cancelled. Nothing was kept."
DELETED = "This image was deleted from the server, which happens after an hour: upscale it again."

TOOLS = """
<button type=button data-act=out aria-label="Zoom out">−</button>
<span class=level aria-live=polite>100 %</span>
<button type=button data-act=in aria-label="Zoom in">+</button>
<button type=button data-act=fit aria-label="Fit the image into the page">Fit</button>
<button type=button data-act=natural aria-label="A pixel of the image is one of the screen"
>1:1</button>
<button type=button data-act=full>Full screen</button>"""


def note(sentence: str, kind: str = "") -> str:
    """A sentence in a box; of kind ``"problem"`` or ``"advice"``, or neither."""
    return f'<div class="note {kind}"><p>{html.escape(sentence)}</p></div>'


def _notes(notes: Iterable[str], role: str = "status") -> str:
    return f'<div class=notes role="{role}">{"".join(notes)}</div>'


def forecast(found: Sequence[Forecast]) -> str:
    """What will be done, and advice."""
    items = "".join(_item(one) for one in found[:LISTED])
    notes = [f"<ul class=forecast>{items}</ul>"] if items else []
    for one in found[:LISTED]:
        if one.plan is None:
            notes.append(note(one.problem, "problem"))
        else:
            notes += [note(f"{one.name}: {sentence}") for sentence in one.plan.warnings]
    more = len(found) - LISTED
    if more > 0:
        notes.append(note(f"And {more} more."))
    plans = [one.plan for one in found if one.plan]
    if len(plans) > 1:
        notes.append(note(f"In all {duration(sum(one.seconds for one in found))}."))
    for name in sorted({plan.suggested_model for plan in plans if plan.suggested_model}):
        notes.append(note(f"Heavily compressed JPEG: the model {name} will look better.", "advice"))
    return _notes(notes)


def _item(one: Forecast) -> str:
    if one.plan is None:
        return ""
    plan = one.plan
    several = {"frames": plan.frames, "pages": plan.pages}
    frames = "".join(f", {count} {what}" for what, count in several.items() if count > 1)
    return (
        f"<li><b>{html.escape(one.name)}</b>{size(plan.input_size)}{frames} → "
        f"{size(plan.size)} {plan.format}; {duration(one.seconds)}, "
        f"{plan.memory_bytes / 1e6:.0f} MB of memory</li>"
    )


def report(facts: dict[str, Any]) -> str:
    """What was done, and each failure with its reason."""
    if facts["cancelled"]:
        return _notes([note(CANCELLED)])
    done, failed = facts["done"], facts["failed"]
    notes = []
    if done:
        what = done[0]["result"] if len(done) == 1 else f"{len(done)} images in a zip"
        words = "Done" if not failed else f"{len(done)} of {len(done) + len(failed)} done"
        seconds = sum(one["seconds"] for one in done)
        notes.append(note(f"{words}: {what}, in {seconds:.1f} s."))
    for one in done:
        notes += [note(f"{one['name']}: {sentence}") for sentence in one["warnings"]]
    for one in failed:
        # Most sentences name the image themselves.
        named = one["name"] in one["reason"]
        sentence = one["reason"] if named else f"{one['name']}: {one['reason']}"
        notes.append(note(sentence, "problem"))
    return _notes(notes, "alert" if failed else "status")


def viewer(pair: Pair | None, exact: bool = False) -> str:
    """Two images, one over the other, with a divider; viewer.js moves them.

    Gradio's own slider can neither be moved with the keyboard nor be read out.

    Parameters
    ----------
    pair
        The images; None if they are there no more.
    exact
        Whether they are shown pixel by pixel, without a zoom.
    """
    if pair is None:
        return note(DELETED, "problem")
    width, height = pair.size
    kinds = ("transparent " if pair.transparent else "") + ("exact" if exact else "")
    what = ("detail at 1:1, " if exact else "") + size(pair.size)
    what += ", animated" if pair.animated else ""
    what += ", transparent" if pair.transparent else ""
    limit = f"max-width:min({width}px,calc(72vh*{width / height:.4f}))"
    return f"""<figure class="viewer {kinds}">
<div class=stage tabindex=0 role=group style="aspect-ratio:{width}/{height};{limit}"
 aria-label="Before and after. Plus and minus zoom, arrow keys move.">
<div class=layer><img class=after src="{_link(pair.after)}" alt="After: the upscaled image"></div>
<div class="layer first"><img class=before src="{_link(pair.before)}"
 alt="Before: bicubic interpolation at the same size"></div>
<span class="tag left">before (bicubic)</span><span class="tag right">after</span>
<span class=line></span>
<input class=divider type=range min=0 max=100 value=50
 aria-label="Divider: how much of the image before is shown">
</div><div class=tools>{"" if exact else TOOLS}<figcaption>{what}</figcaption></div></figure>"""


def overview(image: Path | None, whole: tuple[int, int]) -> str:
    """A reduced view, in which a click chooses the detail."""
    if image is None:
        return ""
    return f"""<p>{size(whole)}, a reduced view. Click where to look closely.</p>
<div class=overview><img src="{_link(image)}" alt="The whole image, reduced"></div>"""


def size(pixels: tuple[int, int]) -> str:
    """Width and height for people."""
    return f"{pixels[0]}×{pixels[1]}"


def _link(path: Path) -> str:
    """Address of a file, below that of the page."""
    return f"{FILE[1:]}{html.escape(path.as_posix())}"
