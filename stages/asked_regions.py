"""Regions that a yes/no question was asked about: what was asked and answered, as lines of a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.run import Run
from stages import requests, sampled_regions, verdicts, verification_settings
from stages.yes_no import Reading

_NUMBERS = ("p_yes", "p_no", "leftover")
_VERDICT = ("mask_id", "image_id", "category", "score", "threshold", "kept", "reason", "engine", *_NUMBERS)
_CHECK = ("mask_id", "image_id", "role", "category", "outcome", "evidence", "raw", "engine", *_NUMBERS)
_REQUEST = ("mask_id", "role", "category", "pair_category", "kind")

Row = dict[str, Any]


def pairs(run: Run, mask_ids: Sequence[int]) -> dict[int, Row]:
    """Return the verdicts of masks, each with `raw`, the answer, where `checks` still has it."""
    checks = sampled_regions.rows(run.dataset("checks", verification_settings.STEP), _CHECK, list(mask_ids))
    raw = {(check["mask_id"], check["category"]): check["raw"] for check in checks if check["role"] == requests.PAIR}
    found = sampled_regions.rows(run.dataset("verdicts", verdicts.STEP), _VERDICT, list(mask_ids))
    return {row["mask_id"]: {**row, "raw": raw.get((row["mask_id"], row["category"]))} for row in found}


def controls(run: Run, asked: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Row]:
    """Return the checks of controls by category and mask, each with its `pair_category` and `kind`."""
    mask_ids = sorted({mask_id for _, mask_id in asked})
    planned = {
        (row["category"], row["mask_id"]): {"pair_category": row["pair_category"], "kind": row["kind"]}
        for row in sampled_regions.rows(run.dataset("requests", requests.STEP), _REQUEST, mask_ids)
        if row["role"] == requests.CONTROL
    }
    found = {
        (row["category"], row["mask_id"]): row
        for row in sampled_regions.rows(run.dataset("checks", verification_settings.STEP), _CHECK, mask_ids)
        if row["role"] == requests.CONTROL
    }
    unknown = {"pair_category": None, "kind": None}
    return {key: {**found[key], "score": _score(found[key]), **planned.get(key, unknown)} for key in asked}


def lines(row: Row, threshold: float | None) -> list[tuple[str, str]]:
    """Return label and text of everything about a verdict or a control but its category, for a card."""
    made: list[tuple[str, str]] = []
    if "kind" in row:
        made += [("really", row["pair_category"] or "not known"), ("kind", row["kind"] or "not known")]
    numbers = {"score": row["score"], "threshold": threshold, **{name: row[name] for name in _NUMBERS}}
    made += [(name, f"{number:.3f}") for name, number in numbers.items() if number is not None]
    if row["p_yes"] is None:
        made.append(("probabilities", "none, only text"))
    made.append(("reason", row["reason"]) if "reason" in row else ("read as", row["outcome"]))
    made.append(("answer", "no longer there" if row["raw"] is None else row["raw"]))
    return [*made, ("mask", f"{row['mask_id']} of sa_{row['image_id']}")]


def badge(row: Row, warning: str = "") -> str:
    """Return a card's warnings: that a stand-in answered, and what else there is."""
    return " · ".join(filter(None, ["embedded (not a VLM)" if row["engine"] == "embedded" else "", warning]))


def _score(check: Row) -> float | None:
    return Reading(check["outcome"], check["evidence"], *(check[name] for name in _NUMBERS)).score
