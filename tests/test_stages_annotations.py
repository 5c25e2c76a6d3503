"""One bad annotation costs one mask and is named with file and field; a bad file costs one image."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import HEIGHT, WIDTH, square

from pipeline.shards import IndexedImage, Problem, Range
from stages.annotations import Batch, find_faults, parse

IMAGE = IndexedImage(7, "sa_7.jpg", Range(0, 1), Range(1, 1), WIDTH, HEIGHT)
INFO = {"image_id": 7, "width": WIDTH, "height": HEIGHT, "file_name": "sa_7.jpg"}


def read(content: Any) -> tuple[list[int] | None, list[Problem]]:
    """Ids of the sound masks (None if the image is refused) and all problems."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    masks, problems, found = parse(IMAGE, data)
    if masks is None:
        return None, problems
    batch = Batch()
    batch.add(masks)
    table = batch.columns()
    sound, faults = find_faults(batch.images, table)
    assert found == int(sound.sum()) + len(problems) + len(faults)
    return table.mask_id[sound].tolist(), problems + faults


def with_masks(*annotations: Any) -> dict[str, Any]:
    return {"image": INFO, "annotations": list(annotations)}


def changed(**fields: Any) -> dict[str, Any]:
    return {**square(2), **fields}


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in square(2).items() if k != key}


def test_a_sound_file() -> None:
    assert read(with_masks(square(1), square(2))) == ([1, 2], [])


def test_an_image_without_masks() -> None:
    assert read(with_masks()) == ([], [])


def test_a_predicted_iou_above_one_is_sa_1bs_own() -> None:
    assert read(with_masks(changed(predicted_iou=1.03))) == ([2], [])


@pytest.mark.parametrize(
    ("annotation", "place", "reason", "says"),
    [
        (without("area"), "$.annotations[1]", "wrong-shape", "missing required field `area`"),
        (changed(label="cat"), "$.annotations[1]", "wrong-shape", "unknown field `label`"),
        (changed(area="12"), "$.annotations[1].area", "wrong-shape", "Expected `int`, got `str`"),
        (changed(area=-5), "$.annotations[1].area", "wrong-shape", ">= 0"),
        (changed(id=2**63), "$.annotations[1].id", "wrong-shape", "<= 9223372036854775807"),
        (changed(bbox=[1, 2, 3]), "$.annotations[1].bbox", "wrong-shape", "length 4"),
        (changed(segmentation={"size": [1, 2]}), "$.annotations[1].segmentation", "wrong-shape", "`counts`"),
        (
            changed(segmentation={"size": [HEIGHT, WIDTH], "counts": [3, 4]}),
            "$.annotations[1].segmentation.counts",
            "wrong-shape",
            "Expected `str`",
        ),
        (17, "$.annotations[1]", "wrong-shape", "Expected `object`, got `int`"),
        (changed(predicted_iou=float("nan")), "$.annotations[1]", "not-finite", "predicted_iou"),
        (changed(bbox=[0, 0, float("inf"), 1]), "$.annotations[1]", "not-finite", "bbox"),
        (changed(area=99), "$.annotations[1].area", "area-mismatch", "stated area 99 px, but the runs cover 100 px"),
        (changed(bbox=[60, 5, 9, 9]), "$.annotations[1].bbox", "box-outside", "64×48"),
        (
            changed(segmentation={"size": [HEIGHT, WIDTH + 1], "counts": square(2)["segmentation"]["counts"]}),
            "$.annotations[1].segmentation.size",
            "rle-size",
            "the mask is 65×48 px, its image 64×48",
        ),
        (
            changed(segmentation={"size": [HEIGHT, WIDTH], "counts": "`5d0"}),
            "$.annotations[1].segmentation.counts",
            "rle-length",
            "the image has 3072",
        ),
        (
            changed(segmentation={"size": [HEIGHT, WIDTH], "counts": "O3"}),
            "$.annotations[1].segmentation.counts",
            "rle-damaged",
            "negative run",
        ),
    ],
)
def test_one_bad_mask_among_good_ones(annotation: Any, place: str, reason: str, says: str) -> None:
    ids, problems = read(with_masks(square(1), annotation, square(3)))
    assert ids == [1, 3]
    assert len(problems) == 1
    assert problems[0].place == f"sa_7.json {place}"
    assert (problems[0].reason, problems[0].image_id) == (reason, 7)
    assert says in problems[0].error


def test_an_empty_mask() -> None:
    empty = changed(area=0, segmentation={"size": [HEIGHT, WIDTH], "counts": "PP3"})
    ids, problems = read(with_masks(empty))
    assert ids == []
    assert problems[0].reason == "empty-mask"


@pytest.mark.parametrize(
    ("content", "reason", "place"),
    [
        (b"", "not-json", "sa_7.json"),
        (b'{"image": {', "not-json", "sa_7.json"),
        (b"\xff\xfe{}", "not-json", "sa_7.json"),
        (b"[" * 100_000, "not-json", "sa_7.json"),  # nested deeper than any parser follows
        ([], "wrong-shape", "sa_7.json $"),
        ({"image": INFO}, "wrong-shape", "sa_7.json $"),
        ({"image": INFO, "annotations": [], "info": 1}, "wrong-shape", "sa_7.json $"),
        ({"image": {**INFO, "width": "64"}, "annotations": []}, "wrong-shape", "sa_7.json $.image.width"),
        ({"image": {**INFO, "image_id": 8}, "annotations": []}, "wrong-image", "sa_7.json $.image.image_id"),
        ({"image": {**INFO, "width": 65}, "annotations": []}, "wrong-size", "sa_7.json $.image"),
    ],
)
def test_a_bad_file_costs_the_image(content: Any, reason: str, place: str) -> None:
    ids, problems = read(content)
    assert ids is None
    assert [(p.input, p.reason, p.place) for p in problems] == [("image:7", reason, place)]


def test_a_turned_byte_inside_a_text_is_no_utf_8() -> None:
    ids, problems = read(json.dumps(with_masks(square(1))).encode().replace(b"sa_7", b"s\xff_7"))
    assert ids is None
    assert (problems[0].reason, problems[0].place) == ("not-json", "sa_7.json")
    assert "can't decode byte 0xff" in problems[0].error


@pytest.mark.parametrize(
    ("annotation", "reason", "says"),
    [
        (changed(segmentation={"size": [HEIGHT, WIDTH], "counts": "\ud800"}), "rle-damaged", "alphabet"),
        (changed(**{"\ud800": 1}), "wrong-shape", "unknown field `&#55296;`"),
        (changed(bbox={"\udfff": 1}), "wrong-shape", "Expected `array`"),
        (changed(bbox=[1e308, 0, 1e308, 1]), "box-outside", "not inside"),
        (changed(predicted_iou=10**400), "wrong-shape", "out of range"),
    ],
)
def test_half_characters_and_endless_numbers_cost_their_mask_only(annotation: Any, reason: str, says: str) -> None:
    ids, problems = read(with_masks(square(1), annotation))
    assert ids == [1]
    assert [problem.reason for problem in problems] == [reason]
    assert says in problems[0].error


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 10**400, 1e308])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts", "\ud800"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*square(2), "other"]), VALUES, min_size=1), st.binary(max_size=2), st.data())
def test_whatever_stands_in_a_file_each_mask_is_sound_or_named(
    fields: dict[str, Any], damage: bytes, data: st.DataObject
) -> None:
    text = json.dumps(with_masks(square(1), changed(**fields), square(3))).encode()
    place = data.draw(st.integers(0, len(text)))
    ids, problems = read(text[:place] + damage + text[place + len(damage) :])
    assert damage or {1, 3} <= set(ids or [])
    assert problems or damage or len(ids or []) == 3
    str(problems).encode()


def test_nan_costs_its_mask_only() -> None:
    text = json.dumps(with_masks(square(1), square(2))).replace('"stability_score": 0.97', '"stability_score": NaN', 1)
    ids, problems = read(text.encode())
    assert ids == [2]
    assert "stability_score" in problems[0].error
