"""The engine for a GPU cluster: vLLM inside Ray, through Ray Data LLM's own processor.

Settings follow reference/pipeline_anchors.md §6: tensor parallel inside a node, no pipeline parallel with images,
a fixed number of replicas, a prefix cache, and errors as rows.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from pipeline.errors import UsageError
from stages.engines.base import ANSWERS, Decoding, EngineConfig, chat_part

_SKIP = "skip"


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask vLLM. Raises `UsageError` when it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "kind = vllm needs vLLM, on machines with NVIDIA GPUs: pip install 'rr7k[pipeline,models,vllm]' there. "
            "Without GPUs: kind = openai with a server elsewhere, or kind = embedded to try the pipeline."
        )
    from ray.data.llm import build_processor

    processor = build_processor(
        processor_config(config),
        preprocess=lambda row: asked(row, decoding),
        postprocess=read,
    )
    return processor(prompts).map(finished)


def processor_config(config: EngineConfig) -> Any:
    """Return Ray Data LLM's configuration for `config`."""
    from ray.data.llm import vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=config.source,
        engine_kwargs={
            "tensor_parallel_size": config.tensor_parallel,
            "max_model_len": config.max_model_len,
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": 2},
            "mm_encoder_tp_mode": "data",
            "mm_processor_kwargs": {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels},
        },
        batch_size=config.batch,
        concurrency=(config.replicas, config.replicas),
        prepare_multimodal_stage={"enabled": True},
        should_continue_on_error=True,
    )


def asked(row: dict[str, Any], decoding: Decoding) -> dict[str, Any]:
    """Return the columns that the processor takes, and those to be found again in the answer.

    A row that could not be rendered goes through as one token of text, since the processor has no way round it.
    """
    pieces = [part["text"] if part["image"] is None else part["image"] for part in row["parts"]]
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": decoding.max_tokens if pieces else 1}
    sampling["logprobs"] = 0  # of the chosen tokens alone
    if decoding.schema and pieces:
        sampling["structured_outputs"] = {"json": decoding.schema}
    content = [chat_part(piece) for piece in pieces or [_SKIP]]
    # The processor carries every column along; the pictures are in the messages now.
    return {"parts": [], "messages": [{"role": "user", "content": content}], "sampling_params": sampling}


def read(row: dict[str, Any]) -> dict[str, Any]:
    """Take the answer out of the processor's row; rows that failed do not come here."""
    if row["problem"]:
        return _kept(row)
    return {
        **_kept(row),
        "text": row["generated_text"],
        "logprob": _logprob(row),
        "prompt_tokens": row["num_input_tokens"],
        "generated_tokens": row["num_generated_tokens"],
        "seconds": row["time_taken_llm"],
    }


def finished(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `ANSWERS`; of one that failed, what the processor says about it."""
    error = None if row.get("problem") else row.get("__inference_error__") or None
    if error:
        return {**dict.fromkeys(ANSWERS.names), **_kept(row), "error": error}
    return {name: row.get(name) for name in ANSWERS.names}


_OWN = ("prompt_id", "image_id", "shard", "subjects", "image_tokens", "shared_tokens", "problem", "reason")


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _OWN}


def _logprob(row: dict[str, Any]) -> float | None:
    """Sum what was told of the chosen tokens; Arrow may have made the token ids strings and filled gaps with None."""
    if row.get("logprobs") is None:
        return None
    chosen = (next(entry for entry in step.values() if entry is not None) for step in row["logprobs"])
    return float(sum(entry["logprob"] for entry in chosen))
