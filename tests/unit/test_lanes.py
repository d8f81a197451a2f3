"""How scripts/test.sh shares the tests among processes: what goes together, which come first, what dies alone."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import environ
from tests.servers.demand import free_port

ROOT = Path(__file__).parents[2]
TESTS = {
    "tests/spark/test_spark.py": "def test_one(): pass\ndef test_two(): pass",
    "tests/spark/test_frames.py": "def test_one(): pass",
    "tests/unit/test_short.py": "\n".join(f"def test_{number}(): pass" for number in range(20)),
    "tests/unit/test_killed.py": (
        "import os\ndef test_before(): pass\ndef test_dies(): os.kill(os.getpid(), 9)\ndef test_after(): pass"
    ),
}


def run(folder: Path, *words: str) -> str:
    """What scripts/test.sh's pytest says of the tests in `folder`."""
    command = [sys.executable, "-m", "pytest", "-p", "part_times", "-p", "lanes", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        command, cwd=folder, env=environ("PYTEST_", PYTHONPATH=f"{ROOT}/scripts:{ROOT}"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TESTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    return tmp_path


def lanes_of(said: str) -> dict[str, list[tuple[str, str]]]:
    """File: (lane, test) of each result, in their order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for lane, file, test in re.findall(r"^\[(gw\d+)\] .*(?:PASSED|FAILED) (\S+?)::(\S+)", said, re.M):
        found.setdefault(file, []).append((lane, test))
    return found


def test_a_file_and_what_shares_a_server_run_in_one_process_and_nothing_is_lost(tree: Path) -> None:
    (tree / "tests/unit/test_killed.py").unlink()
    said = run(tree, "-n", "2", "-v")
    assert "23 passed" in said, said
    found = lanes_of(said)
    assert [test for _, test in found["tests/unit/test_short.py"]] == [f"test_{number}" for number in range(20)]
    assert len({lane for lane, _ in found["tests/unit/test_short.py"]}) == 1
    assert len({lane for name in ("spark", "frames") for lane, _ in found[f"tests/spark/test_{name}.py"]}) == 1
    assert {lane for results in found.values() for lane, _ in results} == {"gw0", "gw1"}
    assert re.search(r"^unit +20 tests +[\d.]+ s\nlane gw\d", said, re.M), said


@pytest.mark.parametrize("others", [("before", "after"), ("before",), ("after",), ()])
def test_a_process_that_dies_fails_its_test_alone_and_the_rest_runs(tree: Path, others: tuple[str, ...]) -> None:
    lines = TESTS["tests/unit/test_killed.py"].splitlines()
    left_out = [f"def test_{name}" for name in ("before", "after") if name not in others]
    kept = [line for line in lines if not line.startswith(tuple(left_out))]
    (tree / "tests/unit/test_killed.py").write_text("\n".join(kept) + "\n")
    said = run(tree, "-n", "2")
    assert f"1 failed, {23 + len(others)} passed" in said, said
    assert re.search(r"crashed while running '?tests/unit/test_killed.py::test_dies", said), said


def test_of_a_failure_and_of_a_success_the_figures_are_shown_by_one_process_and_by_two(tree: Path) -> None:
    (tree / "tests/unit/test_killed.py").unlink()
    (tree / "tests/unit/test_figures.py").write_text(
        "def test_good(figures):\n    figures('12 steps')\n    figures('  seed 3')\n"
        "def test_bad(figures):\n    figures('13 steps')\n    assert False\n"
    )
    for lanes in ("0", "2"):
        said = run(tree, "-n", lanes, "-q", "-p", "tests.figures")
        assert "1 failed, 24 passed" in said, said
        assert "\n12 steps\n  seed 3\n" in said, said
        assert "\n13 steps\n" in said, said


def test_whatever_has_a_place_of_its_own_exists() -> None:
    text = (ROOT / "scripts/lanes.py").read_text()
    named = re.findall(r'"(tests/[^":]+)', text)
    assert named
    assert [name for name in named if not list(ROOT.glob(f"{name}*"))] == []
    functions = re.findall(r'"(tests/[^":]+)::(\w+)', text)
    assert [(file, name) for file, name in functions if f"def {name}" not in (ROOT / file).read_text()] == []


def test_no_test_writes_past_pytest_or_looks_for_ports_by_itself() -> None:
    """The terminal belongs to one process; a port that Linux gave once may belong to the other lane a moment later."""
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"caps\w+\.disabled[(]", text)] == []
    assert [name for name, text in texts.items() if "def free_port" in text.replace('"def free_port"', "")] == [
        "tests/servers/demand.py"
    ]
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == 50
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(given) < max(low, 32_768)


def test_whatever_uses_the_session_of_spark_shares_one() -> None:
    unit_of = runpy.run_path(str(ROOT / "scripts/lanes.py"))["unit_of"]
    users = [
        path for path in sorted((ROOT / "tests/spark").glob("test_*.py")) if "session: SparkSession" in path.read_text()
    ]
    assert len(users) > 1
    assert [path.name for path in users if unit_of(f"tests/spark/{path.name}::test") != "Spark"] == []
