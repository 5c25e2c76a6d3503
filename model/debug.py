"""The debug size: the same model with a few hundred thousand weights, for tests and for training on a laptop.

Same classes, same code path; its vocabulary is made from the prompts alone, so that they are few tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model import prompts
from model.inputs import Settings
from model.wowseg import WowSeg

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
_VOCABULARY = 600
"""256 bytes, and at most as many pieces of words that are commonest in the prompts; the tokens above come after them"""
SIDE, GRID = 112, 4
"""px of a tile; tokens along its side"""


def debug(seed: int = 0, texts: Sequence[str] = (), **settings: Any) -> WowSeg:
    """Return a model with random weights; `settings` as in `Settings`, `texts` as in `tokenizer`."""
    import torch
    from transformers import InternVLForConditionalGeneration

    tokens = tokenizer(texts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = InternVLForConditionalGeneration(config(tokens))
    return WowSeg(network.eval(), tokens, Settings(**settings))


def tokenizer(texts: Sequence[str] = ()) -> Any:
    """Return a byte-level BPE vocabulary trained on prompts and templates: any text is tokens, theirs few.

    The words of `texts` are single tokens besides, written as there: with a space before them or without.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast
    known = [path.read_text(encoding="utf-8") for path in sorted(prompts.FOLDER.rglob("*.txt"))]
    room = sum(len(text) for text in texts)  # a merge for each character at most
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY + room,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fast.train_from_iterator([*known, *texts, *texts], trainer)  # twice: what is there once is not merged
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in _SPECIAL])
    return kind(tokenizer_object=fast, eos_token=prompts.STOP, pad_token=_SPECIAL[0])


def config(tokens: Any) -> Any:
    """Return the configuration of that size for a vocabulary."""
    from transformers import InternVLConfig

    return InternVLConfig(
        text_config={
            "model_type": "qwen2", "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokens), "tie_word_embeddings": False,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},  # as InternVL3-1B
        },
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": SIDE // (2 * GRID), "attention_bias": True,
        },
        image_token_id=prompts.special_token(tokens, prompts.SLOT), image_seq_length=GRID**2, tie_word_embeddings=False,
    )  # fmt: skip
