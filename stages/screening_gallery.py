"""What people decided, as a page to look at: by category, left out and released regions side by side."""

from __future__ import annotations

from typing import Any

from pipeline import files, gallery
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from stages import sampled_regions
from stages.decisions import DELETE, PRIVATE, RELEASE, SIMULATED, STEP, UNCERTAIN
from stages.name_gallery import Written
from stages.sampled_regions import Survey

FILE = "screenings.html"

_FREQUENT = 60
_VOTES = ("keep", "delete", "private", "unsure")
_DECISION = ("mask_id", "image_id", "category", "decision", "by", *_VOTES)
_COLUMNS = {"left out": (DELETE, UNCERTAIN, PRIVATE), "released": (RELEASE,)}
_HIDDEN = "private: not shown again"


def write(run: Run, samples: int, seed: int) -> Written:
    """Write `screenings.html` into the run folder: about `samples` decided pairs, by category, the frequent ones first.

    Every kind of decision gets a share. What is private has no picture. Raises `UsageError` when nothing is decided.
    """
    survey = Survey(samples, seed, "decision", ("category", "by"))
    for batch in run.dataset("decisions", STEP).to_batches(columns=["mask_id", "decision", "category", "by"]):
        survey.add(batch)
    chosen = survey.sample()
    if not chosen:
        raise UsageError(f"{run.folder.uri}: people have decided nothing yet. First: rr7k stage-3 import")
    rows = sampled_regions.rows(run.dataset("decisions", STEP), _DECISION, chosen)
    rows.sort(key=lambda row: (-survey.counts["category"][row["category"]], row["category"], row["mask_id"]))
    drawn = sampled_regions.pictures(run, [row["mask_id"] for row in rows if row["decision"] != PRIVATE])
    cards = [_card(row, drawn.get(row["mask_id"], _HIDDEN)) for row in rows]
    run.folder.replace(FILE, gallery.html(_page(run, survey, len(chosen)), cards).encode())
    return Written(files.join(run.folder.uri, FILE), len(chosen), survey.total)


def _page(run: Run, survey: Survey, shown: int) -> Page:
    name = files.base_name(run.folder.uri)
    facts = [
        ("run", name),
        ("decided by", ", ".join(f"{who} {count:,}" for who, count in survey.counts["by"].most_common())),
        ("sample", survey.told(shown)),
    ]
    decisions, frequent = survey.counts["decision"], survey.counts["category"].most_common(_FREQUENT)
    return Page(f"Screening of {name}", facts, dict(decisions.most_common()), dict(frequent), columns=_COLUMNS)


def _card(row: dict[str, Any], picture: Picture | str) -> Card:
    votes = ", ".join(f"{row[name]} {name}" for name in _VOTES if row[name])
    lines = [("shown as", row["category"]), ("votes", votes), ("decided by", row["by"])]
    lines.append(("mask", f"{row['mask_id']} of sa_{row['image_id']}"))
    return Card(row["category"], row["decision"], picture, lines, "simulated" if row["by"] == SIMULATED else "")
