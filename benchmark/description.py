"""The files by which a release explains itself: statistics, data card, licence notes, Croissant, checksums."""

from __future__ import annotations

from pathlib import Path

from benchmark import card, checksums, croissant, drafts, stats
from pipeline import files, regions


def write(draft: Path, made: stats.Stats) -> None:
    """Write them into a draft whose data files are all there."""
    samples, known = regions.RegionSamples(draft), drafts.finished(draft)
    texts = {
        stats.FILE: stats.as_json(made),
        "README.md": card.write(made, samples),
        "LICENSE.md": card.licence(made),
        "croissant.json": croissant.write(made, samples, known),
    }
    place = files.Folder(str(draft))
    for name, text in texts.items():
        place.replace(name, text.encode())
    place.replace(checksums.FILE, checksums.of(draft, known).encode())
