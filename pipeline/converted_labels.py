"""Labels as WOW-Seg's converter writes them: its model is trained and scored with these (wowseg_facts.md A.4)."""

from __future__ import annotations


def converted(name: str) -> str:
    """Return a category's name as the converter writes it; may be empty.

    Each `(` to the next `)` goes, with one `_` directly before it; `_` and `-` become spaces; `a:b` becomes `a: b`.
    """
    while (start := name.find("(")) >= 0 and (end := name.find(")", start)) >= 0:
        start -= name[:start].endswith("_")
        name = name[:start] + name[end + 1 :]
    parts = name.replace("_", " ").replace("-", " ").split(":")
    return " ".join(": ".join(map(str.strip, parts)).split())
