"""The engine that asks any server which speaks OpenAI's chat completions, such as `vllm serve`.

An async actor keeps many requests under way. The client library retries what may pass (429, 5xx, time-outs, broken
connections) with growing, jittered pauses and gives up at once on any other 4xx; whatever is left becomes the error
of one row.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.errors import UsageError
from stages.engines.base import ANSWERS, Answer, Decoding, EngineConfig, answered, askable, chat_part, first_word

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

_BATCH = 16  # rows; a few run at a time in each task
_AHEAD = 3  # times what fills the slots is at hand: an image's prompts come together and wait for one server
_HOMES = 10_000  # images
_ERROR_LENGTH = 500
_ROW = pa.struct([ANSWERS.field(name) for name in Answer._fields])


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask the servers at `config.urls`. Raises `UsageError` when the client library is missing."""
    from ray.data import ActorPoolStrategy

    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error}: kind = openai needs: pip install 'rr7k[models]'") from error
    slots = math.ceil(config.slots / config.replicas)
    tasks = _AHEAD * math.ceil(slots * len(config.urls) / _BATCH) + 1
    pool = ActorPoolStrategy(
        size=config.replicas, max_tasks_in_flight_per_actor=tasks, max_concurrent_calls_per_actor=tasks
    )
    return prompts.map_batches(
        Asker,
        fn_constructor_kwargs={"config": config, "decoding": decoding, "slots": slots},
        batch_size=_BATCH,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=1,
    )


class Asker:
    """Keeps up to `slots` requests under way at each address."""

    def __init__(self, config: EngineConfig, decoding: Decoding, slots: int) -> None:
        self._config, self._decoding = config, decoding
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._clients = [_client(url, self._key, config, slots) for url in config.urls]
        self._free = [asyncio.Semaphore(slots) for _ in config.urls]
        self._load = [0] * len(config.urls)  # prompts under way or waiting
        self._homes: dict[int, int] = {}

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch of `PROMPTS`."""
        prompts = askable(batch)
        images = batch.filter(batch["problem"].is_null())["image_id"].to_pylist()
        replies = await asyncio.gather(*(self._ask(*pair) for pair in zip(prompts, images, strict=True)))
        return answered(batch, replies)

    async def _ask(self, parts: list[str | bytes], image_id: int) -> Answer:
        server = self._home(image_id)
        self._load[server] += 1
        try:
            async with self._free[server]:
                started = time.perf_counter()
                reply = await self._request(self._clients[server], parts)
                return _answer(reply, self._decoding)._replace(seconds=time.perf_counter() - started)
        except Exception as error:  # whatever a server can do costs one row
            return Answer(error=self._told(error))
        finally:
            self._load[server] -= 1

    def _home(self, image_id: int) -> int:
        """Return the server that has the image in its cache; for a new image, the one with the least to do."""
        if image_id not in self._homes:
            if len(self._homes) == _HOMES:
                self._homes.pop(next(iter(self._homes)))
            self._homes[image_id] = self._load.index(min(self._load))
        return self._homes[image_id]

    async def _request(self, client: AsyncOpenAI, parts: list[str | bytes]) -> ChatCompletion:
        options: dict[str, Any] = {"top_logprobs": self._decoding.likeliest} if self._decoding.likeliest else {}
        if self._decoding.schema:
            schema = {"name": "answer", "schema": self._decoding.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        message: Any = {"role": "user", "content": [chat_part(part) for part in parts]}
        reply: ChatCompletion = await client.chat.completions.create(
            model=self._config.model,
            messages=[message],
            max_tokens=self._decoding.max_tokens,
            temperature=0,
            logprobs=True,
            **options,
        )
        return reply

    def _told(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()
        return (text.replace(self._key, "…") if self._key else text)[:_ERROR_LENGTH]


def _client(url: str, key: str, config: EngineConfig, slots: int) -> AsyncOpenAI:
    import httpx2  # what the client library sends with
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    class Timed(DefaultAsyncHttpxClient):
        """Allows `config.timeout` for a whole attempt; the library's own limit starts again with every byte.

        Whatever else breaks below counts as a broken connection, so that it is tried again: a socket that the server
        closes while it is being opened ends in an AttributeError.
        """

        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            try:
                async with asyncio.timeout(config.timeout):
                    return await super().send(request, **options)
            except TimeoutError as error:
                raise httpx2.ReadTimeout("no whole answer in time", request=request) from error
            except httpx2.HTTPError:
                raise
            except Exception as error:
                raise httpx2.ConnectError(f"{type(error).__name__}: {error}", request=request) from error

    limits = httpx2.Limits(max_connections=slots, max_keepalive_connections=slots)
    return AsyncOpenAI(
        base_url=url,
        api_key=key or "none",
        max_retries=config.tries - 1,
        timeout=config.timeout,
        http_client=Timed(timeout=config.timeout, limits=limits),
    )


def _answer(reply: ChatCompletion, decoding: Decoding) -> Answer:
    """Read a reply. Raises when it is no completion: the library hands on what the server sent, checked or not."""
    choices = getattr(reply, "choices", None)
    if not choices or choices[0].message is None:
        raise ValueError(f"the server's reply is no chat completion: {reply}")
    choice, usage = choices[0], reply.usage
    details = usage.prompt_tokens_details if usage else None
    tokens = choice.logprobs.content if choice.logprobs else None
    answer = Answer(
        text=choice.message.content or choice.message.refusal or "",
        logprob=_sum(tokens) if tokens else None,
        likeliest=_likeliest(tokens) if tokens and decoding.likeliest else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=details.cached_tokens if details else None,
        generated_tokens=usage.completion_tokens if usage else None,
    )
    pa.scalar(answer._asdict(), _ROW)  # raises for what does not fit into a row
    return answer


def _sum(tokens: list[Any]) -> float | None:
    told = [token.logprob for token in tokens]
    return None if None in told else float(sum(told))


def _likeliest(tokens: list[Any]) -> list[dict[str, Any]] | None:
    steps = ([(t.token, t.logprob), *((o.token, o.logprob) for o in t.top_logprobs or [])] for t in tokens)
    return first_word(steps)
