"""Runs that can be released, written by hand: shards with pictures that differ, pairs, verdicts, decisions."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sa1b_shards import HEIGHT, WIDTH, build, commit, inline, square, write_tar
from verified_runs import tail

from benchmark import release
from benchmark.image_files import Watcher
from benchmark.stats import Options, Stats
from pipeline import tables
from pipeline.run import Run

Row = dict[str, Any]


def photograph(seed: int, quality: int = 90) -> bytes:
    """A JPEG that looks like no other of another seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(cells).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def shard(folder: Path, pictures: Mapping[int, bytes], each: int = 3, name: str = "sa_000001") -> Path:
    """A shard of these images by id, each with masks id * 100 and on, squares of 10, 11, … px side."""
    members = []
    for image, data in pictures.items():
        info = {"image_id": image, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image}.jpg"}
        masks = [square(image * 100 + k, 10 + k) for k in range(each)]
        content = json.dumps({"image": info, "annotations": masks}).encode()
        members += [(f"./sa_{image}.jpg", data), (f"./sa_{image}.json", content)]
    folder.mkdir(exist_ok=True)
    return write_tar(folder / f"{name}.tar", members)


def pair(mask_id: int, category: str, **changes: Any) -> Row:
    named = {"category": category, "namer": "vlm", "namers": ["vlm"], "raw_names": [category], "names": [category]}
    how = {"agreement": "only-one", "confidence": 0.5, "rule": "only_one", "flagged": False, "engines": ["vllm"]}
    return {"mask_id": mask_id, "image_id": mask_id // 100, "fingerprint": 1, **named, **how, **changes}


def name(mask_id: int, category: str) -> Row:
    model = {"engine": "vllm", "model": "namer-model", "revision": "r1", "layout": "overlay", "prompt": "p1"}
    told = {"namer": "vlm", "outcome": "named", "category": category, "raw": category, "fingerprint": 1}
    return {"mask_id": mask_id, "image_id": mask_id // 100, **model, **told}


def verdict(mask_id: int, category: str, **changes: Any) -> Row:
    return tail(mask_id, category) | {"image_id": mask_id // 100} | changes


def decision(mask_id: int, category: str, said: str = "release", **changes: Any) -> Row:
    votes = {"keep": int(said == "release"), "delete": int(said == "delete"), "private": int(said == "private")}
    return {
        **{"mask_id": mask_id, "image_id": mask_id // 100, "category": category, "decision": said, "by": "people"},
        **{**votes, "unsure": 0},
        **changes,
    }


def fill(
    run: Run, pairs: list[Row], decisions: list[Row], verdicts: list[Row] | None = None, conflicts: int = 0
) -> None:
    """Write what was named, checked and decided; where no verdicts are given all pairs are of the tail."""
    names = [name(row["mask_id"], row["category"]) for row in pairs]
    told = [verdict(row["mask_id"], row["category"]) for row in pairs] if verdicts is None else verdicts
    commit(run, pairs=pairs, names=names, verdicts=told, screenings=[], queue=[])
    decide(run, decisions, conflicts)


def decide(run: Run, decisions: list[Row], conflicts: int = 0) -> None:
    """Write decisions made from the run as it is."""
    made_of = {table: run.parts(table, table) for table in ("pairs", "verdicts", "queue", "screenings")}
    with run.part("decisions", "decisions", "decisions") as part:
        part.write(tables.from_rows("decisions", decisions))
    counts = {"decisions.conflict": conflicts}
    run.commit(
        "decisions", "decisions", {"decisions": part}, fingerprint="f", counts=counts, facts={"made_of": made_of}
    )


def small(run: Run, folder: Path, images: int = 3) -> Path:
    """A run of images 1, 2, … with a dog, a cup and a car each, all released by people. Returns the shard."""
    made = shard(folder, {image: photograph(image) for image in range(1, images + 1)})
    build(run, made)
    found = [(image * 100 + k, what) for image in range(1, images + 1) for k, what in enumerate(("dog", "cup", "car"))]
    fill(run, [pair(*one) for one in found], [decision(*one) for one in found])
    return made


def make(
    runs: Run | list[Run], out: Path, session: Any = inline, previous: Path | None = None, **changes: Any
) -> Stats:
    """Release in this process."""
    options = Options(**{"version": "1.0.0", "date": "2026-11-25", "images": "embed", **changes})
    watcher = Watcher(lambda *_: None, lambda _: None)
    return release.release(runs if isinstance(runs, list) else [runs], out, options, session, watcher, previous)


_DYING = """
import importlib, os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
module, path = {at!r}.split(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
whole, calls = getattr(owner, name), iter(range({call} - 1))
def dying(*given, **named):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given, **named)
setattr(owner, name, dying)
"""


def killed(program: str, at: str, call: int = 1) -> None:
    """Run a program in a process that is killed when it calls a function, as in `pipeline.regions:FileWriter.write`."""
    tests = Path(__file__).parent
    before = _DYING.format(root=str(tests.parent), tests=str(tests), at=at, call=call)
    done = subprocess.run([sys.executable, "-c", before + program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def content(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
