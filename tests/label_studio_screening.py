"""A run whose pages are on a real Label Studio, for the tests of annotation_ui."""

from __future__ import annotations

from label_studio_site import Site
from sa1b_shards import rows

from annotation_ui import projects, screenings, screens
from annotation_ui.client import Client
from annotation_ui.projects import Sent
from annotation_ui.screenings import Fetched
from pipeline import tables
from pipeline.files import sha256
from pipeline.run import Run

TILES = 6
HEADING = ("chair", "furniture", "a seat for one person", ("stool", "bench"))


def queue(run: Run, site: Site, first: int, pages: int, view: str = "page", category: str = "chair") -> list[str]:
    """Add pages to a run's queue; masks are numbered on."""
    tiles = TILES if view == "page" else 1
    made: list[dict[str, object]] = []
    for page in range(first, first + pages):
        for place in range(tiles):
            name = site.names[(page * tiles + place) % len(site.names)]
            page_id = f"{sha256(run.folder.uri.encode())[:8]}-{page}"
            known = {"page_id": page_id, "place": place, "view": view, "round": "screening"}
            about = {"mask_id": page * 100 + place, "image_id": page, "category": category, "why": "head"}
            shown = {"crop": f"{name}.jpg", "raw": f"{name}-raw.jpg"}
            made.append(
                {**known, **about, **shown, "error": 0.5, "inclusion_probability": 1.0, "stratum": "", "gold": None}
            )
    key = f"{len(run.commits('queue')):08d}"
    with run.part("queue", "queue", key) as part:
        part.write(tables.from_rows("queue", made))
    run.commit("queue", key, {"queue": part}, fingerprint=key, counts={}, facts={})
    return [str(row["page_id"]) for row in made[::tiles]]


def shown(page_id: str, page: int) -> screens.Page:
    """That page of the queue as it is on the screen."""
    tiles = tuple(screens.Tile(projects.uid(100 * page + place, place), "", "", "") for place in range(TILES))
    return screens.Page(page_id, *HEADING, tiles)


class Screening:
    """A run and its server."""

    def __init__(self, run: Run, site: Site) -> None:
        self.run, self.site = run, site

    def send(self, client: Client | None = None, missing: frozenset[int] = frozenset(), votes: int = 1) -> Sent:
        above = {row["page_id"]: HEADING for row in self.run.dataset("queue").to_table().to_pylist()}
        with client or self.site.client() as there:
            return projects.send(self.run, there, self.site.server.folder, above, missing, {"screening": votes})

    def fetch(self, client: Client | None = None, *, recent: bool = False) -> Fetched:
        with client or self.site.client() as there:
            return screenings.fetch(self.run, there, recent=recent)

    def project(self) -> int:
        """The run's one project."""
        (batch,) = projects.batches(self.run)
        with self.site.client() as there:
            return there.find(batch.title)

    def tasks(self) -> dict[str, list[int]]:
        """The tasks of that project, by page."""
        with self.site.client() as there:
            return there.pages(self.project())

    def answer(self, page_id: str, **lists: list[str]) -> int:
        """Answer a page as the screen would, through the server; return the task."""
        (task,) = self.tasks()[page_id]
        result = [
            {"from_name": name, "to_name": "page", "type": "choices", "value": {"choices": chosen}}
            for name, chosen in lists.items()
        ]
        self.site.post(f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 12.0})
        return task

    def verdicts(self) -> dict[int, str]:
        return {row["mask_id"]: row["verdict"] for row in rows(self.run, "screenings")}
