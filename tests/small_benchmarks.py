"""Small benchmarks to be answered and scored, written by hand, and a similarity with known values."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmark.metrics import Floats
from benchmark.similarity import Similarity
from pipeline import masks, regions

HEIGHT, WIDTH = 48, 64
NAMES = ("dog", "cup", "car")


class Known(Similarity):
    """1 for equal texts, else 0.5; 0.25 where the first is empty."""

    def of_pairs(self, first: Sequence[str], second: Sequence[str]) -> Floats:
        pairs = zip(first, second, strict=True)
        return np.array([1.0 if a == b else 0.5 if a.strip() else 0.25 for a, b in pairs], np.float64)


def photograph(seed: int, form: str = "JPEG") -> bytes:
    """Noise, so that every region looks like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form)
    return sink.getvalue()


def instance(image: int, place: int, category: str, **changes: Any) -> dict[str, Any]:
    """Instance image * 1000 + place, a square of 6 px; 70 places in an image look all different."""
    left, top = 4 * (place % 14), 4 * (place // 14)
    pixels = np.zeros((HEIGHT, WIDTH), np.bool_)
    pixels[top : top + 6, left : left + 6] = True
    return {
        "instance_id": image * 1000 + place,
        "image_id": image,
        "category": category,
        "category_raw": category,
        "split": "test",
        "mini": image == 1,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": masks.encode(pixels)},
        "bbox_xywh": [left, top, 6, 6],
        "area": 36,
        "area_ratio": 36 / (HEIGHT * WIDTH),
        **changes,
    }


def image(number: int, instances: int, data: bytes | None, split: str = "test") -> dict[str, Any]:
    about = {"image_id": number, "file_name": f"{number}.jpg", "split": split, "mini": number == 1}
    held = None if data is None else {"bytes": data, "path": f"{number}.jpg"}
    return {**about, "width": WIDTH, "height": HEIGHT, "instances": instances, "image": held}


def write(folder: Path, images: int = 2, each: int = 3, *, embedded: bool = True, **changes: Any) -> Path:
    """Images 1, 2, …, each with a dog, a cup and a car (and again); `changes` go into every instance."""
    rows = [instance(i, k, NAMES[k % 3], **changes) for i in range(1, images + 1) for k in range(each)]
    split = changes.get("split", "test")
    files = [image(i, each, photograph(i) if embedded else None, split) for i in range(1, images + 1)]
    regions.write(folder, regions.from_rows("instances", rows), regions.from_rows("images", files))
    return folder


def predict(path: Path, answers: Mapping[int, str | None], **columns: str) -> Path:
    """A table of predictions; further columns hold the same in every row."""
    texts = pa.array(list(answers.values()), pa.string())
    same = {name: [value] * len(answers) for name, value in columns.items()}
    pq.write_table(pa.table({"instance_id": list(answers), "text": texts, **same}), path)
    return path


RIGHT = {1000: "dog", 1001: "cup", 1002: "car", 2000: "dog", 2001: "cup", 2002: "car"}
"""Right answers to `write(folder)`."""
