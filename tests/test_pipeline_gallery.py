"""A page of cards: nothing that a card says can become markup, code or a request."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pipeline import gallery
from pipeline.gallery import Card, Page, Picture

NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" autofocus onfocus="alert(1)',
    "</bdi></title></style><!-- <![CDATA[",
    "${title} $script_hash",
    "👩‍🚀 astronaut",
    "كلب",
]
MASK = np.zeros((20, 30), np.bool_)
MASK[5:15, 10:20] = True


class Reader(HTMLParser):
    """Collects the elements of a page, and complains of any that is not closed."""

    void = frozenset({"meta", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def shown() -> Picture:
    return gallery.picture(Image.new("RGB", (30, 20), "green"), gallery.outlined(MASK))


def page(*texts: str) -> str:
    about = Page(texts[0], [(text, text) for text in texts], dict.fromkeys(texts, 2), dict.fromkeys(texts, 7))
    cards = [Card(text, text, shown(), [(text, text)], text) for text in texts]
    return gallery.html(about, [*cards, *(Card("", text, text, []) for text in texts)])


def test_texts_stay_texts() -> None:
    plain, nasty = Reader(page(*["plain"] * len(NASTY))), Reader(page(*NASTY))
    assert {tag for tag, _ in plain.elements} == {tag for tag, _ in nasty.elements}
    names = {name for _, attributes in nasty.elements for name in attributes}
    assert names == {name for _, attributes in plain.elements for name in attributes}
    assert set(NASTY) <= set(nasty.texts["bdi"])
    assert [card["data-heading"] for card in nasty.named("article")] == NASTY + [""] * len(NASTY)


def test_what_cannot_be_seen_is_shown() -> None:
    texts = Reader(page("cat\u202egpj.exe", "a\x00b\x1b[31m\x9f\ufeff", "\u2066x\u2069")).texts["bdi"]
    assert {"cat⟨U+202E⟩gpj.exe", "a⟨U+0000⟩b⟨U+001B⟩[31m⟨U+009F⟩⟨U+FEFF⟩", "⟨U+2066⟩x⟨U+2069⟩"} <= set(texts)


def test_long_texts_are_cut() -> None:
    text = page("x" * 10_000)
    assert "and 8,000 more characters" in text
    assert "x" * 2001 not in text


def test_the_policy_allows_our_script_alone() -> None:
    text = page(*NASTY)
    scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    policy = next(m["content"] for m in Reader(text).named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.count("unsafe") == 1


def test_nothing_is_loaded() -> None:
    text = page("dog")
    assert not re.search("https?:|url\\(|@import|fetch\\(|import\\(", text)
    assert not {tag for tag, _ in Reader(text).elements} & {"link", "iframe", "object", "embed", "base", "form", "a"}
    assert all((image["src"] or "").startswith("data:image/") for image in Reader(text).named("img"))


def test_pictures_lie_over_each_other() -> None:
    images = Reader(page("dog")).named("img")
    assert [(image["loading"], image["decoding"]) for image in images] == [("lazy", "async")] * 2
    clean, overlay = (
        Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2]))) for image in images
    )
    assert (clean.format, clean.size) == ("JPEG", (30, 20))
    assert (overlay.format, overlay.size) == ("PNG", (30, 20))


@pytest.mark.parametrize(
    ("x", "y", "colour"),
    [
        (15, 10, (0, 0, 0, 0)),  # the region itself stays free
        (10, 5, (0, 0, 0, 0)),
        (9, 10, (255, 0, 0, 255)),  # red outside
        (7, 10, (255, 0, 0, 255)),
        (6, 10, (255, 255, 255, 255)),  # white around the red
        (5, 10, (0, 0, 0, 0)),
    ],
)
def test_the_outline_hides_nothing_of_the_region(x: int, y: int, colour: tuple[int, ...]) -> None:
    overlay = Image.open(io.BytesIO(shown().overlay)).convert("RGBA")
    found = overlay.getpixel((x, y))
    assert found == colour or (colour[3] == 0 and isinstance(found, tuple) and found[3] == 0)


def test_buttons_count_the_table_and_the_cards() -> None:
    about = Page("t", [], {"named": 1200}, {"dog": 30, "cat": 15, "emu": 1})
    card = Card("dog", "named", "gone", [])
    text = gallery.html(about, [card, card._replace(heading="cat"), card])
    buttons = {b["value"]: b for b in Reader(text).named("button") if "value" in b}
    assert list(buttons) == ["named", "dog", "cat", "emu"]
    assert "disabled" in buttons["emu"]
    assert "disabled" not in buttons["cat"]
    assert buttons["cat"]["style"] == "--share: 0.500"
    assert "1,200<span> · 3 here</span>" in text


def test_a_page_without_cards() -> None:
    assert not Reader(gallery.html(Page("empty", [], {}, {}), [])).named("article")
