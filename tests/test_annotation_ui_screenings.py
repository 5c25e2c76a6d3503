"""From a run's queue to a real server and back: exactly those verdicts on exactly those masks, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from label_studio_hostile import HOSTILE
from label_studio_site import Annotator, Site, chromium
from sa1b_shards import rows

from annotation_ui import projects, screenings, screens
from annotation_ui.screenings import Fetched
from pipeline import tables
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.run import Run

pytestmark = pytest.mark.timeout(900)  # an environment to install, and a first start, come before the first test
TILES = 6
LOOKS = {"screening": 1}
HEADING = ("chair", "furniture", "a seat for one person", ("stool", "bench"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.stop()


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


class Screening:
    """A run and its server."""

    def __init__(self, run: Run, site: Site) -> None:
        self.run, self.site = run, site

    def send(self, missing: frozenset[int] = frozenset()) -> projects.Sent:
        ids = {row["page_id"] for row in self.run.dataset("queue").to_table().to_pylist()}
        with self.site.client() as there:
            return projects.send(self.run, there, self.site.server.folder, dict.fromkeys(ids, HEADING), missing, LOOKS)

    def fetch(self) -> Fetched:
        with self.site.client() as there:
            return screenings.fetch(self.run, there, self.site.server.url)

    def answer(self, page_id: str, **lists: list[str]) -> int:
        """Answer a page as the screen would, through the server; return the annotation's id."""
        with self.site.client() as there:
            (project,) = self.send().projects.values()
            (task,) = there.pages(project)[page_id]
        result = [
            {"from_name": name, "to_name": "page", "type": "choices", "value": {"choices": chosen}}
            for name, chosen in lists.items()
        ]
        self.site.post(f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 12.0})
        return task

    def verdicts(self) -> dict[int, str]:
        return {row["mask_id"]: row["verdict"] for row in rows(self.run, "screenings")}


@pytest.fixture
def screening(run: Run, site: Site) -> Screening:
    return Screening(run, site)


def test_what_a_person_ticks_lands_on_those_masks(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 2, category=HOSTILE[0])
    (project,) = screening.send().projects.values()
    expected = [
        screens.Page(
            page_id, *HEADING, tuple(screens.Tile(projects.uid(100 * n + k, k), "", "", "") for k in range(TILES))
        )
        for n, page_id in enumerate(pages, 1)
    ]
    with chromium() as browser:
        annotator = Annotator(browser, site)
        annotator.open(project)
        annotator.ready(expected[0])
        annotator.press("1", "4", "Alt+5", "Shift+6")
        annotator.submit(expected[1])
        assert annotator.alarms == []
    assert screening.fetch() == Fetched(1, TILES, 0)
    assert screening.verdicts() == {
        100: "delete",
        101: "keep",
        102: "keep",
        103: "delete",
        104: "private",
        105: "unsure",
    }
    (row, *_) = rows(run, "screenings")
    assert row["category"] == HOSTILE[0]
    assert row["page_seconds"] > 0
    assert row["seconds"] == pytest.approx(row["page_seconds"] / TILES)
    assert row["annotator"].startswith("a-")
    assert "operator" not in str(row)


def test_sending_and_fetching_twice_change_nothing_and_growth_adds_what_is_new(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 3)
    assert screening.send().pages == 3
    assert screening.send().pages == 0
    screening.answer(pages[1], wrong=[projects.uid(202, 2)])
    assert screening.fetch() == Fetched(1, TILES, 0)
    before = rows(run, "screenings")
    assert screening.fetch() == Fetched(0, 0, 0)
    assert rows(run, "screenings") == before
    queue(run, site, 4, 2)
    assert screening.send().pages == 2
    assert screening.verdicts()[202] == "delete"


def test_a_changed_answer_is_added_and_nonsense_is_none(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 2)
    screening.send()
    screening.answer(pages[0], wrong=[projects.uid(100, 0)])
    screening.answer(pages[1], wrong=["999.0"])
    assert screening.fetch() == Fetched(1, TILES, 1)
    assert screening.fetch() == Fetched(0, 0, 0)
    (refused,) = rows(run, "quarantine", "input")
    assert "not on this page" in refused["error"]
    with site.client() as there:
        (project,) = screening.send().projects.values()
        (task,) = [t for t in there.annotated(project) if t["data"]["page_id"] == pages[0]]
    site.post(f"/api/annotations/{task['annotations'][0]['id']}/", {"result": []}, "PATCH")
    assert screening.fetch() == Fetched(1, TILES, 0)
    history = [row for row in rows(run, "screenings", "submitted_at") if row["mask_id"] == 100]
    assert [row["verdict"] for row in history] == ["delete", "keep"]


def test_masks_without_a_picture_are_left_out_and_a_lost_project_is_told(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 1)
    queue(run, site, 2, 1, view="single")
    sent = screening.send(frozenset({101, 103}))
    assert len(sent.projects) == 2
    with site.client() as there:
        stored = {page: ids for project in sent.projects.values() for page, ids in there.pages(project).items()}
    task: dict[str, Any] = site.get(f"/api/tasks/{stored[pages[0]][0]}/").json()
    assert [tile["value"] for tile in task["data"]["wrong"]] == ["100.0", "102.2", "104.4", "105.5"]
    for project in sent.projects.values():
        site.post(f"/api/projects/{project}/", None, "DELETE")
    with pytest.raises(UserError, match=r"no project .* Was it deleted"):
        screening.fetch()


def test_projects_are_bounded_and_keep_their_pages(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(projects, "PAGES", 2)
    first = queue(run, site, 1, 3)
    before = projects.batches(run)
    assert [batch.pages for batch in before] == [first[:2], first[2:]]
    assert all(len(batch.title) <= 50 for batch in before)
    more = queue(run, site, 4, 2)
    after = projects.batches(run)
    assert [batch.pages for batch in after] == [first[:2], [first[2], more[0]], [more[1]]]
    assert [batch.title for batch in after][:2] == [batch.title for batch in before]
