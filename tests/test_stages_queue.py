"""What people are shown, in which order, on which pages; and that the queue only grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sa1b_shards import commit
from verified_runs import Row, answer, check, masks, pair, tail

from pipeline import tables
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import headings, paging, queue
from stages.queue import QueueConfig

NO_GOLD = QueueConfig(gold_share=0)
HOSTILE = '<img src=x onerror="alert(1)">$uid\u202e'


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Texts that share letters are alike."""
    counts = np.array([[text.count(chr(c)) + 0.01 for c in range(97, 123)] for text in texts], np.float32)
    return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)


def write_pairs(run: Run, categories: dict[int, str], **unlike: dict[int, Any]) -> None:
    """Make the run's pairs be these; `unlike` names columns, and the masks where they differ from an agreed pair."""
    every = {"namer": "vlm", "namers": ["vlm"], "agreement": "same", "rule": "same", "flagged": False, "engines": []}
    rows: list[dict[str, object]] = [
        {
            **{"mask_id": mask_id, "image_id": mask_id // 1000, "category": name, "fingerprint": 1},
            **{"raw_names": [name], "names": [name], **every},
            **{column: values[mask_id] for column, values in unlike.items() if mask_id in values},
        }
        for mask_id, name in categories.items()
    ]
    with run.part("pairs", "pairs", "pairs") as part:
        part.write(tables.from_rows("pairs", rows))
    run.commit("pairs", "pairs", {"pairs": part}, fingerprint="f", counts={}, facts={})


def head(mask_id: int, category: str, score: float) -> Row:
    return pair(mask_id, category, answer(score, 1 - score), "yes" if score > 0.5 else "no")[1]


def judge(run: Run, *verdicts: Row, **unlike: dict[int, Any]) -> None:
    """Pairs and verdicts; a later call adds verdicts, and pairs of theirs to those before."""
    before = run.dataset("verdicts").to_table().to_pylist()
    write_pairs(run, {row["mask_id"]: row["category"] for row in [*before, *verdicts]}, **unlike)
    commit(run, verdicts=list(verdicts))


def queued(run: Run) -> list[dict[str, Any]]:
    return list(run.dataset("queue").to_table().to_pylist())


def paged(run: Run) -> list[list[dict[str, Any]]]:
    return [list(page) for _, page in groupby(queued(run), key=lambda row: row["page_id"])]


def why(run: Run) -> dict[int, str]:
    return {row["mask_id"]: row["why"] for row in queued(run)}


@pytest.fixture
def ids(run: Run, tmp_path: Path) -> list[int]:
    """Masks to be judged."""
    return masks(run, tmp_path, 4, 40)


# --- which ------------------------------------------------------------------------------------------------


def test_everything_kept_flagged_or_rare_is_selected(run: Run, ids: list[int]) -> None:
    judge(
        run,
        head(ids[0], "dog", 0.9),
        head(ids[1], "dog", 0.1),
        head(ids[2], "dog", 0.2),
        tail(ids[3], "emu"),
        head(ids[4], "dog", 0.8),
        flagged={ids[2]: True, ids[4]: True},
    )
    made = queue.build(run, QueueConfig(dropped_share=0, gold_share=0), embed)
    assert why(run) == {ids[0]: "head", ids[2]: "flagged", ids[3]: "tail", ids[4]: "flagged"}
    assert made == (2, Counter(why(run).values()))
    assert {(row["inclusion_probability"], row["stratum"], row["gold"]) for row in queued(run)} == {(1.0, "", None)}
    assert {(row["round"], row["view"]) for row in queued(run)} == {("screening", "page")}
    assert all(row["raw"] == row["crop"].replace(".jpg", "-raw.jpg") for row in queued(run))


def test_a_larger_share_of_the_dropped_contains_the_smaller(run: Run, ids: list[int]) -> None:
    judge(run, *(head(mask_id, "dog", 0.1) for mask_id in ids))
    few = queue.selected(run, QueueConfig(dropped_share=0.3))
    many = queue.selected(run, QueueConfig(dropped_share=0.6))
    assert 0.15 < few.num_rows / len(ids) < 0.45 < many.num_rows / len(ids) < 0.75
    assert set(few["mask_id"].to_pylist()) < set(many["mask_id"].to_pylist())
    assert set(few["inclusion_probability"].to_pylist()) == {0.3}
    assert (set(few["why"].to_pylist()), set(few["stratum"].to_pylist())) == ({"dropped"}, {"no"})
    assert queue.selected(run, QueueConfig(dropped_share=0)).num_rows == 0
    assert queue.selected(run, QueueConfig(dropped_share=1)).num_rows == len(ids)


def test_nothing_to_queue(run: Run, ids: list[int]) -> None:
    with pytest.raises(UsageError, match="no verdicts yet"):
        queue.build(run, NO_GOLD, embed)
    judge(run, head(ids[0], "dog", 0.1))
    assert queue.build(run, QueueConfig(dropped_share=0), embed) == (0, {})
    assert (queued(run), queue.pages(run)) == ([], [])


def test_verdicts_about_what_has_changed_wait(run: Run, ids: list[int]) -> None:
    judge(run, tail(ids[0], "emu"), tail(ids[1], "emu"), tail(17, "emu"))  # 17 is no mask of the run
    write_pairs(run, {ids[0]: "ostrich", ids[1]: "emu", 17: "emu"})
    queue.build(run, NO_GOLD, embed)
    assert why(run) == {ids[1]: "tail"}


# --- in which order ---------------------------------------------------------------------------------------


def test_the_worst_come_first(run: Run, ids: list[int]) -> None:
    judge(
        run,
        *(head(mask_id, "dog", score) for mask_id, score in zip(ids, (0.95, 0.95, 0.95, 0.7, 0.9, 0.95), strict=False)),
        {**head(ids[6], "dog", 0.9), "score": None, "reason": "yes"},
        agreement={ids[1]: "different", ids[2]: "related", ids[5]: "only-one"},
        flagged={ids[4]: True},
    )
    queue.build(run, NO_GOLD, embed)
    assert [row["mask_id"] for row in queued(run)] == [ids[place] for place in (4, 6, 3, 1, 2, 5, 0)]
    error = [row["error"] for row in queued(run)]
    assert error == sorted(error, reverse=True)
    assert error[0] == pytest.approx(0.5 + 0.45 * 0.1)


def test_errors_stay_between_nought_and_one() -> None:
    numbers = queue.errors(np.array([0.0, 1.0, np.nan, 0.0]), ["different", "same", "only-one", "different"], FLAGS)
    assert numbers.tolist() == pytest.approx([1.0, 0.0, 0.2375, 0.5])


FLAGS = np.array([True, False, False, False])


# --- on which pages ---------------------------------------------------------------------------------------


def test_a_page_of_the_head_is_of_one_category(run: Run, ids: list[int]) -> None:
    judge(run, *(head(mask_id, "dog" if place < 50 else "cup", 0.9) for place, mask_id in enumerate(ids[:60])))
    queue.build(run, NO_GOLD, embed)
    assert [(len(page), {row["category"] for row in page}) for page in paged(run)] == [
        (24, {"dog"}),
        (24, {"dog"}),
        (2, {"dog"}),
        (10, {"cup"}),
    ]
    assert all([row["place"] for row in page] == list(range(len(page))) for page in paged(run))


def test_rare_categories_share_pages_by_the_coarse_tree(run: Run, ids: list[int]) -> None:
    names = ["cat", "owl", "dog", "eagle", "cow"]
    judge(run, *(tail(mask_id, names[place % 5]) for place, mask_id in enumerate(ids[:30])))
    queue.build(run, NO_GOLD, embed)
    categories = [row["category"] for row in queued(run)]
    assert [name for name, _ in groupby(categories)] == ["cat", "cow", "dog", "eagle", "owl"]  # mammals, then birds
    assert [len(page) for page in paged(run)] == [24, 6]


def refused(run: Run, *asked: tuple[int, str], outcome: str = "no") -> None:
    commit(run, checks=[check(mask_id, "control", name, answer(0.1, 0.9), outcome) for mask_id, name in asked])


def test_known_answers_are_mixed_in_at_the_set_rate(run: Run, ids: list[int]) -> None:
    judge(
        run,
        *(head(mask_id, "dog", 0.9) for mask_id in ids[:120]),
        *(head(mask_id, "cup", 0.9) for mask_id in ids[120:]),
    )
    refused(run, *((mask_id, "dog") for mask_id in ids[120:130]), *((mask_id, "cup") for mask_id in ids[:3]))
    refused(run, (ids[131], "dog"), outcome="yes")
    made = queue.build(run, QueueConfig(gold_share=0.1), embed)
    gold = [row for row in queued(run) if row["gold"]]
    assert made.rows["gold"] / made.rows.total() == pytest.approx(0.1, abs=0.03)
    assert {row["gold"] for row in gold} == {"delete"}
    assert {row["mask_id"] for row in gold if row["category"] == "dog"} <= set(ids[120:130])
    assert {row["why"] for row in gold} == {"gold"}
    assert len({row["place"] for row in gold}) > 3
    for page in paged(run):
        assert len({row["category"] for row in page}) == 1
        assert len({row["mask_id"] for row in page}) == len(page) <= 24
    shown = [row["mask_id"] for row in queued(run) if not row["gold"]]
    assert sorted(shown) == ids


def test_what_people_agreed_on_tests_others(run: Run, ids: list[int]) -> None:
    judge(run, *(tail(mask_id, "emu") for mask_id in ids[:100]))
    votes = {"image_id": 1, "category": "emu", "decision": "release", "keep": 3, "delete": 0, "private": 0, "unsure": 0}
    agreed: dict[int, Row] = {
        ids[150]: {"by": "people"},
        ids[151]: {"by": "simulated"},
        ids[152]: {"by": "people", "keep": 1},
        ids[153]: {"by": "people", "delete": 1},
        ids[154]: {"by": "expert", "keep": 1, "delete": 1},
        ids[155]: {"by": "expert", "decision": "delete", "keep": 0, "delete": 1},
        ids[156]: {"by": "people", "decision": "delete", "keep": 0, "delete": 3},
        ids[157]: {"by": "expert", "decision": "uncertain"},
    }
    commit(run, decisions=[{**votes, "mask_id": mask_id, **said} for mask_id, said in agreed.items()])
    with run.part("bands", "bands", "bands") as part:
        part.write(tables.from_rows("bands", [{"category": "emu", "pairs": 100, "band": "tail"}]))
    run.commit("bands", "bands", {"bands": part}, fingerprint="f", counts={}, facts={})
    queue.build(run, QueueConfig(gold_share=0.25), embed)
    gold = {(row["mask_id"], row["gold"]) for row in queued(run) if row["gold"]}
    assert gold == {(ids[150], "keep"), (ids[154], "keep"), (ids[155], "delete")}  # the same on every page
    assert len(paged(run)[0]) == 24  # filled up where there is too little gold


# --- growing ----------------------------------------------------------------------------------------------


def test_growing_adds_only_what_is_new(run: Run, ids: list[int]) -> None:
    judge(run, *(head(mask_id, "dog", 0.9) for mask_id in ids[:30]))
    refused(run, *((mask_id, "dog") for mask_id in ids[100:110]))
    queue.build(run, QueueConfig(), embed)
    before = queued(run)
    assert queue.build(run, QueueConfig(), embed) == (0, {})
    assert queued(run) == before

    judge(run, *(head(mask_id, "dog", 0.6) for mask_id in ids[30:35]), tail(ids[40], "emu"))
    queue.build(run, QueueConfig(), embed)
    assert queued(run)[: len(before)] == before
    assert sorted(row["mask_id"] for row in queued(run)[len(before) :] if not row["gold"]) == [*ids[30:35], ids[40]]
    assert len({row["page_id"] for row in queued(run)}) == len(paged(run)) == 4


def test_a_pair_of_another_category_is_queued_anew(run: Run, ids: list[int]) -> None:
    judge(run, tail(ids[0], "emu"), tail(ids[1], "emu"))
    queue.build(run, NO_GOLD, embed)
    run.discard("verdicts", "verdicts")
    judge(run, tail(ids[0], "ostrich"), tail(ids[1], "emu"))
    queue.build(run, NO_GOLD, embed)
    assert [(row["mask_id"], row["category"]) for row in queued(run)] == [
        (ids[0], "emu"),
        (ids[1], "emu"),
        (ids[0], "ostrich"),
    ]


def test_the_same_run_gives_the_same_pages(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        run = Run(str(tmp_path / name))
        ids = masks(run, tmp_path, 4, 20)
        judge(run, *(head(mask_id, "dog", 0.9) for mask_id in ids[:30]), *(tail(m, "emu") for m in ids[30:]))
        refused(run, *((mask_id, "dog") for mask_id in ids[40:]))
        queue.build(run, QueueConfig(), embed)
        made.append([(row["page_id"], row["place"], row["mask_id"]) for row in queued(run)])
    assert made[0] == made[1]
    assert paging.page_id("screening", [(1, "a")]) != paging.page_id("audit", [(1, "a")])


# --- what stands above ------------------------------------------------------------------------------------


def test_headings_tell_what_a_page_is_about(run: Run, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Dictionary:
        def gloss(self, name: str) -> str:
            return f"what a {name} is"

    monkeypatch.setattr(headings, "open_wordnet", Dictionary)
    judge(run, head(ids[0], "dog", 0.9), head(ids[1], HOSTILE, 0.9), tail(ids[2], "cat"), tail(ids[3], "hammer"))
    queue.build(run, NO_GOLD, embed)
    shown = queue.pages(run)
    assert [(tile.mask_id, tile.category) for tile in shown[0].tiles] == [(ids[0], "dog")]
    found = {heading.title: heading for heading in headings.headings(run, shown, embed)}
    assert found["dog"].group.startswith("Animals · ")
    assert found["dog"].gloss == "what a dog is"
    assert set(found["dog"].neighbours) == {HOSTILE, "cat", "hammer"}
    assert found[HOSTILE].title == HOSTILE  # as it is: who shows it escapes it
    mixed = found[headings.MIXED]
    assert (mixed.gloss, mixed.neighbours, mixed.group.startswith("Animals · ")) == ("", (), True)


def test_pages_come_back_in_the_order_they_were_queued(run: Run, ids: list[int]) -> None:
    judge(run, *(head(mask_id, "dog", 0.9) for mask_id in ids[:30]))
    queue.build(run, NO_GOLD, embed)
    judge(run, *(head(mask_id, "cup", 0.9) for mask_id in ids[30:40]))
    queue.build(run, NO_GOLD, embed)
    assert [page.page_id for page in queue.pages(run)] == [page[0]["page_id"] for page in paged(run)]
    assert [(len(page.tiles), page.view) for page in queue.pages(run)] == [(24, "page"), (6, "page"), (10, "page")]


def test_a_lost_queue_is_made_again_from_what_a_server_tells(run: Run, ids: list[int]) -> None:
    page = {"page_id": "p", "view": "page", "round": "screening"}
    single = {"page_id": "c", "view": "single", "round": "conflict", "place": 0, "category": HOSTILE, "mask_id": ids[0]}
    told: list[Row] = [{**page, "place": place, "mask_id": ids[place], "category": "dog"} for place in range(3)]
    with pytest.raises(UsageError, match="lacks 1 of the masks that were shown"):
        queue.adopt(run, [*told, {**single, "mask_id": 7}])
    assert not queued(run)
    assert queue.adopt(run, [*told, single]) == (2, Counter(recovered=4))
    made = queued(run)
    assert [{name: row[name] for name in single} for row in made] == [*told, single]
    assert [row["image_id"] for row in made] == [mask_id // 1000 for mask_id in (*ids[:3], ids[0])]
    assert made[0]["crop"] != made[3]["crop"]  # one mask in two views
    with pytest.raises(UsageError, match="only one that is lost"):
        queue.adopt(run, told)
