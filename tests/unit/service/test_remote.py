"""The client asks what the API's document has, reads what it tells, and makes nothing twice where answers are lost."""

from __future__ import annotations

import argparse
import inspect
import io
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from pipeline.cli import remote
from pipeline.cli.main import main
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.remote.client import Client
from pipeline.remote.login import Login, keep, login_of, token_by_password
from pipeline.remote.transport import Away, Problem
from tests.unit.service import remote_documents

ROOT = Path(__file__).parents[3]
DOCUMENT = json.loads((ROOT / "pipeline/service/http/openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
UPLOAD = re.compile(r"bytes \d+-\d+/\d+")


def test_what_the_client_reads_has_the_types_of_the_document() -> None:
    """mypy holds the client to these types, so that it reads no field that is not told."""
    text = remote_documents.text(DOCUMENT)
    assert remote_documents.FILE.read_text() == text, "write it anew: python -m tests.unit.service.test_openapi"


# ---- each request is in the document


class Recorded:
    """Stands for a session: judges each request by the document, and answers what the document says."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, str]] = set()
        self.missing: set[str] = set()
        self.auth: Any = None

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None: ...

    def request(self, method: str, url: str, **given: Any) -> requests.Response:
        parts = urlsplit(url)
        path, route = route_of(method, parts.path)
        self.asked.add((method, path))
        known = {one["name"] for one in route.get("parameters", ())}
        query = set(parse_qs(parts.query, strict_parsing=True)) if parts.query else set()
        headers = {name for name in given.get("headers") or {} if name not in ("Content-Type", "Sec-Fetch-Site")}
        assert query | headers <= known, f"{method} {path} takes {known}"
        fits(route, given)
        code = next(code for code in route["responses"] if code.startswith("2"))
        answer = requests.Response()
        answer.status_code = int(code)
        if path in self.missing:
            answer.status_code = 404
        answer.headers["ETag"] = '"1"'
        content = route["responses"][code].get("content", {})
        if set(content) == {"application/json"}:
            answer._content = json.dumps(example(content["application/json"]["schema"])).encode()
        elif "text/event-stream" in content:
            answer.raw = io.BytesIO(b'id: 1.0\nevent: end\ndata: {"state": "succeeded"}\n\n')
        else:
            answer.raw = io.BytesIO(b"bytes")
        return answer


def route_of(method: str, path: str) -> tuple[str, dict[str, Any]]:
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in methods:
            return template, methods[method.lower()]
    raise AssertionError(f"the document has no {method} {path}")


def fits(route: dict[str, Any], given: dict[str, Any]) -> None:
    """The body has the fields that the document wants, and no other; the types are those of JSON."""
    taken = route.get("requestBody", {}).get("content", {})
    if given.get("json") is None:
        kind = "multipart/form-data" if given.get("files") else "application/octet-stream" if given.get("data") else ""
        assert not kind or kind in taken
        return
    schema = taken["application/json"]["schema"]
    options = [resolved(one) for one in schema.get("anyOf", [schema])]
    body = given["json"]
    fitting = [one for one in options if set(one.get("required", ())) <= set(body) <= set(one["properties"])]
    assert fitting, f"{body} is none of {options}"
    for name, value in body.items():
        types = {resolved(one).get("type") for one in of(fitting[0]["properties"][name])}
        assert TYPES[type(value)] in types, f"{name}: {value!r} is not {types}"


TYPES: dict[type, str] = {str: "string", int: "integer", dict: "object", list: "array", bool: "boolean"}


def of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example(schema: dict[str, Any]) -> Any:
    """A value that fits; null where it may be, so that pages end."""
    schema = resolved(schema)
    if any(one.get("type") == "null" for one in schema.get("anyOf", ())):
        return None
    if "enum" in schema:
        return "succeeded" if "succeeded" in schema["enum"] else schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: example(one) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema["items"])] if "items" in schema else []
    return {"string": "text", "integer": 1, "number": 1.0, "boolean": True}.get(kind or "")


Calls = dict[str, Callable[[Client, Path], object]]
JOB, FILE = "tj_1", "df_1"
CALLS: Calls = {
    "me": lambda it, at: it.me(),
    "announce": lambda it, at: it.announce("name", 5),
    "push": lambda it, at: it.push(at),
    "push_url": lambda it, at: it.push_url("https://shop.invalid/a.zip"),
    "datafile": lambda it, at: it.datafile(FILE),
    "datafiles": lambda it, at: list(it.datafiles()),
    "make_dataset": lambda it, at: it.make_dataset("name", FILE, {"train": 80, "test": 20}, seed=1, by="content"),
    "dataset": lambda it, at: it.dataset("ds_1"),
    "datasets": lambda it, at: list(it.datasets()),
    "imported": lambda it, at: it.imported("ds_1"),
    "make_solver": lambda it, at: it.make_solver("name", "text", "text", "ds_1"),
    "train": lambda it, at: it.train("name", "so_1", {"train": FILE}, seed=1, threads=1, priority=1, max_seconds=60),
    "resume": lambda it, at: it.resume(JOB, iteration=10, max_iter=40, name="more", threads=1),
    "clone": lambda it, at: it.clone(JOB, seed=2, inputs={"train": FILE}, solver_id="so_1"),
    "job": lambda it, at: it.job(JOB),
    "jobs": lambda it, at: list(it.jobs("running")),
    "events": lambda it, at: list(it.events(JOB, "3.4")),
    "ended": lambda it, at: it.ended(JOB),
    "cancel": lambda it, at: it.cancel(JOB),
    "log": lambda it, at: it.log(JOB, 100),
    "snapshots": lambda it, at: it.snapshots(JOB),
    "download": lambda it, at: it.download(JOB, 10, "net.caffemodel", at.with_name("net.caffemodel")),
    "models": lambda it, at: list(it.models()),
    "model_named": lambda it, at: it.model_named("text"),
    "make_model": lambda it, at: it.make_model("name"),
    "add_version": lambda it, at: it.add_version("mo_1", JOB, 10, "a note"),
    "versions": lambda it, at: list(it.versions("mo_1")),
    "put_alias": lambda it, at: it.put_alias("mo_1", "best", 1),
    "promote": lambda it, at: it.promote("demo", "mo_1", version=1, backfill=True, why="it is better"),
    "promotion": lambda it, at: it.promotion("pr_1"),
    "promoted": lambda it, at: it.promoted("pr_1"),
    "make_classifier": lambda it, at: it.make_classifier("name", training_job_id=JOB, iteration=10, labels=["a"]),
    "classify": lambda it, at: list(it.classify("cl_1", [at])),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_each_request_is_one_of_the_document(call: str, tmp_path: Path) -> None:
    client, recorded = Client("http://127.0.0.1:1", "hathi_x"), Recorded()
    client._transport._session = recorded  # type: ignore[assignment]
    (tmp_path / "file").write_bytes(b"hello")
    CALLS[call](client, tmp_path / "file")
    assert recorded.asked


def test_each_call_of_the_client_stands_in_the_table() -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public == set(CALLS)


def test_the_requests_of_a_login_are_those_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded()
    monkeypatch.setattr(requests, "Session", lambda: recorded)
    assert token_by_password("http://127.0.0.1:1", ("ann", "secret"), "red") == "text"
    assert recorded.asked == {("POST", "/v1/session"), ("POST", "/v1/tokens"), ("DELETE", "/v1/session")}


VERBS = {
    "login": ["http://127.0.0.1:1"], "me": [], "push": ["FILE"], "dataset": ["name", FILE, "--split", "80/20"],
    "datasets": [], "train": ["FILE", "FILE", "--data", "ds_1", "--seed", "3"], "resume": [JOB, "--max-iter", "40"],
    "clone": [JOB, "--seed", "2"], "jobs": ["--state", "running"], "watch": [JOB], "cancel": [JOB], "log": [JOB],
    "fetch": [JOB, "--out", "FOLDER"], "models": [], "version": ["text", JOB, "--alias", "best"],
    "alias": ["text", "best", "1"], "promote": ["text", "demo", "--alias", "best", "--backfill"],
    "classifier": ["name", "--model", "text", "--alias", "best"], "classify": ["cl_1", "FILE"], "logout": [],
}  # fmt: skip
"""Each verb of the command line, in an order that a person takes."""


def test_each_verb_asks_what_the_document_has_and_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Recorded()
    monkeypatch.setattr(requests, "Session", lambda: recorded)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("HATHI_REMOTE_URL", "HATHI_REMOTE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("hathi_x\n"))
    (tmp_path / "file").write_text("t")  # as long as the document's answer says
    where = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path / "fetched")}
    for verb, words in VERBS.items():
        recorded.asked = set()
        assert main(["remote", verb, *(where.get(word, word) for word in words), "--json"]) == 0, verb
        lines = capsys.readouterr().out.splitlines()
        assert lines, verb
        assert all(isinstance(json.loads(line), dict) for line in lines), verb
        assert recorded.asked or verb == "logout", verb


def test_each_verb_of_the_command_line_stands_in_the_table() -> None:
    parser = argparse.ArgumentParser()
    remote.add_arguments(parser)
    (actions,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    assert set(actions.choices) == set(VERBS)


# ---- what a connection does


Answer = tuple[int, dict[str, str], bytes]


class Host:
    """A server that answers as it is told, one answer after the other; None: it hangs up without one."""

    def __init__(self, answers: list[Answer | None]) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        host, left = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                host.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                said = left.pop(0)
                self.close_connection = True
                if said is None:
                    return
                code, headers, body = said
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def begin(*answers: Answer | None) -> Host:
        made.append(Host(list(answers)))
        return made[-1]

    yield begin
    for one in made:
        one.close()


class Watch:
    """A clock that a sleep puts forward."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()
        self.clock = Clock(lambda: self.now, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def said(code: int, body: object, **headers: str) -> Answer:
    return code, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


AWAY = said(503, {"title": "The service cannot answer now", "detail": "busy"}, Retry_After="7")
MADE = said(201, {"id": "tj_1"})


def test_a_lost_answer_and_a_busy_service_are_asked_again_with_the_same_key(host: Callable[..., Host]) -> None:
    watch, told = Watch(), list[str]()
    there = host(None, AWAY, MADE)
    client = Client(there.url, "hathi_x", clock=watch.clock, waiting=told.append)
    assert client.train("name", "so_1")["id"] == "tj_1"
    keys = [headers["idempotency-key"] for _, _, headers in there.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert watch.slept == [0.25, 7.0]
    assert len(told) == 1, "said once"


def test_patience_ends_and_what_may_not_be_sent_twice_is_not(host: Callable[..., Host]) -> None:
    watch = Watch()
    there = host(*[AWAY] * 20)
    with pytest.raises(Away, match="busy"):
        Client(there.url, "hathi_x", clock=watch.clock, patience=30).me()
    assert sum(watch.slept) <= 30
    assert len(there.seen) == 5
    once = host(None, MADE)
    with pytest.raises(Away):
        Client(once.url, "hathi_x", clock=watch.clock).push_url("https://shop.invalid/a.zip")
    assert len(once.seen) == 1


def test_a_problem_is_an_error_with_its_fields_its_limit_and_its_hint(host: Callable[..., Host]) -> None:
    body = {"title": "t", "detail": "d", "hint": "h", "errors": [{"pointer": "#/name", "detail": "too long"}]}
    limit = {"title": "t", "detail": "d", "limit": "queued", "used": 3, "allowed": 3, "retry_after": 60}
    there = host(said(422, body), said(429, limit), (500, {}, b"<html>a proxy's own page</html>"))
    client = Client(there.url, "hathi_x")
    found = []
    for _ in range(3):
        with pytest.raises(Problem) as error:
            client.me()
        found.append((error.value.status, error.value.message, error.value.detail, error.value.hint))
    assert found[0] == (422, "d", "#/name: too long", "h")
    assert found[1] == (429, "d", "limit queued: 3 of 3 are used", "try again in 60 s")
    assert found[2][:2] == (500, "the service answered 500 Internal Server Error")


def test_a_token_goes_to_no_other_host_and_no_netrc_replaces_it(
    host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    other = host()
    there = host((302, {"Location": f"{other.url}/v1/me"}, b""))
    with pytest.raises(Problem, match="sends requests elsewhere"):
        Client(there.url, "hathi_x").me()
    assert there.seen[0][2]["authorization"] == "Bearer hathi_x"
    assert other.seen == []


def test_events_go_on_behind_the_last_one_that_came_whole(host: Callable[..., Host]) -> None:
    first = (
        b'retry: 2000\n\nid: 1.1\nevent: metrics\ndata: {"rows": []}\n\n: still here\n\nid: 1.2\nevent: job\ndata: {"a"'
    )
    second = b'id: 1.2\nevent: job\ndata: {"a": 1}\n\nid: 1.3\nevent: end\ndata: {}\n\n'
    cut = {"Content-Length": "9999", "Content-Type": "text/event-stream"}
    there = host((200, cut, first), None, (200, {}, second))
    found = list(Client(there.url, "hathi_x", clock=Watch().clock).events("tj_1"))
    assert [(one.id, one.kind) for one in found] == [("1.1", "metrics"), ("1.2", "job"), ("1.3", "end")]
    assert [headers.get("last-event-id") for _, _, headers in there.seen] == [None, "1.1", "1.1"]


def test_a_file_that_becomes_shorter_while_it_is_sent_is_told(host: Callable[..., Host], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    announced = {"id": "df_1", "name": "file", "size": 100_000, "received": 0, "complete": False, "created_at": 1.0}
    there = host(said(201, announced), None)

    def shorten(at: int) -> None:
        path.write_bytes(b"x")

    with pytest.raises(ConfigError, match="became shorter"):
        Client(there.url, "hathi_x").push(path, moved=shorten)


def test_a_token_is_kept_where_nobody_else_reads_it_and_stands_in_no_text(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    place = tmp_path / "hathi/remote.json"
    keep(Login("https://hathi.example", "hathi_secret"), place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert login_of(environ).token == "hathi_secret"
    assert "secret" not in repr(login_of(environ))
    assert login_of({**environ, "HATHI_REMOTE_TOKEN": "hathi_other"}).token == "hathi_other"
    for wrong in ("", "[]", '{"url": "ftp://x", "token": "t"}', '{"url": 1}'):
        place.write_text(wrong)
        with pytest.raises(ConfigError):
            login_of(environ)


@pytest.mark.parametrize("url", ["", "hathi.example", "ftp://x", "https://", "https://u:p@hathi.example"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Client(url, "hathi_x")
