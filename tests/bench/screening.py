"""`make bench`: stage 3 beside the obvious ways, on a real Label Studio (SQLite, loopback) and in a real browser.

Simulated: pairs, names, verdicts, photographs and masks; the pictures on the pages are a few dozen crops of
scikit-image's photographs under many names. Real: server, HTTP, browser, keys and clicks. Rates are in pages a second,
for pages of up to 24 regions, on both sides. Answers for the import are planted by the server's own import of tasks
with annotations, since one call for each takes an hour; what is ticked in the browser is brought back as well.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
from label_studio_site import Annotator, Site, chromium
from rich.console import Console
from rich.table import Table

from annotation_ui import projects, screenings, screens
from annotation_ui.client import PAGES_PER_REQUEST, ProjectSettings
from annotation_ui.screens import Page, Tile
from bench import region_pictures, verified_tables
from bench.figures import Figure, Goal, goals, hand_over
from pipeline.run import Run
from stages import decisions, headings, queue, screening_progress
from stages.decisions import ScreeningConfig
from stages.queue import QueueConfig

FEW_PAIRS = 31_000  # a thousand pages
ROUNDS = 3  # of the comparison, ours and theirs by turns
ONE_BY_ONE = 40  # pages sent with a call for each
BROWSED, WRONG = 11, 0.05  # pages opened, share of wrong tiles
SINGLY = Goal(6, "export, beside one call per page", at_least=20)
BULK = Goal(6, "export, time of a bulk POST of ready-made pages", at_most=1.2)
SAMPLES = Goal(6, "samples exported and imported at size", "", at_least=100_000)
PROJECT = Goal(6, "pages of a project, at size", "", at_most=8000)  # were tried: label_studio.md §2
REQUEST = Goal(6, "a request, at size", "MB", at_most=250)  # the server takes: the same
BULK_LARGE = Goal(6, "export at size, a page, time of a page of that bulk POST", at_most=1.2)
IMPORT = Goal(6, "import at size, time of the server's own export")
AGAIN = Goal(6, "import of what is there already, time of the server's own export")
ACTIONS = Goal(6, f"keys and clicks a sample, {WRONG:.0%} wrong", "", at_most=0.10)
NEXT = Goal(6, "submit to next page ready, median", "s", at_most=1)
SLOWEST = Goal(6, "submit to next page ready, slowest", "s", at_most=1)
LOOKS = screening_progress.looks(ScreeningConfig())

console = Console(width=110)
Task = dict[str, Any]


class Cost:
    """Seconds, processor seconds of ours and of the server's, and our most private memory above that before, in MB."""

    seconds = 0.0
    ours = 0.0
    servers = 0.0
    megabytes = 0.0

    @property
    def processor(self) -> float:
        """Both: what wall time comes to on a machine that nobody else uses."""
        return self.ours + self.servers


@contextmanager
def measured(site: Site | None = None) -> Iterator[Cost]:
    """Measure a block."""
    cost, done, process = Cost(), threading.Event(), psutil.Process()
    server = site.process() if site else None

    def spent() -> float:
        return sum(server.cpu_times()[:2]) if server else 0.0

    def private() -> float:
        memory = process.memory_info()
        return float(memory.rss - memory.shared) / 1e6

    def watch() -> None:
        while not done.wait(0.02):
            cost.megabytes = max(cost.megabytes, private() - before)

    gc.collect()
    before = private()
    thread = threading.Thread(target=watch)
    thread.start()
    start, own, servers = time.perf_counter(), time.process_time(), spent()
    try:
        yield cost
    finally:
        cost.seconds, cost.ours = time.perf_counter() - start, time.process_time() - own
        cost.servers = spent() - servers
        done.set()
        thread.join()


# --- runs -------------------------------------------------------------------------------------------------


def queued(folder: Path, name: str, pairs: int) -> Run:
    """A run with a queue."""
    run = Run(str(folder / name))
    verified_tables.fill(run, pairs)
    queue.build(run, QueueConfig(), verified_tables.embed)
    return run


def copied(run: Run, name: str) -> Run:
    """The same run under another name, of which the server knows nothing."""
    target = Path(run.folder.path).with_name(name)
    shutil.copytree(run.folder.path, target)
    return Run(str(target))


def above(run: Run) -> Mapping[str, projects.Heading]:
    """What stands above the pages."""
    pages = queue.pages(run)
    found = headings.headings(run, pages, verified_tables.embed)
    return dict(zip((page.page_id for page in pages), found, strict=True))


def ready_made(run: Run, heading: Mapping[str, projects.Heading]) -> dict[str, list[Task]]:
    """The pages of a run, made beforehand, by the title of their project."""
    names = projects.write(run, heading, frozenset())
    folder = run.folder.sub(projects.TASKS)
    return {name.removesuffix(".json"): msgspec.json.decode(folder.read(name)) for name in names}


def settings(title: str) -> ProjectSettings:
    """A project as a run makes it."""
    return ProjectSettings(title, screens.label_config("page_view"), screens.guideline())


# --- export -----------------------------------------------------------------------------------------------


def http(site: Site) -> httpx.Client:
    """A plain client."""
    headers = {"Authorization": f"Token {site.server.token}"}
    return httpx.Client(base_url=site.server.url, headers=headers, timeout=300, trust_env=False)


def bulk(client: httpx.Client, project: int, tasks: list[Task]) -> None:
    """Post ready-made pages in as large batches as ours."""
    for start in range(0, len(tasks), PAGES_PER_REQUEST):
        batch = tasks[start : start + PAGES_PER_REQUEST]
        client.post(f"/api/projects/{project}/import", json=batch).raise_for_status()


def export(site: Site, folder: Path) -> tuple[list[Figure], float]:
    """Compare sending with a call for every page, and with what the server takes at best, whose seconds a page are
    returned beside the figures."""
    few = queued(folder, "few", FEW_PAIRS)
    heading = above(few)
    (tasks,) = ready_made(few, heading).values()
    ours, theirs, single = [], [], []
    with site.client() as there, http(site) as client:
        for number in range(ROUNDS):
            run = copied(few, f"few {number}")
            with measured(site) as cost:
                sent = projects.send(run, there, site.server.folder, heading, frozenset(), LOOKS)
            assert sent.pages == len(tasks)
            ours.append(cost)
            project = there.project(settings(f"bulk {number}"))
            with measured(site) as cost:
                bulk(client, project, tasks)
            theirs.append(cost)
            with measured(site) as cost:
                for task in tasks[:ONE_BY_ONE]:
                    client.post("/api/tasks/", json={**task, "project": project}).raise_for_status()
            single.append(cost)
    table = Table(f"{len(tasks):,} pages, best of {ROUNDS} by turns", "pages/s", "ms of processor a page", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    best = {}
    for what, costs, pages in (
        (f"obvious: one call per page ({ONE_BY_ONE} of them)", single, ONE_BY_ONE),
        (f"floor: ready-made pages, {PAGES_PER_REQUEST} a call, plain httpx", theirs, len(tasks)),
        ("[bold]rr7k: from the queue, project and all[/]", ours, len(tasks)),
    ):
        best[what] = min(c.seconds for c in costs) / pages, min(c.processor for c in costs) / pages
        table.add_row(what, f"{1 / best[what][0]:,.0f}", f"{1000 * best[what][1]:.2f}")
    slow, floor, fast = best.values()
    console.print(table)
    found = [SINGLY.reached(slow[0] / fast[0]), BULK.reached(fast[0] / floor[0])]
    console.print(f"{goals(found)}\nthe same by processor: {slow[1] / fast[1]:.0f}, {fast[1] / floor[1]:.2f}\n")
    return found, floor[0]


# --- at size ----------------------------------------------------------------------------------------------


def answered(task: Task, ticked: list[str], user: int) -> Task:
    """A page with its answer."""
    value = {"from_name": "wrong", "to_name": "page", "type": "choices", "value": {"choices": ticked}}
    said = {"completed_by": user, "lead_time": 24.0, "was_cancelled": False}
    return {**task, "annotations": [{**said, "result": [value] if ticked else []}]}


def plant(site: Site, ready: Mapping[str, list[Task]]) -> None:
    """Give the server projects as a run would, every page answered, some tiles ticked in no pattern."""
    random = np.random.default_rng(0)
    with site.client() as there, http(site) as client:
        user = client.get("/api/current-user/whoami").raise_for_status().json()["id"]
        for title, tasks in ready.items():
            made = []
            for task in tasks:
                uids = [item["value"] for item in task["data"]["wrong"]]
                made.append(answered(task, [uid for uid in uids if random.random() < WRONG], user))
            bulk(client, there.project(settings(title)), made)


def own_export(site: Site, run: Run) -> None:
    """Have the server export a run's projects, and do nothing with it."""
    with site.client() as there, http(site) as client:
        for batch in projects.batches(run):
            project = there.find(batch.title)
            client.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}).raise_for_status()


class Costs:
    """Steps at size, as a table."""

    def __init__(self, pages: int, site: Site) -> None:
        self._pages, self._site = pages, site
        self.table = Table(f"{pages:,} pages", "seconds", "pages/s", "CPU s: ours", "server's", "memory, MB", box=None)
        for column in self.table.columns[1:]:
            column.justify = "right"

    @contextmanager
    def step(self, what: str, *, pages: bool = True) -> Iterator[Cost]:
        """Measure a step, and note it."""
        with measured(self._site) as cost:
            yield cost
        rate = f"{self._pages / cost.seconds:,.0f}" if pages else ""
        self.table.add_row(
            what, f"{cost.seconds:.1f}", rate, f"{cost.ours:.1f}", f"{cost.servers:.1f}", f"{cost.megabytes:,.0f}"
        )


def at_size(
    site: Site, folder: Path, pairs: int, floor: float
) -> tuple[list[Figure], Run, Mapping[str, projects.Heading]]:
    """Make, send and bring back a whole queue, the last two twice; return figures and the run that was sent.

    `floor` is what a page costs as part of a bulk POST, in seconds."""
    with measured() as building:
        run = queued(folder, "large", pairs)
    rows = run.dataset("queue").to_table(columns=["page_id"])
    pages = len(rows["page_id"].unique())
    with measured() as heading_up:
        heading = above(run)
    told = f"{pairs:,} pairs, {rows.num_rows:,} tiles ([bold]simulated[/]); queue built in {building.seconds:.1f} s"
    console.print(f"{told}, headings in {heading_up.seconds:.1f} s without the embedding model")
    other = copied(run, "answered")
    ready = ready_made(other, heading)
    found = [SAMPLES.reached(rows.num_rows), *limits(ready)]
    plant(site, ready)
    del ready
    costs, spent = Costs(pages, site), []
    with site.client() as there:
        for what, expected in (("export", pages), ("export again, which adds nothing", 0)):
            with costs.step(what) as cost:
                sent = projects.send(run, there, site.server.folder, heading, frozenset(), LOOKS)
            assert sent.pages == expected
            spent.append(cost.seconds)
        with costs.step("the server's own export, of every page answered") as own:
            own_export(site, other)
        every = (pages, rows.num_rows, 0)
        for what, new in (("import of every page answered", every), ("import again, which adds nothing", (0, 0, 0))):
            with costs.step(what) as cost:
                assert screenings.fetch(other, there) == new
            spent.append(cost.seconds)
    with costs.step("decisions and progress", pages=False):
        assert decisions.build(other, ScreeningConfig()).pending == 0
        screening_progress.measure(other)
    console.print(costs.table)
    sent_first, _, fetched, fetched_again = spent
    found.append(BULK_LARGE.reached(sent_first / pages / floor))
    found += [IMPORT.reached(fetched / own.seconds), AGAIN.reached(fetched_again / own.seconds)]
    console.print(
        f"{goals(found)}\nthe second import took {fetched_again / own.seconds:.2f} × the server's own export, "
        f"by processor {cost.processor / own.processor:.2f}\n"
    )
    return found, run, heading


def limits(ready: Mapping[str, list[Task]]) -> list[Figure]:
    """Return what is asked of the server at most, beside what it was seen to take."""
    most = max(map(len, ready.values()))
    starts = [(tasks, start) for tasks in ready.values() for start in range(0, len(tasks), PAGES_PER_REQUEST)]
    body = max(len(msgspec.json.encode(tasks[start : start + PAGES_PER_REQUEST])) for tasks, start in starts)
    assert most <= projects.PAGES
    return [PROJECT.reached(most), REQUEST.reached(body / 1e6)]


# --- in the browser ---------------------------------------------------------------------------------------


def first_pages(site: Site, run: Run, heading: Mapping[str, projects.Heading]) -> list[Page]:
    """The first pages as people see them; their pictures are put where the queue says, each a file of its own."""
    found, number = [], 0
    for page in queue.pages(run)[:BROWSED]:
        for tile in page.tiles:
            for name, kind in ((tile.crop, ""), (tile.raw, "-raw")):
                target = site.crops / name
                target.parent.mkdir(exist_ok=True)
                shutil.copy(site.crops / f"{site.names[number % len(site.names)]}{kind}.jpg", target)
            number += 1
        tiles = [Tile(projects.uid(t.mask_id, place), t.category, t.crop, t.raw) for place, t in enumerate(page.tiles)]
        found.append(Page(page.page_id, *heading[page.page_id], tuple(tiles)))
    return found


def browse(site: Site, run: Run, heading: Mapping[str, projects.Heading]) -> list[Figure]:
    """Screen the first pages of the large project by keys and clicks, and bring back what was ticked."""
    pages = first_pages(site, run, heading)
    random = np.random.default_rng(0)
    every = [(number, place) for number, page in enumerate(pages[:-1]) for place in range(len(page.tiles))]
    wrong = {every[k] for k in random.choice(len(every), round(WRONG * len(every)), replace=False)}
    expected = {
        int(pages[number].tiles[place].uid.partition(".")[0]): "delete" if (number, place) in wrong else "keep"
        for number, place in every
    }
    with site.client() as there:
        project = there.find(projects.batches(run)[0].title)
    actions, seconds = 0, []
    with chromium() as browser:
        annotator = Annotator(browser, site)
        annotator.open(project)
        annotator.ready(pages[0])
        for number, following in enumerate(pages[1:]):
            for place in sorted(place for n, place in wrong if n == number):
                if actions % 2:
                    annotator.click("wrong", place)
                else:
                    annotator.press(screens.KEYS[place])
                actions += 1
            seconds.append(annotator.submit(following))
            actions += 1
        assert annotator.alarms == []
    with site.client() as there:
        screenings.fetch(run, there)
    rows = run.dataset("screenings").to_table(columns=["mask_id", "verdict"]).to_pylist()
    assert {row["mask_id"]: row["verdict"] for row in rows} == expected
    console.print(
        f"in the browser: {len(pages) - 1} pages, {len(every)} tiles, {len(wrong)} of them wrong: {actions} keys and "
        f"clicks; all came back as ticked"
    )
    waited = NEXT.reached(statistics.median(seconds)), SLOWEST.reached(max(seconds))
    found = [ACTIONS.reached(actions / len(every)), *waited]
    console.print(f"{goals(found)}\n")
    return found


def main(pairs: int = 131_000) -> list[Figure]:
    """Print and return the figures; `pairs` of the large run: of 131,000 people are shown 100,000."""
    with tempfile.TemporaryDirectory(prefix="rr7k-bench-") as name:
        folder = Path(name)
        table, drawn = region_pictures.compare(folder)
        console.print(table)
        with console.status("starting Label Studio"):
            site = Site(folder / "site")
        try:
            sent, floor = export(site, folder)
            large, run, heading = at_size(site, folder, pairs, floor)
            return [*drawn, *sent, *large, *browse(site, run, heading)]
        finally:
            site.stop()


if __name__ == "__main__":
    hand_over(main(*map(int, sys.argv[1:])))
