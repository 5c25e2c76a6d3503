"""Engines answer benchmarks: on one real Ray against a server that always gives a region the same name, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small_benchmarks
from naming_server import NamingServer
from sa1b_shards import rows
from test_end_to_end import WATCHDOG, served_by, wait_for_rows

from pipeline import cluster, regions
from pipeline.config import ClusterConfig
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run
from stages import answering
from stages.answering import Benchmark, Written
from stages.engines.base import EngineConfig
from stages.ledger import Watcher
from stages.naming import Bounds
from stages.naming_settings import NamesConfig

IMAGES, EACH = 3, 10
EVERYTHING = Bounds()
ASKED_FIRST = 3
"""Pictures of the preflight."""


@pytest.fixture(scope="module")
def ray_session() -> Iterator[cluster.Session]:
    with cluster.session(ClusterConfig()) as session:
        yield session


@pytest.fixture
def server() -> Iterator[NamingServer]:
    running = NamingServer()
    yield running
    running.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_benchmarks.write(tmp_path / "benchmark", IMAGES, EACH)


class Answering:
    """Answers a benchmark, and remembers what was said."""

    def __init__(self, run: Run, server: NamingServer, session: cluster.Session) -> None:
        self.run, self.server, self.session = run, server, session
        self.said: list[str] = []

    def __call__(
        self, folder: Path, bounds: Bounds = EVERYTHING, redo: bool = False, mini: bool = False, **names: Any
    ) -> Written:
        engine = EngineConfig(kind="openai", model="m", revision="r", urls=[self.server.url], slots=8, tries=2)

        @contextmanager
        def session() -> Iterator[cluster.Session]:
            yield self.session

        watcher = Watcher(lambda _: None, lambda _: None, self.said.append)
        asked = Benchmark(RegionSamples(folder), "f" * 64, "test", mini)
        return answering.build(
            self.run, asked, NamesConfig(**names), engine, session, watcher, bounds=bounds, redo=redo
        )

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return list(pq.read_table(f"{self.run.folder.path}/{answering.FILE}").to_pylist())


@pytest.fixture
def answer(run: Run, server: NamingServer, ray_session: cluster.Session) -> Answering:
    return Answering(run, server, ray_session)


def test_every_region_gets_one_answer_with_its_origin(answer: Answering, folder: Path) -> None:
    written = answer(folder)
    assert (written.answered, written.refused, written.total) == (30, 0, 30)
    found = answer.predictions
    assert [row["instance_id"] for row in found] == [i * 1000 + k for i in (1, 2, 3) for k in range(EACH)]
    assert [row["image_id"] for row in found] == [i for i in (1, 2, 3) for _ in range(EACH)]
    assert len({row["text"] for row in found}) == 30
    assert answer.server.answered.total() == 30 + ASKED_FIRST
    assert {row["raw"] for row in found} < answer.server.answered.keys()
    same = ("outcome", "model", "revision", "engine", "layout", "benchmark")
    assert {tuple(row[name] for name in same) for row in found} == {
        ("named", "m", "r", "openai", "shared+crop", "f" * 64)
    }
    assert len({row["prompt"] for row in found}) == 1
    answer.server.answered.clear()
    assert answer(folder) == written, "with nothing to do, nothing is asked"
    assert not answer.server.answered
    assert answer.predictions == found


def test_limits_subsets_and_new_versions_ask_only_what_is_new(answer: Answering, folder: Path, tmp_path: Path) -> None:
    assert answer(folder, Bounds(limit=4), mini=True)[1:] == (4, 0, 10)
    assert answer(folder, mini=True)[1:] == (10, 0, 10)
    answer.server.answered.clear()
    larger = small_benchmarks.write(tmp_path / "larger", IMAGES, EACH + 1)
    assert answer(larger)[1:] == (33, 0, 33)
    assert answer.server.answered.total() == 23 + ASKED_FIRST
    assert answer(folder)[1:] == (30, 0, 30)  # the answer to what is not in it stays out
    assert len(answer.predictions) == 30


def test_answers_made_otherwise_are_refused(answer: Answering, folder: Path, tmp_path: Path) -> None:
    answer(folder, Bounds(limit=4))
    with pytest.raises(UserError, match=r"4 names made differently:\n  layout was 'shared\+crop', is 'crop'"):
        answer(folder, layout="crop")
    moved = small_benchmarks.write(tmp_path / "moved", IMAGES, EACH)
    shifted = [
        small_benchmarks.instance(i, k + 20, "dog", instance_id=i * 1000 + k) for i in (1, 2, 3) for k in range(EACH)
    ]
    files = [small_benchmarks.image(i, EACH, small_benchmarks.photograph(i)) for i in (1, 2, 3)]
    regions.write(moved, regions.from_rows("instances", shifted), regions.from_rows("images", files))
    with pytest.raises(UserError, match="what they are about has changed"):
        answer(moved)
    assert answer(moved, redo=True).answered == 30


def test_failures_are_asked_again_and_in_the_end_given_up(answer: Answering, folder: Path) -> None:
    answer.server.broken = lambda name: name[0] in "abcd"  # none of the preflight's
    first = answer(folder, tries=2)
    assert 0 < first.answered < 30
    assert first.refused == 0
    second = answer(folder, tries=2)
    assert (second.answered, second.refused) == (first.answered, 30 - first.answered)
    assert len(answer.predictions) == first.answered


def test_what_cannot_be_shown_is_given_up_and_what_is_no_name_stays_as_it_was_said(
    answer: Answering, tmp_path: Path
) -> None:
    rows_of = [small_benchmarks.instance(i, 0, "dog") for i in (1, 2, 3, 4)]
    data = [b"no image", small_benchmarks.photograph(2, "PNG"), None, small_benchmarks.photograph(4)]
    files = [small_benchmarks.image(i, 1, held) for i, held in enumerate(data, 1)]
    folder = tmp_path / "odd"
    regions.write(folder, regions.from_rows("instances", rows_of), regions.from_rows("images", files))
    answer.server.constant = "I cannot tell what this is."
    assert answer(folder, preflight="warn")[1:] == (2, 2, 4)
    found = [(row["instance_id"], row["text"], row["outcome"]) for row in answer.predictions]
    assert found == [(instance, answer.server.constant, "abstained") for instance in (2000, 4000)]
    reasons = {row["input"]: row["reason"] for row in rows(answer.run, "quarantine", "input")}
    assert reasons == {"mask:1000": "image-unreadable", "mask:3000": "image-unreadable"}


def test_marks_answer_several_at_once(answer: Answering, folder: Path) -> None:
    answer.server.constant = '{"1": "Dog", "2": "unknown"}'
    answer(folder, preflight="warn", layout="marks", marks=5, mini=True)
    assert [row["text"] for row in answer.predictions] == ["dog", "", "", "", ""] * 2


def test_a_quote_counts_what_is_then_asked(run: Run, folder: Path) -> None:
    engine = EngineConfig(kind="openai", model="m", urls=["http://127.0.0.1:1/v1"], gpus=1, tokens_per_second=1000)
    asked = Benchmark(RegionSamples(folder), "f", "test")
    quote = answering.preview(run, asked, NamesConfig(), engine, Bounds(limit=12))
    assert (quote.masks, quote.prompts) == (12, 12)
    assert quote.shared_tokens == 4 * (12 - 2)  # 64×48 px cost 4 tokens, shared within each of the two images


def test_what_cannot_be_answered_is_said(run: Run, tmp_path: Path) -> None:
    def preview(folder: Path, split: str = "test") -> None:
        asked = Benchmark(RegionSamples(folder), "f", split)
        answering.preview(run, asked, NamesConfig(), EngineConfig(), EVERYTHING)

    with pytest.raises(UsageError, match=r"holds no images to show\. rr7k hydrate makes a copy that does"):
        preview(small_benchmarks.write(tmp_path / "reference", embedded=False))
    with pytest.raises(UsageError, match="no instances in split train"):
        preview(small_benchmarks.write(tmp_path / "held"), "train")


PROGRAM = """
import typer
from pipeline.cli_predict import predict
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(predict)
app()
"""


def command(folder: Path, run: Run, server: NamingServer) -> list[str]:
    options = ["--engine", "openai", "--benchmark", str(folder), "--run", run.folder.path]
    return [sys.executable, "-c", PROGRAM, *options, *served_by("namer", server.url)]


def test_a_killed_driver_resumes_and_asks_no_committed_region_again(
    run: Run, server: NamingServer, tmp_path: Path
) -> None:
    images, each = 6, 50
    folder = small_benchmarks.write(tmp_path / "benchmark", images, each)
    here = {"cwd": Path(__file__).parent.parent, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    server.delay = 0.3
    process = subprocess.Popen(command(folder, run, server), start_new_session=True, **here)  # type: ignore[call-overload]
    wait_for_rows(run, "names", process, 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    committed = {row["raw"] for row in rows(run, "names")}
    assert 0 < len(committed) < images * each, "killed too early or too late to prove anything"
    time.sleep(1)  # what the dead driver had asked is answered
    server.answered.clear()
    server.delay = 0
    done = subprocess.run(command(folder, run, server), timeout=WATCHDOG, check=False, **here)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert not committed & set(server.answered), "a committed region was asked again"
    found = pq.read_table(f"{run.folder.path}/{answering.FILE}")
    assert len(found) == images * each
    assert set(found["instance_id"].to_pylist()) == {i * 1000 + k for i in range(1, images + 1) for k in range(each)}
    assert len(set(found["text"].to_pylist())) == images * each
