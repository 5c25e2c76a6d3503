"""`python -m tests.bench.filter JSON IMAGES`: how good the check is on a COCO annotation, with wrong names mixed in.

Embedded: the model that checks is an ImageNet classifier, no vision-language model. The pairs have the annotation's
true names, three in ten replaced by another category of the same file; so it is known which are wrong. Every pair is
asked about with a control as well. Then judgements are drawn a thousand times, half of the pairs, rare categories more
often, and thresholds chosen from them: how often is the stated lower limit of the precision below the true one?
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checking_server import write_pairs
from rich.console import Console
from sa1b_shards import build, rows

from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.errors import UserError
from pipeline.labels import normalise
from pipeline.proportions import counted
from pipeline.run import Run
from stages import calibration, false_yes, head_tail, verdicts, verification
from stages.engines.base import EngineConfig
from stages.head_tail import HeadTailConfig
from stages.judgements import Judgements
from stages.ledger import Watcher
from stages.naming import Bounds
from stages.pilot import true_names
from stages.sample_data import write_coco
from stages.verification_settings import VerifyConfig

WRONG, SPLITS = 0.3, 1000
console = Console(width=110)


class Known(NamedTuple):
    """Pairs, of which it is known whether they are right."""

    score: np.ndarray
    right: np.ndarray
    pairs: np.ndarray
    """Of the category."""


def mixed(true: dict[int, str], random: np.random.Generator) -> dict[int, str]:
    """The true names, some replaced by another category."""
    categories = sorted(set(true.values()))
    names = dict(true)
    for mask_id in random.permutation(sorted(true))[: round(WRONG * len(true))].tolist():
        names[mask_id] = str(random.choice([name for name in categories if name != true[mask_id]]))
    return names


def check(run: Run) -> None:
    """Ask about every pair, and about each with a wrong name."""
    watcher = Watcher(lambda _: None, lambda _: None, console.print)
    config = VerifyConfig(control_share=1.0, preflight="warn")
    head_tail.build(run, HeadTailConfig(head_min_count=1))
    session = cluster.session(ClusterConfig())
    verification.build(run, config, EngineConfig(), lambda: session, watcher, bounds=Bounds())
    verdicts.build(run)


def known(run: Run, true: dict[int, str]) -> Known:
    """What the check said about every pair."""
    counts = head_tail.of_categories(run)
    found = [row for row in rows(run, "verdicts") if row["score"] is not None]
    return Known(
        np.array([row["score"] for row in found]),
        np.array([row["category"] == true[row["mask_id"]] for row in found]),
        np.array([counts[row["category"]][0] for row in found]),
    )


def told(share: int, total: int) -> str:
    """A share with its 95 % limits."""
    found = counted(share, total)
    return f"{found.value:.1%} ({found.lower:.1%} to {found.upper:.1%}) of {total}"


def coverage(all_pairs: Known, precision: float) -> tuple[int, int]:
    """Choose thresholds from a thousand samples of judgements; return how many could, and in how many it was true."""
    chosen = covered = 0
    for seed in range(SPLITS):
        random = np.random.default_rng(seed)
        chance = np.where(all_pairs.pairs <= np.median(all_pairs.pairs), 0.6, 0.4)
        drawn = random.random(len(chance)) < chance
        sample = Judgements(
            *(all_pairs.score[drawn], all_pairs.right[drawn], 1 / chance[drawn], all_pairs.pairs[drawn], 0, "sample")
        )
        try:
            found = calibration.choose(sample, precision)
        except UserError:
            continue
        kept = all_pairs.score > np.array([found.thresholds.of(count) for count in all_pairs.pairs.tolist()])
        truth = all_pairs.right[kept].mean()
        chosen, covered = chosen + 1, covered + bool(truth >= found.applied.lower)
    return chosen, covered


def main(annotations: Path, images: Path) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_coco(Path(folder), annotations, images)
        assert written.names is not None
        run = Run(f"{folder}/run")
        build(run, written.shard, min_area_ratio=0.0)
        there = {row["mask_id"] for row in rows(run)}
        true = {mask: normalise(name) for mask, name in true_names(written.names).items() if mask in there}
        names = mixed(true, np.random.default_rng(0))
        write_pairs(run, names)
        check(run)
        report(run, known(run, true), sum(names[mask] != true[mask] for mask in names))


def report(run: Run, found: Known, wrong: int) -> None:
    """Print precision, recall and false yeses, as controls estimate them and as they are."""
    yes = found.score > 0.5
    right = found.right
    controls: Any = false_yes.measure(run, [0.5])[0].controls
    console.print(f"[bold]embedded[/] (no vision-language model): {len(yes)} pairs, {wrong} of them wrong")
    console.print(f"right among all pairs:   {told(int(right.sum()), len(right))}")
    console.print(f"right among those kept:  {told(int((right & yes).sum()), int(yes.sum()))}")
    console.print(f"kept of the right ones:  {told(int((right & yes).sum()), int(right.sum()))}")
    console.print(f"false yes, true rate:    {told(int((~right & yes).sum()), int((~right).sum()))}")
    console.print(f"false yes, by controls:  {told(controls.kept, controls.controls)}")
    base = right.mean()
    for precision in sorted({round(float(base), 2), round(float(base) + 0.05, 2)}):
        chosen, covered = coverage(found, precision)
        share = f"{covered / chosen:.1%}" if chosen else "none"
        console.print(f"thresholds for {precision:.0%}: {chosen} of {SPLITS} samples allow any, limit true in {share}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
