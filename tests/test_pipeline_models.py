"""Models from a real HTTP server on loopback that speaks the hub's download endpoints, breaks off, stalls and lies."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import models
from pipeline.errors import UsageError

ROOT = Path(__file__).parent.parent
REVISION, OTHER = "a" * 40, "b" * 40
TOKEN = "hf_s3cret"
SHARDS = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 3_000_000 for n in (1, 2)}
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
FILES = {
    **SHARDS,
    "model.safetensors.index.json": INDEX.encode(),
    "config.json": b"{}",
    "1_Pooling/config.json": b'{"pooling": "mean"}',
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
}
UNWANTED = {"pytorch_model.bin": b"pickle" * 1000, "tf_model.h5": b"h5" * 1000, "README.md": b"#", "code.py": b"exit()"}
MANIFEST = f"""
[tiny]
repo = "org/tiny"
revision = "{REVISION}"
licence = "none"
used_for = "tests"
parameters = 1

[unpinned]
repo = "org/tiny"
revision = ""
licence = "none"
used_for = "tests"
parameters = 1
"""
PROGRAM = """
import sys
from pathlib import Path
from pipeline import models
from pipeline.errors import UserError
models._MANIFEST = Path(sys.argv[1])
try:
    models.fetch(sys.argv[4:], Path(sys.argv[2]), sys.argv[3])
except UserError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=lambda: {**FILES, **UNWANTED})
    status: int = 200
    """Of every answer."""
    breaks: set[str] = field(default_factory=set)
    """Files that break off half-way, once."""
    stalls: str = ""
    """A file that never comes to its end."""
    lies: str = ""
    """A file that is not what the listing says."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, range."""
    tokens: set[tuple[str, str]] = field(default_factory=set)
    """Beginning of the path, header."""
    port: int = 0

    def got(self) -> set[str]:
        """The files of which content was asked for."""
        blobs = {sha256(data): path for path, data in self.files.items()}
        paths = [path.partition(f"{REVISION}/")[2] or path for method, path, _ in self.asked if method == "GET"]
        return {blobs.get(path.removeprefix("/blobs/"), path) for path in paths if not path.startswith("/api")}

    def listing(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = [{"type": "directory", "path": "1_Pooling", "oid": "0" * 40, "size": 0}]
        for path, data in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if len(data) > 999 else {}
            rows.append({"type": "file", "path": path, "oid": blob, "size": len(data), **large})
        return rows


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        hub.tokens.add((path.split("/")[1], self.headers.get("Authorization", "")))
        if hub.status != 200:
            self.send_error(hub.status)
        elif path.startswith("/api/models/org/tiny/tree/"):
            self.send(json.dumps(hub.listing()).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/blobs/"):
            self.send_blob(next(name for name, data in hub.files.items() if sha256(data) == path[7:]))
        elif path.startswith("/org/tiny/resolve/"):
            self.resolve(path)
        else:
            self.send_error(404)

    def resolve(self, path: str) -> None:
        revision, _, name = path.partition("/resolve/")[2].partition("/")
        data = self.hub.files[name]
        facts = {"X-Repo-Commit": revision, "ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        if len(data) > 999:  # large files lie on another host, as on the real hub
            facts |= {"X-Linked-ETag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            facts |= {"Location": f"http://localhost:{self.hub.port}/blobs/{sha256(data)}"}
            self.send(b"", facts, 302)
        else:
            self.send(data, facts)

    def send_blob(self, name: str) -> None:
        hub = self.hub
        data = hub.files[name] if name != hub.lies else b"x" * len(hub.files[name])
        start = int(self.headers["Range"][6:].rstrip("-")) if "Range" in self.headers else 0
        rest = data[start:]
        facts = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if name in hub.breaks or name == hub.stalls:
            hub.breaks.discard(name)
            self.send(rest[: len(rest) // 2], facts, 206 if start else 200, len(rest))
            if name == hub.stalls:
                self.rfile.read()  # until the other side is gone
            self.close_connection = True
        else:
            self.send(rest, facts, 206 if start else 200)

    def send(self, body: bytes, facts: dict[str, str], status: int = 200, size: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body) if size is None else size), **facts}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def serve() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from serve()


def started(hub: Hub, folder: Path, name: str = "tiny", revision: str = "") -> subprocess.Popen[str]:
    """Fetch in a process of its own: the address of the hub is read when huggingface_hub is imported."""
    manifest = folder.parent / "models.toml"
    if not manifest.exists():
        manifest.write_text(MANIFEST)
    env = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HOME": str(folder.parent / "hub"), "NO_PROXY": "127.0.0.1,localhost"}
    command = [sys.executable, "-c", PROGRAM, str(manifest), str(folder), revision, name]
    return subprocess.Popen(command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def fetch(hub: Hub, folder: Path, name: str = "tiny", revision: str = "") -> tuple[int, str]:
    """Fetch; return the exit status and what was printed."""
    process = started(hub, folder, name, revision)
    said, _ = process.communicate(timeout=100)
    assert TOKEN not in said
    return process.returncode, said


def files_in(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Hub]]:
    """A model that arrived whole, and the hub it came from."""
    folder = tmp_path_factory.mktemp("whole") / "models"
    for hub in serve():
        status, said = fetch(hub, folder)
        assert (status, "error" in said.lower()) == (0, False), said
        yield folder, hub


@pytest.fixture
def copy(whole: tuple[Path, Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model to damage; the manifest in use is the tests'."""
    manifest = tmp_path / "models.toml"
    manifest.write_text(MANIFEST)
    monkeypatch.setattr(models, "_MANIFEST", manifest)
    shutil.copytree(whole[0], tmp_path / "models")
    return tmp_path / "models"


def test_a_model_arrives_with_its_record_and_without_pickles(whole: tuple[Path, Hub]) -> None:
    folder, hub = whole
    files = files_in(folder / "tiny" / REVISION)
    record = json.loads(files.pop("rr7k-model.json"))
    assert files == FILES
    listed = {path: {"size": len(data), "sha256": sha256(data)} for path, data in FILES.items()}
    assert record == {"name": "tiny", "repo": "org/tiny", "revision": REVISION, "files": listed}
    assert hub.got() == set(FILES)
    assert {("org", f"Bearer {TOKEN}"), ("blobs", "")} <= hub.tokens  # for the hub, not for where large files lie


def test_a_whole_model_is_not_asked_for_again(copy: Path, hub: Hub) -> None:
    assert fetch(hub, copy)[0] == 0
    assert hub.asked == []


def test_a_connection_that_breaks_is_resumed(hub: Hub, tmp_path: Path) -> None:
    shard = next(iter(SHARDS))
    hub.files[shard] = bytes(22 << 20)  # huggingface_hub writes, and so resumes, in steps of 10 MiB
    hub.breaks = {shard}
    status, said = fetch(hub, tmp_path / "models")
    assert status == 0, said
    assert [part for _, _, part in hub.asked if part] == [f"bytes={10 << 20}-"]
    assert (tmp_path / "models" / "tiny" / REVISION / shard).read_bytes() == hub.files[shard]


def test_a_killed_download_goes_on_with_the_files_that_miss(hub: Hub, tmp_path: Path) -> None:
    first, hub.stalls = SHARDS
    place = tmp_path / "models" / "tiny" / REVISION
    process = started(hub, tmp_path / "models")
    while not (place / first).exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert not (place / "rr7k-model.json").exists()
    hub.stalls, hub.asked = "", []
    status, said = fetch(hub, tmp_path / "models")
    assert status == 0, said
    assert first not in hub.got()
    assert set(files_in(place)) == {*FILES, "rr7k-model.json"}  # and no partial file stays


def test_a_damaged_file_alone_is_fetched_again(copy: Path, hub: Hub) -> None:
    shard = copy / "tiny" / REVISION / next(iter(SHARDS))
    shard.write_bytes(b"x" * 3_000_000)
    assert fetch(hub, copy)[0] == 0
    assert hub.got() - {path for path, data in FILES.items() if len(data) < 1000} == {shard.name}
    assert models.verify(["tiny"], copy) == []


def test_what_differs_from_the_listing_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.lies = next(iter(SHARDS))
    status, said = fetch(hub, tmp_path / "models")
    assert status == 1
    assert f"UserError: tiny: not what was listed: {hub.lies}; deleted" in said
    assert set(files_in(tmp_path / "models" / "tiny" / REVISION)) & {hub.lies, "rr7k-model.json"} == set()


def test_what_differs_from_the_manifest_is_refused(hub: Hub, tmp_path: Path) -> None:
    pinned = f'\n[tiny.files."config.json"]\nsize = 2\nsha256 = "{sha256(b"[]")}"\n'
    (tmp_path / "models.toml").write_text(MANIFEST + pinned)
    status, said = fetch(hub, tmp_path / "models")
    assert (status, "not what was listed: config.json" in said) == (1, True)


def test_code_is_fetched_only_for_a_model_that_says_so(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(MANIFEST.replace("parameters = 1", "parameters = 1\nruns_code = true", 1))
    assert fetch(hub, tmp_path / "models")[0] == 0
    assert set(files_in(tmp_path / "models" / "tiny" / REVISION)) == {*FILES, "code.py", "rr7k-model.json"}


def test_a_repository_without_a_shard_its_index_names_is_refused(hub: Hub, tmp_path: Path) -> None:
    missing = list(SHARDS)[1]
    del hub.files[missing]
    status, said = fetch(hub, tmp_path / "models")
    assert (status, f"{missing}: missing, model.safetensors.index.json names it" in said) == (1, True)


def test_a_repository_with_pickled_weights_only_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files = {**UNWANTED, "config.json": b"{}"}
    status, said = fetch(hub, tmp_path / "models")
    assert (status, "org/tiny has no safetensors weights" in said) == (1, True)


@pytest.mark.parametrize(("status", "says"), [(401, "set HF_TOKEN"), (404, "has no org/tiny at aaaa")])
def test_a_hub_that_refuses(hub: Hub, tmp_path: Path, status: int, says: str) -> None:
    hub.status = status
    assert fetch(hub, tmp_path / "models")[1].startswith("UserError: tiny: the hub ")
    assert says in fetch(hub, tmp_path / "models")[1]


def test_a_hub_out_of_reach(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "models" / "tiny" / REVISION
    place.mkdir(parents=True)
    (place / "config.json").write_bytes(b"not the hub's")
    status, said = fetch(hub, tmp_path / "models")
    assert (status, "broke off (OfflineModeIsEnabled)" in said) == (1, True), said
    assert not (place / "rr7k-model.json").exists()


def test_an_explicit_revision_has_a_folder_of_its_own(hub: Hub, tmp_path: Path) -> None:
    status, said = fetch(hub, tmp_path / "models", "unpinned", OTHER)
    assert status == 0, said
    assert (tmp_path / "models" / "unpinned" / OTHER / "rr7k-model.json").exists()


# --- verify ---


def test_a_whole_model_verifies(copy: Path) -> None:
    assert models.verify(["tiny"], copy) == []
    assert models.local_path("tiny", copy) == copy / "tiny" / REVISION


def test_verify_says_what_is_wrong_with_each_file(copy: Path) -> None:
    place = copy / "tiny" / REVISION
    first, second = SHARDS
    (place / first).write_bytes(SHARDS[first][:-1])
    (place / second).write_bytes(b"x" + SHARDS[second][1:])
    (place / "1_Pooling" / "config.json").unlink()
    (place / "merges.txt").write_bytes(b"a b c")
    wrong = [sha256(b"x" + SHARDS[second][1:]), sha256(b"a b c")]
    assert models.verify(["tiny"], copy) == [
        "tiny: 1_Pooling/config.json: missing",
        f"tiny: {first}: truncated, 2,999,999 of 3,000,000 bytes",
        f"tiny: {second}: changed, SHA-256 is {wrong[0]}, was {sha256(SHARDS[second])}",
        f"tiny: merges.txt: changed, SHA-256 is {wrong[1]}, was {sha256(b'a b')}",
    ]


def test_verify_misses_a_shard_that_was_never_recorded(copy: Path) -> None:
    path = copy / "tiny" / REVISION / "rr7k-model.json"
    record = json.loads(path.read_text())
    shard = next(iter(SHARDS))
    del record["files"][shard]
    path.write_text(json.dumps(record))
    assert models.verify(["tiny"], copy) == [f"tiny: {shard}: missing, model.safetensors.index.json names it"]


@pytest.mark.parametrize("content", [None, "{", '{"name": 1}'])
def test_without_a_record_a_model_does_not_count(copy: Path, content: str | None) -> None:
    record = copy / "tiny" / REVISION / "rr7k-model.json"
    record.unlink() if content is None else record.write_text(content)
    assert models.verify(["tiny"], copy) == ["tiny: not fetched, or not to its end"]
    with pytest.raises(UsageError, match="rr7k models fetch tiny --to"):
        models.local_path("tiny", copy)


# --- names and revisions ---


@pytest.mark.parametrize(
    ("names", "revision", "says"),
    [
        (["tinny"], "", "tinny: no such model; did you mean tiny"),
        (["tiny", "unpinned"], "", "unpinned: no revision of org/tiny is pinned; choose a commit with --revision"),
        (["tiny"], "main", "40 hexadecimal digits"),
        (["tiny"], "../" * 13 + "a", "40 hexadecimal digits"),
        (["tiny", "unpinned"], OTHER, "one model's commit"),
    ],
)
def test_requests_that_start_nothing(copy: Path, names: list[str], revision: str, says: str) -> None:
    before = files_in(copy)
    with pytest.raises(UsageError, match=re.escape(says)):
        models.fetch(names, copy, revision)
    assert files_in(copy) == before


# --- the manifest ---


def test_the_manifest_pins_what_the_pipeline_uses() -> None:
    found = models.manifest()
    assert list(found) == [
        "qwen2.5-vl-72b",
        "qwen2.5-vl-7b",
        "internvl3-78b",
        "internvl2.5-78b",
        "grounding-dino-base",
        "sam-vit-huge",
        "minilm",
    ]
    assert all(re.fullmatch("([0-9a-f]{40})?", model.revision) for model in found.values())
    assert [name for name, model in found.items() if model.runs_code] == ["internvl2.5-78b"]
    assert all(model.revision for model in found.values() if model.runs_code)
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for model in found.values() for file in model.files.values())


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [(REVISION, "main", "revision"), ("parameters", "params", "params"), ("[tiny]", "[tiny", "TOML|line|at")],
)
def test_a_manifest_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str, says: str
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(MANIFEST.replace(was, becomes))
    monkeypatch.setattr(models, "_MANIFEST", path)
    with pytest.raises(UsageError, match=rf"models\.toml: .*({says})"):
        models.manifest()
