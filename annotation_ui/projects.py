"""The queue of a run as projects of a Label Studio: every page is sent once, in the order of the queue.

What is where can be read off the titles and the pages' ids alone, so a lost run folder takes nothing with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice, tee
from typing import Any, NamedTuple

import msgspec

from annotation_ui import screens
from annotation_ui.client import Client, ProjectSettings
from annotation_ui.screens import Page, Tile
from pipeline import files
from pipeline.errors import UserError
from pipeline.run import Run

STEP = "queue"
TASKS = "tasks"

PAGES = 5000
"""Pages per project: 8,000 of 24 tiles were tried, with a next page in 0.15 s (label_studio.md §2)."""

_FIRST = "screening"  # the round that every queue begins with
_SIMULATED = "simulated"  # an annotator that is no person (stages/decisions.py)
_NAME, _MARK = 18, 6  # characters of the run's name and of its first page; a title has 50 at most
_COLUMNS = ("page_id", "place", "view", "round", "mask_id", "category", "crop", "raw")


Heading = tuple[str, str, str, tuple[str, ...]]
"""What is above the tiles of a page: title, coarse group, gloss, neighbours."""


class Batch(NamedTuple):
    """Pages that belong into one project."""

    title: str
    view: str
    round: str
    pages: list[str]
    """Their ids, in order."""


class Sent(NamedTuple):
    """What sending came to."""

    projects: dict[str, int]
    """Title to id."""
    pages: int
    """Stored by this call."""


def batches(run: Run) -> list[Batch]:
    """Return the projects of a run's queue; a project is filled before the next begins, and never gets other pages.

    A title holds the beginning of the run's first page id, so that two runs of one name do not share projects.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    for part in sorted(run.commits(STEP).values(), key=lambda commit: commit.key):
        for page_id, view, round_ in _pages(run, part.parts["queue"]):
            found.setdefault((round_, view), {})[page_id] = None
    mark = next((page_id[:_MARK] for pages in found.values() for page_id in pages), "")
    name = f"{_short(run)} {mark}"
    return [
        Batch(f"{name} {round_} {view} {start // PAGES + 1:03}", view, round_, list(pages)[start : start + PAGES])
        for (round_, view), pages in found.items()
        for start in range(0, len(pages), PAGES)
    ]


def send(
    run: Run,
    client: Client,
    served: str,
    headings: Mapping[str, Heading],
    missing: frozenset[int],
    looks: Mapping[str, int],
) -> Sent:
    """Bring the server's projects up to the queue.

    `served` is the folder of crops as the server names it, `headings` what is above each page, `missing` the masks
    without a picture, which are left out; `looks` is how many people see a page, by round. What so many have answered,
    by the run's `screenings`, is not sent again to a server that has lost it. Raises `UserError`.
    """
    sent, answered = Sent({}, 0), _people(run)
    for batch, tasks in _tasks(run, headings, missing):
        config, people = screens.label_config(f"{batch.view}_view"), looks[batch.round]
        settings = ProjectSettings(batch.title, config, screens.guideline(), people)
        project = client.project(settings)
        client.serve(project, served)
        stored = client.send(project, (task for task in tasks if answered[task["meta"]["page_id"]] < people))
        client.list_only(project, screens.LISTED)
        sent = Sent(sent.projects | {batch.title: project}, sent.pages + stored)
    return sent


def write(run: Run, headings: Mapping[str, Heading], missing: frozenset[int]) -> list[str]:
    """Write what `send` would send, a file of tasks for every project; return the files, in the run's folder `tasks`.

    They are JSON as Label Studio imports it; the pictures' addresses are those below the folder it serves.
    """
    folder = run.folder.sub(TASKS)
    for batch, tasks in _tasks(run, headings, missing):
        folder.replace(f"{batch.title}.json", msgspec.json.encode(list(tasks)))
    return folder.names(".json")


def recover(run: Run, client: Client) -> list[dict[str, Any]]:
    """Return what the server knows of a run's lost queue: page_id, view, round, place, mask_id and category, in order.

    Its projects are told by the run's name. Raises `UserError` when there are none, or those of several runs.
    """
    name = _short(run)
    pattern = re.compile(rf"{re.escape(name)} ([0-9a-f]{{{_MARK}}}) (\w+) (page|single) \d+")
    known = [(found, project) for title, project in client.titles(name) if (found := pattern.fullmatch(title))]
    marks = sorted({found[1] for found, _ in known})
    if len(marks) != 1:
        told = f"of {len(marks)} runs: {', '.join(marks)}" if marks else "of that name"
        raise UserError(f"projects {told}, {name!r}; to find a lost queue they have to be of one run alone.")
    rows: list[dict[str, Any]] = []
    for found, project in sorted(known, key=lambda one: one[0][2] != _FIRST):  # whose first page marks all titles
        for data in client.stored(project):
            if "page_id" not in data or "names" not in data:
                continue  # people can add tasks of their own
            about = {"page_id": data["page_id"], "round": found[2], "view": found[3]}
            for tile, category in data["names"].items():
                mask_id, _, place = tile.partition(".")
                rows.append({**about, "mask_id": int(mask_id), "place": int(place), "category": category})
    return rows


def _short(run: Run) -> str:
    return files.base_name(run.folder.uri)[:_NAME]


def _tasks(
    run: Run, headings: Mapping[str, Heading], missing: frozenset[int]
) -> Iterator[tuple[Batch, Iterator[dict[str, Any]]]]:
    """Yield every project with its tasks; pages without any picture are left out."""
    rows = _by_page(run)
    for batch in batches(run):
        pages = (
            _page(rows[page_id], headings[page_id], missing, f"page {number:,} of {len(batch.pages):,}")
            for number, page_id in enumerate(batch.pages, 1)
        )
        make = _page_tasks if batch.view == "page" else _single_tasks
        yield batch, make(page for page in pages if page.tiles)


def _page_tasks(pages: Iterable[Page]) -> Iterator[dict[str, Any]]:
    shown, ahead = tee(pages)
    return map(screens.page_task, shown, chain(islice(ahead, 1, None), [None]))


def _single_tasks(pages: Iterable[Page]) -> Iterator[dict[str, Any]]:
    return map(screens.single_task, pages)


def _people(run: Run) -> Counter[str]:
    """Return how many people have answered each page."""
    table = run.dataset("screenings").to_table(columns=["page_id", "annotator"]).unify_dictionaries()
    answered = table.group_by(["page_id", "annotator"]).aggregate([]).to_pylist()
    return Counter(row["page_id"] for row in answered if row["annotator"] != _SIMULATED)


def uid(mask_id: int, place: int) -> str:
    """Return what a tile is called in answers: its mask, and its place, as a mask may be on a page twice."""
    return f"{mask_id}.{place}"


def _page(rows: Sequence[Mapping[str, Any]], heading: Heading, missing: frozenset[int], position: str) -> Page:
    tiles = tuple(
        Tile(uid(row["mask_id"], row["place"]), row["category"], row["crop"], row["raw"])
        for row in sorted(rows, key=lambda row: row["place"])
        if row["mask_id"] not in missing
    )
    return Page(rows[0]["page_id"], *heading, tiles, position)


def _by_page(run: Run) -> dict[str, list[dict[str, Any]]]:
    table = run.dataset("queue", STEP).to_table(columns=list(_COLUMNS)).sort_by("page_id")
    return {page_id: list(rows) for page_id, rows in groupby(table.to_pylist(), key=lambda row: row["page_id"])}


def _pages(run: Run, part: str) -> Iterator[tuple[str, str, str]]:
    """Return page_id, view and round of every page of a part, in their order."""
    columns = ["page_id", "view", "round"]
    with run.opened("queue", part) as file:
        table = file.read(columns)
    pages = table.group_by(columns, use_threads=False).aggregate([])  # with threads their order would be lost
    return zip(*(pages[name].to_pylist() for name in columns), strict=True)
