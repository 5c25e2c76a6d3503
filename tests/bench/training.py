"""`make bench`: what training waits for. Loading samples beside a plain data set, two workers beside one, memory.

Simulated: photographs and masks. The plain data set is what one writes first: a line of JSON for each image, its file
decoded, every chosen mask decoded at full size and scaled with torch; its samples are checked to be the same. Loading
is measured as processor time of one thread, which other work on the machine moves least; two workers as time on the
clock, beside one in the same run, with the load that the machine had before, and as processor time of both together:
twice the samples of one in the time of one is the most that they can do where each has a core to itself.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import training_folders
from PIL import Image
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table
from simulated_masks import HEIGHT, WIDTH, templates
from simulated_regions import photograph
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import interpolate

from bench.figures import Figure, Goal, goals, hand_over
from model import branches, debug, mask2token, prompts, tiling, train_log
from model.branches import Layout
from model.inputs import Preparer, Sample, Settings
from model.mixing import Visit
from model.samples import Portions
from model.train_config import TrainConfig
from model.training import Training

LOADING = Goal(10, "samples loaded, beside JSON lines and masks decoded at full size", at_least=3)
WORKERS = Goal(10, "training, two workers beside one", at_least=1.7)
POSSIBLE = Goal(10, "training, two workers beside one, by processor time")
GROWTH = Goal(10, "memory of a worker at an epoch's end, beside after a tenth of it")
LABELS = ("dog", "fire truck", "bottle: cap")
MOST, TILES = 30, 4  # masks and tiles of a sample, as in the authors' training
IMAGES = 8  # for loading
SMALL, EPOCH = (640, 480), 640  # px and images, COCO's size, for workers and memory
BATCH = 32  # as the authors'
WARM = 2  # steps that are not timed
console = Console(width=118)


# --- loading ------------------------------------------------------------------------------------------------


def large(folder: Path) -> Path:
    """Photographs of SA-1B's size with a hundred masks each, as region samples and as lines of JSON beside files."""
    rows, images, lines = [], [], []
    for number in range(1, IMAGES + 1):
        data, notes = photograph(), templates()[number % len(templates())]
        images.append(training_folders.photograph(number, len(notes), **_held(data, (WIDTH, HEIGHT))))
        (folder / f"{number}.jpg").write_bytes(data)
        regions = []
        for place, note in enumerate(notes):
            label, rle = LABELS[place % 3], note["segmentation"]
            rows.append(
                training_folders.instance(
                    number,
                    place,
                    category_raw=label,
                    segmentation=rle,
                    area=int(coco.area(_bytes(rle))),
                    bbox_xywh=coco.toBbox(_bytes(rle)).tolist(),
                )
            )
            regions.append({"label": label, "segmentation": rle})
        lines.append(json.dumps({"image": f"{number}.jpg", "regions": regions}))
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return training_folders.write_rows(folder / "in", rows, images)


def _held(data: bytes, size: tuple[int, int]) -> dict[str, Any]:
    return {"image": {"bytes": data, "path": "a.jpg"}, "width": size[0], "height": size[1]}


def _bytes(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode()}


def plain(folder: Path, line: str, chosen: list[int], preparer: Preparer) -> Sample:
    """Prepare a sample in the obvious way."""
    row = json.loads(line)
    regions = [row["regions"][place] for place in chosen]
    image = Image.open(folder / row["image"]).convert("RGB")
    cut = tiling.cut(image, TILES)
    full = np.stack([coco.decode(_bytes(region["segmentation"])) for region in regions])
    width, height = cut.resized.size
    scaled = interpolate(torch.from_numpy(full)[None].float(), (height, width), mode="nearest")[0] > 0
    windows = [_window(mask, cut.resized.size) for mask in scaled]
    crops = [cut.resized.crop(place) for place in windows]
    cells = [_cells(mask, place) for mask, place in zip(scaled, windows, strict=True)]
    pixels = tiling.pixels([*cut.tiles, *crops])
    used = torch.cat([torch.ones(len(cut.tiles), 256, dtype=torch.bool), torch.stack(cells)]).numpy()
    answers = [prompts.plain(preparer.tokenizer, region["label"]) for region in regions]
    vectors = [int(some.sum()) for some in cells]
    tokens = branches.build(preparer.text, len(cut.tiles) * 256, vectors, answers, Layout())
    return Sample(pixels, used, tokens, np.zeros(len(cells), np.bool_))


def _window(mask: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int]:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if not len(rows):
        return 0, 0, 1, 1  # scaling has missed it; ours shows it, and the comparison leaves it out
    box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    return mask2token.window(box, size, mask2token.SCALE)


def _cells(mask: Tensor, place: tuple[int, int, int, int]) -> Tensor:
    window = mask[place[1] : place[3], place[0] : place[2]]
    sampled = interpolate(window[None, None].float(), (16, 16), mode="nearest")[0, 0] > 0
    return sampled.flatten()


def loading(folder: Path) -> list[Figure]:
    """Print and return how fast samples are made."""
    chosen = training_folders.config({"a": large(folder)}, data={"masks": MOST, "tiles": TILES})
    training = Training(
        config=chosen, out=folder, data=training_folders.prepared(chosen, folder), device=torch.device("cpu")
    )
    tokens, shown = debug.tokenizer(), Settings(prompt="training", tiles=TILES)
    text = prompts.read(tokens, shown.template, shown.prompt)
    preparer, work = Preparer(tokenizer=tokens, text=text, settings=shown), training.work()
    portions = Portions(training.plan(work), work, preparer, Layout(), 1, 0, 1)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    places = [_places(training, number) for number in range(IMAGES)]

    def ours(number: int) -> Sample:
        return portions.sample(Visit("a", number, 0))

    def obvious(number: int) -> Sample:
        return plain(folder, lines[number], places[number], preparer)

    alike = sum(_alike(ours(number), obvious(number)) for number in range(IMAGES))
    table = Table("loading, one core", "samples/s", "masks/s", "× plain", box=None)
    slow, fast = rate(obvious), rate(ours)
    table.add_row("JSON lines, masks decoded at full size", f"{slow:.2f}", f"{slow * MOST:.0f}", "1")
    table.add_row("Parquet → tensors", f"{fast:.2f}", f"{fast * MOST:.0f}", f"{fast / slow:.1f}")
    console.print(
        f"{IMAGES} images of {WIDTH}×{HEIGHT} px ([bold]simulated[/]), {MOST} masks of each; the same pixels in "
        f"{alike} of {IMAGES}"
    )
    console.print(table)
    found = [LOADING.reached(fast / slow)]
    console.print(f"{goals(found)}\n")
    return found


def _places(training: Training, number: int) -> list[int]:
    from model import samples

    data = training.data[0].shown(number)
    found: list[int] = samples.choose(data, Visit("a", number, 0), MOST, training.config.training.seed).tolist()
    return found


def _alike(one: Sample, two: Sample) -> bool:
    """Say whether two samples show the same, but for masks that fell between all cells."""
    seen = np.concatenate([np.ones(len(one.pixels) - MOST, np.bool_), ~one.rescued])
    return bool((one.pixels[seen] == two.pixels[seen]).all())


def rate(work: Callable[[int], Any]) -> float:
    """Samples a second of one thread; the best of three."""
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        for number in range(IMAGES):
            work(number)
        best = max(best, IMAGES / (time.process_time() - start))
    return best


# --- workers and memory -------------------------------------------------------------------------------------


@cache
def picture() -> bytes:
    """A photograph of COCO's size."""
    coarse = np.random.default_rng(0).integers(0, 256, (SMALL[1] // 6, SMALL[0] // 6, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize(SMALL, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def small(folder: Path, images: int = EPOCH, each: int = 12) -> Path:
    """Photographs of COCO's size with rectangles."""
    random, rows = np.random.default_rng(0), []
    for number in range(1, images + 1):
        for place in range(each):
            left, top, width, height = (*random.integers(0, 300, 2), *random.integers(20, 180, 2))
            mask = np.zeros((SMALL[1], SMALL[0]), np.uint8)
            mask[top : top + height, left : left + width] = 1
            rle = coco.encode(np.asfortranarray(mask))
            rows.append(
                training_folders.instance(
                    number,
                    place,
                    segmentation={"size": rle["size"], "counts": rle["counts"].decode()},
                    area=int(width * height),
                    bbox_xywh=[float(value) for value in (left, top, width, height)],
                )
            )
    files = [training_folders.photograph(number, each, **_held(picture(), SMALL)) for number in range(1, images + 1)]
    return training_folders.write_rows(folder / "in", rows, files)


def be_one(number: int, count: int, out: Path, config: TrainConfig) -> None:
    """Be a worker of the debug model, one thread; note memory of its own and processor time before each step.

    Without pages of files that are mapped, which the system takes back when it needs them.
    """
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group("gloo", f"file://{out}/meeting", rank=number, world_size=count)
    data = training_folders.prepared(config, out / str(number))
    own, notes = psutil.Process(), []

    def note() -> bool:
        memory = own.memory_info()
        notes.append(((memory.rss - memory.shared) / 1e6, time.process_time()))
        return False

    Training(config=config, out=out, data=data, device=torch.device("cpu")).run(note)
    (out / f"notes-{number}.json").write_text(json.dumps(notes))


def train(folder: Path, out: Path, workers: int) -> tuple[list[float], float]:
    """Train an epoch; return the memory of the first worker before each step, MB, and seconds of all processors."""
    out.mkdir()
    config = training_folders.config(
        {"a": folder}, epochs=1, batch=BATCH, micro_batch=4, workers=workers, checkpoint_every=1 << 20
    )
    spawn(be_one, (workers, out, config), nprocs=workers)  # type: ignore[no-untyped-call]
    notes = [json.loads((out / f"notes-{number}.json").read_text()) for number in range(workers)]
    return [held for held, _ in notes[0]], sum(some[-1][1] - some[WARM][1] for some in notes)


def workers(folder: Path) -> list[Figure]:
    """Print and return how much faster two are, and what they hold."""
    data = small(folder)
    heads = ("samples/s", "by processor time", "waiting for data", "MB of one after a tenth", "half", "all")
    table = Table("debug model, an epoch", *heads, box=None)
    speeds, possible, growth = {}, {}, 0.0
    for count in (1, 2):
        load = os.getloadavg()[0]
        held, spent = train(data, folder / str(count), count)
        rows = train_log.read(folder / str(count))[WARM:]
        seconds, waited = sum(row.seconds for row in rows), sum(row.waiting for row in rows)
        speeds[count] = sum(row.images for row in rows) / seconds
        possible[count] = count * sum(row.images for row in rows[:-1]) / spent
        early, middle, late = held[len(held) // 10], held[len(held) // 2], held[-1]
        growth = max(growth, late / early)
        figures = [f"{speeds[count]:.1f}", f"{possible[count]:.1f}", f"{waited / seconds:.0%}"]
        memory = [f"{megabytes:.0f}" for megabytes in (early, middle, late)]
        table.add_row(f"{count} workers, load before {load:.1f}", *figures, *memory)
    console.print(f"{EPOCH} images of {SMALL[0]}×{SMALL[1]} px ([bold]simulated[/]), 12 masks each, batches of {BATCH}")
    console.print(table)
    faster = WORKERS.reached(speeds[2] / speeds[1]), POSSIBLE.reached(possible[2] / possible[1])
    found = [*faster, GROWTH.reached(growth)]
    console.print(goals(found))
    return found


def main() -> list[Figure]:
    """Print all tables; return the figures that were asked for."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = loading(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        return found + workers(Path(folder))


if __name__ == "__main__":
    hand_over(main())
