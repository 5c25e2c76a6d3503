"""`python -m tests.bench.http_engine`: how busy the engine `openai` keeps a server, and what that costs the client.

Simulated: the server, which takes a second for any answer, and the pictures, which are random bytes as large as real
ones. Not simulated: Ray Data, the engine, HTTP over loopback. A slot is busy from when a request has arrived whole
until its answer is sent, by the server's own clock.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Goal, goals, hand_over
from pipeline import cluster
from pipeline.config import ClusterConfig
from stages import asking
from stages.engines.base import PROMPTS, Decoding, EngineConfig, part
from stages.rendering import Piece

SLOTS = 64
ANSWER = 1.0  # seconds
WARM_UP, STEADY = 10, 30  # seconds
PICTURES = (150_000, 40_000)  # bytes: the image that its prompts share, the crop
MASKS = 100  # per image
ROWS = 16  # per table that is rendered, as in stages/rendering.py
BUSY = Goal(3, "slots of the HTTP engine's server that are busy", "%", at_least=90)
DRIVES = Goal(3, "requests that one core drives", "/s")
console = Console(width=110)


# --- the server, in a process of its own ------------------------------------------------------------------


class Span(NamedTuple):
    """A request: when it had arrived, when its answer was sent."""

    start: float
    end: float


REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "simulated",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "a tabby cat"},
            "logprobs": {
                "content": [
                    {"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": []}
                    for token in ("a", " tab", "by", " cat", "<|im_end|>")
                ]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1500,
        "completion_tokens": 5,
        "total_tokens": 1505,
        "prompt_tokens_details": {"cached_tokens": 1200},
    },
}


def serve(pipe: Connection) -> None:
    """Answer until told to stop, then hand over the spans."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    spans: list[Span] = []
    body = json.dumps(REPLY).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                start = time.monotonic()
                await asyncio.sleep(ANSWER)
                writer.write(reply)
                spans.append(Span(start, time.monotonic()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 20)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    pipe.send(spans)
    os._exit(0)  # with connections still open


class Server:
    """A server's address, and what it has seen in the end."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url = f"http://127.0.0.1:{pipe.recv()}/v1"
        self.spans: list[Span] = []

    def stop(self) -> None:
        """Collect the spans."""
        self._pipe.send(None)
        self.spans = self._pipe.recv()


@contextmanager
def servers(count: int) -> Iterator[list[Server]]:
    """Start servers; their spans are there once the context is left."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in ends]
    for process in processes:
        process.start()
    running = [Server(ours) for ours, _ in ends]
    try:
        yield running
        for server in running:
            server.stop()
    finally:
        for process in processes:
            process.kill()


# --- the client -------------------------------------------------------------------------------------------


class Pictures:
    """Stands in for the renderer: images of `MASKS` prompts, at no cost."""

    def __call__(self, pieces: pa.Table) -> Iterator[pa.Table]:
        """Make the prompts of every piece."""
        noise = random.Random(0).randbytes(max(PICTURES))
        for piece in pieces.to_pylist():
            rows = [self._row(number, noise) for number in piece["mask_ids"]]
            for start in range(0, len(rows), ROWS):
                yield pa.Table.from_pylist(rows[start : start + ROWS], PROMPTS)

    def _row(self, number: int, noise: bytes) -> dict[str, object]:
        whole, crop = (b"\xff\xd8" + noise[2:size] for size in PICTURES)
        parts = [part("The image:"), part(whole), part("The region:"), part(crop), part("What is it?")]
        image = random.Random(number // MASKS).getrandbits(24)
        return {"prompt_id": number, "image_id": image, "subjects": [number], "parts": parts}


def asker() -> psutil.Process:
    """The process that asks."""
    for process in psutil.Process().children(recursive=True):
        if "Asker" in process.name() or "Asker" in " ".join(process.cmdline()):
            return process
    raise LookupError("no process of the engine's")


def seconds(process: psutil.Process) -> float:
    """Processor seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass
class Steady:
    """Of the steady state."""

    busy: float
    """Share of the slots."""
    least: float
    """The same in the worst second."""
    rate: float
    """Answers a second."""
    processor: float
    """Client's seconds per answer."""


def measure(urls: int) -> Steady:
    """Ask `urls` servers for as long as it takes."""
    total = SLOTS * urls
    count = int(total * (WARM_UP + STEADY + 10) / ANSWER)
    pieces = [Piece("", 0, list(range(at, min(at + MASKS, count)))) for at in range(0, count, MASKS)]
    with servers(urls) as running:
        config = EngineConfig(kind="openai", model="simulated", urls=[s.url for s in running], slots=SLOTS)
        marks = watch(asking.stream(pieces, PROMPTS.empty_table(), Pictures(), config, Decoding(64)))
    spans = [span for server in running for span in server.spans]
    return summed(spans, marks, total)


class Mark(NamedTuple):
    """A time, and the client's processor seconds until then."""

    time: float
    processor: float


def watch(answers: Iterator[pa.Table]) -> tuple[Mark, Mark]:
    """Consume the answers; note the client's processor time at the two ends of the steady state."""
    marks: list[Mark] = []
    start = 0.0
    for table in answers:
        errors = set(table["error"].drop_null().to_pylist())
        assert not errors, errors
        now = time.monotonic()
        start = start or now
        if len(marks) < 2 and now >= start + (WARM_UP, WARM_UP + STEADY)[len(marks)]:
            marks.append(Mark(now, seconds(asker())))
    return marks[0], marks[1]


def summed(spans: Sequence[Span], marks: tuple[Mark, Mark], slots: int) -> Steady:
    """Sum up what lies between the marks."""
    start, end = marks[0].time, marks[1].time
    answered = sum(start <= span.end < end for span in spans)
    steps = [start + second for second in range(int(end - start))]
    return Steady(
        share(spans, start, end, slots),
        min(share(spans, at, at + 1, slots) for at in steps),
        answered / (end - start),
        (marks[1].processor - marks[0].processor) / answered,
    )


def share(spans: Sequence[Span], start: float, end: float, slots: int) -> float:
    """The share of the slots that is busy."""
    return sum(max(0.0, min(span.end, end) - max(span.start, start)) for span in spans) / (end - start) / slots


def main(most: int = 1) -> list[Figure]:
    """Print the figures for 1 to `most` servers; return those that were asked for, the worst of them."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    console.print(
        f"servers: [bold]simulated[/], {ANSWER:.1f} s for an answer, {SLOTS} slots each; requests with pictures of "
        f"{' + '.join(f'{size / 1000:.0f}' for size in PICTURES)} KB, {MASKS} an image; {STEADY} s of steady state"
    )
    table = Table("servers", "slots busy", "worst second", "answers/s", "client's CPU", "one core drives", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    all_found: list[Steady] = []
    with cluster.session(ClusterConfig()):
        for count in range(1, most + 1):
            found = measure(count)
            all_found.append(found)
            table.add_row(
                str(count),
                f"{found.busy:.1%}",
                f"{found.least:.0%}",
                f"{found.rate:.1f}",
                f"{1000 * found.processor:.1f} ms/request",
                f"{1 / found.processor:,.0f} requests/s",
            )
    console.print(table)
    busy, drives = min(found.busy for found in all_found), 1 / max(found.processor for found in all_found)
    reached = [BUSY.reached(100 * busy), DRIVES.reached(drives)]
    console.print(goals(reached))
    return reached


if __name__ == "__main__":
    hand_over(main(*map(int, sys.argv[1:])))
