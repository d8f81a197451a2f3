"""The whole night: `python -m tests.night [NAME...] [--verbose]` does each fault (or those whose name holds NAME) and
prints the table.  Exit code 1 where a fault is not named with cause and remedy, or something is lost."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.night.deployment import in_folders
from tests.night.faults import FAULTS
from tests.night.trying import Found, attempt, table


def main(words: list[str]) -> int:
    verbose = "--verbose" in words
    names = [word for word in words if not word.startswith("--")]
    chosen = [one for one in FAULTS if not names or any(name in one.name for name in names)]
    done: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="hathi-night-") as folder, in_folders(Path(folder)) as deployment:
        for fault in chosen:
            found = attempt(deployment, fault)
            done.append(found)
            print("\n".join([*table([found])][:-1]), flush=True)
            if verbose or not found.passed:
                print(found.everything, flush=True)
    print([*table(done)][-1])
    return int(not all(one.passed for one in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
