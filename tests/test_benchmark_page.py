"""The page of a score, what it counts, and the gallery of two models."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest
from small_benchmarks import RIGHT, Known, predict, write

from benchmark import comparison, confusions, page, scorecard, truth
from benchmark.confusions import CategoryScore, Confusion
from benchmark.predictions import read
from benchmark.presets import RR7K_1, WOWSEG, Preset
from benchmark.scorecard import Scorecard
from pipeline.errors import UsageError

HOSTILE = '<script>alert("x")</script>'
SIMILARITY = Known()


def score(path: Path, folder: Path, preset: Preset = RR7K_1) -> Scorecard:
    return scorecard.make(read(path), truth.load(folder), preset, SIMILARITY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "benchmark")


ROWS = pa.table(
    {
        "instance_id": [1, 2, 3, 4, 5],
        "category": ["dog", "dog", "dog", "cup", "car"],
        "text": ["dog", "A Cat.", "cat", "mug", None],
        "outcome": ["answered"] * 4 + ["missing"],
        "similarity": [1.0, 0.5, 0.75, 0.25, None],
        "iou": [1.0, 0.0, 0.0, 0.0, None],
        "synonym": [1.0, 0.0, 0.0, 0.0, None],
    }
)


def test_confusions_are_counted_by_category_and_what_was_said() -> None:
    found = confusions.count(ROWS)
    assert found.confusions == [
        Confusion("cup", "mug", 1, 1, 0.25),
        Confusion("dog", "a cat", 1, 3, 0.5),
        Confusion("dog", "cat", 1, 3, 0.75),
    ]
    car, cup, dog = found.categories  # what nobody answered first, then the least similar
    assert (car.category, car.instances, car.answered, car.said) == ("car", 1, 0, "")
    assert math.isnan(car.similarity)
    assert cup == CategoryScore("cup", 1, 1, 0.25, 0, 0, "mug", 1)
    assert dog == CategoryScore("dog", 3, 3, 0.75, 1 / 3, 1 / 3, "a cat", 1)


@pytest.mark.parametrize(("most", "expected"), [(9, [4, 2, 3]), (2, [4, 2]), (1, [4]), (0, [])])
def test_the_worst_are_answers_one_of_each_category_first(most: int, expected: list[int]) -> None:
    assert confusions.worst(ROWS, most)["instance_id"].to_pylist() == expected


def test_two_of_a_category_wait_for_the_others() -> None:
    rows = ROWS.set_column(4, "similarity", pa.array([1.0, 0.1, 0.2, 0.3, None]))
    assert confusions.worst(rows, 2)["instance_id"].to_pylist() == [2, 4]


def test_the_page_shows_and_escapes(folder: Path, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", {**RIGHT, 1000: HOSTILE, 1001: "mug"}, model=HOSTILE)
    made = page.html(score(path, folder))
    assert HOSTILE not in made
    assert made.count("<script>") == 1
    assert made.count("data:image/jpeg") == 2  # the two that are wrong
    assert "<dt>said</dt><dd><bdi>mug</bdi></dd>" in made
    assert "Of 6 instances: 6 answered." in made
    assert "Nothing is published about this data set." in made


def test_without_images_there_are_no_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", embedded=False)
    made = page.html(score(predict(tmp_path / "p.parquet", {**RIGHT, 1000: "cat"}), folder))
    assert "data:image" not in made
    assert "<dd><bdi>cat</bdi></dd>" in made


def test_published_numbers_stand_beside(folder: Path, tmp_path: Path) -> None:
    (folder / "import.json").write_text('{"kind": "paco"}')
    card = score(predict(tmp_path / "p.parquet", RIGHT, model="mine"), folder, WOWSEG)
    made = page.html(card)
    assert '<tr class="own"><th><bdi>mine</bdi></th><td>100.0</td><td>100.0</td><td>wowseg</td></tr>' in made
    assert "<td>88.5</td><td>79.2</td>" in made
    assert "measured by osprey, not wowseg; not strictly comparable" in made
    assert "Published PACO rows are of Osprey&#x27;s 4,263 instances; here are 6." in made


def test_a_picture_that_cannot_be_shown_says_why(folder: Path, tmp_path: Path) -> None:
    from small_benchmarks import image, instance

    from pipeline import regions

    rows = regions.from_rows("instances", [instance(1, 0, "dog")])
    regions.write(folder, rows, regions.from_rows("images", [image(1, 1, b"no image")]))
    made = page.html(score(predict(tmp_path / "p.parquet", {1000: "cat"}), folder))
    assert "image 1 cannot be shown: cannot identify image file" in made


# --- two models ---


def test_the_difference_of_two_models_is_paired(folder: Path, tmp_path: Path) -> None:
    one = score(predict(tmp_path / "a.parquet", RIGHT, model="a"), folder)
    other = score(predict(tmp_path / "b.parquet", {**RIGHT, 1000: "cat", 2000: "cat"}, model="b"), folder)
    found = comparison.differ(one, other)
    assert (found.first, found.second, found.preset) == ("a", "b", "rr7k-1")
    assert [gain.group for gain in found.gains] == ["all", "frequency: rare", "size: medium: 1 to 10 %"]
    gain = found.gains[0].measures["similarity"]
    assert gain.value == pytest.approx(1 / 6)  # both images have the same difference, so every draw has it
    assert (gain.lower, gain.upper) == pytest.approx((1 / 6, 1 / 6))
    assert found.gains[0].measures["iou"].value == pytest.approx(2 / 6)
    with pytest.raises(UsageError, match="on one benchmark, one split and by one protocol only"):
        comparison.differ(one, score(tmp_path / "b.parquet", folder, WOWSEG))


def test_the_gallery_has_sections_and_sides(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", area_ratio=0.2)
    answers = {**RIGHT, 1001: HOSTILE, 2001: "no"}
    one = score(predict(tmp_path / "a.parquet", answers, model="a"), folder)
    other = score(predict(tmp_path / "b.parquet", {**RIGHT, 1000: "cat"}, model="b"), folder)
    made = comparison.html(one, other)
    assert HOSTILE not in made
    assert made.count("<article") == 6  # one nearer in one, two in the other; in both sections, huge and rare
    assert made.count("<dt>it is</dt><dd><bdi>dog</bdi></dd>") == 2
    for title in ("<h3>a is nearer</h3>", "<h3>b is nearer</h3>", "<bdi>huge</bdi>", "<bdi>rare</bdi>"):
        assert title in made
    assert "<bdi>small</bdi>" not in made


def test_models_without_names_are_told_apart_by_their_files(folder: Path, tmp_path: Path) -> None:
    paths = [predict(tmp_path / f"{name}.parquet", RIGHT) for name in "ab"]
    one, other = (score(path, folder) for path in paths)
    assert comparison.names(one, other) == (f"({paths[0]})", f"({paths[1]})")
