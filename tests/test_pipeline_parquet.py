"""Tables on a disk that is not to be trusted: a turned byte is told with its file, and never changes a value."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_benchmarks import write

from pipeline import tables
from pipeline.errors import UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run

ROWS = [
    {"step": "s", "input": f"{n}", "shard": "ab"[n % 2], "image_id": n, "place": "", "reason": "r", "error": "e" * n}
    for n in range(100)
]


def committed(folder: Path, key: str = "a") -> Path:
    """Commit ROWS; return the part's path."""
    run = Run(str(folder))
    with run.part("s", "quarantine", key) as part:
        part.write(tables.from_rows("quarantine", ROWS))
    run.commit("s", key, {"quarantine": part}, fingerprint="f", counts={}, facts={})
    return folder / "quarantine" / part.file_name


def turn(path: Path, place: int) -> None:
    """Turn a byte over."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def footer(path: Path) -> int:
    """Return where the footer begins."""
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def advice(folder: Path, key: str = "a") -> str:
    """Return how a message about a part of `key` ends."""
    return f"delete {folder}/commits/s/{key}.json; that piece is then done again."


@given(st.data())
def test_a_turned_byte_of_the_pages_is_told_or_changes_nothing(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        path, run = committed(Path(name)), Run(name)
        before = run.dataset("quarantine").to_table()
        turn(path, data.draw(st.integers(0, footer(path) - 1)))
        told = ""
        try:
            read = run.dataset("quarantine").to_table()
        except UserError as error:
            told = str(error)
        if told:
            assert told.startswith(f"{path}: cannot be read (")
            assert told.endswith(advice(Path(name)))
        else:
            assert read == before


@given(st.data())
def test_a_release_notices_any_turned_byte(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        path, run = committed(Path(name)), Run(name)
        turn(path, data.draw(st.integers(0, path.stat().st_size - 1)))
        with pytest.raises(UserError, match="not as it was written") as caught:
            run.verify(lambda _: None, lambda _: None)
        assert str(caught.value) == f"{path}: not as it was written; {advice(Path(name))}"


def test_sound_files_are_verified_and_counted(tmp_path: Path) -> None:
    sizes = [committed(tmp_path, key).stat().st_size for key in ("a", "b")]
    told: list[int] = []
    Run(str(tmp_path)).verify(told.append, told.append)
    assert told == [sum(sizes), *sizes]


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = committed(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: missing; delete "):
        Run(str(tmp_path)).verify(lambda _: None, lambda _: None)


def test_all_damaged_files_are_told_at_once(tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        turn(committed(tmp_path, key), 100)
    with pytest.raises(UserError) as caught:
        Run(str(tmp_path)).verify(lambda _: None, lambda _: None)
    lines = str(caught.value).splitlines()
    assert [line.partition("; ")[2] for line in lines] == [advice(tmp_path, key) for key in ("a", "b", "c")]


def test_the_damaged_one_of_several_files_is_named(tmp_path: Path) -> None:
    sound, damaged = committed(tmp_path, "a"), committed(tmp_path, "b")
    turn(damaged, footer(damaged) // 2)
    with pytest.raises(UserError) as caught:
        list(Run(str(tmp_path)).dataset("quarantine").to_batches())
    assert str(damaged) in str(caught.value)
    assert str(sound) not in str(caught.value)


def test_reading_one_part_tells_as_well(tmp_path: Path) -> None:
    path = committed(tmp_path)
    turn(path, footer(path) // 2)
    with pytest.raises(UserError, match="cannot be read"), Run(str(tmp_path)).opened("quarantine", path.name) as file:
        file.read()


def test_other_errors_while_a_sound_part_is_read_stay_what_they_are(tmp_path: Path) -> None:
    path = committed(tmp_path)
    with pytest.raises(OSError, match="no space"), Run(str(tmp_path)).opened("quarantine", path.name):
        raise OSError("no space")


def test_rows_taken_out_of_a_part_leave_one_that_is_verified(tmp_path: Path) -> None:
    committed(tmp_path)
    run = Run(str(tmp_path))
    run.discard("s", "quarantine", "image_id", pa.array([1, 2]))
    run.verify(lambda _: None, lambda _: None)
    assert run.rows_on_disk("quarantine") == len(ROWS) - 2


def test_a_damaged_release_is_told_with_its_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (path,) = RegionSamples(folder).files("instances")
    turn(path, footer(path) // 2)
    with pytest.raises(UserError, match=f"{path}: cannot be read .*get or make this data set again"):
        RegionSamples(folder).read("instances")
