"""From an image, its masks and their labels to what the model takes; no torch, so that data loaders need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from model import branches, mask2token, prompts, tiling
from model.branches import Layout, Row
from model.mask2token import Encoder
from model.prompts import Text
from model.tiling import Pixels
from pipeline import masks
from pipeline.errors import UserError
from pipeline.images import Size

Bools = npt.NDArray[np.bool_]
Mask = Bools | Mapping[str, Any]
"""A boolean (height, width) array, or a COCO compressed RLE: {"size": [height, width], "counts": text}."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What weights were trained with, and must be used with; kept beside them in `wowseg.json`."""

    template: str = "internvl2_5"
    """A file in data_manifests/prompts/wowseg/templates, by the name that InternVL's config.json gives."""
    prompt: str = "training"
    """A file in data_manifests/prompts/wowseg."""
    encoder: Encoder = "mask2token"
    scale: Annotated[float, msgspec.Meta(gt=0)] = mask2token.SCALE
    """Sides of the window around a mask over sides of the mask."""
    tiles: Annotated[int, msgspec.Meta(ge=1)] = tiling.TEST
    """The most tiles of an image; 4 in the authors' training, 12 in their evaluation."""


class Sample(NamedTuple):
    """One image with its masks, ready for the model."""

    pixels: Pixels
    """The image's tiles, then a picture for each mask: (tiles + masks, side, side, 3)"""
    cells: Bools
    """Which tokens of each picture are used, (tiles + masks, grid × grid)"""
    row: Row
    rescued: Bools
    """Masks that fell between all cells and were given one, (masks,)"""


@dataclass(frozen=True, kw_only=True)
class Preparer:
    """Makes samples for one checkpoint."""

    tokenizer: Any
    text: Text
    settings: Settings
    side: int = tiling.SIDE
    """px of a tile"""
    grid: int = mask2token.GRID
    """tokens along its side"""

    def sample(
        self,
        image: Image.Image,
        masks: Sequence[Mask],
        labels: Sequence[str] | None = None,
        layout: Layout = Layout(),  # noqa: B008 (frozen)
    ) -> Sample:
        """Prepare an image with at least one mask; without labels, to decode them.

        Raises `UserError` for a mask that is empty, malformed or of another size than the image, an empty label, or
        labels that are not one for each mask.
        """
        if not masks:
            raise UserError("there is no mask: nothing to name.")
        settings, picture = self.settings, image.convert("RGB")
        counts = [as_counts(mask, image.size, number) for number, mask in enumerate(masks)]
        answers = None if labels is None else self._answers(labels, len(masks), layout)
        cut = tiling.cut(picture, settings.tiles, self.side)
        regions, crops = mask2token.encode(
            cut.resized, image.size, counts, scale=settings.scale, grid=self.grid, encoder=settings.encoder
        )
        tiles = np.ones((len(cut.tiles), self.grid**2), np.bool_)
        cells = np.concatenate([tiles, np.stack([region.cells.ravel() for region in regions])])
        vectors = [int(region.cells.sum()) for region in regions]
        row = branches.build(self.text, tiles.size, vectors, answers, layout)
        rescued = np.array([region.rescued for region in regions])
        return Sample(tiling.pixels([*cut.tiles, *crops], self.side), cells, row, rescued)

    def _answers(self, labels: Sequence[str], count: int, layout: Layout) -> list[list[int]]:
        if len(labels) != count:
            raise UserError(f"{len(labels)} labels for {count} masks: one for each is needed.")
        texts = [label.strip() for label in labels]
        if "" in texts:
            raise UserError(f"label {texts.index('')} is empty: there is nothing to learn from it.")
        if layout.kind == "packed":
            texts[1:] = [f" {text}" for text in texts[1:]]
        return [prompts.plain(self.tokenizer, text) for text in texts]


def as_counts(mask: Mask, size: Size, number: int = 0) -> str:
    """Return a mask as COCO compressed RLE, checked against its image's `size` (width, height).

    Raises `UserError`, which calls the mask by `number`.
    """
    if isinstance(mask, np.ndarray):
        shape, counts = mask.shape, masks.encode(mask.astype(np.bool_)) if mask.ndim == 2 else ""
    else:
        shape, given = tuple(mask.get("size", ())), mask.get("counts")
        if not isinstance(given, str | bytes):
            raise UserError(f'mask {number}: neither a boolean array nor {{"size": [height, width], "counts": text}}.')
        counts = given.decode(errors="replace") if isinstance(given, bytes) else given
    if shape != (size[1], size[0]):
        told = "×".join(map(str, shape))
        raise UserError(f"mask {number} is {told} (height×width), its image {size[1]}×{size[0]}: they must be equal.")
    sums = masks.run_sums(pa.array([counts], pa.string()))
    if sums.malformed[0] or sums.total[0] != size[0] * size[1]:
        raise UserError(f"mask {number} is no COCO RLE of {size[1]}×{size[0]} (height×width): its runs do not fill it.")
    if not sums.area[0]:
        raise UserError(f"mask {number} is empty: there is nothing to name. Leave it out.")
    return counts
