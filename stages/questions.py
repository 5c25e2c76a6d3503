"""The yes/no question about a region, word for word as the paper asks it."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pipeline.inflection import singular
from stages import region_prompts
from stages.region_prompts import RegionPrompt

Article = Literal["none", "indefinite"]

_SLOT = "{class name}"
_UNCOUNTED = """
art asphalt bark bread butter cattle cheese children clay clothing coal concrete corn cotton dirt dust equipment
fabric feet fire flour foam foliage food fruit fur furniture garbage glass gold grass gravel ground hair hay ice ink
jewelry land leather lettuce light lighting luggage machinery marble meat men metal milk moss mud oil paint paper
pasta people plaster plastic police pollen pottery rain rice rubbish rust salt sand scenery seafood seaweed shade
silver skin sky smoke snow soil soup steam stone straw sugar sunlight teeth text timber traffic trash underbrush
vegetation water wheat wine women wood wool writing
"""
"""Last words that take no article and do not look like plurals. A list, since no library tells what is not counted; one
missing means "a" before it."""


def template(prompt: RegionPrompt) -> str:
    """Return the paper's question, `{class name}` where the category goes."""
    return region_prompts.question("check", prompt)


def question(text: str, category: str, article: Article) -> str:
    """Put a category into `template`'s text; whatever it holds is text, braces as well."""
    before, _, after = text.partition(_SLOT)
    return f"{before}{with_article(category) if article == 'indefinite' else category}{after}"


def with_article(category: str) -> str:
    """Return a category with its indefinite article, none before plurals and what is not counted: "an hour hand"."""
    last = category.rpartition(" ")[2]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if plural or last in _uncounted() or singular(category) != category or not category[:1].isalpha():
        return category
    return str(_english().a(category))


@cache
def _uncounted() -> frozenset[str]:
    return frozenset(_UNCOUNTED.split())


@cache
def _english() -> Any:
    import inflect

    return inflect.engine()
