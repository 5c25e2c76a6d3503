"""What is compared: the settings that are trained, the rows of the paper's Tables 4 to 7, and what the paper orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from model.ablation.rougher import Kind
from model.branches import Layout
from model.mask2token import Encoder

TRUE: Kind = "true"

Way = Literal["branches", "packed", "single"]
"""How masks share a sequence, if they do."""


class Setting(NamedTuple):
    """How a model is trained."""

    layout: Layout = Layout()
    single: bool = False
    """One mask of each image, at random, in place of any number; the steps are the same, so fewer masks are seen."""
    encoder: Encoder = "mask2token"
    scale: float = 2.0

    @property
    def way(self) -> Way:
        """By which the spread of seeds is pooled."""
        return "single" if self.single else self.layout.kind


class Row(NamedTuple):
    """A row of a table."""

    table: int
    name: str
    title: str
    trained: str
    """The setting whose weights it is about; empty: it needs weights that are not made here, and stays blank."""
    masks: Kind
    """What these are shown."""
    paper: tuple[str, str] | None
    """How the paper calls it, and the variant; None: not in the paper."""


class Contrast(NamedTuple):
    """Two rows of a table, of which the paper, as a rule, has the first above the second."""

    table: int
    first: str
    second: str


def _packed(region: bool, output: bool) -> Setting:
    return Setting(Layout(kind="packed", region_rule=region, output_rule=output))


SETTINGS: Mapping[str, Setting] = {
    "sm": Setting(single=True),
    "mm": _packed(False, False),
    "region": _packed(True, False),
    "output": _packed(False, True),
    "both": _packed(True, True),
    "branches": Setting(),
    "scale-1.5": Setting(scale=1.5),
    "scale-2.5": Setting(scale=2.5),
    "scale-3": Setting(scale=3.0),
    "scale-3.5": Setting(scale=3.5),
    "fore2token": Setting(single=True, encoder="fore2token"),
    "blur2token": Setting(single=True, encoder="blur2token"),
}
"""Table 6 is trained with single masks, as the paper's evidently is (wowseg_facts.md, surprise 7)."""

_SCALES = {"1.5": "scale-1.5", "2": "branches", "2.5": "scale-2.5", "3": "scale-3", "3.5": "scale-3.5"}

ROWS: Sequence[Row] = (
    Row(4, "sm", "single masks (SM)", "sm", TRUE, ("SM", "region=-;output=-")),
    Row(4, "mm", "many masks (MM)", "mm", TRUE, ("MM", "region=-;output=-")),
    Row(4, "region", "MM, Region rule", "region", TRUE, ("MM", "region=yes;output=-")),
    Row(4, "output", "MM, Output rule", "output", TRUE, ("MM", "region=-;output=yes")),
    Row(4, "both", "MM, both rules", "both", TRUE, ("MM", "region=yes;output=yes")),
    Row(4, "branches", "MM, branches (ours)", "branches", TRUE, None),
    *(
        Row(5, f"scale {scale}", f"scale {scale}", trained, TRUE, (f"scale {scale}", "context scale"))
        for scale, trained in _SCALES.items()
    ),
    Row(6, "fore", "Fore2Token", "fore2token", TRUE, ("Fore2Token", "region encoder")),
    Row(6, "blur", "Blur2Token", "blur2token", TRUE, ("Blur2Token", "region encoder")),
    Row(6, "mask", "Mask2Token", "sm", TRUE, ("Mask2Token", "region encoder")),
    Row(7, "true", "true mask", "branches", TRUE, ("GT Mask", "reference")),
    Row(7, "box", "rotated box", "branches", "rotated box", ("RBB", "geometric")),
    Row(7, "ellipse", "ellipse", "branches", "ellipse", ("Ellipse", "geometric")),
    Row(7, "eroded", "eroded by 1 px", "branches", "eroded", None),
    Row(7, "dilated", "dilated by 2 px", "branches", "dilated", None),
    Row(7, "sam", "SAM", "", TRUE, ("SAM (Huge)", "generator")),
    Row(7, "hq-sam", "HQ-SAM", "", TRUE, ("HQ-SAM (Huge)", "generator")),
    Row(7, "sam2", "SAM 2", "", TRUE, ("SAM2 (Large)", "generator")),
)

_PAIRS: Mapping[int, Sequence[tuple[str, str]]] = {
    4: (
        ("mm", "sm"), ("region", "mm"), ("output", "mm"), ("both", "mm"), ("both", "region"), ("both", "output"),
        ("region", "output"), ("branches", "sm"), ("branches", "mm"), ("branches", "both"),
    ),
    5: tuple(("scale 2", f"scale {other}") for other in _SCALES if other != "2"),
    6: (("mask", "fore"), ("mask", "blur"), ("fore", "blur")),
    7: (("true", "box"), ("true", "ellipse"), ("box", "ellipse"), ("true", "eroded"), ("true", "dilated")),
}  # fmt: skip

CONTRASTS: Sequence[Contrast] = tuple(Contrast(table, *pair) for table, pairs in _PAIRS.items() for pair in pairs)

SHOWN: Mapping[str, Sequence[Kind]] = {
    name: list(dict.fromkeys(row.masks for row in ROWS if row.trained == name)) for name in SETTINGS
}
"""The kinds of masks with which the weights of each setting are put to the test."""
