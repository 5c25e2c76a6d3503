"""`make bench`: releasing beside copying the same bytes; a release at its real size, made, loaded and drawn.

Simulated: shards of 10,000 JPEGs, padded to 200 kB each, with 25,000 named masks, released by votes that nobody gave;
and a run of 80,000 images of 160 × 120 px, 200,000 instances, 7,662 categories as frequent as words are, named by the
coarse tree, colours and materials, of which a quarter of the images was looked at by nobody. Real: everything that is
measured. The floor copies the shards by `cp`, syncs and hashes them. Memory is that of the largest process and that of
all together, Ray's own among them, a page that several share counted once.

Without an argument the names are embedded by chance, which costs nothing, and one region of a category is drawn;
`full` has the real model embed 28,000 names, where the cache lacks them, and writes the report as `rr7k report` does.
`full FOLDER` makes the large one alone, in FOLDER, to be browsed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import released_runs
import simulated_release
from rich.console import Console
from rich.table import Table
from sa1b_shards import build, write_tar

from bench.figures import Figure, Goal, goals, hand_over
from pipeline.run import Run
from stages.sample_data import annotation

IMAGES, INSTANCES, SHARDS, BYTES = 10_000, 25_000, 10, 200_000
SIZE = (640, 480)
SPEED = Goal(7, f"release of {INSTANCES:,} instances, beside cp, sync and sha256sum", at_least=0.5)
MEMORY = Goal(7, "largest process of that release", "MB", at_most=1000)
TOGETHER = Goal(7, "all processes of that release together, Ray's own among them", "MB")
FULL = f"{simulated_release.INSTANCES:,} instances"
FULL_MEMORY = Goal(7, f"process of a release of {FULL}", "MB", at_most=1000)
METADATA = Goal(7, f"metadata of {FULL} loaded", "s", at_most=1)
CATEGORY = Goal(7, f"bytes read for one category's masks, of those of {FULL}", "%")
FIGURES = Goal(7, f"five figures of {FULL}", "s", at_most=60)
SPACE = Goal(7, "semantic space and near-synonyms, embeddings at no cost", "s", at_most=300)
console = Console(width=110)


# --- what is measured, each in a process of its own -------------------------------------------------------


def release_inline(folder: Path) -> dict[str, Any]:
    """Release in one process, without Ray."""
    released_runs.make(Run(str(folder / "run")), folder / "inline")
    return {}


def release_on_ray(folder: Path) -> dict[str, Any]:
    """Release as the command does, Ray's start included."""
    from pipeline import cluster
    from pipeline.cli_options import load_config

    settings = load_config(None, []).cluster
    released_runs.make(Run(str(folder / "run")), folder / "on-ray", lambda: cluster.session(settings))
    return {}


def release_full(folder: Path) -> dict[str, Any]:
    """Release at the real size in one process, two splits and a search for near-duplicates between them."""
    made = released_runs.make(Run(str(folder / "full" / "run")), folder / "simulated", unscreened=True)
    return {"pairs": made.pairs, "instances": made.total.instances}


def metadata(folder: Path) -> dict[str, Any]:
    """Load what 200,000 instances are, but for their masks."""
    from benchmark.dataset import load

    began = time.perf_counter()
    columns = ("instance_id", "image_id", "category", "split", "bbox_xywh", "area", "area_ratio")
    rows = len(load(folder / "simulated").instances(*columns))
    return {"rows": rows, "load": time.perf_counter() - began}


def one_category(folder: Path) -> dict[str, Any]:
    """Decode the masks of a category of median size, the data set opened first."""
    from benchmark.dataset import load

    dataset = load(folder / "simulated")
    kinds = dataset.categories.sort_by("instances").to_pylist()
    name = kinds[len(kinds) // 2]["category"]
    dataset = load(folder / "simulated")
    before, began = _bytes_read(), time.perf_counter()
    masks = [region.mask() for region in dataset.of_category(name)]
    told = {"masks": len(masks), "bytes": _bytes_read() - before, "load": time.perf_counter() - began}
    return {**told, "all": sum(file.stat().st_size for file in dataset.samples.files("instances"))}


def drawing(folder: Path) -> dict[str, Any]:
    """Count and draw all figures but that of the semantic space."""
    from benchmark import data_sets, figures, sample_pictures, survey
    from benchmark.report import by_group
    from pipeline.regions import RegionSamples

    found, samples = survey.take(folder / "simulated"), RegionSamples(folder / "simulated")
    figures.samples_per_category(found)
    figures.mask_sizes([found])
    figures.coarse_groups(figures.coarse_counts(found))
    figures.comparison(data_sets.rows(found, []))
    chosen = sample_pictures.choose(samples, 1).slice(0, 2000)
    sample_pictures.write(samples, chosen, folder / "few")
    figures.group_samples(by_group(found, chosen, folder / "few"))
    return {}


def meaning(folder: Path) -> dict[str, Any]:
    """Measure and draw the semantic space, and find the near-synonyms."""
    from benchmark import figures, near_synonyms, semantic_space, survey

    kinds = survey.take(folder / "simulated").categories
    names, embed = kinds["category"].to_pylist(), _embed()
    pairs = near_synonyms.find(kinds, embed(names))
    figures.semantic_space(semantic_space.measure(names, semantic_space.imagenet_names(), embed))
    return {"pairs": len(pairs)}


def reporting(folder: Path) -> dict[str, Any]:
    """Write the whole report."""
    from benchmark import report

    made = report.write(folder / "simulated", [], folder / "figures", report.SAMPLES, embed=_embed())
    return {"pictures": made.pictures, "page": made.page.stat().st_size}


def by_chance(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A unit vector for each text, of no meaning."""
    vectors = np.random.default_rng(0).standard_normal((len(texts), 384))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _embed() -> Any:
    from pipeline.embeddings import embed

    return embed if _full() else by_chance


def _full() -> bool:
    return "full" in sys.argv


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


# --- what it is measured on -------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Write the run that is released."""
    pictures = [data.ljust(BYTES, b"\0") for data in simulated_release.pictures(50, SIZE)]
    mask = np.zeros(SIZE[::-1], np.bool_)
    mask[100:200, 100:300] = True
    known = annotation(0, mask, 0.9, 0.97)
    each, count = -(-INSTANCES // IMAGES), IMAGES // SHARDS
    (folder / "shards").mkdir()
    for shard in range(SHARDS):
        members = []
        for image in range(shard * count + 1, (shard + 1) * count + 1):
            info = {"image_id": image, "width": SIZE[0], "height": SIZE[1], "file_name": f"sa_{image}.jpg"}
            masks = [{**known, "id": image * 100 + k} for k in range(each)]
            content = json.dumps({"image": info, "annotations": masks}).encode()
            members += [(f"sa_{image}.jpg", pictures[image % 50]), (f"sa_{image}.json", content)]
        write_tar(folder / "shards" / f"sa_{shard:06d}.tar", members)
    run = Run(str(folder / "run"))
    build(run, folder / "shards")
    wanted = [image * 100 + k for k in range(each) for image in range(1, IMAGES + 1)][:INSTANCES]
    names = [kind.category for kind in simulated_release.kinds(1000)]
    named = [(mask_id, names[mask_id % len(names)]) for mask_id in wanted]
    released_runs.fill(
        run, [released_runs.pair(*one) for one in named], [released_runs.decision(*one) for one in named]
    )


def floor(folder: Path) -> float:
    """Copy the shards, sync and hash them; return the seconds."""
    began = time.perf_counter()
    program = 'mkdir "$1" && cp "$0"/*.tar "$1" && sync "$1"/*.tar && sha256sum "$1"/*.tar > "$1".txt'
    subprocess.run(["sh", "-c", program, str(folder / "shards"), str(folder / "copy")], check=True)
    return time.perf_counter() - began


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run one of the above in a process of its own; return what it tells, its seconds, and memory at the most, in MB:
    of its largest process, and of all together."""
    command = [sys.executable, "-m", "tests.bench.release", "run", name, str(folder), *sys.argv[1:]]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=told, stderr=errors) as process:
            largest = together = 0.0
            while process.poll() is None:
                found = _memory(process.pid)
                largest, together = max([largest, *found]), max(together, sum(found))
                time.sleep(0.25)
        for file in (told, errors):
            file.seek(0)
        if process.returncode:
            raise RuntimeError(errors.read())
        return {**json.loads(told.read().splitlines()[-1]), "largest": largest, "together": together}


def _memory(pid: int) -> list[float]:
    """Return the MB of a process and of each that it has started, and these, a shared page parted among its users."""
    found = []
    with contextlib.suppress(psutil.Error):  # it has just ended
        of_it = psutil.Process(pid)
        for process in (of_it, *of_it.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found.append(process.memory_full_info().pss / 2**20)
    return found


def run_one(name: str, folder: Path) -> None:
    """Be the process of a measurement."""
    began = time.perf_counter()
    told = globals()[name](folder)
    sys.stdout.write(json.dumps({**told, "seconds": time.perf_counter() - began}) + "\n")


# --- figures ----------------------------------------------------------------------------------------------


def releases(folder: Path) -> list[Figure]:
    """Print how fast a release is; return it."""
    prepare(folder)
    size = sum(file.stat().st_size for file in (folder / "shards").iterdir()) / 1e6
    slow, fast, on_ray = floor(folder), measured("release_inline", folder), measured("release_on_ray", folder)
    table = Table("", "MB/s", "× floor", "MB in a process", "in all", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("floor: cp, sync, sha256sum", f"{size / slow:,.0f}", "1", "", "")
    for told, text in ((fast, "rr7k release, one process"), (on_ray, f"the same on Ray, {os.cpu_count()} processors")):
        speed = f"{size / told['seconds']:,.0f}", f"{slow / told['seconds']:.2f}"
        table.add_row(text, *speed, *_megabytes(told))
    console.print(f"{IMAGES:,} images, {INSTANCES:,} instances ([bold]simulated[/]), {size:,.0f} MB")
    console.print(table)
    best = max(slow / told["seconds"] for told in (fast, on_ray))
    most = max(told["largest"] for told in (fast, on_ray))
    found = [SPEED.reached(best), MEMORY.reached(most), TOGETHER.reached(on_ray["together"])]
    console.print(f"{goals(found)}\n")
    return found


def _megabytes(told: dict[str, Any]) -> tuple[str, str]:
    return f"{told['largest']:,.0f}", f"{told['together']:,.0f}"


def at_full_size(folder: Path) -> list[Figure]:
    """Print what a release at its real size costs its readers; return what was asked for."""
    simulated_release.write(folder / "full")
    released = measured("release_full", folder)
    loaded, category = measured("metadata", folder), measured("one_category", folder)
    drawn, meant = (measured(name, folder) for name in ("drawing", "meaning"))
    table = Table("", "measured", "goal", "MB in a process", box=None)
    share = category["bytes"] / category["all"]
    rows = [
        (
            f"release of {released['instances']:,} of {released['pairs']:,} pairs",
            f"{released['seconds']:.1f} s",
            str(FULL_MEMORY),
            released,
        ),
        (f"metadata of {loaded['rows']:,} instances", f"{loaded['load']:.2f} s", str(METADATA), loaded),
        (
            f"one category's {category['masks']} masks",
            f"{category['bytes'] / 1e6:.2f} MB read of {category['all'] / 1e6:,.0f} ({share:.1%}), "
            f"{1000 * category['load']:.0f} ms",
            "its row groups",
            category,
        ),
        ("five figures", f"{drawn['seconds']:.1f} s", str(FIGURES), drawn),
        (
            f"semantic space, {meant['pairs']:,} near-synonyms{'' if _full() else '; names embedded by chance'}",
            f"{meant['seconds']:.1f} s",
            str(SPACE),
            meant,
        ),
    ]
    if _full():
        made = measured("reporting", folder)
        text = f"report with {made['pictures']:,} pictures; page of {made['page'] / 1e6:.1f} MB"
        rows.append((text, f"{made['seconds']:.1f} s", "", made))
    for text, found, goal, told in rows:
        table.add_row(text, found, goal, _megabytes(told)[0])
    counts = f"{simulated_release.IMAGES:,} images, {simulated_release.INSTANCES:,} instances"
    console.print(f"{counts}, {simulated_release.CATEGORIES:,} categories ([bold]simulated[/])")
    console.print(table)
    read = METADATA.reached(loaded["load"]), CATEGORY.reached(100 * share)
    shown = FIGURES.reached(drawn["seconds"]), SPACE.reached(meant["seconds"])
    return [FULL_MEMORY.reached(released["largest"]), *read, *shown]


def main() -> list[Figure]:
    """Print the figures, or be one of the processes; return those that were asked for."""
    if sys.argv[1:2] == ["run"]:
        run_one(sys.argv[2], Path(sys.argv[3]))
        return []
    if len(sys.argv) > 2:
        return at_full_size(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        return releases(Path(folder)) + at_full_size(Path(folder))


if __name__ == "__main__":
    if found := main():
        hand_over(found)
