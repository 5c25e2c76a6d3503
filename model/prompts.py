"""The words around images and regions: prompt and conversation template, read from files and made into tokens.

Files are in data_manifests/prompts/wowseg; where they come from: reference/wowseg_facts.md C.5. A prompt says
`<image>` twice: for the whole image, and for the region. Everything up to the region is shared by all masks of an
image; what follows it is the infix, at whose end the label is predicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UserError

FOLDER = Path(__file__).parent.parent / "data_manifests" / "prompts" / "wowseg"

START, SLOT, END, STOP = "<img>", "<IMG_CONTEXT>", "</img>", "<|im_end|>"
"""Tokens that a vocabulary must have: around an image, in place of each of its vectors, after an answer."""
SEPARATOR = " ,"
"""Between the labels of a packed answer: one token of Qwen's vocabulary, 1154. A label after it begins with a space."""

_IMAGE, _PROMPT = "<image>", "{prompt}"


class Text(NamedTuple):
    """The tokens of prompt and template."""

    before: list[int]
    """From the beginning up to the image."""
    between: list[int]
    """From the image to the region."""
    infix: list[int]
    """From the region to the label."""
    start: int
    slot: int
    end: int
    stop: int
    separator: list[int]


def names(kind: str = "") -> list[str]:
    """Return the names of all prompts, or with "templates" of all templates."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.txt"))


def read(tokenizer: Any, template: str, prompt: str) -> Text:
    """Make tokens of a prompt in a conversation template, both given by the names of their files.

    Raises `UserError` for an unknown name, a prompt that does not say `<image>` twice, or a vocabulary without
    InternVL's tokens.
    """
    asked = _file("", prompt).removesuffix("\n")
    pieces = _file("templates", template).replace(_PROMPT, asked).split(_IMAGE)
    if len(pieces) != 3:
        raise UserError(f"prompt {prompt}: {_IMAGE} twice is needed, for image and region; found {len(pieces) - 1}.")
    before, between, infix = (tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces)
    start, slot, end, stop = (special_token(tokenizer, name) for name in (START, SLOT, END, STOP))
    return Text(before, between, infix, start, slot, end, stop, plain(tokenizer, SEPARATOR))


def plain(tokenizer: Any, text: str) -> list[int]:
    """Make tokens of a text from elsewhere: what looks like a special token in it stays words."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return found


def special_token(tokenizer: Any, name: str) -> int:
    """Return the id of a special token. Raises `UserError` if the vocabulary has none."""
    found = tokenizer(name, add_special_tokens=False).input_ids
    if len(found) != 1:
        raise UserError(f"the tokenizer has no token {name}: it is not InternVL's. Take the checkpoint's own files.")
    return int(found[0])


def _file(kind: str, name: str) -> str:
    if name not in names(kind):
        known = ", ".join(names(kind))
        raise UserError(f"there is no {'conversation template' if kind else 'prompt'} {name!r}. Known: {known}.")
    return (FOLDER / kind / f"{name}.txt").read_text(encoding="utf-8")
