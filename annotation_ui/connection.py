"""Which Label Studio a command speaks to: address and token from the environment, never from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from annotation_ui.client import Client
from pipeline.errors import UsageError

URL, TOKEN, TOKEN_FILE, CROPS = (f"LABEL_STUDIO_{name}" for name in ("URL", "TOKEN", "TOKEN_FILE", "CROPS"))


class Connection(NamedTuple):
    """A server and how it names the folder of crops."""

    url: str
    token: str
    served: str

    def __repr__(self) -> str:
        return f"Connection({self.url})"

    def client(self) -> Client:
        """Return a client, to be closed at the end of its `with` block. Raises `UsageError`."""
        return Client(self.url, self.token)


def from_environment(crops: Path) -> Connection | None:
    """Return the server that LABEL_STUDIO_URL names, or None.

    Its token is LABEL_STUDIO_TOKEN, or the content of the file LABEL_STUDIO_TOKEN_FILE, which only its owner may read.
    `crops` is served under its own path unless LABEL_STUDIO_CROPS says how the server names it. Raises `UsageError`.
    """
    url = os.environ.get(URL, "").strip()
    if not url:
        return None
    token = os.environ.get(TOKEN, "").strip() or _from_file(os.environ.get(TOKEN_FILE, ""))
    if not token:
        raise UsageError(f"{URL} is set, and neither {TOKEN} nor {TOKEN_FILE}: set one of them.")
    return Connection(url, token, os.environ.get(CROPS, "") or str(crops.absolute()))


def _from_file(name: str) -> str:
    if not name:
        return ""
    path = Path(name)
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path}: others can read it. Give it to its owner alone: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). {TOKEN_FILE} names it.") from error
