"""What changed between two releases, and which of it changes scores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline.regions import RegionSamples

_COMPARED = ("category", "split", "mini", "screened_by", "votes_keep", "votes_delete", "votes_unsure")
_VERDICT = ("screened_by", "votes_keep", "votes_delete", "votes_unsure")


class Change(msgspec.Struct, frozen=True):
    """An instance that both have, not alike."""

    instance_id: int
    before: str
    after: str


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """From one release to another; instances by id."""

    added: list[int]
    removed: list[int]
    renamed: list[Change]
    """By category."""
    redrawn: list[int]
    """With another mask."""
    moved: list[Change]
    """By split."""
    judged: list[Change]
    """By who screened it and the votes: keep, delete, unsure."""
    new_categories: list[str]
    lost_categories: list[str]
    accepted: list[str]
    """Categories, in both, whose aliases or hypernyms changed."""
    score_relevant: list[int]
    """Instances whose change can change a score on `test`: there in only one of them, renamed, redrawn, or with other
    accepted names."""


def compare(before: Path, after: Path) -> Diff:
    """Compare two releases by instance id. Raises `UserError` for a folder that is none."""
    old, new = (RegionSamples(path) for path in (before, after))
    a, b = _instances(old), _instances(new)
    both = sorted(a.keys() & b.keys())
    names_before, names_after = _accepted(old), _accepted(new)
    accepted = sorted(c for c in names_before.keys() & names_after.keys() if names_before[c] != names_after[c])
    found = Diff(
        added=sorted(b.keys() - a.keys()),
        removed=sorted(a.keys() - b.keys()),
        renamed=_changes(a, b, both, lambda row: str(row["category"])),
        redrawn=[i for i in both if a[i]["mask"] != b[i]["mask"]],
        moved=_changes(a, b, both, lambda row: str(row["split"])),
        judged=_changes(a, b, both, _verdict),
        new_categories=sorted(names_after.keys() - names_before.keys()),
        lost_categories=sorted(names_before.keys() - names_after.keys()),
        accepted=accepted,
        score_relevant=[],
    )
    touched = {*found.added, *found.removed, *found.redrawn, *(c.instance_id for c in [*found.renamed, *found.moved])}
    touched |= {i for i, row in b.items() if row["category"] in set(accepted)}
    tested = [i for i in touched if any(row and row["split"] == "test" for row in (a.get(i), b.get(i)))]
    return msgspec.structs.replace(found, score_relevant=sorted(tested))


def _instances(samples: RegionSamples) -> dict[int, dict[str, Any]]:
    """Return every instance by id, its mask as a hash."""
    found = {}
    columns = ["instance_id", "segmentation", *_COMPARED]
    for batch in samples.dataset("instances").to_batches(columns=columns, batch_size=4096):
        for row in batch.to_pylist():
            mask = row.pop("segmentation")
            row["mask"] = hashlib.blake2b(f"{mask['size']} {mask['counts']}".encode(), digest_size=16).digest()
            found[row.pop("instance_id")] = row
    return found


def _accepted(samples: RegionSamples) -> dict[str, Any]:
    rows = samples.read("categories", ["category", "aliases", "hypernyms"]).to_pylist()
    return {row["category"]: (row["aliases"], row["hypernyms"]) for row in rows}


def _changes(
    a: dict[int, dict[str, Any]], b: dict[int, dict[str, Any]], both: list[int], told: Callable[[dict[str, Any]], str]
) -> list[Change]:
    return [Change(i, told(a[i]), told(b[i])) for i in both if told(a[i]) != told(b[i])]


def _verdict(row: dict[str, Any]) -> str:
    by, *votes = (row[name] for name in _VERDICT)
    return f"{by}: {'/'.join(str(vote or 0) for vote in votes)}"
