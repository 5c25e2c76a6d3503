"""The reviewed tables merge what they say, and refuse what they cannot mean."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import categories
from pipeline.adjectives import Adjectives
from pipeline.categories import Accepted, Categories
from pipeline.errors import UsageError

MANIFESTS = Path(__file__).parent.parent / "data_manifests"
HEADER = "variant,canonical,reason,reviewed_by,reviewed_on\n"
ACCEPTED = "category,accepted,kind,reviewed_by,reviewed_on\n"
ALL = Adjectives(colours=True, numbers=True, materials=True)
MERGES = {"seedpod": "seed pod", "red panda": "red panda", "seagull": "gull", "glass": "glass", "oat": "oats"}


def table(folder: Path, text: str) -> Path:
    path = folder / "categories.csv"
    path.write_bytes(text.encode())
    return path


def row(variant: str, canonical: str) -> str:
    return f"{variant},{canonical},spelling,ab,2026-11-24\n"


@pytest.mark.parametrize(
    ("name", "plain", "stripped"),
    [
        pytest.param("", "", "", id="empty"),
        pytest.param("Dogs", "dog", "dog", id="rules"),
        pytest.param("Seedpod", "seed pod", "seed pod", id="table"),
        pytest.param("seedpods", "seed pod", "seed pod", id="singular-then-table"),
        pytest.param("the seedpods", "seed pod", "seed pod", id="article"),
        pytest.param("a", "a", "a", id="article-alone"),
        pytest.param("an the dog", "dog", "dog", id="two-articles"),
        pytest.param("red cars", "red car", "car", id="colour"),
        pytest.param("the two red wooden chairs", "two red wooden chair", "chair", id="all-three"),
        pytest.param("red pandas", "red panda", "red panda", id="kept-by-the-table"),
        pytest.param("a big red panda", "big red panda", "big red panda", id="inner-adjective"),
        pytest.param("orange", "orange", "orange", id="adjective-alone"),
        pytest.param("oats", "oats", "oats", id="canonical-plural"),
        pytest.param("oat", "oats", "oats", id="to-a-plural"),
        pytest.param("glasses", "glasses", "glasses", id="homograph"),
        pytest.param("aquatic vegetation", "aquatic vegetation", "aquatic vegetation", id="synonyms-stay-apart"),
    ],
)
def test_canonical(name: str, plain: str, stripped: str) -> None:
    assert Categories(MERGES).canonical(name) == plain
    assert Categories(MERGES, ALL).canonical(name) == stripped


WORDS = [
    "a",
    "the",
    "red",
    "two",
    "wooden",
    "dogs",
    "leaves",
    "glasses",
    "seedpods",
    "red panda",
    "panda",
    "oat",
    "X-",
    "",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)), st.booleans())
def test_twice_is_once(name: str, strip: bool) -> None:
    found = Categories(MERGES, ALL if strip else Adjectives())
    once = found.canonical(name)
    assert found.canonical(once) == once


@pytest.mark.parametrize("text", [HEADER + row("seedpod", "seed pod") + "\n" + row("dax", "dax")])
@pytest.mark.parametrize("change", [str, lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t[:-1]])
def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path: Path, text: str, change: "type[str]") -> None:
    assert categories.load(table(tmp_path, change(text))).merges == {"seedpod": "seed pod", "dax": "dax"}


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    text = "canonical,reviewed_on,variant,reviewed_by,reason\nb,2026-11-24,x b,ab,because\n"
    assert categories.load(table(tmp_path, text)).merges == {"x b": "b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "line 1: columns: missing 'variant', 'canonical', 'reason', ", id="empty"),
        pytest.param(HEADER.replace("reason", "why"), "line 1: columns: missing 'reason'; unknown 'why'", id="column"),
        pytest.param(HEADER.strip() + ",reason\n", "line 1: columns: repeated 'reason'", id="column-twice"),
        pytest.param(HEADER + row("x", "y") + row("x", "z"), "line 3: variant 'x' again; it is on line 2", id="twice"),
        pytest.param(HEADER + row("x", "y") + row("y", "x"), "line 2: cycle: x → y → x; choose one", id="cycle"),
        pytest.param(HEADER + row("x", "y") + row("y", "z"), "line 2: canonical 'y' is a variant itself", id="chain"),
        pytest.param(HEADER + "x,,spelling,ab,2026-11-24\n", "line 2: canonical is empty", id="empty-cell"),
        pytest.param(HEADER + "x,y,spelling,ab\n", "line 2: 4 cells where the header has 5", id="cells"),
        pytest.param(HEADER + row("X", "y"), "line 2: variant 'X' is not in normal form; write 'x'", id="variant-form"),
        pytest.param(HEADER + row("x", "y_z"), "line 2: canonical 'y_z' is not in normal form", id="canonical-form"),
        pytest.param(HEADER + row("x", "dogs"), "line 2: 'dogs' would become 'dog'", id="plural"),
        pytest.param(HEADER + row("x", "the dog"), "line 2: 'the dog' would become 'dog'", id="article"),
        pytest.param(HEADER + "x,y,spelling,ab,24.11.2026\n", "line 2: reviewed_on '24.11.2026' is no date", id="date"),
        pytest.param(HEADER + '"x,y,spelling,ab,2026-11-24\n', "line 2: unexpected end of data", id="quote"),
        pytest.param("\ufeff" + HEADER.strip() + "\r\n\r\nx,,s,ab,2026-11-24", "line 3: canonical is empty", id="crlf"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_by_line(tmp_path: Path, text: str, expected: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        categories.load(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_all_mistakes_are_listed_in_order_and_many_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + row("x", "") + row("", "y") + row("z", "") * 20)
    with pytest.raises(UsageError) as caught:
        categories.load(path)
    lines = str(caught.value).splitlines()
    assert lines[:2] == [f"{path}: line 2: canonical is empty", f"{path}: line 3: variant is empty"]
    assert lines[20:] == [f"{path}: and 21 more"]


def test_bytes_that_are_no_text_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "categories.csv"
    path.write_bytes(HEADER.encode() + b"caf\xe9,cafe\n")
    with pytest.raises(UsageError, match="line 2: not UTF-8"):
        categories.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        categories.load(tmp_path / "none.csv")


def test_the_fingerprint_follows_what_decides(tmp_path: Path) -> None:
    one = categories.load(table(tmp_path, HEADER + row("x", "y") + row("z", "y")))
    same = categories.load(table(tmp_path, HEADER + row("z", "y").replace("ab", "cd") + row("x", "y")))
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != Categories({"x": "y"}).fingerprint
    assert one.fingerprint != Categories(one.merges, Adjectives(colours=True)).fingerprint


def test_accepted_names(tmp_path: Path) -> None:
    text = ACCEPTED + "gull,seagull,alias,ab,2026-11-24\ngull,bird,hypernym,ab,2026-11-24\n"
    accepted = categories.load_accepted(table(tmp_path, text), Categories({}))
    assert accepted == {"gull": [Accepted("seagull", "alias"), Accepted("bird", "hypernym")]}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(["gull,bird,parent"], "line 2: kind 'parent' is none of alias, hypernym", id="kind"),
        pytest.param(["gull,bird,alias"] * 2, "line 3: 'bird' for 'gull' again; it is on line 2", id="twice"),
        pytest.param(["gull,gull,alias"], "line 2: 'gull' is the category itself", id="itself"),
        pytest.param(["seagull,bird,alias"], "line 2: 'seagull' would become 'gull'", id="no-category"),
        pytest.param(["gull,Bird,alias"], "line 2: accepted 'Bird' is not in normal form", id="form"),
        pytest.param(["gull,,alias"], "line 2: accepted is empty", id="empty"),
    ],
)
def test_wrong_accepted_names_are_refused_by_line(tmp_path: Path, rows: list[str], expected: str) -> None:
    path = table(tmp_path, ACCEPTED + "".join(f"{row},ab,2026-11-24\n" for row in rows))
    with pytest.raises(UsageError) as caught:
        categories.load_accepted(path, Categories(MERGES))
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_the_shipped_tables_are_right() -> None:
    found = categories.load(MANIFESTS / "categories.csv")
    assert found.canonical("Seedpods") == "seed pod"
    assert found.canonical("seagull") == "seagull"  # a synonym: for people to decide
    assert "gull" in categories.load_accepted(MANIFESTS / "accepted_names.csv", found)
