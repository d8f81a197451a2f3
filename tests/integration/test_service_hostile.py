"""Named hostile specifications, URLs and bodies over REST: each a typed reason, in a child that stays small.

Hostile archives stand in tests/unit/service/hostile_archives.py.  `python -m tests.integration.test_service_hostile`
prints what each of these came to, with its seconds and its child's memory.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers.databases import sites
from tests.servers.service import NET, SOLVER, Person, standing

MEMORY = 256 * 2**20
"""Bytes that a child which reads what a stranger gave may hold."""
READERS = (b"pipeline.service.archive.child", b"pipeline.service.specification.child")


@dataclass(frozen=True)
class Case:
    """says: a part of the problem, or of the reason."""

    path: str
    body: bytes
    status: int
    says: str
    kind: str = "application/json"


def told(path: str, given: dict[str, Any], status: int, says: str) -> Case:
    return Case(path, json.dumps(given).encode(), status, says)


def texts(solver: str, net: str, says: str) -> Case:
    return told("/v1/solvers", {"name": "hostile", "solver": solver, "net": net}, 422, says)


def net(text: str, says: str) -> Case:
    return texts(SOLVER, text, says)


def solver(text: str, says: str) -> Case:
    return texts(text, NET, says)


def layer(text: str, says: str) -> Case:
    return net(NET + "layer { " + text + " }\n", says)


def url(given: str, says: str = "") -> Case:
    return told("/datafiles", {"url": given}, 422, says)


def raw(text: bytes, status: int = 400, says: str = "", path: str = "/v1/datafiles") -> Case:
    return Case(path, text, status, says)


def _parts(count: int) -> bytes:
    one = b'--x\r\nContent-Disposition: form-data; name="urls"\r\n\r\nhttp://a.invalid/\r\n'
    return one * count + b"--x--\r\n"


FORM = "multipart/form-data; boundary=x"
CLASSIFY = "/v1/classifiers/{}/classify"
SPECIFICATIONS = {
    "net: no prototxt": net("]]]]", "syntax error"),
    "net: a hundred thousand braces": net("layer {" * 100_000, "no field named"),
    "net: a hundred thousand braces of one field": net("layer { a { " * 50_000 + "} }" * 50_000, "no field named"),
    "net: a megabyte of one word": net("x" * (2**20 - 1), "no field named"),
    "net: ten thousand layers": net(
        'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }\n' * 10_000, "the net has 10,000 layers"
    ),
    "net: code in Python": layer(
        'name: "p" type: "Python" python_param { module: "os" layer: "system" }', "cannot be used here"
    ),
    "net: it writes a file": layer(
        'name: "o" type: "HDF5Output" hdf5_output_param { file_name: "/etc/cron.d/x" }', "cannot be used here"
    ),
    "net: it reads a list of files": layer(
        'name: "w" type: "WindowData" window_data_param { source: "/etc" }', "cannot be used here"
    ),
    "net: a layer that nobody knows": layer('name: "z" type: "Zap" bottom: "ip" top: "z"', "unknown layer type"),
    "net: four billion outputs": layer(
        'name: "big" type: "InnerProduct" bottom: "ip" top: "b" inner_product_param { num_output: 4294967295 }',
        "learns at least 4,294,967,295",
    ),
    "net: a kernel of a million": layer(
        'name: "c" type: "Convolution" bottom: "ip" top: "c" convolution_param { num_output: 2 kernel_size: 1000000 }',
        "learns at least 2,000,000,000,000",
    ),
    "net: a bottom that is not there": layer(
        'name: "i" type: "ReLU" bottom: "nowhere" top: "i"', "unknown bottom blob 'nowhere'"
    ),
    "net: learned values within": layer(
        'name: "k" type: "InnerProduct" bottom: "ip" top: "k" blobs { data: 1 } inner_product_param { num_output: 2 }',
        "holds learned values",
    ),
    "net: a batch of two billion": net(
        NET.replace("batch_size: 4", "batch_size: 2147483647"), "batches of 2,147,483,647 examples"
    ),
    "net: a batch below nothing": net(NET.replace("batch_size: 4", "batch_size: -4"), "syntax error"),
    "net: a name that turns text round": layer(
        'name: "\\342\\200\\256x" type: "Zap" bottom: "ip" top: "z"', "unknown layer type"
    ),
    "net: a name with an escape": layer('name: "\\033[2J" type: "Zap" bottom: "ip" top: "z"', "unknown layer type"),
    "net: bytes that are no text": layer('name: "\\377\\376" type: "Zap" bottom: "ip" top: "z"', "syntax error"),
    "solver: no prototxt": solver("{{{{", "syntax error"),
    "solver: a field that nobody knows": solver(SOLVER + " shell: 'rm'", "shell"),
    "solver: a rate that is no number": solver(SOLVER.replace("0.1", "nan"), "base_lr"),
    "solver: it never ends": solver(
        SOLVER.replace("max_iter: 20", "max_iter: 2147483647"), "max_iter is 2,147,483,647"
    ),
    "solver: iterations below nothing": solver(SOLVER.replace("max_iter: 20", "max_iter: -1"), "max_iter is -1"),
    "solver: a policy that nobody knows": solver(SOLVER.replace("fixed", "../../x"), "lr_policy"),
}
URLS = {
    "url: a file of the host": url("file:///etc/passwd", "scheme file"),
    "url: this host": url("http://127.0.0.1:22/x.tar", "port 22"),
    "url: this host as a number": url("http://2130706433/x.tar", "loopback"),
    "url: this host in octal": url("http://0177.0.0.1/x.tar", "loopback"),
    "url: this host by IPv6": url("http://[::ffff:127.0.0.1]/x.tar", "ipv4-mapped"),
    "url: the cloud's own address": url("http://169.254.169.254/latest/meta-data/", "link-local"),
    "url: an inner network": url("https://10.0.0.1/x.tar", "private"),
    "url: a bucket": url("s3://bucket/key", "scheme s3"),
    "url: gopher": url("gopher://127.0.0.1:6379/_FLUSHALL", "scheme gopher"),
    "url: data": url("data:application/x-tar;base64,AAAA", "scheme data"),
    "url: a line end": url("http://example.invalid/\r\nHost: inner", "cannot be fetched"),
    "url: no host": url("http:///x.tar", "cannot be fetched"),
    "url: a password": url("http://user:secret@127.0.0.1/x.tar", "redacted@"),
    "url: a port of 10^9": url("http://example.invalid:1000000000/x.tar", "malformed"),
    "url: nine thousand letters": url("http://example.invalid/" + "x" * 9_000),
}
BODIES = {
    "body: nothing": raw(b"", 422),
    "body: no JSON": raw(b"<xml/>"),
    "body: JSON that is cut off": raw(b'{"name": "a", "si'),
    "body: a hundred thousand brackets": raw(b"[" * 100_000),
    "body: a hundred thousand objects": raw(b'{"a":' * 100_000),
    "body: a number of a million digits": raw(b'{"name": "a", "size": ' + b"9" * 1_000_000 + b"}"),
    "body: not a number": raw(b'{"name": "a", "size": NaN}', 422),
    "body: infinite": raw(b'{"name": "a", "size": 1e999}', 422),
    "body: half a pair of UTF-16": raw(b'{"name": "\\ud800", "size": 1}', 422),
    "body: bytes that are no UTF-8": raw(b'{"name": "\xff\xfe", "size": 1}'),
    "body: UTF-16": raw('{"name": "a", "size": -1}'.encode("utf-16"), 422),
    "body: an end of text in a name": raw(b'{"name": "a\\u0000b", "size": 1}', 422),
    "body: a line end in a name": raw(b'{"name": "a\\r\\nSet-Cookie: x", "size": 1}', 422),
    "body: a name that turns text round": raw('{"name": "a\u202eb", "size": 1}'.encode(), 422),
    "body: a name of a megabyte": raw(b'{"name": "' + b"a" * 2**20 + b'", "size": 1}', 422),
    "body: five megabytes": raw(b" " * (5 * 2**20), 413),
    "body: a hundred thousand fields": raw(
        json.dumps({"name": "a", "size": 1, **{f"f{n}": n for n in range(100_000)}}).encode(), 422
    ),
    "body: fields of Python": raw(b'{"name": "a", "size": 1, "__class__": {"__init__": 1}}', 422),
    "body: packed, and says nothing of it": raw(gzip.compress(b'{"name": "a", "size": 1}')),
    "body: a form where JSON is asked for": Case("/v1/datafiles", b"name=a&size=1", 422, "", "text/plain"),
    "body: ten thousand parts": Case(CLASSIFY, _parts(10_000), 400, "", FORM),
    "body: a part without an end": Case(CLASSIFY, _parts(1)[:-8], 422, "brings no picture", FORM),
    "body: a form without a boundary": Case(CLASSIFY, _parts(1), 400, "", "multipart/form-data"),
    "body: a picture of a net that does not serve": Case(
        CLASSIFY, bytes(100), 409, "the net deploy.prototxt", "image/png"
    ),
}
CASES = {**SPECIFICATIONS, **URLS, **BODIES}


@dataclass
class Came:
    status: int
    text: str
    seconds: float
    memory: int


class Watch:
    """The most memory that a reading child below this process held, as it says itself, looked at while it runs."""

    def __init__(self) -> None:
        self.most = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.02):
            for one in Path("/proc").glob("[0-9]*"):
                try:
                    if not any(name in (one / "cmdline").read_bytes() for name in READERS):
                        continue
                    lines = (one / "status").read_text().splitlines()
                except OSError:
                    continue
                held = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
                self.most = max(self.most, *held) if held else self.most


def came_of(who: Person, case: Case, classifier: str) -> Came:
    headers = {"Authorization": f"Bearer {who.token}", "Content-Type": case.kind}
    with Watch() as watch:
        begin = time.monotonic()
        answer = requests.post(who.url + case.path.format(classifier), case.body, headers=headers, timeout=120)
        seconds = time.monotonic() - begin
    return Came(answer.status_code, answer.text, seconds, watch.most)


@dataclass
class Scene:
    """A tenant with a classifier, and what the server told its operator."""

    who: Person
    classifier: str
    said: list[str]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from _scenes(tmp_path_factory.mktemp("hostile"))


def _scenes(folder: Path) -> Iterator[Scene]:
    for site in sites("sqlite", folder, None):
        with standing(site, folder) as stand:
            who = stand.person("ayes", "ann")
            job = who.job()
            stand.trained(who, job)
            named = {"name": "pictures", "training_job_id": job}
            made = who.got("POST", "/v1/classifiers", named)["id"]
            yield Scene(who, made, stand.said)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_request_ends_as_a_typed_problem(scene: Scene, name: str) -> None:
    case = CASES[name]
    came = came_of(scene.who, case, scene.classifier)
    assert (came.status, case.says in came.text) == (case.status, True), came.text
    problem = json.loads(came.text)
    assert problem["detail"]
    assert problem["hint"]
    assert came.memory <= MEMORY
    assert not any(ord(letter) < 32 for letter in came.text), "what a tenant wrote is escaped"
    assert scene.said == [], "a server's operator is told of faults alone"


def test_there_are_sixty_of_them() -> None:
    assert len(CASES) >= 60


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for stood in _scenes(Path(scratch)):
            for word, one in CASES.items():
                what = came_of(stood.who, one, stood.classifier)
                print(f"{word:50} {what.status} {what.seconds:6.2f} s {what.memory >> 20:4} MiB {what.text[:400]}")
            print(stood.said, file=sys.stderr)
