"""Pictures of a data set's regions for pages: what is around a region, its outline on top."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from PIL import Image

from benchmark.dataset import Dataset, Region
from pipeline import gallery, images
from pipeline.errors import UserError
from pipeline.gallery import Picture
from pipeline.images import Box, Size

_PX = 280  # longer side
_SCALE = 2.0  # of the region's box, as in WOW-Seg's training script
_LEAST = 64  # px of the image; a region of one pixel is still shown with something around it


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
        pixels = dataset.image(image)
        regions = {region.instance_id: region for region in dataset.of_image(image)}
        return {instance: _picture(pixels, regions[instance]) for instance in instances}
    except (UserError, OSError, ValueError, KeyError) as error:
        return dict.fromkeys(instances, f"image {image} cannot be shown: {error}")


def _picture(pixels: Image.Image, region: Region) -> Picture:
    if pixels.size != (region.width, region.height):
        raise ValueError(f"it has {pixels.size[0]}×{pixels.size[1]} px, its masks {region.width}×{region.height}")
    window = _window((region.width, region.height), region.bbox_xywh)
    left, top, right, bottom = window
    size = images.fitted((right - left, bottom - top), _PX)
    mask = images.scaled_mask(region.mask()[top:bottom, left:right], size)
    return gallery.picture(pixels.resize(size, box=window, reducing_gap=2.0), gallery.outlined(mask))


def _window(size: Size, box: tuple[float, float, float, float]) -> Box:
    """Return what is shown of an image: `_SCALE` times the box around its middle, as far as the image goes."""
    sides = []
    for first, extent, limit in zip(box[:2], box[2:], size, strict=True):
        reach = max(_SCALE * extent, _LEAST, _SCALE * max(box[2:]) / 3) / 2
        middle = first + extent / 2
        start = min(max(0, int(middle - reach)), limit - 1)
        sides.append((start, max(start + 1, min(limit, int(middle + reach + 1)))))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom
