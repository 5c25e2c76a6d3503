"""Writes files.md, what each file is for: the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "files.md"
FOLDERS = ("pipeline", "stages", "annotation_ui", "benchmark", "model")


def page() -> str:
    """Return the page, Markdown."""
    head = "# What each file is for\n\nIts first sentence; written by docs/files.py, kept true by a test.\n"
    return head + "".join(f"\n## {folder}/\n\n" + "".join(_rows(ROOT / folder)) for folder in FOLDERS)


def _rows(folder: Path) -> Iterator[str]:
    yield "| file | what |\n|---|---|\n"
    for path in sorted(folder.rglob("*.py")):
        yield f"| `{path.relative_to(folder)}` | {role(path)} |\n"


def role(path: Path) -> str:
    """Return the first sentence of a file's docstring, on one line, fit for a table."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    found = re.match(r".*?\.(?=\s|$)", text)
    return (found[0] if found else text).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
