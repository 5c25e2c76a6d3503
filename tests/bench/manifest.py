"""`make bench`: the manifest step beside its floor and beside the obvious loop, on the same shard, in one run.

Simulated: the shard. Its masks are random blobs with run lengths as long as SA-1B's, its JPEGs are a header
and zeros. Everything is read once before timing, so the disk is not measured. One core is compared by processor time,
which other work on the machine moves least; workers by the clock.
"""

from __future__ import annotations

import json
import logging
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import psutil
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table
from sa1b_shards import jpeg
from simulated_masks import HEIGHT, MASKS, TEMPLATES, WIDTH, templates

from bench.figures import Figure, Goal, goals, hand_over
from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.run import Run
from pipeline.shards import Shard, find_shards, index_shard
from stages import manifest, sample_data
from stages.annotations import AnnotationFile
from stages.mask_rules import MaskRules
from stages.sampling import EVERYTHING
from stages.shard_tasks import ReadJob, ShardReading

FASTER = Goal(2, "manifest, one core, beside the obvious loop", at_least=300)
FLOOR = Goal(2, "manifest, time of the floor (read and parse JSON)", at_most=3)
MEMORY = Goal(2, "private memory of a worker, large shard", "MB", at_most=600)
GROWTH = Goal(2, "private memory of a worker, beside a shard of half the size")
WORKERS = Goal(2, "manifest, two workers beside one", at_least=1.8)
JPEG_BYTES = 850_000
OBVIOUS_IMAGES = 10
console = Console(width=110)


# --- the shard --------------------------------------------------------------------------------------------


def pictures(images: int, first: int) -> Iterator[sample_data.Picture]:
    """Images in SA-1B's sizes; masks repeat every few images, ids do not."""
    head = jpeg(WIDTH, HEIGHT)
    data = head + bytes(JPEG_BYTES - len(head))
    for number in range(first, first + images):
        notes = templates()[number % TEMPLATES]
        for k, note in enumerate(notes):
            note["id"] = number * 1000 + k
        yield sample_data.Picture(number, data, WIDTH, HEIGHT, notes)


def make_shard(folder: Path, images: int, first: int) -> Shard:
    """Write a shard, then read it once so that it is in memory."""
    path = folder / f"generated_{first:06d}.tar"
    sample_data.write_shard(path, pictures(images, first))
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
    return find_shards([str(path)])[0]


# --- the contestants: each returns masks handled ----------------------------------------------------------


def obvious(shard: Shard) -> int:
    """tarfile, json, and a pycocotools decode per mask to get its area; on the first images only."""
    kept = seen = 0
    with tarfile.open(shard.uri) as archive:
        for member in archive:
            if seen == OBVIOUS_IMAGES * MASKS:
                break
            if member.name.endswith(".json"):
                content = json.load(archive.extractfile(member))  # type: ignore[arg-type]
                for note in content["annotations"]:
                    area = coco.decode(note["segmentation"]).sum()
                    kept += area >= 1e-4 * content["image"]["width"] * content["image"]["height"]
                    seen += 1
    return seen


def floor(shard: Shard, parse: Callable[[bytes], Any]) -> int:
    """Walk the tar's headers in the barest way, read the JSON members, parse them, use nothing."""
    place = members = 0
    with Path(shard.uri).open("rb") as file:
        while (header := file.read(512))[0]:
            size = int(header[124:135], 8)
            if header[:100].rstrip(b"\0").endswith(b".json"):
                parse(file.read(size))
                members += 1
            place += 512 + (size + 511) // 512 * 512
            file.seek(place)
    return members * MASKS


class Nowhere:
    """A part that keeps nothing."""

    def write(self, _: Any) -> None:
        """Forget the rows."""


def reading(shard: Shard, parts: Any) -> int:
    """Index and read a shard as a worker does, into `parts`."""
    index = index_shard(shard, 10**8).images
    job = ReadJob("", "", shard, 0, "", -1, EVERYTHING, 0, MaskRules(), {})
    step = ShardReading(job, parts)
    for _ in step.run(index):
        pass
    return step.counts()["masks.found"]


def writing(shard: Shard, folder: Path) -> int:
    """The same, with the Parquet write."""
    run = Run(str(folder))
    with run.part("b", "masks", "k") as masks, run.part("b", "quarantine", "k") as quarantine:
        return reading(shard, {"masks": masks, "quarantine": quarantine})


def best(function: Callable[[], int], times: int = 3) -> float:
    """Masks per second of processor time, the best of several calls."""
    rates = []
    for _ in range(times):
        start = time.process_time()
        rates.append(function() / (time.process_time() - start))
    return max(rates)


# --- on Ray -----------------------------------------------------------------------------------------------


@contextmanager
def watched(peaks: list[float]) -> Iterator[None]:
    """Append the highest private memory, in MB, that any busy Ray worker of ours had."""
    done, peak = threading.Event(), 0.0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name() in ("ray::index", "ray::read"):
                        memory = process.memory_info()
                        peak = max(peak, (memory.rss - memory.shared) / 1e6)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peaks.append(peak)


def on_ray(shards: list[Shard], workers: int, session: cluster.Session, folder: Path) -> float:
    """Seconds for the whole step on a Ray that is already running."""

    @contextmanager
    def running() -> Iterator[cluster.Session]:
        yield cluster.Session(session.name, workers)

    config = manifest.ManifestConfig(shards=[shard.uri for shard in shards])
    start = time.perf_counter()
    manifest.build(Run(str(folder)), config, running, manifest.Watcher(lambda *_: None, lambda *_: None))
    return time.perf_counter() - start


def main(images: int = 2000) -> list[Figure]:
    """Print the figures; return those that were asked for."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="rr7k-bench-") as name:
        folder = Path(name)
        with console.status("writing shards"):
            large = make_shard(folder, images, 1)
            small = [make_shard(folder, images // 2, 10_000 * k) for k in range(1, 5)]
        index = index_shard(large, 10**8).images
        size = sum(image.json.bytes for image in index)
        console.print(
            f"shard: {large.bytes / 1e9:.2f} GB, {images:,} images, {images * MASKS:,} masks, "
            f"{size / images / MASKS:,.0f} bytes of JSON a mask ([bold]simulated[/], in the page cache)"
        )
        found = one_process(large, folder)
        with cluster.session(ClusterConfig()) as session:
            return found + on_cluster(large, small, session, folder)


def one_process(shard: Shard, folder: Path) -> list[Figure]:
    """Compare on one core, without Ray."""
    typed = msgspec.json.Decoder(AnnotationFile).decode  # no whole parse: it leaves values that no one needs as text
    parsers = {"orjson": orjson.loads, "msgspec": msgspec.json.decode, "our types (msgspec), not all values": typed}
    floors = {name: best(lambda parse=parse: floor(shard, parse)) for name, parse in parsers.items()}  # type: ignore[misc]
    lowest = max(floors["orjson"], floors["msgspec"])
    slow = best(lambda: obvious(shard), 1)
    reading(shard, {"masks": Nowhere(), "quarantine": Nowhere()})  # compile the kernel
    ours = best(lambda: reading(shard, {"masks": Nowhere(), "quarantine": Nowhere()}))
    written = best(lambda: writing(shard, folder / "written"))
    table = Table("one core", "masks/s", "× the obvious loop", "floor's time ×", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, rate in [
        (f"obvious: tarfile, json, pycocotools decode ({OBVIOUS_IMAGES} images)", slow),
        *((f"floor: read JSON members, parse with {name}", rate) for name, rate in floors.items()),
        ("[bold]rr7k: index, read, check, filter, columns[/]", ours),
        ("rr7k, with the Parquet write", written),
    ]:
        table.add_row(label, f"{rate:,.0f}", f"{rate / slow:,.0f}", f"{lowest / rate:.2f}")
    console.print(table)
    found = [FASTER.reached(ours / slow), FLOOR.reached(lowest / ours)]
    console.print(f"{goals(found)}\n")
    return found


def on_cluster(large: Shard, small: list[Shard], session: cluster.Session, folder: Path) -> list[Figure]:
    """Compare workers, and watch their memory."""
    peaks: list[float] = []
    on_ray(small, 2, session, folder / "warm-up")
    with watched(peaks):
        on_ray(small[:1], 1, session, folder / "small")
    with watched(peaks):
        on_ray([large], 1, session, folder / "large")
    pairs = [[on_ray(small, n, session, folder / f"{n}-{k}") for n in (1, 2)] for k in range(4)]  # in turn
    one, two = (min(times) for times in zip(*pairs, strict=True))
    table = Table("on Ray", "", box=None, show_header=False)
    table.add_row(
        "private memory of a worker, peak: small shard", f"{peaks[0]:,.0f} MB ({small[0].bytes / 1e9:.2f} GB)"
    )
    table.add_row("private memory of a worker, peak: large shard", f"{peaks[1]:,.0f} MB ({large.bytes / 1e9:.2f} GB)")
    table.add_row("4 shards, one worker, two workers", f"{one:.2f} s, {two:.2f} s")
    console.print(table)
    memory = MEMORY.reached(max(peaks)), GROWTH.reached(peaks[1] / peaks[0])
    found = [*memory, WORKERS.reached(one / two)]
    console.print(goals(found))
    return found


if __name__ == "__main__":
    hand_over(main(*map(int, sys.argv[1:])))
