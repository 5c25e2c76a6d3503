"""The page of `rr7k ui` in a real browser: choose a picture, point, read the names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tiny_detectors
import torch
from label_studio_site import chromium
from PIL import Image
from playwright.sync_api import Page, expect
from wowseg_models import one_thread, picture, rectangles  # noqa: F401 (a fixture)

from model import debug

NAME = "<img src=x onerror=alert(1)> cat"
EASY = ("--points", "3", "--least-iou", "-9", "--least-stability", "0")
ROOT = Path(__file__).parent.parent
PROGRAM = "import typer; from pipeline.cli_ui import ui; typer.run(ui)"


def speaking(folder: Path) -> None:
    """A checkpoint that has learnt one name."""
    model = debug.debug(texts=[NAME], tiles=1).train()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(100):
        given = model.preparer.sample(picture(step % 4), rectangles(2, step % 4), [NAME] * 2)
        optimiser.zero_grad()
        torch.autograd.backward(model([given]).over_instances())
        optimiser.step()
    model.eval().save(folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    speaking(folder / "model")
    tiny_detectors.sam(folder / "sam")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--model", str(folder / "model"), "--segmenter", str(folder / "sam"), "--port", str(port)]
    # NiceGUI behaves otherwise where it sees a test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *where, "--no-browser", *EASY],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            try:
                httpx.get(address)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def page(site: str) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(30_000)
        yield page


def upload(page: Page, path: Path) -> None:
    page.set_input_files("input[type=file]", path)


def names(page: Page, count: int) -> None:
    """Wait for so many names, and check that each is the text itself."""
    expect(page.locator(".name")).to_have_text([NAME] * count)


def test_a_visit(site: str, page: Page, tmp_path: Path) -> None:
    asked: list[str] = []
    alarms: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: alarms.append(dialog.message))
    page.on("pageerror", lambda error: alarms.append(str(error)))
    page.goto(site)
    expect(page.get_by_text("or try one of these")).to_be_visible()
    assert page.locator(".q-img").count() == 5

    (tmp_path / "no.png").write_bytes(b"no picture")
    upload(page, tmp_path / "no.png")
    expect(page.get_by_text("no.png is no picture")).to_be_visible()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, 300, 200).save(tmp_path / "turned.jpg", exif=exif)
    upload(page, tmp_path / "turned.jpg")

    shown = page.locator(".picture img")
    expect(shown).to_be_visible()
    page.wait_for_function("document.querySelector('.picture img').naturalWidth == 200")  # upright
    place = shown.bounding_box()
    assert place is not None
    assert place["height"] / place["width"] == pytest.approx(1.5, abs=0.01)
    shown.click(position={"x": place["width"] / 2, "y": place["height"] / 4})
    names(page, 1)

    page.mouse.move(place["x"] + 20, place["y"] + 20)
    page.mouse.down()
    page.mouse.move(place["x"] + 150, place["y"] + 200, steps=4)
    expect(page.locator(".picture rect")).to_have_count(1)
    page.mouse.up()
    names(page, 2)
    expect(page.locator(".picture rect")).to_have_count(0)

    both = shown.get_attribute("src")
    page.locator(".name").first.click()
    expect(page.locator(".bg-blue-1")).to_have_count(1)
    assert shown.get_attribute("src") != both  # one alone
    page.locator(".name").first.click()
    expect(page.locator(".bg-blue-1")).to_have_count(0)

    with page.expect_download() as waiting:
        page.get_by_role("button", name="Data").click()
    assert waiting.value.suggested_filename == "turned-named.json"
    told = json.loads(Path(waiting.value.path()).read_text())
    assert told["image"] == {"file_name": "turned", "width": 200, "height": 300}
    assert [one["label"] for one in told["annotations"]] == [NAME] * 2
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Picture", exact=False).first.click()
    with Image.open(waiting.value.path()) as drawn:
        assert drawn.size == (200, 300)

    page.get_by_role("button", name="Clear").click()
    names(page, 0)
    page.get_by_role("button", name="Name everything").click()
    expect(page.locator(".name")).not_to_have_count(0)
    page.get_by_role("button", name="Other picture").click()
    page.locator(".q-img").nth(1).click()
    expect(shown).to_be_visible()
    names(page, 0)

    assert alarms == []
    elsewhere = [url for url in asked if not url.startswith((site, "data:", "blob:"))]
    assert elsewhere == []


def test_pages_are_strangers(site: str, page: Page) -> None:
    page.goto(site)
    expect(page.get_by_text("or try one of these")).to_be_visible()  # not the picture of before


def test_another_name_for_this_machine_is_refused(site: str) -> None:
    assert httpx.get(site).status_code == 200
    assert httpx.get(site, headers={"host": "elsewhere.example"}).status_code == 400


def test_a_port_that_is_taken_is_told() -> None:
    from pipeline.cli_ui import _check
    from pipeline.errors import UsageError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"port \d+ cannot be had .* --port N"):
            _check(taken.getsockname()[1])
