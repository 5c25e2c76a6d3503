"""WordNet says what one name is to another, or is not there at all."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.wordnet import Relation, WordNet, open_wordnet


@pytest.fixture(scope="module")
def wordnet() -> WordNet:
    found = open_wordnet()
    if found is None:
        pytest.skip("WordNet is not installed: make wordnet")
    return found


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("gull", "seagull", "synonym"),
        ("mussels", "mussel", "synonym"),
        ("traffic light", "traffic signal", "synonym"),
        ("t-shirt", "jersey", "synonym"),
        ("gull", "bird", "hypernym"),
        ("bird", "gull", "hyponym"),
        ("tree", "trunk", "part"),
        ("trunk", "tree", "part"),
        ("left", "right", "antonym"),
        ("indoor", "outdoor", "antonym"),  # adjectives
        ("man", "woman", "antonym"),
        ("dog", "cat", None),
        ("dog", "xyzzy", None),
        ("", "dog", None),
    ],
)
def test_relation(wordnet: WordNet, a: str, b: str, expected: Relation | None) -> None:
    assert wordnet.relation(a, b) == expected


def test_a_homograph_has_senses_in_several_fields(wordnet: WordNet) -> None:
    assert {"05", "06"} <= wordnet.topics("crane")  # animal, artifact
    assert wordnet.topics("dragonfly") == {"05"}
    assert wordnet.topics("xyzzy") == frozenset()


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("crane", "lifts and moves heavy objects"),  # before it a writer, an individual
        ("man", "an adult person who is male"),
        ("seagulls", "mostly white aquatic bird"),
        ("dog", "a member of the genus Canis"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_gloss(wordnet: WordNet, name: str, beginning: str) -> None:
    gloss = wordnet.gloss(name)
    assert gloss.startswith(beginning)
    assert ('"' in gloss, bool(gloss)) == (False, bool(beginning))


def write(folder: Path) -> None:
    """Two animals, one above the other, and a pair of adjectives, in the layout of wndb(5WN)."""
    head = "  1 licence\n"
    bird = f"{len(head):08} 05 n 01 bird 0 000 | flies\n"
    place = len(head + bird)
    gull = f"{place:08} 05 n 02 gull 0 sea_gull 0 001 @ {len(head):08} n 0000 | swims\n"
    (folder / "data.noun").write_text(head + bird + gull)
    lines = [f"bird n 1 0 1 0 {len(head):08}", f"gull n 1 1 @ 1 0 {place:08}", f"sea_gull n 1 1 @ 1 0 {place:08}"]
    (folder / "index.noun").write_text(head + "\n".join(lines))
    wet = "00000000 00 a 01 wet(p) 0 001 ! 00000053 a 0101 | x\n"
    (folder / "data.adj").write_text(wet + f"{len(wet):08} 00 a 01 dry 0 001 ! 00000000 a 0101 | y\n")
    (folder / "index.adj").write_text(f"dry a 1 1 ! 1 0 {len(wet):08}\nwet a 1 1 ! 1 0 00000000\n")


def test_four_files_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("RR7K_WORDNET", str(tmp_path))
    wordnet = open_wordnet()
    assert wordnet is not None
    assert (wordnet.gloss("birds"), wordnet.gloss("sea gull")) == ("flies", "swims")
    pairs = [("gull", "sea gull"), ("sea-gulls", "birds"), ("bird", "gull"), ("wet", "dry"), ("wet", "bird")]
    assert [wordnet.relation(a, b) for a, b in pairs] == ["synonym", "hypernym", "hyponym", "antonym", None]


def test_absent_is_none_and_damaged_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RR7K_WORDNET", raising=False)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert open_wordnet() is None
    monkeypatch.setenv("RR7K_WORDNET", str(tmp_path))
    with pytest.raises(UserError, match="make wordnet"):
        open_wordnet()
