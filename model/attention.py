"""Who sees whom: one rule on branches and positions, as an additive mask or as a FlexAttention block mask.

The rule takes any shapes that broadcast, so the same function is the mask of training, of decoding with a cache, and of
the GPU kernel. Additive float, never boolean: with transformers' eager attention a boolean mask is silently wrong.
FlexAttention needs O(L) memory on CUDA; on a CPU it gives wrong numbers or crashes, and is refused.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from model.branches import EVERYONE
from pipeline.errors import UsageError

Implementation = Literal["sdpa", "eager", "flex_attention"]

PADDING = -1
"""The branch of tokens that fill a batch; they read only what is shared, and nobody sees them."""


class Keys(NamedTuple):
    """What is seen; integers of shape (batch, keys)."""

    branch: Tensor
    positions: Tensor


class Queries(NamedTuple):
    """What sees; integers of shape (batch, queries)."""

    reads: Tensor
    positions: Tensor


def visible(reads: Any, position: Any, branch: Any, key_position: Any) -> Any:
    """Say whether a query sees a key: not later, and shared, or of a branch the query reads."""
    return (key_position <= position) & _shown(reads, branch)


def _shown(reads: Any, branch: Any) -> Any:
    """Say whether whoever reads so may see a branch at all."""
    return (branch == EVERYONE) | (reads == EVERYONE) | (reads == branch)


def additive(queries: Queries, keys: Keys, dtype: torch.dtype) -> Tensor:
    """Return the mask that is added to attention scores: 0, or the least number of `dtype`.

    Shape (batch, 1, queries, keys).
    """
    # Not `visible` of every pair, but sums, which take half the time: few queries read differently, so what each kind
    # may see is found once, and each query takes its kind's row. A key is seen that is not ahead of it.
    (batch, length), device = queries.reads.shape, queries.reads.device
    kinds = torch.arange(PADDING, int(queries.reads.max()) + 1, device=device)
    shown = _shown(kinds[:, None], keys.branch[:, None])
    places = torch.where(shown, keys.positions[:, None].float(), float("inf")).flatten(0, 1)
    rows = queries.reads - PADDING + len(kinds) * torch.arange(batch, device=device)[:, None]
    ahead = places.index_select(0, rows.flatten()).view(batch, 1, length, -1)
    ahead -= queries.positions[:, None, :, None].float()
    return ahead.clamp_(0, 1).to(dtype).mul_(torch.finfo(dtype).min)


def block_mask(queries: Queries, keys: Keys) -> Any:
    """Return FlexAttention's block mask of (batch, any head, queries, keys); compiled on CUDA, never L × L there."""
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Tensor, _: Tensor, q: Tensor, k: Tensor) -> Any:
        return visible(queries.reads[b, q], queries.positions[b, q], keys.branch[b, k], keys.positions[b, k])

    (batch, length), device = queries.reads.shape, queries.reads.device
    return create_block_mask(
        rule, batch, None, length, keys.branch.shape[1], device=str(device), _compile=device.type == "cuda"
    )


def mask(implementation: str, queries: Queries, keys: Keys, dtype: torch.dtype) -> Any:
    """Return the mask in the form that an attention implementation of transformers takes."""
    return block_mask(queries, keys) if implementation == "flex_attention" else additive(queries, keys, dtype)


def check(implementation: str, device: torch.device) -> None:
    """Raise `UsageError` for an implementation that is wrong on a device."""
    if implementation == "flex_attention" and device.type != "cuda":
        raise UsageError(
            f"attention = flex_attention works on CUDA only; on {device.type} it gives wrong numbers or crashes. "
            "Use sdpa, which computes the same."
        )
