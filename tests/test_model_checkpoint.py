"""Reading and writing checkpoints: every format gives the same model, every fault is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_internvl_folders import original, raw_config, write
from wowseg_models import one_thread, picture, rectangles, wowseg  # noqa: F401 (a fixture)

from model import checkpoint, original_internvl
from model.inputs import Settings
from model.wowseg import WowSeg
from pipeline.errors import UsageError, UserError
from pipeline.original_checkpoints import convert

MASKS = rectangles(2)


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return wowseg(double=False)


def logits(model: WowSeg) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model([model.preparer.sample(picture(), MASKS, ["a dog", "b"])]).logits
    return output


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# --- what can be read ---


def test_native_round_trip(model: WowSeg, tmp_path: Path) -> None:
    settings = Settings(scale=2.5, prompt="demo", tiles=3, encoder="blur2token")
    written = WowSeg(model.network, model.preparer.tokenizer, settings)
    written.save(tmp_path / "one")
    read = WowSeg.from_pretrained(tmp_path / "one")
    assert read.settings == settings
    assert torch.equal(logits(read), logits(written))
    read.save(tmp_path / "two")
    for name in ("tokenizer.json", "wowseg.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert WowSeg.from_pretrained(tmp_path / "two", scale=3.5).settings.scale == 3.5


def test_transformers_reads_what_is_written(model: WowSeg, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model.save(tmp_path / "one")
    kind: Any = AutoModelForImageTextToText
    read, told = kind.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert not any(told.values())
    other = WowSeg(read.eval(), AutoTokenizer.from_pretrained(tmp_path / "one"), model.settings)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("template", ["Hermes-2", "internvl2_5"])  # InternVL2, and 2.5 and 3
@pytest.mark.parametrize("shards", [1, 3])
def test_original_folders(model: WowSeg, tmp_path: Path, template: str, shards: int) -> None:
    read = WowSeg.from_pretrained(write(model, tmp_path / "it", template, shards), tiles=2)
    assert read.settings.template == template
    expected = WowSeg(model.network, model.preparer.tokenizer, read.settings)
    assert torch.equal(logits(read), logits(expected))
    assert read.name(picture(), MASKS, most_tokens=4) == expected.name(picture(), MASKS, most_tokens=4)


def test_an_original_folder_becomes_a_native_one(model: WowSeg, tmp_path: Path) -> None:
    read = WowSeg.from_pretrained(write(model, tmp_path / "it", "Hermes-2"), tiles=2)
    read.save(tmp_path / "native")
    again = WowSeg.from_pretrained(tmp_path / "native")
    assert again.settings == read.settings
    assert torch.equal(logits(again), logits(read))


def test_a_native_folder_becomes_an_original_one(model: WowSeg, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    given = WowSeg(model.network, model.preparer.tokenizer, Settings(template="Hermes-2", tiles=2, scale=2.5))
    given.save(tmp_path / "it", "original")
    theirs, found = original(model.network.state_dict()), load_file(tmp_path / "it" / "model.safetensors")
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    expected, stated = raw_config(model, "Hermes-2"), json.loads((tmp_path / "it" / "config.json").read_text())
    expected["llm_config"]["max_window_layers"] = stated["llm_config"]["max_window_layers"]  # without a window, nothing
    for name in ("llm_config", "vision_config"):
        part = stated.pop(name)
        assert part == {key: expected[name][key] for key in part}
    assert stated == {key: expected[key] for key in stated} | {"torch_dtype": "float32", "max_dynamic_patch": 2}
    read = WowSeg.from_pretrained(tmp_path / "it")
    assert read.settings == given.settings
    assert torch.equal(logits(read), logits(given))


def test_what_has_no_place_in_the_original_format_is_not_written(model: WowSeg, tmp_path: Path) -> None:
    changed = wowseg(double=False)
    changed.network.model.extra = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"has no place for 2 tensors, such as model\.extra\.bias"):
        changed.save(tmp_path / "it", "original")
    assert not (tmp_path / "it").exists()


def test_vocabularies_without_tokenizer_json(model: WowSeg, tmp_path: Path) -> None:
    folder = slow_vocabulary(write(model, tmp_path / "it"))
    read = WowSeg.from_pretrained(folder, tiles=2)
    assert read.preparer.text == model.preparer.text
    assert torch.equal(logits(read), logits(model))
    path = folder / "added_tokens.json"
    added = json.loads(path.read_text())
    path.write_text(json.dumps(added | {"<img>": 7}))
    with pytest.raises(UserError, match=r"added_tokens\.json: <img> is 7, but becomes \d+ with the vocabulary"):
        checkpoint.load(folder)


def slow_vocabulary(folder: Path) -> Path:
    """Replace tokenizer.json by the files that InternVL's folders have."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    added = {one["content"]: one["id"] for one in whole["added_tokens"]}
    words = {text: number for text, number in whole["model"]["vocab"].items() if text not in added}
    merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
    described = {str(n): {"content": t, "special": True, "normalized": False} for t, n in added.items()}
    stated = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": described}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


def test_pytorch_files(model: WowSeg, tmp_path: Path) -> None:
    folder = write(model, tmp_path / "it")
    (folder / "model.safetensors").unlink()
    torch.save(original(model.network.state_dict()), folder / "pytorch_model.bin")
    assert torch.equal(logits(WowSeg.from_pretrained(folder, tiles=2)), logits(model))


def test_names_of_older_and_newer_native_files(model: WowSeg, tmp_path: Path) -> None:
    model.save(tmp_path / "it")
    assert {name.split(".")[0] for name in checkpoint.read(tmp_path / "it")} == {"model", "lm_head"}
    model.network.save_pretrained(tmp_path / "it")  # as the published ones are
    old = {name.split(".")[0] for name in checkpoint.read(tmp_path / "it")}
    assert old == {"language_model", "multi_modal_projector", "vision_tower"}
    assert torch.equal(logits(WowSeg.from_pretrained(tmp_path / "it")), logits(model))


def test_types_of_weights(model: WowSeg, tmp_path: Path) -> None:
    half = wowseg(double=False)
    half.network.bfloat16()
    half.save(tmp_path / "it")
    assert WowSeg.from_pretrained(tmp_path / "it").head.weight.dtype == torch.bfloat16
    assert WowSeg.from_pretrained(tmp_path / "it", dtype=torch.float32).head.weight.dtype == torch.float32


# --- tied embeddings ---


def test_the_head_is_its_own_though_transformers_ties_by_default(model: WowSeg, tmp_path: Path) -> None:
    model.save(tmp_path / "it")
    path = tmp_path / "it" / "config.json"
    raw = json.loads(path.read_text())
    del raw["tie_word_embeddings"]
    path.write_text(json.dumps(raw))
    read = WowSeg.from_pretrained(tmp_path / "it")
    assert torch.equal(read.network.lm_head.weight, model.network.lm_head.weight)
    assert not torch.equal(read.network.lm_head.weight, read.network.get_input_embeddings().weight)


def test_tied_embeddings_are_read_and_stay_tied(model: WowSeg, tmp_path: Path) -> None:
    folder = write(model, tmp_path / "it", tie_word_embeddings=True)
    loaded = checkpoint.load(folder)
    assert loaded.tied
    assert loaded.network.lm_head.weight is loaded.network.get_input_embeddings().weight
    kinds: tuple[checkpoint.Kind, ...] = ("native", "original")
    for kind in kinds:
        checkpoint.save(loaded.network, loaded.tokenizer, loaded.settings, tmp_path / kind, kind)
        again = checkpoint.load(tmp_path / kind)
        assert again.tied
        assert torch.equal(again.network.lm_head.weight, loaded.network.lm_head.weight)


def test_a_head_that_should_be_there_is_missed(model: WowSeg, tmp_path: Path) -> None:
    folder = write(model, tmp_path / "it", tie_word_embeddings=True)
    raw = json.loads((folder / "config.json").read_text())
    raw["llm_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"1 tensors do not fit .*\n  missing: lm_head\.weight"):
        checkpoint.load(folder)


# --- the real thing, without its weights ---


def test_the_1b_has_637_tensors_and_all_have_a_place() -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    raw = raw_config(wowseg(double=False), "internvl2_5")
    raw["force_image_size"] = raw["vision_config"]["image_size"] = 448
    raw["llm_config"] |= {
        "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_hidden_layers": 24,
        "num_key_value_heads": 2, "vocab_size": 151674,
    }  # fmt: skip
    raw["vision_config"] |= {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
        "patch_size": 14,
    }  # fmt: skip
    with torch.device("meta"):
        network: Any = InternVLForConditionalGeneration(InternVLConfig(**original_internvl.config(raw)))
    theirs = original(network.state_dict())
    assert len(theirs) == 637  # wowseg_facts.md D.2
    assert theirs["vision_model.encoder.layers.23.attn.qkv.weight"].shape == (3072, 1024)
    ours, unknown = convert(theirs, original_internvl.NAMES)
    assert not unknown
    assert {name: t.shape for name, t in ours.items()} == {n: t.shape for n, t in network.state_dict().items()}
    text = network.config.text_config
    assert text.rope_parameters["rope_theta"] == 1e6
    assert text.rope_parameters["rope_type"] == "dynamic"
    assert text.rope_parameters["factor"] == 2.0
    vision = network.config.vision_config
    assert (vision.attention_bias, vision.use_qk_norm, vision.use_mean_pooling) == (True, False, True)


def test_a_debug_checkpoint_is_told_of(model: WowSeg, tmp_path: Path) -> None:
    told = checkpoint.describe(checkpoint.load(write(model, tmp_path / "it", "Hermes-2")))
    assert told["format"] == "InternVL's own (InternVLChatModel)"
    assert told["weights"] == f"{sum(w.numel() for w in model.parameters()):,} (float32)"
    assert told["tensors"].startswith("65 in the files: none missing, none left over")
    assert told["images"] == "2 layers of 64; 112 px, 4×4 tokens"
    assert told["embeddings"] == "and head are two tensors"
    assert told["vocabulary"] == "588 tokens, 588 rows"
    assert told["special tokens"] == "<img> 585, <IMG_CONTEXT> 587, </img> 586, <|im_end|> 584"
    assert (told["template"], told["scale"]) == ("Hermes-2", "2.0")


# --- what is wrong with a folder ---


def cut(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the tensors of the first file and its index."""

    def change_file(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        index, file = folder / "model.safetensors.index.json", "model-00001-of-00003.safetensors"
        tensors = load_file(folder / file)
        change(tensors)
        save_file(tensors, folder / file)
        places = json.loads(index.read_text())["weight_map"]
        kept = {name: place for name, place in places.items() if place != file}
        index.write_text(json.dumps({"weight_map": kept | dict.fromkeys(tensors, file)}))

    return change_file


def larger_vocabulary(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)


FIRST = "language_model.lm_head.weight"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (without("config.json"), r"config\.json is missing: this is no checkpoint folder"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is no JSON"),
        (lambda folder: changed(folder, model_type="llava"), "model_type is llava; internvl or internvl_chat expected"),
        (lambda folder: changed(folder, ps_version="v1"), "pixel shuffle of version 1 is not supported"),
        (lambda folder: changed(folder, template="phi3-chat"), "no conversation template 'phi3-chat'"),
        (without("model-00002-of-00003.safetensors"), "1 of 3 files are missing: model-00002-of-00003.safetensors"),
        (cut, r"model-00002-of-00003\.safetensors is cut off or broken .* Download it again"),
        (without("model.safetensors.index.json"), "no weights there"),
        (without("tokenizer.json"), "no vocabulary"),
        (larger_vocabulary, r"the vocabulary has (\d+) tokens, the embedding \d+ rows"),
        (
            rewritten(lambda tensors: tensors.pop(FIRST)),
            r"1 tensors do not fit its config\.json:\n  missing: lm_head\.weight",
        ),
        (rewritten(lambda tensors: tensors.update(extra=torch.ones(1))), "left over: extra"),
        (
            rewritten(lambda tensors: tensors.update({FIRST: tensors[FIRST][:-1].clone()})),
            r"shape: lm_head\.weight is \(587, 96\), \(588, 96\) expected",
        ),
        (lambda folder: (folder / "wowseg.json").write_text('{"scale": "big"}'), r"wowseg\.json: .*scale"),
        (lambda folder: (folder / "wowseg.json").write_text('{"scael": 2}'), r"wowseg\.json: .*scael"),
    ],
)
def test_faults(model: WowSeg, tmp_path: Path, harm: Callable[[Path], Any], told: str) -> None:
    folder = write(model, tmp_path / "it", shards=3)
    harm(folder)
    with pytest.raises(UserError, match=told):
        WowSeg.from_pretrained(folder)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"tiles": 0}, {"scales": 2}, {"encoder": "mask"}])
def test_settings_that_cannot_be(model: WowSeg, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="settings of the model: "):
        WowSeg.from_pretrained(write(model, tmp_path / "it"), **wrong)


def test_an_index_that_says_other_than_its_files(model: WowSeg, tmp_path: Path) -> None:
    folder = write(model, tmp_path / "it", shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="index and files differ in 1 tensors, the first is ghost"):
        checkpoint.load(folder)


def test_nothing_is_written_over(model: WowSeg, tmp_path: Path) -> None:
    model.save(tmp_path / "it")
    with pytest.raises(UsageError, match="exists"):
        model.save(tmp_path / "it")


def test_flex_attention_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CUDA only"):
        WowSeg.from_pretrained(tmp_path / "nowhere", attention_implementation="flex_attention")
