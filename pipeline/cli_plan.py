"""`rr7k plan`: what a release of a wanted size takes, by what a pilot run came to."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli_options import RunOption, SetOption, load_config
from pipeline.console import err, out, tell
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from stages.rates import Rate
    from stages.recipe import Amount, Need, Recipe
    from stages.richness import Limits
    from stages.yields import Pilot

PRESET = "rr7k"


def plan(
    run: RunOption,
    images: Annotated[int, typer.Option(min=1, help="Images wanted, each with something released.")] = 80_000,
    instances: Annotated[int, typer.Option(min=1, help="Instances wanted.")] = 200_000,
    categories: Annotated[int, typer.Option(min=1, help="Categories wanted.")] = 7_662,
    cap: Annotated[
        int | None,
        typer.Option("--per-category-cap", min=1, help="Release so many of a category at most.", show_default="none"),
    ] = None,
    confirmed: Annotated[
        str | None,
        typer.Option(
            metavar="LOW-HIGH",
            help="Share of the asked that stage 2 keeps, as in 0.6-0.8, in place of the pilot's.",
            show_default="the pilot's",
        ),
    ] = None,
    released: Annotated[
        str | None,
        typer.Option(metavar="LOW-HIGH", help="Share that people keep, likewise.", show_default="the pilot's"),
    ] = None,
    config: Annotated[str, typer.Option("--config", help="TOML file or preset of the release.")] = PRESET,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan a release by a pilot: how many images, shards, GPU-hours and hours of people it takes, with limits of 95 %.

    A pilot is a small run with the settings of the large one, gone through all stages: [bold]--images 500[/], and for
    stage 2 [bold]head_tail.head_min_count=2[/], or hardly anything would be asked. Asks no model, changes nothing.
    """
    from pipeline.run import Run
    from stages import rates, yields
    from stages.recipe import Goals, Planner, Rules, Stated

    target, settings = Run(run), load_config(config, overrides or [])
    stated = Stated(_share("--confirmed", confirmed), _share("--released", released))
    rules = Rules(
        head_min_count=settings.head_tail.head_min_count,
        control_share=settings.verify.control_share,
        dropped_share=settings.queue.dropped_share,
        gold_share=settings.queue.gold_share,
        votes=settings.screening.votes,
        audited=settings.audit.size,
        cap=cap,
    )
    with err.status("reckoning"):
        pilot = yields.read(target)
        planner = Planner(pilot, rules, stated)
        made = planner.plan(Goals(images, instances, categories))
        asked = rates.asked(
            settings.names, settings.namer, settings.verify, settings.verifier, ground=settings.ground.wanted
        )
        costs = [rates.gpu(target, step) for step in asked]
        people = rates.person(target)
        differ = yields.differences(target, settings.manifest)
    if as_json:
        sys.stdout.write(json.dumps(_plain(pilot, made, costs, people, differ), indent=2) + "\n")
        return
    _show_pilot(pilot, made, differ)
    _show_needs(made)
    if made.images is not None:
        _show_amounts(made, costs, people)
        _show_instances(made)


def _share(option: str, text: str | None) -> Limits | None:
    """Read a range of shares; the value is its middle."""
    from stages.richness import Limits

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise UsageError(f"{option} {text}: write it as LOW-HIGH in 0 to 1, such as 0.6-0.8.")
    return Limits((low + high) / 2, low, high)


def _hours(made: Recipe, rate: Rate) -> Amount | None:
    """Return the hours of a step for the whole, of GPUs or, for looks, of people."""
    from stages.recipe import Amount

    amount = {"mask": made.masks, "image": made.images, "question": made.questions, "look": made.looks}[rate.unit]
    if amount is None or rate.limits is None:
        return None
    unit = 3600 if rate.unit == "look" else 1
    value, lower, upper = (limit / unit for limit in rate.limits)
    last = None if amount.upper is None else amount.upper * upper
    return Amount(amount.value * value, amount.lower * lower, last)


# --- JSON -------------------------------------------------------------------------------------------------


def _plain(pilot: Pilot, made: Recipe, costs: list[Rate], people: Rate, differ: list[str]) -> dict[str, Any]:
    import msgspec

    from stages.recipe import FEW

    def work(rate: Rate) -> dict[str, Any]:
        limits = rate.limits and rate.limits._asdict()
        hours = msgspec.to_builtins(_hours(made, rate))
        return {"step": rate.step, "unit": rate.unit, "each": limits, "source": rate.source, "hours": hours}

    about = {
        "images": pilot.images,
        "masks": int(pilot.masks.sum()),
        "pairs": len(pilot.image),
        "categories": len(pilot.counts),
        "made_up": pilot.made_up,
        "missing": pilot.missing,
        "settings_differ": differ,
        "too_few_images_for_limits": pilot.images < FEW,
    }
    plan = msgspec.to_builtins(made)
    return {"pilot": about, **plan, "gpu_hours": [work(rate) for rate in costs], "person_hours": work(people)}


# --- terminal ---------------------------------------------------------------------------------------------


def _show_pilot(pilot: Pilot, made: Recipe, differ: list[str]) -> None:
    from stages.recipe import FEW

    table = _table("the pilot, per image", "mean", "95 %", "of")
    for found in made.yields:
        table.add_row(found.name, f"{found.value:,.3g}", f"{found.lower:,.3g} – {found.upper:,.3g}", found.of)
    out.print(table, highlight=False)
    for told in pilot.made_up:
        tell(f"not real: {told}")
    for told in differ:
        tell(f"another recipe: {told}; the plan is by the pilot's")
    for why in pilot.missing.values():
        tell(f"missing: {why}")
    if pilot.images < FEW:
        tell(f"{pilot.images:,} images are too few for limits of 95 %: a pilot has some hundred")
    out.print()


def _show_needs(made: Recipe) -> None:
    table = _table("goal", "images needed", "95 %", "")
    for name, need in made.needs.items():
        note = need.why or ("◄ binds" if name == made.binding else "")
        table.add_row(f"{need.goal:,} {name}", *_needed(need), note)
    out.print(table, highlight=False)
    out.print()


def _needed(need: Need) -> tuple[str, str]:
    if need.lower is None:
        return "not known", ""
    upper = "?" if need.upper is None else f"{need.upper:,}"
    return "not known" if need.value is None else f"{need.value:,}", f"{need.lower:,} – {upper}"


def _show_amounts(made: Recipe, costs: list[Rate], people: Rate) -> None:
    known = made.binding and made.needs[made.binding].value
    table = _table(f"for the {made.binding}", "expected" if known else "at least", "95 %", "by")
    rows = {
        "images": (made.images, f"as many as {made.shards:,} of SA-1B's 1,000 shards hold"),
        "masks to name": (made.masks, ""),
        "questions of stage 2": (made.questions, "controls included"),
        "looks of people": (made.looks, "known answers and the audit included, conflicts not"),
        "instances released": (made.instances, "at the expected images"),
        "categories released": (made.categories, "at the expected images"),
    }
    for name, (amount, note) in rows.items():
        table.add_row(name, *_amount(amount), note)
    for rate in costs:
        table.add_row(f"GPU-hours, {rate.step}", *_amount(_hours(made, rate)), rate.source)
    table.add_row("hours of one person", *_amount(_hours(made, people)), people.source)
    out.print(table, highlight=False)
    if made.at_least:
        tell("at least that: a goal whose images cannot be told may need more")


def _show_instances(made: Recipe) -> None:
    """Print what of the instances is too much, and what a cap does to them."""
    if found := made.capped:
        tell(
            f"the cap of {found.cap:,}: {found.thrown_away:,.0f} of {found.instances_before:,.0f} instances are not "
            f"released, {found.instances:,.0f} are; {found.images_lost:,.0f} images have nothing left"
        )
    elif made.instances and made.masks and made.images and made.instances.value > 2 * made.needs["instances"].goal:
        times = made.instances.value / made.needs["instances"].goal
        each = made.masks.value / made.images.value
        tell(
            f"{times:,.1f} times the instances wanted: about {each / times:,.1f} of the {each:,.1f} masks an image "
            "would give them; try a pilot with fewer, manifest.max_masks_per_image"
        )


def _amount(found: Amount | None) -> tuple[str, str]:
    if found is None:
        return "not known", ""
    upper = "?" if found.upper is None else _number(found.upper)
    return _number(found.value), f"{_number(found.lower)} – {upper}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    for column in table.columns[1:3]:
        column.justify = "right"
    return table
