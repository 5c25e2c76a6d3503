"""Ablations: intervals, verdicts, and the report of made-up results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import ablation_results as made_up
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ablation import cells, efficiency, intervals, page, plan, report, settings, writing
from model.ablation.intervals import Interval, Spread, Sums
from model.ablation.plan import FormName
from model.ablation.report import Report
from pipeline.cli_ablation import _paper
from pipeline.errors import UsageError

# --- intervals ---


def sums(*seeds: Sequence[float], masks: float = 2.0) -> Sums:
    return Sums(np.array(seeds, np.float64), np.full(len(seeds[0]), masks))


def test_spread_between_seeds_of_rows_trained_apart() -> None:
    found = intervals.spread_of_training([[1, 3], [10, 14]])
    assert found == Spread(math.sqrt((1 + 1 + 4 + 4) / 2), 2)


def test_spread_of_rows_of_the_same_weights_is_free_of_what_seeds_do_to_all() -> None:
    found = intervals.spread_of_masks([[1, 3, 9], [11, 13, 19]])
    assert found.points == pytest.approx(0, abs=1e-9)
    assert found.freedom == 2
    found = intervals.spread_of_masks([[0, 0], [0, 4]])
    assert found == Spread(2.0, 1)  # what is left is 1, -1, -1, 1


def test_one_seed_has_no_spread() -> None:
    found = intervals.spread_of_training([[1], [2]])
    assert math.isnan(found.points)
    assert found.freedom == 0


def test_a_difference_over_seeds_alone() -> None:
    first, second = sums([1.0, 1.0], [1.2, 1.2]), sums([0.8, 0.8], [1.0, 1.0])
    found = intervals.difference(first, second, Spread(3.0, 4), Spread(3.0, 4))
    reach = 2.7764451 * math.sqrt(2 * 9 / 2)  # Student's t, 4 degrees
    assert found == pytest.approx((10.0, 10 - reach, 10 + reach))


def test_a_difference_over_scenes_alone() -> None:
    generator = np.random.default_rng(1)
    gained = generator.normal(0.2, 1, (1, 400))
    found = intervals.difference(sums(gained[0].tolist()), sums([0.0] * 400), Spread(0.0, 9), Spread(0.0, 9))
    expected = 1.96 * 100 * gained.std() / 2 / math.sqrt(400)
    assert found.upper - found.value == pytest.approx(expected, rel=0.06)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=8), st.lists(st.floats(0, 5), min_size=8, max_size=8))
def test_turned_round_a_difference_is_its_negative(first: list[float], second: list[float]) -> None:
    one, other = sums(first, masks=5), sums(second[: len(first)], masks=5)
    there = intervals.difference(one, other, Spread(1.0, 3), Spread(4.0, 5))
    back = intervals.difference(other, one, Spread(4.0, 5), Spread(1.0, 3))
    assert there == pytest.approx((-back.value, -back.upper, -back.lower))
    assert there.lower <= there.value <= there.upper


@pytest.mark.parametrize(
    ("found", "paper", "expected"),
    [
        ((2, 1, 3), [5, 4], "reproduced"),
        ((-2, -3, -1), [-5, -4], "reproduced"),
        ((2, 1, 3), [-5, -4], "reversed"),
        ((-2, -3, -1), [5, 4], "reversed"),
        ((2, -1, 5), [5, 4], "tie"),
        ((2, 0, 4), [5, 4], "tie"),
        ((0, 0, 0), [], "tie"),
        ((2, 1, 3), [5, -4], "higher"),  # its data sets disagree
        ((2, 1, 3), [5, 0], "higher"),
        ((-2, -3, -1), [], "lower"),
    ],
)
def test_verdicts(found: tuple[float, float, float], paper: list[float], expected: str) -> None:
    assert intervals.verdict(Interval(*found), paper) == expected


# --- the plan ---


@pytest.mark.parametrize("name", ["full", "quick"])
def test_the_plan_is_sound(name: FormName) -> None:
    pilot = plan.load().pilot(name)
    assert set(pilot.masks) == set(settings.SHOWN["branches"])
    assert pilot.masks["true"] == pilot.branches
    assert all(spread.points > 0 and spread.freedom > 0 for spread in pilot.spreads())


def test_what_a_plan_tells_apart() -> None:
    assert plan.resolved(Spread(1.0, 10**6), 4) == pytest.approx((1.96 + 0.8416) * math.sqrt(2 / 4), abs=1e-3)


# --- the report ---


def build(shares: dict[str, float], seeds: int = 3, wobble: float = 0.005) -> Report:
    known = made_up.plan(seeds, seeds, seeds)
    done = made_up.results(known.full, shares, wobble)
    return report.build(known, "full", "abc", done, made_up.paper())


def verdicts(found: Report, table: int) -> dict[tuple[str, str], str]:
    return {(one.first, one.second): one.verdict for one in found.contrasts if one.table == table}


def test_verdicts_of_made_up_results() -> None:
    shares = {"sm": 0.3, "mm": 0.5, "region": 0.4, "output": 0.5, "both": 0.501, "branches": 0.7}
    found = verdicts(build(shares, wobble=0.005), 4)
    assert found == {
        ("many masks (MM)", "single masks (SM)"): "reproduced",
        ("MM, Region rule", "many masks (MM)"): "reversed",
        ("MM, Output rule", "many masks (MM)"): "tie",
        ("MM, both rules", "many masks (MM)"): "tie",
        ("MM, both rules", "MM, Region rule"): "reproduced",
        ("MM, both rules", "MM, Output rule"): "tie",
        ("MM, Region rule", "MM, Output rule"): "reversed",
        ("MM, branches (ours)", "single masks (SM)"): "higher",
        ("MM, branches (ours)", "many masks (MM)"): "higher",
        ("MM, branches (ours)", "MM, both rules"): "higher",
    }


def test_values_and_intervals_of_made_up_results() -> None:
    found = build({"sm": 0.3}, wobble=0.01)
    (row,) = [row for row in found.rows if row.table == 4 and row.name == "sm"]
    assert row.overlap is not None
    assert row.overlap.value == pytest.approx(30)
    assert row.overlap.lower < 30 < row.overlap.upper
    assert [row.exact, row.macro] == pytest.approx([20, 25])
    assert row.paper == [70, 65]
    assert row.groups == dict.fromkeys(row.groups, 50)
    assert [one.name for one in found.spreads] == ["branches", "packed", "single", "masks"]
    assert [one.points for one in found.spreads] == pytest.approx([1, 1, 1, 0], abs=1e-6)  # seeds move masks alike
    assert [one.freedom for one in found.spreads] == [10, 8, 6, 8]
    assert not any(one.of_pilot for one in found.spreads)


def test_each_way_has_its_own_number_of_seeds() -> None:
    known = made_up.plan(2, 4, 5)
    done = made_up.results(known.full, {"sm": 0.3}, 0.005)
    assert len(done) == 5 * 2 + 4 * 4 + 3 * 5
    found = report.build(known, "full", "abc", done, made_up.paper())
    assert [(one.seeds, one.freedom) for one in found.spreads] == [(2, 5), (4, 12), (5, 12), (2, 4)]
    assert verdicts(found, 4)["many masks (MM)", "single masks (SM)"] == "reproduced"


def test_rows_that_need_weights_stay_blank() -> None:
    blank = [row.name for row in build({}).rows if row.overlap is None]
    assert blank == ["sam", "hq-sam", "sam2"]


def test_one_seed_takes_the_spread_of_the_pilot() -> None:
    found = build({"sm": 0.3, "region": 0.52}, seeds=1)
    assert all(one.of_pilot for one in found.spreads)
    expected = [math.sqrt(2), math.sqrt(4.5), math.sqrt(18), 0.5]
    assert [one.points for one in found.spreads] == pytest.approx(expected)
    assert verdicts(found, 4)["MM, Region rule", "many masks (MM)"] == "tie"  # two points: seeds alone may do that
    assert verdicts(found, 4)["many masks (MM)", "single masks (SM)"] == "tie"  # one degree of freedom tells little


def test_the_numbers_beside_ours_are_the_papers() -> None:
    published, rows = _paper(), [row for row in settings.ROWS if row.paper]
    assert {(row.table, *row.paper) for row in rows if row.paper} == set(published)
    assert published[4, "MM", "region=yes;output=yes"] == {"LVIS": 82.35, "PACO": 79.22}


def test_the_page_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficiency, "PICTURES", (1,))  # a third of the counting
    known = made_up.plan()
    where = cells.folder(tmp_path, known.full, known.learning)
    for cell, result in made_up.results(known.full, {"sm": 0.3}, 0.005).items():
        where.replace(cell.file, msgspec.json.encode(result))
    written, told = writing.write(known, "full", tmp_path, made_up.paper())
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "contrasts.png", "efficiency.png", "losses.png", "report.html", "results.json",
    ]  # fmt: skip
    text = written.read_text(encoding="utf-8")
    assert "70.00 · 65.00" in text
    assert "left blank" in text
    assert told in text.replace("Of ", "of ")
    assert "$" not in text
    numbers = msgspec.json.decode((written.parent / "results.json").read_bytes())
    assert numbers["efficiency"]["measured"] == 1  # made up alike


def test_no_report_of_half_the_cells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"36 cells are missing, as sm-seed0\.json"):
        writing.write(made_up.plan(), "full", tmp_path, made_up.paper())


def test_verdicts_in_a_line() -> None:
    assert page.told(build({"sm": 0.3})).startswith("of 11 orderings of the paper 1 reproduced, 8 tie, 2 reversed")
