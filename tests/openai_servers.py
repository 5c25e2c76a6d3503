"""Servers of OpenAI's chat completions on loopback: a real one, and one that does what it is told, right or wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# --- the server of the package transformers ---------------------------------------------------------------


@contextmanager
def transformers_serve(checkpoint: Path, folder: Path) -> Iterator[str]:
    """Serve a checkpoint on the processor; yields the base address. `folder` is for its log and its empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    tool = Path(sys.executable).parent / "transformers"
    command = [str(tool), "serve", str(checkpoint), "--device", "cpu", "--host", host, "--port", port]
    env = os.environ | {"HF_HUB_CACHE": str(folder), "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        try:
            _wait_for(f"http://{address}/health", process, folder / "log")
            yield f"http://{address}/v1"
        finally:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server does not start:\n{log.read_text()[-2000:]}")


# --- a server of our own ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    path: str
    authorization: str
    body: dict[str, Any]

    @property
    def content(self) -> list[dict[str, Any]]:
        """The parts of the one message."""
        (message,) = self.body["messages"]
        assert message["role"] == "user"
        return list(message["content"])

    @property
    def text(self) -> str:
        """All texts."""
        return " ".join(part["text"] for part in self.content if part["type"] == "text")

    @property
    def pictures(self) -> list[tuple[str, bytes]]:
        """Media type and content of the data URLs."""
        urls = [part["image_url"]["url"] for part in self.content if part["type"] == "image_url"]
        return [_data(url) for url in urls]


def _data(url: str) -> tuple[str, bytes]:
    head, comma, data = url.partition(";base64,")
    assert (head[:5], comma) == ("data:", ";base64,")
    return head[5:], base64.b64decode(data, validate=True)


class Connection:
    """What a behaviour can do with a connection on which a request has arrived."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Break the connection at once, so that the other side gets an error."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    def close(self) -> None:
        """End the connection in order."""
        self._writer.close()


Behaviour = Callable[[Asked, Connection], Awaitable[None]]


def response(body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> bytes:
    """An HTTP response."""
    facts = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in facts.items())
    return f"HTTP/1.1 {status} Some Reason\r\n{lines}\r\n".encode() + body


def as_json(content: object, status: int = 200, **headers: str) -> bytes:
    """A response with JSON."""
    return response(json.dumps(content).encode(), status, **headers)


def completion(text: object, logprobs: tuple[float, ...] = (-0.5, -0.25), **usage: object) -> dict[str, Any]:
    """A chat completion with log probabilities and usage, as the documentation has it."""
    tokens = [{"token": "x", "logprob": value, "bytes": [120], "top_logprobs": []} for value in logprobs]
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": {"content": tokens}}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [choice],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": len(logprobs),
            "total_tokens": 100 + len(logprobs),
            "prompt_tokens_details": {"cached_tokens": 64},
            **usage,
        },
    }


async def answer(asked: Asked, connection: Connection) -> None:
    """Answer with the question's text."""
    await connection.send(as_json(completion(asked.text)))


class ChatServer:
    """A server in a thread, as a context; it remembers what it was asked.

    Nothing is answered before `crowd` requests are there at a time.
    """

    def __init__(self, behaviour: Behaviour = answer, crowd: int = 1, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.most = 0
        """Requests at a time."""
        self._behaviour, self._crowd, self._port = behaviour, crowd, port
        self._crowded = asyncio.Event()
        self._busy = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> ChatServer:
        """Listen."""
        listening = asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._server = self._loop.run_until_complete(listening)
        self._port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Break all connections and be gone."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def port(self) -> int:
        """The port, for a server that is to take this one's place."""
        return self._port

    def times(self) -> Counter[str]:
        """How often each text was asked."""
        return Counter(asked.text for asked in self.asked)

    async def _stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                asked = await _request(reader)
                self.asked.append(asked)
                await self._reply(asked, Connection(writer))
        writer.close()
        self._writers.discard(writer)

    async def _reply(self, asked: Asked, connection: Connection) -> None:
        self._busy += 1
        self.most = max(self.most, self._busy)
        if self._busy >= self._crowd:
            self._crowded.set()
        try:
            await self._crowded.wait()
            await self._behaviour(asked, connection)
        finally:
            self._busy -= 1


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Asked(first.split()[1], headers.get("authorization", ""), json.loads(body))
