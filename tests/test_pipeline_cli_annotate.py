"""`rr7k annotate` between its looks for verdicts: nothing that another command does takes the server away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import cli_annotate, cli_stage_3
from pipeline.errors import BusyError


def test_another_command_at_work_on_the_run_does_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[bool] = []

    def fetch(run: Any, server: Any, *, recent: bool) -> None:
        asked.append(recent)
        if len(asked) == 2:
            raise BusyError("step screenings is being run by pid 7.")
        if len(asked) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_stage_3, "WATCH", 0.0)
    monkeypatch.setattr(cli_stage_3, "fetch", fetch)
    for name in ("prepare", "send", "settle"):
        monkeypatch.setattr(cli_stage_3, name, lambda *given: 0)
    monkeypatch.setattr(cli_annotate, "show_progress", lambda run, before: before)
    with pytest.raises(KeyboardInterrupt):
        cli_annotate._until_stopped(None, None, None, tmp_path)
    assert asked == [False, True, False, True]  # after the one that failed, all is looked at
    assert "pid 7. The server stays" in capsys.readouterr().out
