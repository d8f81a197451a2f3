"""`hathi remote` against the service's own processes: from a push to a classified picture, while servers die."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hathi
from pipeline.cli.main import main
from pipeline.remote import transport
from tests.environment import environ
from tests.servers import picture_training as spots
from tests.servers.databases import needs_the_extra
from tests.servers.demand import Server, accepts, free_port, until
from tests.servers.proxy import Proxy

pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
HATHI = (sys.executable, "-P", "-m", "pipeline.cli.main")
NET = spots.NET.replace('source: "train"', 'source: "any"').replace('source: "test"', 'source: "any"')
PICTURES = 120


@dataclass
class Site:
    """The service as processes, behind a proxy that a test rules."""

    folder: Path
    port: int
    proxy: Proxy
    api: Server
    worker: Server
    starter: ThreadPoolExecutor
    """Of one thread: a process ends with the thread that began it."""

    def begin(self) -> Server:
        """An API server, once it answers."""
        words = [*HATHI, "service", "serve", "--config", str(self.folder / "service.toml")]
        found = Server.start(words, log=self.folder / "api.log", env=environ())
        found.until(lambda: accepts(self.port), "the API answers", 120)
        return found

    def fall(self) -> None:
        """The API server is killed, and another one takes its place."""
        self.api.kill()
        self.api = self.starter.submit(self.begin).result()

    def token(self, who: str = "ann", tenant: str = "red") -> str:
        words = ["service", "token", tenant, who, "--role", "operator", "--config", str(self.folder / "service.toml")]
        done = subprocess.run([*HATHI, *words], capture_output=True, text=True, check=True, env=environ())
        return done.stdout.strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs_the_extra()
    folder = tmp_path_factory.mktemp("remote")
    port = free_port()
    (folder / "service.toml").write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{folder}/bucket"\n'
        f'[service]\ndatabase = "{folder}/service.db"\nlisten = "127.0.0.1:{port}"\n'
    )
    for words in (["migrate"], ["tenant", "red"]):
        command = [*HATHI, "service", *words, "--config", str(folder / "service.toml")]
        subprocess.run(command, check=True, capture_output=True, env=environ())
    worker = [*HATHI, "service", "worker", "--config", str(folder / "service.toml")]
    with contextlib.ExitStack() as ending:
        made = Site(folder, port, Proxy(port), None, None, ThreadPoolExecutor(1))  # type: ignore[arg-type]
        ending.callback(made.starter.shutdown)
        ending.callback(made.proxy.down)
        made.api = made.begin()
        ending.callback(lambda: made.api.stop(30))
        made.worker = Server.start(worker, log=folder / "worker.log", env=environ())
        ending.callback(lambda: made.worker.stop(40))
        yield made


@pytest.fixture
def logged_in(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """As ann, by the proxy; the token."""
    token = site.token()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("HATHI_REMOTE_TOKEN", raising=False)
    monkeypatch.delenv("HATHI_REMOTE_URL", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO(token + "\n"))
    monkeypatch.setattr(transport, "PATIENCE_SECONDS", 300.0)  # a server begins slowly beside other tests
    site.proxy.forgive()
    assert main(["remote", "login", f"http://127.0.0.1:{site.proxy.port}"]) == 0
    said = capsys.readouterr()
    assert token not in said.out + said.err
    kept = tmp_path / "config/hathi/remote.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    return token


def archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for number, (image, label) in enumerate(spots.pictures(PICTURES, 0)):
            file.writestr(f"{spots.LABELS[label]}/{number}.png", spots.png(image))
    return path


def texts(folder: Path, iterations: int = 40) -> list[str]:
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(
        f'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: {iterations} display: 10 snapshot: 20\n'
        "test_iter: 2 test_interval: 20 random_seed: 7\n"
    )
    return [str(folder / "solver.prototxt"), str(folder / "net.prototxt")]


def asked(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    """What a command says with --json."""
    capsys.readouterr()
    found = main(["remote", *words, "--json"])
    said = capsys.readouterr()
    assert found == code, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def test_from_a_push_to_a_classified_picture_while_the_server_dies_thrice(
    site: Site, logged_in: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spots_zip = archive(tmp_path / "spots.zip")
    size = spots_zip.stat().st_size
    cut = site.proxy.meet(b"PUT .*/content", after=size // 2, do=site.fall, then="cut")
    lost = site.proxy.lose_answer(b"POST /v1/datafiles")
    (file,) = asked(capsys, "push", str(spots_zip))
    assert cut.met.is_set()
    assert lost.met.is_set()
    assert (file["complete"], file["size"]) == (True, size)
    service = hathi.remote.connect(patience=300)
    assert [one["id"] for one in service.datafiles()] == [file["id"]], "announced once"
    assert sum(line.startswith("PUT ") for line in site.proxy.requests) >= 2

    (dataset,) = asked(capsys, "dataset", "spots", file["id"], "--split", "80/20")
    assert dataset["contents"]["examples"] + dataset["contents"]["duplicates"] == PICTURES
    lost = site.proxy.lose_answer(b"POST /v1/training-jobs")
    fallen = site.proxy.meet(b"GET .*/events", way="answer", after=400, do=site.fall, then="cut")
    capsys.readouterr()
    assert main(["remote", "train", *texts(tmp_path), "--data", dataset["id"], "--seed", "3", "--follow"]) == 0
    said = capsys.readouterr()
    assert lost.met.is_set()
    assert fallen.met.is_set()
    assert "iteration 40: test: accuracy" in said.err
    (job,) = asked(capsys, "jobs")
    assert (job["state"], job["progress"]["iteration"]) == ("succeeded", 40), "one job, whatever answers were lost"
    assert f"{job['id']} succeeded" in said.out

    events = asked(capsys, "watch", job["id"])
    assert (events[0]["event"], events[-1]["event"]) in {("metrics", "end"), ("job", "end")}
    assert events[-1]["data"] == {"state": "succeeded"}
    asked(capsys, "fetch", job["id"], "--out", str(tmp_path / "fetched"))
    names = {one["name"] for one in service.snapshots(job["id"])[0]["files"]}
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == names

    (version,) = asked(capsys, "version", "spots", job["id"], "--alias", "best")
    assert version["number"] == 1
    assert asked(capsys, "alias", "spots", "best", "1") == [{"alias": "best", "version": 1}]
    assert [one["aliases"] for one in asked(capsys, "models")] == [{"best": 1}]
    (classifier,) = asked(capsys, "classifier", "spots", "--model", "spots", "--alias", "best")
    (tmp_path / "own.png").write_bytes(spots.png(spots.pictures(1, 9)[0][0]))
    (tmp_path / "no.png").write_bytes(b"<html>")
    site.proxy.meet(b"POST .*/classify", do=site.fall, then="cut")
    pictures = [str(tmp_path / "no.png"), "http://127.0.0.1/x.png", str(tmp_path / "own.png")]
    found = asked(capsys, "classify", classifier["id"], *pictures, code=1)
    assert [one["failure"] and one["failure"]["reason"] for one in found] == ["not_image", "blocked", None]
    assert found[2]["name"] == "own.png"
    assert {one["label"] for one in found[2]["predictions"]} < set(spots.LABELS)
    assert 0 < found[2]["predictions"][0]["probability"] <= 1
    many = list(service.classify(classifier["id"], [tmp_path / "own.png"] * 70, top=1))
    assert len(many) == 70
    assert {one["predictions"][0]["label"] for one in many if one["predictions"]} == {
        found[2]["predictions"][0]["label"]
    }


def test_an_interrupt_leaves_a_training_running_and_a_cancel_ends_it(
    site: Site, logged_in: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spots_zip = archive(tmp_path / "spots.zip")
    words = ["train", *texts(tmp_path, 10_000_000), "--data", str(spots_zip), "--follow", "--name", "long"]
    said = tmp_path / "said"
    with said.open("w") as file:
        follows = subprocess.Popen([*HATHI, "remote", *words], stdout=file, stderr=file)
    until(lambda: "iteration 20: test" in said.read_text(), "it trains", 300)
    follows.send_signal(signal.SIGINT)
    assert follows.wait(30) == 130
    (job,) = asked(capsys, "jobs", "--state", "running")
    assert f"{job['id']} goes on; hathi remote watch {job['id']} shows it" in said.read_text()
    lost = site.proxy.lose_answer(b"POST .*/cancel")
    (ended,) = asked(capsys, "cancel", job["id"])
    assert lost.met.is_set()
    assert ended["cancel_requested"]
    assert main(["remote", "watch", job["id"]]) == 1
    assert f"hathi: {job['id']} is cancelled" in capsys.readouterr().err
    assert main(["remote", "cancel", job["id"]]) in (0, 1)
    assert asked(capsys, "log", job["id"])[0]["log"]


def test_a_refusal_says_what_where_and_what_to_do(
    site: Site, logged_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solver, net = texts(tmp_path)
    Path(net).write_text(NET.replace("layer {", "layer [", 1))
    assert main(["remote", "train", solver, net]) == 1
    said = capsys.readouterr().err
    assert "#/net" in said
    assert "Traceback" not in said
    assert main(["remote", "push", str(tmp_path / "none.zip")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("HATHI_REMOTE_TOKEN", "hathi_wrong")
    assert main(["remote", "jobs"]) == 1
    assert "hathi remote login URL" in capsys.readouterr().err
    monkeypatch.setenv("HATHI_REMOTE_URL", "https://elsewhere.invalid")
    monkeypatch.delenv("HATHI_REMOTE_TOKEN")
    assert main(["remote", "jobs"]) == 2, "a token goes to the service that it is for"
    assert "there is no token for https://elsewhere.invalid" in capsys.readouterr().err
    monkeypatch.delenv("HATHI_REMOTE_URL")
    kept = tmp_path / "config/hathi/remote.json"
    kept.chmod(0o644)
    assert main(["remote", "jobs"]) == 2
    assert "others may read" in capsys.readouterr().err
    kept.chmod(0o600)
    assert main(["remote", "logout"]) == 0
    assert not kept.exists()
    assert main(["remote", "jobs"]) == 2
    assert "nobody has logged in here" in capsys.readouterr().err


def test_a_password_becomes_a_token_and_no_secret_is_an_argument(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(site.folder / "service.toml")
    words = [*HATHI, "service", "user", "red", "bea", "--role", "member", "--password", "--config", config]
    subprocess.run(words, input="correct horse\n", text=True, check=True, capture_output=True, env=environ())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert main(["remote", "login", f"http://127.0.0.1:{site.port}", "--user", "bea"]) == 0
    capsys.readouterr()
    assert asked(capsys, "me")[0]["role"] == "member"
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong horse\n"))
    assert main(["remote", "login", f"http://127.0.0.1:{site.port}", "--user", "bea"]) == 1
    assert "the name or the password is wrong" in capsys.readouterr().err
    assert asked(capsys, "me")[0]["role"] == "member", "the token that was kept stays"
    assert os.listdir(tmp_path / "hathi") == ["remote.json"]


def test_what_the_document_and_the_library_say_is_done_as_it_stands_there(
    site: Site, logged_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/service.md").read_text()
    (typed,) = re.findall(r"```sh\n(hathi remote login.*?)```", page, re.DOTALL)
    (program,) = re.findall(r"```python\n(import hathi\n.*?)```", page, re.DOTALL)
    archive(tmp_path / "spots.zip")
    texts(tmp_path)
    (tmp_path / "picture.png").write_bytes(spots.png(spots.pictures(1, 9)[0][0]))
    subprocess.run([*HATHI, "service", "tenant", "blue", "--config", str(site.folder / "service.toml")], check=True)
    token = site.token("cat", "blue")
    (tmp_path / "token").write_text(token)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hathi").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m pipeline.cli.main "$@"\n')
    (tmp_path / "bin/hathi").chmod(0o755)
    more = {"API": f"http://127.0.0.1:{site.port}", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", typed], cwd=tmp_path, env=environ(**more), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    *_, classified = done.stdout.splitlines()
    assert re.match(r"picture\.png: \w+ \d+\.\d%, ", classified)
    capsys.readouterr()
    exec(compile(program, "docs/service.md", "exec"), {})
    assert capsys.readouterr().out.split()[1:] == ["spots"]

    text = inspect.getdoc(hathi.remote.connect)
    assert text is not None
    monkeypatch.chdir(tmp_path)
    subprocess.run([*HATHI, "service", "tenant", "green", "--config", str(site.folder / "service.toml")], check=True)
    here = text.replace("http://127.0.0.1:8974", f"http://127.0.0.1:{site.port}").replace("'red'", "'green'")
    known = {"TOKEN": site.token("dan", "green")}
    example = doctest.DocTestParser().get_doctest(here, known, "connect", None, None)
    assert len(example.examples) == 7
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0, capsys.readouterr().out
