"""The names of a run as a page to look at: a sample of regions with what was said about each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from pipeline import files, gallery, images
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Shard
from stages import manifest, region_prompts
from stages.naming_settings import STEP
from stages.rendering import read_photograph
from stages.sampling import stable_hash
from stages.shard_tasks import STEP as MANIFEST

FILE = "names.html"

_CROP_PX = 280  # longer side
_CROP_SCALE = 2.0  # as in WOW-Seg's training script
_FREQUENT = 30
_SHARED = 1 / 4  # of the sample goes in equal parts to the outcomes, so that rare ones are seen
_AT_ONCE = 8  # photographs decoded at a time; one of SA-1B takes 10 MB
_COUNTED = ("outcome", "category", "model", "layout")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_MASK = ("mask_id", "image_id", "shard", "jpg_offset", "jpg_bytes", "width", "height", "rle_counts", *_BOX)
_NAME = ("mask_id", "image_id", "outcome", "category", "raw", "logprob", "engine", "model", "layout")


class Written(NamedTuple):
    """A page and how much of the table it shows."""

    path: str
    shown: int
    total: int


def write(run: Run, samples: int, seed: int) -> Written:
    """Write `names.html` into the run folder, about `samples` names chosen by the hash of their masks.

    Every outcome gets a share. A region that cannot be drawn has the reason in place of a picture. Raises `UsageError`
    when there are no names.
    """
    survey = _Survey(samples, seed)
    for batch in run.dataset("names", STEP).to_batches(columns=["mask_id", *_COUNTED]):
        survey.add(batch)
    chosen = survey.sample()
    if not chosen:
        raise UsageError(f"{run.folder.uri}: no names yet. Make them first: rr7k stage-1 names")
    page = gallery.html(_page(run, survey, len(chosen)), _cards(run, chosen))
    run.folder.replace(FILE, page.encode())
    return Written(files.join(run.folder.uri, FILE), len(chosen), survey.total)


# --- the whole table --------------------------------------------------------------------------------------


class _Survey:
    """Counts over the whole table, and the sample; holds no more than `samples` rows of each outcome."""

    def __init__(self, samples: int, seed: int) -> None:
        self.samples, self.seed, self.total = samples, seed, 0
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._lowest: dict[str, list[tuple[int, int]]] = {}  # outcome to (hash, mask id), ascending

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows of `names`."""
        self.total += batch.num_rows
        for name, counter in self.counts.items():
            for found in batch[name].cast(pa.string()).drop_null().value_counts().to_pylist():
                counter[found["values"]] += found["counts"]
        ids, outcomes = batch["mask_id"].to_numpy(), np.array(batch["outcome"].to_pylist(), np.str_)
        hashes = stable_hash(ids, self.seed)
        for outcome in np.unique(outcomes).tolist():
            here = np.flatnonzero(outcomes == outcome)
            here = here[np.argsort(hashes[here])[: self.samples]]
            found = zip(hashes[here].tolist(), ids[here].tolist(), strict=True)
            self._lowest[outcome] = sorted([*self._lowest.get(outcome, []), *found])[: self.samples]

    @property
    def share(self) -> int:
        """How many of each outcome the sample holds at least, if there are so many."""
        return max(1, int(self.samples * _SHARED / max(len(self._lowest), 1)))

    def sample(self) -> list[int]:
        """Return mask ids in the order of their hashes: each outcome's share, then the lowest of the rest."""
        ranked = [(rank >= self.share, *row) for rows in self._lowest.values() for rank, row in enumerate(rows)]
        chosen = sorted(ranked)[: self.samples]
        return [mask_id for _, _, mask_id in sorted(chosen, key=lambda row: row[1])]


def _page(run: Run, survey: _Survey, shown: int) -> Page:
    outcomes = survey.counts["outcome"]
    sample = f"{shown:,} of {survey.total:,}, chosen by hash (seed {survey.seed})"
    if len(outcomes) > 1:
        sample += f"; of every outcome at least {survey.share}, so rare ones are shown more often than they occur"
    name = files.base_name(run.folder.uri)
    facts = [
        ("run", name),
        ("model", ", ".join(survey.counts["model"])),
        ("layout", ", ".join(survey.counts["layout"])),
        ("categories", f"{len(survey.counts['category']):,}"),
        ("sample", sample),
    ]
    frequent = survey.counts["category"].most_common(_FREQUENT)
    return Page(f"Names of {name}", facts, dict(outcomes.most_common()), dict(frequent))


# --- the sample -------------------------------------------------------------------------------------------


def _cards(run: Run, chosen: list[int]) -> list[Card]:
    names = {row["mask_id"]: row for row in _rows(run.dataset("names", STEP), _NAME, chosen)}
    masks = sorted(_rows(run.dataset("masks"), _MASK, chosen), key=lambda row: row["image_id"])
    groups = [list(group) for _, group in groupby(masks, key=lambda row: row["image_id"])]
    known = run.plan(MANIFEST, manifest.Plan)
    shards = {shard.name: shard for shard in known.shards} if known else {}
    pictures: dict[int, Picture | str] = dict.fromkeys(chosen, "No picture: the table masks no longer has this mask.")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for made in pool.map(lambda group: _pictures(shards, group), groups):
            pictures.update(made)
    return [_card(names[mask_id], pictures[mask_id]) for mask_id in chosen]


def _rows(dataset: pads.Dataset, columns: Sequence[str], mask_ids: list[int]) -> list[dict[str, Any]]:
    wanted = pads.field("mask_id").isin(pa.array(mask_ids, pa.int64()))
    rows = dataset.to_table(columns=list(columns), filter=wanted, batch_readahead=1, fragment_readahead=1)
    return list(rows.to_pylist())


def _pictures(shards: dict[str, Shard], group: list[dict[str, Any]]) -> dict[int, Picture | str]:
    """Draw regions of one image, or say why that is impossible."""
    first = group[0]
    try:
        photo = read_photograph(shards[first["shard"]], first)
    except KeyError:
        why = "the run no longer has this shard"
    except (MissingBytesError, images.UnreadableImageError, OSError) as error:
        why = str(error)
    else:
        return {region.mask_id: _picture(photo, region) for region in _regions(group)}
    return {row["mask_id"]: f"No picture of sa_{first['image_id']} in {first['shard']}: {why}" for row in group}


def _regions(group: list[dict[str, Any]]) -> list[region_prompts.Region]:
    return region_prompts.regions({name: [row[name] for row in group] for name in _MASK})


def _picture(photo: images.Photograph, region: region_prompts.Region) -> Picture:
    clean, mask = region_prompts.surroundings(photo, region, _CROP_SCALE, _CROP_PX)
    return gallery.picture(photo.upright(clean), photo.upright(gallery.outlined(mask)))


def _card(name: dict[str, Any], picture: Picture | str) -> Card:
    lines = [("answer about several regions" if name["layout"] == "marks" else "answer", name["raw"])]
    if name["logprob"] is not None:
        lines.append(("probability", f"{math.exp(min(name['logprob'], 0)):.2g}"))
    lines += [("by", f"{name['model']} · {name['layout']}"), ("mask", f"{name['mask_id']} of sa_{name['image_id']}")]
    badge = "embedded (not a VLM)" if name["engine"] == "embedded" else ""
    return Card(name["category"] or "", name["outcome"], picture, lines, badge)
