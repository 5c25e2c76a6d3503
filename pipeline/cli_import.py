"""`rr7k import`: other data sets of named regions, into the format in which releases are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import err, out, tell

_KINDS = {
    "lvis": "lvis_v1_val.json; of v0.5 lvis_v0.5_val.json (lvisdataset.org)",
    "paco": "paco_lvis_v1_val.json (github.com/facebookresearch/paco); parts are named object:part",
    "coco": "instances_val2017.json (cocodataset.org), and any file of its layout",
    "coco-stuff": "stuff_val2017.json, and for the things instances_val2017.json as well",
    "coco-panoptic": "panoptic_val2017.json, with the PNGs in the folder panoptic_val2017 beside it; so, too, "
    "cityscapes_panoptic_val.json (cityscapesScripts, createPanopticImgs.py) and ADE20K prepared as panoptic",
    "coco-stuff-maps": "folder of stuffthingmaps_trainval2017 (github.com/nightrome/cocostuff)",
    "coco-stuff-maps-from-0": "folder of stuffthingmaps_detectron2",
    "coco-stuff-pixelmaps": "folder stuff_val2017_pixelmaps (cocodataset.org)",
    "ade20k-150": "ADEChallengeData2016/annotations/validation (sceneparsing.csail.mit.edu)",
    "ade20k-150-from-0": "ADEChallengeData2016/annotations_detectron2/validation",
    "ade20k-847": "ADE20K_2021_17_01/annotations_detectron2/validation: TIFF of 16 bits, classes from 0",
    "cityscapes": "gtFine/val (cityscapes-dataset.com): its *_gtFine_labelIds.png, a region a class",
    "cityscapes-instances": "the same folder: its *_gtFine_instanceIds.png, a region an object; groups are iscrowd",
    "pascal-context-59": "folder of PNGs: 0 the background, classes from 1",
    "pascal-context-59-from-0": "folder of PNGs: classes from 0, 255 void",
    "pascal-context-459": "folder of TIFFs of 16 bits: classes from 0, 65535 void",
    "osprey": "lvis_val_1k_category.json, paco_val_1k_category.json (github.com/CircleRadon/Osprey)",
    "jsonl": "JSON Lines of the WOW-Seg authors: image, width, height, masks, label",
    "sa1b": "sa_N.json, folders or tars of them, with a name in every annotation, as category, category_name, label, "
    "name or class_name",
    "rr7k": "the published RR-7K: files, or a folder, of coco, sa1b or jsonl; the last two as Parquet as well, and "
    "Parquet with a row per region. Images that it holds are copied in",
}

HELP = "\n\n".join(
    [
        "Import another data set of named regions into the format in which releases are: what trainer and scorer read.",
        "Names stay as the source writes them (category_raw): the rules that published scores applied to them are "
        "presets of the scorer. Masks become COCO run lengths, areas are counted again, the source's boxes are kept "
        "beside ours. The fate of every annotation is told: instance, dropped and why, or wrong and where.",
        "What the PATHS of each [bold]KIND[/] are:\n"
        + "\n".join(f"[bold]{name}[/]: {text}" for name, text in _KINDS.items()),
        "Kinds in -from-0 are detectron2's conversions, numbered one lower than the originals: the wrong one of the "
        "two gives wrong names, of which only those at the ends of the list are noticed. Look before you trust.",
        "Example: [bold]rr7k import lvis lvis_v1_val.json --split val --out data/lvis-val --images coco[/]",
    ]
)


def import_data(
    kind: Annotated[str, typer.Argument(metavar="KIND", show_default=False, help="Which data set; see above.")],
    paths: Annotated[list[Path], typer.Argument(show_default=False, help="Its annotation files or folders.")],
    folder: Annotated[Path, typer.Option("--out", help="A new folder on a disk.", show_default=False)],
    split: Annotated[str, typer.Option(help="What all rows say they are: train, val, test, …", show_default=False)],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the image files, to copy them in; without it they are named only.", show_default=False
        ),
    ] = None,
) -> None:
    """Import a data set; `HELP` is what the command says of itself."""
    from benchmark import importers

    with err.status("reading") as status:

        def told(report: Any) -> None:
            status.update(f"{report.found:,} annotations found, {report.instances:,} instances written")

        report = importers.run(kind, paths, folder.absolute(), split, images, told)
    _show(report, folder)


def _show(report: Any, folder: Path) -> None:
    """Print what became of every annotation."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("annotations", "", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    table.add_row(f"{report.instances:,}", "instances")
    for reason, count in report.dropped.items():
        table.add_row(f"{count:,}", f"dropped: {escape(reason)}")
    table.add_row(f"{report.wrong:,}", "wrong")
    table.add_row(f"[bold]{report.found:,}[/]", "[bold]found[/]")
    out.print(table, highlight=False)
    for example in report.examples[:5]:
        tell(f"wrong: {example}")
    if report.problems:
        tell(f"{report.problems:,} images, records or files are wrong themselves")
    if report.dropped or report.examples:
        tell(f"each of these, and why: {folder / 'left_out.csv'}")
    copied = f", {report.embedded:,} of them copied in" if report.embedded else ""
    made = f", {report.made_ids:,} with ids made here" if report.made_ids else ""
    told = f"{folder}: {report.instances:,} instances{made}, {report.images:,} images{copied}"
    tell(f"{told}, {report.categories:,} categories, split {report.split}")
