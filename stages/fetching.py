"""Downloading SA-1B's shards from the user's own link file.

The licence requires each user to obtain the links from the data set's page; the file it offers has a line
`file_name<TAB>cdn_link` per shard. The links are signed, so they are never printed.
"""

from __future__ import annotations

import csv
import hashlib
import random
import tarfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from pipeline.errors import UsageError

_MANIFEST = Path(__file__).parent.parent / "data_manifests" / "sa1b" / "shards.csv"
_PAUSE = 1.0  # seconds before the second try, doubled for each after it
_TRIES = 5  # in a row that bring nothing; each goes on where the last one ended


@dataclass(frozen=True)
class Link:
    """A shard to download."""

    name: str
    url: str
    sha256: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a link: `error` is empty when the shard is there, whole and verified."""

    name: str
    error: str = ""


def read_links(path: Path) -> list[Link]:
    """Read a link file; sizes and checksums come from `data_manifests/sa1b/shards.csv` where known.

    Raises `UsageError` with the line number for a line that is no link or a name that is not plain.
    """
    known = _known_shards()
    links: dict[str, Link] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read it ({error}).") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.split() == ["file_name", "cdn_link"]:
            continue
        link = _link(path, number, line.split(), known)
        if links.setdefault(link.name, link) is not link:
            raise UsageError(f"{path}:{number}: {link.name} is listed twice.")
    if not links:
        raise UsageError(f"{path}: no links in it; expected lines of `file_name<TAB>cdn_link`.")
    return list(links.values())


def _link(path: Path, number: int, parts: list[str], known: dict[str, Link]) -> Link:
    if len(parts) != 2 or not parts[1].startswith(("https://", "http://")):
        raise UsageError(f"{path}:{number}: expected `file_name<TAB>cdn_link`.")
    name, url = parts
    if PurePosixPath(name).name != name or name.startswith(".") or not name.endswith(".tar"):
        raise UsageError(f"{path}:{number}: {name!r} is not a plain name of a tar.")
    fact = known.get(name)
    return Link(name, url, fact.sha256 if fact else "", fact.bytes if fact else None)


def _known_shards() -> dict[str, Link]:
    if not _MANIFEST.exists():
        return {}
    with _MANIFEST.open(encoding="utf-8", newline="") as file:
        return {
            row["name"]: Link(row["name"], "", row["sha256"], int(row["bytes"]) if row["bytes"] else None)
            for row in csv.DictReader(file)
        }


def fetch_all(
    links: Iterable[Link], folder: Path, at_once: int, report: Callable[[str, int, int], None]
) -> list[Outcome]:
    """Download what is missing, `at_once` at a time; `report(name, bytes, of)` as it goes.

    A shard appears under its name only when it is whole and verified; until then it is NAME.part, from which
    a later call goes on. Beside it lies NAME.sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda link: _fetch(link, folder, report), links))


def _fetch(link: Link, folder: Path, report: Callable[[str, int, int], None]) -> Outcome:
    target, part = folder / link.name, folder / f"{link.name}.part"
    if target.exists():
        return Outcome(link.name)
    tries = 0
    while True:
        before = _size(part)
        try:
            total = _download(link, part, report)
        except (httpx.HTTPError, OSError) as problem:
            tries = 1 if _size(part) > before else tries + 1
            error, final = _failure(problem)
            if final:
                return Outcome(link.name, error)
            if tries == _TRIES:
                return Outcome(
                    link.name, f"{error}, after {_TRIES} tries without progress; run the same command to go on"
                )
            time.sleep(_PAUSE * 2**tries * random.uniform(0.5, 1))  # noqa: S311 (not for secrets)
            continue
        return _verify(link, part, target, total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failure(problem: Exception) -> tuple[str, bool]:
    """Describe a failure without httpx's own message, which can hold the signed link; and say whether it is final."""
    status = problem.response.status_code if isinstance(problem, httpx.HTTPStatusError) else 0
    if not status:
        return (f"{problem.strerror or problem}" if isinstance(problem, OSError) else type(problem).__name__), False
    hint = "; the links expire: get a new link file" if status in (401, 403, 410) else ""
    return f"HTTP {status}{hint}", 400 <= status < 500 and status not in (408, 429)


def _download(link: Link, part: Path, report: Callable[[str, int, int], None]) -> int:
    """Go on with the download where `part` ends; return the full size the server states, or 0."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", link.url, headers=headers, follow_redirects=True, timeout=60) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return have  # nothing is left to send
        response.raise_for_status()
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if resumed else 0
        total = have + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                report(link.name, have, total)
    return total


def _verify(link: Link, part: Path, target: Path, stated: int) -> Outcome:
    size = _size(part)
    expected = link.bytes or stated
    if expected and size != expected:
        return Outcome(link.name, f"{size} bytes received, {expected} expected; run the same command to go on")
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if link.sha256 and digest != link.sha256:
        part.unlink()
        return Outcome(
            link.name, f"SHA-256 is {digest}, expected {link.sha256}; deleted, run the same command to fetch it anew"
        )
    if not tarfile.is_tarfile(part):
        part.unlink()
        return Outcome(link.name, "what was sent is not a tar archive (an error page, an expired link?); deleted")
    (target.parent / f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="utf-8")
    part.replace(target)
    return Outcome(link.name)
