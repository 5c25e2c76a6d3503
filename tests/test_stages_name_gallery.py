"""The page of a run's names: which are shown, and what stands where a picture cannot."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sa1b_shards import build, rows, write_shard

from pipeline import tables
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import name_gallery
from stages.naming_settings import STEP

NAME = {
    "namer": "vlm",
    "outcome": "named",
    "category": "red tower",
    "raw": "A red tower.",
    "logprob": -0.5,
    "prompt_tokens": None,
    "cached_tokens": None,
    "generated_tokens": None,
    "seconds": None,
    "engine": "vllm",
    "model": "some-model",
    "revision": "",
    "layout": "shared+crop",
    "prompt": "p",
    "fingerprint": 1,
}
NAMELESS = {"category": None, "logprob": None}


class Cards(HTMLParser):
    """The attributes and texts of each card."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.page = run.folder.read(name_gallery.FILE).decode()
        self.attributes: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.pictures: list[int] = []
        self.feed(self.page.partition("<main>")[2].partition("</main>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self.attributes.append(dict(attrs))
            self.texts.append("")
            self.pictures.append(0)
        self.pictures[-1] += tag == "img"

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += f"{data} "


@pytest.fixture
def masks(run: Run, tmp_path: Path) -> list[dict[str, Any]]:
    """Two shards of 20 images, three masks each."""
    build(run, *(write_shard(tmp_path, number, 20) for number in (1, 2)))
    return rows(run)


def name(run: Run, masks: list[dict[str, Any]], **changes: Any) -> None:
    """Give the masks names, as a further commit."""
    key = f"{len(run.commits(STEP)):08d}"
    made = [{**NAME, "mask_id": mask["mask_id"], "image_id": mask["image_id"], **changes} for mask in masks]
    with run.part(STEP, "names", key) as part:
        part.write(tables.from_rows("names", made))
    run.commit(STEP, key, {"names": part}, fingerprint="f", counts={}, facts={})


def shown_ids(run: Run) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+) of sa_\d+", " ".join(Cards(run).texts))]


def test_a_card_tells_what_was_said(run: Run, masks: list[dict[str, Any]]) -> None:
    name(run, masks[:1])
    assert name_gallery.write(run, 500, 0) == (f"{run.folder.uri}/names.html", 1, 1)
    cards = Cards(run)
    assert cards.attributes == [{"data-group": "named", "data-heading": "red tower"}]
    assert cards.pictures == [2]
    for said in ("red tower", "A red tower.", "0.61", "some-model · shared+crop", f"{masks[0]['mask_id']} of sa_"):
        assert said in cards.texts[0]
    assert "embedded" not in cards.texts[0]


def test_the_embedded_engine_is_labelled(run: Run, masks: list[dict[str, Any]]) -> None:
    name(run, masks[:3], engine="embedded", model="embedded", layout="cutout")
    name_gallery.write(run, 500, 0)
    assert [text.count("embedded (not a VLM)") for text in Cards(run).texts] == [1, 1, 1]


def test_an_answer_about_several_regions_says_so(run: Run, masks: list[dict[str, Any]]) -> None:
    name(run, masks[:1], layout="marks", raw='{"1": "red tower"}', outcome="missing", **NAMELESS)
    name_gallery.write(run, 500, 0)
    assert "answer about several regions" in Cards(run).texts[0]
    assert "probability" not in Cards(run).texts[0]


def test_every_outcome_gets_a_share(run: Run, masks: list[dict[str, Any]]) -> None:
    name(run, masks[:112])
    name(run, masks[112:118], outcome="abstained", **NAMELESS)
    name(run, masks[118:], outcome="sentence", **NAMELESS)
    assert name_gallery.write(run, 24, 0)[1:] == (24, 120)
    outcomes = Counter(card["data-group"] for card in Cards(run).attributes)
    assert outcomes["sentence"] == 2
    assert outcomes["abstained"] >= 2
    assert sum(outcomes.values()) == 24
    page = Cards(run).page
    for said in ("24 of 120, chosen by hash", "at least 2", "112<span>", "6<span>"):
        assert said in page


def test_fewer_samples_than_outcomes(run: Run, masks: list[dict[str, Any]]) -> None:
    for place, outcome in enumerate(("named", "abstained", "sentence")):
        name(run, masks[place : place + 1], outcome=outcome)
    assert name_gallery.write(run, 2, 0)[1:] == (2, 3)


def test_the_sample_depends_on_ids_and_seed_alone(run: Run, masks: list[dict[str, Any]], tmp_path: Path) -> None:
    name(run, masks)
    name_gallery.write(run, 10, 0)
    first, page = shown_ids(run), Cards(run).page
    other = Run(str(tmp_path / "other" / "run"))
    build(other, tmp_path)
    name(other, masks[50:][::-1])
    name(other, masks[:50])
    name_gallery.write(other, 10, 0)
    assert Cards(other).page == page
    name_gallery.write(run, 20, 0)
    assert set(first) < set(shown_ids(run))
    name_gallery.write(run, 10, 1)
    assert set(first) != set(shown_ids(run))


def test_counts_are_of_the_whole_table(run: Run, masks: list[dict[str, Any]]) -> None:
    for place in range(40):
        name(run, masks[place : place + 1], category=f"thing {place}")
    name(run, masks[40:], category="dog")
    name_gallery.write(run, 5, 0)
    page = Cards(run).page
    assert "<bdi>dog</bdi> <small>80<span>" in page
    assert page.partition("</aside>")[0].partition("<aside>")[2].count("<li>") == 30


def test_pictures_that_cannot_be_made_have_a_reason(run: Run, masks: list[dict[str, Any]], tmp_path: Path) -> None:
    name(run, masks)
    shards = sorted(tmp_path.glob("*.tar"))
    shards[0].unlink()
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[: len(data) // 2])
    name_gallery.write(run, 500, 0)
    cards = Cards(run)
    reasons = [text for text, pictures in zip(cards.texts, cards.pictures, strict=True) if not pictures]
    assert sum(f"in {shards[0].stem}: " in text for text in reasons) == 60
    assert 0 < sum("bytes expected" in text for text in reasons) < 60
    assert all("red tower" in text for text in reasons)


def test_a_damaged_photograph_and_a_mask_that_is_gone(run: Run, masks: list[dict[str, Any]], tmp_path: Path) -> None:
    name(run, [masks[0], {"mask_id": 5, "image_id": 4}])
    path = tmp_path / f"{masks[0]['shard']}.tar"
    data = bytearray(path.read_bytes())
    start = masks[0]["jpg_offset"]
    data[start : start + masks[0]["jpg_bytes"]] = bytes(masks[0]["jpg_bytes"])
    path.write_bytes(data)
    name_gallery.write(run, 500, 0)
    text = " ".join(Cards(run).texts)
    assert "64×48 px expected, no JPEG found" in text
    assert "the table masks no longer has this mask" in text


def test_no_names_yet(run: Run, masks: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="stage-1 names"):
        name_gallery.write(run, 500, 0)
