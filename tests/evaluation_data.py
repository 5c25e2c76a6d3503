"""A folder of data as `rr7k evaluate` wants it, of two small photographs, each data set in its own layout."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small_benchmarks
from PIL import Image
from small_benchmarks import HEIGHT, WIDTH

SQUARE, OBLONG = [4, 4, 20, 4, 20, 20, 4, 20], [30, 10, 58, 10, 58, 40, 30, 40]
"""Polygons, 16 × 16 and 28 × 30 px."""
_PHOTOGRAPHS = (1, 2)


def everything(data: Path) -> Path:
    """What all four tables take but for the weights of segmenters."""
    coco(data)
    small_benchmarks.write(data / "rr7k")
    cityscapes(data)
    ade20k(data)
    context(data)
    return data


def coco(data: Path) -> None:
    """Osprey's lists, with the photographs, and the maps of COCO-Stuff."""
    for name in ("lvis", "paco"):
        path = data / "osprey" / f"{name}_val_1k_category.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([_record(number) for number in _PHOTOGRAPHS]))
    for number in _PHOTOGRAPHS:
        photograph(data / "coco/val2017" / f"{number:012d}.jpg", number)
        _labels(data / "coco/stuffthingmaps_trainval2017/val2017" / f"{number:012d}.png", (0, 1, 255))


def _record(number: int) -> dict[str, Any]:
    return {
        "id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH,
        "categories": ["dog", "cup"], "annotations": [{"segmentation": [one]} for one in (SQUARE, OBLONG)],
    }  # fmt: skip


def cityscapes(data: Path) -> None:
    for number in _PHOTOGRAPHS:
        name = f"town/town_{number:06d}_000000"
        photograph(data / "cityscapes/leftImg8bit/val" / f"{name}_leftImg8bit.png", number, "PNG")
        maps = data / "cityscapes/gtFine/val"
        _labels(maps / f"{name}_gtFine_labelIds.png", (7, 26, 0))  # road, car, void
        _labels(maps / f"{name}_gtFine_instanceIds.png", (7, 26_000, 0), np.uint16)


def ade20k(data: Path) -> None:
    """The small version, as maps and as panoptic, and the full one."""
    small, full = data / "ADEChallengeData2016", data / "ADE20K_2021_17_01"
    names = [f"ADE_val_{number:08d}" for number in _PHOTOGRAPHS]
    for number, name in zip(_PHOTOGRAPHS, names, strict=True):
        photograph(small / "images/validation" / f"{name}.jpg", number)
        _labels(small / "annotations/validation" / f"{name}.png", (1, 13, 0))  # wall, person, void
        _painted(small / "ade20k_panoptic_val" / f"{name}.png")
        photograph(full / "images_detectron2/validation" / f"{name}.jpg", number)
        _labels(full / "annotations_detectron2/validation" / f"{name}.tif", (0, 1, 65535), np.uint16)
    (small / "ade20k_panoptic_val.json").write_text(json.dumps(_panoptic(names)))


def _panoptic(names: Sequence[str]) -> dict[str, Any]:
    segments = [{"id": 1, "category_id": 0, "iscrowd": 0}, {"id": 2, "category_id": 12, "iscrowd": 0}]
    return {
        "images": [{"id": name, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT} for name in names],
        "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": segments} for n in names],
        "categories": [{"id": 0, "name": "wall", "isthing": 0}, {"id": 12, "name": "person", "isthing": 1}],
    }


def context(data: Path) -> None:
    for number in _PHOTOGRAPHS:
        photograph(data / "pascal_ctx_d2/images/validation" / f"2008_{number:06d}.jpg", number)
        maps = data / "pascal_ctx_d2/annotations_ctx459/validation"
        _labels(maps / f"2008_{number:06d}.tif", (0, 1, 65535), np.uint16)


def photograph(path: Path, number: int, form: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_benchmarks.photograph(number, form))


def _map(values: Sequence[int], kind: Any) -> Any:
    """The left of an image, the right, and a stripe below."""
    pixels = np.full((HEIGHT, WIDTH), values[0], kind)
    pixels[:, WIDTH // 2 :] = values[1]
    pixels[-8:] = values[2]
    return pixels


def _labels(path: Path, values: Sequence[int], kind: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_map(values, kind)).save(path)


def _painted(path: Path) -> None:
    """A panoptic map of segments 1 and 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[..., 0] = _map((1, 2, 0), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(colours).save(sink, "PNG")
    path.write_bytes(sink.getvalue())
