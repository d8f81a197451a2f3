"""tests/spark against several versions of Spark: `python -m tests.spark.matrix 4.0.1 4.1.4 [--only test_apps.py ...]`.

Each version has an environment of its own in the cache of the tests' servers: pyspark of that version, and behind it
the packages of this one.  It is made once; another call uses it again.  The last lines say what became of each version.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.servers.demand import cache

HERE = Path("tests/spark")


@dataclass(frozen=True)
class Ran:
    """summary: pytest's last line."""

    version: str
    code: int
    summary: str
    seconds: float


def environment(version: str) -> Path:
    """The Python of that version's environment."""
    folder = cache() / f"pyspark-{version}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        _make(version, folder, python)
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "hathi.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # of this call: its maker's may be gone
    return python


def _make(version: str, folder: Path, python: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), f"pyspark=={version}"], check=True)
    (folder / "whole").touch()


def run(version: str, files: list[str]) -> Ran:
    python = environment(version)
    found = subprocess.run(
        [python, "-c", "import pyspark; print(pyspark.__version__)"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == version, f"the environment of {version} has {found.stdout.strip()}"
    words = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "--durations", "25", *files]
    begun, last = time.monotonic(), ""
    with subprocess.Popen(
        words, cwd=ROOT, env=environ(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            last = line.strip() if re.search(r" in [\d.]+s", line) else last
    return Ran(version, tests.returncode, last, time.monotonic() - begun)


def main() -> int:
    """0 where all tests of all versions pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="of pyspark")
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="of tests/spark; default: all")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="of pytest: only tests whose names fit")
    args = parser.parse_args()
    files = [str(HERE / name) for name in args.only] or [str(HERE)]
    files += ["-k", args.k] if args.k else []
    ran = []
    for version in args.versions:
        print(f"== pyspark {version}", flush=True)
        ran.append(run(version, files))
    width = max(len(one.version) for one in ran)
    for one in ran:
        print(f"pyspark {one.version:<{width}}  {'ok    ' if one.code == 0 else 'FAILED'}  {one.seconds:6.0f} s  "
              f"{re.sub('=+', '', one.summary).strip()}")  # fmt: skip
    return int(any(one.code for one in ran))


if __name__ == "__main__":
    sys.exit(main())
