"""The planner: expected numbers by hand, limits that hold in simulations, and what a run's tables say of a pilot."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from checking_server import write_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from named_shards import members
from sa1b_shards import build, commit, write_tar
from screened_runs import shown, vote
from typer.testing import CliRunner

from pipeline import cli_plan, tables
from pipeline.cli_options import load_config
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import decisions, head_tail, rates, verdicts, yields
from stages.decisions import ScreeningConfig
from stages.engines.base import EngineConfig
from stages.head_tail import HeadTailConfig
from stages.manifest import ManifestConfig
from stages.naming_settings import NamesConfig
from stages.recipe import EVERYTHING, Goals, Planner, Rules, Stated, ratio
from stages.requests import request_ids
from stages.richness import REACH, Limits, Reach, images_for, richness, smallest, unseen
from stages.verification_settings import VerifyConfig
from stages.yields import CHECK, SCREENING, Pilot

Row = dict[str, Any]

# --- categories: rarefaction and extrapolation ---

INCIDENCE = np.array([1, 1, 1, 2, 3])  # of five categories, in four images


def test_the_unseen_by_hand() -> None:
    assert unseen(INCIDENCE, 4) == pytest.approx(3 / 4 * 3 * 2 / (2 * 2))
    assert unseen(np.array([4, 4]), 4) == 0
    assert unseen(np.empty(0, np.int64), 4) == 0


def test_fewer_images_are_the_mean_over_all_choices() -> None:
    where = [{0}, {1}, {2}, {0, 3}, {0, 1, 3}]  # the images of each category
    for wanted in range(1, 5):
        found = [sum(bool(at & set(some)) for at in where) for some in combinations(range(4), wanted)]
        assert richness(INCIDENCE, 4, wanted).value == pytest.approx(np.mean(found))


def test_more_images_by_hand() -> None:
    hidden, once = 1.125, 3
    assert richness(INCIDENCE, 4, 6).value == pytest.approx(5 + hidden * (1 - (1 - once / (4 * hidden + once)) ** 2))
    assert richness(INCIDENCE, 4, 10**6).value == pytest.approx(6.125)


def test_the_variance_by_numerical_derivatives() -> None:
    counts = np.array([40, 25, 12, 8])  # categories found in 1, 2, 3 and 4 images

    def expected(counts: Any) -> float:
        once, twice = counts[:2]
        hidden = 99 / 100 * once * (once - 1) / (2 * (twice + 1))
        return float(counts.sum() + hidden * (1 - (1 - once / (100 * hidden + once)) ** 80))

    slopes = [(expected(counts + step) - expected(counts - step)) / 2e-4 for step in np.eye(4) * 1e-4]
    everything = 85 + 99 / 100 * 40 * 39 / 52
    variance = counts @ np.square(slopes) - (counts @ slopes) ** 2 / everything
    found = richness(np.repeat([1, 2, 3, 4], counts), 100, 180)
    assert found.value == pytest.approx(expected(counts))
    assert found.upper - found.value == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


SAMPLES = st.lists(st.integers(1, 12), min_size=1, max_size=40).map(np.array)


@given(SAMPLES, st.integers(12, 30), st.integers(1, 100))
def test_more_images_never_hold_fewer_categories(incidence: Any, images: int, wanted: int) -> None:
    fewer, more = (richness(incidence, images, number) for number in (wanted, wanted + 1))
    assert fewer.value <= more.value + 1e-9
    assert 0 <= fewer.lower <= fewer.value <= fewer.upper
    assert more.value <= len(incidence) + unseen(incidence, images) + 1e-9


@given(SAMPLES, st.integers(12, 30), st.integers(1, 60))
def test_images_for_categories_are_the_fewest(incidence: Any, images: int, goal: int) -> None:
    found = images_for(goal, incidence, images, 10_000)
    if found.value is None:
        assert richness(incidence, images, REACH * images).value < goal
    else:
        assert richness(incidence, images, found.value).value >= goal
        assert found.value == 1 or richness(incidence, images, found.value - 1).value < goal
        assert found.lower <= found.value
        assert found.upper is None or found.upper >= found.value


def test_beyond_the_reach_nobody_can_tell() -> None:
    assert images_for(6, INCIDENCE, 4, 1000) == Reach(None, 4, None)  # 6 categories are within the limits of 4 images
    assert images_for(1000, INCIDENCE, 4, 1000) == Reach(None, 8, None)


def worlds(kind: str) -> tuple[Any, list[Any]]:
    """Chances of 8,000 categories to be in an image, and in how many of 300 each was, 150 times."""
    random = np.random.default_rng(5)
    weights = {"words": 1 / np.arange(1, 8001), "lognormal": random.lognormal(0, 2, 8000)}[kind]
    chances = 1 - (1 - weights / weights.sum()) ** 6
    found = (random.binomial(300, chances) for _ in range(150))
    return chances, [incidence[incidence > 0] for incidence in found]


@pytest.mark.parametrize("kind", ["words", "lognormal"])
def test_how_far_the_limits_hold(kind: str) -> None:
    chances, samples = worlds(kind)

    def held(wanted: int, lower_only: bool = False) -> float:
        true = (1 - (1 - chances) ** wanted).sum()
        found = [richness(sample, 300, wanted) for sample in samples]
        return float(np.mean([one.lower <= true and (lower_only or true <= one.upper) for one in found]))

    assert held(150) >= 0.93
    assert held(300) >= 0.9
    assert held(REACH * 300) >= 0.85
    assert held(3 * 300) < 0.85  # why the reach is not more
    assert held(10 * 300) < 0.1  # why it is not told: the expectation is far too small
    assert held(10 * 300, lower_only=True) > 0.97  # but a lower bound


def test_the_smallest_number() -> None:
    assert smallest(10, lambda number: 3.0 * number, 100) == 4
    assert smallest(10, lambda number: 3.0 * number, 3) is None
    assert smallest(3, lambda number: 3.0 * number, 100) == 1
    assert smallest(10, lambda number: 3.0 * number if number < 50 else 0, 100) == 4


# --- the plan ---

RULES = Rules(head_min_count=5, control_share=0.5, dropped_share=0.0, gold_share=0.0, votes=1, audited=0)


NEVER = 10**15
"""Pairs that no category will ever have."""


def flags(*values: int) -> Any:
    return np.array(values, np.bool_)


def pilot(image: list[int], category: list[int], images: int = 4) -> Pilot:
    """A pilot whose stages all let everything pass, nothing asked in stage 2."""
    yes, no = np.ones(len(image), np.bool_), np.zeros(len(image), np.bool_)
    masks = np.bincount(image, minlength=images)
    shown = {"flagged": no, "asked": no, "kept": yes, "decided": yes, "released": yes}
    return Pilot(images, masks, masks, np.array(image), np.array(category), **shown, missing={}, made_up=[])


HALF = Stated(confirmed=Limits(0.5, 0.4, 0.6))
FOUR = pilot([0, 0, 0, 1], [0, 0, 1, 2])  # of four images, two with pairs


def test_images_that_goals_need() -> None:
    planner = Planner(FOUR, RULES._replace(head_min_count=NEVER), HALF)
    assert planner.need(80, "images").value == 160
    assert planner.need(80, "instances").value == 80
    assert planner.need(10**8, "instances").value is None
    assert "more than all of SA-1B's" in planner.need(10**8, "instances").why


TWO = pilot([0, 0, 0, 1, 1], [0, 0, 1, 0, 1])
"""Of four images, two with both categories; the first category has three pairs, the second two."""


def test_what_is_rare_in_the_pilot_may_be_frequent_in_the_whole() -> None:
    planner = Planner(TWO, RULES, HALF)
    few, some, everything = (planner.columns(number) for number in (1, 8, 10**9))
    assert few.instances == pytest.approx([3, 2, 0, 0], abs=1e-3)
    assert few.questions.sum() == pytest.approx(0, abs=1e-3)
    # Met in two images, none in one only: rates are Gamma(2). Five pairs of eight images are 5 / 2 of four.
    first, second = (math.exp(-x) * (1 + x) for x in (5 / 2 * 2 / 3, 5 / 2))
    assert planner.head(8) == pytest.approx([first, first, second, first, second])
    assert some.questions == pytest.approx([1.5 * (2 * first + second), 1.5 * (first + second), 0, 0])
    assert some.instances == pytest.approx([3 - first - second / 2, 2 - first / 2 - second / 2, 0, 0])
    assert everything.instances == pytest.approx([1.5, 1, 0, 0])
    assert everything.images == pytest.approx([1 - 0.5**3, 1 - 0.5**2, 0, 0])
    assert planner.columns(10**9, "lower").instances == pytest.approx([1.2, 0.8, 0, 0])


def test_a_category_met_once_tells_nothing_where_all_were() -> None:
    assert Planner(FOUR, RULES, HALF).head(10**6).tolist() == [0, 0, 0, 0]


def test_how_many_are_asked_about_in_a_whole_eighty_times_the_pilot() -> None:
    random, each, times = np.random.default_rng(7), 3500, 80
    weights = 1 / np.arange(1, 12_001) ** 1.05
    drawn = random.choice(12_000, (times, each), p=weights / weights.sum())
    true = (np.bincount(drawn.ravel())[drawn] >= 101).mean()
    image = np.repeat(range(500), 7).tolist()
    pilots = [pilot(image, np.unique(part, return_inverse=True)[1].tolist(), 500) for part in drawn[:5]]
    planners = [Planner(one, RULES._replace(head_min_count=101), HALF) for one in pilots]
    asked = [planner.head(500 * times).mean() for planner in planners]
    for planner in planners:
        assert planner.head(500 * times, "lower").mean() < true < planner.head(500 * times, "upper").mean()
    plainly = [(one.counts[one.category] * times >= 101).mean() for one in pilots]
    assert np.mean(asked) == pytest.approx(true, rel=0.03)
    assert min(plainly) > 1.06 * true  # those met twice by luck


def test_what_stage_2_said_in_the_pilot_stays() -> None:
    checked = TWO._replace(asked=flags(1, 1, 0, 1, 0), kept=flags(1, 0, 1, 1, 1), decided=flags(1, 0, 1, 1, 1),
                           released=flags(1, 0, 1, 0, 1))  # fmt: skip
    planner = Planner(checked, RULES)
    kept = 2 / 3  # of three that were asked about
    assert planner.columns(10**9).instances == pytest.approx([1 + kept, kept, 0, 0])
    assert planner.columns(10**9).shown == pytest.approx([1 + kept, 1 + kept, 0, 0])
    less = Planner(checked, RULES._replace(dropped_share=0.5)).columns(10**9).shown
    assert less == pytest.approx([1 + kept + (2 - kept) / 2, 1 + kept + (1 - kept) / 2, 0, 0])
    # Not asked about in a small whole, the second pair goes to people; they release of the dropped what they did here.
    assert planner.columns(1).confirmed == pytest.approx([3, 2, 0, 0], abs=1e-3)
    assert planner.columns(1).instances == pytest.approx([2, 1, 0, 0], abs=1e-3)
    sampled = checked._replace(decided=flags(1, 1, 1, 1, 1), released=flags(1, 1, 1, 0, 1))
    assert Planner(sampled, RULES).columns(1).instances == pytest.approx([3, 1, 0, 0], abs=1e-3)


def test_stated_shares_stand_in_for_a_missing_stage() -> None:
    lacking = {CHECK: "stage 2 was not done", SCREENING: "stage 3 was not done"}
    bare = TWO._replace(missing=lacking, decided=flags(0, 0, 0, 0, 0), released=flags(0, 0, 0, 0, 0))
    nothing = Planner(bare, RULES).plan(Goals())
    assert (nothing.binding, nothing.images, nothing.looks, nothing.categories) == (None, None, None, None)
    assert {need.value for need in nothing.needs.values()} == {None}
    assert nothing.needs["images"].why == "stage 2 was not done; or state a range with --confirmed"
    half = Planner(bare, RULES, HALF)
    assert half.whole == "stage 3 was not done; or state a range with --released"
    both = Planner(bare, RULES, HALF._replace(released=Limits(0.8, 0.6, 1.0)))
    assert both.columns(10**9).instances == pytest.approx([1.2, 0.8, 0, 0])
    assert both.columns(10**9, "lower").instances == pytest.approx([0.72, 0.48, 0, 0])
    made = both.plan(Goals(10, 1000, 3))
    assert made.needs["instances"].value == 2000
    assert (made.binding, made.categories, made.at_least) == ("instances", None, True)
    assert [(y.name, y.value, y.of) for y in made.yields[-1:]] == [("people keep", 0.8, "stated")]


def test_a_pilot_in_which_nothing_was_frequent_says_nothing_of_stage_2() -> None:
    assert Planner(FOUR, RULES).whole.startswith("no category of the pilot was frequent")


def test_a_cap() -> None:
    counts = pilot([0, 0, 0, 1], [0, 0, 0, 1], images=2)
    planner = Planner(counts, RULES._replace(head_min_count=NEVER, cap=30), HALF)
    assert planner.columns(40).instances == pytest.approx([1.5, 1])  # 60 of one category, 20 of the other
    assert planner.need(50, "instances").value == 40
    assert planner.need(50, "instances", cap=False).value == 25
    assert planner.need(61, "instances").value is None  # two categories of 30 at most
    assert "under the cap" in planner.need(61, "instances").why
    capped = planner.plan(Goals(1, 50, 2)).capped
    assert capped is not None
    assert (capped.instances_before, capped.instances, capped.thrown_away) == pytest.approx((80, 50, 30))
    assert capped.images_lost == pytest.approx(20 * 0.5**3)


def test_the_goal_that_needs_most_binds() -> None:
    many = pilot(list(range(40)), [0, 1, 2, 3] * 10, images=50)
    planner = Planner(many, RULES._replace(head_min_count=NEVER, votes=2, gold_share=0.2, audited=7), HALF)
    assert planner.plan(Goals(40, 60, 4)).binding == "instances"
    measured = Planner(many._replace(asked=np.arange(40) < 10), RULES._replace(head_min_count=NEVER))
    made = measured.plan(Goals(60, 8, 4))
    assert (made.binding, made.at_least, made.shards) == ("images", False, 1)
    assert made.images is not None
    assert (made.images.value, made.images.lower < 75 < (made.images.upper or 0)) == (75, 1)
    assert made.masks is not None
    assert made.masks.value == pytest.approx(60)
    assert made.instances is not None
    assert made.instances.lower < 60 < (made.instances.upper or 0)
    assert made.categories is not None
    assert made.categories.value == pytest.approx(4)
    looks = planner.plan(Goals(60, 8, 4)).looks
    assert looks is not None
    assert looks.value == pytest.approx(60 * 2 / 0.8 + 7)
    more = measured.plan(Goals(60, 8, 5))
    assert more.needs["categories"].value is None
    assert (more.binding, more.at_least) == ("categories", True)
    assert more.images is not None
    assert more.images.value == REACH * 50


def test_a_share_of_one_has_an_error_too() -> None:
    planner = Planner(pilot(list(range(50)), [0] * 50, images=50), RULES, HALF)
    ones = np.ones(50)
    assert planner.share(ones, "lower") == pytest.approx(0.025 ** (1 / 50))
    assert (planner.share(ones), planner.share(ones, "upper")) == (1, 1)


def test_limits_of_a_mean_hold() -> None:
    random, held = np.random.default_rng(3), []
    for _ in range(40):
        image = np.repeat(np.arange(80), random.poisson(3, 80))  # 3 an image
        planner = Planner(pilot(image.tolist(), [0] * len(image), images=80), RULES, HALF)
        column = planner.columns(1).instances
        held.append(planner.mean(column, "lower") <= 3 <= planner.mean(column, "upper"))
    assert np.mean(held) >= 0.88


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12), st.integers(1, 300))
def test_needs_are_the_fewest_and_within_their_limits(found: list[tuple[int, int]], goal: int) -> None:
    image, names = zip(*found, strict=True)
    category = np.unique(names, return_inverse=True)[1].tolist()
    planner = Planner(pilot(list(image), category), RULES._replace(head_min_count=NEVER), HALF)
    need = planner.need(goal, "instances")
    assert need.value == math.ceil(goal * 4 / len(found))
    assert need.lower is not None
    assert need.lower <= need.value
    assert need.upper is None or need.value <= need.upper <= EVERYTHING


def test_a_ratio() -> None:
    assert ratio(np.array([1.0, 2.0]), np.array([10.0, 5.0])) == pytest.approx((0.2, 0.1, 0.4))
    assert ratio(np.array([3.0]), np.array([2.0])) == (1.5, 1.5, 1.5)


# --- from a run ---

MASKS = [image * 1000 + k for image in (1001, 1002) for k in range(3)]  # and 1003, which has none
NAMES = dict(zip(MASKS, ["dog", "dog", "cup", "dog", "cup", "car"], strict=True))


def add(run: Run, step: str, table: str, rows: list[Row], **facts: Any) -> None:
    key = run.next_key(step)
    with run.part(step, table, key) as part:
        part.write(tables.from_rows(table, rows))
    run.commit(step, key, {table: part}, fingerprint="f", counts={}, facts=facts)


def named(run: Run, folder: Path, engine: str = "vllm", gpu_hours: float = 0.0) -> None:
    """Three images, the last without a mask, all masks named and paired; dogs are head."""
    tar = write_tar(
        folder / "sa_000001.tar", [m for image, n in ((1001, 3), (1002, 3), (1003, 0)) for m in members(image, n)]
    )
    build(run, tar)
    same = {"namer": "vlm", "outcome": "named", "engine": engine, "model": "m", "revision": "", "layout": "crop"}
    rows = [
        {"mask_id": m, "image_id": m // 1000, "category": what, "raw": what, "prompt": "p", "fingerprint": m, **same}
        for m, what in NAMES.items()
    ]
    for part in (rows[:2], rows[2:]):
        add(run, "names-vlm", "names", part, masks=len(part), gpu_hours=gpu_hours, seconds=1.0, tokens={})
    write_pairs(run, NAMES)


def checked(run: Run) -> None:
    """Of three dogs two get a yes."""
    head_tail.build(run, HeadTailConfig(head_min_count=3))
    dogs = [m for m, what in NAMES.items() if what == "dog"]
    ids = request_ids(np.array(dogs), pa.array(["dog"] * len(dogs)), "pair").tolist()
    same = {"role": "pair", "category": "dog", "evidence": "text", "raw": "", "engine": "vllm", "model": "m"}
    rest = {"revision": "", "layout": "crop", "prompt": "p", "fingerprint": 1}
    rows = [
        {"request_id": i, "mask_id": m, "image_id": m // 1000, "outcome": said, **same, **rest}
        for i, m, said in zip(ids, dogs, ("yes", "yes", "no"), strict=True)
    ]
    add(run, "checks", "checks", rows, masks=3, gpu_hours=0.0, seconds=1.0, tokens={})
    verdicts.build(run)


def screened(run: Run, *, left_out: int = 0) -> None:
    """People keep all they are shown but the car."""
    seen = [m for m in MASKS if m != MASKS[3]][left_out:]
    commit(
        run,
        queue=[shown(m, NAMES[m]) for m in seen],
        screenings=[
            vote(m, "ann", "delete" if NAMES[m] == "car" else "keep", category=NAMES[m], page_seconds=10.0)
            for m in seen
        ],
    )
    decisions.build(run, ScreeningConfig())


def test_a_pilot_is_read(run: Run, tmp_path: Path) -> None:
    named(run, tmp_path)
    checked(run)
    screened(run)
    found = yields.read(run)
    assert (found.images, found.masks.tolist(), found.named.tolist()) == (3, [3, 3, 0], [3, 3, 0])
    assert found.image.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.asked.tolist() == [True, True, False, True, False, False]
    assert found.kept.tolist() == [True, True, True, False, True, True]
    assert found.released.tolist() == [True, True, True, False, True, False]
    assert (found.missing, found.made_up) == ({}, [])
    assert sorted(found.incidence(found.released).tolist()) == [1, 2]
    told = {one.name: (round(one.value, 9), one.of) for one in Planner(found, RULES).yields()}
    assert told["confirmed"] == (round(5 / 3, 9), "3 images, 6 pairs, 3 asked about")
    assert told["screened and released"] == (round(4 / 3, 9), "3 images, 5 pairs decided")
    assert told["images with something released"] == (round(2 / 3, 9), "3 images, 5 pairs decided")
    assert rates.person(run).limits == (2.0, 2.0, 2.0)
    assert rates.person(run).source == "measured on 1 pages of 5 regions"


def test_a_stage_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run there"):
        yields.read(run)
    assert not Path(run.folder.path).exists()
    named(run, tmp_path)
    found = yields.read(run)
    assert list(found.missing) == [CHECK, SCREENING]
    assert found.missing[CHECK].startswith("stage 2 was not done: rr7k stage-2 --run ")
    checked(run)
    screened(run, left_out=2)
    found = yields.read(run)
    assert list(found.missing) == [SCREENING]
    assert found.missing[SCREENING].startswith("stage 3 is not finished, 2 of 5 wait: ")
    assert not found.decided.any()


def test_names_without_pairs_tell_nothing(run: Run, tmp_path: Path) -> None:
    named(run, tmp_path)
    add(run, "names-vlm", "names", [], masks=0, gpu_hours=0.0, seconds=0.0, tokens={})
    with pytest.raises(UsageError, match="pairs is not finished, 6 of 6 wait"):
        yields.read(run)


def test_what_is_not_real_is_said(run: Run, tmp_path: Path) -> None:
    named(run, tmp_path, engine="embedded")
    assert yields.read(run).made_up == ["embedded: 6 of 6 names, by an ImageNet classifier"]
    rules = ManifestConfig(max_masks_per_image=8)
    assert yields.differences(run, rules) == ["manifest.max_masks_per_image = 0 in the pilot, 8 in the release"]
    assert yields.differences(run, ManifestConfig()) == []


def test_rates(run: Run, tmp_path: Path) -> None:
    vllm = EngineConfig(kind="vllm", model="m", tensor_parallel=4, tokens_per_second=1000)
    both = (NamesConfig(layout="crop"), vllm, VerifyConfig(layout="crop"), vllm)
    names, listing, ground, checks = rates.asked(*both, ground=True)
    named(run, tmp_path)
    declared = rates.gpu(run, names)
    tokens = 80 + 2 * 2 + 4  # text, a crop of 56 × 56 px or so, the answer
    assert declared.source.startswith("declared: ")
    assert declared.limits is not None
    assert declared.limits.value == pytest.approx(declared.limits.lower)
    assert declared.limits.value >= tokens / 1000 / 3600 * 4
    assert rates.gpu(run, listing).limits is None
    assert rates.gpu(run, ground).source == "not measured in the pilot"
    assert rates.gpu(run, checks).unit == "question"
    assert rates.person(run) == rates.Rate(
        "stage 3", "look", rates.ASSUMED_SECONDS, "assumed, since nobody has screened"
    )


def test_measured_rates_come_first(run: Run, tmp_path: Path) -> None:
    named(run, tmp_path, gpu_hours=0.3)
    found = rates.gpu(run, rates.Asked("names-vlm", "mask"))
    assert found.source == "measured on 6 masks"
    assert found.limits == pytest.approx((0.1, 0.075, 0.15))


# --- the command and its preset ---


def said(run: Run, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(cli_plan.plan)
    done = CliRunner().invoke(app, ["--run", run.folder.uri, *arguments], env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_the_command(run: Run, tmp_path: Path) -> None:
    named(run, tmp_path)
    checked(run)
    text = said(run)
    assert "missing: stage 3 was not done" in text
    assert "not known" in text
    assert "hours" not in text
    screened(run)
    few = ["--images", "9", "--instances", "20", "--categories", "2", "--config", "cluster"]
    text = said(run, *few, "--per-category-cap", "9")
    assert "20 instances" in text
    assert "the cap of 9: " in text
    told = json.loads(said(run, *few, "--json"))
    assert told["pilot"]["images"] == 3
    assert told["needs"]["images"]["value"] == 14
    assert told["person_hours"]["each"]["value"] == 2.0
    assert [work["step"] for work in told["gpu_hours"]] == ["names-vlm", "phrases", "names-grounded-sam", "checks"]
    with pytest.raises(UsageError, match="write it as LOW-HIGH in 0 to 1"):
        said(run, "--released", "0.9-0.8")


def test_the_preset_differs_from_the_clusters_in_its_size_alone() -> None:
    ours, cluster = (load_config(name, []).model_dump(exclude_unset=True) for name in ("rr7k", "cluster"))
    assert ours.pop("manifest") == {"images": 100_000, "max_masks_per_image": 8}
    assert ours.pop("audit") == {"size": 2000}
    assert ours == cluster
