"""The web app's files as they are served: their headers, their sizes, and what no page of ours may hold."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.service.http.pages import FILES, POLICY, Pages, files
from pipeline.service.specification.templates import templates
from pipeline.service.specification.words import Asked, Data
from tests.servers.shapes import EACH, LABELS, SAMPLE, pictures

LOCK = Path(__file__).parents[3] / "locks/web.txt"
MOST_BYTES = 120_000
OURS = sorted([*FILES.glob("*.js"), *FILES.glob("*.html"), *FILES.glob("*.css")])


def asked(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer; 418 where the pages leave it to the application behind them."""
    sent: list[dict[str, Any]] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    sent_headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": sent_headers}
    asyncio.run(Pages(behind)(scope, None, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent[1:])


def test_each_file_is_answered_whole_and_again_only_where_it_has_changed() -> None:
    for path, file in files().items():
        status, headers, body = asked(path)
        assert (status, body, headers["content-length"]) == (200, file.content, str(len(file.content)))
        assert headers["content-security-policy"] == POLICY
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-cache")
        assert asked(path, if_none_match=f'W/"other", {headers["etag"]}')[::2] == (304, b"")
        assert asked(path, if_none_match='"other"')[0] == 200
        assert asked(path, "HEAD")[::2] == (200, b"")
        status, packed, body = asked(path, accept_encoding="gzip, br")
        assert (gzip.decompress(body) if packed.get("content-encoding") == "gzip" else body) == file.content
        assert packed["content-length"] == str(len(body))


@pytest.mark.parametrize("path", ["/static/", "/static/../app.py", "/static/%2e%2e/x", "/static/vendor", "/v1/me", ""])
def test_what_is_no_file_of_the_pages_goes_on_to_the_application(path: str) -> None:
    assert asked(path)[0] == 418
    assert asked("/", "POST")[0] == 418, "what changes something is no file"


def test_all_pages_together_are_small() -> None:
    whole = {path: file for path, file in files().items() if path != f"/static/{SAMPLE.name}"}
    assert sum(len(file.content) for file in whole.values() if "text/plain" not in file.kind) <= MOST_BYTES
    assert SAMPLE.stat().st_size <= MOST_BYTES


def test_the_policy_lets_in_nothing_of_strangers_and_no_text_becomes_markup() -> None:
    said = dict(one.strip().split(" ", 1) for one in POLICY.split(";"))
    assert said["default-src"] == "'none'"
    assert said["require-trusted-types-for"] == "'script'"
    assert not re.search(r"unsafe|https?:|\*", POLICY)
    for path in OURS:
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            path
        )
        assert not re.search(r"(?:src|href|url)\W{1,3}(?:https?:)?//(?!www\.w3\.org)", text), f"{path} asks a stranger"
    shell = (FILES / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", shell), "nothing is inline"
    assert "noscript" in shell


def test_what_is_from_elsewhere_is_what_was_locked() -> None:
    locked = [line.split()[1:] for line in LOCK.read_text().splitlines() if re.match(r"# \S+\.(js|css) ", line)]
    names = {path.name for path in (FILES / "vendor").iterdir() if path.suffix in (".js", ".css")}
    assert names == {one[0] for one in locked}
    for name, of, licence, _, digest in locked:
        assert digest == "sha256:" + hashlib.sha256((FILES / "vendor" / name).read_bytes()).hexdigest(), name
        assert licence == "Apache-2.0+MIT"
        assert (FILES / "vendor" / f"{of}-LICENSE.txt").exists()


def test_the_sample_is_180_pictures_of_six_labels_as_its_program_draws_them() -> None:
    with zipfile.ZipFile(io.BytesIO(SAMPLE.read_bytes())) as archive:
        there = {name: archive.read(name) for name in archive.namelist()}
    assert Counter(name.split("/")[0] for name in there) == dict.fromkeys(LABELS, EACH)
    assert len(set(there.values())) == len(there) == 180
    for name, image in pictures():
        held = cv2.imdecode(np.frombuffer(there[name], np.uint8), cv2.IMREAD_UNCHANGED)
        assert held is not None
        assert np.abs(held.astype(int) - image).max() <= 8, "another release of OpenCV may round otherwise"


SEVERAL = Data(3, 0, 0, 0, {"train": 40, "test": 10})


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (Data(6, 1, 28, 28, {"train": 144, "test": 36}), ["lenet", "convolutions", "linear"]),
        (Data(2, 3, 8, 8, {"train": 3, "test": 1}), ["linear"]),
        (Data(1000, 3, 224, 160, {"train": 100_000, "test": 5_000, "validation": 7}), ["convolutions", "linear"]),
        (Data(5, 3, 16, 17, {"train": 9}), ["lenet", "convolutions", "linear"]),
        (SEVERAL, ["lenet", "convolutions", "linear"]),
    ],
)  # fmt: skip
def test_each_template_is_judged_good_for_its_dataset(data: Data, names: list[str]) -> None:
    from pipeline.service.specification.pricing import priced
    from pipeline.service.specification.rebuilding import Rebuilt

    found = templates(data)
    assert [one.name for one in found] == names
    for one in found:
        rebuilt = Rebuilt(Asked(one.solver, one.net, data))
        price = priced(rebuilt)
        assert rebuilt.problems == []
        assert price["parameters"] >= data.labels
        assert not [said for said in rebuilt.warnings if "outputs" in said], "as many outputs as labels"
