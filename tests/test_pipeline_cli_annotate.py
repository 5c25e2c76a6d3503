"""`rr7k annotate` between its looks for verdicts: nothing that another command does takes the server away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import cli_annotate, cli_stage_3
from pipeline.errors import BusyError


class Queue:
    """A run, as far as its queue goes."""

    def __init__(self) -> None:
        self.queued = ["first"]

    def parts(self, table: str) -> list[str]:
        assert table == "queue"
        return list(self.queued)


def test_another_command_at_work_on_the_run_does_not_end_the_server_and_what_it_queued_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked, sent = Queue(), list[bool](), list[int]()

    def fetch(run: Queue, server: Any, *, recent: bool) -> None:
        asked.append(recent)
        if len(asked) == 2:
            raise BusyError("step screenings is being run by pid 7.")
        if len(asked) == 4:
            run.queued.append("an audit")
        if len(asked) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_stage_3, "WATCH", 0.0)
    monkeypatch.setattr(cli_stage_3, "fetch", fetch)
    monkeypatch.setattr(cli_stage_3, "send", lambda *given: sent.append(len(asked)))
    for name in ("prepare", "settle"):
        monkeypatch.setattr(cli_stage_3, name, lambda *given: 0)
    monkeypatch.setattr(cli_annotate, "show_progress", lambda run, before: before)
    with pytest.raises(KeyboardInterrupt):
        cli_annotate._until_stopped(run, None, None, tmp_path)
    assert asked == [False, True, False, True, True, True]  # after the one that failed, all is looked at
    assert sent == [1, 3, 4]
    assert "pid 7. The server stays" in capsys.readouterr().out
