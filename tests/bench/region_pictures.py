"""How fast a core draws what people look at, beside the obvious way; photographs and masks are simulated.

The obvious way opens the whole image for every region, decodes the whole mask, outlines it at full size, then crops,
resizes and saves, with the outline and without. Ours is `stages.crops.draw` as a worker of Ray runs it: a run's tables,
a shard's byte ranges, an image decoded once for all its regions, files written atomically.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from rich.table import Table
from sa1b_shards import build, inline
from simulated_masks import HEIGHT, WIDTH, blob
from simulated_regions import OBVIOUS, photograph, rate

from bench.figures import Figure, Goal
from pipeline import images, masks
from pipeline.run import Run
from stages import crops, sample_data
from stages.crops import LOOKS, View

_IMAGES = 4
_REGIONS = (5, 30)
"""Of an image: the fewer of them people see, the fewer share its decoding."""

RATES = {view: Goal(6, f"regions drawn for people, one core, {view} view", "/s") for view in LOOKS}

Notes = list[dict[str, Any]]


def compare(folder: Path) -> tuple[Table, list[Figure]]:
    """Return the table of rates, and those that were asked for, where least is shared."""
    random, data = np.random.default_rng(0), photograph()
    notes = [sample_data.annotation(k, blob(random), 0.95, 0.98) for k in range(_REGIONS[-1])]
    run = _run(folder, data, notes)
    table = Table("one core, two files a region", "obvious, regions/s", box=None)
    for count in _REGIONS:
        table.add_column(f"rr7k, {count} an image")
        table.add_column("×")
    for column in table.columns[1:]:
        column.justify = "right"
    found = []
    for view in LOOKS:
        slow = rate(lambda view=view: _obvious(folder / "obvious", data, notes, view))  # type: ignore[misc]
        cells = [f"{slow:,.1f}"]
        rates = [_drawn(run, view, count) for count in _REGIONS]
        for fast in rates:
            cells += [f"{fast:,.0f}", f"{fast / slow:,.0f}"]
        table.add_row(f"{view} view, {LOOKS[view].px} px", *cells)
        found.append(RATES[view].reached(min(rates)))
    return table, found


def _run(folder: Path, data: bytes, notes: Notes) -> Run:
    """A run of a shard whose images all have these masks."""
    pictures = []
    for number in range(_IMAGES):
        own = [{**note, "id": 1000 * number + k} for k, note in enumerate(notes)]
        pictures.append(sample_data.Picture(number, data, WIDTH, HEIGHT, own))
    sample_data.write_shard(folder / "sa_000000.tar", pictures)
    run = Run(str(folder / "drawn"))
    build(run, folder / "sa_000000.tar")
    return run


def _drawn(run: Run, view: View, count: int) -> float:
    """Regions a second, of the first so many of every image; the best of two."""
    ids = run.dataset("masks").to_table(columns=["mask_id"])["mask_id"].to_numpy()
    ids = ids[ids % 1000 < count]
    names = crops.names(run, ids, view)
    columns: dict[str, Any] = {"mask_id": ids, "view": [view] * len(ids)}
    columns |= {field: [getattr(name, field) for name in names] for field in crops.Names._fields}
    rows, best = pa.table(columns), 0.0
    for _ in range(2):
        for path in crops.folder(run).glob("*/*.jpg"):
            path.unlink()
        start = time.perf_counter()
        made = crops.draw(run, rows, inline).made
        best = max(best, made / (time.perf_counter() - start))
        assert made == len(ids)
    return best


def _obvious(folder: Path, data: bytes, notes: Notes, view: View) -> int:
    """Draw a few regions, each on the whole image."""
    folder.mkdir(exist_ok=True)
    for number, note in enumerate(notes[:OBVIOUS]):
        whole = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        mask = masks.decode(note["segmentation"]["counts"], HEIGHT, WIDTH)
        outlined = whole.copy()
        outlined[images.outline(mask, 4) & ~mask] = 255
        outlined[images.outline(mask, 3) & ~mask] = (255, 0, 0)
        for name, pixels in (("marked", outlined), ("raw", whole)):
            _cut(pixels, note["bbox"], view).save(folder / f"{number}-{name}.jpg", quality=LOOKS[view].quality)
    return OBVIOUS


def _cut(pixels: npt.NDArray[np.uint8], box: list[float], view: View) -> Image.Image:
    """Crop so many times the box, and scale to the size that people see."""
    left, top, width, height = box
    reach_x, reach_y = (max(side, 1) * (LOOKS[view].scale - 1) / 2 for side in (width, height))
    corners = (left - reach_x, top - reach_y, left + width + reach_x + 1, top + height + reach_y + 1)
    x0, y0, x1, y1 = (round(v) for v in np.clip(corners, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)))
    cut = Image.fromarray(pixels[y0:y1, x0:x1])
    return cut.resize(images.fitted(cut.size, LOOKS[view].px), Image.Resampling.LANCZOS)
