"""Requests to a service: with a token, once more where an answer was lost, and its problems as errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from pipeline.clock import Clock
from pipeline.errors import ConfigError, PermanentError, TemporaryError

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
PATIENCE_SECONDS = 60.0
"""How long a request is tried again while nobody answers it."""
_AWAY = (502, 503, 504)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Problem(PermanentError):
    """What the service answered in place of what was asked.  status: of HTTP."""

    def __init__(self, status: int, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail, hint)
        self.status = status


class Away(TemporaryError):
    """Nobody answered for as long as the client was patient."""


@dataclass(frozen=True)
class Asked:
    """A request.  body: of JSON, or bytes; reader: made anew for each try, in place of a body; files: of a form.

    again: it may be sent twice, since the second one changes nothing.
    """

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reader: Callable[[], Any] | None = None
    files: tuple[tuple[str, Any], ...] = ()
    again: bool = True
    stream: bool = False
    seconds: float = ANSWER_SECONDS


@dataclass(frozen=True)
class Event:
    """One of a stream.  id: where a reader goes on."""

    id: str
    kind: str
    data: dict[str, Any]


class _Bearer(requests.auth.AuthBase):
    """As `auth`, so that no entry of a ~/.netrc replaces it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Transport:
    """url: of the service, as `https://hathi.example`; waiting: told once when nobody answers, and tries go on."""

    def __init__(
        self, url: str, token: str, patience: float = PATIENCE_SECONDS, clock: Clock | None = None,
        waiting: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self.url = base_of(url)
        self.clock = clock or Clock()
        self.patience = patience
        self._waiting = waiting
        self._session = requests.Session()
        self._session.auth = _Bearer(token)

    def ask(self, asked: Asked) -> requests.Response:
        """A good answer.  Raises Problem for another one, Away where none came."""
        tries = self.tries()
        while True:
            try:
                answer = self._once(asked)
            except requests.exceptions.SSLError as error:
                raise ConfigError(f"{self.url} is not who it says", _words(error), "ask its operator") from error
            except requests.RequestException as error:
                away, wait = Away(f"{self.url} does not answer", _words(error), "is it running?"), 0.0
                away.__cause__ = error
            else:
                if answer.ok:
                    return answer
                problem = problem_of(answer)
                if answer.status_code not in _AWAY:
                    raise problem
                said = answer.headers.get("Retry-After", "")
                away, wait = Away(problem.message, problem.detail, problem.hint), float(said) if said.isdigit() else 0.0
            if not asked.again:
                raise away
            tries.wait(away, wait)

    def tries(self) -> Tries:
        """A count of tries that begins now."""
        return Tries(self.clock, self.patience, self._waiting)

    def _once(self, asked: Asked) -> requests.Response:
        given: dict[str, Any] = {"data": asked.reader()} if asked.reader is not None else {}
        if asked.files:
            given = {"files": asked.files}
        elif asked.body is not None:
            given = {"data": asked.body} if isinstance(asked.body, bytes) else {"json": asked.body}
        answer = self._session.request(
            asked.method, self.url + asked.path, headers=dict(asked.headers), stream=asked.stream,
            timeout=(CONNECT_SECONDS, asked.seconds), allow_redirects=False, **given,
        )  # fmt: skip
        if answer.is_redirect:  # a token is sent to the service that was named, and to no other
            where = answer.headers.get("Location", "")
            raise Problem(answer.status_code, f"{self.url} sends requests elsewhere", where, "log in to that address")
        return answer

    def events(self, path: str, last: str = "") -> Iterator[Event]:
        """A stream of events to its end; it is opened again where it broke, from the last event that came.

        Raises Problem, Away.
        """
        tries = self.tries()
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            answer = self.ask(Asked("GET", path, headers=headers, stream=True))
            try:
                # Pieces of a length come when they are full, and chunks when they are sent.
                for event in _events_in(answer.iter_lines(512 if getattr(answer.raw, "chunked", False) else 1)):
                    last, tries = event.id, self.tries()
                    yield event
                    if event.kind in ("end", "gone"):
                        return
                away = Away(f"{self.url} ended the stream of events", path)
            except requests.RequestException as error:
                away = Away(f"the stream of events of {self.url} broke", _words(error))
            finally:
                answer.close()
            tries.wait(away, 0.0)


class Tries:
    """How often something was tried in vain, and for how long it may be tried yet."""

    def __init__(self, clock: Clock, patience: float, waiting: Callable[[str], None]) -> None:
        self._clock, self._waiting = clock, waiting
        self._ends = clock.monotonic() + patience
        self._pause = _FIRST_PAUSE
        self._said = False

    def wait(self, error: Away, least: float) -> None:
        """Until the next try.  least: seconds that the service asked for.  Raises the error where patience ends."""
        pause = max(self._pause, least)
        if self._clock.monotonic() + pause > self._ends:
            raise error
        if not self._said:
            self._said = True
            self._waiting(f"{error.message}; it is tried again")
        self._clock.sleep(pause)
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)


def base_of(url: str) -> str:
    """What stands before each path.  Raises ConfigError."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ConfigError("that is not the address of a service", url, "give one such as https://hathi.example")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def problem_of(answer: requests.Response) -> Problem:
    """What an answer says that is none of the good ones; also one of a proxy, which knows no problems."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "title" not in body:
        return Problem(answer.status_code, f"the service answered {answer.status_code} {answer.reason}", answer.url)
    facts = [f"{one.get('pointer', '')}: {one.get('detail', '')}" for one in body.get("errors") or ()]
    if body.get("limit"):
        facts.append(f"limit {body['limit']}: {body.get('used')} of {body.get('allowed')} are used")
    hint = str(body.get("hint") or "")
    if body.get("retry_after"):
        hint = f"{hint}; try again in {body['retry_after']} s".removeprefix("; ")
    if answer.status_code == 401:
        hint = f"{hint}; hathi remote login URL".removeprefix("; ")
    return Problem(answer.status_code, str(body.get("detail") or body["title"]), "; ".join(facts), hint)


def _events_in(lines: Iterator[bytes]) -> Iterator[Event]:
    """Those of `text/event-stream`, each when its empty line has come: what broke off is none."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode()
        if text and not text.startswith(":"):
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not text and "data" in fields:
            yield Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def _words(error: Exception) -> str:
    """The innermost reason: those around it name objects."""
    while (inner := getattr(error, "reason", None) or (error.args[0] if error.args else None)) is not None:
        if not isinstance(inner, Exception):
            break
        error = inner
    return str(error).rpartition(">: ")[2] or type(error).__name__
