"""Real pages on a real server in a real browser: what a person ticks is what comes back, and all of it can be seen."""

from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pytest
from label_studio_hostile import HOSTILE, MUTATION
from label_studio_site import Annotator, Site, chromium

from annotation_ui import screens
from annotation_ui.answers import latest, verdicts

UNCOVERED = """tiles => tiles.every(tile => {
    const box = tile.getBoundingClientRect();
    return tile.contains(document.elementFromPoint(box.x + box.width / 2, box.bottom - 8));
})"""

AHEAD = "() => [...document.querySelectorAll('.wrong img.next')].every(picture => picture.complete)"

pytestmark = pytest.mark.timeout(900)  # an environment to install, and a first start, come before the first test


@pytest.fixture(scope="module")
def annotator(site: Site) -> Iterator[Annotator]:
    with chromium() as browser:
        yield Annotator(browser, site)


def answers(site: Site, project: int) -> dict[str, Any]:
    """The last verdicts of the one annotator, by page."""
    with site.client() as there:
        tasks = list(there.annotated(project))
    return {task["meta"]["page_id"]: verdicts(task, latest(task)[-1]) for task in tasks if latest(task)}


def marked(page: screens.Page, **tiles: list[int]) -> dict[str, str]:
    """Every tile kept, but for those named."""
    found = {tile.uid: "keep" for tile in page.tiles}
    for verdict, numbers in tiles.items():
        found |= {page.tiles[number].uid: verdict for number in numbers}
    return found


def test_what_is_ticked_comes_back(site: Site, annotator: Annotator) -> None:
    pages = [site.page(number) for number in range(4)]
    project = site.project("ticked", [screens.page_task(*ahead) for ahead in zip_longest(pages, pages[1:])])
    annotator.open(project)
    annotator.ready(pages[0])
    annotator.press("1", "i", "k", "q", "q")  # q was a mistake
    annotator.click("wrong", 10)
    annotator.press("Alt+d", "Shift+2")
    annotator.click("private", 20)
    annotator.click("unsure", 13)
    seconds = [annotator.submit(pages[1]), annotator.submit(pages[2])]  # nothing is wrong on the second
    annotator.press("t")
    seconds.append(annotator.submit(pages[3]))
    assert answers(site, project) == {
        "page-0": marked(pages[0], delete=[0, 15, 23, 10], private=[18, 20], unsure=[1, 13]),
        "page-1": marked(pages[1]),
        "page-2": marked(pages[2], delete=[12]),
    }
    assert annotator.alarms == []
    print(f"\nsubmit to next page ready: {', '.join(f'{s:.2f}' for s in seconds)} s; 14 actions for 72 samples")


def test_the_next_pages_pictures_are_there_before_it(site: Site, annotator: Annotator) -> None:
    pages = [site.page(number) for number in range(3)]
    project = site.project("ahead", [screens.page_task(*ahead) for ahead in zip_longest(pages, pages[1:])])
    asked: list[str] = []
    annotator.page.on("request", lambda request: asked.append(request.url.rpartition("=crops/")[2]))
    annotator.open(project)
    for page, upcoming in pairwise(pages):
        annotator.ready(page)
        annotator.page.wait_for_function(AHEAD)
        assert {tile.crop for tile in upcoming.tiles} <= set(asked)
        asked.clear()
        annotator.submit(upcoming)
        assert not {tile.crop for tile in upcoming.tiles} & set(asked)


def test_a_page_can_be_changed_and_one_skipped_says_nothing(site: Site, annotator: Annotator) -> None:
    pages = [site.page(number) for number in range(3)]
    project = site.project("changed", [screens.page_task(page) for page in pages])
    annotator.open(project)
    annotator.ready(pages[0])
    annotator.press("1")
    annotator.submit(pages[1])
    annotator.page.click("[data-testid=prev-task]")
    annotator.ready(pages[0])
    annotator.press("1", "2")
    annotator.submit()
    with site.client() as there:
        (second,) = there.pages(project)["page-1"]
    skip = {"result": [], "was_cancelled": True}
    site.post(f"/api/tasks/{second}/annotations/", skip)
    assert answers(site, project) == {"page-0": marked(pages[0], delete=[1])}


def test_a_single_tile(site: Site, annotator: Annotator) -> None:
    pages = [site.page(number, count=1) for number in range(2)]
    project = site.project("single", [screens.single_task(page) for page in pages], "single_view")
    annotator.open(project)
    shown = annotator.page.locator(".picture img.marked")
    shown.wait_for()
    annotator.press("5")
    shown.wait_for(state="hidden")
    annotator.page.locator(".picture img.raw").wait_for()
    annotator.press("5", "3")
    shown.wait_for()
    annotator.submit()
    annotator.page.locator(f".picture img.marked[src$='{pages[1].tiles[0].crop}']").wait_for()
    annotator.press("Space")  # refused: no verdict yet
    annotator.page.get_by_text("First a verdict").wait_for()
    annotator.page.get_by_role("button", name="OK").click()
    annotator.press("4")
    annotator.submit()
    assert answers(site, project) == {"page-0": {"0000": "private"}, "page-1": {"1000": "unsure"}}


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1920, 1080), (1366, 620)])
def test_all_tiles_fit_on_the_screen(site: Site, annotator: Annotator, tmp_path: Path, width: int, height: int) -> None:
    page = site.page(0, category="a dining table of an improbably long name")
    project = site.project(f"fit {width} {height}", [screens.page_task(page)])
    annotator.page.set_viewport_size({"width": width, "height": height})
    annotator.open(project)
    annotator.ready(page)
    annotator.press("2", "Shift+3", "Alt+4")
    annotator.page.screenshot(path=tmp_path / "page.png")
    print(f"\nscreenshot: {tmp_path}/page.png")
    tiles = annotator.page.locator(".wrong .lsf-choice__checkbox").all()
    boxes = [tile.bounding_box() for tile in tiles]
    assert len(boxes) == 24
    bar = annotator.page.locator(".lsf-bottombar").bounding_box()
    assert bar
    for box in boxes:
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= bar["y"]
        assert min(box["width"], box["height"]) >= 130
    assert annotator.page.locator(".wrong .lsf-choice__checkbox").evaluate_all(
        UNCOVERED
    )  # nothing lies over their captions
    assert annotator.page.evaluate("document.scrollingElement.scrollHeight <= window.innerHeight")
    annotator.page.set_viewport_size({"width": 1366, "height": 768})


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1920, 1080)])
def test_the_single_view_fits(site: Site, annotator: Annotator, tmp_path: Path, width: int, height: int) -> None:
    page = site.page(3, count=1)
    project = site.project(f"single fit {width}", [screens.single_task(page)], "single_view")
    annotator.page.set_viewport_size({"width": width, "height": height})
    annotator.open(project)
    annotator.page.wait_for_function("() => document.querySelector('.picture img.marked')?.complete")
    annotator.press("1")
    annotator.page.screenshot(path=tmp_path / "single.png")
    print(f"\nscreenshot: {tmp_path}/single.png")
    picture = annotator.page.locator(".picture img.marked").bounding_box()
    bar = annotator.page.locator(".lsf-bottombar").bounding_box()
    assert picture
    assert bar
    assert picture["y"] + picture["height"] <= bar["y"]
    assert min(picture["width"], picture["height"]) >= 0.6 * height
    annotator.page.set_viewport_size({"width": 1366, "height": 768})


@pytest.mark.parametrize(("width", "height"), [(1024, 700), (1920, 1080)])
def test_a_long_name_can_be_read(site: Site, annotator: Annotator, tmp_path: Path, width: int, height: int) -> None:
    names = ["left rear wheel of a vintage convertible parked in front of a hotel", "w" * 64, "cup"]
    page = site.page(0)
    tiles = tuple(tile._replace(category=names[n % 3]) for n, tile in enumerate(page.tiles))
    page = page._replace(tiles=tiles, gloss="what is long " * 20, position="page 3 of 35")
    project = site.project(f"long {width}", [screens.page_task(page)])
    annotator.page.set_viewport_size({"width": width, "height": height})
    annotator.open(project)
    annotator.ready(page)
    annotator.page.screenshot(path=tmp_path / "long.png")
    print(f"\nscreenshot: {tmp_path}/long.png")
    captions, pictures = (annotator.page.locator(f".wrong {one}") for one in ("b", "img.marked"))
    lines = [box["height"] / 19 for caption in captions.all()[:3] if (box := caption.bounding_box())]
    assert lines[0] >= 2
    assert lines[1] == 3
    assert lines[2] == 1
    for number in range(2):
        caption, picture = captions.nth(number), pictures.nth(number)
        above, below = picture.bounding_box(), caption.bounding_box()
        assert above
        assert below
        assert above["y"] + above["height"] <= below["y"]  # the picture makes room
        caption.hover()
        assert caption.evaluate("name => name.scrollHeight <= name.clientHeight")  # all of it
    title = annotator.page.locator(".about h2")
    assert title.evaluate("name => name.scrollWidth <= name.clientWidth")  # the gloss makes room
    assert annotator.page.get_by_text("page 3 of 35").is_visible()
    assert annotator.page.locator(".lsf-current-task__task-count").is_hidden()  # it counts what one has seen
    annotator.page.set_viewport_size({"width": 1366, "height": 768})


def test_what_is_said_of_saving_covers_no_tile(site: Site, annotator: Annotator) -> None:
    pages = [site.page(number) for number in range(2)]
    annotator.open(site.project("saved", [screens.page_task(page) for page in pages]))
    annotator.ready(pages[0])
    annotator.submit(pages[1])
    said = annotator.page.get_by_text("Annotation saved successfully", exact=True).bounding_box()
    first = annotator.page.locator(".wrong .lsf-choice__checkbox").first.bounding_box()
    assert said
    assert first
    assert said["y"] + said["height"] <= first["y"]


def test_hostile_names_are_text(site: Site, annotator: Annotator, tmp_path: Path) -> None:
    page = site.page(0)
    tiles = [tile._replace(category=name) for tile, name in zip(page.tiles, HOSTILE, strict=False)]
    page = page._replace(title=MUTATION, gloss=MUTATION, group=MUTATION, neighbours=(MUTATION,), tiles=tuple(tiles))
    project = site.project("hostile", [screens.page_task(page)])
    annotator.open(project)
    annotator.ready(page)
    assert annotator.page.locator(".wrong b").all_text_contents() == HOSTILE
    assert annotator.page.locator(".about h2").text_content() == MUTATION
    annotator.page.screenshot(path=tmp_path / "hostile.png")
    print(f"\nscreenshot: {tmp_path}/hostile.png")
    single = page._replace(tiles=page.tiles[1:2])
    annotator.open(site.project("hostile single", [screens.single_task(single)], "single_view"))
    assert annotator.page.locator(".side h2").text_content() == MUTATION
    assert annotator.alarms == []


def test_even_a_script_that_gets_into_a_tile_does_not_run(site: Site, annotator: Annotator) -> None:
    page = site.page(0, count=2)
    task = screens.page_task(page)
    elsewhere = '<img src="http://192.0.2.1/x.png">'
    for item, html in zip(task["data"]["wrong"], [MUTATION, elsewhere], strict=True):
        item["html"] += html
    project = site.project("script", [task])
    with annotator.page.expect_event("requestfailed", lambda request: "192.0.2.1" in request.url) as stopped:
        annotator.open(project)
        annotator.ready(page)
    assert stopped.value.failure == "csp"  # by the browser, before it left
    annotator.page.wait_for_timeout(500)
    assert annotator.alarms == ["request: http://192.0.2.1/x.png"]
    annotator.alarms.clear()


@pytest.mark.parametrize("view", ["page", "single"])
def test_the_list_of_pages_shows_which_they_are_and_no_markup(site: Site, annotator: Annotator, view: str) -> None:
    page = site.page(0, count=1)._replace(position="page 7 of 9")
    task = screens.page_task(page) if view == "page" else screens.single_task(page)
    project = site.project(f"list of {view}", [task], f"{view}_view")
    annotator.page.goto(f"{site.server.url}/projects/{project}/data")
    annotator.page.get_by_text("page 7 of 9 · furniture").wait_for()
    told = annotator.page.inner_text("body")
    assert "dining table" in told
    assert not [part for part in ("<img", "hotkey", page.page_id, page.tiles[0].uid) if part in told]


def test_the_guideline_is_a_click_away(site: Site, annotator: Annotator, tmp_path: Path) -> None:
    page = site.page(0)
    project = site.project("guideline", [screens.page_task(page)])
    annotator.open(project)
    annotator.ready(page)
    annotator.page.get_by_role("button", name="Instructions").click()
    annotator.page.get_by_role("heading", name="Parts, wholes, groups").wait_for()
    annotator.page.wait_for_timeout(500)
    annotator.page.screenshot(path=tmp_path / "guideline.png")
    print(f"\nscreenshot: {tmp_path}/guideline.png")


def test_nothing_was_asked_elsewhere(annotator: Annotator) -> None:
    """Over all tests before."""
    assert annotator.alarms == []
