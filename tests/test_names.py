"""Our five top-level names are ours alone in the environment: another package would overwrite them silently."""

import importlib.metadata

import pytest


@pytest.mark.parametrize("name", ["pipeline", "stages", "annotation_ui", "benchmark", "model"])
def test_the_name_is_ours_alone(name: str) -> None:
    owners = importlib.metadata.packages_distributions().get(name, [])
    assert set(owners) <= {"rr7k"}
