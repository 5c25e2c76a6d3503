"""The names of a run as a page to look at: a sample of regions with what was said about each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pipeline import files, gallery
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from stages import sampled_regions
from stages.naming_settings import STEP
from stages.sampled_regions import Survey

FILE = "names.html"

_FREQUENT = 30
_COUNTED = ("category", "model", "layout")
_NAME = ("mask_id", "image_id", "outcome", "category", "raw", "logprob", "engine", "model", "layout")


class Written(NamedTuple):
    """A page and how much of the table it shows."""

    path: str
    shown: int
    total: int


def write(run: Run, samples: int, seed: int) -> Written:
    """Write `names.html` into the run folder, about `samples` names chosen by the hash of their masks.

    Every outcome gets a share. A region that cannot be drawn has the reason in place of a picture. Raises `UsageError`
    when there are no names.
    """
    survey = Survey(samples, seed, "outcome", _COUNTED)
    for batch in run.dataset("names", STEP).to_batches(columns=["mask_id", "outcome", *_COUNTED]):
        survey.add(batch)
    chosen = survey.sample()
    if not chosen:
        raise UsageError(f"{run.folder.uri}: no names yet. Make them first: rr7k stage-1 names")
    names = {row["mask_id"]: row for row in sampled_regions.rows(run.dataset("names", STEP), _NAME, chosen)}
    drawn = sampled_regions.pictures(run, chosen)
    cards = [_card(names[mask_id], drawn[mask_id]) for mask_id in chosen]
    run.folder.replace(FILE, gallery.html(_page(run, survey, len(chosen)), cards).encode())
    return Written(files.join(run.folder.uri, FILE), len(chosen), survey.total)


def _page(run: Run, survey: Survey, shown: int) -> Page:
    outcomes = survey.counts["outcome"]
    name = files.base_name(run.folder.uri)
    facts = [
        ("run", name),
        ("model", ", ".join(survey.counts["model"])),
        ("layout", ", ".join(survey.counts["layout"])),
        ("categories", f"{len(survey.counts['category']):,}"),
        ("sample", survey.told(shown)),
    ]
    frequent = survey.counts["category"].most_common(_FREQUENT)
    return Page(f"Names of {name}", facts, dict(outcomes.most_common()), dict(frequent))


def _card(name: dict[str, Any], picture: Picture | str) -> Card:
    lines = [("answer about several regions" if name["layout"] == "marks" else "answer", name["raw"])]
    if name["logprob"] is not None:
        lines.append(("probability", f"{math.exp(min(name['logprob'], 0)):.2g}"))
    lines += [("by", f"{name['model']} · {name['layout']}"), ("mask", f"{name['mask_id']} of sa_{name['image_id']}")]
    badge = "embedded (not a VLM)" if name["engine"] == "embedded" else ""
    return Card(name["category"] or "", name["outcome"], picture, lines, badge)
