"""What stage 3 came to, for people and as files: annotators and their agreement, hours, and the precision of the audit.

`screening.json` in the run folder holds all of it, for whoever builds on the run; `annotators.csv` one line a person,
for those who pay them. Annotators are pseudonyms everywhere.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from typing import Any

import msgspec

from pipeline.proportions import Estimate
from pipeline.run import Run
from stages import agreement, audit, screening_progress
from stages.agreement import Accuracy, Alpha, Pairwise
from stages.audit import AuditConfig, Missed, Precision, Released
from stages.decisions import QUALIFICATION, SIMULATED, ScreeningConfig
from stages.decisions import STEP as DECISIONS
from stages.remembering import inherited
from stages.screening_progress import Progress

JSON, CSV = "screening.json", "annotators.csv"


class Annotator(msgspec.Struct, frozen=True):
    """One of those who answered. Shares are 0 to 1 with limits of 95 %."""

    annotator: str
    """Pseudonym; `simulated` is no person."""
    pages: int
    hours: float
    """On the pages whose time is known."""
    timed: int
    """Pages whose time is known."""
    fast: int
    """Pages answered in less than `screening.fast_seconds` a tile."""
    qualification: Estimate
    """Right answers in the qualification round."""
    gold: Accuracy | None
    """On all tiles whose answer is known; None where there were none."""
    missed: Missed | None
    """What the audit found wrong on pages that were kept whole; None where it judged none of them."""


class Report(msgspec.Struct, frozen=True):
    """All of it."""

    progress: Progress
    annotators: list[Annotator]
    pairwise: list[Pairwise]
    alpha: Alpha
    audit: Released | None
    """None while no sample was drawn."""


def measure(run: Run) -> Report:
    """Return a run's report. Raises `UserError` as `decisions.screened` does."""
    config = inherited(run, DECISIONS, ScreeningConfig())
    plan = audit.load(run)
    drawn = None if plan is None else audit.standing(run, plan)
    wanted = inherited(run, audit.SETTINGS, AuditConfig()).precision
    return Report(
        progress=screening_progress.measure(run),
        annotators=_annotators(run, config, audit.missed(run, drawn) if drawn else []),
        pairwise=agreement.pairwise(run),
        alpha=agreement.alpha(run),
        audit=audit.released_precision(run, drawn, wanted) if drawn else None,
    )


def _annotators(run: Run, config: ScreeningConfig, missed: list[Missed]) -> list[Annotator]:
    fast = Counter(page.annotator for page in agreement.too_fast(run, config.fast_seconds))
    gold = {found.annotator: found for found in agreement.on_controls(run)}
    overlooked = {found.annotator: found for found in missed}
    qualified = agreement.right_answers(run, QUALIFICATION)
    return [
        Annotator(
            annotator=found.annotator,
            pages=found.pages,
            hours=found.hours,
            timed=found.timed,
            fast=fast[found.annotator],
            qualification=qualified[found.annotator],
            gold=gold.get(found.annotator),
            missed=overlooked.get(found.annotator),
        )
        for found in agreement.hours(run)
    ]


# --- files ------------------------------------------------------------------------------------------------


def write(run: Run, report: Report) -> None:
    """Write `screening.json` and `annotators.csv` into the run folder."""
    run.folder.replace(JSON, msgspec.json.format(msgspec.json.encode(_plain(report))))
    run.folder.replace(CSV, _csv(report.annotators).encode())


def _plain(report: Report) -> dict[str, Any]:
    """Return the report as JSON holds it: numbers that are not known are null."""
    found = report.audit
    return {
        "progress": msgspec.to_builtins(report.progress),
        "annotators": [_person(one) for one in report.annotators],
        "agreement": {
            "alpha": {"value": _number(report.alpha.value), "pairs": report.alpha.pairs, "votes": report.alpha.votes},
            "pairwise": [two._asdict() | {"kappa": _number(two.kappa)} for two in report.pairwise],
        },
        "audit": None
        if found is None
        else {
            "overall": _precision(found.overall),
            "strata": {name: _precision(stratum) for name, stratum in found.strata.items()},
            "waiting": found.waiting,
            "unresolved": found.unresolved,
            "simulated": found.simulated,
        },
    }


def _person(one: Annotator) -> dict[str, Any]:
    gold = one.gold and {
        name: _share(value) if isinstance(value, Estimate) else value for name, value in one.gold._asdict().items()
    }
    missed = one.missed and {"pages": one.missed.pages, "wrong": _share(one.missed.wrong)}
    plain = {name: getattr(one, name) for name in ("annotator", "pages", "hours", "timed", "fast")}
    return plain | {"qualification": _share(one.qualification), "gold": gold, "missed": missed}


def _precision(found: Precision) -> dict[str, Any]:
    return _share(found.right) | {"more": found.more, "closed": found.closed}


def _share(found: Estimate) -> dict[str, Any]:
    """Return a share and its limits of 95 %."""
    return {
        "share": _number(found.value),
        "lower": found.lower,
        "upper": found.upper,
        "observations": found.observations,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _csv(annotators: list[Annotator]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(["annotator", "person", "pages", "pages_timed", "hours", "pages_too_fast"])
    for one in annotators:
        person = "no" if one.annotator == SIMULATED else "yes"
        writer.writerow([one.annotator, person, one.pages, one.timed, f"{one.hours:.3f}", one.fast])
    return sink.getvalue()
