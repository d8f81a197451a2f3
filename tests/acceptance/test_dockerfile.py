"""The Dockerfile of a box, as far as it can be tried without a container runtime (docs/containers.md says what is not).

Its files exist and reach the build; each RUN is typed in an empty folder, with the image's paths below it; then the
entry point runs as cron would call it, and the health check judges it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.environment import environ
from tests.servers.demand import free_port

KNOWN = ["ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"]
NOT_TYPED = {"useradd": "makes a user of the system, as root"}
"""RUN commands by their first word: why they are not typed."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of a list in JSON; else of a line, without its options."""
        if self.text.startswith("["):
            listed: list[str] = json.loads(self.text)
            return listed
        return [one for one in self.text.split() if not one.startswith("--")]


def instructions() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [Instruction(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def tracked(*paths: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def copied() -> list[str]:
    """What the build copies out of the repository."""
    taken = [one for one in instructions() if one.word == "COPY" and "--from=" not in one.text]
    return [source.rstrip("/") for one in taken for source in one.words[:-1]]


def let_in() -> list[str]:
    """What .dockerignore lets into the build: it names everything that it does."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def test_each_instruction_is_one_that_there_is_and_two_stages_begin() -> None:
    words = [one.word for one in instructions()]
    assert sorted(set(words) - set(KNOWN)) == []
    assert words.count("FROM") == 2
    assert [words.count(word) for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "VOLUME", "USER")] == [1] * 5


def test_what_is_copied_exists_and_reaches_the_build_and_nothing_else_does() -> None:
    assert [name for name in copied() if not tracked(name)] == []
    assert {name.split("/")[0] for name in copied()} == set(let_in())
    assert set(let_in()).isdisjoint({".git", ".venv", "work", "state", "logs", "tests"})


def test_all_that_the_wheel_is_made_of_is_copied() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [name for name in [*wheel["packages"], *wheel["force-include"]] if name not in copied()] == []


def test_packages_come_from_locks_with_hashes_alone() -> None:
    commands = [part for one in instructions() if one.word == "RUN" for part in one.text.split("&&")]
    installs = [part for part in commands if re.search(r"\b(?:pip (?:install|sync)|uv build)\b", part)]
    assert len(installs) == 4
    assert [part for part in installs if "--require-hashes" not in part and "--offline" not in part] == []
    pins = re.findall(r"^\S+==\S+", (ROOT / "locks/build.txt").read_text(), re.M)
    assert len(pins) > 3
    assert [pin for pin in pins if f"\n{pin} " not in f"\n{(ROOT / 'locks/dev.txt').read_text()}"] == []


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_locks_of_each_image_that_is_named_are_there_and_no_two_name_another_version_of_a_package() -> None:
    default = re.findall(r"^ARG LOCKS=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    pages = "".join((ROOT / name).read_text() for name in ("Dockerfile", "docs/containers.md", "docs/kubernetes.md"))
    images = {*default, *re.findall(r'LOCKS="([a-z ]+)"', pages)}
    assert len(images) >= 2
    for image in images:
        pins: dict[str, set[str]] = {}
        for lock in image.split():
            text = (ROOT / f"locks/{lock}.txt").read_text()
            mine: dict[str, set[str]] = {}
            for name, version in re.findall(r"^(\S+?)(?:\[[\w,]+\])?==(\S+)", text, re.M):
                mine.setdefault(name, set()).add(version)  # one for each version of Python
            other = [name for name, versions in mine.items() if pins.setdefault(name, versions) != versions]
            assert other == [], f"{image}: locks/{lock}.txt"


def test_nothing_runs_as_root_and_the_pages_paths_are_the_images() -> None:
    written = instructions()
    (user,) = (one.text for one in written if one.word == "USER")
    assert int(user) > 0, "a number: Kubernetes cannot judge a name"
    assert [one.word for one in written].index("USER") < [one.word for one in written].index("ENTRYPOINT")
    page = (ROOT / "docs/containers.md").read_text()
    (volume,) = (one.words[0] for one in written if one.word == "VOLUME")
    (place,) = re.findall(r"HATHI_CONFIG=(\S+)", (ROOT / "Dockerfile").read_text())
    assert f"mountPath: {volume}}}" in page
    assert f"mountPath: {Path(place).parent}," in page
    assert f":{place}:ro" in page
    assert f"runAsUser: {user}," in page
    assert f"user {user} " in page


@dataclass(frozen=True)
class Image:
    """A folder that stands for the image's file system, and the environment in it."""

    folder: Path
    environ: Mapping[str, str]
    where: Path

    def path(self, text: str) -> str:
        """Paths of the image below the folder."""
        return re.sub(r"(?<![\w.])/(build|opt/hathi|var/lib/hathi|etc/hathi|tmp/sample)\b", rf"{self.folder}/\1", text)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", self.path(command)], cwd=self.where, env=dict(self.environ), text=True, timeout=300,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def after(image: Image, one: Instruction) -> Image:
    """The image after an instruction, each command of a RUN having been typed."""
    if one.word == "RUN" and one.text.split()[0] not in NOT_TYPED:
        done = image.run(one.text)
        assert done.returncode == 0, f"{one.text}\n{done.stdout}"
    elif one.word == "COPY" and "--from=" not in one.text:
        for name in tracked(*one.words[:-1]):
            target = image.where / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    elif one.word == "WORKDIR":
        where = Path(image.path(one.text))
        where.mkdir(parents=True, exist_ok=True)
        return replace(image, where=where)
    elif one.word in ("ARG", "ENV"):
        values = dict(part.split("=", 1) for part in one.text.split())
        path = image.environ["PATH"]
        added = {name: image.path(value.replace("$PATH", path)) for name, value in values.items()}
        return replace(image, environ={**image.environ, **added})
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the Dockerfile makes, without a container."""
    folder = tmp_path_factory.mktemp("image")
    kept = environ("PYTHON", "SAMPLE_")
    base = f"{Path(sys.executable).resolve().parent}:{kept['PATH']}"
    own = {
        "HOME": str(folder), "PATH": base, "SAMPLE_PORT": str(free_port()),
        "UV_CACHE_DIR": kept.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
    }  # fmt: skip
    (folder / "tmp").mkdir()
    made = Image(folder, {**kept, **own}, folder)
    for one in instructions():
        made = after(made, one)
    return made


def command(word: str) -> str:
    (one,) = (one for one in instructions() if one.word == word)
    return one.text.partition("CMD ")[2] if word == "HEALTHCHECK" else " ".join(one.words)


def test_each_run_can_be_typed_and_the_entry_point_computes_what_is_open_until_estop_stands(image: Image) -> None:
    assert not (image.folder / "tmp/sample").exists(), "the sample ran, and nothing of it is left"
    (config := image.folder / "etc/hathi").mkdir(parents=True)
    words = "--bucket bucket --net hog --blob hog --contact https://example.org/crawler"
    started = f"{command('ENTRYPOINT')} {command('CMD')}"
    assert image.run(started).returncode == 2, "no configuration is mounted"
    assert image.run(f"hathi config init compute /etc/hathi/compute.toml {words}").returncode == 0
    with (config / "compute.toml").open("a") as file:  # outside of a container the file lies in no /etc
        file.write("[logs]\nfolder = '../../var/lib/hathi/logs'\n")
    text = (config / "compute.toml").read_text()
    (config / "compute.toml").write_text("state = '../../var/lib/hathi/state'\n" + text)

    done = image.run(started)
    assert done.returncode == 0, done.stdout
    told = image.run("hathi doctor")
    assert "scripts/" not in told.stdout, told.stdout
    assert f"Python {sys.version_info.major}." in told.stdout
    health = image.run(command("HEALTHCHECK"))
    assert health.returncode == 0, health.stdout

    (image.folder / "var/lib/hathi/state/ESTOP").touch()
    stopped = image.run(started)
    assert stopped.returncode == 4, stopped.stdout
    assert image.run(command("HEALTHCHECK")).returncode == 0, "a Warning: somebody stopped it on purpose"
    (config / "compute.toml").write_text("state = wrong\n")
    assert image.run(command("HEALTHCHECK")).returncode == 1
