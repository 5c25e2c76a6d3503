"""Panoptic quality and mean IoU on maps small enough to count by hand, and of whole data sets."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pipeline_masks import encoded
from typer.testing import CliRunner

from benchmark import panoptic, run_lengths, segmentation, vocabularies
from benchmark.by_image import ByImage, pixels
from benchmark.panoptic import NO_CLASS, Segments
from benchmark.vocabularies import Answers, Vocabulary
from pipeline import masks, regions
from pipeline.errors import UsageError, UserError

ROAD, SKY, PERSON, CAR = range(4)
THINGS = np.array([False, False, True, True])
NAN = float("nan")
ALL = np.ones(4, np.bool_)


def segments(places: Sequence[Sequence[int]], classes: Sequence[int], crowd: Sequence[int] = ()) -> Segments:
    """Segments 1, 2, … of these classes; `crowd`: numbers of those that are."""
    numbers = np.arange(1, len(classes) + 1)
    return Segments(np.array(places, np.int32), np.array(classes, np.int64), np.isin(numbers, crowd))


def cosines(*classes: int | None, high: float = 0.9) -> npt.NDArray[np.float32]:
    """Texts that are near to one class, or to none."""
    table = np.full((len(classes), 4), 0.1, np.float32)
    for row, found in enumerate(classes):
        table[row] = np.nan if found is None else table[row]
        if found is not None:
            table[row, found] = high
    return table


def laid(*pictures: Sequence[Sequence[int]]) -> panoptic.Overlay:
    return panoptic.overlay(map(np.flatnonzero, map(np.array, pictures)), np.array(pictures[0]).size)


def counts(truth: Segments, predicted: Segments) -> list[tuple[float, int, int, int]]:
    """iou, tp, fp, fn of each class."""
    return [tuple(row) for row in zip(*(x.tolist() for x in panoptic.match(truth, predicted, 4)), strict=True)]


# --- matching ---------------------------------------------------------------------------------------------

STREET = [[2, 2, 2, 2], [2, 3, 3, 2], [1, 3, 3, 4], [1, 1, 4, 4]]


def test_a_perfect_prediction() -> None:
    truth = segments(STREET, [ROAD, SKY, PERSON, CAR])
    found = panoptic.match(truth, truth, 4)
    assert panoptic.quality(found, ALL) == (1, 1, 1, 4)
    assert panoptic.quality(found, THINGS) == (1, 1, 1, 2)


def test_pq_sq_rq_by_hand() -> None:
    truth = segments([[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]], [ROAD, PERSON, PERSON])
    predicted = segments([[1, 1, 1, 1], [1, 1, 2, 2], [3, 3, 3, 3], [4, 4, 3, 3]], [ROAD, SKY, PERSON, CAR])
    # road 6/8; sky unmatched; person 4/6 for the third row, the fourth is missed; car unmatched
    assert counts(truth, predicted) == [
        (6 / 8, 1, 0, 0), (0, 0, 1, 0), (pytest.approx(4 / 6), 1, 0, 1), (0, 0, 1, 0)
    ]  # fmt: skip
    found = panoptic.match(truth, predicted, 4)
    road, person = 0.75, 4 / 6
    assert panoptic.quality(found, ALL) == pytest.approx(
        ((road + person / 1.5) / 4, (road + person) / 4, (1 + 1 / 1.5) / 4, 4)
    )
    assert panoptic.quality(found, ~THINGS) == pytest.approx((road / 2, road / 2, 1 / 2, 2))


def test_half_is_not_enough() -> None:
    truth = segments([[1, 1, 1, 1, 2, 2]], [PERSON, SKY])
    assert counts(truth, segments([[1, 1, 0, 0, 0, 0]], [PERSON]))[PERSON] == (0, 0, 1, 1)
    assert counts(truth, segments([[1, 1, 1, 0, 0, 0]], [PERSON]))[PERSON] == (0.75, 1, 0, 0)


def test_void_is_no_part_of_the_union() -> None:
    truth = segments([[1, 1, 0, 0, 0, 0]], [PERSON])
    assert counts(truth, segments([[1, 1, 1, 1, 1, 0]], [PERSON]))[PERSON] == (1, 1, 0, 0)


def test_what_is_mostly_void_is_not_false() -> None:
    truth = segments([[1, 1, 1, 0, 0, 0]], [ROAD])
    assert counts(truth, segments([[0, 0, 1, 1, 1, 0]], [CAR]))[CAR] == (0, 0, 0, 0)
    assert counts(truth, segments([[0, 1, 1, 1, 1, 0]], [CAR]))[CAR] == (0, 0, 1, 0)  # just half is


def test_a_crowd_is_never_matched_nor_missed() -> None:
    truth = segments([[1, 1, 1, 1, 2, 2]], [PERSON, ROAD], crowd=[1])
    one = segments([[1, 1, 1, 1, 2, 2]], [PERSON, ROAD])
    assert counts(truth, one)[PERSON] == (0, 0, 0, 0)
    assert counts(truth, segments([[1, 1, 2, 2, 3, 3]], [PERSON, PERSON, ROAD]))[PERSON] == (0, 0, 0, 0)
    assert counts(truth, segments([[1, 1, 1, 1, 2, 2]], [CAR, ROAD]))[CAR] == (0, 0, 1, 0)  # of another class
    assert counts(truth, segments([[0, 0, 0, 0, 1, 1]], [ROAD]))[PERSON] == (0, 0, 0, 0)
    both = segments([[1, 1, 0, 2, 2, 2]], [PERSON, ROAD], crowd=[1])  # crowd and void add up
    assert counts(both, segments([[0, 1, 1, 1, 0, 0]], [PERSON]))[PERSON] == (0, 0, 0, 0)


def test_a_class_without_a_segment_is_not_averaged() -> None:
    nothing = segments([[0, 0]], [])
    found = panoptic.match(nothing, nothing, 4)
    assert panoptic.quality(found, ALL)[3] == 0
    assert math.isnan(panoptic.quality(found, ALL).pq)
    one = panoptic.match(segments([[1, 1]], [SKY]), segments([[1, 1]], [SKY]), 4)
    assert panoptic.quality(one.plus(found), ALL) == (1, 1, 1, 1)


def naive(truth: Segments, predicted: Segments) -> list[tuple[float, int, int, int]]:
    """The definition, with sets of pixels (Kirillov et al. 2019, §4.1 and 4.3)."""
    sets = [
        [set(np.flatnonzero(part.places == k + 1).tolist()) for k in range(len(part.classes))]
        for part in (truth, predicted)
    ]
    void = set(np.flatnonzero(truth.places == 0).tolist())
    rows = [[0.0, 0, 0, 0] for _ in range(4)]
    partners: set[tuple[str, int]] = set()
    for t, (true, kind) in enumerate(zip(sets[0], truth.classes, strict=True)):
        for p, (said, name) in enumerate(zip(sets[1], predicted.classes, strict=True)):
            iou = len(true & said) / max(1, len(true | (said - void)))
            if kind == name and iou > 0.5 and not truth.crowd[t]:
                rows[kind][0] += iou
                rows[kind][1] += 1
                partners |= {("true", t), ("said", p)}
    for p, (said, name) in enumerate(zip(sets[1], predicted.classes, strict=True)):
        crowds = [s for s, k, c in zip(sets[0], truth.classes, truth.crowd, strict=True) if c and k == name]
        if ("said", p) not in partners and said and len(said & void.union(*crowds)) <= len(said) / 2:
            rows[name][2] += 1
    for t, kind in enumerate(truth.classes):
        rows[kind][3] += ("true", t) not in partners and not truth.crowd[t]
    return [tuple(row) for row in rows]  # type: ignore[misc]


@st.composite
def maps(draw: st.DrawFn) -> Segments:
    count = draw(st.integers(0, 4))
    places = draw(st.lists(st.integers(0, count), min_size=16, max_size=16))
    classes = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    crowd = draw(st.lists(st.integers(1, 4), max_size=1))
    return segments([places], classes, crowd)


@given(maps(), maps())
def test_the_definition(truth: Segments, predicted: Segments) -> None:
    predicted = predicted._replace(crowd=np.zeros(len(predicted.classes), np.bool_))
    for ours, theirs in zip(counts(truth, predicted), naive(truth, predicted), strict=True):
        assert ours == pytest.approx(theirs)


@given(maps(), maps(), st.randoms(use_true_random=False))
def test_the_order_of_segments_means_nothing(truth: Segments, predicted: Segments, random: Any) -> None:
    def shuffled(one: Segments) -> Segments:
        order = random.sample(range(len(one.classes)), len(one.classes))
        numbers = np.append(0, np.argsort(order) + 1)
        return Segments(numbers[one.places].astype(np.int32), one.classes[order], one.crowd[order])

    ours, again = counts(truth, predicted), counts(shuffled(truth), shuffled(predicted))
    assert [row[1:] for row in ours] == [row[1:] for row in again]
    assert [row[0] for row in ours] == pytest.approx([row[0] for row in again])


# --- masks into maps --------------------------------------------------------------------------------------


def test_stuff_is_merged_things_are_not() -> None:
    left, middle, right = [[1, 0, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]
    made = panoptic.combine(laid(left, middle, right), cosines(SKY, SKY, SKY), THINGS)
    assert (made.segments.places.tolist(), made.segments.classes.tolist()) == ([1, 1, 1, 1], [SKY])
    made = panoptic.combine(laid(left, middle, right), cosines(CAR, SKY, CAR), THINGS)
    assert (made.segments.places.tolist(), made.segments.classes.tolist()) == ([1, 2, 2, 3], [CAR, SKY, CAR])
    assert made.semantic.tolist() == [CAR, SKY, SKY, CAR]


def test_the_predicted_class_says_what_is_stuff() -> None:
    truth = segments([[1, 1, 2, 2]], [PERSON, PERSON])
    made = panoptic.combine(laid([[1, 1, 0, 0]], [[0, 0, 1, 1]]), cosines(SKY, SKY), THINGS)
    assert counts(truth, made.segments) == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 2), (0, 0, 0, 0)]


def test_the_surest_mask_has_the_pixel() -> None:
    unsure, sure = [[1, 1, 1, 1, 1, 0]], [[0, 0, 0, 0, 1, 1]]
    table = np.concatenate([cosines(PERSON, high=0.5), cosines(CAR)])
    made = panoptic.combine(laid(unsure, sure), table, THINGS)
    assert made.segments.places.tolist() == [1, 1, 1, 1, 2, 2]  # 4 of 5 px are left: just enough
    assert made.dropped == 0
    made = panoptic.combine(laid([[1, 1, 1, 0, 1, 0]], sure), table, THINGS)
    assert (made.segments.places.tolist(), made.dropped) == ([0, 0, 0, 0, 1, 1], 1)
    assert made.semantic.tolist() == [PERSON, PERSON, PERSON, NO_CLASS, CAR, CAR]
    alike = panoptic.combine(laid([[1, 1]], [[1, 1]]), cosines(PERSON, CAR), THINGS)
    assert (alike.segments.classes.tolist(), alike.dropped) == ([PERSON], 1)  # the first


def test_in_the_semantic_map_masks_add_up() -> None:
    table = np.concatenate([cosines(CAR), cosines(SKY, SKY, high=0.8)])
    made = panoptic.combine(laid([[1, 1]], [[0, 1]], [[0, 1]]), table, THINGS)
    assert made.semantic.tolist() == [CAR, SKY]


def test_masks_without_a_name_and_pixels_without_a_mask() -> None:
    made = panoptic.combine(laid([[1, 1, 0, 0]], [[0, 1, 1, 0]]), cosines(None, CAR), THINGS)
    assert made.segments.places.tolist() == [0, 1, 1, 0]
    assert made.semantic.tolist() == [NO_CLASS, CAR, CAR, NO_CLASS]
    made = panoptic.combine(laid([[0, 1, 1, 0]]), cosines(CAR), THINGS, uncovered=ROAD)
    assert made.semantic.tolist() == [ROAD, CAR, CAR, ROAD]
    none = panoptic.combine(panoptic.overlay([], 2), np.empty((0, 4), np.float32), THINGS)
    assert (none.segments.places.tolist(), none.segments.classes.tolist()) == ([0, 0], [])


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=6))
def test_pieces_know_their_masks(pictures: list[list[bool]]) -> None:
    found = panoptic.overlay(map(np.flatnonzero, map(np.array, pictures)), 6)
    for pixel in range(6):
        owners = tuple(mask for mask, picture in enumerate(pictures) if picture[pixel])
        assert found.members[found.pieces[pixel]] == owners
    assert found.areas.sum() == 6


def test_ground_truth_may_not_overlap() -> None:
    classes, crowd = np.array([SKY, CAR]), np.zeros(2, np.bool_)
    assert panoptic.disjoint(laid([[1, 1]], [[0, 1]]), classes, crowd) is None
    found = panoptic.disjoint(laid([[0, 1, 0]], [[1, 0, 0]]), classes, crowd)
    assert found is not None
    assert found.places.tolist() == [2, 1, 0]


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=9), st.integers(1, 300))
def test_pixels_of_run_lengths(rows: list[list[bool]], enlarged: int) -> None:
    mask = np.repeat(np.array(rows, np.bool_), enlarged, axis=0)
    found = run_lengths.pixels(masks.encode(mask), mask.size)
    assert found.tolist() == np.flatnonzero(mask.ravel(order="F")).tolist()


WRAPPED = encoded([2**58] * 64 + [4])
"""Runs whose sum is 2**64 + 4: 4, in 64 bits."""


@pytest.mark.parametrize(
    "counts", ["", "0", "5", "~", "é", "P", "o" * 20 + "1", "4O", "\ud800", WRAPPED, masks.encode(np.eye(3) > 0)]
)
def test_damaged_run_lengths(counts: str) -> None:
    with pytest.raises(ValueError, match=r"run|characters"):
        run_lengths.pixels(counts, 4)


# --- mean IoU ---------------------------------------------------------------------------------------------


def test_mean_iou_by_hand() -> None:
    truth = np.array([[ROAD, ROAD, ROAD, SKY, SKY, NO_CLASS]], np.int32)
    said = np.array([[ROAD, ROAD, SKY, SKY, NO_CLASS, CAR]], np.int32)
    matrix = panoptic.confusion(truth, said, 4)
    # road 2/3, sky 1/3; what is not to be judged is no false car; no answer is a miss
    assert panoptic.ious(matrix) == pytest.approx([2 / 3, 1 / 3, NAN, NAN], nan_ok=True)
    assert panoptic.mean_iou(matrix) == pytest.approx(0.5)
    matrix += panoptic.confusion(np.array([ROAD]), np.array([PERSON]), 4)
    assert panoptic.mean_iou(matrix) == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert panoptic.mean_iou(matrix, "any") == pytest.approx((2 / 4 + 1 / 3 + 0) / 3)
    assert math.isnan(panoptic.mean_iou(np.zeros((5, 5), np.int64)))


# --- data sets --------------------------------------------------------------------------------------------

CLASSES = "name,thing\nroad,0\nsky,0\nperson,1\ncar,1\n"
PICTURES = {1: STREET, 2: [[1, 1], [0, 2]]}
"""By image: the segments, numbered as classes are, of 0."""


def data_set(folder: Path, pictures: dict[int, list[list[int]]], names: Sequence[str], **changed: Any) -> Path:
    """Region samples of maps of classes, from 1; instance ids are 10 × image + class."""
    rows, images = [], []
    for image_id, picture in pictures.items():
        labels = np.array(picture)
        height, width = labels.shape
        images.append(
            {"image_id": image_id, "file_name": f"val/{image_id}_photo.png", "width": width, "height": height}
            | {"split": "val", "mini": False, "instances": 0}
        )
        for number in sorted({*labels.ravel().tolist()} - {0}):
            mask = labels == number
            rows.append(
                {"instance_id": 10 * image_id + number, "image_id": image_id, "category": names[number - 1]}
                | {"category_raw": names[number - 1], "split": "val", "mini": False, "area": int(mask.sum())}
                | {"segmentation": {"size": [height, width], "counts": masks.encode(mask)}, "area_ratio": 0.1}
                | {"bbox_xywh": [0.0, 0.0, 1.0, 1.0], "iscrowd": False}
                | changed
            )
    regions.write(folder, regions.from_rows("instances", rows), regions.from_rows("images", images))
    return folder


@pytest.fixture
def street(tmp_path: Path) -> Path:
    return data_set(tmp_path / "street", PICTURES, ["road", "sky", "person", "car"])


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    (tmp_path / "classes.csv").write_text(CLASSES)
    return vocabularies.load(str(tmp_path / "classes.csv"))


def named(names: dict[int, int]) -> segmentation.Named:
    """Instances and the class each text is nearest to; -1: an empty text."""
    codes = np.array([row if found >= 0 else -1 for row, found in enumerate(names.values())])
    table = cosines(*(max(found, 0) for found in names.values()))
    return segmentation.Named.of(list(names), Answers(codes, table))


def by_image(folder: Path) -> ByImage:
    return ByImage(regions.RegionSamples(folder), "val")


RIGHT = {11: ROAD, 12: SKY, 13: PERSON, 14: CAR, 21: ROAD, 22: SKY}


def test_a_data_set_named_rightly(street: Path, vocabulary: Vocabulary) -> None:
    images: list[int] = []
    found = segmentation.score(
        segmentation.Sources(by_image(street)), named(RIGHT), vocabulary, uncovered="none", told=images.append
    )
    assert found.quality == {"all": (1, 1, 1, 4), "things": (1, 1, 1, 2), "stuff": (1, 1, 1, 2)}
    assert (found.miou, found.images, found.masks, found.nameless, found.dropped) == (1, 2, 6, 0, 0)
    assert images == [1, 1]


def test_a_data_set_named_wrongly_in_part(street: Path, vocabulary: Vocabulary) -> None:
    wrong = {**RIGHT, 14: PERSON, 22: -1}
    del wrong[21]
    found = segmentation.score(segmentation.Sources(by_image(street)), named(wrong), vocabulary)
    assert {row["name"]: [row[name] for name in ("tp", "fp", "fn")] for row in found.classes} == {
        "road": [1, 0, 1], "sky": [1, 0, 1], "person": [1, 1, 0], "car": [0, 0, 1]
    }  # fmt: skip
    assert (found.masks, found.nameless) == (6, 2)
    # The pixels of the second image have no mask with a name: the first class, which two of three are.
    assert {row["name"]: row["iou"] for row in found.classes} == pytest.approx(
        {"road": 5 / 6, "sky": 6 / 7, "person": 4 / 7, "car": 0}
    )


def test_semantic_truth_and_masks_of_other_data_sets(street: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    full = {1: STREET, 2: [[1, 1], [1, 2]]}
    semantic = data_set(tmp_path / "semantic", full, ["road", "sky", "person", "car"])
    halves = data_set(tmp_path / "halves", {1: [[1] * 4] * 2 + [[2] * 4] * 2, 2: [[1, 1], [2, 2]]}, ["a", "b"])
    sources = segmentation.Sources(by_image(street), by_image(halves), by_image(semantic))
    found = segmentation.score(sources, named({11: SKY, 12: ROAD, 21: ROAD, 22: ROAD}), vocabulary)
    # Image 1: sky 6 of 8; road 3 of 8. Image 2: all road, of it 3 right; the void pixel is judged, being road there.
    assert {row["name"]: row["iou"] for row in found.classes} == pytest.approx(
        {"road": 6 / 12, "sky": 6 / 9, "person": 0, "car": 0}
    )
    assert found.masks == 4


def test_what_does_not_fit(street: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    other = data_set(tmp_path / "other", {1: [[1]], 2: [[1, 1], [1, 1]]}, ["road"])
    sources = segmentation.Sources(by_image(street), by_image(other))
    with pytest.raises(UserError, match=r"val/1_photo.png \(4×4 px\) is 1×1 px there"):
        segmentation.score(sources, named(RIGHT), vocabulary)
    few = data_set(tmp_path / "few", {2: [[1, 1], [1, 1]]}, ["road"])
    with pytest.raises(UserError, match=r"val/1_photo.png .* is not there"):
        segmentation.score(segmentation.Sources(by_image(street), by_image(few)), named(RIGHT), vocabulary)
    strange = data_set(tmp_path / "strange", {1: [[1, 2]]}, ["road", "unicorn"])
    with pytest.raises(UserError, match="1 categories of the ground truth are no class of it: unicorn"):
        segmentation.score(segmentation.Sources(by_image(strange)), named(RIGHT), vocabulary)
    (tmp_path / "flat.csv").write_text("name\nroad\n")
    flat = vocabularies.load(str(tmp_path / "flat.csv"))
    with pytest.raises(UsageError, match="no column thing"):
        segmentation.score(segmentation.Sources(by_image(street)), named(RIGHT), flat)


def test_a_damaged_mask_is_named() -> None:
    row = {"segmentation": {"size": [2, 2], "counts": "04"}, "area": 3, "instance_id": 7}
    with pytest.raises(UserError, match=r"instance 7: its run lengths are damaged \(4 px, not 3\)"):
        pixels(row)


def test_overlapping_truth_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    whole = {"size": [1, 2], "counts": masks.encode(np.ones((1, 2), np.bool_))}
    twice = data_set(tmp_path / "twice", {1: [[1, 2]]}, ["road", "sky"], segmentation=whole, area=2)
    with pytest.raises(UserError, match=r"image 1 \(val/1_photo.png\): masks of the ground truth overlap"):
        segmentation.score(segmentation.Sources(by_image(twice)), named(RIGHT), vocabulary)


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of embeddings: a text means the class of that name."""

    def compare(texts: Sequence[str | None], vocabulary: Vocabulary, *_: Any) -> Answers:
        names = [each.name for each in vocabulary.classes]
        codes = [-1 if not text else row for row, text in enumerate(texts)]
        table = [[float(name == text) for name in names] for text in texts]
        return Answers(np.array(codes), np.array(table, np.float32))

    monkeypatch.setattr(vocabularies, "compare", compare)


@pytest.mark.usefixtures("exact")
def test_the_command(street: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    import typer

    from pipeline import cli_segmentation

    app = typer.Typer()
    app.command()(cli_segmentation.segmentation)
    names = ["road", "sky", "person", "car"]
    said = "".join(f"{one},{names[found]},tiny\n" for one, found in RIGHT.items())
    (tmp_path / "said.csv").write_text(f"instance_id,text,model\n{said}")
    order = [str(tmp_path / "said.csv"), "--benchmark", str(street), "--classes"]
    done = CliRunner().invoke(app, [*order, str(tmp_path / "classes.csv"), "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["segmentation"]["quality"]["all"] == [1.0, 1.0, 1.0, 4]
    assert (told["model"], told["template"], told["synonyms"]) == ("tiny", "{}", "none")
    plain = CliRunner().invoke(app, [*order, "cityscapes"], catch_exceptions=False).stdout
    assert "arXiv:2605.16903 Table 2" in plain
    assert "65.76" in plain
    (tmp_path / "said.csv").write_text(f"instance_id,text,model\n{said}11,road,tiny\n")
    with pytest.raises(UserError, match="1 predictions are about an instance that has one already"):
        CliRunner().invoke(app, [*order, "cityscapes"], catch_exceptions=False)
