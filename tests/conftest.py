"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from pipeline.run import Run

if TYPE_CHECKING:
    from label_studio_site import Site

settings.register_profile("rr7k", deadline=None)  # timing lives in benchmarks; the first call compiles
settings.load_profile("rr7k")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights and Qwen2.5-VL's own processor and vocabulary."""
    from tiny_models import qwen

    return qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Label Studio of the module's own."""
    from label_studio_site import Site

    running = Site(tmp_path_factory.mktemp("site"))
    yield running
    running.stop()
