"""The report as a page: search a category, see its regions; figures; near-synonyms.

All numbers are in the page as JSON, and its script makes of them what is looked at: 7,662 categories are a megabyte.
Names are not trusted: they reach the page as JSON whose `<` is escaped, and are shown as text alone. The page's policy
lets nothing run but its own script, and nothing load but the pictures inside and beside it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from PIL import Image

from benchmark import near_synonyms
from benchmark.data_sets import DataSet
from benchmark.near_synonyms import Pair
from benchmark.semantic_space import LEVELS, SemanticSpace
from benchmark.survey import Survey
from pipeline import pages, regions
from pipeline.pages import escaped

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_BANDS = (regions.FREQUENT, regions.COMMON, regions.RARE)
_PAIRS = 5000
"""Near-synonyms on the page, the most similar; the CSV has all."""

_CAPTIONS = {
    "samples-per-category": "Instances per category, by rank and as a histogram (as the paper's Fig. 6a).",
    "mask-sizes": "Relative mask size: the square root of the mask's share of its image (Fig. 6b).",
    "coarse-groups": "Categories and instances of the coarse tree's two levels (Table 9, Fig. 12).",
    "comparison": "Beside other data sets (Fig. 1c): orange was counted from the files, blue is published.",
    "semantic-space": "Names beside those of ImageNet-21K (Fig. 11). The plot shows a fixed subsample, the shares and "
    "distances are of all names. t-SNE keeps neighbours together; distances between groups mean nothing in it.",
    "samples-by-group": "Samples of every coarse group, chosen by hash (Fig. 13).",
}


class Content(NamedTuple):
    """What the page shows."""

    survey: Survey
    figures: Mapping[str, bytes]
    """PNG by name."""
    sets: Sequence[DataSet]
    space: SemanticSpace | None
    pairs: Sequence[Pair]
    chosen: pa.Table
    """The regions that have pictures, by category."""
    left_out: Sequence[str]


def html(content: Content) -> str:
    """Return the page; pictures are expected beside it, in the folder `pictures`."""
    survey = content.survey
    return pages.filled(
        _TEMPLATE.read_text(encoding="utf-8"),
        beside=True,
        title=escaped(survey.name),
        badges="".join(f'<strong class="badge">{escaped(text)}</strong>' for text in survey.warnings),
        facts=pages.terms(survey.facts),
        numbers=_numbers(survey),
        left_out="".join(f"<li>{escaped(line)}</li>" for line in content.left_out),
        figures="\n".join(_figure(name, content) for name in _CAPTIONS if name in content.figures),
        decisions="".join(f"<option>{escaped(name)}</option>" for name in near_synonyms.counts(())),
        pairs_told=escaped(_pairs_told(content)),
        data=_script_safe(_data(content)),
    )


def _script_safe(value: object) -> str:
    """Return JSON that ends no script element, whatever is in it."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def _numbers(survey: Survey) -> str:
    size = survey.size
    splits = " · ".join(f"{count:,} {name}" for name, count in survey.splits.items())
    told = {"categories": size.categories, "instances": size.instances, "images": size.images}
    counts = "".join(f"<span><b>{number:,}</b> {label}</span>" for label, number in told.items())
    return f"{counts}<small>instances: {escaped(splits)}</small>"


# --- figures ----------------------------------------------------------------------------------------------


def _figure(name: str, content: Content) -> str:
    kind, data = _embedded(content.figures[name], photographs=name == "samples-by-group")
    table = {"comparison": _sets, "semantic-space": _space}.get(name)
    return (
        f'<figure id="{name}"><img alt="" src="data:image/{kind};base64,{data}"><figcaption>{_CAPTIONS[name]} '
        f"<small>{name}.png</small></figcaption>{table(content) if table else ''}</figure>"
    )


def _embedded(png: bytes, *, photographs: bool) -> tuple[str, str]:
    """Return a figure's kind and base64; photographs as JPEG, an eighth of the size."""
    if not photographs:
        return "png", base64.b64encode(png).decode()
    sink = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(sink, "JPEG", quality=85)
    return "jpeg", base64.b64encode(sink.getvalue()).decode()


def _sets(content: Content) -> str:
    rows = [
        (row.name, *(_count(n) for n in (row.categories, row.images, row.masks)), row.source, row.note)
        for row in content.sets
    ]
    return _table(("data set", "categories", "images", "masks", "source", "note"), rows)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _space(content: Content) -> str:
    if content.space is None:
        return ""
    sides = {
        "ImageNet-21K's names that have a category as near": content.space.covered,
        "categories that have a name of ImageNet-21K as near": content.space.known,
        "categories that have another category as near": content.space.apart,
    }
    rows = [
        (text, *(f"{100 * near.share(level):.1f} %" for level in LEVELS), f"{near.median_distance:.3f}")
        for text, near in sides.items()
    ]
    return _table(("share of", *(f"cosine ≥ {level:g}" for level in LEVELS), "median distance to the nearest"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td><bdi>{escaped(cell)}</bdi></td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pairs_told(content: Content) -> str:
    if content.space is None:
        return "Names were not compared."
    found = content.pairs
    told = ", ".join(f"{count:,} {name}" for name, count in near_synonyms.counts(found).items() if count) or "none"
    shown = f"; the {_PAIRS:,} most similar are here, near-synonyms.csv has all" if len(found) > _PAIRS else ""
    return f"Pairs of names with a cosine of {near_synonyms.LEAST:g} or more: {told}{shown}."


# --- data -------------------------------------------------------------------------------------------------


def _data(content: Content) -> dict[str, Any]:
    """Return what the script reads: columns, categories by their place; ids as text, which JavaScript keeps exactly."""
    kinds = content.survey.categories.to_pylist()
    places = {row["category"]: place for place, row in enumerate(kinds)}
    groups = sorted({(row["coarse_primary"] or "", row["coarse_secondary"] or "") for row in kinds})
    of_group = {group: place for place, group in enumerate(groups)}
    shown = content.pairs[:_PAIRS]
    return {
        "names": [pages.visible(row["category"]) for row in kinds],
        "groups": groups,
        "bands": _BANDS,
        "group": [of_group[row["coarse_primary"] or "", row["coarse_secondary"] or ""] for row in kinds],
        "band": [_BANDS.index(row["frequency"]) for row in kinds],
        "instances": [row["instances"] for row in kinds],
        "images": [row["images"] for row in kinds],
        "size": [round(row["size"] or 0, 4) for row in kinds],
        "accepted": {
            str(place): [[pages.visible(name) for name in row[kind]] for kind in ("aliases", "hypernyms")]
            for place, row in enumerate(kinds)
            if row["aliases"] or row["hypernyms"]
        },
        "pairs": [[places[p.first], places[p.second], round(p.similarity, 3), p.decision] for p in shown],
        "samples": _samples(content.chosen, places),
    }


def _samples(chosen: pa.Table, places: Mapping[str, int]) -> list[list[list[Any]]]:
    """Return for every category picture, instance, image and share of the image of its samples."""
    found: list[list[list[Any]]] = [[] for _ in places]
    for category, rows in groupby(chosen.to_pylist(), key=lambda row: row["category"]):
        found[places[category]] = [
            [str(row["instance_id"]), str(row["image_id"]), float(f"{row['area_ratio']:.2g}")] for row in rows
        ]
    return found
