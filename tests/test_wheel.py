"""What `pip install rr7k` puts on a machine: all that commands read at run time, and nothing else."""

import subprocess
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
FOLDERS = ("annotation_ui", "benchmark", "data_manifests", "model", "pipeline", "stages")


def test_the_wheel_holds_the_packages_with_all_their_data(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert held == set(listed.stdout.split())
