"""SAM, SAM 2 and HQ-SAM behind one interface: boxes of an image in, a mask for each out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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

_AT_ONCE = 16  # boxes: their masks at SA-1B's size are 16 × 13.5 MB of scores, whatever the number of boxes
_MODELS = ("sam", "sam2", "sam_hq")
_VIDEO_MODELS = {"sam2_video": "sam2"}  # SAM 2 is published as a model of videos: the image part of the same weights
_PACKAGE_MODELS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}  # by the image encoder's width


class Segmenter(Protocol):
    """Makes a mask for each box of an image."""

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
        import torch

        if not len(boxes_xyxy):
            return
        boxes = [np.asarray(boxes_xyxy, np.float64).tolist()]
        inputs = self._processor(images=image, input_boxes=boxes, return_tensors="pt")
        sizes = [inputs[name].tolist() for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        with torch.inference_mode():
            encoded = self._encode(inputs["pixel_values"].to(self._device))
        for some in inputs["input_boxes"].float().to(self._device).split(_AT_ONCE, 1):
            # Not around the yield: the caller would be in inference mode, too.
            with torch.inference_mode():
                made = self._model(**encoded, input_boxes=some, multimask_output=False).pred_masks[0].cpu()
            for scores in made:
                mask = self._processor.post_process_masks(scores[None, None], *sizes)[0]
                yield mask.reshape(mask.shape[-2:]).numpy()

    def _encode(self, pixels: Any) -> dict[str, Any]:
        encoded = self._model.get_image_embeddings(pixels)
        if self._model.config.model_type == "sam_hq":
            return {"image_embeddings": encoded[0], "intermediate_embeddings": encoded[1]}
        return {"image_embeddings": encoded}


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
        import torch

        if not len(boxes_xyxy):
            return
        self._predictor.set_image(np.asarray(image))
        size = (image.height, image.width)
        boxes = self._predictor.transform.apply_boxes_torch(torch.from_numpy(np.asarray(boxes_xyxy, np.float32)), size)
        for some in boxes.to(self._predictor.device).split(_AT_ONCE):
            made, _, _ = self._predictor.predict_torch(None, None, some, multimask_output=False)
            yield from made[:, 0].cpu().numpy()
