"""What a command's start costs: a person who looks waits for no library that the answer does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sample import random_features
from tests.environment import DISK, environ
from tests.integration.conftest import ROOT

HEAVY = {
    "asyncio", "boto3", "botocore", "cv2", "fastavro", "hdfs", "jinja2", "numpy", "onnx", "onnxruntime", "openvino",
    "pandas", "PIL", "prometheus_client", "pyarrow", "pycurl", "pydantic_settings", "requests", "rich", "smtplib",
    "torch", "pipeline.extraction", "pipeline.fetch", "pipeline.images", "pipeline.nets", "pipeline.stages.loop",
}  # fmt: skip
"""Each takes from 20 ms to a second of a processor."""

LISTING = """
import json, sys
from pipeline.cli.main import main
code = main(sys.argv[2:])
sys.stdout.flush()
print(json.dumps([code, [name for name in json.loads(sys.argv[1]) if name in sys.modules]]))
"""


def loaded(*words: str, **variables: str) -> tuple[int, set[str]]:
    """The exit code of a command, and what it has loaded of HEAVY."""
    command = [sys.executable, "-c", LISTING, json.dumps(sorted(HEAVY)), *words]
    own = {name: value for name, value in environ().items() if name != DISK} | variables
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300)
    code, names = json.loads(done.stdout.splitlines()[-1])
    return int(code), set(names)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A gateway and its bucket in folders; a partner's list has waited for ship."""
    random_features.write(tmp_path / "w.caffemodel")
    for folder in ("bucket", "lake/refs", "state"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "state" / "ship.lock").touch()
    (tmp_path / "lake" / "refs" / "a.jsonl").write_text('{"partner_id": 1, "external_id": "a", "url": "http://a/"}\n')
    lines = [f'state = "{tmp_path}/state"', "[bucket]", f'url = "{tmp_path}/bucket"', "[lakes.shop]"]
    lines += [f'url = "{tmp_path}/lake"', "[[lakes.shop.sources]]", 'path = "refs"', "[sets.demo]"]
    lines += [f'net = "{ROOT}/sample/random_features.prototxt"', f'weights = "{tmp_path}/w.caffemodel"']
    lines += ['blob = "features"', 'root = "features"', "[logs]", f'folder = "{tmp_path}/logs"']
    lines += ["[health]", "disk_percent = 100.0"]
    path = tmp_path / "hathi.toml"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("status", "--json"), ("health",), ("health", "--json"), ("stop", "--show", "--remote"),
        ("start",), ("config", "get", "state"), ("config", "show"), ("quarantine", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_look_loads_nothing_that_it_does_not_need(config: str, words: tuple[str, ...]) -> None:
    code, names = loaded(*words, "--config", config)
    assert code in (0, 1, 2)
    assert names == set()


def test_variables_are_read_by_the_library_for_them_and_by_nothing_else(config: str) -> None:
    _, names = loaded("status", "--config", config, HATHI_HEALTH__DISK_PERCENT="99")
    assert "pydantic_settings" in names
    assert "numpy" not in names


def test_doctor_of_a_gateway_loads_no_engine(config: str) -> None:
    _, names = loaded("doctor", "ship", "deliver", "--config", config)
    assert names <= {"numpy", "pipeline.nets"}, "the fingerprint that its boxes must have is of the net's weights"


def test_packages_and_own_modules_are_compiled_where_they_are_installed() -> None:
    script = (ROOT / "scripts" / "venv.sh").read_text()
    assert "--compile-bytecode" in script
    assert "compileall" in script
