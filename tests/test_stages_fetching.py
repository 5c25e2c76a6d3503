"""Downloads against a real HTTP server on loopback that breaks off, ignores ranges, refuses and lies."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sa1b_shards import write_shard

from pipeline.errors import UsageError
from stages import fetching
from stages.fetching import Link, Outcome, fetch_all, read_links

SECRET = "signature=s3cret"


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; the path says how it misbehaves."""

    content = b""
    requests: list[tuple[str, str]]

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{behaviour}?{SECRET}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        behaviour = self.path[1:].partition("?")[0]
        wanted = self.headers.get("Range", "")
        self.server.requests.append((behaviour, wanted))
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        content = b"<html>sign in</html>" if behaviour == "html" else self.server.content
        start = int(wanted[6:-1]) if wanted and behaviour != "no-ranges" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if behaviour == "breaks" and len(body) > 4000:
            body = body[:4000]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content = write_shard(tmp_path, 1).read_bytes()
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def fetch(folder: Path, *links: Link) -> list[Outcome]:
    return fetch_all(links, folder, 2, lambda *_: None)


@pytest.mark.parametrize("behaviour", ["plain", "breaks", "no-ranges"])
def test_a_shard_arrives_whole_with_its_checksum(server: Server, tmp_path: Path, behaviour: str) -> None:
    out = tmp_path / "out"
    assert fetch(out, Link("sa_000001.tar", server.url(behaviour))) == [Outcome("sa_000001.tar")]
    assert (out / "sa_000001.tar").read_bytes() == server.content
    digest = hashlib.sha256(server.content).hexdigest()
    assert (out / "sa_000001.tar.sha256").read_text() == f"{digest}  sa_000001.tar\n"
    assert sorted(p.name for p in out.iterdir()) == ["sa_000001.tar", "sa_000001.tar.sha256"]


def test_a_broken_download_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.tar.part").write_bytes(server.content[:5000])
    assert fetch(out, Link("a.tar", server.url("plain"))) == [Outcome("a.tar")]
    assert server.requests == [("plain", "bytes=5000-")]
    assert (out / "a.tar").read_bytes() == server.content


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path / "out", Link("a.tar", server.url("plain")))
    assert fetch(tmp_path / "out", Link("a.tar", server.url("plain"))) == [Outcome("a.tar")]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "facts", "says"),
    [
        ("403", {}, "HTTP 403; the links expire"),
        ("404", {}, "HTTP 404"),
        ("html", {}, "not a tar archive"),
        ("plain", {"sha256": "00"}, "SHA-256 is"),
        ("plain", {"bytes": 17}, "17 expected"),
    ],
)
def test_failures_are_told_without_the_signed_link(
    server: Server, tmp_path: Path, behaviour: str, facts: dict[str, object], says: str
) -> None:
    (outcome,) = fetch(tmp_path / "out", Link("a.tar", server.url(behaviour), **facts))  # type: ignore[arg-type]
    assert says in outcome.error
    assert "s3cret" not in outcome.error
    assert not (tmp_path / "out" / "a.tar").exists()


def test_server_errors_are_tried_again(server: Server, tmp_path: Path) -> None:
    (outcome,) = fetch(tmp_path / "out", Link("a.tar", server.url("503")))
    assert "HTTP 503, after 5 tries without progress" in outcome.error
    assert len(server.requests) == 5


def test_one_bad_link_does_not_stop_the_others(server: Server, tmp_path: Path) -> None:
    links = [Link("a.tar", server.url("404")), Link("b.tar", server.url("plain"))]
    outcomes = fetch(tmp_path / "out", *links)
    assert [bool(o.error) for o in outcomes] == [True, False]


# --- link files ---


def links_of(tmp_path: Path, text: str) -> list[Link]:
    path = tmp_path / "links.txt"
    path.write_text(text)
    return read_links(path)


def test_the_link_file_as_published(tmp_path: Path) -> None:
    text = "\ufefffile_name\tcdn_link\r\nsa_000020.tar\thttps://example.org/a.tar?b=c\r\n\r\n"
    assert links_of(tmp_path, text) == [Link("sa_000020.tar", "https://example.org/a.tar?b=c")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no links in it"),
        ("file_name\tcdn_link\nsa_1.tar", r"links\.txt:2: expected"),
        ("sa_1.tar\tftp://x", r"links\.txt:1: expected"),
        ("../x.tar\thttps://x", "not a plain name"),
        ("a/x.tar\thttps://x", "not a plain name"),
        (".x.tar\thttps://x", "not a plain name"),
        ("x.exe\thttps://x", "not a plain name"),
        ("a.tar\thttps://x\na.tar\thttps://y", r"links\.txt:2: a\.tar is listed twice"),
    ],
)
def test_link_files_that_are_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        links_of(tmp_path, text)


def test_sa_1bs_list_of_shards() -> None:
    known = fetching._known_shards()
    assert list(known)[:2] == ["sa_000000.tar", "sa_000001.tar"]
    assert len(known) == 1000
