"""Grounding DINO and MM Grounding DINO: boxes for phrases, each box with the place of its phrase in the caller's list.

The caption is built here, token by token: [CLS] phrase . phrase . [SEP]. So it is known which tokens are whose, and
nothing is read back from decoded text, where the original joins what two phrases share a box ("car taxi") and leaves
pieces of words ("##van").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline import original_checkpoints
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

CLS, SEP, DOT, QUESTION = 101, 102, 1012, 1029
"""The tokens that part a caption: Grounding DINO's attention mask has them by number."""

_PARTING = re.compile(r"[.,?;]")  # would cut a phrase in two, or count as a word of it
_MODELS = ("grounding-dino", "mm-grounding-dino")


class Detection(NamedTuple):
    """A box and what it is a box of."""

    phrase: int
    """Its place in the caller's list."""
    box_xyxy: tuple[float, float, float, float]
    """px of the image given, within it"""
    score: float
    """Mean over the phrase's tokens, 0 to 1; higher is surer."""


class Detector(Protocol):
    """Finds boxes for phrases."""

    def detect(
        self,
        image: Image.Image,
        phrases: Sequence[str],
        *,
        box_threshold: float,
        text_threshold: float,
        nms_iou: float,
    ) -> list[Detection]:
        """Find the phrases in an RGB image; return the boxes, best first. Thresholds are in [0, 1]."""


class Caption(NamedTuple):
    """What the model reads in one pass."""

    tokens: list[int]
    spans: list[tuple[int, int, int]]
    """Of each phrase: its place in the caller's list, its first token, the one after its last."""


class GroundingDino:
    """A detector: a checkpoint of either class (a folder, or a name on the hub), or an original `.pth`.

    Beside a `.pth` lies the tokenizer of bert-base-uncased (`vocab.txt` or `tokenizer.json`), as in every converted
    checkpoint. Raises `UsageError` where there is no such model, `UserError` for tensors that do not fit.
    """

    def __init__(self, source: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, BertTokenizer, GroundingDinoImageProcessor

        original = source.endswith(".pth")
        tokenizer = str(_tokenizer_beside(Path(source))) if original else source
        model = original_checkpoints.grounding_dino(Path(source)) if original else _load(source)
        self._device, self._model = device, model.to(device)
        self._tokenizer: Any = (BertTokenizer if original else AutoTokenizer).from_pretrained(tokenizer)
        if [self._tokenizer.cls_token_id, self._tokenizer.sep_token_id] != [CLS, SEP]:
            raise UsageError(f"detector = {source}: its tokenizer is not bert-base-uncased's, which the model needs.")
        images: Any = AutoImageProcessor
        self._images = GroundingDinoImageProcessor() if original else images.from_pretrained(source)

    def detect(
        self,
        image: Image.Image,
        phrases: Sequence[str],
        *,
        box_threshold: float,
        text_threshold: float,
        nms_iou: float,
    ) -> list[Detection]:
        """Find the phrases in an RGB image; return the boxes, best first.

        A box belongs to the phrase whose tokens it scores highest on average, as the original ranks categories. It is
        kept if that mean is above `text_threshold` and the best of those tokens above `box_threshold` (the original's
        0.25 and 0.35), both in [0, 1], higher keeps fewer; and if no better box, whatever its phrase, overlaps it by
        an IoU above `nms_iou`: a segmenter would make the same mask of both. Of phrases that read the same ("car",
        "Car"), the first is found. Phrases that do not fit one caption are asked in several, the image anew for each.
        """
        import torch
        from torchvision.ops import box_convert, clip_boxes_to_image, nms

        captions, _ = self.captions(phrases)
        if not captions:
            return []
        inputs = self._images(images=image, return_tensors="pt").to(self._device)
        found = [self._ask(inputs, caption, box_threshold, text_threshold) for caption in captions]
        boxes, scores, owners = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
        size = torch.tensor([image.width, image.height] * 2)
        boxes = clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * size, (image.height, image.width))
        kept = nms(boxes, scores, nms_iou)
        rows = zip(owners[kept].tolist(), boxes[kept].tolist(), scores[kept].tolist(), strict=True)
        return [Detection(phrase, tuple(box), score) for phrase, box, score in rows]

    def captions(self, phrases: Sequence[str]) -> tuple[list[Caption], list[int]]:
        """Group phrases into as few captions as keep their order; return these and the places of unusable phrases.

        Those are never found: empty, unknown to the tokenizer, or too long.
        """
        config = self._model.config
        room = min(config.max_text_len, config.text_config.max_position_embeddings)
        captions: list[Caption] = []
        unusable, known = [], set()
        for place, tokens in enumerate(self._tokens(phrases)):
            if not tokens or set(tokens) == {self._tokenizer.unk_token_id} or len(tokens) + 3 > room:
                unusable.append(place)
            elif tuple(tokens) not in known:
                known.add(tuple(tokens))
                if not captions or len(captions[-1].tokens) + len(tokens) + 2 > room:
                    captions.append(Caption([CLS], []))
                line, spans = captions[-1]
                spans.append((place, len(line), len(line) + len(tokens)))
                line += [*tokens, DOT]
        return [Caption([*line, SEP], spans) for line, spans in captions], unusable

    def _tokens(self, phrases: Sequence[str]) -> list[list[int]]:
        if not phrases:
            return []
        texts = [_PARTING.sub(" ", phrase) for phrase in phrases]
        special = {*self._tokenizer.all_special_ids, DOT, QUESTION} - {self._tokenizer.unk_token_id}
        lines = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[token for token in line if token not in special] for line in lines]  # "[SEP]" is one, written out

    def _ask(
        self, inputs: Any, caption: Caption, box_threshold: float, text_threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, 4) as centre and size relative to the image, their scores, and their phrases' places."""
        import torch

        tokens = torch.tensor([caption.tokens], device=self._device)
        with torch.inference_mode():
            made = self._model(**inputs, input_ids=tokens, attention_mask=torch.ones_like(tokens))
        words = made.logits[0].float().sigmoid()  # boxes × tokens
        of_phrases = [words[:, first:last] for _, first, last in caption.spans]
        scores, best = torch.stack([part.mean(1) for part in of_phrases], 1).max(1)
        peak = torch.stack([part.amax(1) for part in of_phrases], 1).gather(1, best[:, None])[:, 0]
        kept = (scores > text_threshold) & (peak > box_threshold)
        places = torch.tensor([place for place, _, _ in caption.spans], device=self._device)
        return made.pred_boxes[0].float()[kept], scores[kept], places[best[kept]]


def _load(source: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection

    try:
        kind = AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError) as error:
        raise UsageError(f"detector = {source}: no checkpoint there ({str(error).splitlines()[0]})") from None
    if kind not in _MODELS:
        raise UsageError(f"detector = {source}: a model of type {kind}; one of {', '.join(_MODELS)} is needed.")
    return AutoModelForZeroShotObjectDetection.from_pretrained(source, dtype=torch.float32).eval()


def _tokenizer_beside(checkpoint: Path) -> Path:
    if not any((checkpoint.parent / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise UsageError(f"{checkpoint}: put the vocab.txt of bert-base-uncased into the same folder; it has none.")
    return checkpoint.parent
