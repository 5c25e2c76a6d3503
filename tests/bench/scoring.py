"""`make bench`: what scoring 200,000 predictions costs, beside the authors' way of two encodings per instance.

Simulated: categories and predictions (two-word names with Zipf's frequencies; 30,000 distinct predictions, most of them
the name itself or that of a relative). Real: the sentence embedding model and everything of the scorer, each run in a
process of its own, from a Parquet file to the result with intervals. The authors' way is measured on a sample.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Goal, goals, hand_over

INSTANCES, IMAGES, CATEGORIES, DISTINCT, SAMPLE = 200_000, 80_000, 7_662, 30_000, 200
FIRST = Goal(8, f"{INSTANCES:,} predictions, first run, beside two encodings an instance", at_least=50)
NEXT = Goal(8, f"{INSTANCES:,} predictions, next run, beside two encodings an instance", at_least=500)
OFF = Goal(8, "similarities, largest difference from two encodings an instance", "", at_most=1e-5)
MEMORY = Goal(8, f"memory for {INSTANCES:,} predictions", "GB", at_most=2)
NOUNS = """
apple arch ball banner barrel basket beam bench bird board boat bolt book bottle bowl box brick bridge broom brush
bucket building bus button cabin cable cage camera candle canopy cap car carpet cart chair chimney clock cloth coat
column container crate cup curtain desk dish dog door drum engine fence flag flower fork fountain frame fruit gate
glass glove hat helmet horse house jacket jar kettle knife ladder lamp leaf lid lock mask mat mirror mug net onion
oven paddle panel pipe plant plate pole pot rail ring roof rope rug sail scarf screen seat shelf shirt shoe sign
sink skirt sleeve spoon statue stone stool table tank tent tile tire tower tray tree truck umbrella vase wall watch
wheel window
"""
MODIFIERS = """
beach brass bread bronze camping canvas church city clay coffee copper corner cotton country dining dinner door farm
fire fishing folding garden glass gold grass hanging harbor hotel iron kitchen leather market metal mountain office
old paper park plastic pool railway red river rubber safety school ship shop silver stadium station steel storage
straw street striped table tea temple traffic travel village wall water wedding white wicker winter wire wool
"""
console = Console(width=110)


def simulate(folder: Path) -> None:
    """Write truth, categories and predictions."""
    generator = np.random.default_rng(7)
    names = [f"{modifier} {noun}" for noun in NOUNS.split() for modifier in MODIFIERS.split()]
    names = [names[i] for i in generator.permutation(len(names))[:CATEGORIES]]
    shares = 1 / np.arange(1, CATEGORIES + 1)
    true = np.concatenate(
        [np.arange(CATEGORIES), generator.choice(CATEGORIES, INSTANCES - CATEGORIES, p=shares / shares.sum())]
    )
    others = [f"{m} {name}" for name in names for m in ("small", "large", "broken", "blue")]
    texts = [*names, *(others[i] for i in generator.permutation(len(others))[: DISTINCT - CATEGORIES])]
    kind = generator.random(INSTANCES)
    said = np.where(kind < 0.5, true, np.where(kind < 0.8, generator.integers(CATEGORIES, size=INSTANCES), 0))
    odd = kind >= 0.8
    said[odd] = CATEGORIES + np.resize(np.arange(DISTINCT - CATEGORIES), odd.sum())
    models = pa.array(["qwen2.5-vl-72b@1", "qwen2.5-vl-72b@1+dino"])
    truth = {
        "instance_id": np.arange(INSTANCES),
        "image_id": generator.integers(IMAGES, size=INSTANCES),
        "category": pa.array(names).take(pa.array(true)),
        "area_ratio": 10 ** generator.uniform(-4, 0, INSTANCES),
        "coarse_primary": pa.array([f"group {i}" for i in range(7)]).take(pa.array(true % 7)),
        "namer_models": pa.array([[m] for m in models.to_pylist()]).take(pa.array(true % 2)),
        "verifier_model": pa.array([None, "internvl3-78b@1"]).take(pa.array(true % 2)),
    }
    bands = pa.array(["frequent", "common", "rare"]).take(pa.array(np.arange(CATEGORIES) * 3 // CATEGORIES))
    accepted = {"aliases": [[f"{name} thing"] for name in names], "hypernyms": [[name.split()[-1]] for name in names]}
    pq.write_table(pa.table(truth), folder / "truth.parquet")
    pq.write_table(pa.table({"category": names, "frequency": bands, **accepted}), folder / "categories.parquet")
    answers = {"instance_id": np.arange(INSTANCES), "text": pa.array(texts).take(pa.array(said))}
    pq.write_table(pa.table({**answers, "model": ["qwen3-vl"] * INSTANCES}), folder / "predictions.parquet")


def ours(folder: Path) -> None:
    """Score once, in this process; print what it came to and took as JSON."""
    from benchmark.predictions import locate, read
    from benchmark.presets import WOWSEG
    from benchmark.score import score
    from benchmark.similarity import Similarity
    from pipeline.wordnet import open_wordnet

    truth, categories = (pq.read_table(folder / f"{name}.parquet") for name in ("truth", "categories"))
    predictions = read(folder / "predictions.parquet")
    result = score(
        truth,
        locate(predictions, truth),
        WOWSEG,
        categories=categories,
        similarity=Similarity(folder=folder / "embeddings"),
        wordnet=open_wordnet(),
        model=predictions.model,
    )
    sample = result.per_instance["similarity"].to_numpy()[:: INSTANCES // SAMPLE]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    told = {"gigabytes": peak, "sample": sample.tolist(), "scores": [s.value for s in result.scores.values()]}
    sys.stdout.write(json.dumps(told) + "\n")


def run(folder: Path) -> dict[str, Any]:
    """Score in a fresh process; seconds from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tests.bench.scoring", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - start}


def theirs(folder: Path) -> tuple[float, list[float]]:
    """Do as the authors' scorers do on a sample: encode both texts, alone, for each instance (wowseg_facts.md A.2)."""
    from sentence_transformers import SentenceTransformer, util

    from pipeline.embeddings import model_files

    model = SentenceTransformer(str(model_files().folder), device="cpu")
    model.encode("warm", convert_to_tensor=True)
    step = INSTANCES // SAMPLE
    texts = pq.read_table(folder / "predictions.parquet")["text"].to_pylist()[::step]
    names = pq.read_table(folder / "truth.parquet")["category"].to_pylist()[::step]
    start = time.perf_counter()
    found = []
    for text, name in zip(texts, names, strict=True):
        one, other = (model.encode(t, convert_to_tensor=True, show_progress_bar=False) for t in (text, name))
        found.append(float(util.cos_sim(one, other)[0][0]))
    return (time.perf_counter() - start) / len(texts), found


def main() -> list[Figure]:
    """Print the figures; return those that were asked for."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder)
        first, again = run(folder), run(folder)
        each, found = theirs(folder)
    slow = each * INSTANCES
    off = max(
        float(np.abs(np.array(first["sample"]) - found).max()), float(np.abs(np.array(again["sample"]) - found).max())
    )
    console.print(
        f"{INSTANCES:,} predictions, {DISTINCT:,} distinct texts, {CATEGORIES:,} categories ([bold]simulated[/])"
    )
    table = Table("", "seconds", "× theirs", "peak GB", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    told = f"two encodings an instance ({SAMPLE} measured, {each * 1000:.1f} ms each; the rest reckoned)"
    table.add_row(told, f"{slow:,.0f}", "1", "")
    for label, one in (("ours, first run", first), ("ours, next run", again)):
        table.add_row(label, f"{one['seconds']:,.1f}", f"{slow / one['seconds']:,.0f}", f"{one['gigabytes']:.2f}")
    console.print(table)
    console.print(
        f"largest difference from theirs in the sample: {off:.1e}; next = first: {first['scores'] == again['scores']}"
    )
    memory = max(one["gigabytes"] for one in (first, again))
    faster = FIRST.reached(slow / first["seconds"]), NEXT.reached(slow / again["seconds"])
    reached = [*faster, OFF.reached(off), MEMORY.reached(memory)]
    console.print(goals(reached))
    return reached


if __name__ == "__main__":
    ours(Path(sys.argv[1])) if len(sys.argv) > 1 else hand_over(main())
