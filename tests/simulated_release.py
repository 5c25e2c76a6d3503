"""A run at the real release's size: shards of small pictures, masks, names, checks and votes. All simulated.

Categories are as many as the paper's and as frequent as words are: the names of the coarse tree, alone and behind a
colour or a material. Every picture is another; few masks are made, and what is about an instance repeats them.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from released_runs import decide, decision, name, pair, verdict
from sa1b_shards import build, commit, write_tar

from pipeline.adjectives import COLOURS, MATERIALS
from pipeline.run import Run
from stages.sample_data import annotation

IMAGES, INSTANCES, CATEGORIES = 80_000, 200_000, 7_662  # arXiv:2605.16903 §3.4
WIDTH, HEIGHT = 160, 120
_SHAPES, _SHARD, _AT_ONCE = 400, 8_000, 50_000
_UNSEEN = 4
"""One image in so many was looked at by nobody."""
_TREE = Path(__file__).parent.parent / "data_manifests" / "coarse_categories.toml"

Row = dict[str, Any]


class Kind(NamedTuple):
    """A category and its coarse groups."""

    category: str
    coarse_primary: str
    coarse_secondary: str


def kinds(count: int = CATEGORIES) -> list[Kind]:
    """Categories in order: all names of the tree, then as many behind an adjective, by chance."""
    tree = tomllib.loads(_TREE.read_text(encoding="utf-8"))["group"]
    plain = [Kind(name, group["primary"], group["secondary"]) for group in tree for name in group["names"]]
    adjectives = sorted(COLOURS | MATERIALS)
    longer = [kind._replace(category=f"{adjective} {kind.category}") for adjective in adjectives for kind in plain]
    chosen = np.random.default_rng(1).permutation(len(longer))
    return sorted([*plain, *(longer[place] for place in chosen)][:count])


def write(folder: Path, images: int = IMAGES, instances: int = INSTANCES) -> Run:
    """Write shards and a run of them, to be released unscreened: of three images in four a program judged all pairs.

    Images are numbered from 1, masks 100 · image and on; every category has an instance at least.
    """
    random, named = np.random.default_rng(0), kinds()
    image = np.sort(np.concatenate([np.arange(images), random.integers(images, size=instances - images)])) + 1
    mask = image * 100 + np.arange(instances) - np.searchsorted(image, image)
    _shards(folder / "shards", image, mask, random)
    run = Run(str(folder / "run"))
    build(run, folder / "shards")
    _named(run, list(zip(mask.tolist(), _categories(named, instances, random), strict=True)))
    sink = io.StringIO()
    rows = csv.writer(sink)
    rows.writerow(["name", "primary", "secondary", "nearest", "score", "labelled", "decision"])
    rows.writerows([*kind, "", "", "no", "ok"] for kind in named)
    run.folder.replace("coarse-groups.csv", sink.getvalue().encode())
    return run


def _categories(named: Sequence[Kind], instances: int, random: np.random.Generator) -> list[str]:
    """Every category once, the others as often as words are, in no order."""
    shares = random.permutation(1 / np.arange(1, len(named) + 1))
    rest = random.choice(len(named), instances - len(named), p=shares / shares.sum())
    return [named[code].category for code in random.permutation(np.concatenate([np.arange(len(named)), rest]))]


def _named(run: Run, named: Sequence[tuple[int, str]]) -> None:
    """Write what was named, checked and decided, some at a time."""
    commit(run, screenings=[], queue=[])
    for start in range(0, len(named), _AT_ONCE):
        part = named[start : start + _AT_ONCE]
        made = {"pairs": pair, "names": name, "verdicts": verdict}
        commit(run, **{table: [row(*one) for one in part] for table, row in made.items()})
    seen = [one for one in named if one[0] // 100 % _UNSEEN]
    decide(run, [decision(*one, by="simulated") for one in seen])


# --- shards -----------------------------------------------------------------------------------------------


def _shards(
    folder: Path, image: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], random: np.random.Generator
) -> None:
    folder.mkdir(parents=True)
    shapes = _shapes(np.random.default_rng(1))
    for first in range(1, int(image[-1]) + 1, _SHARD):
        ids = range(first, min(first + _SHARD, int(image[-1]) + 1))
        starts = np.searchsorted(image, [*ids, ids[-1] + 1])
        of = {number: mask[start:stop] for number, start, stop in zip(ids, starts[:-1], starts[1:], strict=True)}
        write_tar(folder / f"sa_{first // _SHARD:06d}.tar", _members(of, shapes, random))


def _members(
    of: dict[int, npt.NDArray[np.int64]], shapes: Sequence[Row], random: np.random.Generator
) -> Iterable[tuple[str, bytes]]:
    for (image, masks), data in zip(of.items(), pictures(len(of), seed=min(of)), strict=True):
        info = {"image_id": image, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image}.jpg"}
        chosen = random.choice(len(shapes), len(masks), replace=False)  # a mask once in an image
        found = [{**shapes[shape], "id": own} for shape, own in zip(chosen, masks.tolist(), strict=True)]
        yield f"sa_{image}.jpg", data
        yield f"sa_{image}.json", json.dumps({"image": info, "annotations": found}).encode()


def _shapes(random: np.random.Generator) -> list[Row]:
    """Blobs of all sizes, with an edge that is not straight."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(_SHAPES):
        reach = 3 * 20 ** random.random()
        at = random.uniform([reach / 2, reach / 2], [WIDTH - reach / 2, HEIGHT - reach / 2])
        angle = np.arctan2(y - at[1], x - at[0])
        edge = reach * (1 + 0.25 * np.sin(random.integers(2, 7) * angle + random.random() * 6))
        found.append(annotation(0, np.hypot(x - at[0], y - at[1]) < edge, 0.9, 0.97))
    return found


def pictures(count: int, size: tuple[int, int] = (WIDTH, HEIGHT), quality: int = 80, seed: int = 2) -> Iterable[bytes]:
    """Different JPEGs of coloured patches."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        sink = io.BytesIO()
        cells = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=quality)
        yield sink.getvalue()
