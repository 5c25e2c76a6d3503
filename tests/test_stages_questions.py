"""The question is the paper's, word for word, whatever the category holds."""

from __future__ import annotations

import pytest

from stages.questions import question, template, with_article
from stages.region_prompts import RegionPrompt, Shown

PAPER = (
    "Is the area outlined by the red contour and covered by the red mask in the image {class name}? "
    "Please answer yes or no."
)
HOSTILE = [
    'the "odd" one',
    "{class name}",
    "{0} {x!r}",
    "<b>bold</b><script>alert(1)</script>",
    "x" * 200,
    "50% \\n $a",
]
LAYOUTS: list[Shown] = ["shared+crop", "overlay", "crop", "cutout"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_asks_the_papers_question(layout: Shown) -> None:
    assert template(RegionPrompt(layout=layout)) == PAPER


@pytest.mark.parametrize("category", ["dog", *HOSTILE])
def test_the_category_is_put_in_as_it_is(category: str) -> None:
    asked = question(PAPER, category, "none")
    assert asked == PAPER[: PAPER.index("{")] + category + "? Please answer yes or no."


def test_with_an_article() -> None:
    assert question(PAPER, "umbrella", "indefinite").endswith("in the image an umbrella? Please answer yes or no.")


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("hour hand", "an hour hand"),
        ("unicorn", "a unicorn"),
        ("european flag", "a european flag"),
        ("one-way sign", "a one-way sign"),
        ("x-ray", "an x-ray"),
        ("wine glass", "wine glass"),
        ("glass of wine", "glass of wine"),
        ("green grass", "green grass"),
        ("water", "water"),
        ("water bottle", "a water bottle"),
        ("scissors", "scissors"),
        ("sunglasses", "sunglasses"),
        ("people", "people"),
        ("bus", "a bus"),
        ("dress", "a dress"),
        ("iris", "an iris"),
        ("8 ball", "8 ball"),
        ("<script>", "<script>"),
        ("", ""),
    ],
)
def test_articles(category: str, expected: str) -> None:
    assert with_article(category) == expected
