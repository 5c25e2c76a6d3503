"""`make bench`: importing an LVIS-like annotation file, beside a plain loop over the same file.

Simulated: 100,000 annotations with two polygons of 20 points each, of 20,000 images. The plain loop reads the file with
`json`, makes each mask with pycocotools (polygons, union, area, box), and keeps nothing; it checks nothing either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Goal, hand_over

RATE = Goal(7, "annotations imported, beside json and pycocotools that keep nothing")
MEMORY = Goal(7, "memory of an import", "MB")
ANNOTATIONS, IMAGES, POINTS = 100_000, 20_000, 20
WIDTH, HEIGHT = 640, 480
console = Console(width=110)


def polygons(random: np.random.Generator) -> list[list[float]]:
    """Two blobs next to each other."""
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    centre, size = random.uniform([60, 60], [WIDTH - 60, HEIGHT - 60]), random.uniform(5, 50)
    blobs = []
    for shift in (-size / 2, size / 2):
        reach = size * random.uniform(0.6, 1, POINTS)
        points = np.stack([centre[0] + shift + reach * np.cos(angles), centre[1] + reach * np.sin(angles)], axis=1)
        blobs.append(points.clip(0, [WIDTH, HEIGHT]).round(2).ravel().tolist())
    return blobs


def write_file(path: Path, annotations: int) -> None:
    """Write the file, an annotation at a time: LVIS's training file has a gigabyte."""
    random = np.random.default_rng(0)
    images = [
        {"id": n, "width": WIDTH, "height": HEIGHT, "coco_url": f"http://images/train2017/{n:012d}.jpg"}
        for n in range(IMAGES)
    ]
    categories = [{"id": n, "name": f"thing_{n}", "synset": "thing.n.01"} for n in range(1203)]
    with path.open("w") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for n in range(annotations):
            entry = {
                "id": n, "image_id": n % IMAGES, "category_id": n % 1203, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 1.0,
                "segmentation": polygons(random),
            }  # fmt: skip
            file.write(f"{',' if n else ''}{json.dumps(entry)}")
        file.write("]}")


def plain(path: Path) -> None:
    """The obvious way."""
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        rle = coco.merge(coco.frPyObjects(annotation["segmentation"], image["height"], image["width"]))
        coco.area(rle), coco.toBbox(rle)


def ours(path: Path) -> None:
    """The import."""
    from benchmark import importers

    importers.run("lvis", [path], path.with_name("out"), "train")


def measured(name: str, path: Path) -> tuple[float, float]:
    """Seconds of CPU, and MB of memory at the most, of a way in a process of its own."""
    code = (
        "import resource, sys, time; from pathlib import Path; from tests.bench import importing; "
        "import benchmark.importers; began = time.process_time(); "
        "getattr(importing, sys.argv[1])(Path(sys.argv[2])); "
        "print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, name, str(path)], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> list[Figure]:
    """Print the figures; return those that were asked for."""
    annotations = int(sys.argv[1]) if len(sys.argv) > 1 else ANNOTATIONS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lvis_v1_train.json"
        write_file(path, annotations)
        size = path.stat().st_size / 1e6
        slow, slow_memory = measured("plain", path)
        fast, memory = measured("ours", path)
    table = Table("one core", "annotations/s", "× plain", "MB of memory", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "plain: json and pycocotools, nothing checked or written",
        f"{annotations / slow:,.0f}",
        "1",
        f"{slow_memory:,.0f}",
    )
    table.add_row("rr7k import", f"{annotations / fast:,.0f}", f"{slow / fast:.2f}", f"{memory:,.0f}")
    console.print(f"{annotations:,} annotations ([bold]simulated[/]) of {IMAGES:,} images, {size:,.0f} MB of JSON")
    console.print(table)
    return [RATE.reached(slow / fast), MEMORY.reached(memory)]


if __name__ == "__main__":
    hand_over(main())
