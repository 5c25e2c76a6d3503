"""Stage 1, Grounded SAM's first half: the vision-language model lists what can be seen in each image.

The detector looks for what is listed here and for the names that the image's masks already have. A phrase of the
latter kind alone makes agreement that is self-made; so each keeps its source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipeline import files
from pipeline.run import Run
from stages import answers, asking, preflight, region_prompts, todo
from stages.engines.base import Decoding, EngineConfig
from stages.ledger import Answer, Asker, Watcher
from stages.naming import Bounds, record, shards
from stages.naming_settings import NamesConfig
from stages.region_prompts import RegionPrompt
from stages.rendering import Renderer
from stages.todo import Salts, Subjects, Todo

STEP = "phrases"
LISTED, NONE = "listed", "none"
_DECODING = Decoding(512)
"""Tokens: about 150 names. A model that repeats itself without end stops there."""
_LONGEST = 100_000  # characters of an answer that are read
_SEPARATOR = re.compile(r"[,;、，；\n]+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")


class Setting(msgspec.Struct, frozen=True):
    """What makes an image's list, apart from the image."""

    model: str
    revision: str
    image_px: int
    prompt: str
    min_pixels: int
    max_pixels: int
    version: int = 1


def build(
    run: Run,
    config: NamesConfig,
    engine: EngineConfig,
    session: Callable[[], AbstractContextManager[Any]],
    watcher: Watcher,
    *,
    redo: bool = False,
) -> None:
    """Ask about every image once.

    `session` opens a Ray session, called only when there is work. With `redo`, lists made under other settings are
    made again; without it they are refused. Raises `UserError`.
    """
    shown = RegionPrompt(layout="whole", image_px=config.image_px)
    question = region_prompts.question("objects", shown)
    made = _setting(config, engine, question)
    with run.lock(STEP) as lock:
        plan = _plan(run, made, redo=redo)
        asker = _asker(config, engine, made)
        run.sweep(STEP, asker.tables)
        if not plan.pieces:
            return
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in plan.pieces))
            render = Renderer(run.folder.uri, shards(run), shown, question, engine)
            test = preflight.of_names(question, shown, engine)
            asked = asking.stream(plan.pieces, test.prompts, render.__call__, engine, _DECODING)
            record(test.passed_on(asked, config.preflight, watcher.say), run, plan, asker, watcher, Bounds())


def _setting(config: NamesConfig, engine: EngineConfig, question: str) -> Setting:
    return Setting(
        engine.model,
        engine.pinned_revision,
        config.image_px,
        files.sha256(question.encode())[:16],
        engine.min_pixels,
        engine.max_pixels,
    )


def _plan(run: Run, made: Setting, *, redo: bool) -> Todo:
    """List the first mask of every image that is to be asked about."""
    masks = todo.fingerprints(run, made)
    todo.settle_changes(run, STEP, "phrases", masks, made, redo=redo)
    first = np.zeros(len(masks.ids), np.bool_)
    images, at = np.unique(masks.image_ids, return_index=True)
    first[at[~np.isin(images, _done(run, masks))]] = True
    prints = dict(masks.prints(first))
    return Todo(made, todo.every_piece(masks, first), todo.tries(run, STEP, masks), prints)


def _done(run: Run, masks: Subjects) -> Any:
    known = run.dataset("phrases", STEP).to_table(columns=["image_id"])["image_id"].to_numpy()
    refused = masks.image_ids[np.isin(masks.ids, todo.quarantined_ids(run, STEP))]
    return np.union1d(known, refused)


def _asker(config: NamesConfig, engine: EngineConfig, made: Setting) -> Asker:
    def rows(answer: Answer) -> list[dict[str, Any]]:
        found = listed(answer["text"])
        row = {
            "image_id": answer["image_id"],
            "mask_id": answer["subjects"][0],
            "outcome": LISTED if found else NONE,
            "phrases": found,
            "raw": answer["text"],
            "engine": engine.kind,
            "model": made.model,
            "revision": made.revision,
            "prompt": made.prompt,
        }
        return [row]

    return Asker(STEP, STEP, "phrases", rows, config.tries, engine.gpus_used)


def listed(raw: str) -> list[str]:
    """Read an answer to "list every kind of object": the names in it, normalised, distinct, in their order.

    Separators are commas, semicolons and line ends; what `answers.parse` takes for no name is left out.
    """
    spoken = raw.rpartition("</think>")[2][:_LONGEST]
    pieces = (_BULLET.sub("", piece) for piece in _SEPARATOR.split(spoken.strip().strip("[]{}")))
    names = (answers.parse(piece.strip(" \"'")).category for piece in pieces if piece.strip())
    return list(dict.fromkeys(name for name in names if name))


def merged(of_image: list[str], of_masks: list[str]) -> dict[str, str]:
    """Return every phrase of an image with its source: `image`, `names`, or `both`."""
    sources = dict.fromkeys(of_image, "image")
    for name in of_masks:
        sources[name] = "both" if name in sources else "names"
    return sources


class Wanted(NamedTuple):
    """What to look for in the images that are ready."""

    salts: Salts
    phrases: dict[int, dict[str, str]]
    """Image id to phrases with their sources."""


def wanted(run: Run, step: str) -> Wanted:
    """Return the phrases of every image whose masks have all been named by `step`, or been given up.

    An image that could not be asked about has the names of its masks alone.
    """
    masks = run.dataset("masks").to_table(columns=["mask_id", "image_id"])
    ids, image_ids = masks["mask_id"].to_numpy(), masks["image_id"].to_numpy()
    settled = np.isin(ids, np.concatenate([todo.answered_ids(run, "names", step), todo.quarantined_ids(run, step)]))
    asked = run.dataset("phrases", STEP).to_table(columns=["image_id", "phrases"])
    refused = image_ids[np.isin(ids, todo.quarantined_ids(run, STEP))]
    ready = np.setdiff1d(np.union1d(asked["image_id"].to_numpy(), refused), image_ids[~settled])
    lists = dict(zip(asked["image_id"].to_pylist(), asked["phrases"].to_pylist(), strict=True))
    names = _names_by_image(run, step)
    found = {i: merged(lists.get(i, []), names.get(i, [])) for i in ready.tolist()}
    hashes = [int(files.sha256(msgspec.json.encode(sorted(found[i].items())))[:15], 16) for i in ready.tolist()]
    return Wanted(Salts(ready, np.array(hashes, np.int64)), found)


def _names_by_image(run: Run, step: str) -> dict[int, list[str]]:
    """Return the distinct categories of each image's masks, in the order of the alphabet."""
    table = run.dataset("names", step).to_table(columns=["image_id", "category"]).drop_null()
    found: dict[int, set[str]] = {}
    for image_id, category in zip(table["image_id"].to_pylist(), table["category"].to_pylist(), strict=True):
        found.setdefault(image_id, set()).add(category)
    return {image_id: sorted(names) for image_id, names in found.items()}
