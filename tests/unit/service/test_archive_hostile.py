"""Archives of strangers: each ends as a typed reason, in little time and memory, and what is good in it is taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.process import child as processes
from pipeline.service.archive import reading
from pipeline.service.archive.entries import REASONS, WHOLE, Limits, Picture, Refused, Rejected
from tests.unit.service import dying_child, hostile_archives
from tests.unit.service.hostile_archives import CASES, Zipped, entry, tar, zip_of

ROOT = Path(__file__).parents[3]
CPU_SECONDS, MEMORY = 5.0, 256 * 2**20


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    words = [sys.executable, "-m", "tests.unit.service.hostile_archives"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_there_are_more_than_sixty_and_each_is_read(told: dict[str, dict[str, Any]]) -> None:
    assert len(CASES) >= 60
    assert set(CASES) < set(told)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_archive_ends_as_a_typed_reason(name: str, told: dict[str, dict[str, Any]]) -> None:
    case, found = CASES[name], told[name]
    assert found["whole"] == case.whole
    if case.whole:
        assert found["whole"] in WHOLE
    else:
        assert (found["rejected"], found["pictures"]) == (case.rejected, case.pictures)
        assert set(found["rejected"]) <= set(REASONS)
    assert found["seconds"] < CPU_SECONDS
    assert found["most"] < MEMORY


@pytest.mark.parametrize("name", ["a pipe", "a folder", "a file that is not there"])
def test_what_is_no_file_is_not_waited_for(name: str, told: dict[str, dict[str, Any]]) -> None:
    assert told[name]["whole"] == "not_a_file"


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: str) -> list[str]:
        return processes.python_of("tests.unit.service.dying_child")

    monkeypatch.setattr(reading, "python_of", command)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.usefixtures("dying")
@pytest.mark.parametrize("bad", [dying_child.ABORTS, dying_child.HANGS, dying_child.SWELLS])
def test_an_entry_that_ends_its_reader_is_poison_and_the_others_are_taken(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar(entry(b"a/good.png"), entry(b"a/bad.png", bad), entry(b"a/good2.png")))
    found = list(reading.read(path))
    assert [one.reason for one in found if isinstance(one, Rejected)] == ["poison"]
    assert [one.path[-1] for one in found if isinstance(one, Picture)] == [
        "first.png", "good.png", "good2.png", "last.png"]  # fmt: skip
    assert [one.number for one in found] == list(range(5))


@pytest.mark.usefixtures("dying")
def test_an_archive_that_ends_its_readers_again_and_again_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(*[Zipped(b"a/%d.png" % at, dying_child.ABORTS) for at in range(reading.DEATHS)]))
    with pytest.raises(Refused) as refused:
        list(reading.read(path))
    assert refused.value.reason == "process"
    assert "SIGSEGV" in refused.value.detail


def test_a_reader_has_no_secret_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "k", "HATHI_BUCKET_TOKEN": "t", "HTTPS_PROXY": "p", "PATH": "/bin", "HOME": "/h"}
    assert reading.environment(given).keys() & given.keys() == {"PATH"}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(packed=2000), "too_large"),
        (Limits(entries=1), "too_many_entries"),
        (Limits(labels=1), "too_many_labels"),
    ],
)
@pytest.mark.parametrize("make", [tar, zip_of])
def test_a_limit_that_is_passed_refuses_the_archive(tmp_path: Path, make: Any, limits: Limits, reason: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(make() + (bytes(4000) if make is tar else b"") if make is tar else make(before=b""))
    if reason == "too_large" and make is zip_of:
        limits = Limits(packed=100)
    with pytest.raises(Refused) as refused:
        list(reading.read(path, limits))
    assert refused.value.reason == reason


def test_what_a_name_says_reaches_nobody_but_as_text(tmp_path: Path) -> None:
    """Control characters are told as they are, and escaped by whoever prints them."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar(entry(b"a/\xff\x1b[2J.png")))
    (rejected,) = [one for one in reading.read(path) if isinstance(one, Rejected)]
    assert rejected.name == "a/\\xff\x1b[2J.png"
    assert rejected.path == ()


def test_hostile_archives_have_names_of_their_own() -> None:
    assert len({case.make() for case in list(CASES.values())[:20]}) == 20
    assert hostile_archives.png()[:4] == b"\x89PNG"
