"""The pairs of a run as a page to look at: a sample of regions by category, with every namer's opinion."""

from __future__ import annotations

from typing import Any

from pipeline import files, gallery
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from stages import sampled_regions
from stages.name_gallery import Written
from stages.pairing import STEP
from stages.sampled_regions import Survey

FILE = "pairs.html"

_FREQUENT = 60
_NUMBERS = ("similarity", "confidence", "score", "iou")
_LISTS = ("namers", "raw_names", "names", "engines")
_PAIR = ("mask_id", "image_id", "category", "agreement", "rule", "flagged", *_NUMBERS, *_LISTS)


def write(run: Run, samples: int, seed: int) -> Written:
    """Write `pairs.html` into the run folder, about `samples` pairs, sorted by category.

    Every kind of agreement gets a share. Raises `UsageError` when there are no pairs.
    """
    survey = Survey(samples, seed, "agreement", ("category", "rule"))
    for batch in run.dataset("pairs", STEP).to_batches(columns=["mask_id", "agreement", "category", "rule"]):
        survey.add(batch)
    chosen = survey.sample()
    if not chosen:
        raise UsageError(f"{run.folder.uri}: no pairs yet. Make them first: rr7k stage-1 pairs")
    pairs = sampled_regions.rows(run.dataset("pairs", STEP), _PAIR, chosen)
    pairs.sort(key=lambda pair: (-survey.counts["category"][pair["category"]], pair["category"], not pair["flagged"]))
    drawn = sampled_regions.pictures(run, chosen)
    page = gallery.html(_page(run, survey, len(chosen)), [_card(pair, drawn[pair["mask_id"]]) for pair in pairs])
    run.folder.replace(FILE, page.encode())
    return Written(files.join(run.folder.uri, FILE), len(chosen), survey.total)


def _page(run: Run, survey: Survey, shown: int) -> Page:
    name = files.base_name(run.folder.uri)
    facts = [
        ("run", name),
        ("categories", f"{len(survey.counts['category']):,}"),
        ("rules", ", ".join(f"{rule} {count:,}" for rule, count in survey.counts["rule"].most_common())),
        ("sample", survey.told(shown)),
    ]
    agreements, frequent = survey.counts["agreement"], survey.counts["category"].most_common(_FREQUENT)
    return Page(f"Pairs of {name}", facts, dict(agreements.most_common()), dict(frequent))


def _card(pair: dict[str, Any], picture: Picture | str) -> Card:
    opinions = zip(pair["namers"], pair["raw_names"], pair["names"], strict=True)
    lines = [(namer, raw if raw == name else f"{raw} → {name}") for namer, raw, name in opinions]
    lines += [(label, f"{pair[label]:.2f}") for label in _NUMBERS if pair[label] is not None]
    lines += [("rule", pair["rule"]), ("mask", f"{pair['mask_id']} of sa_{pair['image_id']}")]
    badges = ["embedded (not a VLM)"] if "embedded" in pair["engines"] else []
    badges += ["people see it first"] if pair["flagged"] else []
    return Card(pair["category"], pair["agreement"], picture, lines, " · ".join(badges))
