"""A real server: pages are stored once, whatever happens between, and nobody sees what they should not."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest
from label_studio_site import FRESH, INSTALLED, Site

from annotation_ui import local_server, screens, server_data
from annotation_ui.client import Client, ProjectSettings
from pipeline.errors import BusyError, UsageError, UserError

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(900)  # an environment to install, and a first start, come before the first test


def test_crops_are_for_who_is_logged_in_and_nothing_else_is_served(site: Site) -> None:
    project = site.project("served", [])
    (site.crops.parent / "sibling").mkdir()
    (site.crops.parent / "sibling" / "secret.jpg").write_bytes(b"secret")
    (site.data / "served" / "secret.jpg").write_bytes(b"secret")
    picture = site.get("/data/local-files/?d=crops/000.jpg")
    assert picture.status_code == 200
    assert picture.content == (site.crops / "000.jpg").read_bytes()
    assert site.get("/data/local-files/?d=crops/000.jpg", token=None).status_code == 401
    for path in (
        "crops/../secret.jpg",
        "secret.jpg",
        "../secrets.json",
        "crops/../../secrets.json",
        "../../sibling/secret.jpg",
        str(site.crops.parent / "sibling" / "secret.jpg"),
        "/etc/passwd",
        "crops/%2e%2e/%2e%2e/secrets.json",
    ):
        answer = site.get(f"/data/local-files/?d={quote(path)}")
        assert answer.status_code >= 400
        assert not {b"secret", b"root:"} & {answer.content[:6], answer.content[:5]}
        assert site.server.token not in answer.text
    for folder in (site.crops.parent / "sibling", site.data, Path("/etc")):  # as any annotator could ask for
        with site.client() as there, pytest.raises(UserError, match="must be a subdirectory"):
            there.serve(project, str(folder))


def test_pages_are_stored_once_and_what_is_lost_is_sent_again(site: Site) -> None:
    tasks = [screens.page_task(site.page(number, count=2)) for number in range(7)]
    project = site.project("once", tasks)
    with site.client() as there:
        before = there.pages(project)
        assert there.send(project, tasks) == 0
        assert there.project(ProjectSettings("once", screens.label_config("page_view"), screens.guideline())) == project
        assert there.pages(project) == before
        for page_id in ("page-2", "page-5"):
            site.post(f"/api/tasks/{before[page_id][0]}/", None, "DELETE")
        assert there.send(project, tasks) == 2
        after = there.pages(project)
    assert sorted(after) == sorted(before)
    assert [len(ids) for ids in after.values()] == [1] * 7
    assert {page_id for page_id in after if after[page_id] != before[page_id]} == {"page-2", "page-5"}


def test_a_deleted_project_is_told(site: Site) -> None:
    task = screens.page_task(site.page(0, count=1))
    project = site.project("deleted", [task])
    site.post(f"/api/projects/{project}/", None, "DELETE")
    with site.client() as there:
        for step in (
            lambda: there.pages(project),
            lambda: list(there.annotated(project)),
            lambda: there.send(project, [task]),
        ):
            with pytest.raises(UserError, match=f"project {project} is not there. Was it deleted"):
                step()
        with pytest.raises(UserError, match=r"no project 'deleted'. Was it deleted"):
            there.find("deleted")


def test_settings_are_brought_up_to_date(site: Site) -> None:
    config = screens.label_config("page_view")
    with site.client() as there:
        project = there.project(ProjectSettings("settings", config))
        assert there.project(ProjectSettings("settings", config, "<p>Look</p>", maximum_annotations=2)) == project
        assert there.find("settings") == project
        have = site.get(f"/api/projects/{project}/").json()
        assert (have["maximum_annotations"], have["expert_instruction"]) == (2, "<p>Look</p>")
        assert (have["enable_empty_annotation"], have["show_skip_button"]) == (True, False)


def test_a_list_that_people_made_stays(site: Site) -> None:
    page = site.page(0)
    project = site.project("lists", [screens.page_task(page)])
    (made,) = site.get(f"/api/dm/views/?project={project}").json()
    site.post(f"/api/dm/views/{made['id']}/", {"data": {"title": "My own"}}, "PATCH")
    with site.client() as there:
        there.list_only(project, screens.LISTED)
    (kept,) = site.get(f"/api/dm/views/?project={project}").json()
    assert (kept["id"], kept["data"]["title"]) == (made["id"], "My own")


def test_the_guideline_needs_no_cleaning(site: Site) -> None:
    project = site.project("cleaning", [])
    assert site.get(f"/api/projects/{project}/").json()["expert_instruction"] == screens.guideline()


@pytest.mark.parametrize(
    ("title", "config", "told"),
    [
        ("broken", "<View", "unclosed token"),
        (
            "stray",
            '<View><Choices name="a" toName="b"><Choice value="c"/><Choice value="d"/></Choices></View>',
            "toName",
        ),
        ("x" * 51, "<View/>", "50"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(site: Site, title: str, config: str, told: str) -> None:
    with site.client() as there, pytest.raises(UserError, match=f"refuses project '{title}'.*({told})") as refused:
        there.project(ProjectSettings(title, config))
    assert site.server.token not in str(refused.value)


def test_tokens(site: Site) -> None:
    project = site.project("tokens", [])
    with Client(site.server.url, "0" * 40) as there, pytest.raises(UsageError, match="does not take the token"):
        there.pages(project)
    with Client(site.server.url, personal_token(site)) as there:
        assert there.pages(project) == {}


def personal_token(site: Site) -> str:
    with httpx.Client(base_url=site.server.url, trust_env=False, timeout=60, follow_redirects=True) as session:
        session.get("/user/login/")
        form = {"email": site.server.email, "password": site.server.password}
        form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
        session.post("/user/login/", data=form, headers={"Referer": f"{site.server.url}/user/login/"})
        made = session.post("/api/token/", headers={"X-CSRFToken": session.cookies["csrftoken"]})
        return str(made.raise_for_status().json()["token"])


def test_only_this_machine_can_reach_it(site: Site) -> None:
    assert {c.laddr.ip for c in site.process().net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}


def test_one_server_per_data_folder_and_port(site: Site, tmp_path: Path) -> None:
    with pytest.raises(BusyError), local_server.start(INSTALLED, site.data, site.crops):
        pass
    port = int(site.server.url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"port {port}"), local_server.start(INSTALLED, tmp_path, site.crops, port):
        pass


def test_a_server_that_does_not_come_up_tells_why(site: Site, tmp_path: Path) -> None:
    token = server_data.keys(tmp_path).token
    (tmp_path / server_data.DATABASE).write_bytes(b"no database at all" * 100)
    told = f"ended with 1. Its log, {tmp_path}/server.log, ends:\n.*file is not a database"
    with pytest.raises(UserError, match=f"(?s){told}") as failed, local_server.start(INSTALLED, tmp_path, site.crops):
        pass
    assert token not in str(failed.value)


def test_a_database_of_other_secrets(site: Site, tmp_path: Path) -> None:
    server_data.restore(FRESH, tmp_path / "data")
    (tmp_path / "data" / server_data.SECRETS).rename(tmp_path / "own")
    (tmp_path / "other").mkdir()
    server_data.keys(tmp_path / "other")
    (tmp_path / "other" / server_data.SECRETS).rename(tmp_path / "data" / server_data.SECRETS)
    start = local_server.start(INSTALLED, tmp_path / "data", site.crops)
    with pytest.raises(UserError, match="do not belong together"), start:
        pass


STARTER = """
import sys, time
from pathlib import Path
from annotation_ui import local_server
with local_server.start(*map(Path, sys.argv[1:])) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""
STRAY = {"HOST": "http://192.0.2.1", "PORT": "1", "DEBUG": "1", "USERNAME": "stray", "PASSWORD": "stray", "CI": "1"}


def test_a_backup_opens_and_the_server_ends_with_its_starter(site: Site, tmp_path: Path) -> None:
    project = site.project("backup", [screens.page_task(site.page(number, count=1)) for number in range(3)])
    server_data.backup(site.data, tmp_path / "copy")
    server_data.restore(tmp_path / "copy", tmp_path / "data")
    program = [sys.executable, "-c", STARTER, str(INSTALLED), str(tmp_path / "data"), str(site.crops)]
    environment = os.environ | STRAY
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as starter:
        assert starter.stdout
        url = starter.stdout.readline().strip()
        (process,) = psutil.Process(starter.pid).children()
        try:
            assert url.startswith("http://127.0.0.1:")
            with Client(url, site.server.token) as there, site.client() as here:
                assert there.pages(project) == here.pages(project)
            headers = {"Authorization": f"Token {site.server.token}"}
            people = httpx.get(f"{url}/api/users/", headers=headers, timeout=60, trust_env=False).json()
            assert [person["email"] for person in people] == [site.server.email]
        finally:
            starter.kill()
    process.wait(10)
