"""ESTOP and signals at random instants, against real processes (docs/protocol.md 13).

DRAIN_ROUNDS=100 DRAIN_SEED=7 pytest -s tests/integration/test_drain.py is the long form; it prints what it did.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.process.lock import holder
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row

ROUNDS = int(os.environ.get("DRAIN_ROUNDS", "14"))
SEED = int(os.environ.get("DRAIN_SEED", "1"))
STOP_SECONDS = 10.0
AT_ONCE_SECONDS = 2.0
ITEMS = 240
NOT_BEGUN = {-signal.SIGTERM, -signal.SIGINT, 130, 143}
"""Exit codes of a process that was ended before it had taken its locks: the interpreter's own."""
HOW = ("ESTOP", "SIGTERM", "SIGINT", "two SIGINTs")


class Slow(BaseHTTPRequestHandler):
    """Pictures by number, each a little later than asked for; what begins with /later/ waits to be let through."""

    protocol_version = "HTTP/1.1"
    let_through = threading.Event()

    def do_GET(self) -> None:
        time.sleep(0.03)
        if self.path.startswith("/later/"):
            self.let_through.wait(60)
        content = picture(int(self.path.rpartition("/")[2].partition(".")[0]))
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the process that asked was stopped
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


class Web(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the process that asked was stopped
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = Web(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Place:
    """A lake, a bucket and a state folder of their own, and a configuration over them."""

    folder: Path
    refs: str
    weights: Path

    def __post_init__(self) -> None:
        source = self.folder / "lake" / "refs" / "items.jsonl"
        source.parent.mkdir(parents=True)
        source.write_text(self.refs)
        os.utime(source, (1_700_000_000, 1_700_000_000))
        self.config.write_text(f'''
state = "{self.state}"
[bucket]
url = "{self.folder / "bucket"}"
fsync = false
[lakes.shop]
url = "{self.folder / "lake"}"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "{ROOT / "sample" / "random_features.prototxt"}"
weights = "{self.weights}"
blob = "features"
root = "features"
[ship]
batch_refs = 16
batches_per_shipment = 8
[fetch]
allow_private = true
requests_per_second = 1000.0
connections_per_host = 8
[compute]
threads = 1
open_batches = 2
[daemon]
poll_seconds = 0.2
[logs]
folder = "{self.folder / "logs"}"
''')

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def complete(self) -> bool:
        """Whether every part is delivered."""
        commits = self.folder / "bucket" / "shop" / "c"
        parts = [json.loads(end.read_text()) for end in commits.glob("*/end")]
        done = len(list(commits.glob("*/done")))
        return any(part["next"] is None for part in parts) and done == len(parts)

    def start(self, command: str, **more: str) -> subprocess.Popen[str]:
        words = {"run": ["run"], "serve": ["serve", "ship", "compute", "aggregate", "deliver"]}[command]
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli.main", words[0], "--config", str(self.config), *words[1:]],
            cwd=ROOT,
            env={**environ(), **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def delivered(self) -> dict[str, object]:
        """What a consumer sees: rows and texts, under names that are the same wherever the lake is."""
        root = self.folder / "lake" / "features"
        found: dict[str, object] = {}
        for path in sorted(root.glob("*T*/*/**/*")):
            name = path.relative_to(root).as_posix()
            if path.suffix == ".parquet":
                found[name] = [
                    {key: value for key, value in one.items() if key != "fetched_at"}
                    for one in pq.read_table(path).to_pylist()
                ]
            elif path.name.endswith(".gz"):
                found[name] = gzip.decompress(path.read_bytes())
            elif path.is_file() and path.name != "_manifest.json":
                found[name] = path.read_bytes()
        return found

    def left(self) -> list[str]:
        """What a stopped process should not have left in the state folder."""
        known = {"ship.lock", "compute.lock", "aggregate.lock", "deliver.lock", "spill", "ESTOP"}
        known |= {"health.lock", "health.json", ".health.json", "fingerprints"}
        found = {path.name for path in self.state.iterdir()} if self.state.exists() else set()
        return sorted(name for name in found - known if not name.startswith("pruned."))


@dataclass
class Round:
    """One interruption."""

    command: str
    how: str
    at: float
    begun: bool = False
    ended_itself: bool = False
    took: float = 0.0
    code: int = 0
    said: str = field(default="", repr=False)

    def expected(self) -> set[int]:
        if self.ended_itself:
            return {0}
        asked, term = ({130}, {143}) if self.command == "run" else ({0}, {0})
        codes = {"ESTOP": {4}, "SIGTERM": term, "SIGINT": asked, "two SIGINTs": asked | {130, -signal.SIGINT}}[self.how]
        return codes if self.begun or self.how == "ESTOP" else codes | NOT_BEGUN


def interrupt(place: Place, one: Round, pause: float) -> None:
    """Start, wait for the instant, interrupt, and note how the process ended."""
    estop = place.state / "ESTOP"
    with place.start(one.command) as process:
        try:
            process.wait(one.at)
            one.ended_itself = True
        except subprocess.TimeoutExpired:
            one.begun = holder(place.state, "compute") is not None
        began = time.monotonic()
        if one.how == "ESTOP":
            place.state.mkdir(exist_ok=True)
            estop.touch()
        else:
            process.send_signal(signal.SIGTERM if one.how == "SIGTERM" else signal.SIGINT)
            if one.how == "two SIGINTs":
                time.sleep(pause)
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
        try:
            one.said = process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            one.said = "NOT STOPPED " + process.communicate()[1]
        one.took = time.monotonic() - began
        one.code = process.returncode
    estop.unlink(missing_ok=True)


def check(place: Place, one: Round, length: float) -> None:
    """length: seconds that a whole run takes on this machine, just now."""
    what = f"{one}\n{one.said}"
    ended = one.expected() | ({0} if one.command == "run" and place.complete else set())
    assert one.code in ended, what
    assert "NOT STOPPED" not in one.said, what
    if one.begun:  # what has not, is still being imported, and does no work
        at_once = max(AT_ONCE_SECONDS, length / 2)
        assert one.took < (at_once if one.how == "two SIGINTs" else STOP_SECONDS), what
        assert "Traceback" not in one.said, what
    assert place.left() == [], what


def test_stopped_at_any_instant_it_ends_in_time_and_the_next_start_goes_on(web: str, tmp_path: Path) -> None:
    weights = tmp_path / "random.caffemodel"
    random_features.write(weights)
    lines = [row(f"sku-{n}", picture(n), n % 3) for n in range(0, ITEMS, 2)]
    lines += [
        json.dumps({"partner_id": n % 3, "external_id": f"sku-{n}", "url": f"{web}/{n}.png"})
        for n in range(1, ITEMS, 2)
    ]
    lines.append(json.dumps({"partner_id": 1, "external_id": "none", "url": "not a URL"}))

    def place(name: str) -> Place:
        return Place(tmp_path / name, "\n".join(sorted(lines)), weights)

    whole = place("whole")
    began = time.monotonic()
    with whole.start("run") as process:
        said = process.communicate(timeout=120)[1]
    length = time.monotonic() - began
    assert process.returncode == 0, said
    assert whole.complete
    expected = whole.delivered()
    assert sum(len(rows) for name, rows in expected.items() if "/features/" in name) == ITEMS  # type: ignore[arg-type]

    random_ = random.Random(SEED)
    rounds: list[Round] = []
    finished = 0
    places = {"run": place("run-0"), "serve": place("serve-0")}
    for number in range(ROUNDS):
        command = ("run", "serve")[number % 2]
        how = random_.choice(HOW)
        one = Round(command, how, round(random_.uniform(0.0, length), 3))
        here = places[command]
        interrupt(here, one, random_.uniform(0.0, 0.3))
        rounds.append(one)
        check(here, one, length)
        if here.complete:
            assert here.delivered() == expected
            finished += 1
            places[command] = place(f"{command}-{number + 1}")
    for here in places.values():
        with here.start("run") as process:
            said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
        assert here.complete
        assert here.delivered() == expected
    report(rounds, length, finished + len(places))


def report(rounds: list[Round], length: float, finished: int) -> None:
    for one in rounds:
        state = "ended by itself" if one.ended_itself else "at work" if one.begun else "starting or ending"
        print(f"{one.command:5} {one.how:11} at {one.at:6.3f} s ({state}): exit {one.code} after {one.took:.2f} s")
    cut = [one for one in rounds if not one.ended_itself]
    slowest = max(cut, key=lambda one: one.took, default=None)
    kinds = Counter((one.how, one.begun) for one in cut)
    print(f"{len(rounds)} rounds, seed {SEED}, a whole run takes {length:.1f} s; {len(cut)} interrupted, "
          f"{sum(one.begun for one in cut)} of them at work; {finished} places finished, all equal")  # fmt: skip
    print(", ".join(f"{how} {count}" for how, count in sorted(Counter(how for how, _ in kinds.elements()).items())))
    if slowest is not None:
        print(f"slowest stop: {slowest.took:.2f} s ({slowest.command}, {slowest.how} at {slowest.at:.3f} s)")


def test_a_hung_run_ends_itself_with_its_stacks_and_the_next_one_does_the_work(web: str, tmp_path: Path) -> None:
    weights = tmp_path / "random.caffemodel"
    random_features.write(weights)
    item = {"partner_id": 1, "external_id": "a", "url": f"{web}/later/1.png"}
    here = Place(tmp_path / "here", json.dumps(item), weights)
    Slow.let_through.clear()
    began = time.monotonic()
    with here.start("run", HATHI_DAEMON__WATCHDOG_SECONDS="6") as process:
        said = process.communicate(timeout=60)[1]
    took = time.monotonic() - began
    assert process.returncode == -signal.SIGKILL, said
    assert 6 < took < 40
    assert "Alert: this process fetched, computed and committed nothing for 6 s" in said
    assert "fetched, computed and committed nothing" in (here.folder / "logs" / "run.log").read_text()
    assert "_pump" in (here.folder / "logs" / "run.stacks").read_text(), "where it hung"
    assert here.left() == ["_PIPE_RUNNING"]

    Slow.let_through.set()
    with here.start("run") as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "the last run died" in said
    assert here.complete
    assert here.left() == []
    assert list((here.state / "spill").iterdir()) == []


def test_an_idle_daemon_is_left_alone(web: str, tmp_path: Path) -> None:
    weights = tmp_path / "random.caffemodel"
    random_features.write(weights)
    here = Place(tmp_path / "here", "", weights)
    with here.start("serve", HATHI_DAEMON__WATCHDOG_SECONDS="4") as process:
        while not list((here.folder / "bucket").glob("shop/c/*/end")) and process.poll() is None:
            time.sleep(0.05)  # until the empty file is shipped, and nothing is left to do
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(9)
        process.terminate()
        said = process.communicate(timeout=15)[1]
    assert process.returncode == 0, said
    assert not (here.folder / "logs" / "ship-compute-aggregate-deliver.stacks").exists()
