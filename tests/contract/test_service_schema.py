"""The API held against its own document by schemathesis: what it takes, refuses, answers, and forgets.

The long form, which CI does not run: `python -m tests.contract.test_service_schema --max-examples 100`
(any options of `schemathesis run`; on SQLite).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.contract.test_service_isolation import furnished
from tests.servers.databases import sites
from tests.servers.promoting import Lake
from tests.servers.service import WEIGHTS, Person, Stand, standing

ROOT = Path(__file__).parents[2]
SEED = "20"
SHORT = ("--phases", "examples,fuzzing,stateful", "--max-examples", "2")
"""In CI: each route, and what leads on from what was created."""

CONFIG = """
request-timeout = 120.0
max-stream-events = 1
continue-on-failure = true
[auth.openapi]
token = {{ bearer = "{token}" }}
[generation]
database = "none"
[checks.positive_data_acceptance]  # the document cannot say what is there, which version it has, or what a text means
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "413", "416", "422", "428", "429", "503"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "416", "422", "428", "429"]
"""
READS = r"""
[[operations]]
include-method = "GET"
include-path-regex = '/{rooms}/\{{{name}\}}'
parameters = {{ "path.{name}" = "{value}"{more} }}
"""
ROOMS = {"job": "training-jobs"}
NAMES = {
    "job": "tj",
    "dataset": "ds",
    "datafile": "df",
    "solver": "so",
    "model": "mo",
    "classifier": "cl",
    "promotion": "pr",
}


def configured(who: Person, folder: Path, things: dict[str, str]) -> Path:
    """things: what is there to be read, by the two letters of its kind."""
    parts = [CONFIG.format(token=who.token)]
    for name, kind in NAMES.items():
        more = {"job": f', "path.iteration" = 10, "path.name" = "{WEIGHTS}"', "dataset": f', "path.name" = "{WEIGHTS}"',
                "model": ', "path.number" = 1, "path.alias" = "best"'}.get(name, "")  # fmt: skip
        parts.append(READS.format(name=name, rooms=ROOMS.get(name, f"{name}s"), value=things[kind], more=more))
    path = folder / "schemathesis.toml"
    path.write_text("".join(parts))
    return path


def against(stand: Stand, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What schemathesis says of a server, whose operator it is and an admin of a tenant there."""
    who = stand.person("ayes", "ann", platform=True)
    config = configured(who, folder, furnished(stand, who, "mark"))
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.schema_checks", "PYTHONPATH": str(ROOT)}
    program = Path(sys.executable).with_name("schemathesis")
    return subprocess.run(
        [program, "--config-file", config, "run", f"{stand.url}/openapi.json", "--checks", "all", "--seed", SEED,
         "--no-color", *options],
        cwd=folder, env=environ, capture_output=True, text=True,
    )  # fmt: skip


def stands(folder: Path) -> Iterator[Stand]:
    for site in sites("sqlite", folder, None):
        lake = Lake(folder / "promoting", folder / "bucket")
        lake.write({"ayes": ["b"]})
        with standing(site, folder, promoter=lake.promoter()) as stand:
            stand.nobody().got("GET", "/openapi.json")  # made once; schemathesis waits ten seconds for it
            yield stand


def test_the_api_is_what_its_document_says(tmp_path: Path) -> None:
    for stand in stands(tmp_path):
        done = against(stand, tmp_path, *SHORT)
        assert done.returncode == 0, "\n".join(line[:300] for line in done.stdout.splitlines())[-8000:] + done.stderr
        assert "Operations:" in done.stdout
        assert [said for said in stand.said if "database" not in said] == [], "nothing that an operator has to know of"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for one in stands(Path(name)):
            found = against(one, Path(name), *sys.argv[1:])
            print("\n".join(line[:400] for line in found.stdout.splitlines()), found.stderr, *one.said, sep="\n")
            code = found.returncode
    sys.exit(code)
