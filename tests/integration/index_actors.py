"""Writers and a reader of one index as real processes, killed at random: `python -m ... FOLDER SECONDS SEED`.

One process has everything imported and forks the others, so that a restart costs nothing.  Prints what happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ledger.deliveries import Delivery, IndexFile
from pipeline.ledger.layout import Root, ShipmentName, version_of
from pipeline.ledger.manifest import Done
from pipeline.ledger.protocol import Context, commit
from pipeline.process.host import this_process
from pipeline.settings import Settings
from pipeline.stages import index
from pipeline.stores.local import LocalStore

ROOT = Root("features")
WRITERS = 4
BEGIN = 1_700_000_000


@dataclass(frozen=True)
class Ground:
    """The folders that all of them share."""

    folder: Path

    @property
    def lake(self) -> LocalStore:
        return LocalStore(self.folder / "lake", fsync=False)

    @property
    def target(self) -> Path:
        return self.folder / "lake" / ROOT.root

    def context(self) -> Context:
        values: dict[str, Any] = {
            "bucket": {"url": str(self.folder / "bucket")},
            "lakes": {"shop": {"url": str(self.folder / "lake")}},
        }
        return Context(
            lake_name="shop",
            bucket=LocalStore(self.folder / "bucket", fsync=False),
            lake=self.lake,
            settings=Settings.model_validate(values),
            process=this_process(),
            spill=self.folder,
        )


def write(ground: Ground, writer: int, until: float) -> None:
    """Take up what a killed predecessor left, then deliver until the time is over."""
    context = ground.context()
    journal = ground.folder / f"journal-{writer}"
    journal.touch()
    noted = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    left = [numbers for numbers in noted if not _done(ground, context, writer, numbers)]
    for numbers in left:
        _deliver(ground, context, writer, numbers["numbers"])
    random_ = random.Random(f"{writer} {len(noted)}")
    first = 1 + max((max(one["numbers"]) for one in noted), default=0)
    while time.monotonic() < until:
        numbers = list(range(first, first + random_.randint(1, 3)))
        with journal.open("a") as file:
            file.write("\n" + json.dumps({"numbers": numbers}) + "\n")
        _deliver(ground, context, writer, numbers)
        first = numbers[-1] + 1


def _done(ground: Ground, context: Context, writer: int, noted: dict[str, list[int]]) -> bool:
    keys = [context.keys.done(_name(writer, number)) for number in noted["numbers"]]
    return all((ground.folder / "bucket" / key).exists() for key in keys)


def _deliver(ground: Ground, context: Context, writer: int, numbers: list[int]) -> None:
    """Folders that appear whole, the index for all of them, then `done` of each: as the stage does it."""
    lake = ground.lake
    entries: dict[str, list[Delivery]] = {}
    for number in numbers:
        name = _name(writer, number)
        partner = number % 7
        content = f"{name} {partner}".encode() * 50
        file = IndexFile(name="part.bin", size=len(content), sha256=hashlib.sha256(content).hexdigest(), rows=1)
        target = ROOT.partner(name, partner)
        if lake.stat(target) is None:
            source = f"{ROOT.temporary(name, context.process.nonce())}/{partner}"
            lake.put(f"{source}/part.bin", content)
            lake.make_folder(ROOT.shipment(name))
            lake.rename_new(source, target)
        entries[context.keys.done(name)] = [
            Delivery(
                folder=f"{name}/{partner}", partner_id=partner, files=(file,), features=1, failures=0,
                fingerprint="f", jobTimeStamp=name.version, round=0, generation=0, delivered="",
            )
        ]  # fmt: skip
    index.enter(context, ROOT, entries, version_of(time.time()))
    for key in entries:
        commit(context, key, Done(folders=(), at=version_of(time.time())))


def _name(writer: int, number: int) -> ShipmentName:
    version = version_of(BEGIN + number)
    return ShipmentName.of("shop", f"{writer} {number}", "demo", version, 0, 0, 0)


def read(ground: Ground) -> None:
    """Follow the index: valid JSON, never back, nothing lost, and every byte as it says.  Writes its counts."""
    path, end = ground.folder / "lake" / ROOT.index, ground.folder / "read no more"
    version, known, reads = 0, {}, 0
    while True:
        last = end.exists()
        if path.exists():
            reads += 1
            found = json.loads(path.read_bytes())
            assert found["version"] >= version, f"went back from {version} to {found['version']}"
            now = {one["folder"]: one["files"] for one in found["deliveries"]}
            assert len(now) == len(found["deliveries"]), "a delivery stands twice"
            lost = known.keys() - now.keys()
            assert not lost, f"version {found['version']} lost {sorted(lost)}"
            for folder in now.keys() - known.keys():
                for file in now[folder]:
                    content = (ground.target / folder / file["name"]).read_bytes()
                    assert len(content) == file["size"]
                    assert hashlib.sha256(content).hexdigest() == file["sha256"], folder
            for partner in found["partners"].values():
                assert all((ground.target / name).exists() for name in partner["files"])
            version, known = found["version"], now
        if last:
            break
        time.sleep(0.001)
    (ground.folder / "reader").write_text(json.dumps({"reads": reads, "version": version, "listed": len(known)}))


def fork(act: Callable[[], None], children: set[int]) -> int:
    pid = os.fork()
    if pid:
        children.add(pid)
        return pid
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path, seconds: float, seed: int) -> dict[str, int]:
    children: set[int] = set()
    try:
        return _run(Ground(folder), seconds, random.Random(seed), children)
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _run(ground: Ground, seconds: float, random_: random.Random, children: set[int]) -> dict[str, int]:
    until = time.monotonic() + seconds

    def start(writer: int, until: float) -> int:
        return fork(lambda: write(ground, writer, until), children)

    def ended(pid: int) -> int:
        status = os.waitpid(pid, 0)[1]
        children.discard(pid)
        return status

    reader = fork(lambda: read(ground), children)
    writers = {writer: start(writer, until) for writer in range(WRITERS)}
    kills = 0
    while time.monotonic() < until - 1.0:
        time.sleep(random_.uniform(0.0, 0.12))
        victim = random_.randrange(WRITERS)
        os.kill(writers[victim], signal.SIGKILL)
        assert os.WIFSIGNALED(ended(writers[victim])), f"writer {victim} ended by itself"
        kills += 1
        writers[victim] = start(victim, until)
    for pid in writers.values():
        assert ended(pid) == 0, "a writer failed"
    for writer in range(WRITERS):  # whatever is left is taken up, and nothing new is begun
        assert ended(start(writer, 0.0)) == 0, "a writer failed"
    (ground.folder / "read no more").touch()
    assert ended(reader) == 0, "the reader found something"
    return {"kills": kills, **json.loads((ground.folder / "reader").read_text()), **_left(ground)}


def _left(ground: Ground) -> dict[str, int]:
    """What stands at the end."""
    found = json.loads((ground.target / "outputByPartner").read_bytes())
    listed = {one["folder"] for one in found["deliveries"]}
    standing = {f"{path.parent.name}/{path.name}" for path in ground.target.glob("*Z.*/*")}
    assert standing == listed, f"{len(standing - listed)} are not listed, {len(listed - standing)} do not stand"
    proposals = {int(path.name): path for path in (ground.target / "_index").iterdir() if path.is_file()}
    assert max(proposals) <= found["version"], "a proposal stands that is not taken"
    assert sorted(proposals) == list(range(1, found["version"] + 1)), "each version has its one proposal"
    named = {json.loads(path.read_bytes())["token"] for path in proposals.values()}
    tokens = {path.name for path in (ground.target / "_index" / "tokens").iterdir()}
    assert not named & tokens, "a token that was proposed was not moved"
    return {"deliveries": len(standing), "versions": found["version"], "stray_tokens": len(tokens)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
