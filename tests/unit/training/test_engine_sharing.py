"""One training in several processes: the bits of one process, whoever computes which shard, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SolverError
from pipeline.training import job, solverstate, tree
from pipeline.training.assembly import How
from pipeline.training.draws.draws import OurDraws
from pipeline.training.job import Wanted
from pipeline.training.sharing.computer import Computer, Here
from pipeline.training.sharing.processes import share_of
from pipeline.training.sharing.rounds import Round, averaged
from pipeline.training.solver import Flags
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.unit.training import shared_runs
from tests.unit.training.databases import demand_readers
from tests.unit.training.runs import Within, blobs, far

demand_readers()
PATIENCE = 240.0


@dataclass
class Alone:
    """A training in this process.  taken: the numbers of its passes."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)

    def train(self, shards: int, seed: int | None = None) -> Alone:
        wanted = Wanted(Path("solver.prototxt"), Flags(seed=seed), How(threads=1, shards=shards))
        out = job.by_prefix(self.lines.append, lambda read, shown: None, lambda row: None)
        with Within(self.folder):
            job.train(wanted, replace(out, taken=self.taken.append))
        return self


def command(folder: Path, workers: int, *more: str) -> subprocess.Popen[str]:
    words = ["train", "solver.prototxt", "--threads", "1", "--shards", "8", "--workers", str(workers), "--json", *more]
    env = {**environ(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli.main", *words], cwd=folder, env=env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def trained(folder: Path, workers: int, *more: str, code: int = 0) -> list[str]:
    process = command(folder, workers, *more)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return out.splitlines() if not code else err.splitlines()


def values(rows: Sequence[str]) -> list[object]:
    """What metrics say, without times."""
    found = [json.loads(row) for row in rows]
    kept = [{**one["values"], "at": (one["step"], one["kind"])} for one in found if "values" in one]
    return [{name: value for name, value in one.items() if name not in ("examples_per_s", "waited_for_data")}
            for one in kept]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """50 iterations in one process, undisturbed."""
    return Alone(shared_runs.write(tmp_path_factory.mktemp("whole"))).train(8)


def test_one_and_three_processes_and_a_change_at_a_snapshot_give_the_same_bits(whole: Alone, tmp_path: Path) -> None:
    folder = shared_runs.write(tmp_path)
    trained(folder, 3, "--until", "20")
    trained(folder, 2)
    assert shared_runs.bits(folder) == shared_runs.bits(whole.folder)
    rows, alone = ((one / "s_metrics.jsonl").read_text().splitlines() for one in (folder, whole.folder))
    assert values(rows) == values(alone)
    assert [json.loads(row)["step"] for row in rows] == [0, 0, 10, 20, 20, 30, 40, 40]
    assert len(whole.taken) == 50 * 8
    assert whole.taken == list(range(400))


def test_the_weights_move_and_shards_are_another_training_than_whole_batches(whole: Alone, tmp_path: Path) -> None:
    first = blobs(whole.folder / "s_iter_20.caffemodel")
    last = blobs(whole.folder / "s_iter_50.caffemodel")
    assert all(far(first[key], last[key]) > 0.01 for key in last if key[0] in ("conv", "ip"))
    batch = Alone(shared_runs.write(tmp_path)).train(1)
    assert batch.lines[0] != ""
    assert far(blobs(tmp_path / "s_iter_50.caffemodel")["conv", 0], last["conv", 0]) > 1e-3
    with pytest.raises(AssertionError):
        assert shared_runs.bits(tmp_path) == shared_runs.bits(whole.folder)


@pytest.mark.parametrize("seed", [None, 7])
def test_without_coupled_examples_shards_are_the_whole_batch_to_1e_5(seed: int | None, tmp_path: Path) -> None:
    for name in ("batch", "shards"):
        folder = shared_runs.write(tmp_path / name, shared_runs.net(coupled=False))
        Alone(folder).train(1 if name == "batch" else 8, seed)
    one, other = (blobs(tmp_path / name / "s_iter_50.caffemodel") for name in ("batch", "shards"))
    assert one.keys() == other.keys()
    assert max(far(one[key], other[key]) for key in one) < 1e-5
    assert any((one[key] != other[key]).any() for key in one), "the order of sums is another one"


def test_caffes_stream_and_iter_size_are_shared_to_the_bit(tmp_path: Path) -> None:
    text = shared_runs.solver(12, "random_seed: 5 iter_size: 3")
    alone = Alone(shared_runs.write(tmp_path / "alone", None, text)).train(8)
    shared = shared_runs.write(tmp_path / "shared", None, text)
    trained(shared, 3)
    assert shared_runs.bits(shared, 12) == shared_runs.bits(alone.folder, 12)
    assert alone.taken == list(range(12 * 3 * 8))


def test_shards_are_the_passes_of_caffes_iter_size_where_they_are_two(tmp_path: Path) -> None:
    """Two shards are added in one order only: the same as two batches of iter_size."""
    shards = Alone(shared_runs.write(tmp_path / "shards", shared_runs.net(batch=16))).train(2)
    passes = shared_runs.write(tmp_path / "passes", shared_runs.net(batch=8), shared_runs.solver(50, "iter_size: 2"))
    Alone(passes).train(1)
    one, other = (blobs(folder / "s_iter_50.caffemodel") for folder in (shards.folder, passes))
    assert {key: one[key].tobytes() for key in one} == {key: other[key].tobytes() for key in one}


def workers_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_kill_of_any_process_ends_all_and_the_same_command_has_the_bits(
    victim: str, whole: Alone, tmp_path: Path
) -> None:
    folder = shared_runs.write(tmp_path)
    process = command(folder, 2)
    wait_for(folder / "s_iter_20.resume.json", process)
    others = workers_of(process.pid)
    assert len(others) == 1
    os.kill(others[0] if victim == "worker" else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    if victim == "worker":
        assert process.returncode == 1
        assert f"worker 1 (process {others[0]}) is gone" in err
    ends = time.monotonic() + 30
    while Path(f"/proc/{others[0]}").exists():
        assert time.monotonic() < ends
        time.sleep(0.01)
    trained(folder, 3)
    assert shared_runs.bits(folder) == shared_runs.bits(whole.folder)


def test_sigterm_ends_all_with_one_snapshot_and_exit_code_75(whole: Alone, tmp_path: Path) -> None:
    folder = shared_runs.write(tmp_path)
    process = command(folder, 2)
    wait_for(folder / "s_iter_20.resume.json", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    Alone(folder).train(8)
    assert shared_runs.bits(folder) == shared_runs.bits(whole.folder)


def test_what_one_process_refuses_is_said_once_with_exit_code_2(tmp_path: Path) -> None:
    folder = shared_runs.write(tmp_path)
    err = trained(folder, 9, code=2)
    assert any("there are more workers than shards: 9 and 8" in line for line in err)
    err = trained(folder, 2, "--gpu", "0", code=2)
    assert any("the card 0 and 8 shards exclude each other" in line for line in err)


def test_passes_that_follow_from_each_other_cannot_be_shards(tmp_path: Path) -> None:
    before, loss = shared_runs.net(coupled=False).split('layer { name: "loss"')
    text = f"""{before}
layer {{ name: "steps" type: "Reshape" bottom: "ip" top: "steps"
  reshape_param {{ shape {{ dim: -1 dim: 1 dim: 5 }} }} }}
layer {{ name: "cont" type: "DummyData" top: "cont" dummy_data_param {{ shape {{ dim: 2 dim: 1 }}
  data_filler {{ type: "constant" value: 1 }} }} }}
layer {{ name: "lstm" type: "LSTM" bottom: "steps" bottom: "cont" top: "lstm"
  recurrent_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "flat" type: "Flatten" bottom: "lstm" top: "flat" flatten_param {{ axis: 0 end_axis: 1 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "flat" bottom: "label" top: "loss" }}
"""
    assert loss
    folder = shared_runs.write(tmp_path, text, shared_runs.solver().replace("test_iter: 2 test_interval: 20", ""))
    with pytest.raises(SolverError, match="carries numbers from pass to pass: lstm/cell, lstm/hidden"):
        Alone(folder).train(8)


def test_gradients_of_shards_are_computed_on_the_cpu_where_the_solver_asks_for_a_card(tmp_path: Path) -> None:
    folder = shared_runs.write(tmp_path, None, shared_runs.solver(2, "solver_mode: GPU"))
    found = Alone(folder).train(8)
    assert any("the solver says solver_mode: GPU; Hathi trains on the CPU" in line for line in found.lines)
    assert np.isfinite(blobs(folder / "s_iter_2.caffemodel")["ip", 0]).all()


def apart(folder: Path, steps: int, more: dict[str, object] | None = None) -> Path:
    """A training whose shards are computed by rounds, in this process."""
    with Within(folder):
        wanted = Wanted(Path("solver.prototxt"), Flags(), How(threads=1, shards=8, local_steps=steps))
        out = job.by_prefix(lambda line: None, lambda read, shown: None, lambda row: None)
        job.train(wanted, replace(out, rounds=Here(share_of(wanted), steps)))
    return folder


def test_rounds_of_one_step_are_the_exchange_to_the_bit(whole: Alone, tmp_path: Path) -> None:
    folder = apart(shared_runs.write(tmp_path), 1)
    assert shared_runs.bits(folder) == shared_runs.bits(whole.folder)


def test_local_steps_average_weights_and_history_whoever_computes_which_shards(tmp_path: Path) -> None:
    folder = apart(shared_runs.write(tmp_path / "one"), 4)
    with Within(folder):
        how = How(threads=1, shards=8, local_steps=4)
        share = share_of(Wanted(Path("solver.prototxt"), Flags(), how))
        computer = Computer(share)
        state = solverstate.read(folder / "s_iter_20.solverstate")
        weights = tuple(read for key, read in blobs(folder / "s_iter_20.caffemodel").items())
        one = Round(20, 1, 160, OurDraws(0).state(), 4, weights, tuple(state.history))
        alone, _ = computer.compute(one, range(8))
        parts: dict[range, tree.Arrays] = {block: computer.compute(one, block)[0] for block in tree.blocks(8, 3)}
        tree.join(8, parts)
        assert [part.tobytes() for part in parts[range(8)]] == [part.tobytes() for part in alone]
        single = [computer.compute(one, range(shard, shard + 1))[0] for shard in range(8)]
        computer.close()
    for at, average in enumerate(averaged(alone)):
        each = [np.asarray(averaged(shard)[at], np.float64) for shard in single]
        np.testing.assert_allclose(average, np.mean(each, axis=0), rtol=2e-5, atol=1e-6)
    assert float(alone[-1][0]) == 16 * 4, "examples of a round"
    moved = [np.abs(averaged(single[0])[at] - averaged(single[1])[at]).max() for at in range(len(alone) - 1)]
    assert max(moved) > 1e-3, "shards went ways of their own"


def test_local_steps_end_where_a_snapshot_or_a_test_is_due(tmp_path: Path) -> None:
    folder = apart(shared_runs.write(tmp_path), 7)
    steps = [json.loads(row)["step"] for row in (folder / "s_metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 0, 10, 20, 20, 30, 40, 40]
    assert (folder / "s_iter_20.resume.json").exists()
    again = shared_runs.write(tmp_path / "again")
    with Within(again):
        wanted = Wanted(Path("solver.prototxt"), Flags(), How(threads=1, shards=8, local_steps=7), until=20)
        out = job.by_prefix(lambda line: None, lambda read, shown: None, lambda row: None)
        job.train(wanted, replace(out, rounds=Here(share_of(wanted), 7)))
    apart(again, 7)
    assert shared_runs.bits(again) == shared_runs.bits(folder), "it goes on to the bit"
