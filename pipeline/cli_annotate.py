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

_BACKUP = 900.0  # seconds between copies of the server's database


def annotate(
    run: RunOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8090,
) -> None:
    """Start a Label Studio on this machine, send it the run's pages, and fetch verdicts until you press Ctrl-C.

    It listens on 127.0.0.1 only. Its database, password and backups lie in RUN/label-studio.
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
    with local_server.start(installed, data, place, port) as server:
        there = Connection(server.url, server.token, server.folder)
        cli_stage_3.send(target, settings, there)
        tell(f"open {server.url} as {server.email}; the password is in {data / server_data.SECRETS}. Ctrl-C ends it.")
        _until_stopped(target, settings, there, data)


def _until_stopped(run: Any, settings: Any, server: Any, data: Path) -> None:
    """Fetch verdicts, send what has become a conflict, and copy the database now and then."""
    from annotation_ui import server_data

    saved, told = time.monotonic(), None
    while True:
        time.sleep(cli_stage_3.WATCH)
        cli_stage_3.bring_back(run, settings, server)
        if cli_stage_3.prepare(run, settings):
            cli_stage_3.send(run, settings, server)
        cli_stage_3.settle(run, settings)
        told = show_progress(run, told)
        if time.monotonic() - saved >= _BACKUP:
            saved = time.monotonic()
            server_data.backup(data, data / "backups" / time.strftime("%Y-%m-%dT%H-%M-%S"))
