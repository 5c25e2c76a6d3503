"""The client against servers that do not answer, break off, lie and leak."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from annotation_ui import client
from annotation_ui.client import Client, ProjectSettings
from pipeline.errors import UsageError, UserError

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "head.personal.signature"
COOKIE = "sessionid=s3cret"


class Server(ThreadingHTTPServer):
    """Keeps tasks as Label Studio does; `behaviour` says how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = ""
        self.said = b""
        self.tasks: list[dict[str, Any]] = []
        self.imports: list[int] = []
        self.accesses = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        authorization = self.headers["Authorization"]
        if self.server.behaviour == "personal" and authorization != f"Bearer access{self.server.accesses}":
            self.answer(401, b'{"detail": "Token is expired"}')
        elif self.server.behaviour.isdigit():
            self.answer(int(self.server.behaviour), b"<html>traceback</html>")
        elif self.server.behaviour == "echo":
            self.answer(400, json.dumps({"detail": f"odd: {authorization}"}).encode())
        elif self.server.behaviour == "html":
            self.answer(200, b"<html>sign in</html>")
        elif self.server.behaviour == "say":
            self.answer(200, self.server.said)
        elif self.server.behaviour == "break":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            tasks = [{"id": n, "meta": task["meta"]} for n, task in enumerate(self.server.tasks, 1)]
            self.answer(200, json.dumps({"total": len(tasks), "tasks": tasks}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/token/refresh":
            self.server.accesses += 1
            good = body == {"refresh": PERSONAL}
            access = {"access": f"access{self.server.accesses}"} if good else {"detail": "Token is invalid"}
            self.answer(200 if good else 401, json.dumps(access).encode())
            return
        self.server.imports.append(len(body))
        if self.server.behaviour != "lose":
            self.server.tasks += body
        if self.server.behaviour in ("late", "lose"):
            time.sleep(1.2)
        self.answer(201, json.dumps({"task_count": len(body)}).encode())

    def answer(self, status: int, body: bytes) -> None:
        with suppress(OSError):  # who asked may have given up
            self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", COOKIE)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TIMEOUT", httpx.Timeout(0.7))
    monkeypatch.setattr(client, "_SETTLE", (0.1, 3))


def tasks(count: int) -> list[dict[str, Any]]:
    return [{"data": {}, "meta": {"page_id": f"p{n}"}} for n in range(count)]


def test_what_is_there_is_not_sent_again(server: Server) -> None:
    with Client(server.url, TOKEN) as there:
        assert there.send(1, tasks(1201)) == 1201
        assert server.imports == [500, 500, 201]
        assert there.send(1, tasks(1201)) == 0
        server.tasks = [*server.tasks[:900], {"meta": {}}, {"meta": None}, *server.tasks[1000:]]
        assert there.send(1, iter(tasks(1201))) == 100
    assert server.imports == [500, 500, 201, 100]
    assert len({task["meta"]["page_id"] for task in server.tasks if task["meta"]}) == 1201


def test_a_page_stored_twice_is_told(server: Server) -> None:
    server.tasks = tasks(2) + tasks(1)
    with Client(server.url, TOKEN) as there:
        assert there.pages(1) == {"p0": [1, 3], "p1": [2]}


@pytest.mark.usefixtures("hasty")
def test_a_request_without_an_answer_that_was_stored_is_not_sent_twice(server: Server) -> None:
    server.behaviour = "late"
    with Client(server.url, TOKEN) as there:
        assert there.send(1, tasks(700)) == 700
    assert server.imports == [500, 200]


@pytest.mark.usefixtures("hasty")
def test_a_request_without_an_answer_that_may_be_under_way_is_not_sent_twice(server: Server) -> None:
    server.behaviour = "lose"
    with (
        Client(server.url, TOKEN) as there,
        pytest.raises(UserError, match=r"no answer.* 500 pages are not stored yet"),
    ):
        there.send(1, tasks(700))
    assert server.imports == [500]


def test_a_personal_token_is_changed_when_it_has_to_be(server: Server) -> None:
    server.behaviour = "personal"
    with Client(server.url, PERSONAL) as there:
        assert there.pages(1) == {}
        assert there.pages(1) == {}
        assert server.accesses == 1
        server.accesses += 1  # the last one expires
        assert there.pages(1) == {}
        assert server.accesses == 3


@pytest.mark.parametrize("token", [f"{PERSONAL}x", TOKEN])
def test_a_wrong_token(server: Server, token: str) -> None:
    server.behaviour = "personal"
    with Client(server.url, token) as there, pytest.raises(UsageError, match="does not take the token") as refused:
        there.pages(1)
    assert token not in str(refused.value)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("500", "HTTP 500 about project 1. Its log says more."),
        ("302", "HTTP 302 about project 1. Its log says more."),
        ("404", "project 1 is not there. Was it deleted?"),
        ("echo", "refuses project 1: odd: Token …"),
        ("html", "is not JSON. Is this a Label Studio?"),
        ("break", "broke off"),
    ],
)
def test_other_failures_tell_no_secret(server: Server, behaviour: str, told: str) -> None:
    server.behaviour = behaviour
    with Client(server.url, TOKEN) as there, pytest.raises(UserError) as failed:
        there.pages(1)
    assert told in str(failed.value)
    assert str(failed.value).startswith(server.url)
    for secret in (TOKEN, COOKIE, "traceback"):
        assert secret not in str(failed.value)


ANSWERED = {"id": 1, "completed_by": 1, "was_cancelled": False, "result": [], "updated_at": "2026-11-24T10:00:00.5Z"}


def answered(**other: Any) -> dict[str, Any]:
    return {"tasks": [{"id": 1, "data": {}, "meta": {}, "annotations": [ANSWERED | other]}]}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{"tasks": [{"id": 1, "meta": "\xff"}]}', "is not JSON. Is this a Label Studio?"),
        (b'{"tasks": [{"id": 1, "meta": ' + b"[" * 100_000, "is not JSON. Is this a Label Studio?"),
        ([], "is not as Label Studio's: Expected `object`, got `array`"),
        ({}, "missing required field `tasks`"),
        ({"tasks": [{"meta": {}}]}, "missing required field `id` - at `$.tasks[0]`"),
        ({"tasks": [{"id": 1, "data": "x"}]}, "Expected `object`, got `str` - at `$.tasks[0].data`"),
        (answered(id=2**63), "at `$.tasks[0].annotations[0].id`"),
        (answered(updated_at=None), "at `$.tasks[0].annotations[0].updated_at`"),
        (answered(updated_at="yesterday"), "at `$.tasks[0].annotations[0].updated_at`"),
        (answered(completed_by="ann"), "at `$.tasks[0].annotations[0].completed_by`"),
        ({"tasks": [{"id": 1}] * 500}, "lists the same pages of project 1 again and again"),
    ],
)
def test_answers_that_are_not_label_studios(server: Server, said: Any, told: str) -> None:
    server.behaviour, server.said = "say", said if isinstance(said, bytes) else json.dumps(said).encode()
    with Client(server.url, TOKEN) as there, pytest.raises(UserError) as failed:
        list(there.annotated(1))
    assert told in str(failed.value)


@pytest.mark.parametrize(
    "ask", [Client.name, Client.people, lambda there: there.find("x"), lambda there: there.serve(1, "x")]
)
@pytest.mark.parametrize("said", [b"{}", b"[{}]", b'{"results": [{"id": "1"}]}', b"null"])
def test_other_answers_that_are_not_label_studios(server: Server, ask: Any, said: bytes) -> None:
    server.behaviour, server.said = "say", said
    with Client(server.url, TOKEN) as there, suppress(UserError):
        ask(there)


@pytest.mark.parametrize("meta", [None, 5, "x", [], {}, {"page_id": None}, {"page_id": ["a"]}])
def test_tasks_that_people_added_are_no_pages(server: Server, meta: Any) -> None:
    server.tasks = [*tasks(1), {"meta": meta}]
    with Client(server.url, TOKEN) as there:
        assert there.pages(1) == {"p0": [1]}


def test_what_annotators_can_set_is_handed_on(server: Server) -> None:
    odd = {"result": {"a": None}, "lead_time": "long", "was_cancelled": None, "completed_by": None}
    server.behaviour, server.said = "say", json.dumps(answered(**odd)).encode()
    with Client(server.url, TOKEN) as there:
        (task,) = there.annotated(1)
    assert task["annotations"] == [ANSWERED | odd]


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        Client(url, TOKEN) as there,
        pytest.raises(UserError, match=f"{url}: cannot be reached. Is Label Studio running"),
    ):
        there.project(ProjectSettings("pages", "<View/>"))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "", "http://me:hush@127.0.0.1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="address of Label Studio is none") as refused:
        Client(url, TOKEN)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "schlüssel"])
def test_a_token_that_is_none(token: str) -> None:
    with pytest.raises(UsageError, match="token of Label Studio is none"):
        Client("http://127.0.0.1", token)
