"""Roles do not blur: who may import whom (DESIGN.md §2), and what the command line may load at its start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "stages", "annotation_ui", "benchmark", "model")
ADAPTERS = {"stages/engines/wowseg.py": {"model"}}
"""What an engine adapts to the stages is allowed to it: our own model like everybody's."""
HEAVY = ("ray", "numba", "pandas", "torch", "pyarrow", "numpy", "pydantic", "matplotlib", "skimage", "httpx")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")], ids=str)
def test_packages_import_pipeline_only(path: Path) -> None:
    owner = path.relative_to(ROOT).parts[0]
    if path.name.startswith("cli"):
        return
    own = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
    allowed = {owner, "pipeline"} | ADAPTERS.get(str(path.relative_to(ROOT)), set())
    assert {name.split(".")[0] for name in own} <= allowed
    assert "pipeline.cli" not in own


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running `code`."""
    program = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_command_line_starts_light() -> None:
    assert not loaded_by("import pipeline.cli") & set(HEAVY)


def test_planning_needs_no_ray() -> None:
    assert not loaded_by("import stages.manifest, stages.funnel, pipeline.cluster") & {"ray", "torch"}
