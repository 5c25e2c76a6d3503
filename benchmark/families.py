"""Which models are relatives: built on each other, so that one's labels are not neutral ground for the other.

What each is built on: wowseg_facts.md C.1 (InternVL3, and its Qwen2.5 language model), A.7 Table 8 (WOW-Seg, PAM), G.1
(the labellers); the rest by the publishers' names.
"""

from __future__ import annotations

import re

_FAMILIES: dict[str, tuple[str, ...]] = {
    r"qwen": ("Qwen",),
    r"intern[-_ ]?vl[-_ ]?(2[._]5|3)": ("InternVL", "Qwen"),
    r"intern[-_ ]?vl": ("InternVL",),
    r"wow[-_ ]?seg": ("InternVL", "Qwen"),
    r"\bpam\b|perceive[-_ ]?anything": ("Qwen",),
    r"grounding[-_ ]?dino|grounded[-_ ]?sam": ("Grounding DINO",),
    r"efficientnet|^embedded": ("embedded",),
    r"osprey": ("Osprey",),
    r"sphinx|draw[-_ ]?and[-_ ]?understand|vp[-_ ]?(llava|mllm)": ("VP-MLLM",),
    r"gpt[-_ ]?\d|openai": ("GPT",),
    r"gemini|gemma": ("Gemini",),
    r"claude": ("Claude",),
}


def families(model: str) -> frozenset[str]:
    """Return the families of a model by its name; none for one that is not known."""
    return frozenset(
        name for pattern, names in _FAMILIES.items() if re.search(pattern, model, re.IGNORECASE) for name in names
    )
