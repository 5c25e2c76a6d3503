"""Damaged JSON records."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.decoding import decoded
from pipeline.errors import BusyError, UserError


class Kept(msgspec.Struct):
    count: int
    name: str = ""


def test_a_whole_record() -> None:
    assert decoded(b'{"count": 3}', Kept, "a.json", "Delete it.") == Kept(3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Input data was truncated"),
        (b'{"count": 3', "Input data was truncated"),
        (b'{"count": "3"}', r"Expected `int`, got `str` - at `\$\.count`"),
        (b'{"count": 3, "name": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
        (b'{"other": ' + b"[" * 100_000, "maximum recursion depth"),
    ],
)
def test_a_damaged_one_says_where_why_and_what_to_do(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^a\.json: damaged \({reason}.*\)\. Delete it\.$"):
        decoded(data, Kept, "a.json", "Delete it.")


def test_the_error_is_of_the_kind_asked_for() -> None:
    with pytest.raises(BusyError):
        decoded(b"", Kept, "a.lock", "Wait.", BusyError)
