"""Each line of docs/api.md is typed against a server, in an order in which each does what its page says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.overview import Overviews
from pipeline.clock import Clock
from pipeline.fetch.fetcher import Fetcher
from pipeline.service.serving.parent import Sizes
from pipeline.service.words import Actor, Role
from tests.contract.test_service_isolation import furnished
from tests.environment import environ
from tests.integration.conftest import picture
from tests.integration.fetch.asking import limits
from tests.servers.bodies import hosting
from tests.servers.databases import sites
from tests.servers.demand import until
from tests.servers.promoting import Lake, served
from tests.servers.service import NET, SOLVER, Stand, standing
from tests.unit.service import api_page

DATASET_NET = """
layer { name: "in" type: "ImageData" top: "data" top: "label" image_data_param { source: "any" batch_size: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
FIRST = ("PUT /v1/me/password", "POST /v1/users")
"""What ends sessions comes before one begins; a user is there before it is a member."""
STEPS = ("POST", "PUT", "GET", "PATCH", "cancel", "DELETE")
"""The order: what makes, what tells, what changes, what ends, what deletes."""
MAKES = {
    "/v1/datafiles": "DATAFILE", "/v1/datasets": "DATASET", "/v1/solvers": "SOLVER", "/v1/training-jobs": "JOB",
    "/v1/classifiers": "CLASSIFIER", "/v1/classification-jobs": "PICTURES_JOB", "/v1/tokens": "TOKEN_ID",
}  # fmt: skip
"""What lines make, other lines fill, change, end and delete; all others read what had been there."""
AT_ONCE = {"/v1/users": "USER", "/solvers": "SOLVER"}
"""What all lines that follow take, too: a user who is no member, a solver of a dataset."""


@dataclass
class Line:
    """A line of the page, and the answers that it may have."""

    method: str
    path: str
    good: set[str]
    typed: str

    @property
    def step(self) -> str:
        return "cancel" if self.path.endswith("/cancel") else self.method

    @property
    def of_made(self) -> bool:
        """Whether it is about what a line has made."""
        return STEPS.index(self.step) > STEPS.index("GET") or self.path.endswith("/content")


PAGE = api_page.FILE.read_text()


def lines() -> list[Line]:
    found = re.findall(r"### (\w+) (\S+)\n(.*?)```sh\n(.*?)\n```", PAGE, re.S)
    made = []
    for method, path, said, typed in found:
        (answers,) = re.findall(r"^- answers ([^;\n]*)", said, re.M)
        made.append(Line(method, path, set(re.findall(r"\b2\d\d\b", answers)), typed))
    return sorted(made, key=lambda one: (f"{one.method} {one.path}" not in FIRST, STEPS.index(one.step)))


def archive() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        entry = tarfile.TarInfo("a/0.png")
        entry.size = len(picture(0))
        tar.addfile(entry, io.BytesIO(picture(0)))
    return held.getvalue()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Of what the lines name at https://shop.invalid."""
    bodies = {"/spots.tar.gz": archive(), "/solver.prototxt": SOLVER.encode(), "/net.prototxt": DATASET_NET.encode(),
              "/picture.png": picture(0)}  # fmt: skip
    with hosting(bodies) as url:
        yield url


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("page")
    for site in sites("sqlite", folder, None):
        lake = Lake(folder / "promoting", folder / "bucket")
        lake.write({"ayes": ["b"]})
        files = lambda accept, most: Fetcher(limits(max_bytes=most), accept=accept)  # noqa: E731
        fetcher = lambda: Fetcher(limits())  # noqa: E731
        overview = Overviews(lake.config, Clock())
        beside: dict[str, Any] = {"promoter": lake.promoter(), "overview": overview}
        with standing(site, folder, Sizes(threads=1), fetcher, files, **beside) as made:
            yield made
        overview.close()


def typed(script: str, folder: Path, given: dict[str, str]) -> tuple[str, bytes]:
    """The number and the body of the answer; of a stream, which has no end, what came with the first event."""
    head, answer = folder / "head", folder / "answer"
    head.unlink(missing_ok=True)
    answer.unlink(missing_ok=True)
    with (folder / "said").open("wb") as said:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=folder, env=given, stdout=said, stderr=said, start_new_session=True
        )
    if " -N " in script:
        until(lambda: shell.poll() is not None or (answer.exists() and b"data:" in answer.read_bytes()), "an event")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    elif shell.wait(120):
        return "", (folder / "said").read_bytes()
    codes = re.findall(r"^HTTP/\S+ (\d+)", head.read_text(), re.M) if head.exists() else []
    return codes[-1] if codes else "", answer.read_bytes() if answer.exists() else b""


def test_each_line_of_the_page_is_typed_and_is_answered_as_the_page_says(
    stand: Stand, host: str, tmp_path: Path
) -> None:
    (defined,) = re.findall(r"```sh\n(ask\(\).*?)\n```", PAGE)
    for name, text in (("solver.prototxt", SOLVER), ("net.prototxt", NET)):
        (tmp_path / name).write_text(text)
    (tmp_path / "spots.zip").write_bytes(archive())
    (tmp_path / "picture.png").write_bytes(picture(0))
    ann = stand.person("ayes", "ann", platform=True)
    things = furnished(stand, ann, "own", served(1))
    stand.site.run(_prepared(stand, Actor(ann.tenant, ann.user, "", Role.ADMIN, platform=True), things))

    there = {name: things[kind] for kind, name in api_page.NAMES.items()}
    made: dict[str, str] = {}
    always = environ(API=stand.url, TOKEN=ann.token)
    wrong = []
    for line in (found := lines()):
        shown = line.typed.replace(api_page.HOST, host)
        shown = re.sub(r"\b(ask|curl -sS) ", r"\1 -D head -o answer ", shown)
        ids = {**there, **made} if line.of_made else there
        code, answer = typed(f"{defined}\n{shown}", tmp_path, {**always, **ids})
        if code not in line.good:
            wrong.append(f"{line.method} {line.path}: {code} {answer[:400]!r}")
        elif line.method == "POST" and line.path in MAKES:
            made[MAKES[line.path]] = json.loads(answer)["id"]
        elif line.method == "POST" and line.path in AT_ONCE:
            there[AT_ONCE[line.path]] = json.loads(answer)["id"]
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(re.findall(r"^### ", PAGE, re.M)) > 90
    assert len(made) == len(MAKES)
    assert stand.said == [], "nothing that an operator has to know of"


async def _prepared(stand: Stand, actor: Actor, things: dict[str, str]) -> None:
    """Who asks has a password, and both jobs have ended well."""
    from pipeline.service.auth import passwords

    hashed = await passwords.Passwords(Clock()).hashed("a password")
    await passwords.set_by_operator(stand.site.open(), actor, hashed, Clock())
    over = f"('{things['tj']}', '{things['cj']}')"
    await stand.site.bare(f"update @work set state = 'succeeded', finished_at = created_at + 60 where id in {over}")
