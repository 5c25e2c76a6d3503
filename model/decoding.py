"""Decoding of all masks of an image together, with the answers that each would get alone.

What they share is read once, its keys and values kept. Then all branches go on in one sequence, a token each at a step;
each sees what is shared and itself. Those that are finished leave. Greedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from model.attention import Keys, Queries, additive
from model.branches import EVERYONE
from model.inputs import Sample

if TYPE_CHECKING:
    from model.wowseg import WowSeg


class Decoded(NamedTuple):
    """The answer of one branch."""

    tokens: list[int]
    """With the end, where it was reached."""
    logprob: float
    """Sum over these tokens of the natural logarithm of their probability."""
    finished: bool


class _Branches(NamedTuple):
    """Branches to be read after the prefix; S tokens."""

    embedded: Tensor
    """(S, width)"""
    branch: Tensor
    """(S,), ascending"""
    positions: Tensor
    """(S,)"""


@torch.inference_mode()
def decode(model: WowSeg, sample: Sample, most_tokens: int, together: int) -> list[Decoded]:
    """Return the likeliest next tokens of every branch of a sample without labels, at most `most_tokens` of each.

    `together` branches go at a time, after the same prefix.
    """
    row, device = sample.row, model.device
    features = model.features(torch.from_numpy(sample.pixels).to(device), torch.from_numpy(sample.cells).to(device))
    tokens, branch, positions, slots = (
        torch.from_numpy(column).to(device) for column in (row.tokens, row.branch, row.positions, row.slots)
    )
    embedded = model.embed(tokens[None], slots[None], features)[0]
    cache, found = DynamicCache(config=model.network.config.text_config), []
    with _plain_attention(model):
        model.read(embedded[None, : row.prefix], positions[None, : row.prefix], None, cache)
        for first in range(0, len(sample.rescued), together):
            chosen = (branch > first) & (branch <= first + together)
            some = _Branches(embedded[chosen], branch[chosen], positions[chosen])
            found += _advance(model, cache, some, most_tokens)
            cache.crop(row.prefix - cache.get_seq_length())
    return found


def _advance(model: WowSeg, cache: Any, some: _Branches, most_tokens: int) -> list[Decoded]:
    """Read branches after the prefix in `cache`, and go on with each until its end."""
    prefix, stop = cache.get_seq_length(), model.preparer.text.stop
    shared = torch.arange(prefix, device=some.branch.device)
    keys = Keys(torch.full_like(shared, EVERYONE)[None], shared[None])
    last = torch.ones_like(some.branch, dtype=torch.bool)
    last[:-1] = some.branch[1:] != some.branch[:-1]
    ends = last.nonzero()[:, 0]
    alive = some.branch[ends]
    following, (states, keys) = some.positions[ends] + 1, _read(model, cache, some, keys)
    states = states[ends]
    answers: dict[int, tuple[list[int], list[float]]] = {number: ([], []) for number in alive.tolist()}
    for step in range(most_tokens):
        if step:
            states, keys = _read(model, cache, some, keys)
        best = model.head(states).float().log_softmax(-1).max(-1)
        for number, token, logprob in zip(alive.tolist(), best.indices.tolist(), best.values.tolist(), strict=True):
            answers[number][0].append(token)
            answers[number][1].append(logprob)
        going = best.indices != stop
        if not going.any():
            break
        alive, following = alive[going], following[going]
        some = _Branches(model.network.get_input_embeddings()(best.indices[going]), alive, following)
        following = following + 1
    return [Decoded(tokens, sum(told), tokens[-1:] == [stop]) for tokens, told in answers.values()]


def _read(model: WowSeg, cache: Any, some: _Branches, keys: Keys) -> tuple[Tensor, Keys]:
    """Read tokens after those in `cache`, which `keys` describe; return their states, (S, width), and all keys."""
    queries = Queries(some.branch[None], some.positions[None])
    keys = Keys(torch.cat([keys.branch, queries.reads], 1), torch.cat([keys.positions, queries.positions], 1))
    mask = additive(queries, keys, some.embedded.dtype)
    return model.read(some.embedded[None], some.positions[None], mask, cache)[0], keys


@contextmanager
def _plain_attention(model: WowSeg) -> Iterator[None]:
    """Decode with SDPA where training uses FlexAttention, which would be compiled anew for every length."""
    network, used = model.network, model.network.config.text_config._attn_implementation
    if used != "flex_attention":
        yield
        return
    network.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        network.set_attn_implementation({"text_config": used})
