"""The transformers engine, on tiny checkpoints with random weights."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny_models import internvl

from pipeline.errors import UsageError
from pipeline.images import Size
from stages.engines import transformers as engine
from stages.engines.base import ANSWERS, PROMPTS, Answer, Decoding, EngineConfig, part
from stages.engines.transformers import Checkpoint
from stages.prompt_tokens import image_tokens, tiles

Pieces = list[str | bytes]
TOKENS = 5
WIDE, TALL, SMALL = (150, 90), (60, 170), (40, 40)


def picture(size: Size, seed: int = 0) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def asked(seed: int = 0, size: Size = WIDE) -> Pieces:
    return [picture(size, seed), "What is this?"]


PROMPT = asked()
OTHERS: list[Pieces] = [
    [picture(TALL, 1), "Here is a whole picture; now a part of it:", picture(SMALL, 2), "What is the part?"],
    ["Name a bird."],
]


def config(folder: Path, **others: Any) -> EngineConfig:
    return EngineConfig(kind="transformers", model=str(folder), **others)


def checkpoint(folder: Path, max_tokens: int = TOKENS, **others: Any) -> Checkpoint:
    return Checkpoint(str(folder), config(folder, **others), Decoding(max_tokens))


def table(*prompts: Pieces, problem: str | None = None) -> pa.Table:
    """Rows of `PROMPTS`; where there are no pieces, with a problem."""
    rows = [
        {"prompt_id": number, "parts": [part(piece) for piece in pieces], "problem": None if pieces else problem}
        for number, pieces in enumerate(prompts)
    ]
    return pa.Table.from_pylist(rows, PROMPTS)


def ask(model: Checkpoint, *prompts: Pieces) -> list[Answer]:
    """The answers to a batch, without the seconds they took."""
    answers = model(table(*prompts)).select(Answer._fields).to_pylist()
    return [Answer(**row)._replace(seconds=None) for row in answers]


def changed(folder: Path, into: Path, **generation: Any) -> Path:
    """A copy of a checkpoint with other defaults for generating."""
    for file in folder.iterdir():
        (into / file.name).symlink_to(file)
    settings = into / "generation_config.json"
    known = json.loads(settings.read_text())
    settings.unlink()
    settings.write_text(json.dumps({**known, **generation}))
    return into


@pytest.fixture(scope="module")
def qwen(tiny_qwen: Path) -> Checkpoint:
    return checkpoint(tiny_qwen)


@pytest.fixture(scope="module")
def tiny_internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return internvl(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module")
def intern(tiny_internvl: Path) -> Checkpoint:
    return checkpoint(tiny_internvl)


def by_hand(folder: Path, text: str, data: bytes) -> tuple[list[int], list[float]]:
    """The likeliest tokens after Qwen's chat template and their log probabilities, by whole forward passes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    inputs = processor(text=[text], images=[Image.open(io.BytesIO(data))], return_tensors="pt")
    tokens, logprobs = [], []
    for _ in range(TOKENS):
        with torch.inference_mode():
            best = model(**inputs).logits[0, -1].log_softmax(-1).max(-1)
        tokens.append(int(best.indices))
        logprobs.append(float(best.values))
        for name, value in {"input_ids": tokens[-1], "attention_mask": 1, "mm_token_type_ids": 0}.items():
            inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], 1)
    return tokens, logprobs


QWEN_TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def expected(tiny_qwen: Path) -> tuple[list[int], list[float]]:
    """What Qwen answers to PROMPT."""
    return by_hand(tiny_qwen, QWEN_TEXT, picture(WIDE))


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def count(folder: Path, text: str) -> int:
    return len(tokenizer(folder)(text).input_ids)


def words(folder: Path, tokens: list[int]) -> str:
    return str(tokenizer(folder).decode(tokens, skip_special_tokens=True))


# --- Qwen2.5-VL -------------------------------------------------------------------------------------------


def test_an_answer_is_the_likeliest_tokens_and_their_probability(
    qwen: Checkpoint, tiny_qwen: Path, expected: tuple[list[int], list[float]]
) -> None:
    (answer,) = ask(qwen, PROMPT)
    assert answer.text == words(tiny_qwen, expected[0])
    assert answer.logprob == pytest.approx(sum(expected[1]), abs=1e-3)
    assert (answer.generated_tokens, answer.error) == (TOKENS, None)


def test_the_likeliest_first_words_are_those_of_a_forward_pass(
    tiny_qwen: Path, expected: tuple[list[int], list[float]]
) -> None:
    (answer,) = ask(Checkpoint(str(tiny_qwen), config(tiny_qwen), Decoding(TOKENS, likeliest=20)), PROMPT)
    assert answer.likeliest is not None
    assert len(answer.likeliest) >= 15  # several tokens may be one text
    told = [one["logprob"] for one in answer.likeliest]
    assert all(value < 0 for value in told)
    assert sum(map(math.exp, told)) <= 1
    first = next(k for k, token in enumerate(expected[0]) if any(map(str.isalpha, words(tiny_qwen, [token]))))
    assert max(told) == pytest.approx(expected[1][first], abs=1e-3)


def test_a_batch_of_different_prompts_is_answered_as_each_alone(qwen: Checkpoint) -> None:
    prompts = [PROMPT, *OTHERS]
    alone = [ask(qwen, prompt)[0] for prompt in prompts]
    together = ask(qwen, *prompts)
    assert [answer._replace(logprob=None) for answer in together] == [answer._replace(logprob=None) for answer in alone]
    assert [a.logprob for a in together] == pytest.approx([a.logprob for a in alone], abs=1e-3)
    assert len({answer.text for answer in together}) == len(prompts)


@pytest.mark.parametrize(("least", "most"), [(3136, 12845056), (3136, 7840), (31360, 12845056)])
def test_prompt_tokens_are_those_of_text_and_pictures(tiny_qwen: Path, least: int, most: int) -> None:
    text = count(tiny_qwen, QWEN_TEXT.replace("<|image_pad|>", ""))
    sizes = [WIDE, TALL, SMALL, (13, 500)]
    bounds = {"min_pixels": least, "max_pixels": most}
    answers = ask(checkpoint(tiny_qwen, 1, **bounds), *(asked(size=size) for size in sizes))
    expected = [text + image_tokens([size], config(tiny_qwen, **bounds)) for size in sizes]
    assert [answer.prompt_tokens for answer in answers] == expected


def test_the_picture_matters(qwen: Checkpoint) -> None:
    answers = ask(qwen, *map(asked, range(3)))
    assert len({round(answer.logprob or 0, 4) for answer in answers}) == 3


def test_the_order_of_pieces_matters(qwen: Checkpoint) -> None:
    one, two = picture(WIDE, 1), picture(WIDE, 2)
    answers = ask(qwen, [one, "and", two, "?"], [two, "and", one, "?"], [one, two, "and", "?"])
    assert len({round(answer.logprob or 0, 4) for answer in answers}) == 3


def test_an_answer_ends_at_the_limit(tiny_qwen: Path, expected: tuple[list[int], list[float]]) -> None:
    (answer,) = ask(checkpoint(tiny_qwen, 2), PROMPT)
    assert answer.generated_tokens == 2
    assert answer.logprob == pytest.approx(sum(expected[1][:2]), abs=1e-3)


def test_an_answer_ends_with_the_end_token_and_counts_it(
    tiny_qwen: Path, tmp_path: Path, expected: tuple[list[int], list[float]]
) -> None:
    tokens, logprobs = expected
    model = checkpoint(changed(tiny_qwen, tmp_path, eos_token_id=[151645, tokens[3]]))
    answer, longer = ask(model, PROMPT, OTHERS[0])
    assert (answer.generated_tokens, longer.generated_tokens) == (4, TOKENS)
    assert answer.logprob == pytest.approx(sum(logprobs[:4]), abs=1e-3)
    assert answer.text == words(tiny_qwen, tokens[:4])


def test_decoding_is_greedy_whatever_the_checkpoint_prefers(qwen: Checkpoint, tiny_qwen: Path, tmp_path: Path) -> None:
    # Below 1, the prompt's own tokens would come out; Qwen2.5-VL's checkpoints have 1.05, and sampling.
    other = changed(tiny_qwen, tmp_path, repetition_penalty=0.01, do_sample=True, temperature=9.0)
    assert ask(checkpoint(other), PROMPT) == ask(qwen, PROMPT)


def test_a_prompt_that_breaks_its_batch_costs_itself_alone(qwen: Checkpoint) -> None:
    first, broken, last = ask(qwen, PROMPT, asked(size=(1, 2000)), OTHERS[0])
    assert broken == Answer(error="ValueError: absolute aspect ratio must be smaller than 200, got 2000.0")
    assert [first, last] == [ask(qwen, PROMPT)[0], ask(qwen, OTHERS[0])[0]]


def test_rows_with_a_problem_pass_through(qwen: Checkpoint) -> None:
    answers = qwen(table([], PROMPT, [], problem="not a JPEG"))
    assert answers.schema == ANSWERS
    assert answers["prompt_id"].to_pylist() == [0, 1, 2]
    assert answers["problem"].to_pylist() == ["not a JPEG", None, "not a JPEG"]
    assert [text is None for text in answers["text"].to_pylist()] == [True, False, True]
    assert answers["error"].to_pylist() == [None, None, None]


def test_a_batch_of_problems_asks_nothing(qwen: Checkpoint) -> None:
    answers = qwen(table([], [], problem="not a JPEG"))
    assert answers.select(Answer._fields).to_pylist() == [Answer()._asdict()] * 2


# --- InternVL ---------------------------------------------------------------------------------------------


def test_internvl_answers_a_batch_as_each_alone(intern: Checkpoint) -> None:
    prompts = [PROMPT, *OTHERS, asked(1)]
    alone = [ask(intern, prompt)[0] for prompt in prompts]
    together = ask(intern, *prompts)
    assert [answer._replace(logprob=None) for answer in together] == [answer._replace(logprob=None) for answer in alone]
    assert [a.logprob for a in together] == pytest.approx([a.logprob for a in alone], abs=1e-3)
    assert together[0].logprob != pytest.approx(together[-1].logprob, abs=1e-3)


def test_internvl_cuts_pictures_into_tiles_and_a_thumbnail(intern: Checkpoint, tiny_internvl: Path) -> None:
    text = "<|im_start|>user\n<img></img>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n"
    tiles = {(56, 56): 1, (112, 56): 3, (112, 112): 5}
    answers = ask(intern, *(asked(size=size) for size in tiles))
    expected = [count(tiny_internvl, text) + 4 * number for number in tiles.values()]
    assert [answer.prompt_tokens for answer in answers] == expected


# --- before anything is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", "/nowhere"])
def test_a_model_that_is_neither_pinned_nor_a_folder_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match=f"model = {model}: kind = transformers needs a name in"):
        engine.answers(None, EngineConfig(kind="transformers", model=model), Decoding(TOKENS))


@pytest.mark.parametrize("most", [1, 2, 4])
def test_internvls_tiles_are_a_setting_and_counted(tiny_internvl: Path, most: int) -> None:
    sizes = [WIDE, TALL, (50, 50)]
    engine = checkpoint(tiny_internvl, tiles=most)
    own = engine._processor.image_seq_length
    text = ask(checkpoint(tiny_internvl, tiles=1), asked(size=WIDE))[0].prompt_tokens or 0
    answers = [ask(engine, asked(size=size))[0] for size in sizes]
    told = [(answer.prompt_tokens or 0) - text + own for answer in answers]
    assert told == [own * tiles(size, most) for size in sizes]
