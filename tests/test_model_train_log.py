"""The course of a training as files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from model import train_log
from model.train_log import Log, Row


def row(step: int, loss: float = 0.1) -> Row:
    return Row(step, 0, loss, 1e-3 / 3, 2.5, 4, 12, 340, 0.25, 0.75)


def write(folder: Path, after: int, steps: range, loss: float = 0.1) -> None:
    log = Log(folder, after)
    for step in steps:
        log.write(row(step, loss))
    log.close()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4))
    assert train_log.read(tmp_path) == train_log.latest(tmp_path) == [row(1), row(2), row(3)]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == ",".join(Row._fields)
    assert row(1).seconds == 1.0


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert train_log.read(tmp_path) == train_log.latest(tmp_path) == []


def test_going_on_cuts_off_what_is_done_again(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 6), loss=1.0)
    write(tmp_path, 3, range(4, 7), loss=2.0)
    assert [(one.step, one.loss) for one in train_log.read(tmp_path)] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 2),
        (6, 2),
    ]


def test_half_a_row_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 3))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,0,0.1,0.0")
    assert train_log.read(tmp_path) == [row(1), row(2)]
    write(tmp_path, 2, range(3, 4))
    assert train_log.read(tmp_path) == [row(1), row(2), row(3)]


def test_the_latest_are_found_without_reading_all(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 1501))
    found = train_log.latest(tmp_path)
    assert found[-1] == row(1500)
    assert found == [row(step) for step in range(found[0].step, 1501)]
    assert 500 < len(found) < 1500


def test_tensorboard_reads_the_curve(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    write(tmp_path, 0, range(1, 5), loss=1.0)
    write(tmp_path, 2, range(3, 6), loss=2.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = [(one.step, one.value) for one in events.Scalars("loss")]
    assert scalars == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]
    (tokens, *_) = events.Scalars("per_second/tokens")
    assert tokens.value == 340.0


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 30))
    path = train_log.draw(tmp_path)
    assert path == tmp_path / "curve.png"
    assert Image.open(path).size == (1200, 900)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curve.png", "metrics.csv", "tensorboard"]


def test_means_run() -> None:
    assert train_log.smoothed([]) == []
    assert train_log.smoothed([1.0, 2.0]) == [1.0, 2.0]
    assert train_log.smoothed([0.0, 2.0] * 20)[:3] == [0.0, 1.0, 1.0]  # over two of forty
