"""A quote, and what was spent already, in words for the terminal."""

from __future__ import annotations

from typing import Any

from pipeline.console import out, tell


def show_quote(quote: Any, before: Any, price: float | None, unit: str, section: str) -> None:
    """Print what asking would cost, given a `stages.quote.Quote` and `Spent`; `price` is money per GPU-hour.

    `unit` is what is asked about, in the plural; `section` the configuration of the engine.
    """
    tell(f"{quote.masks:,} {unit} in {quote.prompts:,} prompts; nothing was asked")
    if quote.prompts and quote.prompt_tokens:
        each, saved = quote.prompt_tokens / quote.prompts, quote.shared_tokens / quote.prompt_tokens
        out.print(
            f"{each:,.0f} prompt tokens each, {quote.prompt_tokens:,} in all, of which a prefix cache saves "
            f"{saved:.0%}; about {quote.generated_tokens:,} generated",
            highlight=False,
        )
    kind = "this run's own rate" if quote.measured else "a declared rate"
    if quote.hours is None:
        tell(f"no rate is known: set {section}.tokens_per_second, or let --limit 200 measure one")
    else:
        tell(f"about {quote.hours:,.2f} h at {quote.tokens_per_second:,.0f} tokens/s ({kind})")
    if quote.gpu_hours is not None:
        money = f", {quote.gpu_hours * price:,.2f} at {price:g} an hour" if price is not None else ""
        tell(f"{quote.gpu_hours:,.2f} GPU-hours on {quote.gpus:g} GPUs{money}")
    if before.masks:
        out.print(
            f"so far: {before.masks:,} {unit} answered in {before.seconds / 3600:,.2f} h, "
            f"{before.gpu_hours:,.2f} GPU-hours",
            highlight=False,
        )
