"""Run inside a mount namespace of its own: a small file system is filled before each stage, then freed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.integration.conftest import OwnList


def main(folder: Path) -> None:
    own = OwnList(folder)
    own.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(own.out)], check=True)
    filler = own.out / "filler"
    seen: dict[str, object] = {}
    for stage in ("ship", "compute", "aggregate", "deliver"):
        own.run("ship", "--help")
        state = own.out / ".hathi" / "state" / "spill"
        state.mkdir(parents=True, exist_ok=True)
        fill(filler)
        full = own.run(stage)
        filler.unlink()
        freed = own.run(stage)
        seen[stage] = {"full": (full.returncode, full.stderr[-2000:]), "freed": freed.returncode}
    files = sorted(own.out.glob("*/*/features/*.parquet"))
    seen["features"] = sum(pq.read_metadata(file).num_rows for file in files)
    subprocess.run(["mount", "-o", "remount,ro", str(own.out)], check=True)
    (own.folder / "more.jsonl").write_text(own.refs.read_text())
    refused = own.run(refs=str(own.folder / "more.jsonl"))
    seen["read_only"] = (refused.returncode, refused.stderr[-2000:])
    print(json.dumps(seen))


def fill(path: Path) -> None:
    """Take all but a little of what is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - 3 * 4096))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
