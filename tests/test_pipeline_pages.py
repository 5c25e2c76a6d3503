"""Templates of pages: what they share is put in, their one script is named in the policy, and text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from pipeline import pages

ROOT = Path(__file__).parent.parent
TEMPLATES = [*ROOT.glob("benchmark/templates/*.html"), *ROOT.glob("pipeline/*.html"), *ROOT.glob("stages/*.html")]


def test_shared_files_are_put_in_and_the_script_is_named() -> None:
    made = pages.filled("{{head.html}}<script>\n{{table.js}}\n</script>$more", title="t", more="<b>{{base.css}} $x</b>")
    (script,) = re.findall(r"<script>(.*)</script>", made, re.DOTALL)
    assert script.strip() == (ROOT / "pipeline" / "page" / "table.js").read_text().strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in made
    assert made.endswith("<b>{{base.css}} $x</b>")  # what is put in is not looked at again


def test_pictures_may_lie_beside_a_page() -> None:
    assert "img-src data: 'self' file:;" in pages.filled("{{head.html}}", beside=True, title="t")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_template_takes_what_it_shares(template: Path) -> None:
    text = template.read_text()
    parts = dict.fromkeys(re.findall(r"\$([a-z_]+)", text), "") | {"title": "t"}
    made = pages.filled(text, beside=False, **{name: part for name, part in parts.items() if name != "script_hash"})
    assert made.startswith("<!DOCTYPE html>")
    assert "{{" not in made
    assert "$" not in made


def test_a_place_that_gets_nothing_is_an_error() -> None:
    with pytest.raises(KeyError, match="more"):
        pages.filled("$more")


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("", ""),
        ('<a href="x">', "&lt;a href=&quot;x&quot;&gt;"),
        ("dog\u202egod", "dog⟨U+202E⟩god"),
        ("two\nlines", "two\nlines"),
        ("x" * 2001, "x" * 2000 + " … and 1 more characters"),
    ],
)
def test_text_stays_text(text: str, markup: str) -> None:
    assert pages.escaped(text) == markup


def test_terms_are_a_list() -> None:
    assert pages.terms([("a", "<b>")]) == "<div><dt>a</dt><dd><bdi>&lt;b&gt;</bdi></dd></div>"
