"""What `pip install rr7k` puts on a machine, and what its extras are enough for."""

import subprocess
import sys
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder
from small_benchmarks import RIGHT, predict, write

ROOT = Path(__file__).parent.parent
FOLDERS = ("annotation_ui", "benchmark", "data_manifests", "model", "pipeline", "stages")
NOT_FOR_SCORES = ("cv2", "httpx", "markdown_it", "nicegui", "openai", "psutil", "ray", "skimage", "timm", "torchvision")


def without(packages: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line where some packages are not installed."""
    program = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); from pipeline.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_wheel_holds_the_packages_with_all_their_data(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert held == set(listed.stdout.split())


def test_scores_need_the_extra_score_alone(tmp_path: Path) -> None:
    folder, ours = write(tmp_path / "benchmark"), predict(tmp_path / "p.parquet", RIGHT)
    for command in (("score", ours, "--benchmark", folder), ("compare", ours, ours, "--benchmark", folder)):
        done = without(NOT_FOR_SCORES, *command, "--out", tmp_path / command[0])
        assert done.returncode == 0, done.stderr


def test_a_missing_package_is_told_with_what_to_install(tmp_path: Path) -> None:
    done = without(("numba",), "score", "p.parquet", "--benchmark", write(tmp_path / "benchmark"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: numba is not installed. To score, compare and look at releases: pip install")
