"""From a run's queue to a real server and back: exactly those verdicts on exactly those masks, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_studio_hostile import HOSTILE
from label_studio_screening import TILES, Screening, queue, shown
from label_studio_site import Annotator, Site, chromium
from sa1b_shards import rows

from annotation_ui import projects, screenings
from annotation_ui.answers import Refused
from annotation_ui.client import Annotation, Task
from annotation_ui.screenings import Fetched
from pipeline import tables
from pipeline.errors import UserError
from pipeline.run import Run

pytestmark = pytest.mark.timeout(900)  # an environment to install, and a first start, come before the first test


@pytest.fixture
def screening(run: Run, site: Site) -> Screening:
    return Screening(run, site)


def test_what_a_person_ticks_lands_on_those_masks(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 2, category=HOSTILE[0])
    (project,) = screening.send().projects.values()
    expected = [shown(page_id, n) for n, page_id in enumerate(pages, 1)]
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
    sent = screening.send(missing=frozenset({101, 103}))
    assert len(sent.projects) == 2
    with site.client() as there:
        stored = {page: ids for project in sent.projects.values() for page, ids in there.pages(project).items()}
    task: dict[str, Any] = site.get(f"/api/tasks/{stored[pages[0]][0]}/").json()
    assert [tile["value"] for tile in task["data"]["wrong"]] == ["100.0", "102.2", "104.4", "105.5"]
    for project in sent.projects.values():
        site.post(f"/api/projects/{project}/", None, "DELETE")
    with pytest.raises(UserError, match=r"no project .* Was it deleted"):
        screening.fetch()


TILE = {"mask_id": 7, "category": "dog", "page_id": "p", "round": "screening", "place": 0}
TASK: Task = {"id": 1, "data": {"page_id": "p", "wrong": [{"value": "7.0"}]}}


def answer(**other: Any) -> Annotation:
    said: Any = {"id": 1, "completed_by": 2, "was_cancelled": False, "result": [], "updated_at": "2026-11-24T10:00:00Z"}
    made: Annotation = said | other
    return made


def test_an_answer_of_nobody_is_none() -> None:
    found = screenings._verdicts(TASK, answer(completed_by=None), {"p": {"7.0": TILE}}, "s/projects/1")
    assert found == Refused("its annotator's account is deleted")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(4, 4.0), (2.5, 2.5), (None, None), ("4", None), (-1, None), ([], None), (10**400, None), (float("nan"), None)],
)
def test_a_time_that_is_none_costs_no_verdict(told: Any, seconds: float | None) -> None:
    found = screenings._verdicts(TASK, answer(lead_time=told), {"p": {"7.0": TILE}}, "s/projects/1")
    assert not isinstance(found, Refused)
    (row,) = tables.from_rows("screenings", found).to_pylist()
    assert (row["verdict"], row["page_seconds"], row["seconds"]) == ("keep", seconds, seconds)


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


def test_of_three_people_at_once_two_see_every_page_each_in_the_pages_order(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = [shown(page_id, n) for n, page_id in enumerate(queue(run, site, 1, 6), 1)]
    (project,) = screening.send(votes=2).projects.values()
    orders = {"ann": (1, 2, 4, 5), "bob": (1, 3, 4, 6), "cat": (2, 3, 5, 6)}  # they take turns
    with chromium() as browser:
        link = Annotator(browser, site).invite()
        people = {name: Annotator(browser, site, link, f"{name}@example.com") for name in orders}
        for key, (name, person) in enumerate(people.items(), 1):
            person.open(project)
            person.ready(pages[orders[name][0] - 1])
            person.press(str(key))
            assert f"page {orders[name][0]} of 6" in person.page.locator(".about.low").inner_text()
        for turn in (1, 2, 3):
            for name, person in people.items():
                person.submit(pages[orders[name][turn] - 1])
        for person in people.values():
            person.submit()
        for person in people.values():
            person.page.get_by_text("No More Tasks Left in Queue").wait_for()
    assert screening.fetch() == Fetched(12, 12 * TILES, 0)
    with site.client() as there:
        known = {screenings.annotator(there.name(), user): email for user, email in there.people().items()}
    said = {(known[r["annotator"]], r["mask_id"]) for r in rows(run, "screenings") if r["verdict"] == "delete"}
    assert said == {("ann@example.com", 100), ("bob@example.com", 101), ("cat@example.com", 202)}
    assert "example.com" not in str(rows(run, "screenings"))
