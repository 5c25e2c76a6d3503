"""Checking on one real Ray, against a server that believes the same of a region every time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checking_server import CheckingServer, belief, write_pairs
from named_shards import write_shard
from sa1b_shards import build as build_masks
from sa1b_shards import rows

from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.errors import UsageError, UserError
from pipeline.funnel import Level
from pipeline.run import Run
from stages import head_tail, naming, verdicts, verification
from stages.engines.base import EngineConfig
from stages.funnel import levels
from stages.head_tail import HeadTailConfig
from stages.ledger import Progress, Watcher
from stages.naming import Bounds
from stages.verification_settings import VerifyConfig

IMAGES, MASKS = 3, 20
PREFLIGHT = 4
HEADS = ("dog", "teapot")
PAPER = "Is the area outlined by the red contour and covered by the red mask in the image {}? Please answer yes or no."
EVERYTHING = Bounds()


def category(mask_id: int) -> str:
    """Of every ten masks six are dogs, three are teapots and one is something rare."""
    return ["dog", "dog", "dog", "dog", "dog", "dog", "teapot", "teapot", "teapot", f"emu {mask_id}"][mask_id % 10]


def controls_are_wrong(pictures: list[str], name: str) -> float:
    """Heads are believed half of the time, other names never."""
    return belief(pictures, name) if name in HEADS or name in ("cat", "cup of coffee", "airplane") else 0.01


@pytest.fixture(scope="module")
def ray_session() -> Iterator[cluster.Session]:
    with cluster.session(ClusterConfig()) as session:
        yield session


@pytest.fixture
def server() -> Iterator[CheckingServer]:
    running = CheckingServer()
    yield running
    running.stop()


class Checking:
    """Checks the pairs of a run, and remembers what was said."""

    def __init__(self, run: Run, server: CheckingServer, session: cluster.Session) -> None:
        self.run, self.server, self.session = run, server, session
        self.said: list[str] = []
        self.done: list[Progress] = []

    def __call__(self, bounds: Bounds = EVERYTHING, redo: bool = False, cut: int = 5, **verify: Any) -> None:
        verifier = EngineConfig(kind="openai", model="m", urls=[self.server.url], slots=8, tries=6, gpus=1.0)

        @contextmanager
        def session() -> Iterator[cluster.Session]:
            yield self.session

        watcher = Watcher(lambda _: None, self.done.append, self.said.append)
        head_tail.build(self.run, HeadTailConfig(head_min_count=cut))
        config = VerifyConfig(**verify)
        verification.build(self.run, config, verifier, session, watcher, bounds=bounds, redo=redo)

    def verdicts(self) -> dict[str, int]:
        """How many pairs have which verdict; the funnel has to agree."""
        made = verdicts.build(self.run)
        level = self.funnel()
        assert level.kept == sum(made.reasons[reason] for reason in verdicts.KEPT)
        assert level.pending + sum(level.quarantined.values()) == made.pending
        return {reason: count for reason, count in made.reasons.items() if count}

    def funnel(self) -> Level:
        level = levels(self.run)[-1]
        assert (level.name, level.difference) == ("verified", 0)
        return level


@pytest.fixture
def check(run: Run, tmp_path: Path, server: CheckingServer, ray_session: cluster.Session) -> Checking:
    build_masks(run, write_shard(tmp_path, 0, IMAGES, MASKS))
    write_pairs(run, {row["mask_id"]: category(row["mask_id"]) for row in rows(run)})
    server.belief = controls_are_wrong
    return Checking(run, server, ray_session)


def checks(run: Run) -> list[dict[str, Any]]:
    return rows(run, "checks", "request_id")


def test_every_head_pair_is_asked_in_the_papers_words_and_some_with_a_wrong_name(check: Checking) -> None:
    check(control_share=0.5)
    answered = checks(check.run)
    own = {row["mask_id"]: row for row in answered if row["role"] == "pair"}
    wrong = [row for row in answered if row["role"] == "control"]
    assert own.keys() == {row["mask_id"] for row in rows(check.run) if row["mask_id"] % 10 < 9}
    assert all(row["category"] == category(mask_id) for mask_id, row in own.items())
    assert 15 < len(wrong) < 40
    assert all(row["category"] != category(row["mask_id"]) for row in wrong)
    assert set(check.server.texts) == {
        PAPER.format(name) for name in (*HEADS, *(row["category"] for row in wrong), "cat", "cup of coffee", "airplane")
    }
    row = own[1000]
    assert (row["engine"], row["model"], row["layout"], row["evidence"]) == ("openai", "m", "shared+crop", "logprobs")
    assert row["p_yes"] + row["p_no"] + row["leftover"] == pytest.approx(1)
    assert (row["prompt_tokens"], row["cached_tokens"]) == (100, 60)
    assert sum(done.tokens["prompt"] for done in check.done) == 100 * len(answered)
    found = check.verdicts()
    yes = sum(row["outcome"] == "yes" for row in own.values())
    assert found == {"tail": 6, "yes": yes, "no": 54 - yes}
    assert 0 < yes < 54
    kept = {row["mask_id"] for row in rows(check.run, "verdicts") if row["kept"]}
    assert kept == {m for m in own if own[m]["outcome"] == "yes"} | category_tail(check.run)


def category_tail(run: Run) -> set[int]:
    return {row["mask_id"] for row in rows(run) if row["mask_id"] % 10 == 9}


def test_what_is_answered_is_not_asked_again_and_what_becomes_head_is(check: Checking, tmp_path: Path) -> None:
    check(cut=30, control_share=0.2)
    before = checks(check.run)
    assert {row["category"] for row in before if row["role"] == "pair"} == {"dog"}
    planned = rows(check.run, "requests", "request_id")
    check.server.answered.clear()
    check(cut=30)
    assert not check.server.answered, "with nothing to do, nothing is asked"
    build_masks(check.run, write_shard(tmp_path, 1, 2, 20))
    write_pairs(check.run, {row["mask_id"]: category(row["mask_id"]) for row in rows(check.run)})
    check(cut=30)
    after = checks(check.run)
    assert [row for row in after if row["request_id"] in {r["request_id"] for r in before}] == before
    assert all(row in rows(check.run, "requests", "request_id") for row in planned), "what is planned stays"
    new = len(after) - len(before)
    assert check.server.answered.total() == new + PREFLIGHT
    assert {row["category"] for row in after if row["role"] == "pair"} == {"dog", "teapot"}
    assert sum(row["role"] == "pair" for row in after) == 100 * 9 // 10
    assert check.verdicts()["tail"] == 10


def test_a_changed_category_is_asked_anew_and_the_old_answer_no_longer_counts(check: Checking) -> None:
    check(control_share=0.0)
    assert check.verdicts()["tail"] == 6
    write_pairs(
        check.run,
        {row["mask_id"]: "vase" if row["mask_id"] == 1000 else category(row["mask_id"]) for row in rows(check.run)},
    )
    assert check.funnel().pending == 60, "verdicts are of other pairs"
    check(cut=1)
    assert check.verdicts().get("tail", 0) == 0
    of_mask = {row["category"] for row in checks(check.run) if row["mask_id"] == 1000}
    assert of_mask == {"dog", "vase"}
    (verdict,) = (row for row in rows(check.run, "verdicts") if row["mask_id"] == 1000)
    (answer,) = (row for row in checks(check.run) if (row["mask_id"], row["category"]) == (1000, "vase"))
    assert (verdict["category"], verdict["p_yes"]) == ("vase", answer["p_yes"])


def test_limit_settings_and_redo(check: Checking) -> None:
    check(Bounds(limit=10))
    assert len(checks(check.run)) == 10
    assert check.verdicts()["tail"] == 6
    assert check.funnel().pending > 40
    with pytest.raises(UserError, match=r"10 checks made differently:\n  layout was 'shared\+crop', is 'overlay'"):
        check(layout="overlay")
    check(layout="overlay", redo=True)
    assert {row["layout"] for row in checks(check.run)} == {"overlay"}
    check(article="indefinite", redo=True)
    assert PAPER.format("a dog") in check.server.texts
    assert check.funnel().pending == 0 or check.verdicts()
    assert len({row["request_id"] for row in checks(check.run)}) == len(checks(check.run))


def test_the_tail_may_be_asked_and_is_kept_all_the_same(check: Checking) -> None:
    check(ask="all", control_share=0.0)
    assert len(checks(check.run)) == 60
    assert check.verdicts()["tail"] == 6
    tail = [row for row in rows(check.run, "verdicts") if row["band"] == "tail"]
    assert all(row["kept"] and row["score"] is not None and row["threshold"] is None for row in tail)


def test_failures_are_asked_again_and_in_the_end_quarantined(check: Checking) -> None:
    check.server.broken = lambda asked: asked == "teapot"
    check(tries=2, control_share=0.0)
    assert check.verdicts()["tail"] == 6
    assert check.funnel().pending == 18
    assert {row["mask_id"] for row in rows(check.run, "failures")} == {
        row["mask_id"] for row in rows(check.run) if category(row["mask_id"]) == "teapot"
    }
    check(tries=2)
    check.verdicts()
    assert check.funnel().quarantined == {"failed": 18}
    assert {row["input"].split(":")[0] for row in rows(check.run, "quarantine", "input")} == {"request"}
    check.server.broken = lambda _: False
    check(tries=2)
    assert check.funnel().pending == 0
    check(redo=True)
    check.verdicts()
    assert (check.funnel().pending, check.funnel().quarantined) == (0, {})


def test_a_vanished_picture_costs_its_own_pairs(check: Checking, tmp_path: Path) -> None:
    shard = tmp_path / "sa_000000.tar"
    image = rows(check.run, "images", "image_id")[0]
    data = bytearray(shard.read_bytes())
    data[image["jpg_offset"] : image["jpg_offset"] + image["jpg_bytes"]] = bytes(image["jpg_bytes"])
    shard.write_bytes(data)
    check(control_share=0.3)
    check.verdicts()
    assert check.funnel().quarantined == {"image-unreadable": 18}
    assert check.funnel().pending == 0


HOSTILE = ['"quoted"', "{braces}", "{class name}", "<b>bold</b>", "x" * 200, "a?b"]


def test_hostile_names_are_asked_as_they_are(check: Checking) -> None:
    names = {row["mask_id"]: HOSTILE[row["mask_id"] % len(HOSTILE)] for row in rows(check.run)}
    write_pairs(check.run, names)
    check.server.belief = belief
    check(control_share=0.0)
    assert {row["category"] for row in checks(check.run)} == set(HOSTILE)
    assert {PAPER.format("\0").replace("\0", name) for name in HOSTILE} <= set(check.server.texts)


# --- engines that cannot be trusted -----------------------------------------------------------------------


def test_one_that_says_yes_to_everything_is_refused_before_any_pair(check: Checking) -> None:
    check.server.belief = lambda *_: 0.97
    with pytest.raises(UserError, match=r"(?s)says yes to everything.*verify\.preflight = warn"):
        check()
    assert not checks(check.run)
    assert check.server.answered.total() <= PREFLIGHT + 60, "what was under way may be answered, and is not kept"


def test_one_that_says_yes_to_wrong_names_is_stopped_by_them(check: Checking) -> None:
    check.server.belief = lambda _, name: 0.1 if name == "airplane" else 0.9
    with pytest.raises(UserError, match=r"says yes to \d+ of \d+ wrong names.*\n.*verify\.preflight = warn"):
        check(control_share=1.0)
    kept = checks(check.run)
    assert kept, "what was answered is kept"
    check.said.clear()
    with pytest.raises(UserError, match="wrong names"):
        check()
    assert not check.said, "the answers at hand are enough to refuse, before a preflight"
    assert checks(check.run) == kept
    check(preflight="warn")
    assert any("warning: the engine says yes to" in line for line in check.said)
    assert sum(row["role"] == "pair" for row in checks(check.run)) == 54


@pytest.mark.parametrize(
    ("told", "evidence"),
    [
        (None, "text"),
        ([], "text"),
        ([{"token": "Yes", "logprob": math.nan, "top_logprobs": []}], "text"),
        ([{"token": "Yes", "logprob": -0.1, "top_logprobs": None}], "logprobs"),
    ],
    ids=["none", "empty", "NaN", "no alternatives"],
)
def test_missing_and_broken_probabilities(check: Checking, told: list[Any] | None, evidence: str) -> None:
    check.server.logprobs = lambda yes: (
        None if told is None else [{**t, "token": "Yes" if yes > 0.5 else "No"} for t in told]
    )
    check(Bounds(limit=12), control_share=0.0)
    answered = checks(check.run)
    assert {row["evidence"] for row in answered} == {evidence}
    assert {row["outcome"] for row in answered} == {"yes", "no"}
    verdict = {row["mask_id"]: row["kept"] for row in (verdicts.build(check.run), rows(check.run, "verdicts"))[1]}
    assert all(verdict[row["mask_id"]] == (row["outcome"] == "yes") for row in answered)
    if evidence == "text":
        assert all(row["p_yes"] is None for row in answered)


# --- before anything is asked -----------------------------------------------------------------------------


def test_the_quote_counts_pairs_and_controls_and_asks_nothing(check: Checking) -> None:
    head_tail.build(check.run, HeadTailConfig(head_min_count=5))
    engine = EngineConfig(kind="openai", model="m", urls=[check.server.url], gpus=4, tokens_per_second=1000)
    found = verification.preview(check.run, VerifyConfig(control_share=0.5), engine, EVERYTHING)
    planned = rows(check.run, "requests", "request_id")
    assert (found.answered, found.quote.masks) == (0, len(planned))
    assert sum(row["role"] == "pair" for row in planned) == 54
    assert found.quote.gpu_hours
    assert found.quote.generated_tokens == 2 * len(planned)
    assert not check.server.answered
    tiled = engine.model_copy(update={"tiles": 12})
    assert verification.preview(check.run, VerifyConfig(control_share=0.5), tiled, EVERYTHING).quote.prompt_tokens > 0


def test_the_embedded_engine_does_not_judge_a_real_models_names(check: Checking) -> None:
    from stages.naming_settings import STEP as NAMING
    from stages.naming_settings import NamesConfig
    from stages.quote import Quote

    named = EngineConfig(kind="openai", model="m", urls=["http://127.0.0.1:1/v1"])
    nothing = Quote(0, 0, 0, 0, 0, 0, 0, False)
    check.run.save_plan(NAMING, naming.Plan(NamesConfig().model_dump(), named.model_dump(), nothing))
    head_tail.build(check.run, HeadTailConfig(head_min_count=5))
    with pytest.raises(UsageError, match=r"kind = openai, and verifier\.kind = embedded is only for trying"):
        verification.preview(check.run, VerifyConfig(), EngineConfig(), EVERYTHING)
    forced = verification.preview(check.run, VerifyConfig(preflight="warn"), EngineConfig(), EVERYTHING)
    planned = [row["role"] for row in rows(check.run, "requests", "request_id")]
    assert (forced.quote.masks, planned.count("pair")) == (len(planned), 54)


def test_a_layout_that_the_engine_cannot_read_is_refused(check: Checking) -> None:
    head_tail.build(check.run, HeadTailConfig())
    with pytest.raises(UsageError, match=r"verify\.layout = overlay does not go with verifier\.kind = embedded"):
        verification.preview(check.run, VerifyConfig(layout="overlay"), EngineConfig(), EVERYTHING)
