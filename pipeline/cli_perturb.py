"""`rr7k perturb`: a benchmark with rougher masks, to see how much a model's names depend on them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import err, tell


class Source(StrEnum):
    """Where masks are from."""

    rotated_box = "rotated-box"
    ellipse = "ellipse"
    sam = "sam"
    hq_sam = "hq-sam"
    sam2 = "sam2"


def perturb(
    benchmark: Annotated[Path, typer.Argument(help="A release, or an imported data set.", show_default=False)],
    to: Annotated[Source, typer.Option(help="What the masks are replaced by.", show_default=False)],
    folder: Annotated[Path, typer.Option("--out", help="A new folder on a disk.", show_default=False)],
    checkpoint: Annotated[
        str, typer.Option(help="Of SAM, HQ-SAM or SAM 2: a folder, a .pth file or a hub id.", show_default=False)
    ] = "",
    split: Annotated[str, typer.Option(help="As its rows have it.", show_default="test, or the only one")] = "",
    device: Annotated[str, typer.Option(help="Of torch.", show_default="cuda where there is one")] = "",
) -> None:
    """Write a benchmark with its masks replaced (Table 7 of the paper).

    [bold]rotated-box[/]: the smallest rotated rectangle around the mask. [bold]ellipse[/]: the one fitted to its outer
    contour. [bold]sam[/], [bold]hq-sam[/], [bold]sam2[/]: what that model makes of the mask's box; the benchmark has to
    hold its images.

    Answer the new data set with a model, then score: [bold]rr7k score[/] reads it. A mask that comes out empty is left
    out there and counted; scored against the benchmark itself, it is missing. Stop it at any time and give the same
    command again.
    """
    from benchmark import perturb as maker
    from pipeline.errors import UsageError
    from pipeline.progress import meter

    if bool(checkpoint) != (to.value in maker.SEGMENTERS):
        needed = "needs --checkpoint" if not checkpoint else "is no model: leave --checkpoint out"
        raise UsageError(f"{to.value} {needed}. Nothing was written.")
    model = segmenter_at(to.value, checkpoint, device) if checkpoint else None
    with meter(err) as shown:
        start: Callable[[int], None] = lambda total: shown.start("replacing masks", total, "masks")  # noqa: E731
        watcher = maker.Watcher(start, lambda done: shown.advance(done, {"masks": done}))
        report = maker.perturb(benchmark, to.value, folder.absolute(), watcher, split=split, model=model)
    _show(report, folder)


def segmenter_at(to: str, checkpoint: str, device: str) -> Any:
    """Find a checkpoint, and refuse one of another kind than `to`; it is loaded when the first image needs it."""
    from benchmark.perturb import SEGMENTERS, Model
    from pipeline import segmenters
    from pipeline.errors import UsageError

    path = Path(checkpoint.removeprefix(segmenters.PACKAGE))
    kind, commit = ("sam", "") if path.suffix == ".pth" else _kind(checkpoint)
    if kind not in SEGMENTERS[to]:
        raise UsageError(f"{checkpoint}: a model of type {kind}, not {' or '.join(SEGMENTERS[to])}.")
    return Model(
        path.name, commit or _hash(path), lambda: segmenters.open_segmenter(checkpoint, device or _default_device())
    )


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _kind(checkpoint: str) -> tuple[str, str]:
    """Return what model a checkpoint is of, and the commit on the hub, if it is from there."""
    import json

    from pipeline.errors import UsageError

    try:
        if Path(checkpoint).is_dir():
            return str(json.loads((Path(checkpoint) / "config.json").read_text()).get("model_type")), ""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise UsageError(f"{checkpoint}: no checkpoint there ({str(error).splitlines()[0]})") from None
    return str(config.model_type), str(getattr(config, "_commit_hash", None) or "")


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file of weights, or of those of a folder, by name."""
    import hashlib

    from pipeline.errors import UsageError

    paths = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
    if not paths:
        raise UsageError(f"{path}: no weights there.")
    digest = hashlib.sha256()
    for one in paths:
        with one.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _show(report: Any, folder: Path) -> None:
    tell(f"{folder}: {report.name}; {report.instances:,} instances of split {report.split}")
    fallback, empty = report.outcomes["fallback"], report.outcomes["empty"]
    if fallback:
        tell(f"{fallback:,} had no ellipse, and have the rotated box")
    if empty:
        tell(f"{empty:,} came out empty: left out, and listed in masks.parquet")
    tell(f"mean IoU with the true masks: {report.mean_iou:.4f}")
    tell(f"next: rr7k score PREDICTIONS --benchmark {folder}; what the paper has of it: Table 7")
