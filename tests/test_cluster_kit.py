"""The files of cluster/ speak of what exists: options, paths, metrics. Nothing here starts a cluster."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).parent.parent
KIT = ROOT / "cluster"
METRICS = {
    "ray_rr7k_rows_total",
    "ray_rr7k_tokens_total",
    "ray_rr7k_rows_pending",
    "ray_data_obj_store_mem_used",
    "ray_data_obj_store_mem_spilled",
    "ray_node_gpus_utilization",
}


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load((KIT / "rayjob.yaml").read_text())["spec"]


def stage_1_command(text: str) -> list[str]:
    found = re.search(r"rr7k stage-1 .*", text)
    assert found
    return shlex.split(found[0])


@pytest.mark.parametrize("name", ["rayjob.yaml", "slurm.sbatch", "README.md"])
def test_commands_have_the_options_of_the_command_line(name: str) -> None:
    helped = CliRunner().invoke(app, ["stage-1", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    words = stage_1_command((KIT / name).read_text())
    options = {word for word in words if word.startswith("--")}
    assert options == {"--config", "--run"}
    assert options <= set(re.findall(r"--[a-z-]+", helped))


def test_the_job_is_one_group_of_gpus_and_a_head_without_tasks(job: Any) -> None:
    cluster = job["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group, gpus in ((head, None), (workers, "8")):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]
        (mount,) = container["volumeMounts"]
        run = shlex.split(job["entrypoint"])[-1]
        assert run.startswith(mount["mountPath"] + "/")


def test_rays_version_is_the_tested_one(job: Any) -> None:
    assert f"\nray=={job['rayClusterSpec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_the_slurm_script_is_shell() -> None:
    subprocess.run(["bash", "-n", KIT / "slurm.sbatch"], check=True)


def test_the_dashboard_shows_metrics_that_exist() -> None:
    panels = json.loads((KIT / "grafana.json").read_text())["panels"]
    shown = [set(re.findall(r"\bray_\w+", target["expr"])) for panel in panels for target in panel["targets"]]
    assert all(shown)
    assert set().union(*shown) == METRICS


def test_the_image_copies_what_exists() -> None:
    copies = re.findall(r"^COPY (.+) \S+$", (KIT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copies for source in line.split()}
    assert all((ROOT / source).exists() for source in sources)
    packages = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packages
    assert {*json.loads(packages[1]), "data_manifests"} <= sources
