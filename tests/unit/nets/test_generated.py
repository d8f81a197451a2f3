"""The generated protobuf code in git is what the script makes of proto/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_generated_code_is_what_the_script_makes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "generate.sh", tmp_path], check=True, env=environment, timeout=60)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2.py*"))
    kept = sorted(path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*_pb2.py*") if path.suffix != ".pyc")
    assert made == kept
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run scripts/generate.sh"


def test_every_definition_is_generated() -> None:
    script = (ROOT / "scripts" / "generate.sh").read_text()
    for path in (ROOT / "proto").glob("*.proto"):
        assert f"generate {path.name} " in script
