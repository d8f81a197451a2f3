"""Many refs through local stores for hours, with kills: `python -m tests.crash.soak --refs 1000000`.

A gateway and a compute box that live all the while, and a second box on the same inbox that is killed once in each
tenth; a stub host, and OpenCV's descriptor as the net.  Memory and descriptors have to stay flat, and what 1,000 refs
cost in CPU and requests has to be in the last tenth what it was in the first, within 3 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pyarrow.parquet as pq

from tests.crash.site import Site, picture
from tests.crash.zygote import CACHED, COUNTED, COUNTS, Zygote

FILE_REFS = 2048
AHEAD = 6
"""So many files are on their way at most."""
KEPT_FILES = 20
"""Partners take old files away."""
TENTHS = 10
TOLERANCE = 0.03
MEMORY_TOLERANCE = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
ENVIRON = {
    "HATHI_SHIP__BATCH_REFS": "256",
    "HATHI_SHIP__BATCHES_PER_SHIPMENT": "8",
    "HATHI_COMPUTE__OPEN_BATCHES": "8",
    "HATHI_COMPUTE__LOST": "1000000",
    "HATHI_FETCH__REQUESTS_PER_SECOND": "1000000",
    "HATHI_FETCH__CONNECTIONS_PER_HOST": "8",
    "HATHI_DELIVER__INDEX_DAYS": "0.0004",
    "HATHI_DAEMON__POLL_SECONDS": "1",
    CACHED: "400",
}
HOSTS = {"gateway": ("ship", "deliver"), "box-a": ("compute", "aggregate"), "box-b": ("compute", "aggregate")}
LIVING = ("gateway", "box-a")


class Pictures(asyncio.Protocol):
    """A host that has one picture for every path."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        *whole, self.waiting = (self.waiting + data).split(b"\r\n\r\n")
        for _ in whole:
            self.transport.write(self.answer)  # type: ignore[attr-defined]


def serve_pictures(port: SimpleQueue[int]) -> None:
    """Runs for ever; tells its port."""
    body = picture(1)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    Pictures.answer = head.encode() + body

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Pictures, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@dataclass
class Part:
    """What one tenth took."""

    refs: int
    cpu: float
    calls: int
    lists: int
    polls: int
    memory: dict[str, int]
    """MB of the processes that live all the while."""
    descriptors: dict[str, int]

    @property
    def figures(self) -> dict[str, float]:
        """Of 1,000 refs."""
        thousands = self.refs / 1000
        return {"CPU s": self.cpu / thousands, "requests": self.calls / thousands}

    def told(self) -> str:
        figures = ", ".join(f"{value:.4f} {name}" for name, value in self.figures.items())
        return (
            f"{self.refs} refs; of 1,000: {figures}; {self.lists_a_poll:.2f} lists a poll; MB {self.memory}, "
            f"descriptors {self.descriptors}"
        )

    @property
    def lists_a_poll(self) -> float:
        """Its cost is that of open work, which is a few shipments here."""
        return self.lists / max(1, self.polls)


@dataclass
class Soak:
    """One long life."""

    folder: Path
    zygote: Zygote
    web: str
    running: dict[str, int] = field(default_factory=dict)
    spent: float = 0.0
    """CPU-seconds of processes that were killed."""
    kills: int = 0
    fed: int = 0
    finished: set[str] = field(default_factory=set)

    def site(self, name: str) -> Site:
        return Site(self.folder, self.zygote, name)

    def start(self, name: str) -> None:
        counts = self.folder / f"counts-{name}"
        if not counts.exists():
            counts.write_bytes(bytes(COUNTED.size))
        words = ["serve", *HOSTS[name]]
        environ = {**ENVIRON, COUNTS: str(counts)}
        self.running[name] = self.site(name).start(words, clock="", journal=False, **environ)  # type: ignore[arg-type]

    def run(self, refs: int) -> list[Part]:
        """The warm-up, then ten tenths."""
        for name in HOSTS:
            self.start(name)
        tenth = max(1, refs // TENTHS // FILE_REFS)
        self.pass_through(max(8, tenth // 2))
        parts = []
        for number in range(TENTHS):
            parts.append(self.part(tenth))
            print(f"tenth {number + 1}: {parts[-1].told()}", flush=True)
        return parts

    def part(self, files: int) -> Part:
        cpu, counts, fed = self.cpu(), self.counts(), self.fed
        self.pass_through(files - files // 2)
        self.kill()
        self.pass_through(max(0, fed + files - self.fed))
        used = [after - before for after, before in zip(self.counts(), counts, strict=True)]
        return Part(
            (self.fed - fed) * FILE_REFS, self.cpu() - cpu, *used,  # type: ignore[arg-type]
            memory={name: self.memory(name) for name in LIVING},
            descriptors={name: len(os.listdir(f"/proc/{self.running[name]}/fd")) for name in LIVING},
        )  # fmt: skip

    def pass_through(self, files: int) -> None:
        """Feed so many files and wait until all are delivered."""
        last = self.fed + files
        while self.fed < last:
            self.wait_for(self.fed - AHEAD + 1)
            self.feed()
        self.wait_for(last)

    def feed(self) -> None:
        self.fed += 1
        partner = 7 + self.fed % 2
        lines = [
            json.dumps({"partner_id": partner, "external_id": f"{self.fed}-{n}", "url": f"{self.web}/{self.fed}/{n}"})
            for n in range(FILE_REFS)
        ]
        self.site("gateway").refs(f"{self.fed:06d}.jsonl", lines, at=time.time())
        (self.folder / "lake" / "refs" / f"{self.fed - KEPT_FILES:06d}.jsonl").unlink(missing_ok=True)

    def wait_for(self, files: int) -> None:
        """Until so many shipments are delivered."""
        commits = self.folder / "bucket" / "shop" / "c"
        while len(self.finished) < files:
            time.sleep(0.2)
            new = set(os.listdir(commits)) - self.finished if commits.exists() else set()
            self.finished |= {name for name in new if (commits / name / "done").exists()}
            for name, pid in self.running.items():
                if not Path(f"/proc/{pid}/fd").exists():
                    raise SystemExit(f"{name} is gone: {self.site(name).said}")

    def kill(self) -> None:
        """The second box, in the middle of something."""
        for _ in range(2):
            self.feed()
        time.sleep(1.0)
        self.spent += self.cpu_of(self.running["box-b"])
        os.kill(self.running["box-b"], signal.SIGKILL)
        self.zygote.wait(self.running["box-b"])
        self.kills += 1
        self.start("box-b")
        self.wait_for(self.fed)

    def cpu(self) -> float:
        return self.spent + sum(self.cpu_of(pid) for pid in self.running.values())

    def cpu_of(self, pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.running[name]}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

    def counts(self) -> list[int]:
        found = [COUNTED.unpack((self.folder / f"counts-{name}").read_bytes()) for name in HOSTS]
        return [sum(column) for column in zip(*found, strict=True)]

    def end(self) -> str:
        """What is wrong at the end; "" where nothing is."""
        for name, pid in self.running.items():
            os.kill(pid, signal.SIGTERM)
            if (code := self.zygote.wait(pid)) != 0:
                return f"{name} ended with {code}: {self.site(name).said}"
        files = (self.folder / "lake" / "features").glob("2*/*/features/*.parquet")
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        if rows != self.fed * FILE_REFS:
            return f"{rows} features of {self.fed * FILE_REFS} refs"
        if self.site("gateway").hathi("verify", "--deep", clock="", journal=False, **ENVIRON) != 0:
            return self.site("gateway").said
        return ""


def judged(parts: list[Part]) -> list[str]:
    """What grew from the first tenth to the last."""
    first, last = parts[0], parts[-1]
    found = [
        f"{name}: {first.figures[name]:.4f} in the first tenth, {value:.4f} in the last"
        for name, value in last.figures.items()
        if value > first.figures[name] * (1 + TOLERANCE)
    ]
    if last.lists_a_poll > first.lists_a_poll + 1:
        found.append(f"lists a poll: {first.lists_a_poll:.2f}, then {last.lists_a_poll:.2f}")
    for name in LIVING:
        if last.memory[name] > first.memory[name] * (1 + MEMORY_TOLERANCE):
            found.append(f"memory of {name}: {first.memory[name]} MB, then {last.memory[name]} MB")
        if last.descriptors[name] > first.descriptors[name] + 2:
            found.append(f"descriptors of {name}: {first.descriptors[name]}, then {last.descriptors[name]}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where it happens; a temporary one by default")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hathi-soak-", dir=args.folder))
    context = get_context("spawn")
    port: SimpleQueue[int] = context.SimpleQueue()
    host = context.Process(target=serve_pictures, args=(port,), daemon=True)
    host.start()
    zygote = Zygote()
    try:
        soak = Soak(folder, zygote, f"http://127.0.0.1:{port.get()}")
        parts = soak.run(args.refs)
        wrong = [*filter(None, [soak.end()]), *judged(parts)]
    finally:
        zygote.close()
        host.kill()
    print(f"{soak.fed * FILE_REFS} refs, {soak.kills} kills; {'; '.join(wrong) or 'flat, and all is delivered'}")
    shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
