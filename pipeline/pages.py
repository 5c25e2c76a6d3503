"""Self-contained HTML pages: a template, what several of them share, and text that is not trusted.

A template names what it shares with others as `{{head.html}}`, a file of `pipeline/page/`:

    head.html     up to the title, with the page's policy
    base.css      colours by day and night, and what every page looks like
    cards.css     regions with their pictures
    bars.css      shares as bars, with their intervals
    boards.css    tables of ours beside published rows
    table.css     a table that is sorted by its heads and searched
    table.js      that does so

The policy lets nothing run but the page's one script and nothing load but the pictures inside it (and, where the page
says so, beside it). Text comes from models and from files: it is escaped, and what could turn the direction of its
neighbours is made visible.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

_SHARED = re.compile(r"\{\{([a-z]+\.[a-z]+)\}\}")
_INSIDE, _BESIDE = "data:", "data: 'self' file:"
_LONGEST = 2000  # characters of a text; enough to judge an answer, too few to fill a page
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
"""Control, bidi and zero-width characters; the joiners stay, scripts and emoji are made with them."""


def filled(template: str, *, beside: bool = False, **parts: str) -> str:
    """Put the shared files and markup into a template's places, and the hash of its script into its policy.

    The script has no places. With `beside`, pictures may lie in the page's folder. Raises `KeyError` for a place
    that gets nothing.
    """
    whole = _SHARED.sub(lambda found: _shared(found[1]), template)
    script = whole.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(whole).substitute(parts, script_hash=digest, pictures=_BESIDE if beside else _INSIDE)


def _shared(name: str) -> str:
    return files("pipeline").joinpath("page", name).read_text(encoding="utf-8").rstrip("\n")


def escaped(text: str) -> str:
    """Return a text as markup, `visible`."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Cut a text, and show what cannot be seen as its code point; still to be escaped."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} … and {len(text) - _LONGEST:,} more characters"
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def terms(lines: Sequence[tuple[str, str]]) -> str:
    """Return labels and texts as the markup of what belongs into a `<dl>`."""
    return "\n".join(
        f"<div><dt>{escaped(label)}</dt><dd><bdi>{escaped(text)}</bdi></dd></div>" for label, text in lines
    )
