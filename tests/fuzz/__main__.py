"""`python -m tests.fuzz --seconds 600 [TARGET...]`: the long form; exit code 1 when something was found."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.fuzz.driving import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all of them, or some of {' '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=600.0, help="of processor time for each target (600)")
    parser.add_argument("--seed", default="1", help="equal seeds, equal inputs (1)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="targets at once (cores)")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that show something")
    chosen = parser.parse_args()
    unknown = set(chosen.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {' '.join(sorted(unknown))}")
    found = 0
    for told in fuzz(chosen.targets or list(TARGETS), chosen.seconds, chosen.seed, chosen.jobs):
        print(f"{told.target:<12} {told.inputs:>9} inputs {told.seconds:>7.1f} s {told.outcomes:>5} outcomes "
              f"{len(told.findings):>3} findings", flush=True)  # fmt: skip
        for finding in told.findings:
            found += 1
            print(f"  {finding.kind}: {len(finding.data)} bytes, {finding.file}")
            print("    " + finding.detail.strip().replace("\n", "\n    "))
            if chosen.keep:
                chosen.keep.mkdir(parents=True, exist_ok=True)
                (chosen.keep / finding.file).write_bytes(finding.data)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
