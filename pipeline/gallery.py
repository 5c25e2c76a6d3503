"""Self-contained HTML pages of regions: cards with a picture, filtered by group and by heading.

The cards follow each other, or stand in columns side by side, a section for every heading.

What the cards say is not trusted: it comes from models and from files. All of it is escaped, text that could turn
the direction of its neighbours is isolated and made visible, and the page's policy lets nothing run but the script
of `gallery.html` and nothing load but the pictures inside the page.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline import images, pages
from pipeline.pages import escaped

_QUALITY = 80
_OUTLINE = (0, 0, 0, 255, 0, 0, 255, 255, 255)  # palette: nothing, red on the edge, white around it


class Picture(NamedTuple):
    """Two pictures of one size: a JPEG, and a PNG that is laid over it until the reader asks for the clean one."""

    clean: bytes
    overlay: bytes


class Card(NamedTuple):
    """One region of a page."""

    heading: str
    """Empty where the region has none."""
    group: str
    """One of the page's groups."""
    picture: Picture | str
    """Or why there is none."""
    lines: Sequence[tuple[str, str]]
    """Label and text."""
    badge: str = ""
    """A warning, shown large."""


class Page(NamedTuple):
    """What is above and beside the cards."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Label and text."""
    groups: dict[str, int]
    """Rows per group in the whole table, not only among the cards."""
    headings: dict[str, int]
    """Rows of the whole table's most frequent headings, in the order shown."""
    headings_title: str = "Most frequent in the table"
    columns: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Title to groups. With columns, every heading is a section: cards of one heading have to follow each other."""
    notes: Mapping[str, str] = MappingProxyType({})
    """What stands beside a section's heading."""


def picture(clean: Image.Image, overlay: Image.Image) -> Picture:
    """Encode a picture and what `outlined` made to lie over it."""
    jpeg, png = io.BytesIO(), io.BytesIO()
    clean.save(jpeg, "JPEG", quality=_QUALITY, optimize=True)
    overlay.save(png, "PNG", optimize=True, bits=2, transparency=0)
    return Picture(jpeg.getvalue(), png.getvalue())


def outlined(mask: npt.NDArray[np.bool_]) -> Image.Image:
    """Draw the outline of a mask on nothing, outside the mask, so that it hides no thin region.

    It is red, and white around the red, which tells it from a red surface.
    """
    pixels = np.zeros(mask.shape, np.uint8)
    pixels[images.outline(mask, 4)] = 2
    pixels[images.outline(mask, 3)] = 1
    pixels[mask] = 0
    drawn = Image.fromarray(pixels, "P")
    drawn.putpalette(_OUTLINE)
    return drawn


def html(page: Page, cards: Sequence[Card]) -> str:
    """Return the whole page."""
    return pages.filled(
        files("pipeline").joinpath("gallery.html").read_text(encoding="utf-8"),
        title=escaped(page.title),
        headings_title=escaped(page.headings_title),
        facts=pages.terms(page.facts),
        groups=_buttons(page.groups, Counter(card.group for card in cards)),
        headings=_buttons(page.headings, Counter(card.heading for card in cards)),
        cards=_sections(page, cards) if page.columns else "\n".join(map(article, cards)),
        total=str(len(cards)),
    )


def _buttons(counts: dict[str, int], here: Counter[str]) -> str:
    most = max(1, *counts.values()) if counts else 1
    return "\n".join(
        f'<li><button type="button" value="{escaped(name)}" style="--share: {count / most:.3f}"'
        f"{'' if here[name] else ' disabled'}>"
        f"<bdi>{escaped(name)}</bdi> <small>{count:,}<span> · {here[name]:,} here</span></small></button></li>"
        for name, count in counts.items()
    )


def _sections(page: Page, cards: Sequence[Card]) -> str:
    made = []
    for heading, found in groupby(cards, key=lambda card: card.heading):
        here = list(found)
        columns = "".join(
            f'<div class="column"><h3>{escaped(title)}</h3><div class="cards">'
            f"{''.join(article(card) for card in here if card.group in groups) or '<p>none</p>'}</div></div>"
            for title, groups in page.columns.items()
        )
        made.append(
            f"<section><h2><bdi>{escaped(heading)}</bdi> <small>{escaped(page.notes.get(heading, ''))}</small></h2>"
            f'<div class="columns">{columns}</div></section>'
        )
    return "\n".join(made)


def article(card: Card) -> str:
    """Return the markup of a card."""
    badge = f'<strong class="badge">{escaped(card.badge)}</strong>' if card.badge else ""
    heading = f"<bdi>{escaped(card.heading)}</bdi>" if card.heading else f"<i>{escaped(card.group)}</i>"
    return (
        f'<article data-group="{escaped(card.group)}" data-heading="{escaped(card.heading)}">{_shown(card.picture)}'
        f"{badge}<h2>{heading}</h2><dl>{pages.terms(card.lines)}</dl></article>"
    )


def _shown(picture: Picture | str) -> str:
    if isinstance(picture, str):
        return f'<p class="picture">{escaped(picture)}</p>'
    layers = zip(("jpeg", "png"), picture, strict=True)
    inner = "".join(
        f'<img loading="lazy" decoding="async" alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
        for kind, data in layers
    )
    return f'<button type="button" class="picture" aria-label="hold: without the outline">{inner}</button>'
