"""Decoding of all masks of an image together, or of several images, with the answers that each would get alone.

What they share is read once, its keys and values kept. Then all branches go on in one sequence, a token each at a step;
each sees what is shared and itself. Those that are finished leave. Several images are as many rows. Greedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from model.attention import PADDING, Keys, Queries, additive
from model.batches import Batch, collate
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


class _Tokens(NamedTuple):
    """Tokens to be read after those in the cache: B images, S tokens of each, filled up at the end."""

    embedded: Tensor
    """(B, S, width)"""
    branch: Tensor
    """(B, S), ascending in each image"""
    positions: Tensor
    """(B, S)"""


@torch.inference_mode()
def decode(model: WowSeg, samples: Sequence[Sample], most_tokens: int, together: int) -> list[list[Decoded]]:
    """Return the likeliest next tokens of every branch of samples without labels, at most `most_tokens` of each.

    The samples go side by side; `together` branches of each go at a time, after the same prefix.
    """
    row = collate(samples, model.device)
    embedded = model.embed(row.tokens, row.slots, model.features(row.pixels, row.cells))
    cache, found = DynamicCache(config=model.network.config.text_config), [list[Decoded]() for _ in samples]
    with _plain_attention(model):
        shared = _chosen(row.branch == EVERYONE, embedded, row)
        # Causal, without a mask: what fills up a prefix comes after all of it.
        model.read(shared.embedded, shared.positions, None, cache)
        for first in range(0, max(len(sample.rescued) for sample in samples), together):
            some = _chosen((row.branch > first) & (row.branch <= first + together), embedded, row)
            for image, one in _advance(model, cache, Keys(shared.branch, shared.positions), some, most_tokens):
                found[image].append(one)
            cache.crop(shared.branch.shape[1] - cache.get_seq_length())
    return found


def _chosen(which: Tensor, embedded: Tensor, row: Batch) -> _Tokens:
    """Move the chosen tokens of each row, (B, L), to its beginning, and cut the rest off."""
    columns = ((embedded, 0), (row.branch, PADDING), (row.positions, 0))
    parts = (
        pad_sequence([part[chosen] for part, chosen in zip(column, which, strict=True)], True, fill)
        for column, fill in columns
    )
    return _Tokens(*parts)


def _advance(model: WowSeg, cache: Any, keys: Keys, some: _Tokens, most_tokens: int) -> Iterator[tuple[int, Decoded]]:
    """Read branches after what is in `cache`, which `keys` describe, and go on with each until its end.

    Yields the answers with their image, in order.
    """
    ours, stop = some.branch != PADDING, model.preparer.text.stop
    last = ours & (some.branch != functional.pad(some.branch[:, 1:], (0, 1), value=PADDING))
    images, places = last.nonzero(as_tuple=True)
    alive, following = some.branch[images, places], some.positions[images, places] + 1
    branches = list(zip(images.tolist(), alive.tolist(), strict=True))
    answers: dict[tuple[int, int], tuple[list[int], list[float]]] = {branch: ([], []) for branch in branches}
    for _ in range(most_tokens):
        states, keys = _read(model, cache, some, keys)
        best = model.head(states[images, places]).float().log_softmax(-1).max(-1)
        for branch, token, logprob in zip(branches, best.indices.tolist(), best.values.tolist(), strict=True):
            answers[branch][0].append(token)
            answers[branch][1].append(logprob)
        going = best.indices != stop
        if not going.any():
            break
        images, alive, following = images[going], alive[going], following[going]
        branches = list(zip(images.tolist(), alive.tolist(), strict=True))
        embedded = model.network.get_input_embeddings()(best.indices[going])
        some, places = _side_by_side(len(ours), images, _Tokens(embedded, alive, following))
        following = following + 1
    for (image, _), (tokens, told) in answers.items():
        yield image, Decoded(tokens, sum(told), tokens[-1:] == [stop])


def _side_by_side(count: int, images: Tensor, tokens: _Tokens) -> tuple[_Tokens, Tensor]:
    """Put tokens (n, …) of `images`, ascending, into rows, one of `count` for each image; also return their places."""
    held = torch.bincount(images, minlength=count)
    places = torch.arange(len(images), device=images.device) - (held.cumsum(0) - held)[images]
    rows = []
    for part, fill in zip(tokens, (0, PADDING, 0), strict=True):
        filled = part.new_full((count, int(held.max()), *part.shape[1:]), fill)
        filled[images, places] = part
        rows.append(filled)
    return _Tokens(*rows), places


def _read(model: WowSeg, cache: Any, some: _Tokens, keys: Keys) -> tuple[Tensor, Keys]:
    """Read tokens after those in `cache`, which `keys` describe; return their states, (B, S, width), and all keys."""
    queries = Queries(some.branch, some.positions)
    keys = Keys(torch.cat([keys.branch, queries.reads], 1), torch.cat([keys.positions, queries.positions], 1))
    mask = additive(queries, keys, some.embedded.dtype)
    return model.read(some.embedded, some.positions, mask, cache), keys


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
