"""The data card, `README.md`, and the notes on licences: every number in them is counted, none is typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from benchmark.stats import Audit, Moves, Share, Size, Stats
from pipeline import regions
from pipeline.regions import RegionSamples

_TEMPLATES = Path(__file__).parent / "templates"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
"""The hub's own classes of size."""

_EMBEDDED = "The images are in the column `image` of the table `images`."
_REFERENCED = """The images are not here: `shard` and `shard_offset` say where they lie in SA-1B's own files, `sha256`
what they are. `rr7k hydrate . --shards PATH --out DIR` makes a copy that holds them. Scoring needs no pixels."""

_STRATA = """head: a frequent category, checked by the second model; tail: a rare one, not checked; flagged: the rules
for the namers doubted it; dropped: the second model said no, and people kept it. All: weighted by the pairs of each."""

_HOLDS = {
    "embed": "This release **holds copies of SA-1B's photographs**.",
    "reference": "This release holds no photograph, only where each lies in SA-1B's own files.",
}


def write(stats: Stats, samples: RegionSamples) -> str:
    """Return the card of a release: YAML with the configurations of the library `datasets`, then text."""
    first = samples.dataset("categories").head(1, columns=["category"])["category"][0].as_py()
    total = stats.total
    return _template("card.md").substitute(
        name=stats.name,
        version=stats.version,
        date=stats.date,
        made_by=stats.made_by,
        size_category=next((name for most, name in _SIZES if total.instances < most), _LARGEST),
        configs="\n".join(_configs(stats)),
        warnings="".join(f"> {line}\n\n" for line in _warnings(stats)),
        instances=f"{total.instances:,}",
        images=f"{total.images:,}",
        categories=f"{total.categories:,}",
        category=ascii(first).replace("`", r"\x60"),  # a name must not end the block of code
        split=next(name for name in stats.splits if name != "mini"),
        pixels=_EMBEDDED if stats.images == "embed" else _REFERENCED,
        columns="\n\n".join(_columns(stats)),
        provenance="\n".join(_provenance(stats)),
        audit="\n\n".join(_audit(run, found) for run, found in stats.audit.items()),
        near_duplicates=(
            "; train images whose difference hash is near that of a test image were left out"
            if stats.near_duplicates_checked
            else ""
        ),
        moves=_moves(stats.moves),
        splits="\n".join(f"| {name} | {_size(size)} |" for name, size in [*stats.splits.items(), ("all", total)]),
        frequency=_listed(stats.frequency),
        outside_the_tree=_outside(stats),
        outcomes="\n".join(f"| {name} | {count:,} |" for name, count in stats.outcomes.items()),
        pairs=f"{stats.pairs:,}",
        conflicts=_listed(stats.conflicts) or "none",
    )


def licence(stats: Stats) -> str:
    """Return the notes on licences, which say what was not verified."""
    return _template("licence.md").substitute(holds=_HOLDS[stats.images])


def _template(name: str) -> Template:
    return Template((_TEMPLATES / name).read_text(encoding="utf-8"))


def _configs(stats: Stats) -> Iterator[str]:
    """Yield the YAML that tells the library `datasets` which files are what."""
    names = [name for name in stats.splits if name != "mini"]
    for table in ("instances", "images"):
        yield from _config(table, {name: f"{table}-{name}-*" for name in names}, default=table == "instances")
        if "mini" in stats.splits:
            yield from _config(f"{table}-mini", {"test": f"{table}-test-mini-*"})
    yield from _config("categories", {"full": "categories"})  # `all` is reserved


def _config(name: str, files: Mapping[str, str], *, default: bool = False) -> Iterator[str]:
    yield f"- config_name: {name}"
    if default:
        yield "  default: true"
    yield "  data_files:"
    for split, path in files.items():
        yield from (f"  - split: {split}", f'    path: "data/{path}.parquet"')


def _warnings(stats: Stats) -> Iterator[str]:
    if stats.simulated:
        yield "**Simulated.** A program answered in place of people. This release shows how one looks, no more."
    if stats.unscreened:
        count = stats.screened_by.get("nobody", 0)
        yield f"**Not screened.** Nobody has looked at {count:,} of the instances (`screened_by` = `nobody`)."
    if count := stats.namer_engines.get("embedded", 0):
        yield f"**Embedded engine.** {count:,} names come from an ImageNet classifier meant for trying; most are wrong."


def _columns(stats: Stats) -> Iterator[str]:
    """Yield a table of the columns of each kind of file."""
    for table, schema in regions.SCHEMAS.items():
        files = table if table == "categories" else f"{table}-*"
        lines = [f"`data/{files}.parquet`:", "", "| column | type | |", "|---|---|---|"]
        for field in schema:
            if field.name != "image" or stats.images == "embed":
                kind = str(field.type).replace("item: ", "")
                lines.append(f"| `{field.name}` | `{kind}` | {field.metadata[b'meaning'].decode()} |")
        yield "\n".join(lines)


def _provenance(stats: Stats) -> Iterator[str]:
    counts = {
        "screened by": stats.screened_by,
        "opinions of the namers": stats.agreement,
        "named by": stats.namer_models,
        "checked by": stats.verifier_models,
        "coarse group": {name: sum(inner.values()) for name, inner in stats.coarse.items()},
    }
    for kind, found in counts.items():
        yield from (f"| {kind}: {_cell(name)} | {count:,} |" for name, count in found.items())
    yield f"| judged again in the audit | {stats.audited:,} |"


def _cell(text: str) -> str:
    """Escape what would end a cell or be markup: names come from models and files."""
    return "".join(f"&#{ord(char)};" if char in "\\`*<>|[]&$" else char for char in text).replace("\n", " ")


def _audit(run: str, audit: Audit | None) -> str:
    """Return what the blind second look at a run found, by stratum and weighted by what these hold."""
    told = f"Share of right names in {_cell(run)}, by a blind second look at a sample"
    if audit is None or audit.overall.share is None:
        return f"{told}: not measured."
    program = f"{audit.simulated:,} of the judgements are a program's" if audit.simulated else ""
    notes = [f"{audit.waiting:,} wait", f"{audit.unresolved:,} are judged neither right nor wrong", program]
    rows = [_judged(_cell(name), share) for name, share in audit.strata.items()] + [_judged("**all**", audit.overall)]
    head = ["| | judged | right | 95 % limits |", "|---|---|---|---|"]
    return "\n".join([f"{told} ({', '.join(filter(None, notes))}):", "", *head, *rows, "", _STRATA])


def _judged(name: str, found: Share) -> str:
    right = "not measured" if found.share is None else f"{found.share:.1%}"
    return f"| {name} | {found.observations:,} | {right} | {found.lower:.1%} to {found.upper:.1%} |"


def _moves(moves: Moves | None) -> str:
    """Say what became of an earlier release's splits."""
    if moves is None:
        return ""
    told = [f"{count:,} {fate}" for fate, count in moves.images.items()]
    mini = f"{moves.mini_kept:,} stay in `mini`, {moves.mini_left:,} left it, {moves.mini_new:,} came in"
    return f" Of {moves.since}'s images {'; '.join(told)}. {moves.new:,} images are new. {mini}."


def _outside(stats: Stats) -> str:
    count = len(stats.outside_the_tree)
    return f" {count:,} of them have no coarse group; `stats.json` lists these." if count else ""


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _size(size: Size) -> str:
    return f"{size.instances:,} | {size.images:,} | {size.categories:,}"
