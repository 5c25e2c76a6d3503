"""Our own model as an engine: all masks of an image at once, each answer on its own row, to the letter."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import small_benchmarks
from PIL import Image
from wowseg_models import one_thread, wowseg

from model.wowseg import Named, WowSeg
from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.errors import UsageError
from pipeline.images import Photograph
from pipeline.regions import RegionSamples
from pipeline.run import Run
from stages import answering, naming, region_prompts
from stages.answering import Benchmark, Written
from stages.engines.base import PROMPTS, EngineConfig, part
from stages.engines.wowseg import Namer, revision
from stages.ledger import Watcher
from stages.naming import Bounds
from stages.naming_settings import NamesConfig, setting, settled

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    wowseg(double=False).save(folder)
    return folder


def expected(checkpoint: Path, folder: Path) -> dict[int, Named]:
    """What the model says of every region, asked directly."""
    network = WowSeg.from_pretrained(checkpoint)
    found: dict[int, Named] = {}
    samples = RegionSamples(folder)
    regions = samples.read("instances", ["instance_id", "image_id", "segmentation"]).sort_by("instance_id")
    for row in samples.read("images", ["image_id", "image"]).to_pylist():
        own = regions.filter(pc.equal(regions["image_id"], row["image_id"])).to_pylist()
        named = network.name(Image.open(io.BytesIO(row["image"]["bytes"])), [one["segmentation"] for one in own])
        found |= {one["instance_id"]: name for one, name in zip(own, named, strict=True)}
    return found


def answer(run: Run, folder: Path, engine: EngineConfig, opened: cluster.Session, limit: int | None = None) -> Written:
    @contextmanager
    def session() -> Iterator[cluster.Session]:
        yield opened

    watcher = Watcher(lambda _: None, lambda _: None, lambda _: None)
    asked = Benchmark(RegionSamples(folder), "f" * 64, "test")
    return answering.build(run, asked, NamesConfig(), engine, session, watcher, bounds=Bounds(limit))


def test_a_benchmark_is_answered_as_the_model_answers(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    folder = small_benchmarks.write(tmp_path / "benchmark", images=2, each=5)
    engine = EngineConfig(kind="wowseg", model=str(checkpoint))
    with cluster.session(ClusterConfig()) as opened:
        assert answer(run, folder, engine, opened, limit=7)[1:] == (7, 0, 10)
        assert answer(run, folder, engine, opened)[1:] == (10, 0, 10)
    rows = pq.read_table(f"{run.folder.path}/{answering.FILE}").to_pylist()
    wanted = expected(checkpoint, folder)
    assert {row["instance_id"]: row["text"] for row in rows} == {id_: named.label for id_, named in wanted.items()}
    assert {(row["engine"], row["layout"], row["revision"]) for row in rows} == {("wowseg", "masks", revision(engine))}
    kept = run.dataset("names", answering.STEP).to_table().to_pylist()
    assert {row["mask_id"]: row["generated_tokens"] for row in kept} == {i: n.tokens for i, n in wanted.items()}
    for row in kept:
        assert row["logprob"] == pytest.approx(wanted[row["mask_id"]].logprob, abs=1e-4)


def prompt(*pieces: str | bytes) -> pa.Table:
    about = {"prompt_id": 1, "image_id": 1, "shard": "", "subjects": list(range(1, len(pieces)))}
    row = {**about, "parts": [part(piece) for piece in pieces], "image_tokens": 0, "shared_tokens": 0}
    return pa.Table.from_pylist([row], PROMPTS)


def test_what_the_model_cannot_take_is_an_error_of_that_image(checkpoint: Path) -> None:
    namer = Namer(str(checkpoint), EngineConfig(kind="wowseg", model=str(checkpoint)))
    told = namer(prompt(small_benchmarks.photograph(1), "nonsense")).to_pylist()[0]
    assert told["text"] is None
    assert "is no COCO RLE" in told["error"]
    assert "UnidentifiedImageError" in namer(prompt(b"no picture", "nonsense")).to_pylist()[0]["error"]


def test_the_layout_hands_over_pixels_and_masks_untouched() -> None:
    photograph = Photograph(Image.open(io.BytesIO(small_benchmarks.photograph(1))).convert("RGB"), 6)
    rows = [small_benchmarks.instance(1, place, "dog") for place in range(3)]
    regions = [region_prompts.Region(r["instance_id"], (0, 0, 5, 5), r["segmentation"]["counts"]) for r in rows]
    config = settled(NamesConfig(), EngineConfig(kind="wowseg", model="m"))
    (made,) = region_prompts.prompts(photograph, regions, region_prompts.question("name", config), config)
    assert made.mask_ids == [1000, 1001, 1002]
    picture, *counts = made.parts
    assert isinstance(picture, bytes)
    assert Image.open(io.BytesIO(picture)).tobytes() == photograph.pixels.tobytes()
    assert counts == [row["segmentation"]["counts"] for row in rows]


def test_names_of_stage_1_get_each_its_own_answer(checkpoint: Path) -> None:
    engine = EngineConfig(kind="wowseg", model=str(checkpoint))
    config = settled(NamesConfig(), engine)
    said = [{"raw": text, "logprob": -i, "generated_tokens": i} for i, text in enumerate(("A Dog", "shoe: lace", ""))]
    told = {"image_id": 5, "subjects": [1, 2, 3], "seconds": 3.0, "text": msgspec.json.encode(said).decode()}
    asker = naming.asker_of("names-vlm", config, engine)
    rows: list[dict[str, Any]] = asker.rows(told)
    columns = ("mask_id", "category", "outcome", "raw", "logprob", "seconds")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        (1, "dog", "named", "A Dog", 0, 1.0),
        (2, rows[1]["category"], rows[1]["outcome"], "shoe: lace", -1, 1.0),
        (3, None, "abstained", "", -2, 1.0),
    ]


def test_another_checkpoint_at_the_same_place_is_another_setting(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    engine, made = EngineConfig(kind="wowseg", model=str(folder)), []
    for seed in (1, 2):
        wowseg(seed=seed, double=False).save(folder)
        made.append(setting(settled(NamesConfig(), engine), engine))
        folder.rename(tmp_path / str(seed))
    assert made[0].revision != made[1].revision
    with pytest.raises(UsageError, match="no checkpoint there"):
        setting(settled(NamesConfig(), engine), engine)


def test_it_answers_no_questions() -> None:
    with pytest.raises(UsageError, match="answers no other question"):
        region_prompts.settled(region_prompts.RegionPrompt(), "wowseg", "checks", "checker")
