"""The published scoring protocols by name, and ours. Their rows differ because these rules do (wowseg_facts.md A).

All compute Semantic Similarity and Semantic IoU of a prediction and a true name, averaged over instances. They differ
in what they do to the two texts before, and in what they leave out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pipeline.converted_labels import converted
from pipeline.errors import UsageError
from pipeline.labels import normalise


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A scoring protocol."""

    name: str
    truth: Callable[[str], str]
    """What is compared in place of the true name."""
    prediction: Callable[[str], str]
    """What is compared in place of the predicted text."""
    published: bool
    """Somebody else's protocol, with its quirks: an instance without a prediction is left out of the averages; an empty
    or endless text is compared like any other; several predictions or one that is no text, which their scripts cannot
    have, are refused. Otherwise each of these counts as zero."""
    both_empty: float | None
    """Semantic IoU when neither text has a word; None: their script divides by zero and stops."""
    about: str


def _name_of_ours(text: str) -> str:
    """Normalise a name and each word of it; qualifiers in brackets go, unless nothing else is there."""
    without = re.sub(r"[\s_]*\(.*?\)", "", text) if "(" in text else text
    words = _spaces(without if without == text or normalise(without) else text).split()
    return " ".join(filter(None, map(_word, words)))


_word = lru_cache(1 << 16)(normalise)
"""Names have many words in common."""


def _spaces(text: str) -> str:
    return text.replace("_", " ").replace(":", " ")


def clean_wowseg_truth(label: str) -> str:
    """Return a label as WOW-Seg's scorer compares it, converted before or not (A.2, steps 2 and 3)."""
    if "_(" in label and ")" in label:
        label = re.sub(r"_\(.*?\)", "", label)
    return _spaces(label)


def _clean_osprey_prediction(text: str) -> str:
    """Keep what is between the first and the second colon, without punctuation (A.3)."""
    text = text.strip().removesuffix("</s>").strip()  # the stop string of its conversation template
    if ":" in text:
        text = text.split(":")[1]
    return text.translate(str.maketrans(".:,", "   "))


RR7K_1 = Preset(
    name="rr7k-1",
    truth=_name_of_ours,
    prediction=_name_of_ours,
    published=False,
    both_empty=0.0,
    about="ours: both texts normalised word by word; what is missing, repeated, empty, overlong or no text is zero",
)
WOWSEG = Preset(
    name="wowseg",
    truth=lambda name: clean_wowseg_truth(converted(name)),
    prediction=_spaces,
    published=True,
    both_empty=0.0,
    about="WOW-Seg's: labels lose brackets, hyphens and underscores, predictions only underscores and colons",
)
OSPREY = Preset(
    name="osprey",
    truth=_spaces,
    prediction=_clean_osprey_prediction,
    published=True,
    both_empty=None,
    about="Osprey's: labels keep brackets; of a prediction with a colon only what follows it, stops and commas go",
)
VPMLLM = Preset(
    name="vpmllm",
    truth=_spaces,
    prediction=lambda text: text,
    published=True,
    both_empty=None,
    about="VP-MLLM's: labels as Osprey's, predictions as they are; regions without a line are not counted",
)
PRESETS = {preset.name: preset for preset in (RR7K_1, WOWSEG, OSPREY, VPMLLM)}


def find(name: str) -> Preset:
    """Return the preset of that name. Raises `UsageError` with the names there are."""
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UsageError(f"no preset {name!r}.{hint} There are: {', '.join(PRESETS)}")
