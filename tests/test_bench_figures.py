"""What `make bench` makes of figures and of benches that break; no bench runs here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench import __main__ as runner
from bench import figures
from bench.figures import Figure, Goal, Machine, Outcome
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

FASTER, LESS, SHOWN = Goal(2, "faster", at_least=300), Goal(6, "memory", "MB", at_most=600), Goal(3, "tokens", "/mask")
HERE = Machine(processor="Abacus", cores=2, memory_gb=25.3, load=0.5, system="Linux", python="3.11")
GOOD = (
    "from bench.figures import Goal, hand_over; print('a table'); hand_over([Goal(2, 'fast', at_least=2).reached(3)])"
)


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (FASTER.reached(450), 1.5, True),
        (FASTER.reached(300), 1.0, True),
        (FASTER.reached(150), 0.5, False),
        (FASTER.reached(0), 0.0, False),
        (LESS.reached(300), 2.0, True),
        (LESS.reached(1200), 0.5, False),
        (LESS.reached(0), float("inf"), True),
        (SHOWN.reached(7), None, None),  # asked for without a number
    ],
)
def test_a_ratio_of_one_or_more_reaches_the_goal(figure: Figure, ratio: float | None, met: bool | None) -> None:
    assert (figure.ratio, figure.met) == (ratio, met)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_both_directions_agree_with_the_plain_comparison(target: float, result: float) -> None:
    assert Goal(1, "", at_least=target).reached(result).met == (result >= target)
    assert Goal(1, "", at_most=target).reached(result).met == (result <= target)


@pytest.mark.parametrize("result", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_figure(result: float) -> None:
    with pytest.raises(ValueError, match="faster"):
        FASTER.reached(result)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1e-5, "1.0e-05"),
        (0.0921, "0.0921"),
        (0.5, "0.5"),
        (1.8, "1.8"),
        (2.944, "2.94"),
        (94.26, "94.3"),
        (99.99, "100"),
        (2936.4, "2,936"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert figures.told(value) == text
    assert figures.told(value, "MB") == f"{text} MB"


def shown(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The table's rows, cells apart."""
    console = Console(width=118)
    with console.capture() as capture:
        console.print(figures.table(outcomes))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in capture.get().splitlines()]


def test_the_table_tells_figures_misses_and_breaks() -> None:
    fine = Outcome("manifest", 61.0, 0.5, [FASTER.reached(450), LESS.reached(1200), SHOWN.reached(7)])
    broken = Outcome("scoring", 59.0, 0.5, broke="exit code 1: KeyError: '[bold]'")
    assert shown([fine, broken])[1:] == [
        ["manifest", "2", "faster", "≥ 300 ×", "450 ×", "1.5"],
        ["manifest", "6", "memory", "≤ 600 MB", "1,200 MB", "missed: 0.5"],
        ["manifest", "3", "tokens", "7 /mask"],
        ["scoring", "broke: exit code 1: KeyError: '[bold]'"],
    ]
    told = "3 figures; 1 of 2 goals reached, 1 missed; 1 of 2 benches broke; 2.0 minutes"
    assert figures.summary([fine, broken]) == told


def test_the_file_has_what_the_table_has(tmp_path: Path) -> None:
    outcomes = [
        Outcome("manifest", 61.0, 0.5, [FASTER.reached(450), LESS.reached(0), SHOWN.reached(7)]),
        Outcome("scoring", 59.0, 0.5, broke="exit code 1: no word"),
    ]
    figures.save(tmp_path / "runs" / "bench.json", HERE, "2026-01-01T00:00:00+00:00", outcomes)
    saved = json.loads((tmp_path / "runs" / "bench.json").read_text())
    assert [*(tmp_path / "runs").iterdir()] == [tmp_path / "runs" / "bench.json"]
    assert saved["machine"]["processor"] == "Abacus"
    assert [(one["bench"], one["broke"]) for one in saved["benches"]] == [
        ("manifest", None),
        ("scoring", "exit code 1: no word"),
    ]
    columns = ("issue", "what", "target", "bounds", "result", "unit", "ratio", "met")
    assert [tuple(figure[name] for name in columns) for figure in saved["benches"][0]["figures"]] == [
        (2, "faster", 300.0, "at least", 450.0, "×", 1.5, True),
        (6, "memory", 600.0, "at most", 0.0, "MB", None, True),
        (3, "tokens", None, None, 7.0, "/mask", None, None),
    ]


def test_this_machine_is_described() -> None:
    here = figures.machine()
    assert here.processor
    assert here.cores >= 1
    assert here.memory_gb > 0
    assert str(HERE) == "Abacus, 2 cores, 25 GB, load 0.5 at the start; Linux, Python 3.11"


@pytest.mark.parametrize(
    ("code", "broke"),
    [
        (GOOD, None),
        ("pass", "it handed no figures over"),
        ("raise KeyError('shard')", "exit code 1: KeyError: 'shard'"),
        ("import os; os.abort()", "signal 6: no word"),
    ],
)
def test_a_bench_hands_over_or_has_broken(code: str, broke: str | None) -> None:
    outcome = runner.run(runner.Bench("trial", ("-c", code)))
    assert outcome.broke == broke
    assert [(f.goal.what, f.result, f.met) for f in outcome.figures] == ([] if broke else [("fast", 3.0, True)])


def test_a_bench_that_hangs_is_ended() -> None:
    outcome = runner.run(runner.Bench("trial", ("-c", "import time; time.sleep(60)")), limit=0.2)
    assert outcome.broke == "it had not ended after 0.2 s"
    assert outcome.seconds < 30


def test_the_rest_goes_on_after_one_that_breaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    benches = [runner.Bench("broken", ("-c", "raise OSError('disk')")), runner.Bench("fine", ("-c", GOOD))]
    assert runner.run_all(benches, file) == 1
    told = capfd.readouterr()
    assert "a table" in told.out
    assert "OSError: disk" in told.err
    saved = json.loads(file.read_text())["benches"]
    assert [(one["bench"], len(one["figures"]), one["broke"]) for one in saved] == [
        ("broken", 0, "exit code 1: OSError: disk"),
        ("fine", 1, None),
    ]


def test_a_goal_that_is_missed_is_no_failure(tmp_path: Path) -> None:
    assert runner.run_all([runner.Bench("slow", ("-c", GOOD.replace("(3)", "(1)")))], tmp_path / "bench.json") == 0


def test_benches_are_chosen_by_name() -> None:
    some, file = runner.chosen(["scoring", "model"])
    assert [bench.name for bench in some] == ["scoring", "model"]
    assert file.name == "bench-scoring-model.json"
    every, whole = runner.chosen([])
    assert every == list(runner.BENCHES)
    assert whole.name == "bench.json"
    with pytest.raises(SystemExit, match="There is no bench scores; there are: start, manifest"):
        runner.chosen(["scores", "model"])


@pytest.mark.parametrize("bench", runner.BENCHES, ids=lambda bench: bench.name)
def test_every_bench_is_there(bench: runner.Bench) -> None:
    assert bench.arguments[0] == "-m"
    text = Path(runner.ROOT, *bench.arguments[1].split(".")).with_suffix(".py").read_text()
    assert "hand_over(" in text


def test_alone_nothing_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(figures.FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    figures.hand_over([FASTER.reached(1)])
    assert [*tmp_path.iterdir()] == []
