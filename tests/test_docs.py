"""The pages say what is so: their links lead somewhere, their commands exist, the list of files is complete."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"`((?:rr7k|make) [^`]+)`")


def commands(text: str, program: str) -> Iterator[str]:
    """Yield the command lines of a page: those of code blocks, without their comments, and those within the text."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [re.split(r"\s+#", line)[0] for block in blocks for line in block.splitlines()]
    lines += COMMAND.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    yield from (
        line.removeprefix(".venv/bin/") for line in lines if line.removeprefix(".venv/bin/").startswith(program)
    )


def listed(program: str) -> list[Any]:
    found = {(page, line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"), program)}
    return [pytest.param(line, id=f"{page.stem}: {line}") for page, line in sorted(found)]


@pytest.mark.parametrize("line", listed("rr7k "))
def test_a_command_exists_and_has_these_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.replace("…", ""))[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", {}) or command.invoke_without_command or words in ([], ["--help"])
    known = {"--help"}.union(*(param.opts for param in command.params))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", listed("make "))
def test_a_target_exists(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(shlex.split(line)[1])}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["files", "costs"])
def test_generated_pages_are_as_now(name: str) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / f"{name}.py"))
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page == generator["page"](), f"run: .venv/bin/python docs/{name}.py"
