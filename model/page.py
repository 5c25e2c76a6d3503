"""The web page of `rr7k ui`: a picture, on which one points at things, and their names beside it.

By NiceGUI, which sends all of it from its own package: nothing is asked of the network.
"""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import events, run, ui
from PIL import Image

from model import drawing, region_files
from model.proposals import Rules
from model.scenes import Region, Scene, open_picture
from pipeline.errors import UserError
from pipeline.images import as_jpeg, as_png, within
from pipeline.segmenters import Segmenter

if TYPE_CHECKING:
    from model.wowseg import WowSeg

TITLE = "What is in this picture?"
_HOST = "127.0.0.1"
_SHOWN = 1400  # px of the longer side, as sent to the browser
_CLICK = 6  # px of the picture shown: what is dragged less was meant as a click
_MOST_BYTES = 100 << 20
_HINT = "Click a thing, or drag a box around it."
_STYLE = """
.picture { cursor: crosshair; user-select: none; }
.picture img { border-radius: 8px; display: block; }
.q-uploader__subtitle { display: none; }
.chip { width: 14px; height: 14px; border-radius: 4px; flex: none; }
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all pages share."""

    model: WowSeg
    segmenter: Segmenter
    rules: Rules
    note: str
    """A line about the segmenter; may be empty."""
    examples: Mapping[str, Path]
    """Pictures to try, by name."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """One page at a time has the models."""


class Page:
    """One browser tab."""

    def __init__(self, site: Site) -> None:
        self._site, self._name, self._busy = site, "", False
        self._scene: Scene | None = None
        self._regions: list[Region] = []
        self._only: int | None = None
        self._start: tuple[float, float] | None = None
        ui.add_css(_STYLE)
        with ui.column().classes("w-full max-w-screen-2xl mx-auto p-2 gap-2"):
            with ui.row().classes("items-baseline gap-4"):
                ui.label(TITLE).classes("text-2xl font-bold")
                ui.label(site.note).classes("text-sm text-grey-7")
            self._body()

    @ui.refreshable_method
    def _body(self) -> None:
        if self._scene is None:
            self._choose()
            return
        shape = self._scene.image.width / self._scene.image.height
        with ui.row().classes("w-full items-start gap-4 md:flex-nowrap"):
            with ui.column().classes("grow min-w-0 gap-1"):
                self._picture = ui.interactive_image(
                    self._drawn(), on_mouse=self._mouse, events=["mousedown", "mousemove", "mouseup"]
                )
                self._picture.classes("picture").style(f"width: min(100%, calc(82vh * {shape:.4f}))")
                with ui.row().classes("items-center gap-2 h-8"):
                    self._spinner = ui.spinner(size="sm").mark("busy")
                    self._spinner.visible = False
                    self._told = ui.label(_HINT).classes("text-grey-8")
            with ui.column().classes("w-80 shrink-0 gap-2"):
                ui.button("Name everything", icon="auto_awesome", on_click=self._everything).classes("w-full")
                self._list()
                with ui.row().classes("w-full gap-1"):
                    ui.button("Other picture", icon="image", on_click=self._leave).props("flat dense no-caps")

    def _choose(self) -> None:
        """Let a picture be chosen."""
        with ui.card().classes("w-full items-center gap-4 p-8"):
            ui.upload(
                label="Drop a picture here, or press +",
                auto_upload=True,
                max_file_size=_MOST_BYTES,
                on_upload=self._uploaded,
                on_rejected=lambda: ui.notify("That file is too large, or no picture.", type="warning"),
            ).props('accept="image/*" flat bordered').classes("w-96")
            if self._site.examples:
                ui.label("or try one of these")
                with ui.row().classes("gap-4 justify-center"):
                    for name, path in self._site.examples.items():
                        self._example(name, path)

    def _example(self, name: str, path: Path) -> None:
        picture = open_picture(path, name, upright=True)
        picture.thumbnail((220, 160))
        with ui.card().classes("p-0 cursor-pointer").on("click", lambda: self._open(path, name)).tight():
            ui.image(picture).style(f"width: {picture.width}px; height: {picture.height}px").props(f'alt="{name}"')

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        self._open(io.BytesIO(await event.file.read()), event.file.name)

    def _open(self, source: Any, name: str) -> None:
        try:
            picture = open_picture(source, name, upright=True)
        except UserError as error:
            ui.notify(str(error), type="warning")
            return
        self._scene, self._name = Scene(self._site.model, picture, self._site.segmenter), Path(name).stem
        self._regions, self._only, self._start = [], None, None
        self._body.refresh()

    def _leave(self) -> None:
        self._scene = None
        self._body.refresh()

    # --- the picture ---

    def _drawn(self) -> str:
        assert self._scene is not None  # noqa: S101 (there is no picture to draw before)
        drawn = drawing.draw(self._scene.image, self._regions, self._only)
        shown = drawn.resize(within(drawn.size, _SHOWN), Image.Resampling.LANCZOS)
        return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(shown)).decode()}"

    async def _mouse(self, event: events.MouseEventArguments) -> None:
        x, y = event.image_x, event.image_y
        if event.type == "mousedown":
            self._start = x, y
            return
        if self._start is None:
            return
        left, right = sorted((self._start[0], x))
        top, bottom = sorted((self._start[1], y))
        dragged = max(right - left, bottom - top) > _CLICK
        if event.type == "mousemove":
            if not event.buttons:  # let go outside of the picture
                self._start = None
            self._picture.content = _frame(left, top, right, bottom) if dragged and self._start else ""
            return
        self._start = None
        assert self._scene is not None  # noqa: S101
        scene, scale = self._scene, max(self._scene.image.size) / max(within(self._scene.image.size, _SHOWN))
        if dragged:
            box = (left * scale, top * scale, right * scale, bottom * scale)
            await self._add(lambda: scene.inside([box]))
        else:
            point = min(x * scale, scene.image.width - 1), min(y * scale, scene.image.height - 1)
            await self._add(lambda: scene.at([point]))

    async def _everything(self) -> None:
        scene, rules = self._scene, self._site.rules
        if scene is not None:
            await self._add(lambda: scene.everything(rules), everything=True)

    async def _add(self, ask: Callable[[], list[Region]], everything: bool = False) -> None:
        """Ask the models beside the server's loop, and show what they say; one question of a page at a time."""
        if self._busy:
            return
        scene, self._busy, self._spinner.visible = self._scene, True, True
        self._told.text = "Looking …"
        try:
            found = await run.io_bound(self._locked, ask) or []  # None: the server is about to end
        except UserError as error:
            ui.notify(str(error), type="warning")
            found = []
        finally:
            self._busy = False
            if scene is self._scene:
                self._spinner.visible = False
        if scene is not self._scene:  # another picture was chosen meanwhile
            return
        if everything and not found:
            ui.notify("Nothing was found for sure. Click a thing instead.", type="warning")
        self._regions = found if everything and found else [*self._regions, *found]
        self._show(None)

    def _locked(self, ask: Callable[[], list[Region]]) -> list[Region]:
        with self._site.lock:
            return ask()

    def _show(self, only: int | None) -> None:
        """Show all regions, or one of them alone."""
        self._only = only
        self._picture.content = ""
        self._picture.set_source(self._drawn())
        self._told.text = f"{_HINT} Press a name to see it alone." if self._regions else _HINT
        self._list.refresh()

    # --- the names ---

    @ui.refreshable_method
    def _list(self) -> None:
        if not self._regions:
            ui.label("Names appear here.").classes("text-grey-6 q-pa-sm")
            return
        with ui.list().props("dense bordered").classes("w-full max-h-[60vh] overflow-y-auto rounded"):
            for number, region in enumerate(self._regions):
                self._row(number, region)
        with ui.row().classes("w-full gap-1"):
            ui.button("Picture", icon="download", on_click=self._download_picture).props("flat dense no-caps")
            ui.button("Data", icon="download", on_click=self._download_data).props("flat dense no-caps")
            ui.button("Clear", icon="delete", on_click=self._clear).props("flat dense no-caps")

    def _row(self, number: int, region: Region) -> None:
        def press() -> None:
            self._show(None if self._only == number else number)

        chosen = "bg-blue-1" if self._only == number else ""
        with ui.item(on_click=press).classes(f"items-center gap-2 no-wrap {chosen}"):
            ui.element("div").classes("chip").style("background: rgb({}, {}, {})".format(*drawing.colour(number)))
            ui.label(region.label).classes("name grow break-words min-w-0 text-body1")
            ui.label(f"{math.exp(region.logprob):.0%}").classes("text-grey-7").tooltip("how sure the model is")

    def _clear(self) -> None:
        self._regions = []
        self._show(None)

    def _download_picture(self) -> None:
        assert self._scene is not None  # noqa: S101
        ui.download.content(as_png(drawing.draw(self._scene.image, self._regions)), f"{self._name}-named.png")

    def _download_data(self) -> None:
        assert self._scene is not None  # noqa: S101
        data = region_files.as_json(self._name, self._scene.image, self._regions)
        ui.download.content(data, f"{self._name}-named.json")


def _frame(left: float, top: float, right: float, bottom: float) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" '
        'fill="rgba(255,255,255,0.2)" stroke="white" stroke-width="2" stroke-dasharray="8 4" />'
    )


def serve(site: Site, port: int, *, browser: bool) -> None:
    """Serve the page on loopback until the process is told to stop; `browser` opens it."""
    from nicegui import app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Whoever makes their site's name mean this address is refused.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])
    ui.run(
        lambda: Page(site), host=_HOST, port=port, title="WOW-Seg", show=browser, reload=False, dark=False,
        show_welcome_message=False,
    )  # fmt: skip
