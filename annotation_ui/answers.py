"""What people's answers mean. The server checks almost nothing of them (label_studio.md §2), so all is checked here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from annotation_ui.screens import CLEAN

Verdict = Literal["keep", "delete", "private", "unsure"]

_MARKS: dict[str, Verdict] = {"private": "private", "wrong": "delete", "unsure": "unsure"}
"""The lists of `page_view`, the strongest first. Private: not to be published, whatever else is true of it. Delete
before unsure: somebody who ticks both knows enough. A tile without a mark on a submitted page is kept."""

_SINGLE: tuple[Verdict, ...] = ("keep", "delete", "private", "unsure")  # the choices of `single_view`


class Refused(NamedTuple):
    """An answer that is none: no verdict is made of it."""

    reason: str


class _MalformedError(Exception):
    pass


def verdicts(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Verdict] | Refused:
    """Return the verdict on each uid of a task, as exported; none where the annotator skipped it.

    Anything not as our screens make it is `Refused`: an unknown list, choice or uid, one that is there twice, and in
    the single view no verdict or several.
    """
    try:
        if _field(annotation, "was_cancelled", bool):
            return {}
        lists = _lists(_field(annotation, "result", list))
        data = _field(task, "data", dict)
        return _of_single(_field(data, "uid", str), lists) if "picture" in data else _of_page(_uids(data), lists)
    except _MalformedError as error:
        return Refused(str(error))


def latest(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return each annotator's last answer to a task as exported, by time of change; skips do not take one back.

    People can go back and change an answer, or give a second one (label_studio.md §4).
    """
    given = [a for a in task["annotations"] if not a["was_cancelled"]]
    given.sort(key=lambda a: (datetime.fromisoformat(a["updated_at"]), a["id"]))
    return list({a["completed_by"]: a for a in given}.values())


def _field(holder: Any, name: str, kind: type) -> Any:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, kind):
        raise _MalformedError(f"{name}: {kind.__name__} expected, {value!r:.100} found")
    return value


def _uids(data: Mapping[str, Any]) -> list[str]:
    uids = [_field(item, "value", str) for item in _field(data, "wrong", list)]
    if not uids or len(set(uids)) < len(uids):
        raise _MalformedError("the page's own list of uids is empty, or has one twice")
    return uids


def _lists(result: list[Any]) -> dict[str, list[str]]:
    """Return what was chosen, by the name of the list."""
    lists: dict[str, list[str]] = {}
    for part in result:
        name = _field(part, "from_name", str)
        if part.get("type") != "choices" or part.get("to_name") != "page" or name in lists:
            raise _MalformedError(f"list {name!r}: there twice, or not of our screens")
        chosen = _field(_field(part, "value", dict), "choices", list)
        if not all(isinstance(choice, str) for choice in chosen) or len(set(chosen)) < len(chosen):
            raise _MalformedError(f"list {name!r}: its choices are no texts, or one is there twice")
        lists[name] = chosen
    return lists


def _known(lists: Mapping[str, list[str]], names: Mapping[str, Any]) -> None:
    if unknown := sorted(lists.keys() - names.keys()):
        raise _MalformedError(f"list {unknown[0]!r}: not of this screen")
    for name, chosen in lists.items():
        if strangers := [choice for choice in chosen if choice not in names[name]]:
            raise _MalformedError(f"list {name!r}: {strangers[0]!r:.100} is not on this page")


def _of_page(uids: list[str], lists: Mapping[str, list[str]]) -> dict[str, Verdict]:
    _known(lists, dict.fromkeys(_MARKS, uids))
    found: dict[str, Verdict] = dict.fromkeys(uids, "keep")
    for name, verdict in reversed(_MARKS.items()):
        found |= dict.fromkeys(lists.get(name, []), verdict)
    return found


def _of_single(uid: str, lists: Mapping[str, list[str]]) -> dict[str, Verdict]:
    _known(lists, {"verdict": _SINGLE, "clean": [CLEAN]})
    chosen = lists.get("verdict", [])
    if len(chosen) != 1:
        raise _MalformedError(f"one verdict expected, {len(chosen)} found")
    return {uid: _SINGLE[_SINGLE.index(chosen[0])]}
