"""The data sets of the plan, in our format: imported, or made of others, once.

OUT/data/SET          region samples
OUT/data/SET.stamp    hash of all that it is made of, written last; what has another is made anew
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmark import importers, perturb, truth
from benchmark.evaluation.plan import DataSet, Plan
from benchmark.importers import writer
from benchmark.perturb import Model, Source, Watcher
from pipeline.decoding import decoded
from pipeline.files import Folder, sha256
from pipeline.regions import RegionSamples
from pipeline.run import version

T = TypeVar("T")
Segmenter = Callable[[Source, Path], Model]
"""Opens a checkpoint folder of a kind. Raises `UsageError`."""


class Made(NamedTuple):
    """A data set that is there."""

    folder: Path
    stamp: str
    """Hash of all that it is made of."""
    notes: list[str]
    """What is to be known of it."""


class DataSets:
    """Makes data sets when they are asked for."""

    def __init__(self, plan: Plan, data: Path, out: Path, segmenter: Segmenter, watcher: Watcher) -> None:
        """Make them of the places of `plan` below `data`; `watcher` is told of masks that are replaced."""
        self._plan, self._data, self._out = plan, data, out / "data"
        self._segmenter, self._watcher = segmenter, watcher
        self.get = cache(self._get)
        self._listed = cache(self._list)

    def _get(self, name: str) -> Made:
        """Return a set of the plan, made if it is not there as it should be. Raises `UserError` as its makers do."""
        one = self._plan.sets[name]
        if one.of:
            return self._perturbed(name, one)
        place = self._data / self._plan.places[one.paths].path
        if one.kind == "rr7k" and is_release(place):
            samples = RegionSamples(place)
            return Made(place, sha256(f"{truth.fingerprint(samples)} {samples.has_images}".encode()), [])
        return self._imported(name, one, place)

    def _imported(self, name: str, one: DataSet, place: Path) -> Made:
        folder = self._out / name
        within = place / "images"
        images = self._data / self._plan.places[one.images].path if one.images else within if within.is_dir() else None
        listed = [self._listed(place) for place in (one.paths, one.beside, one.images) if place]
        stamp = sha256("\n".join([version(), one.kind, one.split, *listed]).encode())
        self._make(folder, stamp, lambda: importers.run(one.kind, [place], folder, one.split, images))
        return Made(folder, stamp, _of_import(folder))

    def _perturbed(self, name: str, one: DataSet) -> Made:
        if one.masks is None:
            raise ValueError(f"set {name}: other masks of {one.of}, but which?")
        before, folder = self.get(one.of), self._out / name
        model = self._segmenter(one.masks, self._checkpoint(one.model)) if one.model else None
        stamp = sha256("\n".join([before.stamp, one.masks, model.weights if model else ""]).encode())
        kind = one.masks
        self._make(folder, stamp, lambda: perturb.perturb(before.folder, kind, folder, self._watcher, model=model))
        return Made(folder, stamp, [*before.notes, *_of_masks(folder)])

    def _make(self, folder: Path, stamp: str, make: Callable[[], object]) -> None:
        """Make a folder unless it is there with that stamp."""
        mark = folder.with_name(f"{folder.name}.stamp")
        if folder.is_dir() and mark.is_file() and mark.read_text() == stamp:
            return
        mark.unlink(missing_ok=True)
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        make()
        Folder(str(mark.parent)).replace(mark.name, stamp.encode())

    def _checkpoint(self, place: str) -> Path:
        """Return the folder of weights: the place, or one in it, where `rr7k models fetch` names it by its revision."""
        return min(self._plan.places[place].files(self._data)).parent

    def _list(self, place: str) -> str:
        """Return the hash of the names, sizes and times of the files of a place."""
        found = sorted(
            (path.relative_to(self._data).as_posix(), path.stat())
            for path in self._plan.places[place].files(self._data)
        )
        return sha256("\n".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in found).encode())


def is_release(folder: Path) -> bool:
    """Say whether a folder holds region samples, as `rr7k release` and `rr7k import` write them."""
    return next((folder / "data").glob("instances-*.parquet"), None) is not None


def _report(folder: Path, name: str, kind: type[T]) -> T:
    return decoded((folder / name).read_bytes(), kind, f"{folder / name}", f"Delete {folder}: it is then made again.")


def _of_import(folder: Path) -> list[str]:
    report = _report(folder, writer.REPORT, writer.Report)
    notes = []
    if lost := report.images - report.embedded:
        notes.append(f"{lost:,} of {report.images:,} photographs are not there, or not as they should be")
    if report.wrong:
        notes.append(f"{report.wrong:,} of {report.found:,} annotations are wrong")
    return [f"{note}: {folder.name}/{writer.LEFT_OUT}" for note in notes]


def _of_masks(folder: Path) -> list[str]:
    report = _report(folder, perturb.REPORT, perturb.Report)
    counts = {"came out empty": perturb.EMPTY, "have the rotated box in place of an ellipse": perturb.FALLBACK}
    told = "".join(f"; {report.outcomes[name]:,} {what}" for what, name in counts.items() if report.outcomes[name])
    return [f"mean IoU with the true masks {report.mean_iou:.3f}{told}"]
