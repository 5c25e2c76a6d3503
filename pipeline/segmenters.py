"""SAM, SAM 2 and HQ-SAM behind one interface: boxes or points of an image in, masks out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline import original_checkpoints
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

PACKAGE = "segment-anything:"
"""Before the path of a `.pth` file: use the package of that name, not transformers' classes."""

_AT_ONCE = 16  # prompts: their masks at SA-1B's size are 16 × 13.5 MB of scores, whatever the number of prompts
_MODELS = ("sam", "sam2", "sam_hq")
_VIDEO_MODELS = {"sam2_video": "sam2"}  # SAM 2 is published as a model of videos: the image part of the same weights
_PACKAGE_MODELS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}  # by the image encoder's width


class Proposal(NamedTuple):
    """A mask that a segmenter offers for a point."""

    mask: Bools
    """(height, width)"""
    predicted_iou: float
    """How well the segmenter thinks that it fits; about 0 to 1."""
    stability: float
    """IoU of the masks that its scores give at −1 and at 1 (segment-anything, calculate_stability_score); 0 to 1."""


class Look(Protocol):
    """An image that a segmenter has encoded, which can be asked as often as one likes."""

    def boxes(self, boxes_xyxy: Floats) -> Iterator[Bools]:
        """Yield a mask for each box, as `Segmenter.segment` does."""

    def points(self, points_xy: Floats, least_iou: float = float("-inf")) -> Iterator[list[Proposal]]:
        """Yield for each point the masks around it: SAM offers three, such as a part, a thing and a group.

        `points_xy` is (N, 2), px. Those whose predicted IoU is below `least_iou` are left out, before they are
        enlarged.
        """


class Segmenter(Protocol):
    """Makes masks for boxes and points of an image."""

    def look(self, image: Image.Image) -> Look:
        """Encode an RGB image."""

    def segment(self, image: Image.Image, boxes_xyxy: Floats) -> Iterator[Bools]:
        """Yield one boolean (height, width) mask per box, in order.

        `image` is RGB; `boxes_xyxy` is (N, 4), px of that image. A mask may be empty. A few masks exist at a time,
        so encode or drop each before asking for the next.
        """


def open_segmenter(source: str, device: str) -> Segmenter:
    """Load a segmenter onto a torch device.

    `source` is a folder or a name on the hub (SAM, SAM 2 or HQ-SAM, by its `model_type`), an original `.pth` of
    segment-anything, or that with `segment-anything:` before it to run it with the package itself.
    Raises `UsageError` for another model or a missing package, `UserError` for tensors that do not fit.
    """
    if source.startswith(PACKAGE):
        return PackageSam(Path(source.removeprefix(PACKAGE)), device)
    if source.endswith(".pth"):
        from transformers import SamImageProcessor, SamProcessor

        model = original_checkpoints.sam(Path(source))
        processor: Any = SamProcessor
        return TransformersSam(model, processor(sized(SamImageProcessor, model)), device)
    return _from_checkpoint(source, device)


def _from_checkpoint(source: str, device: str) -> Segmenter:
    import torch
    from transformers import AutoConfig, Sam2Model, Sam2Processor, SamHQModel, SamHQProcessor, SamModel, SamProcessor

    try:
        kind = AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError) as error:
        raise UsageError(f"segmenter = {source}: no checkpoint there ({str(error).splitlines()[0]})") from None
    kind = _VIDEO_MODELS.get(kind, kind)
    if kind not in _MODELS:
        raise UsageError(f"segmenter = {source}: a model of type {kind}; one of {', '.join(_MODELS)} is needed.")
    classes: dict[str, tuple[Any, Any]] = {
        "sam": (SamModel, SamProcessor),
        "sam2": (Sam2Model, Sam2Processor),
        "sam_hq": (SamHQModel, SamHQProcessor),
    }
    model, processor = classes[kind]
    loaded = model.from_pretrained(source, dtype=torch.float32).eval()
    return TransformersSam(loaded, processor.from_pretrained(source), device)


def sized(processor: Any, model: Any) -> Any:
    """Make the image processor of a model that takes images of another size than the published 1024 px."""
    side = model.config.vision_config.image_size
    grid = 4 * side // model.config.vision_config.patch_size  # of the masks before they are enlarged
    return processor(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": grid},
        mask_pad_size={"height": grid, "width": grid},
    )


class TransformersSam:
    """`SamModel`, `Sam2Model` or `SamHQModel` with its processor."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        self._model = model.to(device)
        self._processor, self._device = processor, device

    def segment(self, image: Image.Image, boxes_xyxy: Floats) -> Iterator[Bools]:
        """See `Segmenter`; the image is encoded once."""
        return self.look(image).boxes(boxes_xyxy) if len(boxes_xyxy) else iter(())

    def look(self, image: Image.Image) -> _TransformersLook:
        """See `Segmenter`."""
        return _TransformersLook(self._model, self._processor, self._device, image)


class _TransformersLook:
    def __init__(self, model: Any, processor: Any, device: str, image: Image.Image) -> None:
        import torch

        self._model, self._processor, self._device, self._image = model, processor, device, image
        with torch.inference_mode():
            self._encoded = self._encode(self._inputs()["pixel_values"].to(device))

    def boxes(self, boxes_xyxy: Floats) -> Iterator[Bools]:
        """See `Look`."""
        inputs = self._inputs(input_boxes=[np.asarray(boxes_xyxy, np.float64).tolist()])
        for some in inputs["input_boxes"].float().split(_AT_ONCE, 1):
            scores, _ = self._asked(multimask_output=False, input_boxes=some)
            for made in scores:
                yield (self._enlarged(made[None], inputs)[0, 0] > 0).numpy()

    def points(self, points_xy: Floats, least_iou: float = float("-inf")) -> Iterator[list[Proposal]]:
        """See `Look`."""
        import torch

        inputs = self._inputs(input_points=[np.asarray(points_xy, np.float64)[:, None].tolist()])
        for some in inputs["input_points"].float().split(_AT_ONCE, 1):
            ours = torch.ones(some.shape[:-1], dtype=torch.int64)
            for made, sure in zip(*self._asked(True, input_points=some, input_labels=ours), strict=True):
                good = sure >= least_iou
                enlarged = self._enlarged(made[None, good], inputs)[0] if good.any() else made[good]
                yield [_proposal(one, iou) for one, iou in zip(enlarged, sure[good].tolist(), strict=True)]

    def _inputs(self, **prompts: Any) -> Any:
        return self._processor(images=self._image, return_tensors="pt", **prompts)

    def _asked(self, multimask_output: bool, **prompts: Any) -> tuple[Any, Any]:
        """Return scores (N, masks, h, w) and predicted IoUs (N, masks) of N prompts."""
        import torch

        there = {name: prompt.to(self._device) for name, prompt in prompts.items()}
        # Not around a yield: the caller would be in inference mode, too.
        with torch.inference_mode():
            made = self._model(**self._encoded, **there, multimask_output=multimask_output)
            return made.pred_masks[0].float().cpu(), made.iou_scores[0].float().cpu()

    def _enlarged(self, scores: Any, inputs: Any) -> Any:
        """Scale scores (1, masks, h, w) to the image's size."""
        sizes = [inputs[name].tolist() for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        return self._processor.post_process_masks(scores[None], *sizes, binarize=False)[0]

    def _encode(self, pixels: Any) -> dict[str, Any]:
        encoded = self._model.get_image_embeddings(pixels)
        if self._model.config.model_type == "sam_hq":
            return {"image_embeddings": encoded[0], "intermediate_embeddings": encoded[1]}
        return {"image_embeddings": encoded}


def _proposal(scores: Any, predicted_iou: float) -> Proposal:
    within, outside = int((scores > 1).sum()), int((scores > -1).sum())
    return Proposal((scores > 0).numpy(), predicted_iou, within / outside if outside else 0.0)


class PackageSam:
    """The package segment-anything with one of its own checkpoints."""

    def __init__(self, path: Path, device: str) -> None:
        try:
            from segment_anything import SamPredictor, sam_model_registry
        except ImportError as error:
            raise UsageError(f"{error}: {PACKAGE}… needs: pip install 'rr7k[segment-anything]'") from error
        tensors = original_checkpoints.read(path)
        width = tensors["image_encoder.pos_embed"].shape[-1] if "image_encoder.pos_embed" in tensors else 0
        if width not in _PACKAGE_MODELS:
            raise UsageError(f"{path} is none of the package's models {', '.join(_PACKAGE_MODELS.values())}.")
        model = sam_model_registry[_PACKAGE_MODELS[width]]()
        model.load_state_dict(tensors)
        self._predictor = SamPredictor(model.to(device).eval())

    def segment(self, image: Image.Image, boxes_xyxy: Floats) -> Iterator[Bools]:
        """See `Segmenter`."""
        return self.look(image).boxes(boxes_xyxy) if len(boxes_xyxy) else iter(())

    def look(self, image: Image.Image) -> _PackageLook:
        """See `Segmenter`. The package holds one image at a time: a look ends with the next one."""
        self._predictor.set_image(np.asarray(image))
        return _PackageLook(self._predictor, (image.height, image.width))


class _PackageLook:
    def __init__(self, predictor: Any, size: tuple[int, int]) -> None:
        self._predictor, self._size = predictor, size

    def boxes(self, boxes_xyxy: Floats) -> Iterator[Bools]:
        """See `Look`."""
        import torch

        boxes = torch.from_numpy(np.asarray(boxes_xyxy, np.float32))
        for some in self._predictor.transform.apply_boxes_torch(boxes, self._size).split(_AT_ONCE):
            there = some.to(self._predictor.device)
            made, _, _ = self._predictor.predict_torch(None, None, there, multimask_output=False)
            yield from made[:, 0].cpu().numpy()

    def points(self, points_xy: Floats, least_iou: float = float("-inf")) -> Iterator[list[Proposal]]:
        """See `Look`."""
        import torch

        points = torch.from_numpy(np.asarray(points_xy, np.float32))[:, None]
        for some in self._predictor.transform.apply_coords_torch(points, self._size).split(_AT_ONCE):
            there = some.to(self._predictor.device)
            ours = torch.ones(there.shape[:-1], dtype=torch.int64, device=there.device)
            made, sure, _ = self._predictor.predict_torch(there, ours, return_logits=True)
            for scores, ious in zip(made.cpu(), sure.cpu(), strict=True):
                good = ious >= least_iou
                yield [_proposal(one, iou) for one, iou in zip(scores[good], ious[good].tolist(), strict=True)]
