"""Configuration mistakes come as one line each, with the key's path, before anything runs."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import config
from pipeline.cli_options import load_config
from pipeline.errors import UsageError


def load(*overrides: str, text: str = "", path: Path | None = None) -> Any:
    if path is not None:
        path.write_text(text)
    return load_config(str(path) if path else None, list(overrides))


def mistakes(*overrides: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load(*overrides)
    return str(caught.value).splitlines()[1:]


def test_a_file_sets_and_an_override_wins(tmp_path: Path) -> None:
    text = "[manifest]\nmin_pixels = 5\nseed = 9\n[cluster]\nworkers = 2\n"
    loaded = load("manifest.seed=4", text=text, path=tmp_path / "c.toml")
    assert (loaded.manifest.min_pixels, loaded.manifest.seed, loaded.cluster.workers) == (5, 4, 2)


@pytest.mark.parametrize("value", ["a b/c.tar", '["a b/c.tar"]'])
def test_strings_and_lists_in_overrides(value: str) -> None:
    if value.startswith("["):
        assert load(f"manifest.shards={value}").manifest.shards == ["a b/c.tar"]
    else:
        assert load(f"cluster.address={value}").cluster.address == "a b/c.tar"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("manifest.min_ratio=0.1", r"manifest\.min_ratio: unknown key; did you mean min_area_ratio\?"),
        ("manifold.seed=1", r"manifold: unknown key; did you mean manifest\?"),
        ("cluster.zzz=1", r"cluster\.zzz: unknown key; known are address, workers"),
        ("manifest.min_pixels=many", r"manifest\.min_pixels: Input should be a valid integer, got 'many'"),
        ("manifest.min_pixels=1.5", r"manifest\.min_pixels: .*, got 1\.5"),
        ("manifest.min_area_ratio=2", r"manifest\.min_area_ratio: Input should be less than 1, got 2"),
        ("manifest.images=none", r"manifest\.images.*"),
        ("manifest=3", r"manifest: .*"),
    ],
)
def test_each_mistake_names_its_key(override: str, line: str) -> None:
    assert any(re.fullmatch(f"  {line}", found) for found in mistakes(override)), mistakes(override)


def test_all_mistakes_at_once() -> None:
    assert len(mistakes("manifest.min_pixels=-1", "manifest.nothing=1", "cluster.workers=0")) == 3


def test_an_impossible_combination() -> None:
    (line,) = mistakes("manifest.min_pixels=1000", "manifest.max_pixels=100")
    assert "no mask could pass" in line
    assert line.startswith("  manifest")


@pytest.mark.parametrize("override", ["manifest.seed", "=3", "manifest.=3", ".seed=3", "manifest.seed.x=3"])
def test_malformed_overrides(override: str) -> None:
    with pytest.raises(UsageError):
        load("manifest.seed=1", override)


@pytest.mark.parametrize("text", ["[manifest", "\x00", "seed = " + "9" * 5000, "seed = " + "[" * 10_000])
def test_files_that_are_no_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not valid TOML"):
        load(text=text, path=tmp_path / "c.toml")


def test_a_value_in_place_of_a_section_of_the_base(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="manifest: "):
        load(text='base = "rr7k"\nmanifest = 3', path=tmp_path / "c.toml")


def test_a_file_that_is_not_there_names_the_presets() -> None:
    with pytest.raises(UsageError, match="presets cluster, laptop"):
        load_config("nowhere.toml", [])


@pytest.mark.parametrize("name", config.presets())
def test_every_preset_loads(name: str) -> None:
    load_config(name, [])


def test_what_is_shown_can_be_loaded_and_explains_itself(tmp_path: Path) -> None:
    original = load("manifest.seed=4", 'manifest.shards=["a"]', "cluster.workers=3")
    shown = config.as_toml(original)
    assert load(text=shown, path=tmp_path / "c.toml").model_dump() == original.model_dump()
    assert "# Seed of the sample." in shown
    assert "# address = (unset)" in shown


def test_a_base_is_changed_section_by_section(tmp_path: Path) -> None:
    found = load(text='base = "cluster"\n[namer]\nbatch = 7\n[audit]\nsize = 9', path=tmp_path / "c.toml").model_dump()
    base = load_config("cluster", []).model_dump()
    assert (found["namer"]["batch"], found["audit"]["size"]) == (7, 9)
    found["namer"]["batch"], found["audit"]["size"] = base["namer"]["batch"], base["audit"]["size"]
    assert found == base


@pytest.mark.parametrize("base", ['"nowhere"', "3", '["cluster"]'])
def test_a_base_is_a_preset(tmp_path: Path, base: str) -> None:
    with pytest.raises(UsageError, match=r"base = .* is none of the presets cluster, laptop, rr7k"):
        load(text=f"base = {base}", path=tmp_path / "c.toml")
