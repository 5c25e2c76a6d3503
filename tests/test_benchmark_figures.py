"""Figures of a data set: what is counted, what is compared, which regions are drawn."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from released_runs import decision, fill, make, pair, photograph, shard, small
from sa1b_shards import HEIGHT, WIDTH, build

from benchmark import data_sets, figures, near_synonyms, sample_pictures, semantic_space, survey
from benchmark.figures import Group
from benchmark.stats import Size
from pipeline import regions
from pipeline.errors import UsageError, UserError
from pipeline.masks import encode
from pipeline.regions import FileWriter, RegionSamples
from pipeline.run import Run

Row = dict[str, Any]


def write(folder: Path, instances: Sequence[tuple[str, int]], data: bytes | None = None) -> Path:
    """Instances 1, 2, … of these categories: squares of so many px side in images of their own, 64 × 48 px."""
    rows = [_instance(number, *told) for number, told in enumerate(instances, 1)]
    table = regions.from_rows("instances", rows).sort_by("category")
    known = {"width": WIDTH, "height": HEIGHT, "split": "test", "mini": False, "instances": 1}
    held = {"image": {"bytes": data, "path": ""}} if data else {}
    images = [{"image_id": row["image_id"], "file_name": "", **known, **held} for row in rows]
    categories = regions.count_categories(table)
    for name, found in (("instances", table), ("images", regions.from_rows("images", images))):
        with FileWriter(folder / "data" / f"{name}-0.parquet", name, images=data is not None) as writer:  # type: ignore[arg-type]
            writer.write(found)
    with FileWriter(folder / "data" / "categories.parquet", "categories") as writer:
        writer.write(categories)
    return folder


def _instance(number: int, category: str, side: int) -> Row:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[5 : 5 + side, 3 : 3 + side] = True
    return {
        **{"instance_id": number, "image_id": number * 10, "category": category, "category_raw": category},
        **{"split": "test", "mini": False, "bbox_xywh": [3.0, 5.0, side, side], "area": side * side},
        **{"area_ratio": side * side / (WIDTH * HEIGHT)},
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": encode(mask)},
    }


def kinds(*rows: Row) -> pa.Table:
    """The table `categories`."""
    nothing = {"instances": 1, "images": 1, "frequency": "rare", "aliases": [], "hypernyms": []}
    return regions.from_rows("categories", [{**nothing, **row} for row in rows])


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.size


# --- counts -----------------------------------------------------------------------------------------------


def test_a_release_is_counted(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "out")
    found = survey.take(tmp_path / "out")
    assert (found.name, found.size, found.splits) == ("rr7k-1.0.0", Size(9, 3, 3), {"test": 9})
    assert found.warnings == []
    assert ("screened by", "9 people") in found.facts
    whole = (WIDTH * HEIGHT) ** 0.5
    assert dict(zip(*(found.categories[name].to_pylist() for name in ("category", "size")), strict=True)) == {
        "car": pytest.approx(12 / whole),
        "cup": pytest.approx(11 / whole),
        "dog": pytest.approx(10 / whole),
    }
    assert figures.coarse_counts(found) == [
        Group("Man-made Objects", "Kitchenware", 1, 3),
        Group("Man-made Objects", "Vehicles", 1, 3),
        Group("Animals", "Mammals", 1, 3),
    ]


def test_a_simulated_release_says_so(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    fill(run, [pair(100, "dog")], [decision(100, "dog", by="simulated")])
    make(run, tmp_path / "out")
    assert survey.take(tmp_path / "out").warnings == ["simulated: a program answered in place of people"]


def test_sizes_have_the_median_of_an_even_number_in_the_middle(tmp_path: Path) -> None:
    found = survey.take(write(tmp_path / "set", [("b", 4), ("a", 10), ("a", 20), ("b", 4), ("b", 9)]))
    whole = (WIDTH * HEIGHT) ** 0.5
    assert found.name == "set"
    assert found.categories["size"].to_pylist() == pytest.approx([15 / whole, 4 / whole])


def test_a_data_set_without_categories_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [("a", 4)])
    (folder / "data" / "categories.parquet").unlink()
    with pytest.raises(UserError, match=r"categories\.parquet is missing"):
        survey.take(folder)


def test_other_data_sets_stand_beside_ours(tmp_path: Path) -> None:
    ours = survey.take(write(tmp_path / "ours", [("a", 4), ("a", 5), ("b", 4)]))
    sets = data_sets.rows(ours, [survey.take(write(tmp_path / "other", [("a", 4)]))])
    by_name = {row.name: row for row in sets}
    assert by_name["ours"][:4] == ("ours", 2, 3, 3)
    assert by_name["other"].counted
    assert by_name["RR-7K (paper)"][1:4] == (7662, 80_000, 200_000)
    assert sets[0].name == "V3Det"
    assert sets[-1].categories is None
    assert all(row.source for row in sets)
    assert size(figures.comparison(sets))


# --- drawing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instances",
    [
        [("a", 4)],
        [(r"$\frac{a}", 4), ("<b>_^", 4), ("猫\u202e", 40)],
        [(f"name {n}", 1 + n % 30) for n in range(300) for _ in range(1 + 300 // (n + 1))],
    ],
    ids=["one", "odd names", "long tail"],
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures_are_drawn_of_any_data_set(instances: list[tuple[str, int]], tmp_path: Path) -> None:
    found = survey.take(write(tmp_path / "set", instances))
    assert size(figures.samples_per_category(found)) == (1650, 630)
    assert size(figures.mask_sizes([found, found])) == (1050, 630)
    assert size(figures.coarse_groups(figures.coarse_counts(found)))


# --- names ------------------------------------------------------------------------------------------------

ANGLES = {"cat": 0, "kitten": 20, "dog": 60, "wolf": 80, "rock": 180}


def embed(names: Sequence[str]) -> semantic_space.Vectors:
    """Unit vectors in a plane, so that the cosines are known."""
    angles = np.radians([ANGLES[name] for name in names])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_semantic_space_tells_coverage_and_distances() -> None:
    space = semantic_space.measure(["cat", "dog", "rock"], ["cat", "kitten", "wolf"], embed)
    cosine = {angle: float(np.cos(np.radians(angle))) for angle in (20, 60, 100, 120)}
    assert space.covered.cosines.tolist() == pytest.approx([cosine[20], cosine[20], 1])
    assert space.known.cosines.tolist() == pytest.approx([cosine[100], cosine[20], 1], abs=1e-6)
    assert space.apart.cosines.tolist() == pytest.approx([cosine[120], cosine[60], cosine[60]])
    assert [space.covered.share(level) for level in (0.9, 1.0)] == pytest.approx([1, 1 / 3])
    assert space.apart.median_distance == pytest.approx(0.5)
    assert (space.ours.shape, space.theirs.shape) == ((3, 2), (3, 2))
    assert size(figures.semantic_space(space)) == (1800, 840)


def test_the_names_of_imagenet_are_in_normal_form() -> None:
    names = semantic_space.imagenet_names()
    assert len(names) == len(set(names)) > 20_000
    assert {"goldfish", "spotted eagle ray", "organism"} <= set(names)


def test_near_synonyms_carry_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviewed = tmp_path / "categories.csv"
    reviewed.write_text(
        "variant,canonical,reason,reviewed_by,reviewed_on\n"
        "auto,car,synonym,me,2026-11-24\nglasses,glasses,not a glass,me,2026-11-24\n"
    )
    monkeypatch.setattr(near_synonyms, "_REVIEWED", reviewed)
    rows: list[Row] = [
        *({"category": "auto"}, {"category": "car", "instances": 5}),
        *({"category": "bicycle"}, {"category": "bike", "aliases": ["bicycle"]}),
        *({"category": "cup"}, {"category": "mug"}),
        *({"category": "glass"}, {"category": "glasses"}),
        *({"category": "truck", "hypernyms": ["vehicle"]}, {"category": "vehicle", "instances": 9}),
    ]
    vectors = np.eye(10, dtype=np.float32)
    for pair_number, cosine in enumerate((0.9, 0.95, 0.875, 0.8, 0.85)):
        one, other = 2 * pair_number, 2 * pair_number + 1
        vectors[other] = cosine * vectors[one] + (1 - cosine**2) ** 0.5 * vectors[other]
    pairs = near_synonyms.find(kinds(*rows), vectors, 0.82)
    assert [(p.first, p.second, round(p.similarity, 3), p.decision) for p in pairs] == [
        ("bicycle", "bike", 0.95, "alias"),
        ("car", "auto", 0.9, "merge"),
        ("cup", "mug", 0.875, "open"),
        ("vehicle", "truck", 0.85, "hypernym"),
    ]
    assert near_synonyms.find(kinds(*rows), vectors, 0.79)[-1][3:] == (1, 1, "kept apart")
    assert near_synonyms.write_csv(pairs).decode().splitlines()[:2] == [
        "first,second,similarity,first_instances,second_instances,decision",
        "bicycle,bike,0.95,1,1,alias",
    ]


# --- pictures ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20))
def test_pictures_have_paths_of_their_own(ids: list[int]) -> None:
    assert len({sample_pictures.path(i) for i in ids}) == len(ids)
    assert sorted(sample_pictures.shuffled(ids)) == list(range(len(ids)))


def test_of_every_category_some_are_chosen(tmp_path: Path) -> None:
    samples = RegionSamples(write(tmp_path / "set", [("a", 4)] * 5 + [("b", 4)]))
    chosen = sample_pictures.choose(samples, 2)
    assert chosen["category"].to_pylist() == ["a", "a", "b"]
    again = RegionSamples(write(tmp_path / "more", [("a", 4)] * 5 + [("b", 4)] + [("c", 4)] * 9))
    assert sample_pictures.choose(again, 2)["instance_id"].to_pylist()[:3] == chosen["instance_id"].to_pylist()


def test_a_region_is_drawn_with_its_outline(tmp_path: Path) -> None:
    samples = RegionSamples(write(tmp_path / "set", [("a", 10), ("b", 20)], photograph(1)))
    assert sample_pictures.write(samples, sample_pictures.choose(samples, 1), tmp_path / "pictures") == []
    with Image.open(tmp_path / "pictures" / "01" / "1.jpg") as image:
        assert image.size == (224, 168)
        scale = 224 / WIDTH
        column = [image.getpixel((round((3 + 5) * scale), y)) for y in range(round(5 * scale) - 4, round(5 * scale))]
    assert any(red > 180 and green < 80 and blue < 80 for red, green, blue in column)  # type: ignore[misc]


def test_without_photographs_the_masks_are_drawn(tmp_path: Path) -> None:
    samples = RegionSamples(write(tmp_path / "set", [("a", 10)]))
    assert sample_pictures.write(samples, sample_pictures.choose(samples, 1), tmp_path / "pictures") == []
    with Image.open(tmp_path / "pictures" / "01" / "1.jpg") as image:
        inside, outside = (image.getpixel((round(x * 224 / WIDTH), 28)) for x in (8, 40))
    assert inside > 220 > 100 > outside  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "why"),
    [(photograph(1)[:100], "image 10: "), (b"no picture", "cannot identify"), ("other size", "64×48 px expected")],
    ids=["cut off", "no picture", "other size"],
)
def test_an_image_that_cannot_be_read_is_told(data: Any, why: str, tmp_path: Path) -> None:
    if data == "other size":
        sink = io.BytesIO()
        Image.new("RGB", (32, 32)).save(sink, "JPEG")
        data = sink.getvalue()
    samples = RegionSamples(write(tmp_path / "set", [("a", 10)], data))
    (failure,) = sample_pictures.write(samples, sample_pictures.choose(samples, 1), tmp_path / "pictures")
    assert why in failure
    assert (tmp_path / "pictures" / "01" / "1.jpg").exists()


def test_only_missing_pictures_are_drawn(tmp_path: Path) -> None:
    samples = RegionSamples(write(tmp_path / "set", [("a", 10), ("b", 20)], photograph(1)))
    chosen, folder = sample_pictures.choose(samples, 1), tmp_path / "pictures"
    sample_pictures.write(samples, chosen, folder)
    (folder / "01" / "1.jpg").unlink()
    os.utime(folder / "02" / "2.jpg", (1, 1))
    drawn: list[int] = []
    sample_pictures.write(samples, chosen, folder, drawn.append)
    assert drawn == [1]
    assert (folder / "02" / "2.jpg").stat().st_mtime == 1
    other = RegionSamples(write(tmp_path / "other", [("a", 10), ("b", 30)], photograph(2)))
    sample_pictures.write(other, sample_pictures.choose(other, 1), folder)
    assert (folder / "02" / "2.jpg").stat().st_mtime != 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    samples = RegionSamples(write(tmp_path / "set", [("a", 10)]))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="not of a report"):
        sample_pictures.write(samples, sample_pictures.choose(samples, 1), tmp_path / "pictures")
    assert (tmp_path / "pictures" / "holiday.jpg").exists()
