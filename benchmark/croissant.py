"""`croissant.json`: the release described for machines, in Croissant 1.1 with its RAI fields (MLCommons)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from benchmark.stats import Stats
from pipeline import regions
from pipeline.regions import RegionSamples, Table, Written

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification prescribes."""

_TYPES = {pa.int64(): "cr:Int64", pa.int32(): "cr:Int32", pa.float64(): "cr:Float64", pa.bool_(): "sc:Boolean"}
_KEYS: Mapping[Table, str] = {"instances": "instance_id", "images": "image_id", "categories": "category"}


def write(stats: Stats, samples: RegionSamples, known: Mapping[str, Written]) -> str:
    """Return the content of the file; `known` has the size and hash of every data file."""
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": stats.name,
        "description": "Regions of images, each a mask of SA-1B with the name of what it shows and where that is from.",
        "version": stats.version,
        "datePublished": stats.date,
        "license": "LICENSE.md",
        "url": "README.md",
        "citeAs": f"{stats.name}, {stats.date}, made by {stats.made_by}",
        **_rai(stats),
        "distribution": [_file(written) for _, written in sorted(known.items())] + [_set(t) for t in regions.SCHEMAS],
        "recordSet": [_records(table, samples) for table in regions.SCHEMAS],
    }
    return msgspec.json.format(msgspec.json.encode(described), indent=1).decode() + "\n"


def _rai(stats: Stats) -> dict[str, Any]:
    by = ", ".join(f"{name}: {count:,}" for name, count in stats.screened_by.items())
    models = ", ".join(stats.namer_models)
    checks = ", ".join(stats.verifier_models) or "none"
    return {
        "rai:dataCollection": "Photographs and masks of SA-1B; nothing was collected anew.",
        "rai:dataCollectionType": ["Secondary Data Analysis", "Others"],
        "rai:dataAnnotationProtocol": (
            f"Names by models ({models}); frequent ones checked by another ({checks}); screened by: {by}."
        ),
        "rai:machineAnnotationTools": [*stats.namer_models, *stats.verifier_models],
        "rai:dataLimitations": "Names were proposed by models and only deleted by people; tiny masks were left out.",
        "rai:dataBiases": "Categories follow what the naming models say and what SA-1B shows: a long tail.",
        "rai:personalSensitiveInformation": (
            "Photographs may show people. Images marked private in screening or taken down later are not in it."
        ),
        "rai:dataUseCases": "Evaluation of region recognition; `train` for training.",
        "rai:dataReleaseMaintenancePlan": "Take-downs are carried into every later version.",
    }


def _file(written: Written) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"data/{written.name}",
        "name": written.name,
        "contentUrl": f"data/{written.name}",
        "contentSize": f"{written.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": written.sha256,
    }


def _set(table: Table) -> dict[str, Any]:
    pattern = f"data/{table}.parquet" if table == "categories" else f"data/{table}-*.parquet"
    return {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "encodingFormat": "application/x-parquet",
        "includes": pattern,
    }


def _records(table: Table, samples: RegionSamples) -> dict[str, Any]:
    fields = [field for field in regions.SCHEMAS[table] if field.name != "image" or samples.has_images]
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "key": {"@id": f"{table}/{_KEYS[table]}"},
        "field": [_field(table, field) for field in fields],
    }


def _field(table: Table, field: pa.Field) -> dict[str, Any]:
    told = {
        "@type": "cr:Field",
        "@id": f"{table}/{field.name}",
        "description": field.metadata[b"meaning"].decode(),
    }
    if field.name == "image":
        transform = {"transform": {"jsonPath": "bytes"}}
        return told | {"dataType": "sc:ImageObject", "source": _source(table, field.name) | transform}
    if pa.types.is_struct(field.type):
        inner = [_inner(table, field.name, part) for part in field.type]
        return told | {"subField": inner}
    return told | _typed(field.type) | {"source": _source(table, field.name)} | _reference(table, field.name)


def _inner(table: Table, outer: str, field: pa.Field) -> dict[str, Any]:
    source = _source(table, outer) | {"transform": {"jsonPath": field.name}}
    return {"@type": "cr:Field", "@id": f"{table}/{outer}/{field.name}", **_typed(field.type), "source": source}


def _source(table: Table, column: str) -> dict[str, Any]:
    return {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column}}


def _typed(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {**_typed(kind.value_type), "isArray": True, "arrayShape": "-1"}
    return {"dataType": _TYPES.get(kind, "sc:Text")}


def _reference(table: Table, column: str) -> dict[str, Any]:
    to = {"image_id": "images", "category": "categories"}.get(column) if table == "instances" else None
    return {"references": {"field": {"@id": f"{to}/{column}"}}} if to else {}
