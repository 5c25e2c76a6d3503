"""A server that names a region by the bytes of its pictures: the same region always gets the same name."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def name_of(pictures: list[str]) -> str:
    """A name of five letters."""
    digest = hashlib.sha256("".join(pictures).encode()).digest()
    return "".join(chr(97 + byte % 26) for byte in digest[:5])


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients that are killed break their connections: that is what is tested."""


class NamingServer:
    """Speaks OpenAI's chat completions on loopback; counts what it answered."""

    def __init__(self, delay: float = 0.0, port: int = 0) -> None:
        self.delay = delay
        self.broken: Callable[[str], bool] = lambda _: False
        """Given a name: whether to refuse instead."""
        self.name = name_of
        self.constant = ""
        """Answer this whatever is shown."""
        self.hangs_after = sys.maxsize
        """The first so many requests are answered, later ones wait."""
        self.spared: frozenset[str] = frozenset()
        """Names that are always answered, and not counted."""
        self.answered: Counter[str] = Counter()
        self._requests = itertools.count()
        self._connections: list[socket.socket] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server._connections.append(self.connection)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                server.reply(self, json.loads(self.rfile.read(length)))

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = _Quiet(("127.0.0.1", port), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def reply(self, handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        """Answer one request."""
        content = asked["messages"][0]["content"]
        name = self.name([part["image_url"]["url"] for part in content if part["type"] == "image_url"])
        request = -1 if name in self.spared else next(self._requests)
        while request >= self.hangs_after:
            time.sleep(0.1)
        time.sleep(self.delay)
        if self.broken(name):
            self._send(handler, 400, {"error": {"message": "out of order"}})
        else:
            self._send(handler, 200, completion(self.constant or name))
        self.answered[name] += 1

    def _send(self, handler: BaseHTTPRequestHandler, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def stop(self) -> None:
        """Go away; connections break."""
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def completion(text: str) -> dict[str, Any]:
    """A chat completion as vLLM's server sends it."""
    tokens = [{"token": text, "logprob": -0.25, "bytes": None, "top_logprobs": []}]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "test",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": tokens},
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 104,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
    }
