"""`rr7k segment`: masks of a picture, named by WOW-Seg, drawn and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.console import err, out, tell
from pipeline.errors import UsageError
from pipeline.progress import meter

if TYPE_CHECKING:
    from model.scenes import Region, Scene

SUPERPIXELS = "superpixels"

ModelOption = Annotated[
    Path, typer.Option("--model", help="Checkpoint folder of WOW-Seg (rr7k model inspect).", show_default=False)
]
SegmenterOption = Annotated[
    str,
    typer.Option(
        help="What makes masks: a folder of SAM, SAM 2 or HQ-SAM, segment-anything's own .pth, or "
        f"[bold]{SUPERPIXELS}[/], which needs no weights and is for trying.",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Torch device.", show_default="cuda, or cpu")]
PointsOption = Annotated[int, typer.Option(min=1, max=128, help="Everything: points along each side of the picture.")]
IouOption = Annotated[float, typer.Option(help="Everything: the least predicted IoU of a mask.")]
StabilityOption = Annotated[float, typer.Option(help="Everything: the least stability of a mask.")]


def segment(
    image: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP.", show_default=False)],
    model: ModelOption,
    segmenter: SegmenterOption = "",
    masks: Annotated[
        Path | None,
        typer.Option(help="Name these masks instead: a list of COCO RLEs, or SA-1B's JSON.", show_default=False),
    ] = None,
    point: Annotated[list[str] | None, typer.Option(metavar="X,Y", help="A pixel; repeat for more.")] = None,
    box: Annotated[list[str] | None, typer.Option(metavar="L,T,R,B", help="A box, px; repeat for more.")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Files to write, without .png and .json.", show_default="IMAGE-named")
    ] = None,
    least_iou: IouOption = 0.88,
    least_stability: StabilityOption = 0.95,
    points: PointsOption = 32,
    device: DeviceOption = "",
) -> None:
    """Find what is in a picture and name it: everything, or what is at a point or in a box.

    Writes the picture with named masks (.png), and masks, names, boxes, areas and log-probabilities (.json).

    The picture is turned upright first, as its EXIF says, and pixels count in that. Masks of [bold]--masks[/] refer
    to the pixels as they are stored, so with these it is not turned.
    """
    from model import region_files
    from model.proposals import Rules
    from model.scenes import Scene, open_picture

    if bool(segmenter) == (masks is not None):
        raise UsageError("Say where masks come from: --segmenter PATH makes them, --masks FILE has them.")
    if masks and (point or box):
        raise UsageError("--point and --box ask a segmenter; with --masks there is none.")
    at, inside = [_numbers(text, 2) for text in point or ()], [_numbers(text, 4) for text in box or ()]
    rules = Rules(points=points, predicted_iou=least_iou, stability=least_stability)
    picture = open_picture(image, str(image), upright=masks is None)
    given = region_files.read(masks) if masks else []
    with err.status("loading the models"):
        scene = Scene(load_model(model, device), picture, load_segmenter(segmenter, device) if segmenter else None)
    if masks:
        found = scene.given(given)
    elif at or inside:
        found = scene.at(at) + scene.inside(inside)
    else:
        found = everything(scene, rules)
    _write(image, to or Path(f"{image.stem}-named"), scene, found)


def load_model(path: Path, device: str) -> Any:
    """Load WOW-Seg onto a device; float32 on a CPU, where halves are slow."""
    import torch

    from model.wowseg import WowSeg

    there = _device(device)
    return WowSeg.from_pretrained(path, device=there, dtype=torch.float32 if there == "cpu" else None)


def load_segmenter(source: str, device: str) -> Any:
    """Load what makes masks."""
    from pipeline.segmenters import open_segmenter
    from pipeline.superpixels import Superpixels

    return Superpixels() if source == SUPERPIXELS else open_segmenter(source, _device(device))


def everything(scene: Scene, rules: Any) -> list[Region]:
    """Name everything, with a bar for the points."""
    with meter(err) as shown:
        shown.start("looking", rules.points**2, "points")
        return scene.everything(rules, lambda done, total: shown.advance(1, {}))


def _device(device: str) -> str:
    import torch

    from pipeline.cli_model import without_bars

    without_bars()
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _numbers(text: str, count: int) -> Any:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise UsageError(f"{text}: {'x,y' if count == 2 else 'left,top,right,bottom'} in px expected.")
    return found


def _write(image: Path, to: Path, scene: Scene, found: Sequence[Region]) -> None:
    from rich.table import Table
    from rich.text import Text

    from model import drawing, region_files
    from pipeline.files import Folder
    from pipeline.images import as_png

    if not found:
        tell("Nothing was found. Lower --least-iou or --least-stability, or point at something: --point X,Y.")
        return
    folder = Folder(str(to.parent))
    folder.replace(f"{to.name}.png", as_png(drawing.draw(scene.image, found)))
    folder.replace(f"{to.name}.json", region_files.as_json(image.name, scene.image, found))
    table = Table("", "name", "probability", "share of the picture", box=None, pad_edge=False)
    whole = scene.image.width * scene.image.height
    for number, region in enumerate(found, 1):
        name, sure, share = Text(drawing.line(region.label)), math.exp(region.logprob), region.area / whole
        table.add_row(str(number), name, f"{sure:.1%}", f"{share:.1%}")
    out.print(table, highlight=False)
    tell(f"{to}.png, {to}.json: {len(found)} masks")
