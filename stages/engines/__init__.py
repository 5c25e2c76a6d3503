"""Engines: a data set of prompts in, a data set of answers out, whoever answers.

`answers` is all that a stage calls; which engine it is, is configuration alone.
"""

from __future__ import annotations

from typing import Any

from stages.engines.base import Decoding, EngineConfig


def answers(prompts: Any, config: EngineConfig, decoding: Decoding) -> Any:
    """Ask every row of `prompts` (a Ray data set of `base.PROMPTS`); return a data set of `base.ANSWERS`.

    A prompt that fails becomes an answer with an error; rows may come in another order. Raises `UsageError` when
    the engine's packages are missing or the engine cannot do what `decoding` asks.
    """
    if config.kind == "vllm":
        from stages.engines import vllm

        return vllm.answers(prompts, config, decoding)
    if config.kind == "openai":
        from stages.engines import openai

        return openai.answers(prompts, config, decoding)
    if config.kind == "transformers":
        from stages.engines import transformers

        return transformers.answers(prompts, config, decoding)
    if config.kind == "wowseg":
        from stages.engines import wowseg

        return wowseg.answers(prompts, config)
    from stages.engines import embedded

    return embedded.answers(prompts, config, decoding)
