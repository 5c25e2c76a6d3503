"""Category text: the one definition of when two names are the same.

Every name that is stored, counted or scored has passed through `normalise`.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that show nothing (Unicode's Default_Ignorable_Code_Point) and have no category C of their own."""

_ALIKE = str.maketrans(
    dict.fromkeys("\u00b4\u02bc\u2018\u2019\u201b\u2032", "'")  # child’s toy = child's toy
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2043\u2212", "-")  # t‑shirt = t-shirt; the em dash stays: it separates
    | {"_": " "}  # data sets write traffic_light
)
"""Characters between which writers of one name choose freely."""

_PLAIN = re.compile("[a-z0-9]+(?:[ '-][a-z0-9]+)*")
"""Names that are normal as they are: most of them."""

_EDGES = frozenset({"Pc", "Pd", "Pi", "Pf", "Po", "Sk", "Zs"})
"""What may surround a name without being part of it: quotes, dashes, stops, spaces; not brackets, which pair up."""


def normalise(text: str) -> str:
    """Return the canonical form of a category name; doing it twice changes nothing.

    NFKC and case folding (so "ß" is "ss" and a final "ς" is "σ"); no control, format, bidi or zero-width characters,
    emoji or other pictures; typographic apostrophes and hyphens become ASCII; `_` and any white space become one
    space; nothing but letters, digits, marks, brackets, currency and mathematical signs at either end. Inner
    hyphens, apostrophes and colons stay. Markup stays as text: escaping is the viewer's job.
    """
    if _PLAIN.fullmatch(text):
        return text
    text = "".join(map(_visible, _UNSEEN.sub("", text))).translate(_ALIKE)  # NFKC would split ´ into space and accent
    text = unicodedata.normalize("NFKC", text).casefold().translate(_ALIKE)
    return _without_edges(" ".join(unicodedata.normalize("NFKC", text).split()))


def _visible(char: str) -> str:
    """Return the character, a space for white space and pictures, or nothing for what cannot be seen.

    Before NFKC, because NFKC turns ™ into letters, and composes letters with marks that such characters keep apart.
    """
    kind = unicodedata.category(char)
    if char.isspace() or kind == "So":
        return " "
    return "" if kind[0] == "C" or kind == "Me" else char


def _without_edges(text: str) -> str:
    core = [i for i, char in enumerate(text) if unicodedata.category(char) not in _EDGES]
    return text[core[0] : core[-1] + 1] if core else ""
