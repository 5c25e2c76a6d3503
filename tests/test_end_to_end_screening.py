"""Stage 3 as its users run it: pages to a real server, answers in a real browser, conflicts shown again, an audit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checking_server import write_pairs
from label_studio_site import Annotator, Site, chromium
from sa1b_shards import rows
from test_end_to_end import rr7k
from test_pipeline_cli import rr7k as in_process
from verified_runs import masks

from annotation_ui import projects, screens
from annotation_ui.projects import uid
from pipeline.run import Run
from stages import head_tail, queue, verdicts
from stages.head_tail import HeadTailConfig

SAME = ("page_id", "place", "view", "round", "mask_id", "image_id", "category", "crop", "raw")


def tiles(run: Run) -> list[tuple[Any, ...]]:
    """What is shown where."""
    return sorted(tuple(row[name] for name in SAME) for row in rows(run, "queue"))


def page_of(run: Run) -> screens.Page:
    """The run's one page as it is on the screen."""
    (page,) = queue.pages(run)
    tiles = tuple(screens.Tile(uid(t.mask_id, place), t.category, t.crop, t.raw) for place, t in enumerate(page.tiles))
    return screens.Page(page.page_id, "", "", "", (), tiles)


@pytest.mark.timeout(900)  # an environment to install, and a first start, may come first
def test_from_pairs_to_an_audited_release(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = masks(run, tmp_path, images=2, each=10)
    write_pairs(run, dict.fromkeys(ids, "dog"))
    head_tail.build(run, HeadTailConfig())
    verdicts.build(run)
    site = Site(Path(run.folder.path))
    named = {"URL": site.server.url, "TOKEN": site.server.token, "CROPS": site.server.folder}
    for name, value in named.items():
        monkeypatch.setenv(f"LABEL_STUDIO_{name}", value)

    def stage_3(*more: str, draws: bool = False) -> tuple[int, str]:
        if not draws:
            return in_process(capsys, monkeypatch, "stage-3", *more, "--run", run.folder.path)
        done = rr7k("stage-3", *more, "--run", run.folder.path)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, text = stage_3(draws=True)
    assert (code, "1 pages are left" in text) == (4, True), text
    with chromium() as browser:
        annotator = Annotator(browser, site)
        screen(annotator, site, run)
        code, text = stage_3(draws=True)
        assert (code, "queue, conflict: 1 new pages" in text, "1 pages are left" in text) == (4, True, True), text
        settle_the_conflict(annotator, site, run)
        assert annotator.alarms == []
    code, text = stage_3()
    assert (code, "difference" in text) == (0, True), text
    decided = Counter(row["decision"] for row in rows(run, "decisions"))
    assert decided == {"release": 17, "delete": 2, "private": 1}
    before = {table: rows(run, table) for table in ("queue", "screenings", "decisions")}
    assert stage_3()[0] == 0
    assert before == {table: rows(run, table) for table in before}

    code, text = stage_3("export", "--audit", "--set", "audit.size=17", draws=True)
    assert (code, "queue, audit: 17 new pages" in text) == (0, True), text
    code, text = stage_3("report")
    assert (code, site.server.email in text, "17 of the sample wait" in text) == (0, True, True), text
    told = json.loads((Path(run.folder.path) / "screening.json").read_text())
    assert (told["audit"]["waiting"], told["progress"]["rounds"]["audit"]["pages"]) == (17, 17)
    assert site.server.email not in json.dumps(told)

    shown = tiles(run)
    for lost in ("queue", "screenings", "decisions"):
        shutil.rmtree(Path(run.folder.path, lost))
        shutil.rmtree(Path(run.folder.path, "commits", lost))
    code, text = stage_3("import", "--recover")
    assert (code, "19 pages recovered" in text) == (0, True), text
    assert tiles(run) == shown
    assert rows(run, "screenings") == before["screenings"]
    assert rows(run, "decisions") == before["decisions"]
    assert stage_3("import", "--recover")[0] == 2
    site.stop()


def project_of(site: Site, run: Run, round_name: str) -> int:
    (batch,) = (batch for batch in projects.batches(run) if batch.round == round_name)
    with site.client() as there:
        return there.find(batch.title)


def screen(annotator: Annotator, site: Site, run: Run) -> None:
    """Two do not fit, one shows somebody, one cannot be told."""
    annotator.open(project_of(site, run, "screening"))
    annotator.ready(page_of(run))
    annotator.press("1", "2", "Alt+3", "Shift+4")
    annotator.submit()


def settle_the_conflict(annotator: Annotator, site: Site, run: Run) -> None:
    """Seen alone and large, it fits."""
    shown: list[dict[str, Any]] = [row for row in rows(run, "queue") if row["round"] == "conflict"]
    (unsure,) = (row["mask_id"] for row in rows(run, "screenings") if row["verdict"] == "unsure")
    assert [row["mask_id"] for row in shown] == [unsure]
    annotator.open(project_of(site, run, "conflict"))
    annotator.page.locator(f".picture img.marked[src$='{shown[0]['crop']}']").wait_for()
    annotator.press("1")
    annotator.submit()
