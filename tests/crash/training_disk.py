"""Run inside a mount namespace of its own: trainings whose disk is full or becomes so, and then has room again.

`python -m tests.crash.training_disk FOLDER`; prints a JSON object: by case the exit code, what was said, what is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.crash.mounts import fill, mount
from tests.crash.test_training_kills import Forks, folder_of, log, until

CHILD = "child"
LONG = "max_iter: 1000000\nrandom_seed: 3\n"


class Place:
    """A disk of one megabyte for what trainings write."""

    def __init__(self, root: Path) -> None:
        self.forks, self.root, self.told = Forks(), root, dict[str, object]()
        self.disk = root / "disk"
        self.disk.mkdir()

    def fresh(self, name: str, more: str) -> Path:
        """A folder for a case; its snapshots go to the disk, which is empty."""
        subprocess.run(["umount", "-q", str(self.disk)], check=False)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.disk)], check=True)
        folder = folder_of(self.root / name, more)
        solver = folder / "solver.prototxt"
        solver.write_text(solver.read_text().replace('snapshot_prefix: "s"', f'snapshot_prefix: "{self.disk}/s"'))
        (folder / "spec.json").write_text('{"solver": "solver.prototxt", "threads": 1}')
        return folder

    def words(self, kind: str) -> list[str]:
        command = ["train", "solver.prototxt", "--threads", "1", "--no-check"]
        return [CHILD, "run", "spec.json", str(self.disk / "out")] if kind == CHILD else command

    def end(self, name: str, folder: Path) -> None:
        left = [str(path.relative_to(self.disk)) for path in sorted(self.disk.rglob("*")) if path.is_file()]
        self.told[name] = {"code": self.forks.ended(), "said": log(folder), "left": left}


def room(disk: Path, left: int) -> None:
    """Takes all but so many bytes."""
    fill(disk / "filler")
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - left)


def before(place: Place, kind: str, left: int) -> None:
    name = f"{kind} begins with {left}"
    folder = place.fresh(name, LONG)
    room(place.disk, left)
    place.forks.start(folder, place.words(kind))
    place.end(name, folder)


def later(place: Place, kind: str, how: str) -> None:
    """The disk takes nothing more once a snapshot is there; the same again once it does."""
    name = f"{kind} {how}"
    folder = place.fresh(name, LONG)
    place.forks.start(folder, place.words(kind))
    until(lambda: any(place.disk.rglob("*resume.json")) or any(place.disk.rglob("_manifest.json")))
    if how == "full":
        fill(place.disk / "filler")
    else:
        mount(place.disk, "ro")
    place.end(name, folder)
    if how == "full":
        (place.disk / "filler").unlink()
    else:
        mount(place.disk, "rw")
    solver = folder / "solver.prototxt"
    solver.write_text(solver.read_text().replace("snapshot: 10", "snapshot: 100000"))
    (folder / "log.txt").unlink()
    until_words = ["--until", "100"] if kind != CHILD else []
    if kind == CHILD:
        (folder / "spec.json").write_text('{"solver": "solver.prototxt", "threads": 1, "until": 100}')
    place.forks.start(folder, [*place.words(kind), *until_words])
    place.end(f"{name}, again", folder)


def main(root: Path) -> None:
    place = Place(root)
    try:
        for kind in ("command", CHILD):
            before(place, kind, 0)
            before(place, kind, 20 * 1024)
            later(place, kind, "full")
        later(place, "command", "read-only")
        print(json.dumps(place.told))
    finally:
        place.forks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
