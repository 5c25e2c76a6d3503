"""The two screens people see: what is sent for them, and what their answers mean.

`page_view.xml` shows up to 24 tiles of which the wrong ones are ticked, `single_view.xml` one tile, large, for what
was unsure or in conflict. Names come from models, so they are hostile data: Label Studio runs scripts hidden in a
tile's HTML (label_studio.md §5), and every value goes into a fixed template escaped or quoted. Every annotator can see
all of a task's data: nothing that gives an answer away belongs there.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

FOLDER = "crops"
"""What the served folder is called below the server's document root."""

KEYS = "12345678qwertyuiasdfghjk"
"""The tiles' keys, in the order of the tiles: three rows of a keyboard for three rows of eight (label_studio.md §3)."""

LISTED = ("place", "title", "id", "completed_at", "annotators", "total_annotations")
"""What a list of pages shows: fields of a task, ours and the server's own; the others are markup."""

CLEAN = "without the mark"
"""The choice of `single_view` that only changes the picture."""

_LONGEST = 200  # characters of a text; a heading that fills the screen hides the tiles
_UID = re.compile(r"[0-9A-Za-z_.:-]{1,64}")  # the editor takes a value with a $ for the name of a field
_JPG = re.compile(r"(?:(?!\.\.?/)[^/]+/)*[^/]+\.jpg")  # a path that neither begins at the root nor goes up
_GUIDELINE_STYLE = (
    ".guideline { font-size: 13px; line-height: 18px; white-space: normal; } .guideline p { margin: 4px 0; }"
    " .guideline h2 { margin: 7px 0 2px; font-size: 15px; line-height: 18px; }"
    " .guideline ul { margin: 0; padding-left: 18px; list-style: disc; }"
    " .guideline td, .guideline th { padding-right: 20px; text-align: left; }"
)
_WHEN = {"marked": "", "next": ' fetchpriority="low"', "raw": ' loading="lazy"'}
"""When a picture is fetched. Lazy: not before it is shown, so that a page asks for half as many."""
_JOINERS = "\u200c\u200d"  # scripts and emoji are made with them


class Tile(NamedTuple):
    """A mask and the category it is said to show."""

    uid: str
    """Letters, digits and `_.:-`; unique on its page."""
    category: str
    crop: str
    """The marked crop, a .jpg: its path below the served folder."""
    raw: str
    """The same without the mark."""


class Page(NamedTuple):
    """What is shown at once, and above the tiles."""

    page_id: str
    """Ours, and the same whenever the page is built again: a page is stored once."""
    title: str
    """The category, or what a mixed page is."""
    group: str
    """The category's coarse group."""
    gloss: str
    """One line on what the category means."""
    neighbours: tuple[str, ...]
    """Categories nearby, for orientation."""
    tiles: tuple[Tile, ...]
    """1 to 24."""
    position: str = ""
    """Which page it is of how many, when it was sent."""


def label_config(view: str) -> str:
    """Return the label configuration of `page_view` or `single_view`."""
    return files("annotation_ui").joinpath(f"{view}.xml").read_text(encoding="utf-8").strip()


def guideline() -> str:
    """Return the guideline as HTML, for the project's instructions: a button above every page shows them."""
    from markdown_it import MarkdownIt

    text = files("annotation_ui").joinpath("guideline.md").read_text(encoding="utf-8")
    # The window keeps line breaks as they are, so there may be none.
    html: str = MarkdownIt("commonmark").enable("table").render(text)
    return f'<style>{_GUIDELINE_STYLE}</style><div class="guideline">{html}</div>'.replace("\n", " ")


def page_task(page: Page, following: Page | None = None) -> dict[str, Any]:
    """Return the task that shows a page in `page_view`, and has the browser fetch the crops of the `following` one.

    Fetching them takes the server half a second: while people look at this page rather than when they wait for the
    next. Raises `ValueError` for more than 24 tiles or none, a uid that is malformed or there twice, and a crop that is
    not a .jpg below the served folder.
    """
    _check(page, len(KEYS))
    keyed = list(zip(KEYS, page.tiles, strict=False))
    pictures = [_picture(tile) for tile in page.tiles]
    if following is not None:
        _check(following, len(KEYS))
        pictures[-1] += "".join(_image(tile.crop, "next") for tile in following.tiles)
    lists = {
        "wrong": [_choice(tile, key, html) for (key, tile), html in zip(keyed, pictures, strict=True)],
        "private": [_choice(tile, f"alt+{key}", "<i>P</i><em>private</em>") for key, tile in keyed],
        "unsure": [_choice(tile, f"shift+{key}", "<i>?</i><em>unsure</em>") for key, tile in keyed],
    }
    return _task(page, lists)


def single_task(page: Page) -> dict[str, Any]:
    """Return the task that shows a page of one tile in `single_view`. Raises `ValueError` as `page_task` does."""
    _check(page, 1)
    (tile,) = page.tiles
    picture = _image(tile.crop, "marked", "image missing") + _image(tile.raw, "raw")
    clean = [{"value": CLEAN, "hotkey": "5"}]
    return _task(page, {"uid": tile.uid, "picture": picture, "clean": clean})


def _check(page: Page, most: int) -> None:
    if not 1 <= len(page.tiles) <= most:
        raise ValueError(f"page {page.page_id}: 1 to {most} tiles expected, {len(page.tiles)} found")
    if len({tile.uid for tile in page.tiles}) < len(page.tiles):
        raise ValueError(f"page {page.page_id}: a uid is there twice")
    for tile in page.tiles:
        if not _UID.fullmatch(tile.uid):
            raise ValueError(f"page {page.page_id}: {tile.uid!r} is no uid; 1 to 64 of 0-9 A-Z a-z _ . : - expected")
        for name in (tile.crop, tile.raw):
            if not _JPG.fullmatch(name):
                raise ValueError(f"page {page.page_id}: {name!r} is no .jpg below the served folder")


def _task(page: Page, content: dict[str, Any]) -> dict[str, Any]:
    place = [page.position, page.group, f"near: {', '.join(page.neighbours)}" if page.neighbours else ""]
    heading = {
        "page_id": page.page_id,
        "names": {tile.uid: tile.category for tile in page.tiles},  # from which a lost queue is made again
        "title": _readable(page.title),
        "gloss": _readable(page.gloss),
        "place": _readable(" · ".join(filter(None, place))),
    }
    # In `meta` as well, where all of a project's ids are read at a two-hundredth of the data.
    return {"data": heading | content, "meta": {"page_id": page.page_id}}


def _choice(tile: Tile, hotkey: str, html: str) -> dict[str, str]:
    return {"value": tile.uid, "hotkey": hotkey, "html": html}


def _picture(tile: Tile) -> str:
    name = escape(_readable(tile.category))
    caption = f'<b title="{name}"><bdi>{name}</bdi></b>'
    return _image(tile.crop, "marked", "image missing") + _image(tile.raw, "raw") + caption


def _image(name: str, kind: str, missing: str = "") -> str:
    url = f"/data/local-files/?d={quote(f'{FOLDER}/{name}')}"
    return f'<img class="{kind}"{_WHEN[kind]} src="{url}" alt="{missing}">'


def _readable(text: str) -> str:
    """Cut a text, and show what cannot be seen, or turns the direction of its neighbours, as its code point."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if cut.isprintable():  # nearly always, and a tenth of the time
        return cut
    return "".join(f"⟨U+{ord(c):04X}⟩" if _unseen(c) else c for c in cut)


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
