"""What breaks, or is changed on the server by hand: told, nothing lost, mended by running again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from label_studio_screening import TILES, Screening, queue
from label_studio_site import Site
from sa1b_shards import commit, rows

from annotation_ui import client, screens, server_data
from annotation_ui.client import Client
from annotation_ui.projects import uid
from annotation_ui.screenings import Fetched
from pipeline.errors import BusyError, UsageError, UserError
from pipeline.run import Run

pytestmark = pytest.mark.timeout(900)  # an environment to install, and a first start, come before the first test


@pytest.fixture
def screening(run: Run, site: Site) -> Screening:
    return Screening(run, site)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Callable[[], None]], None]:
    """Have something happen before the nth request to a path."""

    def before(path: str, number: int, happen: Callable[[], None]) -> None:
        send, seen = httpx.Client.request, []

        def request(self: httpx.Client, method: str, url: str, **content: object) -> httpx.Response:
            seen.append(url) if path in url else None
            if len(seen) == number:
                happen()
                seen.append("done")
            return send(self, method, url, **content)  # type: ignore[arg-type]

        monkeypatch.setattr(httpx.Client, "request", request)

    return before


def test_a_server_killed_under_an_export(screening: Screening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGES_PER_REQUEST", 20)
    pages = queue(screening.run, screening.site, 1, 400)
    failures: list[UserError] = []

    def send() -> None:
        try:
            screening.send()
        except UserError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    while not stored(screening):
        pass
    screening.site.process().kill()
    sender.join()
    assert [str(failure).startswith(screening.site.server.url) for failure in failures] == [True]
    screening.site.restart()
    had = len(screening.tasks())
    assert 0 < had < 400
    assert had % 20 == 0  # a request is stored whole or not at all
    assert screening.send().pages == 400 - had
    assert {page: len(ids) for page, ids in screening.tasks().items()} == dict.fromkeys(pages, 1)


def stored(screening: Screening) -> int:
    try:
        return len(screening.tasks())
    except UserError:  # no project yet
        return 0


def test_a_server_killed_under_an_import(
    screening: Screening, monkeypatch: pytest.MonkeyPatch, requests: Callable[[str, int, Callable[[], None]], None]
) -> None:
    monkeypatch.setattr(client, "_READ", 2)
    pages = queue(screening.run, screening.site, 1, 5)
    screening.send()
    for page in pages:
        screening.answer(page)
    requests("/api/tasks/", 2, screening.site.process().kill)
    with pytest.raises(UserError, match=f"{screening.site.server.url}: (broke off|cannot be reached)"):
        screening.fetch()
    assert len(screening.verdicts()) == 2 * TILES  # what came in before
    monkeypatch.undo()
    screening.site.restart()
    assert screening.fetch() == Fetched(3, 3 * TILES, 0)
    assert screening.fetch() == Fetched(0, 0, 0)
    assert len(rows(screening.run, "screenings")) == 5 * TILES


def test_a_wrong_token(screening: Screening) -> None:
    site = screening.site
    (page,) = queue(screening.run, site, 1, 1)
    screening.send()
    screening.answer(page)
    for step in (screening.fetch, screening.send):
        with pytest.raises(UsageError, match="does not take the token"):
            step(Client(site.server.url, "0" * 40))
    assert screening.fetch() == Fetched(1, TILES, 0)


def test_a_project_deleted_by_hand_asks_nobody_twice(screening: Screening) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 3)
    screening.send()
    screening.answer(pages[0], wrong=[uid(100, 0)])
    screening.fetch()
    commit(run, screenings=[{**row, "page_id": pages[1], "annotator": "simulated"} for row in rows(run, "screenings")])
    site.post(f"/api/projects/{screening.project()}/", None, "DELETE")
    with pytest.raises(UserError, match=r"no project '.* 001'. Was it deleted\? .* verdicts fetched before are kept"):
        screening.fetch()
    assert screening.send().pages == 2
    assert sorted(screening.tasks()) == pages[1:]  # what only a program has answered is asked
    screening.answer(pages[1], wrong=[uid(201, 1)])
    assert screening.fetch() == Fetched(1, TILES, 0)
    assert screening.verdicts() | {100: "delete", 201: "delete"} == screening.verdicts()
    assert screening.send(votes=2).pages == 1  # one has judged the first page, and two are to


def test_a_task_deleted_by_hand(screening: Screening) -> None:
    pages = queue(screening.run, screening.site, 1, 3)
    screening.send()
    screening.answer(pages[0])
    screening.fetch()
    for page in pages[:2]:
        screening.site.post(f"/api/tasks/{screening.tasks()[page][0]}/", None, "DELETE")
    assert screening.fetch() == Fetched(0, 0, 0)
    assert screening.send().pages == 1
    assert sorted(screening.tasks()) == pages[1:]
    assert len(screening.verdicts()) == TILES


def test_a_label_configuration_changed_by_hand(screening: Screening) -> None:
    site = screening.site
    pages = queue(screening.run, site, 1, 2)
    project = screening.send().projects.popitem()[1]
    ours = screens.label_config("page_view")
    renamed = ours.replace('name="wrong"', 'name="bad"')
    site.post(f"/api/projects/{project}/", {"label_config": renamed}, "PATCH")
    screening.answer(pages[0], bad=[uid(100, 0)])
    assert screening.fetch() == Fetched(0, 0, 1)
    (refused,) = rows(screening.run, "quarantine", "input")
    assert refused["error"] == "list 'bad': not of this screen. Open the page there and submit it again."
    with pytest.raises(UserError, match=r"from_name=bad.* changed by hand.* delete them there .*, then run this again"):
        screening.send()
    site.post(f"/api/annotations/{refused['input'].split(':')[1].split('@')[0]}/", None, "DELETE")
    screening.send()
    assert site.get(f"/api/projects/{project}/").json()["label_config"] == ours
    screening.answer(pages[0], wrong=[uid(100, 0)])
    assert screening.fetch() == Fetched(1, TILES, 0)
    site.post(
        f"/api/projects/{project}/", {"label_config": ours.replace("24", "25"), "maximum_annotations": 3}, "PATCH"
    )
    screening.send()
    have = site.get(f"/api/projects/{project}/").json()
    assert (have["label_config"], have["maximum_annotations"]) == (ours, 1)


def test_a_second_look_reads_what_changed(screening: Screening, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = queue(screening.run, screening.site, 1, 3)
    screening.send()
    assert screening.fetch(recent=True) == Fetched(0, 0, 0)
    screening.answer(pages[0])
    screening.answer(pages[1])
    assert screening.fetch(recent=True) == Fetched(2, 2 * TILES, 0)
    with screening.site.client() as there:
        first, second = (task["annotations"][0] for task in there.annotated(screening.project()))
        last = datetime.fromisoformat(second["updated_at"])
        assert [t["meta"]["page_id"] for t in there.annotated(screening.project(), last)] == [pages[1]]
    site = screening.site
    site.post(f"/api/annotations/{first['id']}/", {"result": []}, "PATCH")
    screening.answer(pages[2])
    assert screening.fetch(recent=True) == Fetched(2, 2 * TILES, 0)
    assert screening.fetch() == Fetched(0, 0, 0)
    assert list((site.data / "export").iterdir()) == []


def test_back_to_a_backup(screening: Screening, tmp_path: Path) -> None:
    run, site = screening.run, screening.site
    pages = queue(run, site, 1, 2)
    screening.send()
    screening.answer(pages[0])
    server_data.backup(site.data, tmp_path / "copy")
    screening.answer(pages[1], wrong=[uid(200, 0)])
    queue(run, site, 3, 1)
    (project,) = screening.send().projects.values()
    assert screening.fetch() == Fetched(2, 2 * TILES, 0)
    with pytest.raises(BusyError):
        server_data.go_back(tmp_path / "copy", site.data)
    site.stop()
    aside = server_data.go_back(tmp_path / "copy", site.data)
    site.start()
    with site.client() as there:
        assert [task["meta"]["page_id"] for task in there.annotated(screening.project())] == pages[:1]
    assert screening.fetch() == Fetched(0, 0, 0)
    assert screening.verdicts()[200] == "delete"
    assert screening.send().pages == 1
    assert len(screening.tasks()) == 3
    assert aside is not None
    with closing(sqlite3.connect(aside / server_data.DATABASE)) as before:
        assert before.execute("SELECT count(*) FROM task_completion WHERE project_id = ?", (project,)).fetchone() == (
            2,
        )
