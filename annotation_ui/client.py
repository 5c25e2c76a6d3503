"""Label Studio's REST interface, as far as screening needs it: projects, pages sent once, verdicts read back.

Nothing is ever deleted. No message holds a token, a header or a cookie (label_studio.md §5: the server's own client
prints session cookies). Tried on version 1.23.2.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Annotated, Any, NamedTuple, NotRequired, Self, TypedDict

import httpx
import msgspec

from pipeline.decoding import UNDECODABLE
from pipeline.errors import UsageError, UserError
from pipeline.files import sha256

PAGES_PER_REQUEST = 500
"""A request is stored whole or not at all; 500 pages of 24 tiles took 0.7 s (label_studio.md §2, Import)."""

_LISTED = 5000  # ids per request (label_studio.md §2, Duplicates)
_READ = 500  # whole tasks per request: 5 MB
_ANSWERED = "id,data,meta,annotations,completed_by,result,was_cancelled,updated_at,lead_time"
"""Fields of a task, and, as the server takes them for the same, of its annotations."""
_TIMEOUT = httpx.Timeout(300, connect=10)
"""Seconds without a byte: a request waited 47 s behind three annotators on SQLite (label_studio.md §2)."""
_SETTLE = (2.0, 60)  # seconds between looks for pages that a request without an answer may have stored, and looks
_TOLD = 1000  # characters of the server's own words in a message
_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Above = tuple[str, str, Any]
"""A field of a task, its kind, and what it has to be greater than."""


class ProjectSettings(NamedTuple):
    """A project as it should be; `title`, 3 to 50 characters, is what it is found by."""

    title: str
    label_config: str
    expert_instruction: str = ""
    maximum_annotations: int = 1
    """Annotators per page."""


class Annotation(TypedDict):
    """An answer as the server gives it: what its annotator can set is Any."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    completed_by: int | None
    """None once the account is deleted."""
    was_cancelled: Any
    result: Any
    updated_at: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")]
    lead_time: NotRequired[Any]


class Task(TypedDict):
    """A page as the server gives it, with the fields that were asked for."""

    id: int
    data: NotRequired[dict[str, Any]]
    meta: NotRequired[Any]
    annotations: NotRequired[list[Annotation]]


class _Tasks(msgspec.Struct):
    tasks: list[Task]


class _Project(msgspec.Struct):
    id: int
    title: str


class _User(msgspec.Struct):
    id: int
    email: str


class _Projects(msgspec.Struct):
    results: list[_Project]


class _Column(msgspec.Struct):
    id: str
    parent: str | None = None


class _Columns(msgspec.Struct):
    columns: list[_Column]


class _NoAnswerError(UserError):
    """The server took a request and told nothing: what was asked may be done, or be under way still."""


class Client:
    """A connection; closed at the end of its `with` block.

    `url` is the server's address, `token` a legacy token or a personal access token. Raises `UsageError` when one of
    them cannot be that.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token.strip()
        address = _address(self._url)
        if not _TOKEN.fullmatch(self._token):
            raise UsageError("the token of Label Studio is none. Copy it from Account & Settings there.")
        self._http = httpx.Client(
            base_url=address,
            auth=_PersonalToken(self._token) if "." in self._token else _LegacyToken(self._token),
            timeout=_TIMEOUT,
            trust_env=address.host not in _LOOPBACK,  # no proxy finds a server of this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def project(self, wanted: ProjectSettings) -> int:
        """Find the project of that title, or make it, bring its settings up to date, and return its id.

        Raises `UserError` when the server refuses the label configuration, in its words, or several have the title, or
        somebody changed its lists there, and people answered with them.
        """
        settings = wanted._asdict() | {
            "enable_empty_annotation": True,  # a page with nothing wrong has an empty result (label_studio.md §3)
            "show_skip_button": False,  # a skipped page is no verdict (§4)
            "sampling": "Sequential sampling",
        }
        what, found = f"project {wanted.title!r}", self._titled(wanted.title)
        if not found:
            made: _Project = self._ask("POST", "/api/projects/", what, _Project, json=settings)
            return made.id
        have: dict[str, Any] = self._ask("GET", f"/api/projects/{found[0]}/", what, dict[str, Any])
        changed = {name: value for name, value in settings.items() if have.get(name) != value}
        try:
            if changed:
                self._ask("PATCH", f"/api/projects/{found[0]}/", what, Any, json=changed)
        except UserError as error:
            if "Created annotations are incompatible" not in str(error):
                raise
            raise UserError(
                f"{error}. Its labels were changed by hand, and people answered with them. Such answers "
                "count for nothing: delete them there (Data Manager, Actions, Delete Annotations), then run this again."
            ) from None
        return found[0]

    def find(self, title: str) -> int:
        """Return the id of the project of that title. Raises `UserError` when there is none, or several."""
        found = self._titled(title)
        if not found:
            raise UserError(
                f"{self._url}: no project {title!r}. Was it deleted? Restore a backup of the server, "
                "or send the pages again; verdicts fetched before are kept."
            )
        return found[0]

    def titles(self, part: str) -> list[tuple[str, int]]:
        """Return title and id of the projects whose title holds `part`, sorted; of the first thousand."""
        query = {"title": part, "include": "id,title", "page_size": 1000}
        listed: _Projects = self._ask("GET", "/api/projects/", f"project {part!r}", _Projects, params=query)
        return sorted((project.title, project.id) for project in listed.results)

    def _titled(self, title: str) -> list[int]:
        found = [project for name, project in self.titles(title) if name == title]
        if len(found) > 1:
            raise UserError(f"{self._url}: projects {found} all have the title {title!r}. Rename all but one.")
        return found

    def serve(self, project: int, folder: str) -> None:
        """Have the pictures in `folder`, as the server names it, shown to the project's people (§2, Images).

        Raises `UserError` when it does not exist there, or is not below the server's document root.
        """
        path, what = "/api/storages/localfiles", f"project {project}"
        there: list[dict[str, Any]] = self._ask("GET", path, what, list[dict[str, Any]], params={"project": project})
        if all(storage.get("path") != folder for storage in there):
            never = "(?!)"  # the button for making tasks of the files makes none
            record = {"project": project, "path": folder, "title": "crops", "regex_filter": never}
            self._ask("POST", path, what, Any, json=record)

    def list_only(self, project: int, shown: Container[str]) -> None:
        """Have the list of a project's pages, which people see first, show these columns alone.

        Not once somebody has opened it: the server has stored a list then, with all columns, or one that people made.
        """
        what, of_project = f"the list of project {project}", {"project": project}
        if self._ask("GET", "/api/dm/views/", what, list[Any], params=of_project):
            return
        found: _Columns = self._ask("GET", "/api/dm/columns/", what, _Columns, params=of_project)
        columns = [one for one in found.columns if one.id not in shown]
        hidden = [f"tasks:data.{one.id}" if one.parent == "data" else f"tasks:{one.id}" for one in columns]
        view = {"title": "Pages", "type": "list", "hiddenColumns": {"explore": hidden, "labeling": hidden}}
        self._ask("POST", "/api/dm/views/", what, Any, json=of_project | {"data": view})

    def pages(self, project: int) -> dict[str, list[int]]:
        """Return the ids of the project's tasks by their page id; more than one where a page was stored twice."""
        tasks: dict[str, list[int]] = {}
        for task in self._tasks(project, _LISTED, "task_only", "id,meta"):
            meta = task.get("meta")
            page_id = meta.get("page_id") if isinstance(meta, dict) else None
            if isinstance(page_id, str):  # people can add tasks of their own
                tasks.setdefault(page_id, []).append(task["id"])
        return tasks

    def stored(self, project: int) -> Iterator[dict[str, Any]]:
        """Yield the data of the project's tasks, in the order in which they were stored."""
        for task in self._tasks(project, _READ, "task_only", "id,data"):
            yield task.get("data", {})

    def send(self, project: int, tasks: Iterable[Mapping[str, Any]]) -> int:
        """Store the tasks whose page is not there yet, `PAGES_PER_REQUEST` at a time, and return how many those were.

        Given again after any failure, it stores what is missing. Raises `UserError` when a request stays without an
        answer and its pages do not appear: it may be under way still, so it is not sent twice.
        """
        stored = self.pages(project)
        missing = (task for task in tasks if task["meta"]["page_id"] not in stored)
        sent = 0
        with ThreadPoolExecutor(1) as ahead:  # makes the next pages while the server stores these
            upcoming = ahead.submit(_encoded, missing)
            while (batch := upcoming.result()).page_ids:
                upcoming = ahead.submit(_encoded, missing)
                try:
                    self._ask("POST", f"/api/projects/{project}/import", f"project {project}", Any, **batch.body)
                except _NoAnswerError as error:
                    self._settle(project, batch.page_ids, error)
                sent += len(batch.page_ids)
        return sent

    def _settle(self, project: int, batch: set[str], error: _NoAnswerError) -> None:
        pause, looks = _SETTLE
        for _ in range(looks):
            if batch <= self.pages(project).keys():
                return
            time.sleep(pause)
        raise UserError(f"{error} {len(batch)} pages are not stored yet. Wait for the server, then run this again.")

    def annotated(self, project: int, since: datetime | None = None) -> Iterator[Task]:
        """Yield the tasks with at least one answer: `data`, `meta`, `annotations`, skipped ones included, drafts not.

        With `since`, in UTC, only those that changed after it: a task does when one of its annotations does. Listing is
        as fast as an export (2,000 pages: 4 s of the server's time), which leaves a copy on the server's disk.
        """
        wanted: list[Above] = [("total_annotations", "Number", 0)]
        if since is not None:
            wanted.append(("updated_at", "Datetime", since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")))
        return self._tasks(project, _READ, "all", _ANSWERED, *wanted)

    def name(self) -> str:
        """Return what the server is called in our tables: the same at another address, and after a restore."""
        there: list[dict[str, Any]] = self._ask("GET", "/api/organizations/", "organisations", list[dict[str, Any]])
        made = [str(one.get("created_at")) for one in there]
        return f"label-studio-{sha256(min(made, default='').encode())[:8]}"

    def people(self) -> dict[int, str]:
        """Return everybody who can log in: id, as in `completed_by`, to address."""
        users: list[_User] = self._ask("GET", "/api/users/", "users", list[_User])
        return {user.id: user.email for user in users}

    def _tasks(self, project: int, size: int, fields: str, include: str, *above: Above) -> Iterator[Task]:
        """Yield tasks in the order of their ids, `size` a request, each once, whatever people do meanwhile."""
        query = {"project": project, "page_size": size, "fields": fields, "include": include}
        last = 0
        while True:
            filters = [_filter("id", "Number", last), *(_filter(*field) for field in above)]
            wanted = {"filters": {"conjunction": "and", "items": filters}}
            asked = query | {"query": msgspec.json.encode(wanted).decode()}
            found: _Tasks = self._ask("GET", "/api/tasks/", f"project {project}", _Tasks, params=asked)
            yield from found.tasks
            if len(found.tasks) < size:
                return
            if found.tasks[-1]["id"] <= last:  # or this would go on for ever
                raise UserError(f"{self._url}: lists the same pages of project {project} again and again.")
            last = found.tasks[-1]["id"]

    def _ask(self, method: str, path: str, what: str, kind: Any, **content: Any) -> Any:
        """Return the server's answer as `kind`. Raises `UserError`."""
        try:
            answer = self._http.request(method, path, **content)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise UserError(f"{self._url}: cannot be reached. Is Label Studio running there?") from None
        except httpx.TimeoutException:
            raise _NoAnswerError(f"{self._url}: no answer about {what} for {_TIMEOUT.read:.0f} s.") from None
        except httpx.TransportError as error:
            raise UserError(f"{self._url}: broke off ({type(error).__name__}). Run this again to go on.") from None
        if not answer.is_success:
            raise self._failure(answer, what)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.ValidationError as error:
            raise UserError(f"{self._url}: the answer about {what} is not as Label Studio's: {error}") from None
        except UNDECODABLE:
            raise UserError(f"{self._url}: the answer about {what} is not JSON. Is this a Label Studio?") from None

    def _failure(self, answer: httpx.Response, what: str) -> UserError:
        status, told = answer.status_code, _told(answer).replace(self._token, "…")
        if status == httpx.codes.UNAUTHORIZED:
            return UsageError(f"{self._url}: does not take the token{told}. Copy it from Account & Settings there.")
        if status == httpx.codes.NOT_FOUND:
            return UserError(f"{self._url}: {what} is not there. Was it deleted? Restore a backup, or start a new one.")
        if status == httpx.codes.BAD_REQUEST:
            return UserError(f"{self._url}: refuses {what}{told}")
        return UserError(f"{self._url}: HTTP {status} about {what}{told}. Its log says more.")


def _filter(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{name}", "operator": "greater", "type": kind, "value": value}


class _Batch(NamedTuple):
    page_ids: set[str]
    body: dict[str, Any]
    """As httpx takes it; msgspec encodes it in a seventh of the time that httpx would take."""


def _encoded(tasks: Iterator[Mapping[str, Any]]) -> _Batch:
    """Take the tasks of one request, as many as there are."""
    batch = list(islice(tasks, PAGES_PER_REQUEST))
    body = {"content": msgspec.json.encode(batch), "headers": {"Content-Type": "application/json"}}
    return _Batch({task["meta"]["page_id"] for task in batch}, body)


def _address(url: str) -> httpx.URL:
    with suppress(httpx.InvalidURL):
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and address.host and not address.userinfo:
            return address
    raise UsageError("the address of Label Studio is none; write it as http://127.0.0.1:8080, without a password.")


def _told(answer: httpx.Response) -> str:
    """Return what the server's JSON says is wrong; its HTML pages say nothing and can be long."""
    with suppress(*UNDECODABLE):
        content = msgspec.json.decode(answer.content)
        if isinstance(content, dict):
            told = content.get("validation_errors") or content.get("detail") or content
            parts = [f"{name}: {what}" for name, what in told.items()] if isinstance(told, dict) else [told]
            return f": {'; '.join(map(str, parts))}"[:_TOLD]
    return ""


class _LegacyToken(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Token {self._token}"
        yield request


class _Renewed(msgspec.Struct):
    access: str


class _PersonalToken(httpx.Auth):
    """Changes a personal access token into one for 300 s whenever the last is not taken any more (§1, Tokens)."""

    requires_response_body = True

    def __init__(self, token: str) -> None:
        self._token, self._access = token, ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._access:
            request.headers["Authorization"] = f"Bearer {self._access}"
            answer = yield request
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                return
        renewed = yield httpx.Request("POST", request.url.join("/api/token/refresh"), json={"refresh": self._token})
        try:
            self._access = msgspec.json.decode(renewed.content, type=_Renewed).access
        except UNDECODABLE:
            return  # what was answered instead of an access token, most likely a 401, is the answer
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request
