"""The report of the yes/no check: every number by hand, and a page that shows them and nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sa1b_shards import commit
from test_pipeline_gallery import Reader
from verified_runs import TEXT, answer, check, commit_pairs, dogs_and_cups, masks, pair, request, tail

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import calibration, verification_page, verification_report
from stages.judgements import Judgements
from stages.verification_report import SCORE_EDGES, VerificationReport

HOSTILE = ["<script>alert(1)</script>", '" onclick="alert(1)', "x" * 200, "cat\u202egpj", "$title $rows", "</template>"]


@pytest.fixture
def ids(run: Run, tmp_path: Path) -> list[int]:
    return masks(run, tmp_path)


@pytest.fixture
def animals(run: Run, ids: list[int]) -> Run:
    dogs_and_cups(run, ids)
    bands = [("dog", 8, "head"), ("cup", 4, "head"), ("emu", 1, "tail")]
    commit(run, bands=[{"category": name, "pairs": pairs, "band": band} for name, pairs, band in bands])
    return run


def page(run: Run) -> str:
    return verification_page.html(run, verification_report.gather(run))


def text(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page).split())


# --- numbers ---


def test_every_number(animals: Run, ids: list[int]) -> None:
    report = verification_report.gather(animals)
    assert (report.dropped.count, report.dropped.total, report.unclear) == (5, 10, 1)
    assert (report.head_pairs, report.tail_pairs, report.answers, report.text_only) == (12, 1, 12, 1)
    assert (report.false_yes.count, report.false_yes.total, report.passed) == (1, 2, 1)
    assert report.false_yes.lower == pytest.approx(1 - 0.975**0.5)  # Clopper and Pearson, one of two
    assert report.false_yes.upper == pytest.approx(0.975**0.5)
    assert report.made_by["model"] == {"some-model": 12}
    assert report.thresholds == [0.5]
    dog, cup = report.categories
    assert (dog.category, dog.kept, dog.no, dog.unclear, dog.false_yes.total) == ("dog", 2, 3, 1, 2)
    assert (cup.category, cup.kept, cup.no, cup.unclear, cup.false_yes.total) == ("cup", 3, 1, 0, 0)
    assert (dog.dropped.value, cup.dropped.value) == (4 / 6, 0.25)
    assert [c.category for c in report.worst_controls()] == ["dog"]


def test_histograms(run: Run, ids: list[int]) -> None:
    told = [(0.5, 0.5, "no"), (1.0, 0.0, "yes"), (0.0, 1.0, "no"), (0.3, 0.3, "no"), (0.0, 0.0, "unclear")]
    commit_pairs(run, *(pair(ids[k], "dog", answer(yes, no), said) for k, (yes, no, said) in enumerate(told[:4])))
    commit(run, checks=[check(ids[4], "control", "dog", answer(*told[4][:2]), "unclear")])
    report = verification_report.gather(run)
    assert {k: n for k, n in enumerate(report.pair_scores) if n} == {0: 1, 20: 2, len(SCORE_EDGES) - 2: 1}
    assert sum(report.control_scores) == 0  # neither yes nor no: no score
    assert (report.leftovers[0], report.leftovers[-1], sum(report.leftovers)) == (3, 1, 5)
    assert (report.loose.count, report.loose.total) == (2, 5)  # 0.4 and 1
    assert (report.false_yes.count, report.false_yes.total) == (0, 1)


def test_the_order_and_number_of_parts_do_not_matter(run: Run, ids: list[int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for mask, score in zip(ids, rng.random(len(ids)).tolist(), strict=True):
        made.append(pair(mask, f"thing {mask % 7}", answer(score, 1 - score), "yes" if score > 0.5 else "no"))
    commit_pairs(run, *made)
    other = Run(str(tmp_path / "other"))
    for start in range(0, len(made), 9):
        commit_pairs(other, *made[::-1][start : start + 9])
    assert verification_report.gather(run) == verification_report.gather(other)


def test_the_worst_categories_by_what_is_sure(run: Run) -> None:
    commit_pairs(
        run,
        pair(1, "seen once", answer(0.1, 0.9), "no"),
        *(pair(10 + k, "often wrong", answer(0.1, 0.9), "no") for k in range(8)),
        *(pair(20 + k, "often wrong", answer(0.9, 0.1), "yes") for k in range(2)),
        pair(30, "right", answer(0.9, 0.1), "yes"),
    )
    report = verification_report.gather(run)
    assert [c.category for c in report.categories] == ["often wrong", "seen once", "right"]
    assert [c.category for c in report.worst_pairs()] == ["often wrong", "seen once"]


def test_a_false_yes_may_be_below_the_threshold(run: Run) -> None:
    commit_pairs(run, pair(1, "dog", answer(0.9, 0.1), "yes", threshold=0.8))
    commit(run, checks=[check(2, "control", name, answer(0.7, 0.3), "yes") for name in ("dog", "never a pair")])
    report = verification_report.gather(run)
    assert (report.false_yes.count, report.passed) == (2, 1)  # half where no pair tells the threshold


def test_the_tail_is_not_the_check_even_where_it_was_asked(run: Run) -> None:
    asked, verdict = pair(1, "emu", answer(0.1, 0.9), "no")
    commit(
        run, checks=[asked], verdicts=[{**verdict, "band": "tail", "reason": "tail", "kept": True, "threshold": None}]
    )
    report = verification_report.gather(run)
    assert (report.tail_pairs, report.dropped.total, report.answers, report.examples) == (1, 0, 1, [])
    assert sum(report.pair_scores) == 0


def test_the_examples(animals: Run, ids: list[int]) -> None:
    found = [(e.kind, e.row["category"], e.row["mask_id"]) for e in verification_report.gather(animals).examples]
    assert found == [
        ("nearest to the threshold", "dog", ids[3]),
        ("nearest to the threshold", "cup", ids[7]),
        ("surest kept", "cup", ids[5]),
        ("surest kept", "dog", ids[0]),
        ("surest dropped", "dog", ids[2]),
        ("surest dropped", "cup", ids[8]),
        ("surest false yes: asked with a wrong category", "dog", ids[5]),
    ]


# --- the page ---


def test_the_page_says_all_of_it(animals: Run, ids: list[int]) -> None:
    written = verification_report.write(animals)
    assert written[:2] == tuple(f"{animals.folder.uri}/verification.{kind}" for kind in ("html", "png"))
    assert isinstance(written.report, VerificationReport)
    made = animals.folder.read("verification.html").decode()
    said = text(made)
    for words in (
        "head pairs asked 10 2 not answered yet",
        "kept 5 and 1 of the tail, whatever was said",
        "dropped 50.0 % 5: 4 no, 1 unclear",
        "false yes 50.0 % 1 of 2 controls (1.3–98.7)",
        "leftover above 0.1 0.0 % 0 of 11",
        "text only 1 of 12 answers",
        "engine vllm model some-model revision r1 layout overlay prompt p1 threshold 0.500, not calibrated",
        "dog 6 2 3 1 66.7 % (22.3–95.7) 2 1 50.0 % (1.3–98.7) 0.500",
        "cup 4 3 1 0 25.0 % (0.6–80.6) 0 0 – 0.500",
        "rr7k stage-2 calibrate --judged TABLE",
        "Negative controls bound",
        "really cup kind sibling score 0.700",
    ):
        assert words in said
    assert "embedded" not in said
    assert made.count('<img class="figure"') == 2
    figure = Image.open(io.BytesIO(animals.folder.read("verification.png")))
    assert (figure.format, figure.size[0]) == ("PNG", 2400)


def test_hostile_texts_stay_texts(run: Run, ids: list[int]) -> None:
    commit_pairs(
        run, *(pair(ids[k], name, answer(0.9 - k / 10, 0.1), "no", raw=name) for k, name in enumerate(HOSTILE))
    )
    commit(
        run,
        checks=[check(ids[9], "control", name, answer(0.9, 0.1), "yes", raw=name, model=name) for name in HOSTILE],
        requests=[request(ids[9], name, HOSTILE[0], HOSTILE[1]) for name in HOSTILE],
    )
    made = page(run)
    reader = Reader(made)
    assert len(reader.named("script")) == 1
    assert len(reader.named("template")) == 1
    assert not any("onclick" in attributes for _, attributes in reader.elements)
    shown = {name.replace("\u202e", "⟨U+202E⟩") for name in HOSTILE}
    assert shown <= set(reader.texts["bdi"])
    assert "\u202e" not in made


def test_nothing_is_loaded_and_only_our_script_runs(animals: Run) -> None:
    made = page(animals)
    assert not re.search(r"https?:|url\(|@import|fetch\(|import\(", made)
    assert not {tag for tag, _ in Reader(made).elements} & {"link", "iframe", "object", "embed", "base", "form", "a"}
    script = made.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in made


def test_a_calibration_brings_the_reliability_diagram(animals: Run) -> None:
    scores = np.linspace(0.05, 0.95, 200)
    judged = Judgements(
        score=scores,
        right=scores > 0.3,
        weight=np.ones(200),
        pairs=np.full(200, 500),
        unscored=0,
        source="<b>judged.parquet</b>",
    )
    found = calibration.choose(judged, 0.8)
    calibration.save(animals, found)
    assert verification_report.gather(animals).calibration == found
    made = page(animals)
    assert made.count('<img class="figure"') == 3
    assert "calibrate --judged" not in made
    assert "0.500, not those of the calibration: the verdicts are older" in made
    threshold = found.thresholds.overall
    commit_pairs(Run(animals.folder.uri), pair(1, "gnu", answer(0.9, 0.1), "yes", threshold=threshold))
    animals.forget("verdicts", "00000000")
    animals.forget("verdicts", "00000001")
    said = text(page(animals))
    assert f"{threshold:.3f}, calibrated for precision 0.8 by &lt;b&gt;judged.parquet&lt;/b&gt;" in said


def test_no_controls(run: Run, ids: list[int]) -> None:
    commit_pairs(run, pair(ids[0], "dog", answer(0.9, 0.1), "yes"))
    said = text(page(run))
    assert "false yes – 0 of 0 controls" in said
    assert "Highest false-yes rates" in said
    assert "dog 1 1 0 0 0.0 % (0.0–97.5) 0 0 – 0.500" in said


def test_text_alone(run: Run, ids: list[int]) -> None:
    commit_pairs(run, *(pair(ids[k], "dog", TEXT, said) for k, said in enumerate(["yes", "yes", "no", "unclear"])))
    commit(run, checks=[check(ids[5], "control", "dog", TEXT, "yes")])
    report = verification_report.gather(run)
    assert (report.answers, report.text_only, report.loose.total, report.passed) == (5, 5, 0, 1)
    assert (report.pair_scores[0], report.pair_scores[-1], report.control_scores[-1]) == (1, 2, 1)
    assert not [example for example in report.examples if example.kind.startswith("nearest")]
    said = text(page(run))
    assert "leftover above 0.1 – 0 of 0" in said
    assert "text only 5 of 5 answers" in said


def test_everything_dropped(run: Run, ids: list[int]) -> None:
    commit_pairs(run, *(pair(mask, "dog", answer(0.2, 0.7), "no") for mask in ids[:3]))
    said = text(page(run))
    assert "kept 0 and 0 of the tail" in said
    assert "dropped 100.0 % 3: 3 no, 0 unclear" in said


def test_a_stand_in_is_labelled(run: Run, ids: list[int]) -> None:
    commit_pairs(run, pair(ids[0], "dog", answer(0.9, 0.1), "yes", engine="embedded"))
    made = page(run)
    assert '</h1><strong class="badge">embedded (not a VLM)</strong>' in made
    assert made.partition("Regions to look at")[2].count("embedded (not a VLM)") == 1


def test_pictures_that_cannot_be_made_have_a_reason(animals: Run, tmp_path: Path) -> None:
    next(tmp_path.glob("*.tar")).unlink()
    made = page(animals)
    assert made.count("No picture of sa_1001 in sa_000001: ") == 7


def test_no_verdicts_yet(run: Run) -> None:
    with pytest.raises(UsageError, match="Make them first: rr7k stage-2"):
        verification_report.write(run)


def test_nothing_but_a_tail(run: Run) -> None:
    commit(run, verdicts=[tail(1, "emu")])
    said = text(page(run))
    assert "kept 0 and 1 of the tail" in said
    assert "threshold nothing was asked" in said
    assert "All 0 categories" in said
