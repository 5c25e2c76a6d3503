"""Installing Label Studio, and what may lie in a folder that is served."""

import shutil
import sys
from pathlib import Path

import pytest

from annotation_ui import local_server, server_data
from pipeline.errors import UsageError, UserError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []

    def call(command: list[str]) -> None:
        calls.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
            (Path(command[-1]) / "pyvenv.cfg").touch()

    monkeypatch.setattr(local_server, "_call", call)
    return calls


def test_an_environment_is_made_once(tmp_path: Path, calls: list[list[str]]) -> None:
    for _ in range(2):
        local_server.install(tmp_path / "venv")
    assert len(calls) == 2
    assert calls[1][-3:] == ["label-studio==1.23.2", "-c", str(local_server._CONSTRAINTS)]


def test_without_uv_pip_makes_it(tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    local_server.install(tmp_path / "venv")
    assert [command[1:3] for command in calls] == [["-m", "venv"], ["-m", "pip"]]


def test_a_half_made_environment_is_made_again(
    tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str]) -> None:
        calls.append(command)
        raise UserError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(local_server, "_call", fail)
        with pytest.raises(UserError, match="no network"):
            local_server.install(tmp_path / "venv")
    with (
        pytest.raises(UsageError, match=r"no Label Studio 1\.23\.2 there"),
        local_server.start(tmp_path / "venv", tmp_path / "data", tmp_path),
    ):
        pass
    local_server.install(tmp_path / "venv")
    assert len(calls) == 3


def test_another_version_is_replaced(tmp_path: Path, calls: list[list[str]]) -> None:
    local_server.install(tmp_path / "venv")
    (tmp_path / "venv" / local_server._STAMP).write_text("1.0.0")
    local_server.install(tmp_path / "venv")
    assert len(calls) == 4


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, calls: list[list[str]]) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else"):
        local_server.install(tmp_path)
    assert calls == []


def test_what_the_installer_says_is_told() -> None:
    with pytest.raises(UserError, match=r"could not be installed: .* ended with 1\.\nno such package"):
        local_server._call([sys.executable, "-c", "raise SystemExit('no such package')"])


def test_what_must_not_be_served(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").touch()
    local_server.check_served(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        local_server.check_served(tmp_path / "b")
    for name in ("page.html", "a/drawing.svg", "x.JPG"):
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match=f"{name}: only plain .jpg"):
            local_server.check_served(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "a" / "y.jpg").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match=r"y.jpg: only plain .jpg"):
        local_server.check_served(tmp_path)


def test_of_our_environment_the_server_sees_its_database_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {f"POSTGRE_{name}": name.lower() for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    for name, value in {"DJANGO_DB": "default", **named, "POSTGRE_OTHER": "x", "PASSWORD": "x", "DEBUG": "1"}.items():
        monkeypatch.setenv(name, value)
    seen = local_server._environment(server_data.keys(tmp_path), tmp_path, tmp_path)
    assert {name: value for name, value in seen.items() if "POSTGRE" in name} == named
    assert seen["DJANGO_DB"] == "default"
    assert {"PASSWORD", "DEBUG"}.isdisjoint(seen)
