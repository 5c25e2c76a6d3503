"""Shards whose regions all look different, so that an answer tells which region was asked about."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from sa1b_shards import HEIGHT, WIDTH, Members, square, write_tar


def noisy_jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def members(image_id: int, masks: int) -> Members:
    """One image with `masks` squares, no two alike."""
    places = [(left, top) for left in range(0, WIDTH - 8, 4) for top in range(0, HEIGHT - 8, 4)]
    notes = [square(image_id * 1000 + k, 6, *places[k]) for k in range(masks)]
    info = {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image_id}.jpg"}
    content = json.dumps({"image": info, "annotations": notes}).encode()
    return [(f"sa_{image_id}.jpg", noisy_jpeg(image_id)), (f"sa_{image_id}.json", content)]


def write_shard(folder: Path, number: int, images: int, masks: int) -> Path:
    first = 1000 * number + 1
    return write_tar(
        folder / f"sa_{number:06d}.tar", [m for i in range(first, first + images) for m in members(i, masks)]
    )
