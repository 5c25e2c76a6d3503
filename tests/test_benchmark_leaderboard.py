"""Leaderboards: which rows stand in one table, in which order, beside what, and that names stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmark import leaderboard
from benchmark.bootstrap import Interval
from benchmark.leaderboard import Limits, Row
from pipeline.errors import UsageError, UserError

HOSTILE = "a|b <img src=x onerror=alert(1)>\n# *heading*"


def row(model: str, similarity: float | None, **changes: Any) -> Row:
    scores = {"similarity": Limits(similarity, similarity, similarity), "iou": Limits(0.25, 0.2, 0.3)}
    what = {"preset": "wowseg", "benchmark": "b-1.0.0", "data_set": "", "split": "test", "fingerprint": "f" * 64}
    counts = {"instances": 10, "counted": 8, "outcomes": {"answered": 8, "missing": 2}}
    rest = {"predictions": "p" * 64, "embedding_weights": "w" * 64, "made_by": "rr7k 0"}
    return Row(**{"model": model, **what, **counts, "scores": scores, "macro": scores, **rest, **changes})


def write(path: Path, *rows: Row) -> Path:
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return path


def test_rows_are_read_back_and_the_same_twice_counts_once(tmp_path: Path) -> None:
    one, other = row("a", 0.5), row("b", None)
    files = [write(tmp_path / "1", one, other), write(tmp_path / "2", one)]
    assert leaderboard.read(files) == [one, other]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1: damaged"),
        (b"\n{}", "line 2: damaged.*model"),
        (b'{"x": ' + b"[" * 100_000, "line 1: damaged"),
        (b"\xff\xfe", "line 1: damaged"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "line 1: 1,048,585 bytes are no row"),
        (msgspec.json.encode(row("a", 0.5)).replace(b'"model"', b'"modle"'), "modle"),
    ],
)
def test_what_is_no_row_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        leaderboard.read([path])
    with pytest.raises(UsageError, match="cannot be read"):
        leaderboard.read([tmp_path / "none"])


def test_only_comparable_rows_share_a_table() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"preset": "osprey"},
        {"split": "mini"},
        {"fingerprint": "g" * 64},
        {"embedding_weights": "v" * 64},
    ]
    boards = leaderboard.boards([row(str(n), 0.5, **change) for n, change in enumerate(changes)])
    assert [len(board.lines) for board in boards] == [1] * 5
    (board,) = leaderboard.boards([row("worse", 0.4), row("better", 0.6), row("none", None)])
    assert [line.model for line in board.lines] == ["better", "worse", "none"]
    assert leaderboard.cells(board, board.lines[0]) == [
        *("better", "60.0 [60.0, 60.0]", "25.0 [20.0, 30.0]", "60.0 [60.0, 60.0]", "8 of 10", "wowseg", "p" * 12)
    ]
    assert leaderboard.cells(board, board.lines[2])[1] == "–"


def test_published_rows_follow_and_are_marked() -> None:
    (board,) = leaderboard.boards([row("mine", 0.01, data_set="LVIS", warnings=["not all of it"])])
    assert [line.is_published for line in board.lines] == [False] + [True] * 10
    assert leaderboard.cells(board, board.lines[1])[:3] == ["WOW-Seg 1B", "89.7", "82.4"]
    assert board.warnings[0] == "mine: not all of it"
    assert any("measured by osprey, not wowseg" in text for text in board.warnings)


def test_names_stay_text() -> None:
    boards = leaderboard.boards([row(HOSTILE, 0.5, benchmark=HOSTILE)])
    page, text = leaderboard.html(boards), leaderboard.markdown(boards)
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert "<img" not in text
    (line,) = [line for line in text.splitlines() if "60.0" in line or "50.0" in line]
    assert line.replace("\\|", "").count("|") == len(leaderboard.heads(boards[0])) + 1
    assert r"a\|b &lt;img" in line
    assert r"\# \*heading\*" in line


def test_what_is_not_a_number_is_null() -> None:
    nan = float("nan")
    assert Limits.of(Interval(nan, nan, nan)) == Limits(None)
    assert Limits.of(Interval(0.5, 0.25, 0.75)).told() == "50.0 [25.0, 75.0]"
    assert Limits(0.5).told() == "50.0"
