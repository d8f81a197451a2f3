"""An archive that becomes a dataset beside the bare decoding of its pictures, in the same run.

`python -m tests.benchmarks.service_import [--pictures N]`: JPEGs of 800x600 in a tar, no two of them equal.  The
import reads, checks, decodes, packs and splits them; the bare one decodes them by OpenCV from memory, on one core.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tarfile
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from pipeline.clock import Clock
from pipeline.service.database.statements import Database
from pipeline.service.work.attempt import Hands
from pipeline.service.work.worker import work
from tests.servers.databases import sites
from tests.servers.service import Stand, standing

DISTINCT, LABELS = 24, 10


def pictures(number: int) -> list[bytes]:
    """JPEGs that decode to a few pictures; a comment makes each another file."""
    found = []
    for seed in range(DISTINCT):
        coarse = np.random.default_rng(seed).integers(0, 255, (60, 80, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (800, 600), interpolation=cv2.INTER_CUBIC)
        found.append(bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]))
    return [one[:2] + b"\xff\xfe\x00\x0a%08d" % at + one[2:] for at in range(number) for one in [found[at % DISTINCT]]]


def packed(files: list[bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for at, content in enumerate(files):
            member = tarfile.TarInfo(f"label{at % LABELS}/{at}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def decoded(files: list[bytes]) -> float:
    """Pictures a second on one core that is free."""
    cv2.setNumThreads(1)
    computed = time.process_time()
    for one in files:
        if cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR).shape != (600, 800, 3):
            raise RuntimeError("a picture is another one")
    return len(files) / (time.process_time() - computed)


def imported(stand: Stand, files: list[bytes]) -> tuple[float, float]:
    """Pictures a second of the wall, and a second of the processor, from the claim to the whole dataset."""
    ann = stand.person("bench", "ann")
    given = {"name": "d", "datafile_id": ann.datafile(packed(files))}
    made = ann.got("POST", "/v1/datasets", given)

    async def works(database: Database) -> None:
        hands = Hands(database, stand.store, Clock(), stand.folder / "scratch", lambda: False, lambda said: None)
        await work(hands, once=True)

    began, computed = time.monotonic(), _computed()
    stand.site.run(works(stand.site.open()))
    took, computed = time.monotonic() - began, _computed() - computed
    end = ann.got("GET", f"/v1/datasets/{made['id']}")
    if end["state"] != "succeeded" or end["contents"]["examples"] != len(files):
        raise RuntimeError(f"{end['state']}: {end['detail']} {end.get('contents')}")
    return len(files) / took, len(files) / computed


def _computed() -> float:
    """Seconds of the processor, of this process and of its children that have ended."""
    both = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    args = parser.parse_args()
    files = pictures(args.pictures)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {len(files[0]) // 1024} KiB a picture", flush=True)
    with tempfile.TemporaryDirectory(prefix="hathi-bench-") as name:
        folder = Path(name)
        for site in sites("sqlite", folder, None):
            with standing(site, folder) as stand:
                before, (wall, busy), after = decoded(files), imported(stand, files), decoded(files)
                bare = (before + after) / 2
                print(f"import: {wall:.0f} pictures/s, and {busy:.0f} a second of the processor; one core decodes "
                      f"{bare:.0f}; ratio {wall / bare:.2f} (goal 0.60)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
