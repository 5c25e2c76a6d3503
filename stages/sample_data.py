"""Shards in SA-1B's layout, made from photographs that ship inside scikit-image or from a COCO annotation.

For trying and testing: the pipeline reads them exactly as it reads SA-1B. Nobody should mistake one for
SA-1B, so ids start at 9,000,000,000, the shard is called `generated…`, and a SOURCES.md lies beside it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline import masks
from pipeline.errors import UsageError

FIRST_ID = 9_000_000_000
"""Image and mask ids of everything generated are at least this; SA-1B's image ids end near 11 million."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

PHOTOGRAPHS = {
    "astronaut.png": "NASA, public domain",
    "chelsea.png": "Stéfan van der Walt, CC0",
    "coffee.png": "Rachel Michetti, CC0",
    "rocket.jpg": "SpaceX, public domain",
    "camera.png": "Lav Varshney, CC0",
}
"""Photographs in scikit-image's wheel and their terms, as its documentation states them."""

_SCALES = (30, 100, 300, 800)
"""Felzenszwalb's scale: larger gives larger regions. SA-1B also holds parts, objects and groups."""
_MIN_REGIONS = (12, 25, 75, 200)
"""px, per scale: the finest must hold tiny masks, as SA-1B does."""
_PER_SCALE = 40
"""Regions taken per scale, spread evenly over their sizes: about 100 masks an image, as in SA-1B."""
_SAME = 0.8  # IoU above which regions of two scales are one


@dataclass(frozen=True)
class Picture:
    """An image with its masks, ready to be written."""

    image_id: int
    jpeg: bytes
    width: int
    height: int
    annotations: list[dict[str, Any]]


# --- the SA-1B layout -------------------------------------------------------------------------------------


def annotation(mask_id: int, mask: Mask, predicted_iou: float, stability_score: float) -> dict[str, Any]:
    """Build one SA-1B annotation of a boolean (height, width) mask that covers at least one pixel.

    The box is x, y, xmax − xmin, ymax − ymin, one less than the columns and rows covered, as in SA-1B.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = float(columns[0]), float(rows[0])
    across, down = float(columns[-1] - columns[0]), float(rows[-1] - rows[0])
    inside = np.argwhere(mask)[int(mask.sum()) // 2]
    height, width = mask.shape
    return {
        "bbox": [x, y, across, down],
        "area": int(mask.sum()),
        "segmentation": {"size": [height, width], "counts": masks.encode(mask)},
        "predicted_iou": predicted_iou,
        "point_coords": [[float(inside[1]), float(inside[0])]],
        "crop_box": [0.0, 0.0, float(width), float(height)],
        "id": mask_id,
        "stability_score": stability_score,
    }


def write_shard(path: Path, pictures: Iterable[Picture]) -> tuple[int, int]:
    """Write a tar in SA-1B's layout; return the number of images and masks."""
    images = count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for picture in pictures:
            name = f"sa_{picture.image_id}"
            info = {
                "image_id": picture.image_id,
                "width": picture.width,
                "height": picture.height,
                "file_name": f"{name}.jpg",
            }
            content = json.dumps({"image": info, "annotations": picture.annotations}).encode()
            for member_name, data in ((f"{name}.jpg", picture.jpeg), (f"{name}.json", content)):
                member = tarfile.TarInfo(f"./{member_name}")  # SA-1B's own names carry `./`
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            images, count = images + 1, count + len(picture.annotations)
    return images, count


def _as_jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=92)
    return sink.getvalue()


# --- photographs ------------------------------------------------------------------------------------------


def from_photographs() -> Iterator[Picture]:
    """Yield the photographs with class-agnostic masks from classical segmentation at several scales."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    for number, name in enumerate(PHOTOGRAPHS):
        with Image.open(folder / name) as image:
            rgb = image.convert("RGB")
        image_id = FIRST_ID + number
        first_mask = FIRST_ID + 1000 * number
        notes = [
            annotation(first_mask + k, mask, score, score) for k, (mask, score) in enumerate(segment(np.asarray(rgb)))
        ]
        yield Picture(image_id, _as_jpeg(rgb), rgb.width, rgb.height, notes)


def segment(rgb: Pixels) -> list[tuple[Mask, float]]:
    """Find regions of an RGB image of any kind of thing (Felzenszwalb and Huttenlocher, IJCV 2004), at four scales.

    Returns distinct masks, largest first, each with a score in [0, 1]: the IoU with the most similar region of
    another scale, which is what a region's stability means here.
    """
    from skimage.segmentation import felzenszwalb

    regions: list[tuple[int, Mask]] = []
    for scale, min_region in zip(_SCALES, _MIN_REGIONS, strict=True):
        labels = felzenszwalb(rgb, scale=scale, sigma=0.6, min_size=min_region)
        by_size = np.argsort(np.bincount(labels.ravel()), kind="stable")
        chosen = by_size[np.unique(np.linspace(0, len(by_size) - 1, _PER_SCALE).round().astype(int))]
        regions += [(scale, labels == label) for label in chosen]
    regions.sort(key=lambda region: -int(region[1].sum()))
    overlap = masks.iou_matrix([masks.encode(mask) for _, mask in regions], rgb.shape[0], rgb.shape[1])
    scales = np.array([scale for scale, _ in regions])
    distinct: list[int] = []
    for k in range(len(regions)):
        if not distinct or overlap[k, distinct].max() < _SAME:
            distinct.append(k)
    return [(regions[k][1], round(float(overlap[k, scales != scales[k]].max()), 4)) for k in distinct]


# --- COCO -------------------------------------------------------------------------------------------------


def from_coco(annotation_file: Path, image_folder: Path, names: dict[int, str]) -> Iterator[Picture]:
    """Yield the images of a COCO instances file with its masks; fill `names` with mask id to category name.

    Images and annotations keep their COCO ids plus 9,000,000,000. Polygons, RLE and crowd regions are taken;
    annotations without a pixel are left out. Raises `UsageError` for a file that is not COCO's.
    """
    coco = _read_coco(annotation_file)
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for entry in coco["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    for info in coco["images"]:
        path = image_folder / info["file_name"]
        if not path.is_file():
            raise UsageError(
                f"{annotation_file}: image {info['id']} names {info['file_name']}, which is not in {image_folder}."
            )
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            jpeg = data if image.format == "JPEG" else _as_jpeg(image)
        notes = []
        for entry in by_image.get(info["id"], []):
            mask = _coco_mask(entry, height, width)
            if mask.any():
                notes.append(annotation(FIRST_ID + entry["id"], mask, 1.0, 1.0))
                names[FIRST_ID + entry["id"]] = categories[entry["category_id"]]
        yield Picture(FIRST_ID + info["id"], jpeg, width, height, notes)


def _read_coco(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot read it as JSON ({error}).") from error
    missing = [
        key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or key not in content
    ]
    if missing:
        raise UsageError(f"{path}: not a COCO instances file: without {', '.join(missing)}.")
    return dict(content)


def _coco_mask(entry: dict[str, Any], height: int, width: int) -> Mask:
    from pycocotools import mask as coco

    shape = entry["segmentation"]
    if isinstance(shape, list):
        shape = [polygon for polygon in shape if len(polygon) >= 6]
        rle = (
            coco.merge(coco.frPyObjects(shape, height, width))
            if shape
            else coco.encode(np.zeros((height, width), np.uint8, "F"))
        )
    else:
        rle = coco.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
    return np.asarray(coco.decode(rle), np.bool_)


def write_names(path: Path, names: dict[int, str]) -> None:
    """Write the true names as Parquet: mask_id, category."""
    table = pa.table(
        {"mask_id": pa.array(list(names), pa.int64()), "category": pa.array(list(names.values()), pa.string())}
    )
    pq.write_table(table, path)


# --- the command ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What `rr7k sample-data` made."""

    shard: Path
    images: int
    masks: int
    names: Path | None = None


def write_photographs(folder: Path) -> Written:
    """Write the photographs as `generated_000000.tar` and their sources as SOURCES.md."""
    folder.mkdir(parents=True, exist_ok=True)
    shard = folder / "generated_000000.tar"
    images, count = write_shard(shard, from_photographs())
    lines = [
        f"- sa_{FIRST_ID + k}.jpg: {name} of scikit-image ({terms})"
        for k, (name, terms) in enumerate(PHOTOGRAPHS.items())
    ]
    note = (
        "# Generated, not SA-1B\n\nThe masks are regions found by classical segmentation; predicted_iou and "
        "stability_score are their overlap between scales, not SAM's estimates.\n\n"
    )
    (folder / "SOURCES.md").write_text(note + "\n".join(lines) + "\n", encoding="utf-8")
    return Written(shard, images, count)


def write_coco(folder: Path, annotation_file: Path, image_folder: Path) -> Written:
    """Write a COCO annotation as `generated_coco_000000.tar` and its true names as `names.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    shard = folder / "generated_coco_000000.tar"
    names: dict[int, str] = {}
    images, count = write_shard(shard, from_coco(annotation_file, image_folder, names))
    write_names(folder / "names.parquet", names)
    (folder / "SOURCES.md").write_text(
        f"# Generated from {annotation_file.name}, not SA-1B\n\nMasks and images are those of the "
        "annotation file; ids are its ids plus 9,000,000,000.\n",
        encoding="utf-8",
    )
    return Written(shard, images, count, folder / "names.parquet")
