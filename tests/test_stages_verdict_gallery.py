"""The page of verdicts: what stands beside what, in which order, and that nothing on it can become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sa1b_shards import commit
from test_pipeline_gallery import Reader
from verified_runs import TEXT, answer, check, commit_pairs, dogs_and_cups, masks, pair, request, tail

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import verdict_gallery

HOSTILE = ["<script>alert(1)</script>", '" onclick="alert(1)', "x" * 200, "cat\u202egpj", "</bdi></section>"]


class Sections(HTMLParser):
    """By section: its heading, and the masks of each column."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.page = run.folder.read(verdict_gallery.FILE).decode()
        self.found: list[tuple[str, list[list[int]]]] = []
        self._heading = self._title = False
        self.feed(self.page.partition("<main>")[2].partition("</main>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.found.append(("", []))
            self._title = True
        elif ("class", "column") in attrs:
            self.found[-1][1].append([])
            self._title = False

    def handle_data(self, data: str) -> None:
        if self._title:
            heading, columns = self.found[-1]
            self.found[-1] = (heading + data, columns)
        elif found := re.fullmatch(r"(\d+) of sa_\d+", data):
            self.found[-1][1][-1].append(int(found[1]))


@pytest.fixture
def ids(run: Run, tmp_path: Path) -> list[int]:
    return masks(run, tmp_path)


def test_kept_and_dropped_side_by_side_worst_first(run: Run, ids: list[int]) -> None:
    dogs_and_cups(run, ids)
    assert verdict_gallery.write(run, 500, 0) == (f"{run.folder.uri}/verdicts.html", 12, 12)
    (dog, dogs), (cup, cups) = Sections(run).found
    assert dog == "dog dropped: 4 of 6, 66.7 % (22.3–95.7) · false yes: 1 of 2, 50.0 % (1.3–98.7)"
    assert cup == "cup dropped: 1 of 4, 25.0 % (0.6–80.6)"
    assert dogs == [[ids[3], ids[4], ids[2], ids[9]], [ids[1], ids[0]], [ids[5], ids[6]]]
    assert cups == [[ids[8]], [ids[7], ids[6], ids[5]], []]


def test_a_card_tells_all_of_an_answer(run: Run, ids: list[int]) -> None:
    dogs_and_cups(run, ids)
    verdict_gallery.write(run, 500, 0)
    page = re.sub(r"<[^>]*>", "", Sections(run).page.replace("</dt>", " ").replace("</dd>", "; "))
    flat = " ".join(page.split())
    assert (
        f"asked dog; score 0.404; threshold 0.500; p_yes 0.400; p_no 0.590; leftover 0.010; reason no; answer no.; "
        f"mask {ids[3]} of sa_1001;"
    ) in flat
    assert "asked dog; threshold 0.500; probabilities none, only text; reason unclear; answer I cannot tell.;" in flat
    assert "control: a false yes" in flat
    assert "asked dog; really cup; kind sibling; score 0.700; threshold 0.500;" in flat
    assert "read as no; answer No, a cup.;" in flat
    assert "embedded" not in flat


def test_counts_are_of_the_whole_table(run: Run, ids: list[int]) -> None:
    dogs_and_cups(run, ids)
    verdict_gallery.write(run, 1, 0)
    page = Sections(run).page
    for group, count in (("dropped", 5), ("kept", 5), ("control: said yes", 1), ("control: said no", 1)):
        assert f"<bdi>{group}</bdi> <small>{count}<span>" in page
    assert "kept in the tail, whatever was said</dt><dd><bdi>1</bdi>" in page
    assert "control: unclear</bdi>" not in page
    assert "7 of 12 answers, chosen by hash (seed 0); from 1 of 2 categories" in page


def test_rare_groups_get_a_share_and_the_worst_categories_a_place(run: Run, ids: list[int]) -> None:
    many = [pair(10_000 + k, f"thing {k % 20}", answer(0.9, 0.1), "yes") for k in range(400)]
    bad = [pair(20_000 + k, "thing 7", answer(0.2, 0.8), "no") for k in range(30)]
    commit_pairs(run, *many, *bad)
    commit(run, checks=[check(10_000, "control", "thing 3", answer(0.8, 0.2), "yes")])
    page = verdict_gallery.write(run, 80, 0)
    sections = {heading.split(" dropped")[0]: [len(column) for column in rows] for heading, rows in Sections(run).found}
    assert len(sections) == 5  # 80 regions, 16 to a category
    assert sections["thing 7"] == [6, 6, 0]
    assert sections["thing 3"] == [0, 6, 1]
    assert next(iter(sections)) == "thing 7"
    assert page[1:] == (6 * 6 + 1, 431)
    first = Sections(run).page
    verdict_gallery.write(run, 80, 0)
    assert Sections(run).page == first
    verdict_gallery.write(run, 80, 1)
    assert Sections(run).page != first


def test_hostile_names_stay_texts(run: Run, ids: list[int]) -> None:
    commit_pairs(run, *(pair(ids[k], name, answer(0.9, 0.1), "yes", raw=name) for k, name in enumerate(HOSTILE)))
    commit(
        run,
        checks=[check(ids[5], "control", HOSTILE[0], answer(0.9, 0.1), "yes", raw=HOSTILE[1])],
        requests=[request(ids[5], HOSTILE[0], HOSTILE[4], "sibling")],
    )
    verdict_gallery.write(run, 500, 0)
    page = Sections(run).page
    reader = Reader(page)
    assert len(reader.named("script")) == 1
    assert not any("onclick" in attributes for _, attributes in reader.elements)
    assert {*HOSTILE[:3], "cat⟨U+202E⟩gpj", HOSTILE[4]} <= set(reader.texts["bdi"])
    assert len(reader.named("section")) == 5


def test_a_stand_in_is_labelled(run: Run, ids: list[int]) -> None:
    commit_pairs(run, pair(ids[0], "dog", answer(0.9, 0.1), "yes", engine="embedded"))
    commit(run, checks=[check(ids[1], "control", "dog", answer(0.9, 0.1), "yes", engine="embedded")])
    verdict_gallery.write(run, 500, 0)
    page = Sections(run).page
    assert page.count("embedded (not a VLM)") == 2
    assert "embedded (not a VLM) · control: a false yes" in page


def test_text_alone_and_everything_dropped(run: Run, ids: list[int]) -> None:
    commit_pairs(run, *(pair(mask, "dog", TEXT, "no") for mask in ids[:3]))
    assert verdict_gallery.write(run, 500, 0)[1:] == (3, 3)
    page = Sections(run).page
    assert page.count("none, only text") == 3
    assert page.count("<bdi>0.000</bdi>") == 3  # the score: the answer's words are all there is


def test_pictures_that_cannot_be_made_have_a_reason(run: Run, ids: list[int], tmp_path: Path) -> None:
    commit_pairs(run, *(pair(mask, "dog", answer(0.9, 0.1), "yes") for mask in (ids[0], 5)))
    next(tmp_path.glob("*.tar")).unlink()
    verdict_gallery.write(run, 500, 0)
    page = Sections(run).page
    assert "No picture of sa_1001 in sa_000001: " in page
    assert "No picture: the table masks no longer has this mask." in page


def test_answers_and_plans_that_are_gone_are_said_to_be(run: Run, ids: list[int]) -> None:
    _, verdict = pair(ids[0], "dog", answer(0.9, 0.1), "yes")
    commit(run, verdicts=[verdict], checks=[check(ids[1], "control", "dog", answer(0.1, 0.9), "no")])
    verdict_gallery.write(run, 500, 0)
    page = Sections(run).page
    assert page.count("no longer there") == 1
    assert page.count("<bdi>not known</bdi>") == 2


def test_no_verdicts_yet(run: Run, ids: list[int]) -> None:
    with pytest.raises(UsageError, match="Make them first: rr7k stage-2"):
        verdict_gallery.write(run, 500, 0)


def test_nothing_but_a_tail(run: Run, ids: list[int]) -> None:
    commit(run, verdicts=[tail(ids[0], "emu")])
    assert verdict_gallery.write(run, 500, 0)[1:] == (0, 0)
    assert Sections(run).found == []
