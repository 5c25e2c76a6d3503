"""What may be one category is proposed, with what speaks for and against it."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pipeline import categories
from pipeline.wordnet import Relation, WordNet
from stages import candidates
from stages.candidates import Candidate, propose
from stages.opposites import are_species, differ
from stages.spelling import key


class FewWords(WordNet):
    """A WordNet of a few words, so that these tests need none."""

    SENSES: dict[str, tuple[int, ...]] = {  # noqa: RUF012
        "gull": (1, 2), "seagull": (2,), "bird": (3,), "can": (4, 5), "toilet": (6, 5), "crow": (7,), "raven": (8,),
        "red poll": (9,), "redpoll": (10,), "tree": (11,), "man": (12,), "woman": (13,),
    }  # fmt: skip
    RELATIONS: dict[tuple[str, str], Relation] = {  # noqa: RUF012
        ("seagull", "gull"): "synonym", ("toilet", "can"): "synonym", ("gull", "bird"): "hypernym",
        ("bird", "gull"): "hyponym", ("man", "woman"): "antonym", ("woman", "man"): "antonym",
    }  # fmt: skip

    def __init__(self) -> None:
        pass

    def senses(self, name: str) -> tuple[int, ...]:
        return self.SENSES.get(name, ())

    def pictured(self, name: str) -> frozenset[int]:
        return frozenset({2} if name == "gull" else self.senses(name)[:1])

    def topics(self, name: str) -> frozenset[str]:
        return frozenset({"05", "18"} if name == "gull" else {"05"})

    def relation(self, a: str, b: str) -> Relation | None:
        return self.RELATIONS.get((a, b))


def alike(*groups: str) -> Callable[[Sequence[str]], npt.NDArray[np.float32]]:
    """Embed the names of a group (`a|b`) alike, all others apart."""

    def embed(names: Sequence[str]) -> npt.NDArray[np.float32]:
        numbers = [next((i for i, g in enumerate(groups) if name in g.split("|")), None) for name in names]
        axes = [len(groups) + place if number is None else number for place, number in enumerate(numbers)]
        return np.eye(len(groups) + len(names), dtype=np.float32)[axes]

    return embed


def judged(found: Iterable[Candidate]) -> list[str]:
    return [f"{c.variant} > {c.canonical}: {c.kind} {c.against}".rstrip() for c in found]


@pytest.mark.parametrize(
    ("counts", "near", "expected"),
    [
        pytest.param({}, "", [], id="empty"),
        pytest.param({"dog": 1}, "dog", [], id="one"),
        pytest.param({"seed pod": 9, "seedpod": 2}, "", ["seedpod > seed pod: spelling"], id="space"),
        pytest.param({"tshirt": 9, "t-shirt": 2}, "", ["t-shirt > tshirt: spelling"], id="hyphen"),
        pytest.param({"grey car": 1, "gray car": 3}, "", ["grey car > gray car: spelling"], id="british"),
        pytest.param({"onions": 9, "onion": 2}, "", ["onion > onions: plural"], id="more-frequent-stays"),
        pytest.param({"onions": 2, "onion": 2}, "", ["onions > onion: plural"], id="tie-singular-stays"),
        pytest.param({"glasses": 2, "glass": 2}, "", [], id="homographs"),
        pytest.param({"gull": 2, "seagull": 1}, "", ["seagull > gull: synonym"], id="synonym"),
        pytest.param({"can": 2, "toilet": 1}, "", ["toilet > can: synonym sense"], id="rarer-sense"),
        pytest.param({"can": 2, "toilet": 1}, "can|toilet", ["toilet > can: synonym"], id="yet-alike"),
        pytest.param({"big xyz": 2, "xyz big": 1}, "big xyz|xyz big", ["xyz big > big xyz: near-duplicate"], id="near"),
        pytest.param({"gull": 1, "bird": 2}, "gull|bird", ["gull > bird: near-duplicate hypernym"], id="hypernym"),
        pytest.param({"gull": 2, "bird": 1}, "gull|bird", ["bird > gull: near-duplicate hyponym"], id="hyponym"),
        pytest.param({"x ball": 1, "ball": 2}, "x ball|ball", ["x ball > ball: near-duplicate hypernym"], id="head"),
        pytest.param({"man": 1, "woman": 2}, "man|woman", ["man > woman: near-duplicate opposite"], id="antonym"),
        pytest.param({"left": 1, "right": 2}, "left|right", ["left > right: near-duplicate opposite"], id="side"),
        pytest.param({"crow": 1, "raven": 2}, "crow|raven", ["crow > raven: near-duplicate distinct"], id="two-known"),
        pytest.param({"red poll": 1, "redpoll": 2}, "", ["red poll > redpoll: spelling distinct"], id="cattle-bird"),
    ],
)  # fmt: skip
def test_propose(counts: dict[str, int], near: str, expected: list[str]) -> None:
    assert judged(propose(counts, FewWords(), embed=alike(near))) == expected


def test_evidence() -> None:
    found = propose({"gull": 7, "seagull": 3}, FewWords(), embed=alike())
    assert found == [Candidate("seagull", "gull", "synonym", 3, 7, 0.0, "synonym", "", "gull")]


def test_without_wordnet_and_embeddings_the_words_remain() -> None:
    found = propose({"onions": 1, "onion": 2, "gull": 1, "seagull": 1}, None, embed=None)
    assert judged(found) == ["onions > onion: plural"]
    assert np.isnan(found[0].similarity)


def test_blocks_find_what_one_matrix_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {f"x{i}y": i for i in range(10)}
    groups = alike("x0y|x9y|x4y", "x2y|x3y")
    whole = propose(counts, embed=groups)
    monkeypatch.setattr(candidates, "_BLOCK", 3)
    assert propose(counts, embed=groups) == whole
    assert len(whole) == 4


def test_order_and_summary() -> None:
    counts = {"onions": 1, "onion": 9, "dogs": 5, "dog": 9, "hot dog": 1, "hotdog": 1, "gull": 1, "bird": 1}
    found = propose(counts, FewWords(), embed=alike("gull|bird"))
    assert [c.variant for c in found] == ["hot dog", "dogs", "onions", "gull"]
    assert candidates.summary(found) == {
        "spelling": {"proposed": 1},
        "plural": {"proposed": 2},
        "near-duplicate": {"hypernym": 1},
    }
    assert [c.variant for c in candidates.proposals(found)] == ["hot dog", "dogs", "onions"]


def test_the_file_begins_with_the_columns_of_the_reviewed_table() -> None:
    rows = list(csv.reader(io.StringIO(candidates.write_csv(propose({"a, b": 3, "a, bs": 1}, embed=None)).decode())))
    assert tuple(rows[0][:5]) == categories.COLUMNS
    assert rows[0][-1] == "decision"
    seen = candidates.write_csv([Candidate("dogs", "dog", "plural", 1, 3, 0.91239, "synonym", "", "dog")])
    assert seen.decode().splitlines()[1] == "dogs,dog,plural,,,plural,1,3,0.912,synonym,,dog,"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("left shoe", "right shoe", True),
        ("red car", "blue car", True),
        ("one car", "two car", True),
        ("wooden chair", "plastic chair", True),
        ("flat-nose pliers", "bent nose pliers", True),
        ("salmon (fish)", "salmon (food)", True),
        ("salmon (fish)", "trout (fish)", False),
        ("salmon", "salmon (food)", False),
        ("big dog", "large dog", False),
        ("grey wooden door", "gray wooden door", False),
        ("fox", "vixen", False),
        ("left shoe", "right boot", False),
        ("red car", "red car", False),
        ("car", "red car", False),
        ("", "", False),
    ],
)
def test_opposites(a: str, b: str, expected: bool) -> None:
    assert differ(a, b) is expected


def test_species_of_one_genus() -> None:
    assert are_species("orthetrum chrysostigma", "orthetrum chrysis")
    assert not are_species("japanese spitzes", "japanese spitz")
    assert not are_species("setophaga ruticilla", "agkistrodon piscivorus")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("t-shirt", "t shirt"),
        ("colour", "color"),
        ("theatre", "theater"),
        ("grey tyre", "gray-tire"),
        ("a cup", "acup"),
    ],
)
def test_spellings_share_a_key(a: str, b: str) -> None:
    assert key(a) == key(b)


@pytest.mark.parametrize(("a", "b"), [("four", "for"), ("hour", "hor"), ("tree", "teer"), ("rise", "rize"), ("", "a")])
def test_other_words_do_not(a: str, b: str) -> None:
    assert key(a) != key(b)
