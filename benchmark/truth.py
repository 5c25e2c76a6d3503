"""The side of a score that a model cannot change: which benchmark, which split, and its fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from benchmark import checksums
from pipeline.decoding import UNDECODABLE
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples

TEST, MINI = "test", "mini"

_COLUMNS = (
    "instance_id", "image_id", "category", "category_raw", "coarse_primary", "area_ratio",
    "namer_models", "verifier_model", "screened_by",
)  # fmt: skip
"""What `benchmark.score` makes use of."""

_NAMED = ("instance_id", "image_id", "category", "category_raw")

_OSPREY = {"LVIS": 4004, "PACO": 4263}
"""Instances of Osprey's two lists, by which published rows are measured (wowseg_facts.md A.3)."""


class Truth(NamedTuple):
    """A benchmark, or a split of it."""

    folder: Path
    name: str
    """As a release calls itself, with its version; of an imported data set the folder's."""
    data_set: str
    """RR-7K, LVIS or PACO, as published tables call them; empty for any other."""
    split: str
    """As the rows have it, or mini."""
    fingerprint: str
    instances: pa.Table
    """Of the split."""
    categories: pa.Table | None
    everything: pa.Table
    """The instances of all splits, by what predictions can name them."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of its benchmark."""
        counts = {"instances": len(self.instances), "images": pc.count_distinct(self.instances["image_id"]).as_py()}
        named = {"name": self.name, "data_set": self.data_set, "split": self.split, "fingerprint": self.fingerprint}
        return named | counts

    @property
    def warnings(self) -> list[str]:
        """Say what keeps published numbers of a data set of this name from being about the same instances."""
        if self.data_set == "RR-7K" and self.name != "RR-7K":
            return [f"Published RR-7K rows are of its authors' release, not of {self.name}: other instances."]
        wanted, here = _OSPREY.get(self.data_set), len(self.instances)
        if wanted and here != wanted:
            return [f"Published {self.data_set} rows are of Osprey's {wanted:,} instances; here are {here:,}."]
        return []


def load(folder: Path, split: str = "") -> Truth:
    """Open a release, or any data set in its format; `split` as its rows have it, or mini: of test's the small subset.

    Without `split`: test, or the only one there is. Raises `UsageError` for a split that is not there, `UserError` for
    a folder that is no data set, or a release that was changed since it was made.
    """
    samples = RegionSamples(folder)
    chosen = split or _default(samples)
    where = pc.field("split") == (TEST if chosen == MINI else chosen)
    if chosen == MINI:
        where &= pc.field("mini")
    there = samples.dataset("instances").schema.names
    table = samples.read("instances", [name for name in _COLUMNS if name in there], where)
    if not len(table):
        raise UsageError(f"{folder}: no instances in split {chosen}. There are: {', '.join(_splits(samples))}.")
    categories = samples.read("categories") if samples.files("categories") else None
    name, data_set = _identity(folder)
    named = samples.read("instances", list(_NAMED))
    return Truth(folder, name, data_set, chosen, fingerprint(samples), table, categories, named)


def fingerprint(samples: RegionSamples) -> str:
    """Return the hash of a data set's instances: the same whether or not it holds its images.

    Raises `UserError` when a release's own checksums say otherwise.
    """
    stated = _stated(samples.folder)
    digest = hashlib.sha256()
    for path in samples.files("instances"):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if stated and stated.get(f"data/{path.name}") != found:
            raise UserError(f"{path}: not as {checksums.FILE} has it: the release was changed. Get it again.")
        digest.update(f"{path.name} {found}\n".encode())
    return digest.hexdigest()


def _stated(folder: Path) -> dict[str, str]:
    if not (folder / checksums.FILE).is_file():  # an imported data set
        return {}
    lines = (folder / checksums.FILE).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _splits(samples: RegionSamples) -> list[str]:
    found = pc.unique(samples.read("instances", ["split"])["split"]).to_pylist()
    return sorted(found)


def _default(samples: RegionSamples) -> str:
    found = _splits(samples)
    if TEST in found or not found:
        return TEST
    if len(found) > 1:
        raise UsageError(f"{samples.folder}: which --split? There are: {', '.join(found)}.")
    return found[0]


def _identity(folder: Path) -> tuple[str, str]:
    """Return the name, and the name of the data set in published tables."""
    for file in ("perturbed.json", "stats.json", "import.json"):
        try:
            told = msgspec.json.decode((folder / file).read_bytes(), type=dict[str, Any])
        except (OSError, *UNDECODABLE):
            continue
        if file == "perturbed.json":  # the published rows are of the masks as they were
            return str(told["name"]), ""
        if file == "stats.json":
            return str(told.get("name", folder.name)), "RR-7K"
        return _imported(folder, str(told.get("kind", "")), str(told.get("sources", "")).lower())
    return folder.name, ""


def _imported(folder: Path, kind: str, sources: str) -> tuple[str, str]:
    if kind == "rr7k":
        return "RR-7K", "RR-7K"
    named = kind if kind in ("lvis", "paco") else next((n for n in ("lvis", "paco") if n in sources), "")
    return folder.resolve().name, named.upper() if kind in ("lvis", "paco", "osprey") else ""
