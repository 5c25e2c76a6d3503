"""Words in front of a name that a configuration may take away: "red car" is a car, if colours do not matter."""

from __future__ import annotations

from functools import cached_property

from pipeline.config import Section

_COLOURS = """
beige black blue bronze brown colored colorful coloured colourful crimson cyan dark golden gray green grey indigo
light magenta maroon multicolored multicoloured orange pink purple red scarlet silver tan teal turquoise
violet white yellow
"""
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve several many some multiple single pair"
_MATERIALS = """
aluminium aluminum brass brick bronze cardboard ceramic cloth concrete copper cotton denim fabric glass gold golden
granite iron knitted leather marble metal metallic paper plastic porcelain rubber silk silver steel stone straw
terracotta tin vinyl wicker wood wooden wool woolen woollen
"""

COLOURS = frozenset(_COLOURS.split())
NUMBERS = frozenset(_NUMBERS.split())
MATERIALS = frozenset(_MATERIALS.split())


class Adjectives(Section):
    """Which leading adjectives are no part of a category; none, unless configured."""

    colours: bool = False
    """Take away colours; "red panda" needs a row in categories.csv that keeps it."""

    numbers: bool = False
    """Take away the number words up to twelve, and several, many, some."""

    materials: bool = False
    """Take away materials; "glass" alone stays, since the last word always does."""

    @cached_property
    def words(self) -> frozenset[str]:
        """The words that go."""
        chosen = zip((self.colours, self.numbers, self.materials), (COLOURS, NUMBERS, MATERIALS), strict=True)
        return frozenset().union(*(words for on, words in chosen if on))
