"""A server that says yes or no to what a region is, with the probabilities of both, by the bytes of its pictures."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from naming_server import NamingServer, completion, name_of

from pipeline import tables
from pipeline.run import Run

KNOWN = {"cat": 0.9, "cup of coffee": 0.9, "airplane": 0.1}
"""What the preflight asks about."""

_ASKED = re.compile(r"in the image (?:an? )?(.*)\? Please answer yes or no\.$")


def belief(pictures: list[str], category: str) -> float:
    """A probability of yes that depends on what is shown and asked; of wrong names of the tests always low."""
    if category in KNOWN:
        return KNOWN[category]
    return 0.05 + 0.9 * hashlib.sha256("".join([*pictures, category]).encode()).digest()[0] / 255


class CheckingServer(NamingServer):
    """Answers the yes/no question; `texts` holds every question, `answered` counts them by picture and category."""

    def __init__(self, delay: float = 0.0, port: int = 0) -> None:
        super().__init__(delay, port)
        self.belief: Callable[[list[str], str], float] = belief
        self.logprobs: Callable[[float], list[dict[str, Any]] | None] = tokens
        """Given p_yes: what is told of the answer's tokens, None for nothing."""
        self.texts: list[str] = []

    def reply(self, handler: Any, asked: dict[str, Any]) -> None:
        time.sleep(self.delay)
        content = asked["messages"][0]["content"]
        pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        (text,) = [part["text"] for part in content if part["type"] == "text"]
        found = _ASKED.search(text)
        category = found[1] if found else ""
        yes = self.belief(pictures, category)
        self.texts.append(text)
        if self.broken(category):
            self._send(handler, 400, {"error": {"message": "out of order"}})
        else:
            reply = completion(f"{'Yes' if yes > 0.5 else 'No'}. {name_of(pictures)}")
            told = self.logprobs(yes)
            reply["choices"][0]["logprobs"] = None if told is None else {"content": told}
            self._send(handler, 200, reply)
        self.answered[f"{name_of(pictures)} {category}"] += 1


def tokens(yes: float) -> list[dict[str, Any]]:
    """The first token with its alternatives: 1 % goes to others."""
    told = {"Yes": yes * 0.66, " yes": yes * 0.33, "No": (1 - yes) * 0.99, "Maybe": 0.01}
    best = max(told, key=told.__getitem__)
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in told.items()]
    return [{"token": best, "logprob": math.log(told[best]), "bytes": None, "top_logprobs": top}]


def write_pairs(run: Run, categories: Mapping[int, str]) -> None:
    """Make the run's pairs be these, by mask."""
    every = {"namer": "vlm", "namers": ["vlm"], "agreement": "only-one", "rule": "only_one", "flagged": False}
    rows: list[dict[str, object]] = [
        {
            **every,
            "mask_id": mask_id,
            "image_id": mask_id // 1000,
            "category": category,
            "raw_names": [category],
            "names": [category],
            "engines": ["openai"],
            "fingerprint": mask_id,
        }
        for mask_id, category in categories.items()
    ]
    with run.part("pairs", "pairs", "pairs") as part:
        part.write(tables.from_rows("pairs", rows))
    from stages.pairing import made_from

    facts = {"rules": {}, "categories": "", "made_from": made_from(run)}
    run.commit("pairs", "pairs", {"pairs": part}, fingerprint=str(len(rows)), counts={}, facts=facts)
