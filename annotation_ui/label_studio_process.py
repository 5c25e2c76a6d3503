"""Runs in Label Studio's own environment: the server, for as long as its starter holds our standard input open."""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any


def main() -> None:
    """Serve; the arguments are Label Studio's own."""
    threading.Thread(target=_end_with_our_starter, daemon=True).start()
    server: Any = importlib.import_module("label_studio.server")
    server._get_free_port = lambda port, debug: port  # it would move to the next port when ours is taken
    server.main()


def _end_with_our_starter() -> None:
    """Wait for the system to close the pipe's other end, which it does however the starter ends."""
    while os.read(0, 1):
        pass
    os._exit(0)  # SQLite takes back on its next start what was under way


if __name__ == "__main__":
    main()
