"""When two names are one, spelt in two ways: spaces and hyphens, British and American."""

from __future__ import annotations

import re
from functools import cache

_AMERICAN = {
    "aeroplane": "airplane",
    "aluminium": "aluminum",
    "axe": "ax",
    "barbeque": "barbecue",
    "catalogue": "catalog",
    "doughnut": "donut",
    "grey": "gray",
    "jewellery": "jewelry",
    "kerb": "curb",
    "licence": "license",
    "moustache": "mustache",
    "mould": "mold",
    "plough": "plow",
    "programme": "program",
    "pyjama": "pajama",
    "pyjamas": "pajamas",
    "sceptre": "scepter",
    "storey": "story",
    "tyre": "tire",
    "whisky": "whiskey",
    "yoghurt": "yogurt",
}
_ENDS = (
    (re.compile("([bdlmnv])our(s|ed|ful|ing)?$"), r"\1or\2"),  # colour, armour, neighbour; not four
    (re.compile("([bt])re(s)?$"), r"\1er\2"),  # centre, fibre, theatre
    (re.compile("([a-z]{4})is(e|ed|er|ing|ation)$"), r"\1iz\2"),
    (re.compile("([aeiou])ll(ed|er|ing)$"), r"\1l\2"),  # travelling
)
"""Applied to one word; that a pattern is too wide does no harm unless both words are names."""


def key(name: str) -> str:
    """Return what two spellings of one name share; not itself a name."""
    return "".join(map(_american, re.split("[ -]+", name)))


@cache
def _american(word: str) -> str:
    word = _AMERICAN.get(word, word)
    for pattern, end in _ENDS:
        word = pattern.sub(end, word)
    return word
