"""The sequence of one image: what is shared, and a branch for each mask; built from known lengths, parsed by nobody.

Two layouts.

`branches`, the default: shared prefix, then for each mask its region, its own copy of the infix, its label. In every
branch positions begin anew at the prefix's end. A token sees the prefix and its own branch; so K masks in one
sequence are K sequences of one mask, to the last bit of their positions, and the paper's P(O_k | image, text, m_k)
holds exactly.

    prefix | region 1 infix label 1 | region 2 infix label 2 | …

`packed`, the authors' (reference/wowseg_facts.md C.5, C.6): one infix, one answer, one counter of positions; for the
paper's ablations and for weights trained with it.

    prefix region 1 region 2 … infix label 1 , label 2 , …

It leaks where the authors' does: the infix sees all regions, and so does what predicts the first token of label 1; the
first token of a later label is predicted by the separator, which belongs to the label before it. With
`separator_owner = next` it belongs to the label after it.

What a token sees is said by two numbers, whose it is (`branch`) and whose tokens it may read (`reads`), and by its
position: `model.attention.visible`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.prompts import Text

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

EVERYONE = 0
"""As a branch: seen by all. As what is read: sees all."""
NOTHING = -100
"""In place of a token or an instance where nothing is predicted; what torch's cross entropy ignores."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How masks share a sequence."""

    kind: Literal["branches", "packed"] = "branches"
    region_rule: bool = True
    """Packed only: regions do not see each other (the paper's "Region" mask)."""
    output_rule: bool = True
    """Packed only: labels see neither foreign regions nor foreign labels (the paper's "Output" mask)."""
    separator_owner: Literal["previous", "next"] = "previous"
    """Packed only: to which label a separator belongs. The authors': previous."""


class Row(NamedTuple):
    """One sequence; arrays of length L."""

    tokens: Ints
    branch: Ints
    """0 shared, else the mask, from 1."""
    reads: Ints
    """0 every branch, else only this one besides what is shared."""
    positions: Ints
    """As the model's rotary positions; a token sees none with a later one."""
    slots: Bools
    """Where an image vector stands in place of a token's: first the image's, then each region's."""
    targets: Ints
    """The token that the state here is to predict, or NOTHING."""
    instances: Ints
    """The mask whose label that token is part of, from 0, or NOTHING. A separator is part of the label before it."""
    prefix: int
    """Tokens that do not depend on any mask."""


@dataclass
class _Writer:
    """Appends pieces, each of one branch."""

    text: Text
    parts: list[tuple[npt.NDArray[Any], ...]] = field(default_factory=list)
    length: int = 0

    def write(
        self,
        tokens: Sequence[int],
        branch: int = EVERYONE,
        reads: int = EVERYONE,
        *,
        label_of: int = NOTHING,
        slots: bool = False,
    ) -> None:
        """Append tokens: part of the label of a mask, if one is given; or places of image vectors."""
        count = len(tokens)
        numbers = [np.full(count, number, np.int64) for number in (branch, reads, label_of)]
        self.parts.append((np.array(tokens, np.int64), *numbers, np.full(count, slots)))
        self.length += count

    def picture(self, vectors: int, branch: int = EVERYONE, reads: int = EVERYONE) -> None:
        """Append an image of so many vectors."""
        self.write([self.text.start], branch, reads)
        self.write([self.text.slot] * vectors, branch, reads, slots=True)
        self.write([self.text.end], branch, reads)

    def row(self, positions: Ints, prefix: int) -> Row:
        """Put the pieces together; a token of a label is predicted by the token before it."""
        tokens, branch, reads, label_of, slots = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        instances = np.append(label_of[1:], NOTHING)
        targets = np.where(instances == NOTHING, NOTHING, np.append(tokens[1:], NOTHING))
        return Row(tokens, branch, reads, positions, slots, targets, instances, prefix)


def build(
    text: Text, image: int, regions: Sequence[int], labels: Sequence[Sequence[int]] | None, layout: Layout
) -> Row:
    """Build the sequence of an image of `image` vectors, with masks of `regions` vectors each.

    `labels` are tokens of the labels, without separators and end; in the packed layout, from the second on, of the
    label with a space before it. None leaves out the labels: the sequence to decode from, in the `branches` layout
    only. Raises `ValueError` for that in another, or labels that are not one for each mask.
    """
    if labels is not None and len(labels) != len(regions):
        raise ValueError(f"{len(labels)} labels for {len(regions)} masks")
    writer = _Writer(text)
    writer.write(text.before)
    writer.picture(image)
    writer.write(text.between)
    prefix = writer.length
    if layout.kind == "branches":
        positions = np.concatenate([np.arange(prefix), *_branches(writer, regions, labels)])
    elif labels is None:
        raise ValueError("labels are decoded in the branches layout")
    else:
        _packed(writer, regions, labels, layout)
        positions = np.arange(writer.length)
    return writer.row(positions, prefix)


def _branches(writer: _Writer, regions: Sequence[int], labels: Sequence[Sequence[int]] | None) -> Iterator[Ints]:
    """Write all branches; yield the positions of each."""
    prefix = writer.length
    for number, vectors in enumerate(regions):
        start, branch = writer.length, number + 1
        writer.picture(vectors, branch, branch)
        writer.write(writer.text.infix, branch, branch)
        if labels is not None:
            writer.write([*labels[number], writer.text.stop], branch, branch, label_of=number)
        yield prefix + np.arange(writer.length - start)


def _packed(writer: _Writer, regions: Sequence[int], labels: Sequence[Sequence[int]], layout: Layout) -> None:
    for branch, vectors in enumerate(regions, 1):
        writer.picture(vectors, branch, branch if layout.region_rule else EVERYONE)
    writer.write(writer.text.infix)
    for number, label in enumerate(labels):
        last = number == len(labels) - 1
        ours, owner = number + 1, number + 1 + (layout.separator_owner == "next" and not last)
        end = [writer.text.stop] if last else writer.text.separator
        for tokens, branch in ((label, ours), (end, owner)):
            writer.write(tokens, branch, branch if layout.output_rule else EVERYONE, label_of=number)
