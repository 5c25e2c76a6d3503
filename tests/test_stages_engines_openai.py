"""The engine that asks servers: what it sends, what it reads, and that whatever a server does costs one row at most."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from openai_servers import (
    Asked,
    ChatServer,
    Connection,
    answer,
    as_json,
    completion,
    response,
    transformers_serve,
)
from PIL import Image

from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.images import Size
from stages import engines
from stages.engines.base import ANSWERS, PROMPTS, Decoding, EngineConfig, part
from stages.engines.openai import Asker
from stages.preflight import of_names
from stages.prompt_tokens import image_tokens
from stages.region_prompts import RegionPrompt

KEY = "sk-s3cret-0123456789"
SHORT = Decoding(16)
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def picture(size: Size, seed: int = 0, kind: str = "JPEG") -> bytes:
    """Coarse noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size).save(file, kind)
    return file.getvalue()


def prompt(number: int, *pieces: str | bytes, image_id: int = 0, problem: str | None = None) -> Row:
    parts = [part(piece) for piece in pieces]
    row = {"prompt_id": number, "image_id": image_id, "shard": "a", "subjects": [number], "parts": parts}
    return {**row, "image_tokens": 0, "shared_tokens": 0, "problem": problem}


def config(*urls: str, **settings: Any) -> EngineConfig:
    return EngineConfig.model_validate({"kind": "openai", "model": "served", "urls": list(urls), **settings})


def ask(rows: Sequence[Row] | pa.Table, engine: EngineConfig, decoding: Decoding = SHORT) -> list[Row]:
    """Ask without Ray, all rows at once."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), PROMPTS)
    answers = asyncio.run(Asker(engine, decoding, engine.slots)(table))
    assert answers.schema == ANSWERS
    return list(answers.to_pylist())


# --- a real server ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineConfig]:
    """An engine of `transformers serve`."""
    with transformers_serve(tiny_qwen, tmp_path_factory.mktemp("serve")) as url:
        yield config(url, model=str(tiny_qwen), slots=4)


def test_a_real_server_sees_every_picture_whole(real: EngineConfig) -> None:
    shown: list[list[Size]] = [[], [(200, 100)], [(640, 480)], [(30, 400)], [(640, 480), (200, 100)]]
    rows = [prompt(n, *map(picture, sizes), "What is this?") for n, sizes in enumerate(shown)]
    bare, *others = (row["prompt_tokens"] for row in ask(rows, real))
    marks = [2 * len(sizes) for sizes in shown[1:]]  # the tokens before and after a picture
    assert [tokens - bare - more for tokens, more in zip(others, marks, strict=True)] == [
        image_tokens(sizes, real) for sizes in shown[1:]
    ]


def test_a_real_server_answers_by_what_is_in_the_picture(real: EngineConfig) -> None:
    rows = [prompt(n, picture((200, 100), seed=n), "What is this?") for n in range(4)]
    first, again = ask(rows, real), ask(rows, real)
    assert len({row["text"] for row in first}) > 1
    assert [row["text"] for row in first] == [row["text"] for row in again]


@pytest.mark.parametrize("most", [1, 7])
def test_a_real_server_stops_where_it_is_told(real: EngineConfig, most: int) -> None:
    (row,) = ask([prompt(1, "Tell me everything.")], real, Decoding(most))
    assert (row["generated_tokens"], row["error"]) == (most, None)
    assert row["text"]


def test_a_server_without_log_probabilities_passes_the_preflight_which_says_so(real: EngineConfig) -> None:
    said: list[str] = []
    preflight = of_names("What is this?", RegionPrompt(layout="shared+crop"), real)
    rows = ask(preflight.prompts, real, Decoding(8))
    assert [row["logprob"] for row in rows] == [None] * 3
    preflight.take_own(pa.Table.from_pylist(rows, ANSWERS))
    preflight.judge("refuse", said.append)
    assert said[-1] == "the engine tells no log probabilities: the column logprob stays empty"


# --- what is sent and read --------------------------------------------------------------------------------


def test_an_answer_with_all_that_the_server_tells() -> None:
    async def told(_: Asked, connection: Connection) -> None:
        usage = {"prompt_tokens": 1500, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1200}}
        await connection.send(as_json(completion("a cat", (-0.5, -0.125, -2.0), **usage)))

    with ChatServer(told) as server:
        (row,) = ask([prompt(7, "What is this?", image_id=3)], config(server.url))
    assert 0 < row.pop("seconds") < 10
    assert row == {
        **{"prompt_id": 7, "image_id": 3, "shard": "a", "subjects": [7], "image_tokens": 0, "shared_tokens": 0},
        **{"problem": None, "reason": None, "text": "a cat", "logprob": -2.625, "likeliest": None, "error": None},
        **{"prompt_tokens": 1500, "cached_tokens": 1200, "generated_tokens": 3},
    }


@pytest.mark.parametrize("lacking", ["usage", "logprobs", "prompt_tokens_details"])
def test_what_a_server_does_not_tell_is_unknown(lacking: str) -> None:
    async def terse(_: Asked, connection: Connection) -> None:
        reply = completion("a cat")
        for holder in (reply, reply["choices"][0], reply["usage"]):
            holder.pop(lacking, None)
        await connection.send(as_json(reply))

    columns = {"usage": "prompt_tokens", "logprobs": "logprob", "prompt_tokens_details": "cached_tokens"}
    with ChatServer(terse) as server:
        (row,) = ask([prompt(1, "What?")], config(server.url))
    assert (row["text"], row["error"], row[columns[lacking]]) == ("a cat", None, None)


def test_a_request_holds_the_very_bytes_and_asks_for_the_likeliest_answer() -> None:
    jpeg, png = picture((64, 48)), picture((32, 32), kind="PNG")
    with ChatServer() as server:
        ask([prompt(1, "The image:", jpeg, "the region:", png, "What is it?")], config(server.url), Decoding(21))
    (asked,) = server.asked
    settings = {name: value for name, value in asked.body.items() if name != "messages"}
    assert settings == {"model": "served", "max_tokens": 21, "temperature": 0, "logprobs": True}
    assert (asked.path, asked.authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert [piece["type"] for piece in asked.content] == ["text", "image_url", "text", "image_url", "text"]
    assert asked.text == "The image: the region: What is it?"
    assert asked.pictures == [("image/jpeg", jpeg), ("image/png", png)]


NO = {"token": "No", "logprob": -1.5}
LIKELIEST: dict[str, tuple[Any, list[dict[str, Any]] | None]] = {
    "as documented": (
        [{"token": "Yes", "logprob": -0.25, "top_logprobs": [{"token": "Yes", "logprob": -0.25}, NO]}],
        [NO, {"token": "Yes", "logprob": -0.25}],
    ),
    "a blank first": ([{"token": " \n", "logprob": -0.1, "top_logprobs": [NO]}, NO], [NO]),
    "none of the others": ([{"token": "Yes", "logprob": -0.25}], [{"token": "Yes", "logprob": -0.25}]),
    "null": ([{"token": "Yes", "logprob": None, "top_logprobs": [NO]}], [NO]),
    "all null": ([{"token": "Yes", "logprob": None}], None),
    "no word": ([{"token": "!", "logprob": -0.25}], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize("name", LIKELIEST)
def test_the_likeliest_first_words_are_asked_for_and_read(name: str) -> None:
    tokens, expected = LIKELIEST[name]
    sent = completion("Yes")
    sent["choices"][0]["logprobs"]["content"] = tokens

    async def told(_: Asked, connection: Connection) -> None:
        await connection.send(as_json(sent))

    with ChatServer(told) as server:
        (row,) = ask([prompt(1, "Is it?")], config(server.url), Decoding(8, likeliest=20))
    assert server.asked[0].body["top_logprobs"] == 20
    assert row["error"] is None
    assert row["likeliest"] == expected


def test_an_answer_can_be_held_to_a_schema() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    with ChatServer() as server:
        ask([prompt(1, "What?")], config(server.url), Decoding(16, schema))
    form = server.asked[0].body["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", schema)
    assert form["json_schema"]["name"]


@pytest.mark.parametrize(("value", "sent"), [(f"{KEY}\n", f"Bearer {KEY}"), ("", "Bearer none")])
def test_the_key_is_that_of_the_environment(value: str, sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with ChatServer() as server:
        (row,) = ask([prompt(1, "What?")], config(server.url))
    assert (row["error"], server.asked[0].authorization) == (None, sent)


def test_what_cannot_be_asked_is_passed_on_unasked() -> None:
    rows = [prompt(1, "one"), prompt(2, problem="no such picture"), prompt(3, "three")]
    with ChatServer() as server:
        answers = ask(rows, config(server.url))
    assert [(row["prompt_id"], row["text"], row["error"]) for row in answers] == [
        (1, "one", None),
        (2, None, None),
        (3, "three", None),
    ]
    assert set(server.times()) == {"one", "three"}


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_as_many_requests_at_a_time_as_there_are_slots(slots: int) -> None:
    count = slots + 20
    with ChatServer(crowd=slots) as server:
        answers = ask([prompt(n, f"{n}") for n in range(count)], config(server.url, slots=slots))
    assert [row["text"] for row in answers] == [f"{n}" for n in range(count)]
    assert server.most == slots


def test_an_image_stays_with_one_server_and_all_servers_are_busy() -> None:
    rows = [prompt(n, f"{n}", image_id=2 * (n // 10)) for n in range(40)]  # even ids only
    with ChatServer(crowd=4) as one, ChatServer(crowd=4) as other:
        answers = ask(rows, config(one.url, other.url, slots=4))
    assert all(row["text"] for row in answers)
    assert (one.most, other.most) == (4, 4)
    images = [{int(asked.text) // 10 for asked in server.asked} for server in (one, other)]
    assert sorted(map(len, images)) == [2, 2]
    assert not images[0] & images[1]


# --- what can go wrong ------------------------------------------------------------------------------------

TRIES, TIMEOUT = 2, 2.0
Move = Callable[[Connection], Awaitable[None]]


def says(data: bytes) -> Move:
    async def move(connection: Connection) -> None:
        await connection.send(data)

    return move


def breaks_off(data: bytes) -> Move:
    async def move(connection: Connection) -> None:
        await connection.send(data)
        connection.close()

    return move


def fails(status: int, message: str = "out of order", **headers: str) -> Move:
    return says(as_json({"error": {"message": message, "type": "test", "code": status}}, status, **headers))


def replies(**changes: object) -> Move:
    """A completion with other values in its choice or, of the same name, in its usage or message."""
    reply = completion("a cat")
    choice = reply["choices"][0]
    for holder in (reply, choice, choice["message"], reply["usage"]):
        holder.update({name: value for name, value in changes.items() if name in holder})
    return says(as_json(reply))


async def hangs(_: Connection) -> None:
    await asyncio.sleep(60)


async def resets(connection: Connection) -> None:
    connection.reset()


async def trickles(connection: Connection) -> None:
    """One byte after another: there is always news, and never an answer."""
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await connection.send(b" ")
        await asyncio.sleep(0.1)


WHOLE = as_json(completion("a cat"))
HALF = WHOLE[: len(WHOLE) // 2]
LONG = "cat " * 2500
SPLIT = "x" * (500 - len("AuthenticationError: Error code: 401 - ") - len(KEY) // 2)  # the end cuts the key in two


@dataclass(frozen=True)
class Case:
    """What a server does to one row, request by request and then always the last, and what becomes of the row."""

    moves: Sequence[Move | None]
    """None: a sound answer."""
    requests: int
    error: str = ""
    """How it begins; empty: the row is answered."""


CASES = {
    "hangs": Case([hangs], TRIES, "APITimeoutError"),
    "hangs once": Case([hangs, None], 2),
    "trickles": Case([trickles], TRIES, "APITimeoutError"),
    "connection reset": Case([resets], TRIES, "APIConnectionError"),
    "connection reset once": Case([resets, None], 2),
    "closed without a word": Case([breaks_off(b"")], TRIES, "APIConnectionError"),
    "half an answer": Case([breaks_off(HALF)], TRIES, "APIConnectionError"),
    "half an answer once": Case([breaks_off(HALF), None], 2),
    "another protocol": Case([breaks_off(b"SSH-2.0-OpenSSH_9.2\r\n")], TRIES, "APIConnectionError"),
    "500": Case([fails(500)], TRIES, "InternalServerError: Error code: 500 - out of order"),
    "500 once": Case([fails(500), None], 2),
    "503 in HTML once": Case([says(response(b"<h1>Busy</h1>", 503, "text/html")), None], 2),
    "429": Case([fails(429)], TRIES, "RateLimitError"),
    "429 once": Case([fails(429, Retry_After="1"), None], 2),
    "400": Case([fails(400)], 1, "BadRequestError: Error code: 400 - out of order"),
    "404": Case([fails(404)], 1, "NotFoundError"),
    "400 with half a character": Case([fails(400, "\ud83d")], 1, "BadRequestError"),
    "400 with a long story": Case([fails(400, LONG)], 1, "BadRequestError: Error code: 400 - cat cat"),
    "401 with the key": Case([fails(401, f"Incorrect API key: {KEY}.")], 1, "AuthenticationError"),
    "401 with the key at its end": Case([fails(401, SPLIT + KEY)], 1, "AuthenticationError"),
    "200 with the key": Case([says(as_json({"key": KEY}))], 1, "ValueError"),
    "200 with an error": Case([says(as_json({"error": {"message": "out of order"}}))], 1, "ValueError"),
    "200 with garbage": Case([says(response(b'{"choices": [{'))], 1, "JSONDecodeError"),
    "200 with bytes": Case([says(response(bytes(range(256))))], 1, "JSONDecodeError"),
    "200 in HTML": Case([says(response(b"<h1>Welcome</h1>", kind="text/html"))], 1, "ValueError"),
    "200 with nothing": Case([says(response(b""))], 1, "JSONDecodeError"),
    "200 with null": Case([says(as_json(None))], 1, "ValueError"),
    "200 with a list": Case([says(as_json([]))], 1, "ValueError"),
    "no choices": Case([replies(choices=[])], 1, "ValueError"),
    "choices null": Case([replies(choices=None)], 1, "ValueError"),
    "choices a word": Case([replies(choices="cat")], 1, "AttributeError"),
    "message null": Case([replies(message=None)], 1, "ValueError"),
    "message a word": Case([replies(message="cat")], 1, "AttributeError"),
    "text a list": Case([replies(content=[{"type": "text", "text": "cat"}])], 1, "ArrowTypeError"),
    "text half a character": Case([replies(content="\ud83d")], 1, "UnicodeEncodeError"),
    "tokens a word": Case([replies(prompt_tokens="many")], 1, "Arrow"),
    "tokens beyond counting": Case([replies(prompt_tokens=10**30)], 1, "OverflowError"),
    "usage a word": Case([replies(usage="much")], 1, "AttributeError"),
    "log probability a word": Case([replies(logprobs={"content": [{"logprob": "low"}]})], 1, "TypeError"),
    "log probability null": Case([replies(logprobs={"content": [{"logprob": None}]})], 1),
    "a very long answer": Case([replies(content=LONG)], 1),
    "an empty answer": Case([replies(content=None)], 1),
    "a refusal": Case([replies(content=None, refusal="I will not name this.")], 1),
}
TEXTS = {
    "a very long answer": LONG,
    "log probability null": "a cat",
    "an empty answer": "",
    "a refusal": "I will not name this.",
}


@dataclass(frozen=True)
class Aftermath:
    """What has become of all rows, and how often each was asked."""

    rows: dict[str, Row]
    requests: dict[str, int]


@pytest.fixture(scope="module")
def aftermath() -> Aftermath:
    """All that can go wrong, at once, between sound rows."""
    left = {name: itertools.chain(case.moves, itertools.repeat(case.moves[-1])) for name, case in CASES.items()}

    async def behave(asked: Asked, connection: Connection) -> None:
        move = next(left[asked.text], None) if asked.text in left else None
        await (move(connection) if move else answer(asked, connection))

    questions = [question for name in CASES for question in (name, f"sound beside {name}")]
    rows = [prompt(n, question, image_id=n) for n, question in enumerate(questions)]
    with pytest.MonkeyPatch.context() as patch, ChatServer(behave) as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        answers = ask(rows, config(server.url, tries=TRIES, timeout=TIMEOUT, slots=len(rows)))
    return Aftermath(dict(zip(questions, answers, strict=True)), dict(server.times()))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_costs_its_own_row_at_most(aftermath: Aftermath, name: str) -> None:
    row, beside = aftermath.rows[name], aftermath.rows[f"sound beside {name}"]
    assert (beside["text"], beside["error"]) == (f"sound beside {name}", None)
    if CASES[name].error:
        assert row["text"] is None
        assert row["error"].startswith(CASES[name].error)
        assert len(row["error"]) <= 500
    else:
        assert (row["text"], row["error"]) == (TEXTS.get(name, name), None)


@pytest.mark.parametrize("name", CASES)
def test_what_may_pass_is_tried_again_and_nothing_else(aftermath: Aftermath, name: str) -> None:
    assert aftermath.requests[name] == CASES[name].requests


def test_a_server_that_names_a_pause_gets_it(aftermath: Aftermath) -> None:
    assert aftermath.rows["429 once"]["seconds"] >= 1  # of its own accord the client waits half a second


def test_the_key_is_in_no_error(aftermath: Aftermath) -> None:
    errors = [row["error"] for row in aftermath.rows.values() if row["error"]]
    assert not [error for error in errors if KEY[:5] in error]


def test_a_server_that_dies_and_comes_back_is_waited_for() -> None:
    async def never(_: Asked, __: Connection) -> None:
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool:
        with ChatServer(never, crowd=3) as first:
            engine = config(first.url, tries=4, timeout=20)
            asking = pool.submit(ask, [prompt(n, f"{n}") for n in range(3)], engine)
            while first.most < 3:
                time.sleep(0.01)
        time.sleep(0.6)  # beyond the first pause
        with ChatServer(port=first.port) as second:
            answers = asking.result(60)
    assert [(row["text"], row["error"]) for row in answers] == [("0", None), ("1", None), ("2", None)]
    assert len(second.asked) == 3


def test_a_server_that_is_not_there_is_an_error_of_every_row() -> None:
    with ChatServer() as gone:
        pass
    answers = ask([prompt(n, "What?") for n in range(3)], config(gone.url, tries=1))
    assert [row["error"][:18] for row in answers] == ["APIConnectionError"] * 3


# --- through Ray Data -------------------------------------------------------------------------------------


def test_all_rows_come_back_through_ray() -> None:
    async def behave(asked: Asked, connection: Connection) -> None:
        if asked.text in ("5", "50"):
            await connection.send(as_json({"error": {"message": "too much"}}, 400))
        else:
            await answer(asked, connection)

    rows = [prompt(n, picture((64, 64), n), f"{n}", image_id=n // 7) for n in range(100)]
    rows[9] = prompt(9, problem="no such picture")
    refused = (None, "BadRequestError: Error code: 400 - too much")
    expected = {n: (f"{n}", None) for n in range(100)} | {5: refused, 9: (None, None), 50: refused}
    with cluster.session(ClusterConfig()), ChatServer(behave, crowd=16) as one, ChatServer(behave, crowd=16) as other:
        import ray

        prompts = ray.data.from_arrow(pa.Table.from_pylist(rows, PROMPTS))
        found = engines.answers(prompts, config(one.url, other.url, slots=16), SHORT).take_all()
    assert {row["prompt_id"]: (row["text"], row["error"]) for row in found} == expected
    assert len(found) == 100
    assert {asked.authorization for asked in one.asked + other.asked} == {f"Bearer {KEY}"}
    assert (one.most, other.most) == (16, 16)
