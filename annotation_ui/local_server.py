"""A Label Studio of our own on this machine: installed apart, on loopback only, ended with whoever started it.

It has an environment of its own because its packages clash with ours (numpy below 2.3, and more), and we speak to it
over HTTP only. What is said here of its settings was tried on `VERSION`; our screens rest on its class names.

A data folder holds SQLite's database, the secrets and the log. SQLite is for one annotator, or for pages sent before
people start: PostgreSQL, chosen by DJANGO_DB=default and POSTGRE_HOST, _PORT, _USER, _PASSWORD and _NAME in the
environment, is what several annotators need (label_studio.md §2).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from annotation_ui import server_data
from annotation_ui.screens import FOLDER
from annotation_ui.server_data import Secrets
from pipeline.errors import UsageError, UserError

VERSION = "1.23.2"
_CONSTRAINTS = Path(__file__).with_name("label_studio_constraints.txt")
_PROCESS = Path(__file__).with_name("label_studio_process.py")
_STAMP = "rr7k-installed"
_LOG = "server.log"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
"""All that the server sees of our environment: it also reads HOST, PORT, DEBUG, USERNAME, PASSWORD, CI and a hundred
more names without a prefix (label_studio.md §1)."""

_SETTINGS = {
    "DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "ENABLE_LEGACY_API_TOKEN": "true",  # heard only when the organisation is made, at the first start
    "LOCAL_FILES_SERVING_ENABLED": "true",
    "EDITOR_KEYMAP": json.dumps({"annotation:submit": {"key": "space", "description": "Submit"}}),
    "AZURE_MOUNT_FIX": "true",  # SQLite writes ahead (WAL): else an import never ends while three people answer
    "TASK_LOCK_TTL": "3600",  # seconds until a page that somebody opened and left comes to others
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LS_CSP_REPORT_ONLY": "false",  # the browser then refuses scripts in attributes, and pictures from elsewhere
}
_PATIENCE = 600.0
"""Seconds for the first start, which makes the tables: 85 to 112 on two busy cores (label_studio.md §1)."""
_LEAVE = 10.0  # seconds to end by itself


@dataclass(frozen=True)
class Server:
    """A running server. `folder` is the served folder as the server names it, for the project's storage record."""

    url: str
    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    folder: str


def install(folder: Path) -> None:
    """Make the server's environment in `folder`, with uv or pip; one that is there and whole is left alone.

    Raises `UsageError` when `folder` holds something else, `UserError` when the packages cannot be had.
    """
    if _installed(folder):
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise UsageError(f"{folder}: holds something else than an environment. Choose another folder for Label Studio.")
    python = str(folder / "bin" / "python")
    wanted = [f"label-studio=={VERSION}", "-c", str(_CONSTRAINTS)]
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv:
        _call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        _call([uv, "pip", "install", "--quiet", "--python", python, *wanted])
    else:
        _call([sys.executable, "-m", "venv", "--clear", str(folder)])
        _call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    (folder / _STAMP).write_text(_wanted(), encoding="utf-8")


def _installed(folder: Path) -> bool:
    stamp = folder / _STAMP  # written last: a half-made environment has none
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _wanted()


def _wanted() -> str:
    return f"{VERSION}\n{_CONSTRAINTS.read_text(encoding='utf-8')}"


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(
            f"Label Studio {VERSION} could not be installed: {Path(command[0]).name} ended with {done.returncode}.\n"
            f"{done.stderr.strip()[-2000:]}"
        )


@contextmanager
def start(installed: Path, data_dir: Path, crops_dir: Path, port: int = 0) -> Iterator[Server]:
    """Run the server while the block runs, on 127.0.0.1 and `port` (0: a free one).

    The first start makes the database, a user and a token; later ones use them. Only files in `crops_dir` are served,
    and only to who is logged in. The server ends with the block and with this process, however that ends.

    Raises `UsageError` when Label Studio is not installed, the port is taken or `crops_dir` holds more than plain JPEG
    files, or the environment names a PostgreSQL by halves; `BusyError` when a server runs on `data_dir` already;
    `UserError` with the end of the log when it does not come up.
    """
    if not _installed(installed):
        raise UsageError(f"{installed}: no Label Studio {VERSION} there. Install it first.")
    check_served(crops_dir)
    with server_data.alone(data_dir):
        keys = server_data.keys(data_dir)
        served = _serve(data_dir, crops_dir)
        address = ("127.0.0.1", _free_port(port))
        server = Server(f"http://127.0.0.1:{address[1]}", keys.email, keys.password, keys.token, str(served))
        with _process(installed, data_dir, address, _environment(keys, data_dir, served.parent)) as process:
            _wait(process, server, data_dir / _LOG, keys)
            yield server


def check_served(crops_dir: Path) -> None:
    """Refuse anything but plain JPEG files below a folder that is to be served.

    The server follows symbolic links out of the folder, and serves .html and .svg as pages of its own that may run
    scripts (label_studio.md §2, Images). Raises `UsageError`.
    """
    if not crops_dir.is_dir():
        raise UsageError(f"{crops_dir}: no such folder; it should hold the crops that people are to see.")
    for folder, folders, names in os.walk(crops_dir):
        for entry in map(Path(folder).joinpath, folders + names):
            if entry.is_symlink() or (entry.is_file() and entry.suffix != ".jpg"):
                raise UsageError(f"{entry}: only plain .jpg files may be served. Move it out of {crops_dir}.")


def _serve(data_dir: Path, crops_dir: Path) -> Path:
    """Link the crops into a folder that holds nothing else, and return the link.

    Every annotator can have any folder below the document root served, so nothing else may lie there. The root itself
    cannot be served (label_studio.md §2, Images).
    """
    link = data_dir.absolute() / "served" / FOLDER
    link.parent.mkdir(mode=0o700, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(crops_dir.absolute(), target_is_directory=True)
    return link


def _free_port(port: int) -> int:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of connections just closed is free
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"port {port}: {error.strerror}. Choose another port, or 0 for a free one.") from error
        return int(trial.getsockname()[1])


def _environment(keys: Secrets, data_dir: Path, root: Path) -> dict[str, str]:
    settings = _SETTINGS | {
        "BASE_DATA_DIR": str(data_dir.absolute()),
        "LOCAL_FILES_DOCUMENT_ROOT": str(root),
        "USERNAME": keys.email,
        "PASSWORD": keys.password,
        "USER_TOKEN": keys.token,
    }
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    prefixed = {f"LABEL_STUDIO_{name}": value for name, value in settings.items()}
    return kept | prefixed | server_data.postgresql() | {"SECRET_KEY": keys.key}  # the one name that has no prefix


@contextmanager
def _process(
    installed: Path, data_dir: Path, address: tuple[str, int], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    host, port = address
    python = [str(installed.absolute() / "bin" / "python"), "-P", str(_PROCESS)]  # -P: no folder of ours on its path
    command = [*python, "start", "--no-browser", "--internal-host", host, "--port", str(port)]
    its_end, our_end = os.pipe()  # of which it sees the end when we end
    with (data_dir / _LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=its_end, stdout=log, stderr=log, cwd=data_dir, env=environment, umask=0o077,
            start_new_session=True,  # Ctrl-C is for us
        )  # fmt: skip
    os.close(its_end)
    try:
        yield process
    finally:
        os.close(our_end)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVE)
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], server: Server, log: Path, keys: Secrets) -> None:
    """Wait until the server answers, and takes our token."""
    end = time.monotonic() + _PATIENCE
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as client:
        while time.monotonic() < end and process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get("/health").is_success:
                    break
            time.sleep(0.2)
        else:
            told = keys.hidden(log.read_text(errors="replace"))[-2000:].strip()
            what = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
            raise UserError(f"Label Studio {what}. Its log, {log}, ends:\n{told}")
        known = client.get("/api/current-user/whoami", headers={"Authorization": f"Token {keys.token}"})
    if not known.is_success:
        raise UserError(f"{log.parent}: database and {server_data.SECRETS} do not belong together. Restore a backup.")
