"""`rr7k stage-3`: sends people what they are to look at, brings their verdicts back, says what remains."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import typer

from pipeline.cli_funnel import print_funnel
from pipeline.cli_options import ConfigOption, RunOption, SetOption, WorkersOption, load_config
from pipeline.cli_screening import show_progress, show_report
from pipeline.console import err, tell
from pipeline.errors import UsageError

INCOMPLETE = 4
"""Exit code while people have pages left to look at."""

WATCH = 30.0
"""Seconds between looks for new verdicts."""


class Stage3Step(StrEnum):
    """The parts of stage 3."""

    export = "export"
    fetch = "import"
    report = "report"


class Extra(NamedTuple):
    """Rounds that are only made when asked for."""

    audit: bool = False
    qualification: bool = False


NOTHING = Extra()


def stage_3(
    run: RunOption,
    step: Annotated[
        Stage3Step | None, typer.Argument(help="One part only.", show_default="export, import, then what remains")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    watch: Annotated[
        bool, typer.Option(help="import: look again every half minute, until all pages are done.")
    ] = False,
    recover: Annotated[
        bool, typer.Option(help="import: first make a lost queue again, from the pages that the server has.")
    ] = False,
    audit: Annotated[
        bool, typer.Option(help="export: also a random sample of what is to be released, to be judged blind again.")
    ] = False,
    qualification: Annotated[
        bool, typer.Option(help="export: also up to ten pages of known answers, for every new annotator.")
    ] = False,
    simulate: Annotated[
        bool, typer.Option(help="Have nobody answer: verdicts by an annotator named [bold]simulated[/], for trying.")
    ] = False,
) -> None:
    """Stage 3: people look at all pairs of the tail and those of the head that were kept, and delete the wrong ones.

    [bold]export[/]: queues what is new and what is in conflict, draws its pictures, and sends the pages to Label
    Studio. LABEL_STUDIO_URL and LABEL_STUDIO_TOKEN (or LABEL_STUDIO_TOKEN_FILE) say where; without them, queue and
    pictures are made, no more.

    [bold]import[/]: brings the verdicts back; given twice, the second adds nothing.

    [bold]report[/]: annotators, their agreement and hours, and how precise the release is by the audit.

    [bold]rr7k annotate[/] does all of it with a server of its own on this machine. Exits with 4 while pages are left.
    """
    from annotation_ui import connection
    from pipeline.run import Run
    from stages import crops

    target, extra = Run(run), Extra(audit, qualification)
    check_options(step, extra, of_import=watch or recover)
    named = [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    server = connection.from_environment(crops.folder(target))
    if recover:
        take_up(target, server)
    if step in (Stage3Step.fetch, Stage3Step.report):
        check_shown(target)
    if step is Stage3Step.report:
        settle(target, settings)
        show_report(target, server)
        return
    if step is not Stage3Step.fetch:
        prepare(target, settings, extra)
        send(target, settings, server)
    if step is not Stage3Step.export:
        bring_back(target, settings, server, watch=watch)
    if step is None and prepare(target, settings):  # of what came in, some is in conflict
        send(target, settings, server)
    if simulate:
        simulated(target)
    settle(target, settings)
    if step is not Stage3Step.export:
        print_funnel(target)
        if show_progress(target).left:
            raise typer.Exit(INCOMPLETE)
        tell(f"next: rr7k release --run {target.folder.uri} --out DIR --version 1.0.0 --images embed|reference")


def check_options(step: Stage3Step | None, extra: Extra, *, of_import: bool) -> None:
    """Raise `UsageError` for options of another step."""
    if of_import and step is not Stage3Step.fetch:
        raise UsageError("--watch, --recover: options of rr7k stage-3 import.")
    if any(extra) and step in (Stage3Step.fetch, Stage3Step.report):
        raise UsageError("--audit, --qualification: options of rr7k stage-3 export.")


def check_shown(run: Any) -> None:
    """Raise `UsageError` when people were shown nothing yet."""
    if not run.parts("queue"):
        raise UsageError(f"{run.folder.uri}: people were shown nothing yet. Begin with: rr7k stage-3 export")


def take_up(run: Any, server: Any) -> None:
    """Make a lost queue again from the server's pages."""
    from annotation_ui import projects
    from stages import queue

    if server is None:
        raise UsageError("--recover: no server is named. Set LABEL_STUDIO_URL and LABEL_STUDIO_TOKEN.")
    with err.status("reading the server's pages"), server.client() as client:
        made = queue.adopt(run, projects.recover(run, client))
    tell(f"queue: {made.pages:,} pages recovered")


# --- to people --------------------------------------------------------------------------------------------


def prepare(run: Any, settings: Any, extra: Extra = NOTHING) -> int:
    """Queue what is new, of the rounds that decide and of those asked for; return the new pages."""
    from stages import queue, rounds

    with err.status("choosing what people see"):
        made = {"screening": queue.build(run, settings.queue)}
        made["conflict"] = rounds.conflicts(run, settings.screening)
        if extra.audit:
            settle(run, settings)
            made["audit"] = rounds.audited(run, settings.audit)
        if extra.qualification:
            made["qualification"] = rounds.qualification(run)
    for name, new in made.items():
        if new.pages or name in extra._asdict():
            tell(f"queue, {name}: {new.pages:,} new pages")
    if extra.audit:
        tell("audit: what is judged by somebody who screened the pair does not count; let others answer these pages")
    return sum(new.pages for new in made.values())


def send(run: Any, settings: Any, server: Any) -> None:
    """Draw what is queued, and send the pages that the server does not have."""
    from annotation_ui import projects
    from stages import decisions, headings, queue, screening_progress
    from stages.remembering import inherited

    missing = draw(run, settings)
    with err.status("writing what stands above the pages"):
        pages = queue.pages(run)
        above = dict(zip((page.page_id for page in pages), headings.headings(run, pages), strict=True))
    if server is None:
        written = projects.write(run, above, missing)
        tell(f"tasks: {len(written):,} files in {run.folder.uri}/{projects.TASKS}")
        tell(
            f"No server is named: rr7k annotate --run {run.folder.uri} starts one, and one that runs sends them at its "
            "next look; for another set LABEL_STUDIO_URL and LABEL_STUDIO_TOKEN, and give this command again."
        )
        return
    looks = screening_progress.looks(inherited(run, decisions.STEP, settings.screening))
    with err.status("sending pages"), server.client() as client:
        sent = projects.send(run, client, server.served, above, missing, looks)
    if sent.pages:
        tell(f"{server.url}: {sent.pages:,} pages sent; its projects: {', '.join(sent.projects)}")


def draw(run: Any, settings: Any) -> frozenset[int]:
    """Draw what is queued and has no picture; return the masks that cannot be shown."""
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import crops, queue

    def session() -> AbstractContextManager[Any]:
        return cluster.session(settings.cluster)

    rows = run.dataset("queue", queue.STEP).to_table(columns=["mask_id", "view", "crop", "raw"])
    with meter(err) as shown:
        drawn = crops.draw(run, rows, session, shown)
    if drawn.made or drawn.missing:
        tell(f"pictures: {drawn.made:,} drawn, in {crops.folder(run)}; {len(drawn.missing):,} regions cannot be shown")
    return frozenset(drawn.missing)


# --- from people ------------------------------------------------------------------------------------------


def bring_back(run: Any, settings: Any, server: Any, *, watch: bool = False) -> None:
    """Fetch verdicts; with `watch`, again until nothing is left."""
    from stages import screening_progress

    recent = False
    while server is not None:
        fetch(run, server, recent=recent)
        if not watch or not screening_progress.measure(run).left:
            return
        settle(run, settings)
        time.sleep(WATCH)
        recent = True


def fetch(run: Any, server: Any, *, recent: bool) -> None:
    """Fetch verdicts; `recent` ones suffice when all have been looked at before."""
    from annotation_ui import screenings

    with server.client() as client:
        found = screenings.fetch(run, client, recent=recent)
    if found.answers or found.refused:
        tell(f"{found.answers:,} pages answered, {found.verdicts:,} verdicts; {found.refused:,} answers refused")


def settle(run: Any, settings: Any) -> None:
    """Put the verdicts together into decisions, and the report into its files."""
    from stages import decisions, screening_report

    decisions.build(run, settings.screening)
    screening_report.write(run, screening_report.measure(run))


def simulated(run: Any) -> None:
    """Answer all pages by nobody."""
    from stages import simulated_screening

    judged = simulated_screening.screen(run)
    tell(f"simulated: {judged:,} verdicts that no person gave")
