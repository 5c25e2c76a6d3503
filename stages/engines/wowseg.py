"""The engine that is our own model: it takes an image with all its masks, and names each as if it were the only one.

It reads prompts of the layout `masks`, one per image. The one file of `stages` that knows `model`: an adapter, as the
other engines are to other people's models.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from PIL import Image

from pipeline import files
from pipeline.errors import UsageError, UserError
from stages.engines.base import Answer, EngineConfig, answered, askable


def answers(prompts: Any, config: EngineConfig) -> Any:
    """Ask `config.replicas` copies of the checkpoint. Raises `UsageError` when packages or checkpoint are missing."""
    from ray.data import ActorPoolStrategy

    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error}: kind = wowseg needs: pip install 'rr7k[models]'") from error
    return prompts.map_batches(
        Namer,
        fn_constructor_kwargs={"source": str(checkpoint(config)), "config": config},
        batch_size=config.batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=config.replicas),
        num_cpus=1,
        num_gpus=1 if config.gpus else 0,
    )


def checkpoint(config: EngineConfig) -> Path:
    """Return the checkpoint's folder. Raises `UsageError` when there is none."""
    folder = Path(config.source)
    if not (folder / "config.json").is_file():
        raise UsageError(f"model = {config.model}: no checkpoint there; look at one with: rr7k model inspect {folder}")
    return folder


def revision(config: EngineConfig) -> str:
    """Return a hash of the checkpoint's files: another one at the same place is another model."""
    folder = checkpoint(config)
    hashes = [f"{path.name} {_sha256(path)}" for path in sorted(folder.iterdir()) if path.is_file()]
    return files.sha256("\n".join(hashes).encode())[:16]


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Namer:
    """A checkpoint in an actor."""

    def __init__(self, source: str, config: EngineConfig) -> None:
        import torch

        from model.wowseg import WowSeg

        if not config.gpus:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.replicas))  # Ray allows a library one
        self._model = WowSeg.from_pretrained(
            source, device="cuda" if config.gpus else "cpu", dtype=None if config.gpus else torch.float32
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch of `PROMPTS`: the text is a JSON list, for each mask columns of the table `names`."""
        return answered(batch, [self._answer(*parts) for parts in askable(batch)])

    def _answer(self, picture: str | bytes, *counts: str | bytes) -> Answer:
        started = time.perf_counter()
        try:
            image = Image.open(io.BytesIO(bytes(picture)))  # type: ignore[arg-type]
            named = self._model.name(image, _masks(image, counts))
        except (OSError, RuntimeError, ValueError, UserError) as error:
            return Answer(error=f"{type(error).__name__}: {error}")
        said = [{"raw": one.label, "logprob": one.logprob, "generated_tokens": one.tokens} for one in named]
        return Answer(
            msgspec.json.encode(said).decode(),
            logprob=sum(one.logprob for one in named),
            generated_tokens=sum(one.tokens for one in named),
            seconds=time.perf_counter() - started,
        )


def _masks(image: Image.Image, counts: Sequence[str | bytes]) -> list[dict[str, Any]]:
    width, height = image.size
    return [{"size": [height, width], "counts": one} for one in counts]
