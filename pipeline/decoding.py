"""Small JSON records: a damaged one is an error that says which it is and what to do, never a traceback."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pipeline.errors import UserError

T = TypeVar("T")

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was asked for; the last two are not of its own kind."""


def decoded(data: bytes, kind: type[T], where: str, remedy: str, error: type[UserError] = UserError) -> T:
    """Decode JSON. Raises `error`, "{where}: damaged (the reason). {remedy}", for what is not of this `kind`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNDECODABLE as problem:
        raise error(f"{where}: damaged ({problem}). {remedy}") from problem
