"""From masks to prompts without Ray: nothing asked is lost, and damage to one image stays with that image."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sa1b_shards import HEIGHT, WIDTH, build, image_members, jpeg, rows, square, write_shard, write_tar

from pipeline import images
from pipeline.images import Photograph, Size
from pipeline.run import Run
from pipeline.shards import find_shards
from stages.engines.base import PROMPTS, EngineConfig
from stages.region_prompts import RegionPrompt
from stages.rendering import Piece, Renderer
from stages.sample_data import annotation

QWEN = EngineConfig(kind="transformers", model="qwen")
SHARED = RegionPrompt(layout="shared+crop")


def renderer(run: Run, *shards: Path, prompt: RegionPrompt = SHARED, engine: EngineConfig = QWEN) -> Renderer:
    known = {shard.name: shard for shard in find_shards(str(path) for path in shards)}
    return Renderer(run.folder.uri, known, prompt, "What?", engine)


def pieces(run: Run, mask_ids: Sequence[int] | None = None) -> pa.Table:
    """All masks of the run, or those, by the part they lie in."""
    parts = run.parts("masks")
    ids = mask_ids or [row["mask_id"] for row in rows(run)]
    return pa.Table.from_pylist([Piece(part, 0, list(ids))._asdict() for part in parts])


def render(made: Renderer, asked: pa.Table) -> list[dict[str, Any]]:
    tables = list(made(asked))
    assert all(table.schema == PROMPTS for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def asked_about(found: list[dict[str, Any]]) -> list[tuple[int, list[int]]]:
    return [(row["image_id"], row["subjects"]) for row in found]


# --- sound shards -----------------------------------------------------------------------------------------


def test_a_row_for_every_mask_images_together_and_in_order(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=2)
    build(run, shard)
    found = render(renderer(run, shard), pieces(run))
    assert asked_about(found) == [
        (1001, [100100]), (1001, [100101]), (1001, [100102]), (1002, [100200]), (1002, [100201]), (1002, [100202]),
    ]  # fmt: skip
    assert [row["prompt_id"] for row in found] == [row["subjects"][0] for row in found]
    assert {row["shard"] for row in found} == {"sa_000001"}
    assert {(row["problem"], row["reason"]) for row in found} == {(None, None)}
    for row in found:
        assert [part["text"] for part in row["parts"]] == [None, None, "What?"]
        assert [part["image"] is None for part in row["parts"]] == [False, False, True]


def test_only_the_first_prompt_of_an_image_pays_for_its_whole_picture(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=2)
    build(run, shard)
    found = render(renderer(run, shard), pieces(run))
    assert [row["shared_tokens"] for row in found] == [0, 4, 4, 0, 4, 4]  # 64×48 px become 56×56
    assert all(row["image_tokens"] > 4 for row in found)
    plain = render(renderer(run, shard, prompt=RegionPrompt(layout="overlay")), pieces(run))
    assert [(row["image_tokens"], row["shared_tokens"]) for row in plain] == [(4, 0)] * 6


def test_the_embedded_engine_has_no_tokens(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=1)
    build(run, shard)
    made = renderer(run, shard, prompt=RegionPrompt(layout="cutout"), engine=EngineConfig())
    assert [(row["image_tokens"], row["shared_tokens"]) for row in render(made, pieces(run))] == [(0, 0)] * 3


def test_marks_ask_about_several_masks_of_one_image_at_once(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=2)
    build(run, shard)
    found = render(renderer(run, shard, prompt=RegionPrompt(layout="marks", marks=2)), pieces(run))
    assert asked_about(found) == [
        (1001, [100100, 100101]), (1001, [100102]), (1002, [100200, 100201]), (1002, [100202]),
    ]  # fmt: skip
    assert [row["shared_tokens"] for row in found] == [0, 4, 0, 4]


def test_only_masks_that_are_asked_for_are_rendered(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=3)
    build(run, shard)
    found = render(renderer(run, shard), pieces(run, [100302, 100100]))
    assert asked_about(found) == [(1001, [100100]), (1003, [100302])]
    assert [row["shared_tokens"] for row in found] == [0, 0]
    whole = {row["prompt_id"]: row for row in render(renderer(run, shard), pieces(run))}
    assert [row["parts"] for row in found] == [whole[100100]["parts"], whole[100302]["parts"]]


def test_several_pieces_of_several_shards(run: Run, tmp_path: Path) -> None:
    shards = [write_shard(tmp_path, number, images=2) for number in (1, 2)]
    build(run, *shards)
    found = render(renderer(run, *shards), pieces(run))
    assert Counter(row["shard"] for row in found) == {"sa_000001": 6, "sa_000002": 6}
    assert sorted(row["prompt_id"] for row in found) == [row["mask_id"] for row in rows(run)]


def test_more_masks_than_are_handed_on_together(run: Run, tmp_path: Path) -> None:
    notes = [square(700 + number, 6, left=number) for number in range(40)]
    shard = write_tar(tmp_path / "a.tar", image_members(7, notes))
    build(run, shard)
    found = render(renderer(run, shard), pieces(run))
    assert asked_about(found) == [(7, [700 + number]) for number in range(40)]
    assert [row["shared_tokens"] for row in found] == [0] + [4] * 39


def test_nothing_asked_nothing_made(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1)
    build(run, shard)
    assert render(renderer(run, shard), pieces(run).slice(0, 0)) == []


def test_an_unpacked_shard_gives_the_same_prompts_as_its_tar(run: Run, tmp_path: Path) -> None:
    shard, folder = write_shard(tmp_path, 1, images=2), tmp_path / "unpacked"
    with tarfile.open(shard) as archive:
        archive.extractall(folder, filter="data")
    build(run, shard)
    other = Run(str(tmp_path / "other"))
    build(other, folder)
    packed, unpacked = render(renderer(run, shard), pieces(run)), render(renderer(other, folder), pieces(other))
    assert {row["shard"] for row in unpacked} == {"unpacked"}
    assert [row["parts"] for row in unpacked] == [row["parts"] for row in packed]


def test_an_image_is_decoded_once_for_all_its_masks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path, 1, images=2)
    build(run, shard)
    decode, decoded = images.decode, []

    def counting(data: bytes, size: Size) -> Photograph:
        decoded.append(data)
        return decode(data, size)

    monkeypatch.setattr(images, "decode", counting)
    assert len(render(renderer(run, shard), pieces(run))) == 6
    assert decoded == [image_members(1001)[0][1], image_members(1002)[0][1]]


# --- damage since the masks were read ---------------------------------------------------------------------


def jpg_range(run: Run, image_id: int) -> slice:
    row = next(row for row in rows(run, "images", "image_id") if row["image_id"] == image_id)
    return slice(row["jpg_offset"], row["jpg_offset"] + row["jpg_bytes"])


def cut(data: bytes, where: slice) -> bytes:
    return data[: where.start + 40]


def cut_before(data: bytes, where: slice) -> bytes:
    return data[: where.start - 1000]


def garble(data: bytes, where: slice) -> bytes:
    noise = np.random.default_rng(0).bytes(where.stop - where.start)
    return data[: where.start] + noise + data[where.stop :]


def break_off(data: bytes, where: slice) -> bytes:
    """Zeros where the JPEG's second half was."""
    half = (where.start + where.stop) // 2
    return data[:half] + bytes(where.stop - half) + data[where.stop :]


def exchange(data: bytes, where: slice) -> bytes:
    other = jpeg(WIDTH // 2, HEIGHT // 2).ljust(where.stop - where.start, b"\0")
    return data[: where.start] + other + data[where.stop :]


@pytest.mark.parametrize(
    ("damage", "reason", "says"),
    [
        (cut, "missing-bytes", "40 found: the shard was changed or cut"),
        (cut_before, "missing-bytes", "0 found: the shard was changed or cut"),
        (garble, "image-unreadable", "sa_1003.jpg: 64×48 px expected, no JPEG found"),
        (break_off, "image-unreadable", "sa_1003.jpg: the JPEG cannot be decoded: "),
        (exchange, "image-unreadable", "sa_1003.jpg: 64×48 px expected, a JPEG of 32×24 px found"),
    ],
)
def test_an_image_that_was_damaged_costs_its_own_masks_only(
    run: Run, tmp_path: Path, damage: Callable[[bytes, slice], bytes], reason: str, says: str
) -> None:
    shard = write_shard(tmp_path, 1, images=3)
    build(run, shard)
    sound = render(renderer(run, shard), pieces(run))
    shard.write_bytes(damage(shard.read_bytes(), jpg_range(run, 1003)))
    found = render(renderer(run, shard), pieces(run))
    assert found[:6] == sound[:6]
    assert asked_about(found[6:]) == asked_about(sound[6:])
    for row in found[6:]:
        assert row["reason"] == reason
        assert says in row["problem"]
        assert (row["prompt_id"], row["shard"], row["parts"]) == (row["subjects"][0], "sa_000001", [])
        assert (row["image_tokens"], row["shared_tokens"]) == (0, 0)


def test_masks_are_refused_one_by_one_also_where_they_would_be_asked_together(run: Run, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 1, images=1)
    build(run, shard)
    shard.write_bytes(garble(shard.read_bytes(), jpg_range(run, 1001)))
    found = render(renderer(run, shard, prompt=RegionPrompt(layout="marks")), pieces(run))
    assert asked_about(found) == [(1001, [100100]), (1001, [100101]), (1001, [100102])]


def test_a_shard_that_vanished(run: Run, tmp_path: Path) -> None:
    gone, there = write_shard(tmp_path, 1, images=2), write_shard(tmp_path, 2, images=2)
    build(run, gone, there)
    made = renderer(run, gone, there)
    gone.unlink()
    found = render(made, pieces(run))
    assert Counter((row["shard"], row["reason"]) for row in found) == {
        ("sa_000001", "shard-unreadable"): 6,
        ("sa_000002", None): 6,
    }
    assert all(str(gone) in row["problem"] for row in found if row["reason"])


def test_an_image_that_vanished_from_an_unpacked_shard(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, data in [*image_members(1, prefix=""), *image_members(2, prefix="")]:
        (folder / name).write_bytes(data)
    build(run, folder)
    made = renderer(run, folder)
    (folder / "sa_1.jpg").unlink()
    found = render(made, pieces(run))
    assert [(row["image_id"], row["reason"]) for row in found] == [(1, "shard-unreadable")] * 3 + [(2, None)] * 3


def test_a_picture_too_narrow_for_the_model_stops_nobody(run: Run, tmp_path: Path) -> None:
    info = {"image_id": 1, "width": 3000, "height": 10, "file_name": "sa_1.jpg"}
    content = {"image": info, "annotations": [annotation(11, np.ones((10, 3000), np.bool_), 0.9, 0.9)]}
    narrow = [("sa_1.jpg", jpeg(3000, 10)), ("sa_1.json", json.dumps(content).encode())]
    shard = write_tar(tmp_path / "a.tar", [*narrow, *image_members(2, [square(22)])])
    build(run, shard)
    found = render(renderer(run, shard), pieces(run))
    assert [(row["subjects"], row["problem"], len(row["parts"])) for row in found] == [([11], None, 3), ([22], None, 3)]
