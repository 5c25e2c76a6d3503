"""A segmenter that needs no weights, for trying: regions of even colour, by scikit-image. It is no SAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.images import within
from pipeline.segmenters import Bools, Floats, Proposal

if TYPE_CHECKING:
    from PIL import Image

_Kind = TypeVar("_Kind", bound=np.generic)

_LONGEST = 512  # px of the picture that is cut into regions: half a second
_SCALES = (100, 400, 1600)  # Felzenszwalb's: larger gives larger regions; as SAM offers part, thing and group


class Superpixels:
    """See `pipeline.segmenters.Segmenter`."""

    def look(self, image: Image.Image) -> _Look:
        """Cut an RGB image into regions of three sizes."""
        return _Look(image)

    def segment(self, image: Image.Image, boxes_xyxy: Floats) -> Iterator[Bools]:
        """See `Segmenter`."""
        return self.look(image).boxes(boxes_xyxy)


class _Look:
    def __init__(self, image: Image.Image) -> None:
        try:
            from skimage.segmentation import felzenszwalb
        except ImportError as error:
            raise UsageError(f"{error}: superpixels need: pip install 'rr7k[pipeline]'") from error
        small = np.asarray(image.resize(within(image.size, _LONGEST)))
        self._size = image.size
        self._rows = np.arange(image.height) * small.shape[0] // image.height
        self._columns = np.arange(image.width) * small.shape[1] // image.width
        self._regions: list[npt.NDArray[np.int64]] = [
            felzenszwalb(small, scale=scale, sigma=0.8, min_size=scale // 2) for scale in _SCALES
        ]

    def boxes(self, boxes_xyxy: Floats) -> Iterator[Bools]:
        """Yield what lies mostly inside each box; where nothing does, the box itself."""
        finest, (width, height) = self._regions[0], self._size
        areas = np.bincount(finest.ravel())
        for box in boxes_xyxy.tolist():
            left, right = np.clip([box[0], box[2]], 0, width).round().astype(int)
            top, bottom = np.clip([box[1], box[3]], 0, height).round().astype(int)
            inside = np.zeros((height, width), np.bool_)
            inside[top:bottom, left:right] = True
            shown = self._enlarged(finest)
            held = np.bincount(shown[inside], minlength=len(areas)) / np.bincount(shown.ravel(), minlength=len(areas))
            found = (held > 0.5)[shown]
            yield found if found.any() else inside

    def points(self, points_xy: Floats, least_iou: float = float("-inf")) -> Iterator[list[Proposal]]:
        """Yield the regions that hold each point; all are thought to fit."""
        for x, y in points_xy.tolist():
            row, column = self._rows[int(y)], self._columns[int(x)]
            yield [Proposal(self._enlarged(regions == regions[row, column]), 1.0, 1.0) for regions in self._regions]

    def _enlarged(self, small: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
        found: npt.NDArray[_Kind] = small[self._rows[:, None], self._columns]
        return found
