"""A real Label Studio with real pictures, and an annotator with a real browser, for the tests of annotation_ui.

The browser is Debian's chromium (apt-get install chromium), driven by playwright: the one driver on PyPI that needs
neither a browser of its own nor a chromedriver beside it, and sends keys and clicks as the system would.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest
from label_studio_crops import write_crops
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from annotation_ui import local_server, screens, server_data
from annotation_ui.client import Client, ProjectSettings
from annotation_ui.local_server import Server

INSTALLED = Path(sys.prefix) / "label-studio"
FRESH = INSTALLED / "fresh"
"""A backup of a server that was started once: the first start makes the tables for one to two minutes."""

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_READY = """uids => {
    const shown = [...document.querySelectorAll(".wrong .ant-checkbox-input")].map(input => input.name);
    const pictures = [...document.querySelectorAll(".wrong img.marked")];
    return shown.join() === uids.join() && pictures.every(picture => picture.complete && picture.naturalWidth);
}"""
# Between a submit and the end of its request the server's page takes no other, so that none is sent twice.
_CAN_SUBMIT = "() => document.querySelector('button[name=submit]:enabled, button[name=update]:enabled')"


class Site:
    """A server that can be killed and started again, at the same address."""

    def __init__(self, folder: Path, crops: Path | None = None) -> None:
        """Serve the pictures in `crops`, by default some that are made."""
        self.crops, self.data = crops or folder / "crops", folder / "data"
        self.names = [] if crops else write_crops(self.crops, 72)
        self.prepare(self.data)
        self._running = ExitStack()
        self._port = 0
        self.server = self.start()

    @staticmethod
    def prepare(data: Path) -> None:
        """Install the server, and have `data` be as after a first start."""
        local_server.install(INSTALLED)
        if not FRESH.exists():
            with TemporaryDirectory() as folder:
                first, crops = Path(folder, "first"), Path(folder, "crops")
                write_crops(crops, 1)
                with local_server.start(INSTALLED, first, crops):
                    server_data.backup(first, FRESH)
        server_data.restore(FRESH, data)

    def start(self) -> Server:
        self.server = self._running.enter_context(local_server.start(INSTALLED, self.data, self.crops, self._port))
        self._port = int(self.server.url.rpartition(":")[2])
        return self.server

    def stop(self) -> None:
        self._running.close()

    def process(self) -> psutil.Process:
        (process,) = [p for p in psutil.Process().children() if str(local_server._PROCESS) in p.cmdline()]
        return process

    def client(self) -> Client:
        return Client(self.server.url, self.server.token)

    def get(self, path: str, token: str | None = "") -> httpx.Response:
        """Ask for a path, with the operator's token or as nobody (None)."""
        headers = {} if token is None else {"Authorization": f"Token {token or self.server.token}"}
        return httpx.get(f"{self.server.url}{path}", headers=headers, timeout=60, trust_env=False)

    def post(self, path: str, content: Any, method: str = "POST") -> None:
        headers = {"Authorization": f"Token {self.server.token}"}
        httpx.request(
            method, f"{self.server.url}{path}", headers=headers, json=content, timeout=60, trust_env=False
        ).raise_for_status()

    def restart(self) -> None:
        self.stop()
        self.start()

    def project(self, title: str, tasks: Sequence[dict[str, Any]], view: str = "page_view") -> int:
        """Make a project and send the tasks."""
        with self.client() as client:
            project = client.project(ProjectSettings(title, screens.label_config(view), screens.guideline()))
            client.serve(project, self.server.folder)
            assert client.send(project, tasks) == len(tasks)
            client.list_only(project, screens.LISTED)
        return project

    def page(self, number: int, category: str = "dining table", count: int = 24) -> screens.Page:
        names = [self.names[(number * count + n) % len(self.names)] for n in range(count)]
        return screens.Page(
            page_id=f"page-{number}",
            title=category,
            group="furniture",
            gloss="a table at which meals are served and eaten",
            neighbours=("desk", "coffee table", "counter", "kitchen island"),
            tiles=tuple(
                screens.Tile(f"{number}{n:03}", category, f"{name}.jpg", f"{name}-raw.jpg")
                for n, name in enumerate(names)
            ),
        )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser. Without one the test is left out, but in CI it fails."""
    if not _CHROMIUM:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium; apt-get install chromium")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium refuses to be root's otherwise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=[*root, "--disable-quic", "--disable-sync"]
        )
        yield browser
        browser.close()


class Annotator:
    """Somebody at a browser, logged in. `alarms` are scripts that ran and addresses elsewhere that were asked."""

    def __init__(self, browser: Browser, site: Site, invitation: str = "", email: str = "") -> None:
        """The operator, or somebody with an invitation."""
        self._site = site
        self.page: Page = browser.new_page(viewport={"width": 1366, "height": 768})
        self.alarms: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self._watch(request.url))
        self.page.goto(invitation or f"{site.server.url}/user/login/")
        self.page.fill("input[name=email]", email or site.server.email)
        self.page.fill("input[name=password]", site.server.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/" not in url)

    def invite(self) -> str:
        """Return the link that the organisation's page gives an operator."""
        self.page.goto(f"{self._site.server.url}/organization/")
        self.page.get_by_role("button", name="Invite new member").click()
        self.page.wait_for_function("() => document.querySelector('input.lsf-input-ls')?.value.includes('token=')")
        return self.page.locator("input.lsf-input-ls").input_value()

    def _dialog(self, dialog: Dialog) -> None:
        self.alarms.append(f"script: {dialog.message}")
        dialog.dismiss()

    def _watch(self, url: str) -> None:
        if not url.startswith((self._site.server.url, "data:", "blob:")):
            self.alarms.append(f"request: {url}")

    def open(self, project: int) -> None:
        """Begin to label. Not by a link to a page: the server then does not heed who else has it."""
        self.page.goto(f"{self._site.server.url}/projects/{project}/data")
        self.page.get_by_role("button", name="Label All Tasks").click()
        self.page.wait_for_selector(".lsf-choice")

    def ready(self, page: screens.Page) -> None:
        """Wait until all pictures of a page are to be seen."""
        self.page.wait_for_function(_READY, arg=[tile.uid for tile in page.tiles])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def click(self, layer: str, tile: int) -> None:
        """Click a tile, or one of its marks."""
        self.page.click(f".{layer} .lsf-choice:nth-child({tile + 1}) .lsf-choice__checkbox")

    def submit(self, upcoming: screens.Page | None = None) -> float:
        """Submit, and return the seconds until the next page can be worked on."""
        self.page.wait_for_function(_CAN_SUBMIT)
        begun = time.perf_counter()
        with self.page.expect_response(lambda r: "/annotations" in r.url and r.request.method in ("POST", "PATCH")):
            self.press("Space")
        if upcoming:
            self.ready(upcoming)
        return time.perf_counter() - begun
