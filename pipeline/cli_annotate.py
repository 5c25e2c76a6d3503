"""`rr7k annotate`: stage 3 with a Label Studio of its own on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import cli_stage_3
from pipeline.cli_options import ConfigOption, RunOption, SetOption, WorkersOption, load_config
from pipeline.cli_screening import show_progress
from pipeline.console import err, tell
from pipeline.errors import BusyError, UserError

_BACKUP = 900.0  # seconds between copies of the server's database


def annotate(
    run: RunOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8090,
    restore: Annotated[
        Path | None,
        typer.Option(help="First put this backup in place of the server's database.", show_default=False),
    ] = None,
) -> None:
    """Start a Label Studio on this machine, send it the run's pages, and fetch verdicts until you press Ctrl-C.

    It listens on 127.0.0.1 only. Its database, password and backups lie in RUN/label-studio. Several annotators need
    PostgreSQL: DJANGO_DB=default and POSTGRE_HOST, _PORT, _USER, _PASSWORD and _NAME in the environment.
    """
    import sys

    from annotation_ui import local_server, server_data
    from annotation_ui.connection import Connection
    from pipeline.run import Run
    from stages import crops

    target = Run(run)
    named = [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    installed, data = Path(sys.prefix, "label-studio"), Path(target.folder.path, "label-studio")
    cli_stage_3.prepare(target, settings)
    with err.status(f"installing Label Studio {local_server.VERSION}, once"):
        local_server.install(installed)
    place = crops.folder(target)
    place.mkdir(exist_ok=True)
    if restore is not None:
        aside = server_data.go_back(restore, data)
        tell(f"restored from {restore}" + (f"; what was there is in {aside}" if aside else ""))
    with local_server.start(installed, data, place, port) as server:
        there = Connection(server.url, server.token, server.folder)
        cli_stage_3.send(target, settings, there)
        tell(f"open {server.url} as {server.email}; the password is in {data / server_data.SECRETS}. Ctrl-C ends it.")
        _until_stopped(target, settings, there, data)


def _until_stopped(run: Any, settings: Any, server: Any, data: Path) -> None:
    """Look for verdicts, and copy the database now and then."""
    from annotation_ui import server_data

    saved, told, sent = time.monotonic(), None, list[str]()
    while True:
        time.sleep(cli_stage_3.WATCH)
        try:
            sent = _look(run, settings, server, sent)
            told = show_progress(run, told)
        except BusyError as error:  # of another command on this run, for which nobody's page may go away
            tell(f"{error} The server stays; the next look is in {cli_stage_3.WATCH:.0f} s.")
            sent = []
        if not server_data.postgresql() and time.monotonic() - saved >= _BACKUP:
            saved = time.monotonic()
            server_data.backup(data, data / "backups" / time.strftime("%Y-%m-%dT%H-%M-%S"))


def _look(run: Any, settings: Any, server: Any, sent: list[str]) -> list[str]:
    """Fetch verdicts, and send what is in conflict, was queued by another command, or was deleted.

    `sent` are the parts of the queue that the server has, none where that is not known; return them as they are now.
    """
    try:
        cli_stage_3.fetch(run, server, recent=bool(sent))
    except BusyError:
        raise
    except UserError as error:  # a project that somebody deleted, as anybody can, or that is not there yet
        tell(str(error))
        sent = []
    cli_stage_3.prepare(run, settings)
    queued: list[str] = run.parts("queue")
    if queued != sent:
        cli_stage_3.send(run, settings, server)
    cli_stage_3.settle(run, settings)
    return queued
