"""Runs in Label Studio's own environment: the server, for as long as its starter holds our standard input open."""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

_READ_BY_TEMPLATES = "fflag_feat_front_optic_1217_theme_toggle_short"


def main() -> None:
    """Serve; the arguments are Label Studio's own."""
    threading.Thread(target=_end_with_our_starter, daemon=True).start()
    server: Any = importlib.import_module("label_studio.server")
    server._get_free_port = lambda port, debug: port  # it would move to the next port when ours is taken
    set_up = server._setup_env

    def and_ours() -> None:
        set_up()
        _send_fewer_flags()
        _keep_the_order()

    server._setup_env = and_ours
    server.main()


def _send_fewer_flags() -> None:
    """Send browsers only the feature flags that are off: half of them.

    One that the browser does not know is on. It copies all it knows whenever it looks at one, thousands of times while
    a page appears: half the flags are a seventh less time.
    """
    pages: Any = importlib.import_module("core.context_processors")
    flags = pages.all_flags
    pages.all_flags = lambda user: {
        name: on for name, on in flags(user).items() if on is not True or name == _READ_BY_TEMPLATES
    }


def _keep_the_order() -> None:
    """Give pages that several are to see to the later ones in their order too; else those come at random.

    Out of order, no picture is fetched ahead, and a page takes twice as long to come.
    """
    following: Any = importlib.import_module("projects.functions.next_task")
    following._try_breadth_first = lambda tasks, user, project: None


def _end_with_our_starter() -> None:
    """Wait for the system to close the pipe's other end, which it does however the starter ends."""
    while os.read(0, 1):
        pass
    os._exit(0)  # SQLite takes back on its next start what was under way


if __name__ == "__main__":
    main()
