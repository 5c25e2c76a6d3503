"""The instances of a release: each with its mask, its place, and all that is known of how it got its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco

from benchmark.categories import Group
from benchmark.selection import name_of
from pipeline import regions
from pipeline.errors import UserError
from pipeline.masks import run_sums
from pipeline.run import Run

ROWS = 65_536
"""Instances of one file: about 80 MB of run lengths."""

_AT_ONCE = 16 * 1024
"""Instances held at once: whole row groups, and little beside what the libraries take."""

TABLES = ("masks", "pairs", "names", "verdicts", "checks", "screenings")
"""Tables that are read here."""

_SHOWN = 20
_SOURCE_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")

Columns = dict[str, Any]


def parted(chosen: pa.Table) -> Iterator[pa.Table]:
    """Cut the instances of a split (mask_id, category, …) into those of one file each, by category and id."""
    ordered = chosen.sort_by([("category", "ascending"), ("mask_id", "ascending")])
    for start in range(0, len(ordered), ROWS):
        yield ordered.slice(start, ROWS)


def write(
    path: Path, runs: Sequence[Run], chosen: pa.Table, split: str, minis: set[int], groups: Mapping[str, Group]
) -> regions.Written:
    """Write one file of the selected pairs `chosen`, in their order.

    Memory grows neither with the pairs nor with the run. Raises `UserError` for damaged run lengths.
    """
    schema = regions.SCHEMAS["instances"]
    with regions.FileWriter(path, "instances") as writer:
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen.slice(start, _AT_ONCE)
            columns = {**_told(part, split, minis, groups), **_masks(runs, part), **_provenance(runs, part)}
            writer.write(pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}))
    return writer.written


def _told(chosen: pa.Table, split: str, minis: set[int], groups: Mapping[str, Group]) -> Columns:
    """Return what the selection itself tells."""
    names = chosen["category"].to_pylist()
    places = [groups.get(name) for name in names]
    return {
        "instance_id": chosen["mask_id"].to_pylist(),
        "image_id": chosen["image_id"].to_pylist(),
        "category": names,
        "category_raw": names,
        "coarse_primary": [place and place.primary for place in places],
        "coarse_secondary": [place and place.secondary for place in places],
        "split": [split] * len(names),
        "mini": [image in minis for image in chosen["image_id"].to_pylist()],
        "iscrowd": [None] * len(names),
        "screened_by": chosen["screened_by"].to_pylist(),
        **{f"votes_{name}": chosen[name].to_pylist() for name in ("keep", "delete", "unsure")},
    }


def _of(runs: Sequence[Run], chosen: pa.Table, table: str, columns: Sequence[str]) -> pa.Table:
    """Return a table's rows about the chosen pairs, each from the run that its pair is from; text as strings."""
    found = []
    for number, run in enumerate(runs):
        ids = chosen["mask_id"].filter(pa.array(chosen["run"].to_numpy() == number)).combine_chunks()
        rows = run.dataset(table).to_table(columns=list(columns), filter=pc.field("mask_id").isin(ids))
        plain = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in rows.schema]
        found.append(rows.cast(pa.schema(list(zip(rows.column_names, plain, strict=True)))))
    return pa.concat_tables(found)


def _aligned(rows: pa.Table, chosen: pa.Table) -> pa.Table:
    """Return one row of `rows` for every chosen pair, in their order; nulls where there is none."""
    return rows.take(pc.index_in(chosen["mask_id"].combine_chunks(), rows["mask_id"].combine_chunks()))


def _masks(runs: Sequence[Run], chosen: pa.Table) -> Columns:
    columns = ["mask_id", "width", "height", "rle_counts", "area", "area_ratio", *_SOURCE_BOX]
    masks = _aligned(_of(runs, chosen, "masks", columns), chosen).combine_chunks()
    _refuse_damaged(masks)
    sizes = list(zip(masks["height"].to_pylist(), masks["width"].to_pylist(), strict=True))
    counts = masks["rle_counts"].to_pylist()
    rles = [{"size": size, "counts": text.encode()} for size, text in zip(sizes, counts, strict=True)]
    return {
        "segmentation": [{"size": size, "counts": text} for size, text in zip(sizes, counts, strict=True)],
        "bbox_xywh": coco.toBbox(rles).tolist(),
        "bbox_source_xywh": np.column_stack([masks[name].to_numpy() for name in _SOURCE_BOX]).tolist(),
        "area": masks["area"].to_pylist(),
        "area_ratio": masks["area_ratio"].to_pylist(),
    }


def _refuse_damaged(masks: pa.Table) -> None:
    """Raise `UserError` for run lengths that are no COCO RLE of the size and area stated."""
    sums = run_sums(masks["rle_counts"].combine_chunks() if len(masks) else pa.array([], pa.string()))
    pixels = masks["height"].to_numpy().astype(np.int64) * masks["width"].to_numpy()
    damaged = sums.malformed | (sums.total != pixels) | (sums.area != masks["area"].to_numpy())
    ids = masks["mask_id"].filter(pa.array(damaged)).to_pylist()
    if ids:
        more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
        raise UserError(
            f"table masks, column rle_counts: {len(ids):,} are damaged: {', '.join(map(str, ids[:_SHOWN]))}{more}. "
            "Read these shards again (rr7k stage-1 manifest --redo), or name the masks in data_manifests/removed.csv."
        )


def _provenance(runs: Sequence[Run], chosen: pa.Table) -> Columns:
    columns = ["mask_id", "namers", "raw_names", "agreement", "confidence"]
    pairs = _aligned(_of(runs, chosen, "pairs", columns), chosen)
    verdicts = _aligned(_of(runs, chosen, "verdicts", ["mask_id", "band", "p_yes"]), chosen)
    namers = pairs["namers"].to_pylist()
    audit = _of(runs, chosen, "screenings", ["mask_id", "category", "round"])
    judged = set(zip(*(audit.filter(pc.equal(audit["round"], "audit"))[n].to_pylist() for n in _PAIR), strict=True))
    return {
        **{name: pairs[name].to_pylist() for name in ("namers", "raw_names", "agreement", "confidence")},
        **_namers(_of(runs, chosen, "names", ["mask_id", "namer", "engine", *_MODEL]), chosen, namers),
        "band": verdicts["band"].to_pylist(),
        "p_yes": verdicts["p_yes"].to_pylist(),
        **_verifier(_of(runs, chosen, "checks", ["mask_id", "category", "role", *_MODEL]), chosen),
        "audited": [pair in judged for pair in zip(*(chosen[n].to_pylist() for n in _PAIR), strict=True)],
        "source": [name_of(runs[number]) for number in chosen["run"].to_pylist()],
    }


_MODEL = ("model", "revision", "prompt")
_PAIR = ("mask_id", "category")


def _revised(model: str, revision: str) -> str:
    return f"{model}@{revision}" if revision else model


def _namers(names: pa.Table, chosen: pa.Table, namers: list[list[str]]) -> Columns:
    """Return engine, model and prompt of each pair's namers, in the namers' order."""
    rows = {(row["mask_id"], row["namer"]): row for row in names.to_pylist()}
    nothing = {"engine": "", "model": "", "revision": "", "prompt": ""}
    of = [
        [rows.get((mask, namer), nothing) for namer in told]
        for mask, told in zip(chosen["mask_id"].to_pylist(), namers, strict=True)
    ]
    return {
        "namer_engines": [[row["engine"] for row in told] for told in of],
        "namer_models": [[_revised(row["model"], row["revision"]) for row in told] for told in of],
        "namer_prompts": [[row["prompt"] for row in told] for told in of],
    }


def _verifier(checks: pa.Table, chosen: pa.Table) -> Columns:
    """Return model and prompt of the yes/no question about each pair's own category; null where none was asked."""
    own = checks.filter(pc.equal(checks["role"], "pair")).to_pylist()
    rows = {(row["mask_id"], row["category"]): row for row in own}
    asked = [rows.get(pair) for pair in zip(*(chosen[name].to_pylist() for name in _PAIR), strict=True)]
    return {
        "verifier_model": [row and _revised(row["model"], row["revision"]) for row in asked],
        "verifier_prompt": [row and row["prompt"] for row in asked],
    }
