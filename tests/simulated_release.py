"""A release at its real size, as files alone: rows of images with small pictures, instances, categories. All simulated.

Categories are as many as the paper's and as frequent as words are: the names of the coarse tree, alone and behind a
colour or a material. Few masks and pictures are made; what is about an instance repeats them.
"""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pycocotools import mask as coco

from pipeline import regions
from pipeline.adjectives import COLOURS, MATERIALS

IMAGES, INSTANCES, CATEGORIES = 80_000, 200_000, 7_662  # arXiv:2605.16903 §3.4
WIDTH, HEIGHT = 160, 120
_SHAPES, _PICTURES = 400, 200
_ROWS = 65_536
_TREE = Path(__file__).parent.parent / "data_manifests" / "coarse_categories.toml"


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


def write(folder: Path, images: int = IMAGES, instances: int = INSTANCES, seed: int = 0) -> None:
    """Write the data files of a release; every category has an instance at least."""
    random, named = np.random.default_rng(seed), kinds()
    code = np.sort(_codes(len(named), instances, random))
    image = random.integers(images, size=instances)
    test = np.arange(images) % 4 > 0
    mini = np.arange(images) < min(1000, images // 4) * 4 // 3
    columns = {name: pa.array([getattr(kind, name) for kind in named]) for name in Kind._fields}
    for start in range(0, instances, _ROWS):
        part = slice(start, start + _ROWS)
        place, ids = pa.array(code[part]), np.arange(instances, dtype=np.int64)[part]
        told = {name: column.take(place) for name, column in columns.items()}
        table = _instances(ids, image[part], {**told, "split": np.where(test, "test", "train")[image[part]]}, random)
        name = f"instances-test-{start // _ROWS:05d}-of-{-(-instances // _ROWS):05d}.parquet"
        with regions.FileWriter(folder / "data" / name, "instances") as writer:
            writer.write(table)
    _images(folder, images, np.bincount(image, minlength=images), test, mini, random)
    of = {name: column.take(pa.array(code)) for name, column in columns.items()}
    counted = regions.count_categories(pa.table({**of, "image_id": image}))
    with regions.FileWriter(folder / "data" / "categories.parquet", "categories") as writer:
        writer.write(counted)


def _codes(categories: int, instances: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Every category once, the others as often as words are, in no order."""
    shares = random.permutation(1 / np.arange(1, categories + 1))
    rest = random.choice(categories, instances - categories, p=shares / shares.sum())
    return np.concatenate([np.arange(categories), rest])


def _instances(
    ids: npt.NDArray[np.int64], image: npt.NDArray[np.int64], told: dict[str, object], random: np.random.Generator
) -> pa.Table:
    rles, count = _shapes(np.random.default_rng(1)), len(ids)
    shape = pa.array(random.integers(len(rles), size=count))
    areas = np.array([coco.area(rle) for rle in rles], np.int64)
    masks = pa.array([{"size": [HEIGHT, WIDTH], "counts": r["counts"].decode()} for r in rles])
    known = {
        **{"instance_id": ids, "image_id": image, "category_raw": told["category"], "mini": [False] * count},
        **{"segmentation": masks.take(shape), "bbox_xywh": pa.array(coco.toBbox(rles).tolist()).take(shape)},
        **{"area": pa.array(areas).take(shape), "area_ratio": pa.array(areas / (WIDTH * HEIGHT)).take(shape)},
        **{"screened_by": ["simulated"] * count, "agreement": ["only-one"] * count, "namers": [["vlm"]] * count},
        **{"raw_names": pa.array([[n] for n in told["category"].to_pylist()])},  # type: ignore[attr-defined]
        **told,
    }
    fields = regions.SCHEMAS["instances"]
    return pa.table([_column(known.get(f.name), f, count) for f in fields], schema=fields)


def _column(given: object, field: pa.Field, count: int) -> pa.Array:
    if given is None:
        return pa.nulls(count, field.type)
    return (given if isinstance(given, pa.Array | pa.ChunkedArray) else pa.array(given)).cast(field.type)


def _shapes(random: np.random.Generator) -> list[dict[str, bytes]]:
    """Blobs of all sizes, with an edge that is not straight."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(_SHAPES):
        reach = 3 * 20 ** random.random()
        at = random.uniform([reach / 2, reach / 2], [WIDTH - reach / 2, HEIGHT - reach / 2])
        angle = np.arctan2(y - at[1], x - at[0])
        edge = reach * (1 + 0.25 * np.sin(random.integers(2, 7) * angle + random.random() * 6))
        mask = np.hypot(x - at[0], y - at[1]) < edge
        found.append(coco.encode(np.asfortranarray(mask, np.uint8)))
    return found


def pictures(count: int = _PICTURES, size: tuple[int, int] = (WIDTH, HEIGHT), quality: int = 80) -> list[bytes]:
    """Different JPEGs of coloured patches."""
    random, found = np.random.default_rng(2), []
    for _ in range(count):
        sink = io.BytesIO()
        cells = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=quality)
        found.append(sink.getvalue())
    return found


def _images(
    folder: Path, images: int, counts: npt.NDArray[np.int64], test: npt.NDArray[np.bool_],
    mini: npt.NDArray[np.bool_], random: np.random.Generator,
) -> None:  # fmt: skip
    made = pictures()
    fields = regions.schema("images", images=True)
    with regions.FileWriter(folder / "data" / "images-test-00000-of-00001.parquet", "images", images=True) as writer:
        for start in range(0, images, 4096):
            ids = np.arange(start, min(images, start + 4096))
            data = [made[i] for i in random.integers(len(made), size=len(ids))]
            names = [f"sa_{i}.jpg" for i in ids]
            known = {
                **{"image_id": ids, "file_name": names, "width": [WIDTH] * len(ids), "height": [HEIGHT] * len(ids)},
                **{"split": np.where(test[ids], "test", "train"), "mini": mini[ids], "instances": counts[ids]},
                **{"file_bytes": [len(d) for d in data]},
                "image": pa.array([{"bytes": d, "path": n} for d, n in zip(data, names, strict=True)]),
            }
            writer.write(pa.table([_column(known.get(f.name), f, len(ids)) for f in fields], schema=fields))
