"""Two spellings of one name become one category, and a category stays as it is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labels import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("dog", "dog", id="nothing-to-do"),
        pytest.param("  Traffic \t\r\n Light ", "traffic light", id="case-and-space"),
        pytest.param("traffic_light", "traffic light", id="underscore"),
        pytest.param("t-shirt", "t-shirt", id="hyphen"),
        pytest.param("t‑shirt", "t-shirt", id="unbreakable-hyphen"),
        pytest.param("child’s toy", "child's toy", id="typographic-apostrophe"),
        pytest.param("child´s toy", "child's toy", id="acute-accent-as-apostrophe"),
        pytest.param("“Dog”", "dog", id="curly-quotes"),
        pytest.param("«chien».", "chien", id="guillemets"),
        pytest.param("'dog'!?", "dog", id="quotes-then-marks"),
        pytest.param("- dog", "dog", id="leading-dash"),
        pytest.param("7-Eleven sign", "7-eleven sign", id="digits"),
        pytest.param("$100 bill", "$100 bill", id="currency"),
        pytest.param("cat (animal)", "cat (animal)", id="brackets-pair-up"),
        pytest.param("bottle: cap", "bottle: cap", id="colon-inside"),
        pytest.param("ｄｏｇ", "dog", id="full-width"),
        pytest.param("ﬁre hydrant", "fire hydrant", id="ligature"),
        pytest.param("cafe\u0301", "café", id="composed"),
        pytest.param("do\u200bg\u00ad\ufeff", "dog", id="zero-width"),
        pytest.param("cafe\u200b\u0301", "café", id="zero-width-before-an-accent"),
        pytest.param("\u202edog\u202c\u200f", "dog", id="bidi"),
        pytest.param("dog\x00\x1b\x7f", "dog", id="control"),
        pytest.param("dog\ud800\ue000\uffff", "dog", id="not-characters"),
        pytest.param("\u3164dog\u115f", "dog", id="letters-that-show-nothing"),
        pytest.param("🐶 dog 👍🏽", "dog", id="emoji"),
        pytest.param("guide🐕‍🦺dog", "guide dog", id="emoji-between-words"),
        pytest.param("Coca-Cola™ can", "coca-cola can", id="trade-mark"),
        pytest.param("Собака", "собака", id="cyrillic"),
        pytest.param("犬。", "犬", id="japanese"),
        pytest.param("Straße", "strasse", id="casefold-not-lower"),
        pytest.param("İğne", "i̇ğne", id="dotted-i"),
        pytest.param("<b>dog</b>", "<b>dog</b>", id="markup-is-text"),
        pytest.param("“—…”", "", id="punctuation-only"),
        pytest.param("", "", id="empty"),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_the_normal_form_is_normal(text: str) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    assert normal == " ".join(normal.split())
    assert "C" not in {unicodedata.category(char)[0] for char in normal}


@given(st.from_regex("[a-z0-9]+([ '-][a-z0-9]+)*", fullmatch=True))
def test_a_plain_name_is_normal_and_so_is_its_shout(name: str) -> None:
    assert normalise(name) == normalise(f" {name.upper()}!") == name


def test_every_character_inside_a_word_has_a_normal_form() -> None:
    for char in map(chr, range(0x3000)):
        normal = normalise(f"a{char}\u0301b")
        assert normalise(normal) == normal, ascii(char)
