"""Open-vocabulary segmentation (the paper's Table 2): named masks against panoptic and semantic ground truth.

The masks are the ground truth's own, which a model has named, as in the published rows; or, with `masks`, those of
another data set of the same images. Images are gone through one by one: memory is that of one image's maps, of some
thousand masks as run lengths, and of the distinct texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from benchmark import panoptic
from benchmark.by_image import REGION, ByImage, Image, Row, pixels
from benchmark.panoptic import NO_CLASS, Map, Matches, Overlay, Segments
from benchmark.vocabularies import Answers, Vocabulary
from pipeline.errors import UserError

Uncovered = Literal["first", "none"]
"""The class in the semantic map of pixels that no mask covers: the vocabulary's first, as it comes out in Osprey's
script (the argmax of zeros; wowseg_facts.md B.1, step 6), or none."""


class Sources(NamedTuple):
    """Data sets of the same images; those other than `truth` are matched by the names of the image files."""

    truth: ByImage
    """Panoptic ground truth: segments that share no pixel, with iscrowd."""
    masks: ByImage | None = None
    """What was named; None: the segments of `truth`."""
    semantic: ByImage | None = None
    """Semantic ground truth, where it is not just the classes of the segments: ADE20K's says more."""


class Named(NamedTuple):
    """What a model calls the masks."""

    rows: Mapping[int, int]
    """Row of `cosines` by instance id."""
    cosines: npt.NDArray[np.float32]
    """(texts, C): how near each is to each class; the last row NaN: no text, or one without a word."""

    @classmethod
    def of(cls, instances: Sequence[int], answers: Answers) -> Self:
        """Give each instance the text at its place."""
        none = np.full((1, answers.cosines.shape[1]), np.nan, np.float32)
        return cls(dict(zip(instances, answers.codes.tolist(), strict=True)), np.vstack([answers.cosines, none]))

    def of_masks(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        """Return (masks, C), as `panoptic.combine` takes them."""
        return self.cosines[[self.rows.get(row["instance_id"], -1) for row in rows]]


class Segmentation(msgspec.Struct):
    """The scores, 0 to 1, and what they are made of."""

    quality: dict[str, panoptic.Quality]
    """all, things, stuff."""
    miou: float
    classes: list[dict[str, object]]
    """name, thing, pq, sq, rq, iou, tp, fp, fn of each class that occurs."""
    images: int
    masks: int
    nameless: int
    """Masks without a text, or with one without a word: they are in no map."""
    dropped: int
    """Masks that are no segment, because they lost more than a fifth of themselves to others."""


def score(
    sources: Sources,
    named: Named,
    vocabulary: Vocabulary,
    *,
    uncovered: Uncovered = "first",
    over: Literal["true", "any"] = "true",
    told: Callable[[int], None] = lambda images: None,
) -> Segmentation:
    """Score a model's names; `told` hears of images that are done. `over`: see `panoptic.mean_iou`.

    Raises `UsageError` for a vocabulary that does not say what is a thing, `UserError` for categories of no class,
    ground truth that overlaps, data sets that do not fit together, and damaged masks.
    """
    tally = _Tally(vocabulary, 0 if uncovered == "first" else NO_CLASS)
    names = {image.image_id: name for name, image in sources.truth.by_name().items()}
    masks, semantic = (other and _Other(other, names) for other in (sources.masks, sources.semantic))
    for part in sources.truth.parts():
        rows = sources.truth.rows(part, _TRUTH)
        named_rows = masks.rows(part) if masks else rows
        judged_rows = semantic.rows(part) if semantic else rows
        for image in part:
            here, shown, judged = (found.get(image.image_id, []) for found in (rows, named_rows, judged_rows))
            tally.add(image, here, shown, judged, named)
            told(1)
    return tally.result(over)


_SHARES, _COUNTS = ("pq", "sq", "rq", "iou"), ("tp", "fp", "fn")
_TRUTH = (*REGION, "iscrowd")


class _Other:
    """Another data set of the same images."""

    def __init__(self, found: ByImage, names: Mapping[int, str]) -> None:
        """`names`: of the images, by their ids in the ground truth."""
        self._found, self._known, self._names = found, found.by_name(), names

    def rows(self, part: Sequence[Image]) -> dict[int, list[Row]]:
        """Return what it has of images of the ground truth, by their ids there."""
        same = {image.image_id: self._twin(image) for image in part}
        rows = self._found.rows(list(same.values()))
        return {image_id: rows.get(twin.image_id, []) for image_id, twin in same.items()}

    def _twin(self, image: Image) -> Image:
        twin = self._known.get(self._names[image.image_id])
        if twin and (twin.width, twin.height) == (image.width, image.height):
            return twin
        what = f"is {twin.width}×{twin.height} px there" if twin else "is not there"
        told = f"{image.file_name} ({image.width}×{image.height} px) {what}"
        raise UserError(f"{self._found.samples.folder}: not of the same images: {told}.")


class _Tally:
    """The counts, image by image."""

    def __init__(self, vocabulary: Vocabulary, uncovered: int) -> None:
        self._vocabulary, self._things, self._uncovered = vocabulary, vocabulary.things, uncovered
        count = len(vocabulary.classes)
        self._matches: Matches = panoptic.no_matches(count)
        self._confusion = np.zeros((count + 1, count + 1), np.int64)
        self._images = self._masks = self._nameless = self._dropped = 0

    def add(self, image: Image, truth: list[Row], masks: list[Row], semantic: list[Row], named: Named) -> None:
        """Score an image; `masks` and `semantic` may be `truth` itself, which is then laid out once."""
        laid = _overlay(truth, image)
        segments = self._segments(laid, truth, image)
        judged = segments if semantic is truth else self._segments(_overlay(semantic, image), semantic, image)
        cosines = named.of_masks(masks)
        shown = laid if masks is truth else _overlay(masks, image)
        made = panoptic.combine(shown, cosines, self._things, self._uncovered)
        count = len(self._things)
        self._matches = self._matches.plus(panoptic.match(segments, made.segments, count))
        self._confusion += panoptic.confusion(_classes(judged), made.semantic, count)
        self._images, self._masks = self._images + 1, self._masks + len(masks)
        self._nameless += int(np.isnan(cosines[:, 0]).sum())
        self._dropped += made.dropped

    def _segments(self, laid: Overlay, rows: list[Row], image: Image) -> Segments:
        classes = self._vocabulary.places([row["category"] for row in rows])
        crowd = np.array([bool(row.get("iscrowd")) for row in rows], np.bool_)
        found = panoptic.disjoint(laid, classes, crowd)
        if found is None:
            told = "masks of the ground truth overlap, so it is no panoptic or semantic one"
            raise UserError(f"image {image.image_id} ({image.file_name}): {told}.")
        return found

    def result(self, over: Literal["true", "any"]) -> Segmentation:
        """Average."""
        chosen = {"all": np.ones_like(self._things), "things": self._things, "stuff": ~self._things}
        return Segmentation(
            quality={name: panoptic.quality(self._matches, which) for name, which in chosen.items()},
            miou=panoptic.mean_iou(self._confusion, over),
            classes=self._rows(),
            images=self._images,
            masks=self._masks,
            nameless=self._nameless,
            dropped=self._dropped,
        )

    def _rows(self) -> list[dict[str, object]]:
        shares = np.stack([*panoptic.by_class(self._matches), panoptic.ious(self._confusion)])
        counts = np.stack(self._matches[1:])
        return [
            {"name": each.name, "thing": each.thing}
            | {name: None if np.isnan(x) else float(x) for name, x in zip(_SHARES, shares[:, c], strict=True)}
            | dict(zip(_COUNTS, counts[:, c].tolist(), strict=True))
            for c, each in enumerate(self._vocabulary.classes)
            if not np.isnan(shares[:, c]).all()
        ]


def _overlay(rows: Sequence[Row], image: Image) -> Overlay:
    return panoptic.overlay(map(pixels, rows), image.width * image.height)


def _classes(segments: Segments) -> Map:
    return np.append(NO_CLASS, segments.classes).astype(np.int32)[segments.places]
