"""Configuration: TOML files and `--set a.b=c` into one typed, frozen model, checked before anything runs.

Each step owns its section; `pipeline.cli` puts the sections together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Base of every configuration section: frozen, unknown keys refused, the docstring under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ClusterConfig(Section):
    """Where and how wide the work runs."""

    address: str | None = None
    """Address of a running Ray cluster, as in ray://head:10001 or head:6379; unset: RAY_ADDRESS, else a Ray of our
    own on this machine."""

    workers: int | None = Field(None, ge=1)
    """Tasks at a time; unset: one per CPU of the machine or cluster."""


PRESETS = files("pipeline") / "presets"
"""Of runs."""


def load(model: type[Model], config_file: str | None, overrides: Iterable[str], folder: Traversable = PRESETS) -> Model:
    """Build `model` from a TOML file or preset name and from `key.path=value` overrides, the latter winning.

    Presets are the TOML files of `folder`. A file's `base = "PRESET"` names one whose settings it changes.
    Raises `UsageError` with one line per mistake, each beginning with the key's path.
    """
    values = _read(config_file, folder) if config_file else {}
    for override in overrides:
        _override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        where = f" in {config_file}" if config_file else ""
        lines = [_line(model, problem) for problem in error.errors()]
        raise UsageError("\n".join([f"wrong configuration{where}:", *lines])) from None


def presets(folder: Traversable = PRESETS) -> list[str]:
    """List the names of the presets in a folder."""
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir())


def _read(config_file: str, folder: Traversable) -> dict[str, Any]:
    there = presets(folder)
    source = folder / f"{config_file}.toml" if config_file in there else Path(config_file)
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{config_file}: no such file, nor one of the presets {', '.join(there)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{config_file}: cannot read it ({error}).") from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, brackets a thousand deep
        raise UsageError(f"{config_file}: not valid TOML: {error}.") from error
    base = values.pop("base", None)
    if base is None:
        return values
    if base not in there or base == config_file:
        raise UsageError(f"{config_file}: base = {base!r} is none of the presets {', '.join(there)}.")
    return _over(_read(base, folder), values)


def _over(below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Put values over those of a base, section by section."""
    both = [name for name in below.keys() & values.keys() if isinstance(values[name], dict)]
    sections = {name: {**below[name], **values[name]} for name in both}
    return {**below, **values, **sections}


def _override(values: dict[str, Any], override: str) -> None:
    path, mark, text = override.partition("=")
    keys = path.strip().split(".")
    if not mark or not all(keys):
        raise UsageError(f"--set {override}: write it as section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # an unquoted string
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {override}: {key} is a value, not a section.")
    values[keys[-1]] = value


def _line(model: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"  {path}: unknown key{_suggestion(model, problem['loc'])}"
    return f"  {path}: {problem['msg']}, got {problem['input']!r}" if path else f"  {problem['msg']}"


def _suggestion(model: type[BaseModel], location: tuple[Any, ...]) -> str:
    import difflib

    known: Any = model
    for part in location[:-1]:
        known = known.model_fields[part].annotation
    close = difflib.get_close_matches(str(location[-1]), list(known.model_fields), 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known.model_fields)}"


def as_toml(config: BaseModel) -> str:
    """Render a configuration as TOML with each field's help above it; unset fields are commented out."""
    lines: list[str] = []
    for name, section in config:
        lines += [f"# {(section.__doc__ or '').splitlines()[0]}", f"[{name}]"]
        for key, value in section:
            help_text = type(section).model_fields[key].description or ""
            lines += [f"# {line.strip()}" for line in help_text.splitlines()]
            lines += [f"# {key} = (unset)" if value is None else f"{key} = {_toml_value(value)}", ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    import json

    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(value)
