"""Plurals become singulars, and nothing else changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inflection import singular


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ""),
        ("dogs", "dog"),
        ("seed pods", "seed pod"),
        ("seedpods", "seedpod"),
        ("aquatic plants", "aquatic plant"),
        ("t-shirts", "t-shirt"),
        ("flip-flops", "flip-flop"),
        ("buses", "bus"),
        ("lenses", "lens"),
        ("canvases", "canvas"),
        ("irises", "iris"),
        ("berries", "berry"),
        ("pies", "pie"),
        ("skies", "sky"),
        ("potatoes", "potato"),
        ("knives", "knife"),
        ("leaves", "leaf"),
        ("olives", "olive"),
        ("caves", "cave"),
        ("quizzes", "quiz"),
        ("women", "woman"),
        ("geese", "goose"),
        ("teeth", "tooth"),
        ("fungi", "fungus"),
        ("algae", "alga"),
        ("oases", "oasis"),
        ("crêpes", "crêpe"),
    ],
)
def test_a_plural_becomes_singular(name: str, expected: str) -> None:
    assert singular(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "bus",
            "gas",
            "lens",
            "iris",
            "canvas",
            "glass",
            "grass",
            "compass",
            "cactus",
            "asparagus",
            "tennis",
            "atlas",
        ),
        *("series", "species", "sheep", "news", "chassis", "octopus", "hippopotamus", "mattress", "waitress"),
        *("glasses", "sunglasses", "scissors", "pants", "jeans", "clothes", "stairs", "dice"),  # homographs
        *("saw", "rose", "left", "specimen", "opera", "ani", "mars"),  # forms of other words, but no plurals
        *("dogs house", "cat (animals)", "7-eleven", "sciurus carolinensis", "xyzzys", "собаки", "犬"),
    ],
)
def test_other_names_survive(name: str) -> None:
    assert singular(name) == name


@given(st.lists(st.sampled_from(["dog", "dogs", "glasses", "leaves", "bus", "a-b", "men", "-", "ss", "ies", "tori"])))
def test_twice_is_once(words: list[str]) -> None:
    name = singular(" ".join(words))
    assert singular(name) == name
