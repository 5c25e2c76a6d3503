"""From answers and thresholds to verdicts, without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from checking_server import write_pairs
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import rows
from verified_runs import ENGINE, answer, check, masks

from pipeline import tables
from pipeline.run import Run
from stages import calibration, head_tail, requests, verdicts
from stages.calibration import Calibration, Kept, Thresholds
from stages.head_tail import HeadTailConfig

TEXT = {"p_yes": None, "p_no": None, "leftover": None, "evidence": "text"}


def answered(run: Run, said: dict[int, tuple[str, dict[str, Any], str]]) -> None:
    """Commit checks about the pairs' own categories."""
    found = requests.pairs(run)
    ids = dict(
        zip(
            found.mask_ids.tolist(),
            requests.request_ids(found.mask_ids, found.categories, "pair").tolist(),
            strict=True,
        )
    )
    made = [
        {**check(mask_id, "pair", name, told, outcome), "request_id": ids[mask_id]}
        for mask_id, (name, told, outcome) in said.items()
    ]
    with run.part("checks", "checks", "00000000") as part:
        part.write(tables.from_rows("checks", made))
    run.commit("checks", "00000000", {"checks": part}, fingerprint="f", counts={}, facts={})


@pytest.fixture
def checked(run: Run, tmp_path: Path) -> tuple[Run, list[int]]:
    """Six dogs, of which five have answers, and two emus."""
    ids = masks(run, tmp_path)
    write_pairs(run, {**dict.fromkeys(ids[:6], "dog"), **dict.fromkeys(ids[6:8], "emu")})
    head_tail.build(run, HeadTailConfig(head_min_count=3))
    dog = "dog"
    answered(
        run,
        {
            ids[0]: (dog, answer(0.9, 0.05), "yes"),
            ids[1]: (dog, answer(0.3, 0.6), "no"),
            ids[2]: (dog, answer(0.0, 0.0), "unclear"),
            ids[3]: (dog, TEXT, "yes"),
            ids[4]: (dog, TEXT, "unclear"),
            ids[6]: ("emu", answer(0.1, 0.9), "no"),
        },
    )
    return run, ids


def test_every_answer_gets_its_verdict(checked: tuple[Run, list[int]]) -> None:
    run, ids = checked
    made = verdicts.build(run)
    assert made.reasons == {"yes": 2, "no": 1, "unclear": 2, "tail": 2}
    assert (made.pending, made.rewritten) == (1, True)
    found = {row["mask_id"]: row for row in rows(run, "verdicts")}
    told = {m: (r["kept"], r["reason"], r["evidence"], r["threshold"]) for m, r in found.items()}
    assert told == {
        ids[0]: (True, "yes", "logprobs", 0.5),
        ids[1]: (False, "no", "logprobs", 0.5),
        ids[2]: (False, "unclear", "logprobs", 0.5),
        ids[3]: (True, "yes", "text", 0.5),
        ids[4]: (False, "unclear", "text", 0.5),
        ids[6]: (True, "tail", "logprobs", None),
        ids[7]: (True, "tail", "none", None),
    }
    assert [found[m]["score"] for m in ids[:4]] == [pytest.approx(0.9 / 0.95), pytest.approx(1 / 3), None, 1]
    assert (found[ids[6]]["score"], found[ids[7]]["score"], found[ids[7]]["engine"]) == (pytest.approx(0.1), None, "")
    assert found[ids[0]]["engine"] == ENGINE["engine"]


def test_thresholds_are_applied_again_without_asking(checked: tuple[Run, list[int]]) -> None:
    run, ids = checked
    verdicts.build(run)
    assert not verdicts.build(run).rewritten
    nothing = Kept(judged=1, precision=1.0, lower=0.5, recall=1.0)
    low = Calibration(
        thresholds=Thresholds(overall=0.99, bands={"1–10": 0.2}),
        precision=0.5,
        confidence=0.95,
        judged=1,
        unscored=0,
        source="t",
        cuts={},
        chosen={},
        fallback={},
        applied=nothing,
        reliability=[],
    )
    calibration.save(run, low)
    made = verdicts.build(run)
    assert (made.rewritten, made.reasons["yes"], made.reasons["no"]) == (True, 3, 0)
    found = {row["mask_id"]: row["threshold"] for row in rows(run, "verdicts")}
    assert (found[ids[0]], found[ids[7]]) == (0.2, None)


def test_without_any_answer_heads_are_pending_and_the_tail_is_kept(run: Run, tmp_path: Path) -> None:
    ids = masks(run, tmp_path)
    write_pairs(run, {ids[0]: "dog", ids[1]: "dog", ids[2]: "emu"})
    head_tail.build(run, HeadTailConfig(head_min_count=2))
    made = verdicts.build(run)
    assert (dict(made.reasons), made.pending) == ({"tail": 1}, 2)


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.text(max_size=5)), min_size=1, max_size=30, unique_by=lambda p: p[0])
)
def test_a_request_is_known_by_mask_category_and_role_alone(pairs: list[tuple[int, str]]) -> None:
    ids = np.array([mask for mask, _ in pairs], np.int64)
    names = pa.array([name for _, name in pairs], pa.string())
    together = requests.request_ids(ids, names, "pair")
    alone = [int(requests.request_ids(ids[k : k + 1], names[k : k + 1], "pair")[0]) for k in range(len(pairs))]
    assert together.tolist() == alone
    assert (together >= 0).all()
    assert not set(together.tolist()) & set(requests.request_ids(ids, names, "control").tolist())
    assert together.tolist() == requests.request_ids(ids, names.dictionary_encode(), "pair").tolist()
