"""`rr7k ui`: the page on which one points at things in a picture, and WOW-Seg names them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_segment import (
    SUPERPIXELS,
    DeviceOption,
    IouOption,
    ModelOption,
    PointsOption,
    SegmenterOption,
    StabilityOption,
    load_model,
    load_segmenter,
)
from pipeline.console import err, tell
from pipeline.errors import UsageError

_NOTE = "Masks are regions of even colour, for trying; --segmenter takes SAM."


def ui(
    model: ModelOption,
    segmenter: SegmenterOption = SUPERPIXELS,
    least_iou: IouOption = 0.88,
    least_stability: StabilityOption = 0.95,
    points: PointsOption = 32,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1, which only this machine sees.")] = 8760,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: DeviceOption = "",
) -> None:
    """Open a page in the browser: choose a picture, click a thing or drag a box around it, and read its name."""
    _check(port)
    try:
        from model import page
    except ImportError as error:
        raise UsageError(f"{error}: the page needs: pip install 'rr7k[ui]'") from error
    from model.proposals import Rules

    with err.status("loading the models"):
        site = page.Site(
            model=load_model(model, device),
            segmenter=load_segmenter(segmenter, device),
            rules=Rules(points=points, predicted_iou=least_iou, stability=least_stability),
            note=_NOTE if segmenter == SUPERPIXELS else "",
            examples=_examples(),
        )
    tell(f"http://127.0.0.1:{port} until Ctrl-C")
    page.serve(site, port, browser=browser)


def _check(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"port {port} cannot be had ({error}). Take another: --port N.") from None


def _examples() -> dict[str, Path]:
    """Return the photographs that ship with scikit-image, where that is installed."""
    from importlib.util import find_spec

    from stages.sample_data import PHOTOGRAPHS

    found = find_spec("skimage")
    if found is None or found.origin is None:
        return {}
    folder = Path(found.origin).parent / "data"
    return {name: folder / name for name in PHOTOGRAPHS if (folder / name).is_file()}
