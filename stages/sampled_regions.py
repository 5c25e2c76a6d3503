"""A sample of a run's regions to look at: which, from counts over the whole table, and their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from pipeline import gallery, images
from pipeline.gallery import Picture
from pipeline.parquet import StoredTable
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Shard
from stages import region_prompts
from stages.naming import shards
from stages.rendering import read_photograph
from stages.sampling import stable_hash

_CROP_PX = 280  # longer side
_CROP_SCALE = 2.0  # as in WOW-Seg's training script
_SHARED = 1 / 4  # of the sample goes in equal parts to the groups, so that rare ones are seen
_AT_ONCE = 8  # photographs decoded at a time; one of SA-1B takes 10 MB
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_MASK = ("mask_id", "image_id", "shard", "jpg_offset", "jpg_bytes", "width", "height", "rle_counts", *_BOX)


# --- the whole table --------------------------------------------------------------------------------------


class Survey:
    """Counts over the whole table, and the sample; holds no more than `samples` rows of each group."""

    def __init__(self, samples: int, seed: int, group: str, counted: Sequence[str]) -> None:
        self.samples, self.seed, self.total, self._group = samples, seed, 0, group
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in (group, *counted)}
        self._lowest: dict[str, list[tuple[int, int]]] = {}  # group to (hash, mask id), ascending

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows of the table."""
        self.total += batch.num_rows
        for name, counter in self.counts.items():
            for found in batch[name].cast(pa.string()).drop_null().value_counts().to_pylist():
                counter[found["values"]] += found["counts"]
        ids, groups = batch["mask_id"].to_numpy(), np.array(batch[self._group].to_pylist(), np.str_)
        hashes = stable_hash(ids, self.seed)
        for group in np.unique(groups).tolist():
            here = np.flatnonzero(groups == group)
            here = here[np.argsort(hashes[here])[: self.samples]]
            found = zip(hashes[here].tolist(), ids[here].tolist(), strict=True)
            self._lowest[group] = sorted([*self._lowest.get(group, []), *found])[: self.samples]

    @property
    def share(self) -> int:
        """How many of each group the sample holds at least, if there are so many."""
        return max(1, int(self.samples * _SHARED / max(len(self._lowest), 1)))

    def told(self, shown: int) -> str:
        """Say how the sample was made."""
        text = f"{shown:,} of {self.total:,}, chosen by hash (seed {self.seed})"
        if len(self._lowest) > 1:
            text += f"; of every {self._group} at least {self.share}, so rare ones are shown more often than they occur"
        return text

    def sample(self) -> list[int]:
        """Return mask ids in the order of their hashes: each group's share, then the lowest of the rest."""
        ranked = [(rank >= self.share, *row) for rows in self._lowest.values() for rank, row in enumerate(rows)]
        chosen = sorted(ranked)[: self.samples]
        return [mask_id for _, _, mask_id in sorted(chosen, key=lambda row: row[1])]


# --- the sample -------------------------------------------------------------------------------------------


def pictures(run: Run, mask_ids: list[int]) -> dict[int, Picture | str]:
    """Draw regions; one that cannot be drawn has the reason in place of a picture."""
    found = sorted(rows(run.dataset("masks"), _MASK, mask_ids), key=lambda row: row["image_id"])
    groups = [list(group) for _, group in groupby(found, key=lambda row: row["image_id"])]
    known = shards(run)
    drawn: dict[int, Picture | str] = dict.fromkeys(mask_ids, "No picture: the table masks no longer has this mask.")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for made in pool.map(lambda group: _of_image(known, group), groups):
            drawn.update(made)
    return drawn


def rows(stored: StoredTable, columns: Sequence[str], mask_ids: list[int]) -> list[dict[str, Any]]:
    """Return the rows about these masks."""
    wanted = pads.field("mask_id").isin(pa.array(mask_ids, pa.int64()))
    table = stored.to_table(columns=list(columns), filter=wanted, batch_readahead=1, fragment_readahead=1)
    return list(table.to_pylist())


def _of_image(shards: dict[str, Shard], group: list[dict[str, Any]]) -> dict[int, Picture | str]:
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
