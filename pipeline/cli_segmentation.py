"""`rr7k segmentation` and `rr7k mask-accuracy`: names of masks as a segmentation of images into known classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import err, out, tell

_TABLE_2 = {"cityscapes": "Cityscapes", "ade20k-150": "ADE20K-150"}
_TABLE_3 = {
    "ade20k-847": "ADE-847",
    "pascal-context-459": "PASCAL-Context-459",
    "ade20k-150": "ADE-150",
    "coco-stuff": "COCO-Stuff",
    "cityscapes": "Cityscapes",
}
"""The paper's data sets by our vocabularies."""

PredictionsArgument = Annotated[Path, typer.Argument(help="As for rr7k score.", show_default=False)]
ClassesOption = Annotated[
    str,
    typer.Option(
        help="Vocabulary: cityscapes, ade20k-150, ade20k-847, pascal-context-459, coco-stuff, or a CSV: name, thing.",
        show_default=False,
    ),
]
TemplateOption = Annotated[
    str, typer.Option(help="What a class's name is put into; Osprey: There is a {} in the scene.")
]
SynonymsOption = Annotated[
    Path | None,
    typer.Option(help="File with a line NUMBER:name,synonym,… for each class, in order.", show_default="none"),
]
SplitOption = Annotated[str, typer.Option(help="As its rows have it.", show_default="test, or the only one")]
ModelOption = Annotated[str, typer.Option(help="Whose predictions, where a file has several.", show_default=False)]
EmbeddingsOption = Annotated[
    str, typer.Option(help="Sentence embeddings: a folder or a hub id.", show_default="all-MiniLM-L6-v2")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Uncovered(StrEnum):
    """What pixels without a mask are in the semantic map."""

    first = "first"
    none = "none"


def segmentation(
    predictions: PredictionsArgument,
    benchmark: Annotated[Path, typer.Option(help="Panoptic data set (rr7k import coco-panoptic).", show_default=False)],
    classes: ClassesOption,
    template: TemplateOption = "{}",
    synonyms: SynonymsOption = None,
    semantic: Annotated[
        Path | None,
        typer.Option(help="Data set of the semantic truth, for mIoU.", show_default="the panoptic segments"),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Data set whose masks were named.", show_default="the panoptic segments")
    ] = None,
    uncovered: Annotated[
        Uncovered, typer.Option(help="Class, for mIoU, of pixels without a mask: the first, as in Osprey's, or none.")
    ] = Uncovered.first,
    split: SplitOption = "",
    model: ModelOption = "",
    embeddings: EmbeddingsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Score names of masks as a segmentation: PQ, SQ, RQ and mIoU on Cityscapes, ADE20K and their like.

    Each text becomes the class that is nearest by sentence embeddings. Template and synonyms change the outcome by
    much: give them as those rows have them that you compare with.

    ADE20K: import its panoptic files for --benchmark, and the semantic maps (rr7k import ade20k-150) for --semantic.
    """
    from benchmark import segmentation as scorer
    from benchmark.by_image import ByImage
    from pipeline.progress import meter
    from pipeline.regions import RegionSamples

    read = _read(predictions, masks or benchmark, "" if masks else split, model)
    compared = _compared(read.texts, classes, template, synonyms, embeddings)
    truth = read.truth if masks is None else _truth(benchmark, split)
    sources = scorer.Sources(
        ByImage(RegionSamples(benchmark), truth.split),
        ByImage(RegionSamples(masks), read.truth.split) if masks else None,
        ByImage(RegionSamples(semantic)) if semantic else None,
    )
    named = scorer.Named.of(read.instances, compared.answers)
    with meter(err) as shown:
        shown.start("segmenting", len(sources.truth.images), "images")
        found = scorer.score(
            sources,
            named,
            compared.vocabulary,
            uncovered="first" if uncovered is Uncovered.first else "none",
            over="any" if classes == "cityscapes" else "true",
            told=lambda images: shown.advance(images, {"images": images}),
        )
    facts = truth.facts | read.facts | compared.facts
    if as_json:
        _print_json(facts | {"uncovered": uncovered.value, "segmentation": found})
        return
    quality = found.quality
    _say_facts(facts)
    rows = [
        (name, *(f"{100 * value:.2f}" for value in quality[name][:3]), str(quality[name].classes)) for name in quality
    ]
    _print_table(("", "PQ", "SQ", "RQ", "classes"), rows)
    out.print(f"mIoU {100 * found.miou:.2f}", highlight=False)
    _say_counts(found.masks, found.nameless, found.dropped)
    own = {"PQ": quality["all"].pq, "mIoU": found.miou}
    _published(2, _TABLE_2.get(classes, ""), own)


def mask_accuracy(
    predictions: PredictionsArgument,
    benchmark: Annotated[
        Path, typer.Option(help="Semantic data set: a mask for each class of an image.", show_default=False)
    ],
    classes: ClassesOption,
    template: TemplateOption = "{}",
    synonyms: SynonymsOption = None,
    split: SplitOption = "",
    model: ModelOption = "",
    embeddings: EmbeddingsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Score names of masks as a classification: mMaskAcc, the mean over classes of how often a mask gets its own.

    For semantic maps as [bold]rr7k import[/] reads them: ade20k-847, pascal-context-459, ade20k-150,
    coco-stuff-maps, cityscapes. A mask without a prediction counts as wrong.
    """
    import numpy as np

    from benchmark import mask_accuracy as scorer

    read = _read(predictions, benchmark, split, model)
    compared = _compared(read.texts, classes, template, synonyms, embeddings)
    instances = read.truth.instances
    true = scorer.true_classes(instances, compared.vocabulary)
    said = dict(zip(read.instances, compared.answers.classes.tolist(), strict=True))
    predicted = np.array([said.get(one, -1) for one in instances["instance_id"].to_pylist()], np.int64)
    found = scorer.mask_accuracy(true, predicted, len(compared.vocabulary.classes))
    facts = read.truth.facts | read.facts | compared.facts
    if as_json:
        names = [each.name for each in compared.vocabulary.classes]
        rows = zip(names, found.by_class.tolist(), found.masks.tolist(), strict=True)
        told = [{"name": name, "accuracy": value, "masks": masks} for name, value, masks in rows if masks]
        _print_json(facts | {"mMaskAcc": found.mean, "masks": len(true), "classes": told})
        return
    _say_facts(facts)
    out.print(f"mMaskAcc {100 * found.mean:.2f} over {int((found.masks > 0).sum()):,} classes", highlight=False)
    _say_counts(len(true), int((predicted < 0).sum()), 0)
    _published(3, _TABLE_3.get(classes, ""), {"mMaskAcc": found.mean})


# --- reading ----------------------------------------------------------------------------------------------


class _Read:
    """Predictions and what they are about."""

    def __init__(self, found: Any, located: Any, truth: Any) -> None:
        self.truth = truth
        self.instances: list[int] = located["instance_id"].to_pylist()
        self.texts: list[str | None] = located["text"].to_pylist()
        self.facts = {"predictions": found.path.name, "sha256": found.sha256, "model": found.model}


def _truth(folder: Path, split: str) -> Any:
    from benchmark import truth

    return truth.load(folder, split)


def _read(predictions: Path, benchmark: Path, split: str, model: str) -> _Read:
    from benchmark import predictions as reader
    from pipeline.errors import UserError

    with err.status("reading"):
        found = reader.read(predictions, model=model)
        truth = _truth(benchmark, split)
        read = _Read(found, reader.locate(found, truth.instances, truth.fingerprint), truth)
    if again := len(read.instances) - len(set(read.instances)):
        raise UserError(f"{predictions}: {again:,} predictions are about an instance that has one already.")
    return read


class _Compared:
    """A vocabulary, and what texts mean in it."""

    def __init__(self, vocabulary: Any, answers: Any, facts: dict[str, str]) -> None:
        self.vocabulary, self.answers = vocabulary, answers
        self.facts = {"vocabulary": vocabulary.name} | facts


def _compared(
    texts: Sequence[str | None], classes: str, template: str, synonyms: Path | None, embeddings: str
) -> _Compared:
    from benchmark import vocabularies
    from pipeline.embeddings import Vectors
    from pipeline.files import sha256

    vocabulary, vectors = vocabularies.load(classes, synonyms), Vectors(embeddings)
    if vocabulary.repeated:
        tell(f"{classes}: {vocabulary.repeated} of its classes have the name of another, and count as one with it")
    with err.status("comparing texts"):
        answers = vocabularies.compare(texts, vocabulary, template, vectors)
    facts = {
        "template": template,
        "synonyms": f"{synonyms.name} {sha256(synonyms.read_bytes())}" if synonyms else "none",
        "embeddings": f"{embeddings or 'all-MiniLM-L6-v2'} {vectors.files.weights}",
    }
    return _Compared(vocabulary, answers, facts)


# --- printing ---------------------------------------------------------------------------------------------


def _print_json(told: dict[str, Any]) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(told)).decode() + "\n")


def _say_facts(facts: dict[str, Any]) -> None:
    model = facts["model"] or "a model without a name"
    tell(f"{facts['name']}, {facts['split']}: {facts['images']:,} images; predictions of {model}")
    tell(f"classes: {facts['vocabulary']}; template: {facts['template']}; synonyms: {facts['synonyms']:.60}")


def _say_counts(masks: int, nameless: int, dropped: int) -> None:
    tell(f"{masks:,} masks, {nameless:,} of them without a name")
    if dropped:
        tell(f"{dropped:,} lost more than a fifth of themselves to others, and are no segments")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table, highlight=False)


def _published(number: int, data_set: str, own: dict[str, float]) -> None:
    """Print the paper's rows of a data set with one's own below, and what keeps them from being comparable."""
    from benchmark import published

    rows = [row for row in published.beside(data_set, number) if row.measure in own]
    if not rows:
        return
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row.model, {})[row.measure] = row.value
    told = [(name, *(f"{found[measure]:.2f}" for measure in own)) for name, found in values.items()]
    _print_table((rows[0].source, *own), [*told, ("yours", *(f"{100 * value:.2f}" for value in own.values()))])
    tell(
        "Template, synonyms and embeddings of WOW-Seg's row are not published; the others of Table 2 are Osprey's: "
        '--template "There is a {} in the scene." and FC-CLIP\'s synonyms.'
        if number == 2
        else "How WOW-Seg's texts became classes is not published; the other rows of Table 3 are MaskCLIP++'s, which "
        "compares CLIP's embeddings, not sentences."
    )
