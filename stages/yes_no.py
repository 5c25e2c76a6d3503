"""What a model says to a yes/no question: its probabilities where it tells them, else its words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Outcome = Literal["yes", "no", "unclear"]

_EDGE = re.compile(r"^[\W_Ġ▁Ċ]+|[\W_]+$")  # blanks, quotes, asterisks, and how vocabularies spell a blank
_WORD = re.compile(r"\b(?:yes|no)\b")
_LOOK_AT = 200  # characters of an answer that was asked to be one word


class Reading(NamedTuple):
    """An answer to a yes/no question."""

    outcome: Outcome
    evidence: Literal["logprobs", "text"]
    p_yes: float | None
    """Summed over all tokens that say yes, 0 to 1; None without log probabilities."""
    p_no: float | None
    leftover: float | None
    """What is neither, 0 to 1: of the tokens told, and of those that were not."""

    @property
    def score(self) -> float | None:
        """p_yes / (p_yes + p_no), or what the words say, 0 to 1; None where neither yes nor no was said."""
        if self.evidence == "text" or self.p_yes is None or self.p_no is None:
            return {"yes": 1.0, "no": 0.0, "unclear": None}[self.outcome]
        both = self.p_yes + self.p_no
        return self.p_yes / both if both else None


def read(text: str | None, likeliest: Sequence[Mapping[str, Any]] | None) -> Reading:
    """Read an answer from its text and the tokens that could have been its first word, {token, logprob} each.

    Tokens without a number are passed over; where none has one, the text alone counts.
    """
    told = {one["token"]: p for one in likeliest or () if (p := _probability(one["logprob"])) is not None}
    if not told:
        return Reading(_spoken(text or ""), "text", None, None, None)
    p_yes, p_no = (sum(p for token, p in told.items() if _word(token) == word) for word in ("yes", "no"))
    total = max(1.0, p_yes + p_no)  # rounding, or a server's own idea of a probability
    p_yes, p_no = p_yes / total, p_no / total
    outcome: Outcome = "yes" if p_yes > p_no else "no" if p_no > p_yes else "unclear"
    return Reading(outcome, "logprobs", p_yes, p_no, max(0.0, 1 - p_yes - p_no))


def _probability(logprob: float | None) -> float | None:
    return None if logprob is None or math.isnan(logprob) else math.exp(min(logprob, 0.0))


def _word(token: str) -> str:
    return _EDGE.sub("", token).lower()


def _spoken(text: str) -> Outcome:
    """Return what the words say: the only one of the two that occurs; both is neither."""
    found = set(_WORD.findall(text[:_LOOK_AT].lower()))
    if found == {"yes"}:
        return "yes"
    return "no" if found == {"no"} else "unclear"
