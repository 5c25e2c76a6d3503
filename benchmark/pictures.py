"""A region as a picture: what is around it, and its outline to lay over that. Scores and reports show the same."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from benchmark.dataset import Dataset
from pipeline import gallery, images
from pipeline.errors import UserError
from pipeline.gallery import Picture
from pipeline.images import Box, Photograph, Size
from pipeline.masks import decode_window

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow, and `decoded`, raise for a file that is no such image."""

_LONGEST = 224
"""px of a picture's longer side."""
_CONTEXT = 1.5
"""Side of what is shown, relative to the longer side of the region's box."""
_LEAST = 96
"""px of the image that are shown at least."""
_GREY, _WHITE = 84, 236


def window(bbox_xywh: Sequence[float], size: Size) -> Box:
    """Return the part of an image, of `size`, that is shown of a region: a square around it, kept inside."""
    left, top, width, height = bbox_xywh
    side = round(max(_CONTEXT * max(width, height), _LEAST))
    starts, stops = [], []
    for centre, whole in ((left + width / 2, size[0]), (top + height / 2, size[1])):
        start = max(0, min(round(centre - side / 2), whole - side))
        starts.append(start)
        stops.append(min(whole, start + side))
    return starts[0], starts[1], stops[0], stops[1]


def decoded(data: bytes, size: Size, windows: Sequence[Box]) -> Photograph:
    """Decode an image that should have `size`, a JPEG no larger than its windows need. Raises what is `UNREADABLE`."""
    with Image.open(io.BytesIO(data)) as image:
        if image.size != size:  # stated in its header; nothing is decoded yet
            raise ValueError(f"{size[0]}×{size[1]} px expected, {image.size[0]}×{image.size[1]} found")
        scale = min(1, max(_LONGEST / max(w[2] - w[0], w[3] - w[1]) for w in windows))
        image.draft("RGB", (round(size[0] * scale), round(size[1] * scale)))
        orientation = image.getexif().get(0x0112, 1)
        return Photograph(image.convert("RGB"), orientation if orientation in range(1, 9) else 1)


def layers(counts: str, size: Size, shown: Box, photo: Photograph) -> tuple[Image.Image, Image.Image]:
    """Return a region's surroundings, RGB, and its outline with a palette, upright; `size` is the image's in px."""
    mask = _mask(counts, size[1], shown)
    across, down = photo.pixels.width / size[0], photo.pixels.height / size[1]
    box = (shown[0] * across, shown[1] * down, shown[2] * across, shown[3] * down)
    clean = photo.pixels.resize(mask.shape[::-1], Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return photo.upright(clean), photo.upright(gallery.outlined(mask))


def shape(counts: str, height: int, shown: Box) -> Image.Image:
    """Return a region as a white shape on grey, for want of a photograph."""
    return Image.fromarray(np.where(_mask(counts, height, shown), _WHITE, _GREY).astype(np.uint8))


def _mask(counts: str, height: int, shown: Box) -> np.ndarray:
    size = images.fitted((shown[2] - shown[0], shown[3] - shown[1]), _LONGEST)
    return images.scaled_mask(decode_window(counts, height, shown), size)


# --- for pages --------------------------------------------------------------------------------------------


def draw(dataset: Dataset, of: Mapping[int, int]) -> dict[int, Picture | str]:
    """Return a picture of each instance, or why there is none; `of` gives the instance's image.

    Each image is read once. A data set that refers to its images only gets empty texts.
    """
    if not dataset.samples.has_images:
        return dict.fromkeys(of, "")
    by_image: defaultdict[int, list[int]] = defaultdict(list)
    for instance, image in of.items():
        by_image[image].append(instance)
    found: dict[int, Picture | str] = {}
    for image, instances in by_image.items():
        found |= _of_image(dataset, image, instances)
    return found


def _of_image(dataset: Dataset, image: int, instances: Sequence[int]) -> dict[int, Picture | str]:
    try:
        data = dataset.image_file(image)
        known = {region.instance_id: region for region in dataset.of_image(image)}
        regions = [known[instance] for instance in instances]
        size = regions[0].width, regions[0].height
        windows = [window(region.bbox_xywh, size) for region in regions]
        photo = decoded(data, size, windows)
    except (UserError, KeyError, *UNREADABLE) as error:
        return dict.fromkeys(instances, f"image {image} cannot be shown: {error}")
    return {
        region.instance_id: gallery.picture(*layers(region.counts, size, shown, photo))
        for region, shown in zip(regions, windows, strict=True)
    }
