"""The engine that runs a local checkpoint of Qwen2.5-VL or InternVL with transformers, on a CPU or a GPU."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.errors import UsageError
from stages.engines.base import Answer, Decoding, EngineConfig, answered, askable, first_word


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask `config.replicas` copies of the checkpoint. Raises `UsageError` when packages or checkpoint are missing."""
    from ray.data import ActorPoolStrategy

    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error}: kind = transformers needs: pip install 'rr7k[models]'") from error
    if config.runs_code:
        raise UsageError(f"model = {config.model}: only kind = vllm loads it; internvl3-78b needs no code of its own.")
    source, gpus = checkpoint(config), 1 if config.gpus else 0
    return prompts.map_batches(
        Checkpoint,
        fn_constructor_kwargs={"source": source, "config": config, "decoding": decoding},
        batch_size=config.batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=config.replicas),
        num_cpus=1,
        num_gpus=gpus,
    )


class Checkpoint:
    """A model and its processor."""

    def __init__(self, source: str, config: EngineConfig, decoding: Decoding) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._decoding = decoding
        self._device = "cuda" if config.gpus else "cpu"
        if not config.gpus:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.replicas))  # Ray allows a library one
        self._processor: Any = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, **resizing(source, config)
        )
        self._processor.tokenizer.padding_side = "left"
        model: Any = AutoModelForImageTextToText.from_pretrained(source, dtype="auto" if config.gpus else torch.float32)
        self._model = model.to(self._device).eval()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch of `PROMPTS`; when a batch fails, its prompts are asked one by one."""
        prompts = askable(batch)
        try:
            replies = self._ask(prompts) if prompts else []
        except (RuntimeError, ValueError) as error:
            replies = [self._alone(prompt, error) for prompt in prompts]
        return answered(batch, replies)

    def _alone(self, prompt: list[str | bytes], error: Exception) -> Answer:
        try:
            return self._ask([prompt])[0]
        except (RuntimeError, ValueError) as own:
            return Answer(error=f"{type(own).__name__}: {own or error}")

    def _ask(self, prompts: list[list[str | bytes]]) -> list[Answer]:
        import torch

        started = time.perf_counter()
        texts = [self._text(parts) for parts in prompts]
        pictures = [
            [Image.open(io.BytesIO(p)).convert("RGB") for p in parts if isinstance(p, bytes)] for parts in prompts
        ]
        images = pictures if any(pictures) else None
        inputs = self._processor(text=texts, images=images, padding=True, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            made = self._model.generate(
                **inputs,
                max_new_tokens=self._decoding.max_tokens,
                do_sample=False,
                repetition_penalty=1.0,  # Qwen2.5-VL's generation_config.json asks for 1.05
                return_dict_in_generate=True,
                output_logits=True,
            )
        seconds = (time.perf_counter() - started) / len(prompts)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [
            answer._replace(prompt_tokens=int(length), seconds=seconds)
            for answer, length in zip(self._read(made, inputs["input_ids"].shape[1]), lengths, strict=True)
        ]

    def _text(self, parts: list[str | bytes]) -> str:
        content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in parts]
        message = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))

    def _read(self, made: Any, prompt_length: int) -> list[Answer]:
        """Return text, log probability and length of each generated sequence, up to and with its end token."""
        import torch

        tokens = made.sequences[:, prompt_length:]
        every = torch.stack(made.logits, 1).float().log_softmax(-1)
        scores = every.gather(2, tokens[..., None])[..., 0]
        ends = self._model.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=tokens.device)
        over = torch.isin(tokens, ends).cumsum(1) - torch.isin(tokens, ends).int() > 0
        texts = self._processor.batch_decode(tokens.masked_fill(over, int(ends[0])), skip_special_tokens=True)
        logprobs = scores.masked_fill(over, 0).sum(1).tolist()
        counts = (~over).sum(1).tolist()
        likeliest = [self._likeliest(*row) for row in zip(tokens, every, counts, strict=True)]
        rows = zip(texts, logprobs, likeliest, counts, strict=True)
        return [Answer(text, logprob, first, generated_tokens=count) for text, logprob, first, count in rows]

    def _likeliest(self, tokens: Any, scores: Any, count: int) -> list[dict[str, Any]] | None:
        """Return `first_word` of one sequence: its tokens, their (length, vocabulary) log probabilities, its length."""
        if not self._decoding.likeliest:
            return None
        best = scores[:count].topk(self._decoding.likeliest)
        named = self._processor.tokenizer.decode
        chosen = ((named(t), s[t].item()) for t, s in zip(tokens[:count].tolist(), scores, strict=False))
        others = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return first_word(
            [pair, *((named(t), told) for t, told in zip(*row, strict=True))]
            for pair, row in zip(chosen, others, strict=True)
        )


def checkpoint(config: EngineConfig) -> str:
    """Return the folder of the checkpoint. Raises `UsageError` when there is none.

    A name on the hub is none: it would mean another revision tomorrow (Ray Data LLM's stages cannot be told one).
    """
    if not (Path(config.source) / "config.json").is_file():
        raise UsageError(
            f"model = {config.model}: kind = {config.kind} needs a name in data_manifests/models.toml, or a "
            "folder with a checkpoint, seen by this machine and every node."
        )
    return config.source


def resizing(source: str, config: EngineConfig) -> dict[str, Any]:
    """Return what bounds a picture, as the checkpoint's processor calls it: Qwen2.5-VL's pixels, InternVL's tiles."""
    kind = json.loads((Path(source) / "config.json").read_bytes()).get("model_type", "")
    if kind.startswith("qwen"):
        # Areas, in spite of their names. A call with min_pixels and max_pixels is deprecated.
        return {"size": {"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels}}
    if not config.tiles:
        return {}
    if kind == "internvl_chat":  # the original layout, read by vLLM alone
        return {"max_dynamic_patch": config.tiles}
    return {"crop_to_patches": config.tiles > 1, "max_patches": config.tiles}
