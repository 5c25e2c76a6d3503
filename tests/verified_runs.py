"""Rows of stage 2 written by hand: what was asked, what was answered, what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from named_shards import write_shard
from sa1b_shards import build, commit

from pipeline.run import Run

ENGINE = {"engine": "vllm", "model": "some-model", "revision": "r1", "layout": "overlay", "prompt": "p1"}
TEXT = {"p_yes": None, "p_no": None, "leftover": None, "evidence": "text"}

Row = dict[str, Any]


def masks(run: Run, folder: Path, images: int = 4, each: int = 10) -> list[int]:
    """Real masks, 1001000 and on: `each` in every image."""
    build(run, write_shard(folder, 1, images, each))
    return [(1001 + image) * 1000 + number for image in range(images) for number in range(each)]


def answer(yes: float, no: float) -> Row:
    return {"p_yes": yes, "p_no": no, "leftover": 1 - yes - no, "evidence": "logprobs"}


def pair(mask_id: int, category: str, said: Row, outcome: str, **changes: Any) -> tuple[Row, Row]:
    """A pair's check and its verdict."""
    row = check(mask_id, "pair", category, said, outcome, **changes)
    score = said["p_yes"] / (said["p_yes"] + said["p_no"]) if said["p_yes"] is not None else float(outcome == "yes")
    verdict = {
        **row,
        "band": "head",
        "score": None if outcome == "unclear" else score,
        "threshold": 0.5,
        "kept": outcome == "yes",
        "reason": outcome,
        **changes,
    }
    return row, verdict


def tail(mask_id: int, category: str) -> Row:
    nothing = {"score": None, "threshold": None, "evidence": "none", "engine": ""}
    told = {"band": "tail", "kept": True, "reason": "tail", "fingerprint": 1}
    return {"mask_id": mask_id, "image_id": mask_id // 1000, "category": category, **nothing, **told}


def check(mask_id: int, role: str, category: str, said: Row, outcome: str, **changes: Any) -> Row:
    known = {"mask_id": mask_id, "image_id": mask_id // 1000, "role": role, "category": category, "outcome": outcome}
    return {"request_id": 1, "raw": f"{outcome}.", "fingerprint": 1, **ENGINE, **known, **said, **changes}


def request(mask_id: int, category: str, pair_category: str, kind: str) -> Row:
    """Of a control."""
    known = {"request_id": 1, "mask_id": mask_id, "image_id": mask_id // 1000, "role": "control"}
    return {**known, "category": category, "pair_category": pair_category, "kind": kind}


def commit_pairs(run: Run, *pairs: tuple[Row, Row]) -> None:
    commit(run, checks=[made[0] for made in pairs], verdicts=[made[1] for made in pairs])


def dogs_and_cups(run: Run, ids: list[int]) -> None:
    """Of six dogs four are dropped, of four cups one; two cups were asked to be dogs."""
    dogs = [(0.9, "yes"), (0.6, "yes"), (0.1, "no"), (0.4, "no"), (0.3, "no")]
    cups = [(0.95, "yes"), (0.8, "yes"), (0.7, "yes"), (0.2, "no")]
    told = [*(("dog", *row) for row in dogs), *(("cup", *row) for row in cups)]
    commit_pairs(
        run,
        *(pair(mask, name, answer(yes, 0.99 - yes), said) for mask, (name, yes, said) in zip(ids, told, strict=False)),
        pair(ids[9], "dog", {**TEXT}, "unclear", raw="I cannot tell."),
    )
    commit(
        run,
        verdicts=[tail(ids[10], "emu")],
        checks=[
            check(ids[5], "control", "dog", answer(0.7, 0.3), "yes"),
            check(ids[6], "control", "dog", answer(0.2, 0.8), "no", raw="No, a cup."),
        ],
        requests=[request(ids[5], "dog", "cup", "sibling"), request(ids[6], "dog", "cup", "co-occurring")],
    )
