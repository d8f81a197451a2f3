"""What THREATS.md promises of the code as a whole: nothing is run that somebody else wrote, and what is installed is
what was looked at."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("hathi", "pipeline", "sample", "scripts") for path in (ROOT / part).rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "joblib"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.load", "yaml.load",
         "pickle.load", "pickle.loads", "pandas.read_pickle", "pd.read_pickle", "joblib.load"}  # fmt: skip
LOCK_LINE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,-]+\])?==[^ ]+")


def dangers(source: str) -> Iterator[str]:
    """What runs what it is given, in a module's text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {one.name}" for one in node.names if one.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"{node.lineno}: from {node.module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or (isinstance(node.func, ast.Name) and called in NAMES):
                yield f"{node.lineno}: {called}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg == "shell" and value is not False:
                    yield f"{node.lineno}: shell"
                if keyword.arg == "allow_pickle" and value is not False:
                    yield f"{node.lineno}: allow_pickle"
            if called in ("np.load", "numpy.load") and not any(one.arg == "allow_pickle" for one in node.keywords):
                yield f"{node.lineno}: {called}"


def test_no_module_runs_what_it_is_given() -> None:
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text())) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from yaml import load", "eval(x)", "run(x, shell=True)", "np.load(x)", "torch.load(x)",
     "np.load(x, allow_pickle=flag)", "os.system(x)"],
)  # fmt: skip
def test_what_would_run_it_is_seen(text: str) -> None:
    assert list(dangers(text))


@pytest.mark.parametrize("lock", sorted((ROOT / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_every_package_of_a_lock_has_its_hashes(lock: Path) -> None:
    entries = [
        entry
        for entry in re.sub(r"\\\n\s*", " ", lock.read_text()).splitlines()
        if entry.strip() and not entry.lstrip().startswith("#")
    ]
    assert entries
    for entry in entries:
        assert LOCK_LINE.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_no_lock_has_a_package_that_tells_strangers() -> None:
    """And none that is made anew: OpenVINO asks for it, and works without.

    FastAPI wants the interface of OpenTelemetry, which sends nothing: what does is its sdk and its exporters.
    """
    locks = sorted((ROOT / "locks").glob("*.txt"))
    assert locks
    named = {name for lock in locks for name in re.findall(r"^([\w.-]*telemetry[\w.-]*)==", lock.read_text(), re.M)}
    assert named <= {"opentelemetry-api"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "openvino-telemetry" in settings["tool"]["uv"]["exclude-dependencies"]


def test_whatever_installs_a_package_wants_its_hash() -> None:
    installs = [
        f"{path.name}: {line}"
        for path in sorted((ROOT / "scripts").glob("*.sh"))
        for line in re.sub(r"\\\n\s*", " ", path.read_text()).splitlines()
        if re.search(r"\bpip (install|sync)\b|pip_into_venv \"", line) and not line.lstrip().startswith("#")
    ]
    assert len(installs) >= 5
    assert [line for line in installs if "--require-hashes" not in line] == []


def test_every_test_that_the_threats_name_exists() -> None:
    text = (ROOT / "THREATS.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 30
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.M)
    ]
    assert missing == []
    alone = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert [path for path in sorted(alone) if not (ROOT / path).exists()] == []
