"""Masks from files, and named masks into files: JSON in the shape of COCO and SA-1B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from PIL import Image
from pycocotools import mask as coco

from model.inputs import Mask
from model.scenes import Region
from pipeline.decoding import UNDECODABLE
from pipeline.errors import UserError

_Side = Annotated[int, msgspec.Meta(ge=1, le=65_535)]  # px, JPEG's most: more could not be counted in 32 bits


class _Rle(msgspec.Struct):
    size: tuple[_Side, _Side]
    counts: str | list[int]


class _Annotation(msgspec.Struct):
    segmentation: _Rle


class _Annotations(msgspec.Struct):
    annotations: list[_Annotation]


def read(path: Path) -> list[Mask]:
    """Read the masks of one image: SA-1B's JSON, what `as_json` writes, or a plain list of COCO RLEs.

    RLEs may be compressed or not. Raises `UserError` that says what is wrong and where.
    """
    try:
        data = path.read_bytes()
        listed = data.lstrip()[:1] == b"["
        found = (
            msgspec.json.decode(data, type=list[_Rle])
            if listed
            else [one.segmentation for one in msgspec.json.decode(data, type=_Annotations).annotations]
        )
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except UNDECODABLE as error:
        raise UserError(
            f"{path}: {error}. Masks are a list of COCO RLEs, or SA-1B's JSON: "
            '{"annotations": [{"segmentation": {"size": [height, width], "counts": …}}]}.'
        ) from None
    return [_mask(path, number, rle) for number, rle in enumerate(found)]


def _mask(path: Path, number: int, rle: _Rle) -> Mask:
    if isinstance(rle.counts, str):
        return {"size": list(rle.size), "counts": rle.counts}
    if min(rle.counts, default=0) < 0 or sum(rle.counts) != rle.size[0] * rle.size[1]:
        raise UserError(f"{path}: mask {number}: its runs do not fill {rle.size[1]}×{rle.size[0]} px.")
    packed: dict[str, Any] = coco.frPyObjects({"size": list(rle.size), "counts": rle.counts}, *rle.size)
    return packed


def as_json(name: str, image: Image.Image, regions: Sequence[Region]) -> bytes:
    """Return named masks of an image as JSON: `bbox` is left, top, width and height, `area` in px.

    All of it refers to the image as it was named: `width` and `height` are those after it was turned upright.
    """
    told = {
        "image": {"file_name": name, "width": image.width, "height": image.height},
        "annotations": [
            {
                "id": number,
                "label": region.label,
                "logprob": round(region.logprob, 4),
                "bbox": [*region.box[:2], region.box[2] - region.box[0], region.box[3] - region.box[1]],
                "area": region.area,
                "segmentation": {"size": [image.height, image.width], "counts": region.counts},
            }
            for number, region in enumerate(regions, 1)
        ],
    }
    return msgspec.json.format(msgspec.json.encode(told)) + b"\n"
