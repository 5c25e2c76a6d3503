"""The errors a user can act on; each ends the command with its own exit code, never with a traceback."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(UserError):
    """A wrong option, path or configuration: nothing was started."""

    exit_code = 2


class BusyError(UserError):
    """Another process is running the same step of the same run."""

    exit_code = 3
