"""Plural to singular, for English category names.

simplemma's word list says what is a word of its own (bus, lens, canvas) and what is a form of another; it ships in the
wheel, so that the answer is the same on each machine. It does not tell nouns from verbs ("saw", "leaves"): the spelling
of plurals does. (inflect knows more plurals, but takes seconds to import.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

RULES = 1
"""Raised when `singular` starts to answer otherwise."""

_ONE_THING = """
abs bangs billiards binoculars bitters breeches briefs checkers clothes dice draughts dungarees earphones
eyeglasses fatigues forceps gallows glasses goggles goods graffiti greens grits headphones jeans knickers
leggings mars media overalls pajamas panties pants pincers pliers pyjamas scissors scrubs shears shorts slacks
spectacles stairs sunglasses suspenders sweats tights tongs trousers tweezers underpants
"""
"""One thing, whose singular is another thing, or none: a pair of glasses is no glass, and dice are no dies."""

_KEPT = frozenset(_ONE_THING.split())

_IRREGULAR = {
    "calves": "calf",
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "halves": "half",
    "leaves": "leaf",  # the word list has the verb; so with calve, halve, shelve
    "lenses": "lens",
    "lice": "louse",
    "loaves": "loaf",
    "men": "man",  # and women, firemen
    "mice": "mouse",
    "oxen": "ox",
    "sheaves": "sheaf",
    "shelves": "shelf",
    "skies": "sky",
    "teeth": "tooth",
    "thieves": "thief",
}
"""Ends of words; the result must be a word (specimen is no plural)."""

_SHORTEST = 4
"""Letters of a regular plural: "gas" and "ani" are none."""


def singular(name: str) -> str:
    """Return a normalised name with its last word in the singular; doing it twice changes nothing.

    Only when the singular is a known word, and the word itself is not: bus, lens and canvas stay.
    """
    start = max(name.rfind(" "), name.rfind("-")) + 1
    return name[:start] + _singular(name[start:])


@cache
def _singular(word: str) -> str:
    if word in _KEPT or not word.isalpha():
        return word
    import simplemma

    lemma = simplemma.lemmatize(word, lang="en").casefold()
    if lemma == word:
        return word
    for found in _candidates(word, lemma):
        if simplemma.is_known(found, lang="en") and _singular(found) == found:
            return found
    return word


def _candidates(word: str, lemma: str) -> Iterator[str]:
    for plural, one in _IRREGULAR.items():
        if word.endswith(plural):
            yield word.removesuffix(plural) + one
    if len(word) >= _SHORTEST and word in _plurals(lemma):
        yield lemma


def _plurals(word: str) -> Iterator[str]:
    """Spell the plural of a noun in the ways there are; Latin ones only in -i, -ae, -es: opera is no opus here."""
    yield from (word + "s", word + "es", word + word[-1] + "es")
    for end, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves"), ("us", "i"), ("a", "ae"), ("is", "es")):
        if word.endswith(end):
            yield word.removesuffix(end) + plural
