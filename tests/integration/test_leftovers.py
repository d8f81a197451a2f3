"""What a killed process leaves: nothing that another user may read, no core, and nothing past the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.settings import Settings, travelling
from tests.environment import environ
from tests.integration.conftest import ROOT, OwnList, picture, row

SECRET = "complete-and-secret"
ALONE = """
import sys
from pathlib import Path
from pipeline.clock import Clock
from pipeline.records import ImageRef
from pipeline.settings import Settings
from pipeline.extraction.isolation import compute_alone

settings = Settings.model_validate_json(sys.stdin.read())
refs = [ImageRef(7, n, "a", f"http://user:{word}@127.0.0.1:9/{n}?token={word}", b"", n) for n in range(50)]
compute_alone(settings, "demo", "t", refs, 64, lambda: None, Clock())
"""


def settings_text(own: OwnList) -> str:
    sets = {"demo": {"net": str(own.net), "weights": str(own.weights), "blob": "features", "root": "features"}}
    fetch = {"allow_private": True, "attempts": 10, "contact": "x"}
    settings = {"state": str(own.out / ".hathi/state"), "bucket": {"url": str(own.folder / "b")}, "sets": sets}
    return travelling(Settings.model_validate({**settings, "fetch": fetch}))


def wait_until(happened: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def test_urls_of_a_killed_run_lie_where_others_may_not_look_and_are_gone_at_the_next_start(own: OwnList) -> None:
    temporary = own.folder / "tmp"
    temporary.mkdir(mode=0o777)
    spill = own.out / ".hathi" / "state" / "spill"
    words = [sys.executable, "-c", ALONE.replace("{word}", SECRET)]
    with subprocess.Popen(
        words, cwd=ROOT, env={**environ(), "TMPDIR": str(temporary)}, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(settings_text(own))
        process.stdin.close()
        begun = "*/alone-*/refs.pb"
        wait_until(lambda: [path for path in spill.glob(begun) if path.stat().st_size], "a child was to begin")
        process.send_signal(signal.SIGKILL)
    left = [path for path in spill.rglob("refs.pb") if SECRET.encode() in path.read_bytes()]
    assert len(left) == 1
    assert left[0].stat().st_mode & 0o777 == 0o600
    assert [path for path in left[0].parents if path.is_relative_to(spill) and path.stat().st_mode & 0o077] == []
    assert list(temporary.iterdir()) == []
    own.refs.write_text(row("a", picture(1)))
    assert own.run().returncode == 0
    assert [path for path in spill.rglob("*") if path.is_file()] == []


CHILDREN = {
    "a worker": ["pipeline.cli.worker", "PARENT"],
    "a batch alone": ["pipeline.extraction.isolation", "FOLDER", "PARENT"],
    "a reader": ["pipeline.codec.refs.sandbox_child", "PARENT"],
    "hathi": ["pipeline.cli.main", "status", "--watch", "0.2"],
}


@pytest.mark.parametrize("child", CHILDREN)
def test_no_process_of_ours_leaves_a_core(tmp_path: Path, child: str) -> None:
    """Where the system would have it written: it holds URLs, bodies and keys."""
    (tmp_path / "here.toml").write_text('bucket.url = "bucket"\nlakes.shop.url = "lake"\nstate = "state"\n')
    for name in ("lake", "bucket"):
        (tmp_path / name).mkdir()
    values = {"PARENT": str(os.getpid()), "FOLDER": str(tmp_path)}
    words = [sys.executable, "-m", *(values.get(word, word) for word in CHILDREN[child])]
    limited = ["sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh", *words]
    where = {**environ(), "PYTHONPATH": str(ROOT), "HATHI_CONFIG": str(tmp_path / "here.toml")}
    with subprocess.Popen(
        limited, cwd=tmp_path, env=where, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        limits = Path(f"/proc/{process.pid}/limits")
        wait_until(lambda: core_limit(limits.read_text()) == ["0", "0"], f"{child} was to limit its cores")
        process.send_signal(signal.SIGSEGV)
        assert process.wait(20) == -signal.SIGSEGV
    assert sorted(path.name for path in tmp_path.iterdir() if "core" in path.name) == []


def core_limit(limits: str) -> list[str]:
    """Soft and hard."""
    return next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4:6]
