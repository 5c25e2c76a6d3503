"""Words that tell things apart: two names that differ by one of these are never one category."""

from __future__ import annotations

import re
from functools import cache
from itertools import zip_longest

from pipeline.adjectives import COLOURS, MATERIALS, NUMBERS

_WORD = re.compile("[^ -]+")

_GROUPS = """
left right middle
indoor outdoor inside outside
inner outer interior exterior internal external
male female
man woman boy girl baby child
mother father
brother sister
king queen
prince princess
groom bride
bull cow calf
hen rooster chick
front back rear side
upper lower top bottom
top lid base
up down
hot cold
open closed
wet dry
big small large little giant miniature mini
long short
old young new
adult juvenile
full empty
single double triple
round flat square pointed bent straight
light dark
day night
summer winter spring autumn fall
north south east west northern southern eastern western
african asian american european australian indian chinese japanese
raw cooked fried boiled baked grilled
dog cat horse bird fish cow pig sheep goat
apple pear cherry plum peach lemon lime
football basketball baseball volleyball tennis soccer hockey golf
"""

_SAME = """
aluminium aluminum
back rear
big large
colored colorful coloured colourful multicolored multicoloured
fall autumn
gold golden
gray grey
indoor inside inner interior internal
little small mini miniature
metal metallic
outdoor outside outer exterior external
several many some multiple
single one
two pair double
top upper
wood wooden
wool woolen woollen
"""
"""Words of one group that do not exclude one another."""


def differ(a: str, b: str) -> bool:
    """Say whether two names are equal but for one word each, and these two exclude one another: left, right.

    Or but for a qualifier in brackets, which is there to tell them apart: salmon (fish), salmon (food).
    """
    (one, *said), (other, *said_too) = a.split(" (", 1), b.split(" (", 1)
    if said and said_too and one == other:
        return said != said_too
    pairs = list(zip_longest(_WORD.findall(a), _WORD.findall(b), fillvalue=""))
    words = [(x, y) for x, y in pairs if x != y]
    return len(words) == 1 and _exclude(*words[0])


def are_species(a: str, b: str) -> bool:
    """Say whether both are Latin names of one genus: three words that are not English."""
    import simplemma

    one, other = a.split(), b.split()
    if not len(one) == len(other) == 2 or one[0] != other[0]:
        return False
    return not any(simplemma.is_known(word, lang="en") for word in (*one, other[1]))


def _exclude(a: str, b: str) -> bool:
    nothing: set[int] = set()
    together, alike = (found.get(a, nothing) & found.get(b, nothing) for found in _tables())
    return bool(together) and not alike


@cache
def _tables() -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    lists = (" ".join(words) for words in (COLOURS, NUMBERS, MATERIALS))
    return _members([*_GROUPS.strip().splitlines(), *lists]), _members(_SAME.strip().splitlines())


def _members(lines: list[str]) -> dict[str, set[int]]:
    """Return in which of the lines, by number, each word is."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(lines):
        for word in line.split():
            found.setdefault(word, set()).add(number)
    return found
