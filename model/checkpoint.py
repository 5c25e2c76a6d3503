"""Checkpoint folders: read transformers' InternVL, InternVL's own, and WOW-Seg's; write the first two.

Every tensor is accounted for: one that is missing, left over, or of another shape is an error, and after loading each
is compared with the file. So the trap of tied embeddings (transformers' `InternVLConfig` ties by default, InternVL does
not; lm_head would silently become a copy) cannot close: whether they are tied is read off the tensors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor

from model import original_internvl, prompts
from model.inputs import Settings
from pipeline.decoding import decoded
from pipeline.errors import UsageError, UserError
from pipeline.original_checkpoints import convert

Tensors = dict[str, Tensor]
Kind = Literal["native", "original"]

SETTINGS = "wowseg.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HEAD, _EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
_NATIVE = (
    (r"(model\..+|lm_head\.weight)", r"\1"),
    # Files written before transformers 4.52
    (r"language_model\.lm_head\.(.+)", r"lm_head.\1"),
    (r"language_model\.model\.(.+)", r"model.language_model.\1"),
    (r"((?:vision_tower|multi_modal_projector)\..+)", r"model.\1"),
)
_SHOWN = 20  # wrong tensors in a message


class Loaded(NamedTuple):
    """A checkpoint in memory, and what it was."""

    network: Any
    """transformers' `InternVLForConditionalGeneration`, on the CPU, for inference"""
    tokenizer: Any
    settings: Settings
    kind: Kind
    tensors: int
    """In the files"""
    tied: bool
    """The head is the embedding."""


def load(folder: Path, dtype: torch.dtype | None = None) -> Loaded:
    """Read a checkpoint folder; weights keep their own type if `dtype` is not given.

    Raises `UserError`: what is missing, broken, left over or does not fit together, and where.
    """
    raw = _json(folder / "config.json")
    kind: Kind = "native" if _kind(raw, folder) == "internvl" else "original"
    tokenizer, tensors = _tokenizer(folder), read(folder)
    converted, unknown = convert(tensors, _NATIVE if kind == "native" else original_internvl.NAMES)
    tied = _HEAD not in converted and not _says_untied(raw, kind)
    if tied and _EMBEDDING in converted:
        converted[_HEAD] = converted[_EMBEDDING]
    config = _config(raw, kind, tokenizer, tied)
    _check_tensors(folder, config, converted, unknown)
    _check_vocabulary(folder, tokenizer, converted[_EMBEDDING])
    network = _filled(folder, config, converted, dtype or converted[_EMBEDDING].dtype)
    return Loaded(network, tokenizer, _settings(folder, raw), kind, len(tensors), tied)


def save(network: Any, tokenizer: Any, settings: Settings, folder: Path, kind: Kind = "native") -> None:
    """Write transformers' format, or InternVL's own, with `wowseg.json`; whole or not at all.

    Raises `UsageError` if the folder exists, `UserError` for a network that has no place in InternVL's own format.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: a checkpoint is written to a new folder.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if kind == "native":
        network.save_pretrained(part, save_original_format=False)  # by the same names, whatever it was read from
    else:
        _save_original(network, settings, part)
    tokenizer.save_pretrained(part)
    (part / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
    part.replace(folder)


def _save_original(network: Any, settings: Settings, folder: Path) -> None:
    from safetensors.torch import save_file

    tensors = network.state_dict()
    if network.config.tie_word_embeddings:
        del tensors[_HEAD]
    renamed = original_internvl.tensors(tensors)
    folder.mkdir(parents=True)
    stated = original_internvl.stated(network.config, settings)
    (folder / "config.json").write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    save_file(renamed, folder / _WEIGHTS[0], {"format": "pt"})


def describe(loaded: Loaded) -> dict[str, str]:
    """Return what a checkpoint is, by heading."""
    config, tokenizer = loaded.network.config, loaded.tokenizer
    text, vision = config.text_config, config.vision_config
    weights = list(loaded.network.parameters())
    side = vision.image_size[0]
    grid = int(side // vision.patch_size[0] * config.downsample_ratio)
    special = (prompts.START, prompts.SLOT, prompts.END, prompts.STOP)
    return {
        "format": {"native": "transformers' InternVL", "original": "InternVL's own (InternVLChatModel)"}[loaded.kind],
        "weights": f"{sum(weight.numel() for weight in weights):,} ({weights[0].dtype})".replace("torch.", ""),
        "tensors": f"{loaded.tensors:,} in the files: none missing, none left over, each as in its file",
        "images": f"{vision.num_hidden_layers} layers of {vision.hidden_size}; {side} px, {grid}×{grid} tokens",
        "language": f"{text.num_hidden_layers} layers of {text.hidden_size}",
        "embeddings": "tied to the head" if loaded.tied else "and head are two tensors",
        "vocabulary": f"{len(tokenizer):,} tokens, {text.vocab_size:,} rows",
        "special tokens": ", ".join(f"{name} {prompts.special_token(tokenizer, name)}" for name in special),
        **{name: str(value) for name, value in msgspec.to_builtins(loaded.settings).items()},
    }


# --- files ------------------------------------------------------------------------------------------------


def read(folder: Path) -> Tensors:
    """Read all tensors of a folder by name, from safetensors or, running no code of them, from PyTorch's files.

    Raises `UserError` for files that are missing, cut off, or hold other tensors than their index says.
    """
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _sharded(folder, _json(index)["weight_map"])
        if (folder / name).is_file():
            return _file(folder / name)
    raise UserError(f"{folder}: no weights there. Expected {' or '.join(_WEIGHTS)}, or an index of several such files.")


def _sharded(folder: Path, places: dict[str, str]) -> Tensors:
    names = sorted(set(places.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: {len(missing)} of {len(names)} files are missing: {', '.join(missing)}.")
    found = {key: tensor for name in names for key, tensor in _file(folder / Path(name).name).items()}
    if wrong := sorted(found.keys() ^ places.keys()):
        raise UserError(f"{folder}: index and files differ in {len(wrong)} tensors, the first is {wrong[0]}.")
    return found


def _file(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from pipeline import original_checkpoints

    if path.suffix != ".safetensors":
        return original_checkpoints.read(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is cut off or broken ({error}). Download it again.") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: this is no checkpoint folder.") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    return found


def _tokenizer(folder: Path) -> Any:
    """Read tokenizer.json as it stands, or Qwen2's vocab.json and merges.txt; never by running code of the folder."""
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    if (folder / "tokenizer.json").is_file():
        kind: Any = PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        kind = Qwen2Tokenizer
    else:
        raise UserError(f"{folder}: no vocabulary. Expected tokenizer.json, or vocab.json and merges.txt.")
    try:
        tokenizer = kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: the vocabulary cannot be read: {error}") from None
    path = folder / "added_tokens.json"
    for name, number in _json(path).items() if path.is_file() else ():
        if (found := prompts.special_token(tokenizer, name)) != number:
            raise UserError(f"{path}: {name} is {number}, but becomes {found} with the vocabulary beside it.")
    return tokenizer


def _settings(folder: Path, raw: dict[str, Any]) -> Settings:
    path = folder / SETTINGS
    if not path.is_file():
        return Settings(template=raw["template"]) if "template" in raw else Settings()
    return decoded(path.read_bytes(), Settings, f"{path}", "Copy or make the checkpoint again.")


# --- fitting together -------------------------------------------------------------------------------------


def _kind(raw: dict[str, Any], folder: Path) -> str:
    found = str(raw.get("model_type"))
    if found not in ("internvl", original_internvl.MODEL_TYPE):
        raise UserError(
            f"{folder / 'config.json'}: model_type is {found}; internvl or {original_internvl.MODEL_TYPE} expected."
        )
    return found


def _says_untied(raw: dict[str, Any], kind: str) -> bool:
    stated = raw if kind == "native" else raw["llm_config"]
    return stated.get("tie_word_embeddings") is False


def _config(raw: dict[str, Any], kind: str, tokenizer: Any, tied: bool) -> Any:
    from transformers import InternVLConfig

    if kind == "native":
        config: Any = InternVLConfig.from_dict(raw)
    else:
        slot = prompts.special_token(tokenizer, prompts.SLOT)
        config = InternVLConfig(**original_internvl.config(raw), image_token_id=slot)
        side = config.vision_config.image_size[0] // config.vision_config.patch_size[0] * config.downsample_ratio
        config.image_seq_length = int(side) ** 2
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    return config


def _check_tensors(folder: Path, config: Any, converted: Tensors, unknown: list[str]) -> None:
    from transformers import InternVLForConditionalGeneration

    with torch.device("meta"):
        expected = InternVLForConditionalGeneration(config).state_dict()
    if wrong := list(_differences(expected, converted, unknown)):
        more = [f"… and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        told = "\n  ".join(wrong[:_SHOWN] + more)
        raise UserError(f"{folder}: {len(wrong)} tensors do not fit its config.json:\n  {told}")


def _differences(expected: Tensors, converted: Tensors, unknown: list[str]) -> Iterator[str]:
    yield from (f"left over: {name}" for name in sorted([*unknown, *(converted.keys() - expected)]))
    yield from (f"missing: {name}" for name in sorted(expected.keys() - converted))
    for name in sorted(expected.keys() & converted):
        found, place = tuple(converted[name].shape), tuple(expected[name].shape)
        if found != place:
            yield f"shape: {name} is {found}, {place} expected"


def _check_vocabulary(folder: Path, tokenizer: Any, embedding: Tensor) -> None:
    if len(tokenizer) > len(embedding):
        raise UserError(
            f"{folder}: the vocabulary has {len(tokenizer):,} tokens, the embedding {len(embedding):,} rows. "
            "One of them is another checkpoint's."
        )


def _filled(folder: Path, config: Any, converted: Tensors, dtype: torch.dtype) -> Any:
    """Make the network; then compare each tensor, since one that transformers ties or makes anew is not told of."""
    from transformers import InternVLForConditionalGeneration

    network: Any = InternVLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=dict(converted), dtype=dtype
    )
    placed = network.state_dict()
    if wrong := [name for name, tensor in converted.items() if not placed[name].equal(tensor.to(dtype))]:
        raise UserError(f"{folder}: after loading {len(wrong)} tensors differ from the file, the first is {wrong[0]}.")
    return network.eval()
