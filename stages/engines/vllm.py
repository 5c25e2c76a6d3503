"""The engine for a GPU cluster: vLLM inside Ray, through Ray Data LLM's own processor.

Settings follow reference/pipeline_anchors.md §6: tensor parallel inside a node, no pipeline parallel with images,
a fixed number of replicas, a prefix cache, and errors as rows.
"""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

import pyarrow as pa

from pipeline.errors import UsageError
from stages.engines.base import ANSWERS, PROMPTS, Answer, Decoding, EngineConfig, chat_part, first_word
from stages.engines.transformers import checkpoint, resizing

_SKIP = "skip"
_PICTURES = 2  # in a prompt, at most
_SEQUENCES, _TOKENS = 256, 8192
"""At a time in a replica, and in a step of it: what vLLM 0.29 chooses for offline use on an A100
(EngineArgs.get_batch_defaults). Started by Ray it would take 128 and 2048; a prompt is some 1,500 tokens to read and 10
to write."""


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask vLLM. Raises `UsageError` when it is not installed or there is no checkpoint."""
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "kind = vllm needs vLLM, on machines with NVIDIA GPUs: pip install 'rr7k[pipeline,models,vllm]' there. "
            "Without GPUs: kind = openai with a server elsewhere, or kind = embedded to try the pipeline."
        )
    from ray.data.llm import build_processor

    processor = build_processor(
        processor_config(config),
        preprocess=lambda row: asked(row, decoding),
        postprocess=lambda row: read(row, decoding),
    )
    return processor(prompts).map_batches(finished, batch_size=None, batch_format="pyarrow")


def processor_config(config: EngineConfig) -> Any:
    """Return Ray Data LLM's configuration for `config`. Raises `UsageError` when it has no checkpoint."""
    from ray.data.llm import vLLMEngineProcessorConfig

    source = checkpoint(config)
    return vLLMEngineProcessorConfig(
        model_source=source,
        engine_kwargs=_engine(source, config),
        batch_size=config.batch,
        # Enough to fill the engine, whatever the batch; Ray Data keeps as many again waiting in front of it.
        max_concurrent_batches=max(8, math.ceil(_SEQUENCES / config.batch)),
        concurrency=(config.replicas, config.replicas),  # a plain number is the upper end of a range from 1
        # Ray's default "string" puts all pictures before all text, "openai" leaves them where they are.
        prepare_multimodal_stage={"enabled": True, "chat_template_content_format": "openai"},
        should_continue_on_error=True,
    )


def _engine(source: str, config: EngineConfig) -> dict[str, Any]:
    """Return arguments of vLLM's AsyncEngineArgs."""
    return {
        **({"trust_remote_code": True} if config.runs_code else {}),
        "tensor_parallel_size": config.tensor_parallel,
        "max_model_len": config.max_model_len,
        "max_num_seqs": _SEQUENCES,
        "max_num_batched_tokens": _TOKENS,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": _PICTURES, "video": 0},  # memory is set aside for each
        "mm_encoder_tp_mode": "data",
        "mm_processor_kwargs": resizing(source, config),
    }


def asked(row: dict[str, Any], decoding: Decoding) -> dict[str, Any]:
    """Return the columns that the processor takes; it carries all others along, so the pictures are taken out there.

    A row that could not be rendered goes through as one token of text, since the processor has no way round it.
    Nested values go as JSON: on the way, Arrow makes tensors of lists and adds to every dictionary, as None, the keys
    that others have.
    """
    pieces = [part["text"] if part["image"] is None else part["image"] for part in row["parts"]]
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": decoding.max_tokens if pieces else 1}
    sampling["logprobs"] = decoding.likeliest  # 0: of the chosen tokens alone
    if decoding.schema and pieces:
        sampling["structured_outputs"] = {"json": json.dumps(decoding.schema)}
    content = [chat_part(piece) for piece in pieces or [_SKIP]]
    return {
        "parts": None,
        "subjects": None,
        "kept": json.dumps({name: row[name] for name in _KEPT}),
        "messages": [{"role": "user", "content": content}],
        "sampling_params": sampling,
    }


def read(row: dict[str, Any], decoding: Decoding) -> dict[str, Any]:
    """Take the answer out of the processor's row; rows that failed do not come here."""
    steps = None if row["logprobs"] is None else [told for step in row["logprobs"] if (told := _told(step))]
    answer = Answer(
        text=row["generated_text"],
        logprob=None if steps is None else float(sum(step[0][1] for step in steps)),
        likeliest=first_word(steps) if steps and decoding.likeliest else None,
        prompt_tokens=row["num_input_tokens"],
        generated_tokens=row["num_generated_tokens"],
        seconds=row["time_taken_llm"],
    )
    return {"kept": row["kept"], "answer": json.dumps(answer._asdict())}


def finished(rows: pa.Table) -> pa.Table:
    """Return rows of `ANSWERS`; of one that failed, what the processor says about it."""
    known = [name for name in ("kept", "answer", _ERROR) if name in rows.column_names]
    return pa.Table.from_pylist([_finished(row) for row in rows.select(known).to_pylist()], ANSWERS)


_KEPT = [name for name in ANSWERS.names if name in PROMPTS.names]
_ERROR = "__inference_error__"  # a message, or "" in a row that went well


def _finished(row: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(row["kept"])
    if kept["problem"]:
        return kept
    return {**kept, "error": row[_ERROR]} if row[_ERROR] else {**kept, **json.loads(row["answer"])}


def _told(step: dict[Any, Any]) -> list[tuple[str, float]]:
    """Return the tokens of a step with their log probabilities, the chosen one first: decoding is greedy.

    Arrow may have made the token ids strings and filled gaps with None.
    """
    entries = [entry for entry in step.values() if entry is not None and entry["logprob"] is not None]
    told = [(str(entry.get("decoded_token") or ""), float(entry["logprob"])) for entry in entries]
    return sorted(told, key=lambda pair: -pair[1])
