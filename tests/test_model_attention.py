"""The rule of who sees whom, against the authors' rules spelt out, and both of its renderings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import attention
from model.attention import PADDING, Keys, Queries
from model.branches import Layout, Row, build
from model.prompts import Text
from pipeline.errors import UsageError

TEXT = Text(before=[1, 2], between=[3], infix=[4, 5], start=10, slot=11, end=12, stop=13, separator=[14])
PACKED = [
    Layout(kind="packed", region_rule=region, output_rule=output, separator_owner=owner)
    for region in (False, True)
    for output in (False, True)
    for owner in ("previous", "next")
]
Bools = npt.NDArray[np.bool_]


def sides(row: Row) -> tuple[Queries, Keys]:
    branch, reads, positions = (torch.from_numpy(a)[None] for a in (row.branch, row.reads, row.positions))
    return Queries(reads, positions), Keys(branch, positions)


def seen(row: Row) -> Bools:
    queries, keys = sides(row)
    return (attention.additive(queries, keys, torch.float32)[0, 0] == 0).numpy()


def parts(regions: list[int], labels: list[list[int]], layout: Layout) -> list[tuple[str, int]]:
    """What each token of a row is: a part and a mask, from 0."""
    prefix = [("shared", 0)] * (len(TEXT.before) + 4 + len(TEXT.between))  # an image of two vectors
    pictures = [[("region", k)] * (n + 2) for k, n in enumerate(regions)]
    if layout.kind == "branches":
        answers = [[("infix", k)] * 2 + [("answer", k)] * (len(label) + 1) for k, label in enumerate(labels)]
        return prefix + [part for pair in zip(pictures, answers, strict=True) for piece in pair for part in piece]
    answers = []
    for k, label in enumerate(labels):
        owner = k + (layout.separator_owner == "next" and k < len(labels) - 1)
        answers.append([("answer", k)] * len(label) + [("answer", owner)])
    return prefix + [part for piece in [*pictures, [("shared", 0)] * 2, *answers] for part in piece]


def expected(kinds: list[tuple[str, int]], layout: Layout) -> Bools:
    """The rules of wowseg_facts.md C.6 (packed) and C.9 (branches), pair by pair."""
    mask = np.zeros((len(kinds), len(kinds)), np.bool_)
    for q, (part, k) in enumerate(kinds):
        for key, (other, j) in enumerate(kinds[: q + 1]):
            hidden = False
            if layout.kind == "branches":
                hidden = other != "shared" and j != k
            elif part == "region":
                hidden = layout.region_rule and other == "region" and j != k
            elif part == "answer":
                hidden = layout.output_rule and other != "shared" and j != k
            mask[q, key] = not hidden
    return mask


@pytest.mark.parametrize("layout", [Layout(), *PACKED], ids=str)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4))
@settings(max_examples=12)
def test_the_rule_is_the_authors(layout: Layout, sizes: list[tuple[int, int]]) -> None:
    regions, labels = [n for n, _ in sizes], [[20] * m for _, m in sizes]
    row = build(TEXT, 2, regions, labels, layout)
    assert np.array_equal(seen(row), expected(parts(regions, labels, layout), layout))


@pytest.mark.parametrize(
    ("owner", "predicting"),
    [
        # wowseg_facts.md C.6: from which regions each token of three labels of two tokens is predicted; the third
        # token of a label is what ends it
        ("previous", [{0, 1, 2}, {0}, {0}, {0}, {1}, {1}, {1}, {2}, {2}]),
        ("next", [{0, 1, 2}, {0}, {0}, {1}, {1}, {1}, {2}, {2}, {2}]),
    ],
)
def test_what_predicts_a_token_sees_the_regions_that_the_authors_rule_shows_it(
    owner: str, predicting: list[set[int]]
) -> None:
    layout = Layout(kind="packed", separator_owner=owner)  # type: ignore[arg-type]
    row = build(TEXT, 2, [1, 2, 3], [[20, 21]] * 3, layout)
    kinds = parts([1, 2, 3], [[20, 21]] * 3, layout)
    found = [
        {kinds[key][1] for key in np.flatnonzero(seen(row)[state]) if kinds[key][0] == "region"}
        for state in np.flatnonzero(row.instances >= 0)
    ]
    assert found == predicting


def test_padding_is_seen_by_padding_only_and_no_row_is_empty() -> None:
    row = build(TEXT, 2, [1, 2], [[20], [21]], Layout(kind="packed"))
    length = len(row.tokens)
    added = [
        np.append(a, [f] * 3) for a, f in ((row.reads, PADDING), (row.positions, length + 3), (row.branch, PADDING))
    ]
    reads, positions, branch = (torch.from_numpy(a)[None] for a in added)
    mask = (attention.additive(Queries(reads, positions), Keys(branch, positions), torch.float32)[0, 0] == 0).numpy()
    assert np.array_equal(mask[:length, :length], seen(row))
    assert not mask[:length, length:].any()
    assert mask[length:].any(1).all()


def test_masks_are_additive_in_their_type() -> None:
    queries, keys = sides(build(TEXT, 2, [1, 2], [[20], [21]], Layout()))
    for dtype in (torch.float32, torch.bfloat16):
        mask = attention.mask("sdpa", queries, keys, dtype)
        assert mask.dtype == dtype
        assert mask.shape == (1, 1, 22, 22)
        assert set(mask.unique().tolist()) == {0.0, torch.finfo(dtype).min}


@pytest.mark.parametrize("layout", [Layout(), Layout(kind="packed")], ids=["branches", "packed"])
def test_the_block_mask_is_the_same_entry_by_entry(layout: Layout) -> None:
    row = build(TEXT, 150, [40, 90, 10], [[20] * 30, [21] * 2, [22]], layout)  # four blocks of 128 a side
    block = attention.block_mask(*sides(row))
    mask, side = seen(row), block.BLOCK_SIZE[0]
    assert block.seq_lengths == mask.shape
    kinds = np.zeros((-(-len(mask) // side),) * 2, int)  # of blocks: 0 skipped, 1 asked entry by entry, 2 taken whole
    for kind, counts, places in (
        (1, block.kv_num_blocks, block.kv_indices),
        (2, block.full_kv_num_blocks, block.full_kv_indices),
    ):
        for q, count in enumerate(counts[0, 0].tolist()):
            kinds[q, places[0, 0, q, :count].numpy()] = kind
    first, everywhere = torch.zeros((), dtype=torch.int64), torch.arange(len(mask))
    entries = block.mask_mod(first, first, everywhere[:, None], everywhere).numpy()
    whole = kinds.repeat(side, 0).repeat(side, 1)[: len(mask), : len(mask)]
    assert np.array_equal(np.where(whole == 2, True, (whole == 1) & entries), mask)
    assert set(kinds.ravel().tolist()) == {0, 1, 2}


def test_flex_attention_is_refused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match=r"flex_attention works on CUDA only; on cpu .* Use sdpa"):
        attention.check("flex_attention", torch.device("cpu"))
    attention.check("flex_attention", torch.device("cuda"))
    attention.check("eager", torch.device("cpu"))
