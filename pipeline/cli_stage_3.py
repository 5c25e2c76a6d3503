"""`rr7k stage-3`: sends people what they are to look at, brings their verdicts back, says what remains."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_funnel import print_funnel
from pipeline.cli_options import ConfigOption, RunOption, SetOption, WorkersOption, load_config
from pipeline.console import err, tell
from pipeline.errors import UsageError

INCOMPLETE = 4
"""Exit code while people have pages left to look at."""

_WATCH = 30.0  # seconds between looks
_BACKUP = 900.0  # seconds between copies of the local server's database


class Stage3Step(StrEnum):
    """The halves of stage 3."""

    export = "export"
    fetch = "import"


def stage_3(
    run: RunOption,
    step: Annotated[
        Stage3Step | None, typer.Argument(help="One half only.", show_default="both, then what remains")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    watch: Annotated[
        bool, typer.Option(help="import: look again every half minute, until all pages are done.")
    ] = False,
    simulate: Annotated[
        bool, typer.Option(help="Have nobody answer: verdicts by an annotator named [bold]simulated[/], for trying.")
    ] = False,
) -> None:
    """Stage 3: people look at all pairs of the tail and those of the head that were kept, and delete the wrong ones.

    [bold]export[/]: queues what is new, draws its pictures, and sends the pages to Label Studio. LABEL_STUDIO_URL and
    LABEL_STUDIO_TOKEN (or LABEL_STUDIO_TOKEN_FILE) say where; without them, queue and pictures are made, no more.

    [bold]import[/]: brings the verdicts back; given twice, the second adds nothing.

    [bold]rr7k annotate[/] does all of it with a server of its own on this machine. Exits with 4 while pages are left.
    """
    from annotation_ui import connection
    from pipeline.run import Run
    from stages import crops

    target = Run(run)
    if watch and step is Stage3Step.export:
        raise UsageError("--watch: an option of rr7k stage-3 import.")
    named = [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    server = connection.from_environment(crops.folder(target))
    if step is not Stage3Step.fetch:
        missing = prepare(target, settings)
        if server is not None:
            send(target, settings, server, missing)
        else:
            tell(f"no server is named: rr7k annotate --run {run} starts one, or set LABEL_STUDIO_URL")
    if simulate:
        simulated(target)
    if step is not Stage3Step.export:
        bring_back(target, settings, server, watch=watch)
        print_funnel(target)
        if remaining(target):
            raise typer.Exit(INCOMPLETE)


def prepare(run: Any, settings: Any) -> frozenset[int]:
    """Queue what is new and draw it; return the masks that cannot be shown."""
    from stages import crops, queue

    with err.status("choosing what people see"):
        made = queue.build(run, settings.queue)
    tell(f"queue: {made.pages:,} new pages")
    rows = run.dataset("queue", queue.STEP).to_table(columns=["mask_id", "view", "crop", "raw"])
    with err.status("drawing regions"):
        drawn = crops.draw(run, rows, lambda: _session(settings))
    tell(f"pictures: {drawn.made:,} drawn, in {crops.folder(run)}; {len(drawn.missing):,} regions cannot be shown")
    return frozenset(drawn.missing)


def send(run: Any, settings: Any, server: Any, missing: frozenset[int]) -> None:
    """Send the pages that the server does not have."""
    from annotation_ui import projects
    from stages import decisions, headings, queue
    from stages.remembering import inherited

    with err.status("sending pages"), server.client() as client:
        pages = queue.pages(run)
        above = dict(zip((page.page_id for page in pages), headings.headings(run, pages), strict=True))
        votes = inherited(run, decisions.STEP, settings.screening).votes
        sent = projects.send(run, client, server.served, above, missing, votes)
    tell(f"{server.url}: {sent.pages:,} pages sent, {len(sent.projects):,} projects")


def _session(settings: Any) -> AbstractContextManager[Any]:
    from pipeline import cluster

    return cluster.session(settings.cluster)


def bring_back(run: Any, settings: Any, server: Any, *, watch: bool) -> None:
    """Fetch, decide; with `watch`, again until nothing is left."""
    from annotation_ui import screenings
    from stages import decisions

    if not run.parts("queue"):
        raise UsageError(f"{run.folder.uri}: people were shown nothing yet. Begin with: rr7k stage-3 export")
    while True:
        if server is not None:
            with server.client() as client:
                found = screenings.fetch(run, client, server.url)
            if found.answers or found.refused:
                tell(
                    f"{found.answers:,} pages answered, {found.verdicts:,} verdicts; {found.refused:,} answers refused"
                )
        decisions.build(run, settings.screening)
        if server is None or not watch or not remaining(run, quiet=True):
            break
        time.sleep(_WATCH)
    show_progress(run)


def simulated(run: Any) -> None:
    """Answer all pages by nobody."""
    from stages import simulated_screening

    judged = simulated_screening.screen(run)
    tell(f"[bold]simulated[/]: {judged:,} verdicts that no person gave")


def remaining(run: Any, *, quiet: bool = False) -> int:
    """Return how many pages nobody has answered."""
    from stages import screening_progress

    found = screening_progress.measure(run)
    left = found.pages - found.done
    if left and not quiet:
        tell(f"{left:,} of {found.pages:,} pages are left")
    return left


def show_progress(run: Any) -> None:
    """Print how far people are."""
    from stages import screening_progress

    found = screening_progress.measure(run)
    verdicts = ", ".join(f"{count:,} {name}" for name, count in sorted(found.verdicts.items())) or "none"
    tell(f"screening: {found.done:,} of {found.pages:,} pages, {found.annotators} people; verdicts: {verdicts}")
    if found.error_rate is not None:
        tell(f"wrong so far: {found.error_rate:.1%}")
    if found.simulated:
        tell(f"[bold]simulated[/]: {found.simulated:,} verdicts, given by nobody")
    if found.hours_left is not None and found.seconds is not None:
        tell(f"{found.seconds:.2f} s per region; about {found.hours_left:,.1f} hours of one person are left")


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
    missing = prepare(target, settings)
    with err.status(f"installing Label Studio {local_server.VERSION}, once"):
        local_server.install(installed)
    place = crops.folder(target)
    place.mkdir(exist_ok=True)
    with local_server.start(installed, data, place, port) as server:
        there = Connection(server.url, server.token, server.folder)
        send(target, settings, there, missing)
        tell(f"open {server.url} as {server.email}; the password is in {data / server_data.SECRETS}. Ctrl-C ends it.")
        _until_done(target, settings, there, data)


def _until_done(run: Any, settings: Any, server: Any, data: Path) -> None:
    """Fetch verdicts and copy the database now and then, until interrupted."""
    from annotation_ui import server_data

    saved = time.monotonic()
    while True:
        time.sleep(_WATCH)
        bring_back(run, settings, server, watch=False)
        if time.monotonic() - saved >= _BACKUP:
            saved = time.monotonic()
            server_data.backup(data, data / "backups" / time.strftime("%Y-%m-%dT%H-%M-%S"))
