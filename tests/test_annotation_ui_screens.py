"""What is sent for a page: each value in its place, and nothing in it that a browser would take for more than text."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from label_studio_hostile import HOSTILE

from annotation_ui import screens
from annotation_ui.screens import KEYS, Page, Tile

CUP = Tile("11", "cup", "cup 1.jpg", "raw/cup 1.jpg")


class Elements(HTMLParser):
    """The elements of a tile's HTML, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(*tiles: Tile, **other: Any) -> Page:
    facts = {"title": "cup", "group": "tableware", "gloss": "to drink from", "neighbours": ("mug", "glass")} | other
    return Page(page_id="p1", tiles=tiles, **facts)


def test_a_page() -> None:
    picture = (
        '<img class="marked" src="/data/local-files/?d=crops/cup%201.jpg" alt="image missing">'
        '<img class="raw" loading="lazy" src="/data/local-files/?d=crops/raw/cup%201.jpg" alt="">'
        '<b title="cup"><bdi>cup</bdi></b>'
    )
    assert screens.page_task(page(CUP)) == {
        "data": {
            "page_id": "p1",
            "names": {"11": "cup"},
            "title": "cup",
            "gloss": "to drink from",
            "place": "tableware · near: mug, glass",
            "wrong": [{"value": "11", "hotkey": "1", "html": picture}],
            "private": [{"value": "11", "hotkey": "alt+1", "html": "<i>P</i><em>private</em>"}],
            "unsure": [{"value": "11", "hotkey": "shift+1", "html": "<i>?</i><em>unsure</em>"}],
        },
        "meta": {"page_id": "p1"},
    }


def test_a_single_tile() -> None:
    picture = (
        '<img class="marked" src="/data/local-files/?d=crops/cup%201.jpg" alt="image missing">'
        '<img class="raw" loading="lazy" src="/data/local-files/?d=crops/raw/cup%201.jpg" alt="">'
    )
    assert screens.single_task(page(CUP, neighbours=())) == {
        "data": {
            "page_id": "p1",
            "names": {"11": "cup"},
            "title": "cup",
            "gloss": "to drink from",
            "place": "tableware",
            "uid": "11",
            "picture": picture,
            "clean": [{"value": "without the mark", "hotkey": "5"}],
        },
        "meta": {"page_id": "p1"},
    }


def test_which_page_of_how_many_stands_first() -> None:
    assert screens.page_task(page(CUP, position="page 3 of 35"))["data"]["place"].startswith("page 3 of 35 · tableware")


def test_the_pictures_of_the_next_page_are_fetched_with_the_last_tile() -> None:
    plate = CUP._replace(uid="12", crop="plate.jpg")
    following = page(plate, plate._replace(uid="13", crop="bowl.jpg"))
    alone, ahead = (screens.page_task(page(CUP, plate), after)["data"] for after in (None, following))
    assert ahead["wrong"][0] == alone["wrong"][0]
    assert ahead["wrong"][1]["html"].removeprefix(alone["wrong"][1]["html"]) == (
        '<img class="next" fetchpriority="low" src="/data/local-files/?d=crops/plate.jpg" alt="">'
        '<img class="next" fetchpriority="low" src="/data/local-files/?d=crops/bowl.jpg" alt="">'
    )
    with pytest.raises(ValueError, match="page p1: "):
        screens.page_task(page(CUP), page(CUP._replace(crop="../secret.jpg")))


def test_every_tile_has_a_key_of_its_own() -> None:
    data = screens.page_task(page(*(CUP._replace(uid=str(n)) for n in range(24))))["data"]
    assert [item["hotkey"] for item in data["wrong"]] == list(KEYS)
    hotkeys = [item["hotkey"] for name in ("wrong", "private", "unsure") for item in data[name]]
    assert len(set(hotkeys)) == 72


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(name: str) -> None:
    elements = Elements(screens.page_task(page(CUP._replace(category=name)))["data"]["wrong"][0]["html"])
    assert [tag for tag, _ in elements.tags] == ["img", "img", "b", "bdi"]
    assert [set(attributes) for _, attributes in elements.tags] == [
        {"class", "src", "alt"},
        {"class", "loading", "src", "alt"},
        {"title"},
        set(),
    ]
    assert elements.text == name


def test_what_cannot_be_seen_is_shown_and_long_texts_are_cut() -> None:
    data = screens.page_task(
        page(CUP, title="cup\u202egnp\x00\ud800", gloss="x" * 300, group="\U0001f469\u200d\U0001f680")
    )
    assert data["data"]["title"] == "cup⟨U+202E⟩gnp⟨U+0000⟩⟨U+D800⟩"
    assert data["data"]["gloss"] == "x" * 200 + "…"
    assert data["data"]["place"].startswith("\U0001f469\u200d\U0001f680 · ")  # a joiner makes one picture of two


@pytest.mark.parametrize(
    ("tiles", "told"),
    [
        ([], "1 to 24 tiles expected, 0 found"),
        ([CUP._replace(uid=str(n)) for n in range(25)], "1 to 24 tiles expected, 25 found"),
        ([CUP, CUP], "a uid is there twice"),
        ([CUP._replace(uid="$title")], "'$title' is no uid"),
        ([CUP._replace(uid="")], "'' is no uid"),
        ([CUP._replace(uid="1\n")], "is no uid"),
        ([CUP._replace(crop="../secret.jpg")], "'../secret.jpg' is no .jpg below the served folder"),
        ([CUP._replace(raw="/etc/x.jpg")], "'/etc/x.jpg' is no .jpg"),
        ([CUP._replace(raw="x.svg")], "'x.svg' is no .jpg"),
    ],
)
def test_a_page_that_cannot_be_shown(tiles: list[Tile], told: str) -> None:
    with pytest.raises(ValueError, match=f"page p1: .*{re.escape(told)}"):
        screens.page_task(page(*tiles))


def test_the_single_view_takes_one_tile() -> None:
    with pytest.raises(ValueError, match="1 to 1 tiles expected, 2 found"):
        screens.single_task(page(CUP, CUP._replace(uid="12")))


@pytest.mark.parametrize(("view", "build"), [("page_view", screens.page_task), ("single_view", screens.single_task)])
def test_a_view_shows_what_a_task_holds(view: str, build: Any) -> None:
    """Every field that the configuration names is there, and every list is about the object `page`."""
    config = ElementTree.fromstring(screens.label_config(view))
    named = {v[1:] for e in config.iter() for v in e.attrib.values() if v.startswith("$")}
    assert named <= build(page(CUP))["data"].keys()
    assert {e.get("toName") for e in config.iter("Choices")} == {"page"}
    assert [e.get("name") for e in config.iter() if e.tag in ("Text", "HyperText")] == ["page"]


def test_the_guideline_is_html_on_one_line() -> None:
    html = screens.guideline()
    assert "\n" not in html
    assert "<h2>Tick it when</h2>" in html
    assert "<table>" in html
