"""Whether the time of an answer tells another tenant's job from one that never was: 2,000 pairs, turn by turn.

`python -m tests.benchmarks.service_never_was` prints both medians and by how much they differ; wall time, so that it
asserts nothing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from pipeline.service.ids import Kind, new_id
from tests.servers.databases import sites
from tests.servers.service import standing

PAIRS = 2000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for site in sites("sqlite", Path(name), None):
            with standing(site, Path(name)) as stand:
                theirs, mine = stand.person("ayes", "ann"), stand.person("bees", "ben")
                job = theirs.job()
                taken: dict[bool, list[float]] = {True: [], False: []}
                for number in range(PAIRS):
                    for there in (number % 2 == 0, number % 2 == 1):
                        asked = job if there else new_id(Kind.TRAINING_JOB, time.time())
                        begin = time.perf_counter()
                        assert mine.ask("GET", f"/v1/training-jobs/{asked}").status_code == 404
                        taken[there].append(time.perf_counter() - begin)
                not_yours, never = statistics.median(taken[True]), statistics.median(taken[False])
                differ = abs(not_yours - never) / never
                print(f"not yours {not_yours * 1e3:.3f} ms, never was {never * 1e3:.3f} ms: {differ:.2%} of it")


if __name__ == "__main__":
    main()
