"""What every test shares."""

from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.run import Run

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
