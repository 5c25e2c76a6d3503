"""The naming step on one real Ray, against a server that always gives a region the same name."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from named_shards import write_shard
from naming_server import NamingServer, name_of
from sa1b_shards import build as build_masks
from sa1b_shards import rows

from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.errors import UsageError, UserError
from pipeline.funnel import Level
from pipeline.run import Run
from stages import naming, pilot, preflight
from stages.engines.base import EngineConfig, askable, chat_part
from stages.funnel import levels
from stages.ledger import Progress, Watcher
from stages.naming_settings import STEP, NamesConfig, settled

IMAGES, MASKS = 3, 30
EVERYTHING = naming.Bounds()


@pytest.fixture(scope="module")
def ray_session() -> Iterator[cluster.Session]:
    with cluster.session(ClusterConfig()) as session:
        yield session


@pytest.fixture
def server() -> Iterator[NamingServer]:
    running = NamingServer()
    yield running
    running.hangs_after = sys.maxsize
    running.stop()


@pytest.fixture
def masks(run: Run, tmp_path: Path) -> Run:
    """A run with masks and no names."""
    build_masks(run, write_shard(tmp_path, 0, IMAGES, MASKS))
    return run


class Naming:
    """Names the masks of a run, and remembers what was said and shown."""

    def __init__(self, run: Run, server: NamingServer, session: cluster.Session) -> None:
        self.run, self.server, self.session = run, server, session
        self.said: list[str] = []
        self.done: list[Progress] = []

    def __call__(self, bounds: naming.Bounds = EVERYTHING, redo: bool = False, **names: Any) -> None:
        namer: dict[str, Any] = {
            "kind": "openai",
            "model": "m",
            "urls": [self.server.url],
            "slots": 8,
            "tries": 6,
            "gpus": 1.0,
        }
        namer.update({key.removeprefix("namer_"): names.pop(key) for key in list(names) if key.startswith("namer_")})

        @contextmanager
        def session() -> Iterator[cluster.Session]:
            yield self.session

        watcher = Watcher(lambda _: None, self.done.append, self.said.append)
        naming.build(self.run, NamesConfig(**names), EngineConfig(**namer), session, watcher, bounds=bounds, redo=redo)


@pytest.fixture
def name(masks: Run, server: NamingServer, ray_session: cluster.Session) -> Naming:
    return Naming(masks, server, ray_session)


def probes() -> frozenset[str]:
    """Names of the images of our own that an engine is tried on before a run."""
    engine = EngineConfig(kind="openai", model="m", urls=["http://127.0.0.1"])
    config = settled(NamesConfig(), engine)
    asked = askable(preflight.of_names("", config.shown, engine).prompts)
    urls = ([chat_part(part)["image_url"]["url"] for part in parts if isinstance(part, bytes)] for parts in asked)
    return frozenset(map(name_of, urls))


def funnel(run: Run) -> Level:
    level = levels(run)[-1]
    assert (level.name, level.difference) == ("names", 0)
    return level


def test_every_mask_gets_its_name_and_where_it_comes_from(name: Naming) -> None:
    name()
    named = rows(name.run, "names")
    assert len({row["mask_id"] for row in named}) == len(named) == IMAGES * MASKS
    assert len({row["category"] for row in named}) == IMAGES * MASKS
    assert {(r["outcome"], r["engine"], r["model"], r["layout"], r["logprob"]) for r in named} == {
        ("named", "openai", "m", "shared+crop", -0.25)
    }
    assert {(r["prompt_tokens"], r["cached_tokens"], r["generated_tokens"]) for r in named} == {(100, 60, 4)}
    assert sum(done.masks for done in name.done) == IMAGES * MASKS
    assert sum(done.tokens["prompt"] for done in name.done) == 100 * IMAGES * MASKS
    level = funnel(name.run)
    assert (level.total, level.kept, level.pending) == (IMAGES * MASKS, IMAGES * MASKS, 0)


def test_growth_asks_new_masks_only(name: Naming, tmp_path: Path) -> None:
    name()
    before = rows(name.run, "names")
    name.server.answered.clear()
    build_masks(name.run, write_shard(tmp_path, 1, 1, 10))
    assert funnel(name.run).pending == 10
    name()
    assert name.server.answered.total() == 10 + len(("blank", "cat", "coffee"))
    assert [row for row in rows(name.run, "names") if row["mask_id"] < 1_000_000] == before
    name.server.answered.clear()
    name()
    assert not name.server.answered, "with nothing to do, nothing is asked"


def test_a_limit_stops_early_and_the_rest_follows(name: Naming) -> None:
    name(naming.Bounds(limit=40))
    assert (funnel(name.run).kept, funnel(name.run).pending) == (40, 50)
    name()
    assert funnel(name.run).kept == IMAGES * MASKS


def test_names_made_otherwise_are_refused_and_redone_on_demand(name: Naming) -> None:
    name(naming.Bounds(limit=40))
    with pytest.raises(UserError, match=r"40 names made differently:\n  layout was 'shared\+crop', is 'crop'"):
        name(layout="crop")
    assert funnel(name.run).kept == 40
    name(layout="crop", redo=True)
    assert {row["layout"] for row in rows(name.run, "names")} == {"crop"}
    assert len(rows(name.run, "names")) == IMAGES * MASKS


def test_what_a_command_does_not_name_stays_as_the_run_has_it(name: Naming) -> None:
    name(naming.Bounds(limit=10), layout="crop", crop_px=200)
    name(naming.Bounds(limit=10))
    assert {row["layout"] for row in rows(name.run, "names")} == {"crop"}


def test_failures_are_asked_again_and_in_the_end_quarantined(name: Naming) -> None:
    name.server.broken = lambda asked: asked[0] in "abcd"
    name(tries=2)
    failed = {row["mask_id"] for row in rows(name.run, "failures")}
    assert 0 < len(failed) < IMAGES * MASKS
    assert all("BadRequestError" in row["error"] for row in rows(name.run, "failures"))
    assert funnel(name.run).pending == len(failed)
    name.server.answered.clear()
    name(tries=2)
    assert name.server.answered.total() == len(failed) + 3
    assert funnel(name.run).quarantined == {"failed": len(failed)}
    name.server.broken = lambda _: False
    name(tries=2)
    assert funnel(name.run).pending == 0
    name(tries=2, redo=True)
    assert funnel(name.run).kept == IMAGES * MASKS, "--redo asks quarantined masks again"


def test_pictures_that_cannot_be_had_are_quarantined_and_others_named(name: Naming, tmp_path: Path) -> None:
    shard = tmp_path / "sa_000000.tar"
    images = rows(name.run, "images", "image_id")
    data = bytearray(shard.read_bytes())
    start = images[0]["jpg_offset"]
    data[start : start + images[0]["jpg_bytes"]] = bytes(images[0]["jpg_bytes"])
    shard.write_bytes(data)
    name()
    level = funnel(name.run)
    assert level.quarantined == {"image-unreadable": MASKS}
    assert level.kept == (IMAGES - 1) * MASKS


def test_a_vanished_shard_is_tried_again_later(name: Naming, tmp_path: Path) -> None:
    shard = tmp_path / "sa_000000.tar"
    shard.rename(tmp_path / "away")
    name()
    assert funnel(name.run).pending == IMAGES * MASKS
    (tmp_path / "away").rename(shard)
    name()
    assert funnel(name.run).kept == IMAGES * MASKS


def test_marks_that_the_answer_leaves_out_are_recorded_as_missing(name: Naming) -> None:
    name.server.constant = '{"1": "dog", "2": "unknown", "3": "cat"}'
    name(layout="marks", marks=5, preflight="warn")
    outcomes = Counter(row["outcome"] for row in rows(name.run, "names"))
    assert outcomes == {"named": 2 * 18, "abstained": 18, "missing": 2 * 18}
    assert {row["prompt_tokens"] for row in rows(name.run, "names")} == {20}
    assert funnel(name.run).dropped == {"abstained": 18, "missing": 36}


def test_an_engine_that_does_not_see_pictures_is_refused(name: Naming) -> None:
    name.server.constant = "dog"
    with pytest.raises(UserError, match="it does not see the pictures"):
        name()
    assert not rows(name.run, "names")


def test_an_engine_that_does_not_work_is_told_before_anything_is_asked(name: Naming) -> None:
    name.server.broken = lambda _: True
    with pytest.raises(UserError, match="the engine does not work: BadRequestError"):
        name()
    assert not rows(name.run, "failures")


def test_a_hung_engine_ends_the_run_with_what_was_answered(name: Naming) -> None:
    name.server.spared = probes()
    name.server.hangs_after = IMAGES * MASKS - 1
    with pytest.raises(UserError, match="no answer has come for 20 s") as hung:
        name(namer_patience=20.0)
    kept = levels(name.run)[-1].kept if levels(name.run)[-1].name == "names" else 0
    in_one_batch_with_a_probe = "Not kept: " in str(hung.value)
    assert (kept == 0) if in_one_batch_with_a_probe else (0 < kept < IMAGES * MASKS)
    name.server.hangs_after = sys.maxsize
    name()
    assert funnel(name.run).kept == IMAGES * MASKS


def test_a_server_that_goes_and_comes_back_costs_retries_only(name: Naming) -> None:
    name.server.delay = 0.3
    port = int(name.server.url.rpartition(":")[2].removesuffix("/v1"))
    back: list[NamingServer] = []

    def restart() -> None:
        while name.server.answered.total() < 20:
            time.sleep(0.05)
        name.server.stop()
        time.sleep(2)
        back.append(NamingServer(port=port))

    threading.Thread(target=restart, daemon=True).start()
    name()
    assert back[0].answered, "the new server was asked"
    back[0].stop()
    assert [row["error"] for row in rows(name.run, "failures")] == []
    assert funnel(name.run).kept == IMAGES * MASKS


def test_a_budget_stops_cleanly_and_is_resumed(name: Naming) -> None:
    name.server.delay = 0.3
    name(naming.Bounds(gpu_hours=1.5 / 3600))
    assert "stopped" in name.said[-1]
    assert 0 < funnel(name.run).kept < IMAGES * MASKS
    name.server.delay = 0
    name()
    assert funnel(name.run).kept == IMAGES * MASKS


def test_a_budget_without_known_gpus_is_refused(name: Naming) -> None:
    with pytest.raises(UsageError, match=r"namer\.gpus"):
        name(naming.Bounds(gpu_hours=1), namer_gpus=0)


def test_the_embedded_engine_and_its_layout_go_together(masks: Run) -> None:
    with pytest.raises(UsageError, match="kind = embedded, which reads cutout"):
        naming.preview(masks, NamesConfig(layout="crop"), EngineConfig(), naming.Bounds())


def test_a_run_without_masks_says_what_to_do(run: Run) -> None:
    with pytest.raises(UsageError, match="rr7k stage-1 manifest"):
        naming.preview(run, NamesConfig(), EngineConfig(), naming.Bounds())


def test_a_quote_counts_what_is_then_asked(name: Naming) -> None:
    engine = EngineConfig(kind="openai", model="m", urls=[name.server.url], gpus=8, tokens_per_second=1000)
    quote = naming.preview(name.run, NamesConfig(), engine, naming.Bounds())
    # 64×48 px become 56×56, 4 tokens; crops 448×336 or so; 99 of text. Shared: all but each image's first prompt.
    assert (quote.masks, quote.prompts, quote.shared_tokens) == (90, 90, 4 * (90 - IMAGES))
    assert quote.gpu_hours == pytest.approx((quote.prompt_tokens - quote.shared_tokens + 360) / 1000 / 3600 * 8)
    assert not quote.measured
    name()
    plan = name.run.plan(STEP, naming.Plan)
    assert plan is not None
    assert plan.quote.prompt_tokens == quote.prompt_tokens


def test_the_rate_of_a_quote_is_measured_once_there_are_answers(name: Naming) -> None:
    name(naming.Bounds(limit=30))
    engine = EngineConfig(kind="openai", model="m", urls=[name.server.url], tokens_per_second=1)
    quote = naming.preview(name.run, NamesConfig(), engine, naming.Bounds())
    assert quote.measured
    assert quote.tokens_per_second > 1
    assert quote.generated_tokens == 4 * 60


def test_the_pilot_compares_layouts_and_leaves_the_tables_alone(name: Naming) -> None:
    engine = EngineConfig(kind="openai", model="m", urls=[name.server.url])
    truth = {row["mask_id"]: "dog" for row in rows(name.run)[:50]}
    trials = list(pilot.run_trials(name.run, 40, NamesConfig(), engine, truth, lambda _: None))
    assert [trial.layout for trial in trials] == ["shared+crop", "overlay", "crop", "marks"]
    assert {trial.masks for trial in trials} == {40}
    assert [trial.agreement for trial in trials] == [1, 0, 0, 0]  # the names depend on the pictures' bytes
    assert [trial.named for trial in trials] == [1, 1, 1, 0]  # a bare name is no answer to several marks
    assert {trial.accuracy for trial in trials} == {0.0}
    assert trials[0].prompt_tokens == 100
    assert trials[0].new_tokens < 100 == trials[1].new_tokens
    assert not rows(name.run, "names")


def test_a_pilot_prefers_whole_images_and_is_the_same_every_time(masks: Run) -> None:
    chosen = [pilot.sample(masks, 40, NamesConfig(), EngineConfig(), {}) for _ in range(2)]
    assert chosen[0] == chosen[1]
    ids = [mask for piece in chosen[0] for mask in piece.mask_ids]
    assert len(ids) == 40
    assert len({mask // 1000 for mask in ids}) == 2
