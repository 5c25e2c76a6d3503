"""WOW-Seg: names for masks, by transformers' own InternVL with Mask2Token in front and branches for masks.

network = WowSeg.from_pretrained("checkpoint")
for named in network.name(Image.open("photo.jpg"), [mask, other_mask]):
print(named.label, named.logprob)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model import attention, checkpoint, decoding, prompts
from model.attention import Keys, Queries
from model.batches import collate
from model.branches import NOTHING
from model.inputs import Mask, Preparer, Sample, Settings
from pipeline.errors import UserError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of values in [0, 1]
_ENCODED_AT_ONCE = 16
"""Pictures: more are no faster, on a CPU a fifth slower, and take more memory; the results are the same."""


class Named(NamedTuple):
    """What the model says of one mask."""

    label: str
    logprob: float
    """Natural logarithm of the probability of the whole answer, its end included; at most 0."""
    tokens: int
    """Of the answer, its end included."""
    finished: bool
    """Whether the answer came to its end before the limit."""
    rescued: bool
    """Whether the mask was too thin for any token, and was given the one that holds most of it."""


class Output(NamedTuple):
    """What training sees: T tokens of labels, separators and ends, sample by sample."""

    losses: Tensor
    """Cross entropy of each, (T,), float32"""
    instances: Tensor
    """The mask each belongs to, counted over the batch, (T,)"""
    logits: Tensor
    """(T, vocabulary), float32"""

    def over_instances(self) -> Tensor:
        """Return the mean over masks of the mean over their tokens: every mask weighs the same."""
        counts = torch.bincount(self.instances)
        return (self.losses / counts[self.instances]).sum() / len(counts)

    def over_tokens(self) -> Tensor:
        """Return the mean over all tokens, the authors' loss: long labels weigh more."""
        return self.losses.mean()


class WowSeg(nn.Module):
    """The model with its vocabulary and settings."""

    def __init__(self, network: Any, tokenizer: Any, settings: Settings | None = None) -> None:
        """Wrap an `InternVLForConditionalGeneration`. Raises `UserError` where vocabulary and settings do not fit."""
        super().__init__()
        self.network = network
        self.settings = settings or Settings()
        vision = network.config.vision_config
        side = vision.image_size[0]
        self.preparer = Preparer(
            tokenizer=tokenizer,
            text=prompts.read(tokenizer, self.settings.template, self.settings.prompt),
            settings=self.settings,
            side=side,
            grid=int(side // vision.patch_size[0] * network.config.downsample_ratio),
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        attention_implementation: attention.Implementation = "sdpa",
        **settings: Any,
    ) -> WowSeg:
        """Load a checkpoint folder: native, InternVL's original, or WOW-Seg's.

        `dtype` is the weights' own if not given. `settings` replace those that the folder states. Raises `UserError`
        for files or tensors that are missing, broken, or left over.
        """
        attention.check(attention_implementation, torch.device(device))
        loaded = checkpoint.load(Path(path), dtype)
        loaded.network.set_attn_implementation({"text_config": attention_implementation})
        try:
            chosen = msgspec.convert({**msgspec.to_builtins(loaded.settings), **settings}, Settings)
        except msgspec.ValidationError as error:
            raise UserError(f"settings of the model: {error}") from None
        return cls(loaded.network.to(device).eval(), loaded.tokenizer, chosen)

    def save(self, path: str | Path, kind: checkpoint.Kind = "native") -> None:
        """Write transformers' format, or InternVL's own without its code, with vocabulary and settings."""
        checkpoint.save(self.network, self.preparer.tokenizer, self.settings, Path(path), kind)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def head(self) -> nn.Linear:
        """From states to scores of tokens."""
        head: nn.Linear = self.network.lm_head
        return head

    # --- naming ---

    def name(
        self, image: Image.Image, masks: Sequence[Mask], *, most_tokens: int = 100, together: int = 64
    ) -> list[Named]:
        """Name all masks of an image, in their order; each as if it were the only one.

        `image` is taken as its pixels lie, whatever its EXIF orientation; masks refer to these. Answers end after
        `most_tokens` (the authors' 100). `together` masks are decoded at a time, which bounds memory and changes no
        answer. Raises `UserError` for a mask that is empty, malformed, or of another size than the image.
        """
        if not masks:
            return []
        return self._answers([self.preparer.sample(image, masks)], most_tokens, together)[0]

    def name_all(
        self,
        images: Iterable[tuple[Image.Image, Sequence[Mask]]],
        *,
        most_tokens: int = 100,
        together: int = 64,
        images_together: int = 8,
    ) -> Iterator[list[Named]]:
        """Name the masks of many images, yielding what `name` returns for each, in order.

        Up to `images_together` images that follow each other go side by side, as long as they have no more than
        `together` masks between them: faster where images have few masks, and the same answers. Raises `UserError` as
        `name` does, with the place of the image before it.
        """
        waiting: list[Sample | None] = []
        for number, (image, masks) in enumerate(images):
            try:
                sample = self.preparer.sample(image, masks) if masks else None
            except UserError as error:
                raise UserError(f"image {number}: {error}") from None
            held = sum(len(one.rescued) for one in waiting if one)
            if waiting and (len(waiting) == images_together or held + len(masks) > together):
                yield from self._answers(waiting, most_tokens, together)
                waiting = []
            waiting.append(sample)
        yield from self._answers(waiting, most_tokens, together)

    def _answers(self, samples: Sequence[Sample | None], most_tokens: int, together: int) -> list[list[Named]]:
        """Decode samples side by side; None is an image without masks."""
        some = [sample for sample in samples if sample]
        decoded = iter(decoding.decode(self, some, most_tokens, together) if some else ())
        return [self._named(sample, next(decoded)) if sample else [] for sample in samples]

    def _named(self, sample: Sample, decoded: Sequence[decoding.Decoded]) -> list[Named]:
        decode = self.preparer.tokenizer.decode
        return [
            Named(decode(one.tokens, skip_special_tokens=True).strip(), one.logprob, len(one.tokens), one.finished, bad)
            for one, bad in zip(decoded, sample.rescued.tolist(), strict=True)
        ]

    # --- training ---

    def forward(self, samples: Sequence[Sample]) -> Output:
        """Predict the labels of samples that have them."""
        batch = collate(samples, self.device)
        embedded = self.embed(batch.tokens, batch.slots, self.features(batch.pixels, batch.cells))
        queries, keys = Queries(batch.reads, batch.positions), Keys(batch.branch, batch.positions)
        used = self.network.config.text_config._attn_implementation
        mask = attention.mask(used, queries, keys, embedded.dtype)
        states = self.read(embedded, batch.positions, mask)
        chosen = batch.targets != NOTHING
        logits = self.head(states[chosen]).float()
        losses = cross_entropy(logits, batch.targets[chosen], reduction="none")
        return Output(losses, batch.instances[chosen], logits)

    # --- parts ---

    def features(self, pixels: Tensor, cells: Tensor) -> Tensor:
        """Encode pictures, (N, side, side, 3) uint8, and keep the used tokens: (used, width), picture by picture."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (_MEAN, _STD))
        found = []
        for some, used in zip(*(torch.split(part, _ENCODED_AT_ONCE) for part in (pixels, cells)), strict=True):
            scaled = (some.permute(0, 3, 1, 2).float() / 255 - mean) / std
            found.append(self.network.get_image_features(scaled.to(self.head.weight.dtype)).pooler_output[used])
        return torch.cat(found)

    def embed(self, tokens: Tensor, slots: Tensor, features: Tensor) -> Tensor:
        """Embed tokens, (batch, L), with image vectors in their slots: (batch, L, width)."""
        embedded: Tensor = self.network.get_input_embeddings()(tokens)
        return embedded.masked_scatter(slots[..., None], features.to(embedded.dtype))

    def read(self, embedded: Tensor, positions: Tensor, mask: Any, cache: Any = None) -> Tensor:
        """Run the language model: the states of (batch, L, width), to which `cache` comes before, if there is one."""
        output = self.network.model.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = output.last_hidden_state
        return states
