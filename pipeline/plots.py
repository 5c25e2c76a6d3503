"""Drawing boards for figures, which matplotlib draws; without pyplot, which is for the main thread."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


def board(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()
