"""Grounded SAM on one real Ray with tiny random models of the real classes, and its matching with models made up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
from named_shards import write_shard
from naming_server import NamingServer, name_of
from PIL import Image
from sa1b_shards import build as build_masks
from sa1b_shards import rows

from pipeline import cluster, masks
from pipeline.config import ClusterConfig
from pipeline.detectors import Detection
from pipeline.errors import UserError
from pipeline.images import Photograph
from pipeline.run import Run
from stages import grounded_sam, naming, naming_settings, phrases
from stages.engines.base import EngineConfig
from stages.funnel import levels
from stages.grounded_sam import GroundConfig, second_names
from stages.ledger import Progress, Watcher
from stages.naming_settings import NamesConfig

IMAGES, MASKS = 3, 5
SIZE = (40, 30)


# --- one image ---


class Boxes:
    """A detector that finds what it is told, and keeps what it was asked."""

    def __init__(self, *found: Detection) -> None:
        self.found, self.asked = list(found), list[str]()

    def detect(self, image: Image.Image, phrases: Sequence[str], **_: float) -> list[Detection]:
        assert image.size == SIZE
        self.asked += phrases
        return self.found


class Filled:
    """A segmenter whose masks are the boxes themselves."""

    def segment(self, image: Image.Image, boxes_xyxy: Any) -> Iterator[Any]:
        for left, top, right, bottom in boxes_xyxy.astype(int):
            yield rectangle(left, top, right, bottom)

    def look(self, image: Image.Image) -> Any:
        raise NotImplementedError


def rectangle(left: int, top: int, right: int, bottom: int) -> Any:
    mask = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def found(own: list[Any], wanted: list[str], *detections: Detection, **config: float) -> list[tuple[Any, ...]]:
    photo = Photograph(Image.new("RGB", SIZE), 1)
    settings = GroundConfig(detector="d", segmenter="s", **config)  # type: ignore[arg-type]
    made = second_names(photo, [masks.encode(m) for m in own], wanted, Boxes(*detections), Filled(), settings)
    return list(zip(made["phrases"], made["scores"], made["ious"], strict=True))


def test_a_mask_gets_the_phrase_of_the_proposal_that_fits() -> None:
    own = [rectangle(0, 0, 10, 10), rectangle(20, 10, 40, 30)]
    told = found(own, ["dog", "cat"], Detection(1, (20, 10, 40, 30), 0.8), Detection(0, (0, 0, 10, 8), 0.5))
    assert told == [("dog", 0.5, pytest.approx(0.8)), ("cat", 0.8, 1.0)]


def test_one_proposal_names_one_mask_and_bad_fits_none() -> None:
    same = [rectangle(0, 0, 10, 10)] * 2
    assert found(same, ["dog"], Detection(0, (0, 0, 10, 10), 0.8)) == [("dog", 0.8, 1.0), (None, None, None)]
    assert found(same[:1], ["dog"], Detection(0, (0, 0, 10, 4), 0.8)) == [(None, None, None)]
    assert found(same[:1], ["dog"], Detection(0, (0, 0, 10, 4), 0.8), match_iou=0.3)[0][0] == "dog"


def test_an_image_without_proposals_or_phrases() -> None:
    own = [rectangle(0, 0, 10, 10)]
    assert found(own, ["dog"]) == [(None, None, None)]
    assert found(own, []) == [(None, None, None)]


# --- a run ---


@pytest.fixture(scope="module")
def ray_session() -> Iterator[cluster.Session]:
    with cluster.session(ClusterConfig()) as session:
        yield session


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(tiny_detectors.detector(folder / "dino")), str(tiny_detectors.sam(folder / "sam"))


@pytest.fixture
def server() -> Iterator[NamingServer]:
    running = NamingServer()
    running.name = lambda pictures: f"w{sum(name_of(pictures).encode()) % 500}"  # a word that the tiny detector knows
    yield running
    running.stop()


class Grounding:
    """Names, lists and grounds the masks of a run."""

    def __init__(self, run: Run, server: NamingServer, session: cluster.Session, models: tuple[str, str]) -> None:
        self.run, self.server, self.session_, self.models = run, server, session, models
        self.done: list[Progress] = []
        self.watcher = Watcher(lambda _: None, self.done.append, lambda _: None)
        self.engine = EngineConfig(kind="openai", model="m", urls=[server.url], slots=8, tries=1)

    @contextmanager
    def session(self) -> Iterator[cluster.Session]:
        yield self.session_

    def name(self, bounds: naming.Bounds = naming.Bounds()) -> None:  # noqa: B008
        naming.build(self.run, NamesConfig(), self.engine, self.session, self.watcher, bounds=bounds)

    def ask(self, redo: bool = False) -> None:
        phrases.build(self.run, NamesConfig(), self.engine, self.session, self.watcher, redo=redo)

    def ground(self, redo: bool = False, **config: Any) -> None:
        loose = {"box_threshold": 0.0, "text_threshold": 0.0, "match_iou": 0.001, "nms_iou": 0.9}
        settings = GroundConfig(**{"detector": self.models[0], "segmenter": self.models[1], **loose, **config})
        grounded_sam.build(self.run, settings, naming_settings.STEP, self.session, self.watcher, redo=redo)

    def grounded(self) -> list[dict[str, Any]]:
        return [row for row in rows(self.run, "names") if row["namer"] == grounded_sam.NAMER]


@pytest.fixture
def grounding(
    run: Run, tmp_path: Path, server: NamingServer, ray_session: cluster.Session, models: tuple[str, str]
) -> Grounding:
    build_masks(run, write_shard(tmp_path, 0, IMAGES, MASKS))
    return Grounding(run, server, ray_session, models)


def test_every_mask_gets_a_second_opinion_or_the_record_that_there_is_none(grounding: Grounding) -> None:
    grounding.name()
    grounding.ask()
    grounding.ground()
    made = grounding.grounded()
    assert len(made) == IMAGES * MASKS
    named = [row for row in made if row["outcome"] == "named"]
    assert named, "tiny random models matched nothing: the test shows nothing"
    for row in named:
        assert 0 < row["score"] <= 1
        assert 0.001 <= row["iou"] <= 1
        assert row["layout"] in ("image", "names", "both")
    assert {row["outcome"] for row in made} <= {"named", "unmatched"}
    listed = rows(grounding.run, "phrases")
    assert [row["phrases"] for row in listed] == [[row["raw"]] for row in listed]  # this server lists one name
    of_masks = {row["category"] for row in rows(grounding.run, "names") if row["namer"] == "vlm"}
    assert {row["category"] for row in named} <= of_masks | {row["raw"] for row in listed}
    level = levels(grounding.run)[-1]
    assert (level.name, level.total, level.kept, level.pending, level.difference) == (
        "grounded", IMAGES * MASKS, len(named), 0, 0,
    )  # fmt: skip


def test_nothing_is_done_twice_and_an_image_waits_for_its_names(grounding: Grounding) -> None:
    grounding.name(naming.Bounds(limit=MASKS + 1))
    grounding.ask()
    grounding.ground()
    assert {row["image_id"] for row in grounding.grounded()} == {1}  # the second has a mask without a name yet
    grounding.name()
    grounding.server.answered.clear()
    grounding.ask()
    assert not grounding.server.answered, "an image was asked about again"
    before = grounding.grounded()
    grounding.ground()
    after = grounding.grounded()
    assert len(after) == IMAGES * MASKS
    assert [row for row in after if row["image_id"] == 1] == before
    grounding.done.clear()
    grounding.ground()
    assert not grounding.done


def test_other_thresholds_are_refused_and_redone_on_demand(grounding: Grounding) -> None:
    grounding.name()
    grounding.ask()
    grounding.ground()
    with pytest.raises(UserError, match=r"match_iou was 0.001, is 1.0"):
        grounding.ground(match_iou=1.0)
    grounding.ground(match_iou=1.0, redo=True)
    assert {row["outcome"] for row in grounding.grounded()} == {"unmatched"}
    assert len(grounding.grounded()) == IMAGES * MASKS


def test_an_engine_that_does_not_work_leaves_no_list_and_nothing_is_grounded(grounding: Grounding) -> None:
    grounding.name()
    grounding.engine = grounding.engine.model_copy(update={"urls": ["http://127.0.0.1:9/v1"]})
    with pytest.raises(UserError):
        grounding.ask()  # the engine does not work: nothing is asked
    assert not rows(grounding.run, "phrases")
    grounding.ground()
    assert not grounding.grounded()


def test_lists_of_another_model_are_refused_and_made_again_on_demand(grounding: Grounding) -> None:
    grounding.ask()
    grounding.engine = grounding.engine.model_copy(update={"model": "n"})
    with pytest.raises(UserError, match=r"3 phrases made differently:\s+model was 'm', is 'n'"):
        grounding.ask()
    grounding.ask(redo=True)
    assert [row["model"] for row in rows(grounding.run, "phrases")] == ["n"] * IMAGES
