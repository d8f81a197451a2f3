"""What strangers give to a training: it is refused by name before the first iteration, or said in the log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main as command
from pipeline.codec import caffe_pb2
from pipeline.errors import Diverged, OutOfMemory, SolverError
from pipeline.training import solverstate
from pipeline.training.__main__ import main as child
from pipeline.training.data.database import Database
from pipeline.training.data.source import Labels, Trouble
from pipeline.training.job import Wanted
from pipeline.training.out_of_memory import enough_memory
from pipeline.training.solver import Flags
from pipeline.training.solverstate import Head
from tests.unit.training.runs import GOLDEN, Within, folder_of, train

lmdb = pytest.importorskip("lmdb")
CASE = GOLDEN / "training_stream" / "adam_step"
SOLVER = Path("solver.prototxt")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The golden case, to be changed; the current folder."""
    where = folder_of(CASE, tmp_path)
    for name in ("solver.prototxt", "net.prototxt"):
        text = (where / name).read_text()
        (where / name).unlink()
        (where / name).write_text(text)
    shutil.copytree(CASE.parent / "db", where / "db")
    change("net.prototxt", '"../db"', '"db"', where)
    with Within(where):
        yield where


def change(name: str, old: str, new: str, folder: Path = Path()) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def solver_of(kind: str, momentum: str = "") -> None:
    change("solver.prototxt", 'type: "Adam"', f'type: "{kind}"')
    text = SOLVER.read_text()
    SOLVER.write_text("".join(line for line in text.splitlines(True) if "momentum" not in line) + momentum)


# --- texts ---


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("crop_size: 24", "crop_size: abc", "layer 'data' cannot be read.*Couldn't parse integer: abc"),
        ("crop_size: 24", "crop_size: 24 foo: 3", "layer 'data' cannot be read.*no field named \"foo\""),
        ("scale: 0.015625", "scale: nan", "layer 'data': transform_param.scale is nan"),
        ("batch_size: 16", "batch_size: -8", "layer 'data' cannot be read"),
        ('top: "loss"', 'top: "loss" loss_weight: inf', "loss_weight is inf"),
        ('type: "InnerProduct"', 'type: "InnerProduct" param { lr_mult: nan }', "param.lr_mult is nan"),
    ],
)
def test_what_of_a_net_cannot_be_read_or_is_no_number_is_refused_and_not_left_out(
    old: str, new: str, says: str, folder: Path
) -> None:
    change("net.prototxt", old, new)
    with pytest.raises(SolverError, match=says):
        train(Wanted(SOLVER))


def test_a_solver_from_another_folder_says_where_its_paths_begin(folder: Path) -> None:
    (folder / "other").mkdir()
    with Within(folder / "other"), pytest.raises(SolverError, match="paths begin in the current folder"):
        train(Wanted(Path("../solver.prototxt")))


def test_tests_that_no_test_iter_asks_for_are_said(folder: Path) -> None:
    text = SOLVER.read_text()
    SOLVER.write_text("".join(line for line in text.splitlines(True) if "test_iter" not in line) + "test_interval: 5\n")
    run = train(Wanted(SOLVER, until=1))
    assert "test_interval and no test_iter: the net is never tested" in "".join(run.lines)


# --- snapshots ---


def snapshot_of(kind: str, momentum: str = "") -> Path:
    """A state after one iteration of another solver, beside its weights and its manifest."""
    text = SOLVER.read_text()
    solver_of(kind, momentum)
    train(Wanted(SOLVER, until=1))
    SOLVER.write_text(text)
    return Path("s_iter_1.solverstate")


@pytest.mark.parametrize(("wrote", "momentum"), [("SGD", "momentum: 0.9\n"), ("RMSProp", ""), ("Nesterov", "")])
def test_a_state_of_another_solver_is_refused_by_the_solver_that_wrote_it(
    wrote: str, momentum: str, folder: Path
) -> None:
    state = snapshot_of(wrote, momentum)
    solver_of("AdaGrad")
    with pytest.raises(SolverError, match=f"its history is of {wrote}, not of AdaGrad"):
        train(Wanted(SOLVER, snapshot=state))


def test_without_a_manifest_the_numbers_tell_a_state_of_another_solver(folder: Path) -> None:
    state = snapshot_of("SGD", "momentum: 0.9\n")
    Path("s_iter_1.resume.json").unlink()
    text = SOLVER.read_text()
    solver_of("AdaGrad")
    with pytest.raises(SolverError, match="its history has numbers under 0; that of AdaGrad has none"):
        train(Wanted(SOLVER, snapshot=state))
    train(Wanted(SOLVER, until=2))
    Path("s_iter_2.resume.json").unlink()
    SOLVER.write_text(text)
    solver_of("SGD")
    run = train(Wanted(SOLVER, snapshot=Path("s_iter_2.solverstate"), until=3))
    assert "its momentum has no number under 0" in "".join(run.lines)


def test_momentum_goes_on_as_momentum_of_nesterov_and_the_log_says_so(folder: Path) -> None:
    state = snapshot_of("SGD", "momentum: 0.9\n")
    solver_of("Nesterov", "momentum: 0.9\n")
    run = train(Wanted(SOLVER, snapshot=state, until=2))
    assert "is of SGD; its momentum is taken up by Nesterov" in "".join(run.lines)


def test_a_state_whose_weights_have_none_for_a_layer_is_of_another_net(folder: Path) -> None:
    train(Wanted(SOLVER, until=1))
    change("net.prototxt", 'name: "ip2"', 'name: "other"')
    with pytest.raises(SolverError, match=r"s_iter_1\.solverstate is of another net.*nothing for the layers other"):
        train(Wanted(SOLVER, snapshot=Path("s_iter_1.solverstate")))


@pytest.mark.parametrize("name", ["s_iter_2.solverstate", "s_iter_2.caffemodel"])
def test_a_snapshot_with_a_flipped_bit_is_refused_where_it_is_named_and_said_where_it_is_not(
    name: str, folder: Path
) -> None:
    train(Wanted(SOLVER, until=1))
    train(Wanted(SOLVER, until=2))
    content = bytearray(Path(name).read_bytes())
    content[len(content) // 2] ^= 1
    Path(name).write_bytes(content)
    with pytest.raises(SolverError, match=r"s_iter_2\.solverstate or its weights are not what .* says"):
        train(Wanted(SOLVER, snapshot=Path("s_iter_2.solverstate")))
    run = train(Wanted(SOLVER, until=2))
    assert "the snapshot of iteration 2 is not what s_iter_2.resume.json says" in "".join(run.lines)
    assert "goes on at iteration 1" in "".join(run.lines)


def test_nan_in_a_history_or_in_weights_is_found_before_the_first_iteration(folder: Path) -> None:
    train(Wanted(SOLVER, until=1))
    state = solverstate.read(Path("s_iter_1.solverstate"))
    state.history[0].flat[0] = np.nan
    Path("s_iter_1.resume.json").unlink()
    head = Head(state.iteration, state.learned_net, state.step)
    solverstate.write(Path("s_iter_1.solverstate"), head, [one.shape for one in state.history], state.history)
    with pytest.raises(SolverError, match=r"damaged.*history blob 0 holds a number that is not finite"):
        train(Wanted(SOLVER, snapshot=Path("s_iter_1.solverstate")))
    net = caffe_pb2.NetParameter.FromString(Path("s_iter_1.caffemodel").read_bytes())
    blob = next(layer for layer in net.layer if layer.blobs).blobs[0]
    blob.data[3] = float("inf")
    Path("bad.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(SolverError, match=r"bad\.caffemodel cannot be trained on.*blob 0 of the layer"):
        train(Wanted(SOLVER, Flags(weights=("bad.caffemodel",))))


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"[1]\n", b'{"step": "a"}\n'])
def test_metrics_that_another_program_wrote_are_left_alone(junk: bytes, folder: Path) -> None:
    train(Wanted(SOLVER, until=10))
    rows = Path("s_metrics.jsonl").read_bytes()
    Path("s_metrics.jsonl").write_bytes(junk + rows)
    with pytest.raises(SolverError, match="line 1 is no row"):
        train(Wanted(SOLVER, until=11))
    assert Path("s_metrics.jsonl").read_bytes() == junk + rows
    Path("s_metrics.jsonl").write_bytes(rows + junk)  # torn by a kill
    train(Wanted(SOLVER, until=11))
    assert Path("s_metrics.jsonl").read_bytes().startswith(rows)


def test_a_folder_in_place_of_the_metrics_is_refused_and_nothing_is_left(folder: Path) -> None:
    Path("s_metrics.jsonl").mkdir()
    with pytest.raises(SolverError, match=r"s_metrics\.jsonl cannot be written.*directory"):
        train(Wanted(SOLVER))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


# --- data, and how it ends ---


def test_data_that_cannot_be_used_end_with_2_in_the_child_and_in_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lmdb.open("db", map_size=1 << 26) as database, database.begin(write=True) as writing:
        writing.put(b"zzz", b"\xff\xff")
    (folder / "spec.json").write_text(json.dumps({"solver": str(SOLVER), "threads": 1}))
    assert child(["run", "spec.json", "out"]) == 2
    assert "zzz: its bytes are no Datum" in capsys.readouterr().err
    assert command(["train", str(SOLVER)]) == 2
    assert command(["train", str(SOLVER), "--again"]) == 2
    change("net.prototxt", "crop_size: 24", "crop_size: 240")
    assert command(["train", str(SOLVER)]) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 0)])
def test_a_signal_ends_the_reading_of_all_examples(
    number: int, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lmdb.open("db", map_size=1 << 26) as database, database.begin(write=True) as writing:
        value = writing.get(b"00000000")
        for at in range(1000):
            writing.put(b"more%05d" % at, value)
    real, read = Database.examine, []
    heard = threading.Event()

    def examine(self: Database, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        if not read:
            os.kill(os.getpid(), number)
            heard.set()
        read.append(examples)
        heard.wait()
        yield from real(self, labels, examples)

    monkeypatch.setattr(Database, "examine", examine)
    assert command(["train", str(SOLVER), "--data-threads", "1"]) == code
    assert "before its first iteration" in capsys.readouterr().err
    assert 0 < len(read) < 10
    assert not list(folder.glob("s_iter*"))


def test_an_update_that_spoils_the_weights_keeps_its_batch(folder: Path) -> None:
    solver_of("SGD")
    change("solver.prototxt", "base_lr: 0.003", "base_lr: 3e38")
    with pytest.raises(Diverged, match=r"the update of learned blob .* is kept: s_diverged_iter_0\.npz"):
        train(Wanted(SOLVER))
    with np.load("s_diverged_iter_0.npz") as kept:
        assert kept["data"].shape[0] == len(kept["keys:data"])
        assert np.isfinite(kept["data"]).all()


def test_a_training_that_gets_no_memory_for_its_blobs_ends_with_71(folder: Path) -> None:
    (folder / "spec.json").write_text(json.dumps({"solver": str(SOLVER), "threads": 1, "data_threads": 1}))
    change("net.prototxt", "batch_size: 16", "batch_size: 10000")
    code = (  # so much memory more than it has after its imports
        "import resource, sys, torch, cv2, lmdb, pipeline.training.engine.building, pipeline.training.job\n"
        "import pipeline.training.data.database\n"
        "from pipeline.training.__main__ import main\n"
        "has = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (has + 2**28, has + 2**28))\n"
        "sys.exit(main(['run', 'spec.json', 'out']))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 71, done.stderr[-2000:]
    assert "wants more memory than this process may have" in done.stderr
    assert "lower batch_size" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(OutOfMemory), enough_memory():
        np.empty(2**62, np.uint8)
    with pytest.raises(RuntimeError, match="something else"), enough_memory():
        raise RuntimeError("something else")


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_a_process_whose_streams_are_closed_prints_into_no_file(closed: str, tmp_path: Path) -> None:
    code = (
        f"import os\nfor one in '{closed}': os.close(int(one))\n"
        "import sys\n"
        f"for one in '{closed}': setattr(sys, ('stdin', 'stdout', 'stderr')[int(one)], None)\n"
        "from pipeline.process.streams import with_standard_streams\nwith_standard_streams()\n"
        "file = open('snapshot', 'wb')\n"
        "print('a loss', file=sys.stdout, flush=True); print('a line', file=sys.stderr, flush=True)\n"
        "sys.stdin.read(1)\n"
        "os.write(1, b'b'); os.write(2, b'b')\n"
        "assert file.fileno() > 2\n"
    )
    done: Callable[..., Any] = subprocess.run
    ended = done([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                 stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "snapshot").read_bytes() == b""
