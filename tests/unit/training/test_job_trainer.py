"""A solver's loop as a job of the bucket: to the bit what the same solver computes by itself, however it is cut."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SolverError, Stopped
from pipeline.ledger.data import download
from pipeline.ledger.trainings import JobSpec
from pipeline.training import jobs
from pipeline.training.assembly import How
from pipeline.training.attempt import limits_of, perform, plan
from pipeline.training.engine.starting import cpu_name
from pipeline.training.job import Wanted as Alone
from pipeline.training.job_trainer import Aids, JobTrainer
from pipeline.training.retention import rows_of
from pipeline.training.solver import Flags
from pipeline.training.state import Failed, Finished, Job
from pipeline.training.submission import Wanted, spec_of
from tests.simulation.world import World
from tests.unit.training.runs import GOLDEN, blobs, folder_of, train

pytest.importorskip("lmdb")
torch = pytest.importorskip("torch")
CASE = GOLDEN / "training_stream" / "adam_step"
LAST = 14


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The golden case, shorter, with tests and snapshots in between; the current folder."""
    where = folder_of(CASE, tmp_path)
    text = (where / "solver.prototxt").read_text()
    (where / "solver.prototxt").unlink()
    kept = [line for line in text.splitlines()
            if not line.startswith(("max_iter", "snapshot:", "display", "snapshot_prefix"))]  # fmt: skip
    more = [f"max_iter: {LAST}", "snapshot: 4", "display: 2", 'snapshot_prefix: "s"']
    (where / "solver.prototxt").write_text("\n".join([*kept, *more]))
    before = Path.cwd()
    os.chdir(where)
    yield where
    os.chdir(before)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "spill").mkdir()
    return World(tmp_path / "spill")


def spec(world: World, **changes: object) -> JobSpec:
    wanted = Wanted(Path("solver.prototxt"), Flags(**changes), How(1))  # type: ignore[arg-type]
    return spec_of(world.context(), wanted)


def attempt(world: World, one: JobSpec, name: str, steps: int = 10_000) -> Job:
    """By one box, which is asked to end after so many questions."""
    context = world.context(name)
    asked = iter(range(steps))
    context = replace(context, stopping=lambda: next(asked, None) is None)
    job = jobs.look(context, one.name())
    task = plan(job, frozenset(), limits_of(context), 0.0)
    assert task is not None
    aids = Aids(fetch=lambda file, path: download(context, file, path), kept=lambda text: world.spill / text)
    with contextlib.suppress(Stopped):
        perform(context, task, JobTrainer(one, world.spill / name, aids))
    return jobs.look(world.context("look"), one.name(), chain=True)


def test_a_job_computes_what_its_solver_computes_alone(folder: Path, world: World) -> None:
    one = spec(world)
    assert (one.max_iter, one.every, one.threads) == (LAST, 4, 1)
    jobs.submit(world.context(), one)
    job = attempt(world, one, "box.one")
    assert job.standing(frozenset()) == Finished(LAST)
    assert job.iterations == (4, 8, 12, 14)
    assert job.out is not None
    assert job.out.engine.startswith("torch ")
    assert job.out.cpu == cpu_name()
    assert job.out.cpu.endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    alone = train(Alone(Path("solver.prototxt"), how=How(1)))
    assert alone.ended.model is not None
    ours = folder / "ours.caffemodel"
    ours.write_bytes(world.bucket.files[next(f.key for f in job.out.files if f.name == "net.caffemodel")][0])
    found, wanted = blobs(ours), blobs(alone.ended.model)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(values, wanted[key]) for key, values in found.items())
    rows = [json.loads(line) for line in Path("s_metrics.jsonl").read_text().splitlines()]
    told = [(row["step"], row["kind"], row["values"].get("train/loss")) for row in rows_of(job)]
    assert told == [(row["step"], row["kind"], row["values"].get("train/loss")) for row in rows]


def test_a_job_in_bf16_says_how_far_it_is_and_computes_what_its_solver_computes_alone(
    folder: Path, world: World
) -> None:
    half = How(1, precision="bf16")
    one = spec_of(world.context(), Wanted(Path("solver.prototxt"), Flags(), half))
    assert one.name() != spec(world).name()
    jobs.submit(world.context(), one)
    said: list[str] = []
    context = world.context("box.half")
    task = plan(jobs.look(context, one.name()), frozenset(), limits_of(context), 0.0)
    assert task is not None
    aids = Aids(fetch=lambda file, path: download(context, file, path), kept=Path, write=said.append)
    perform(context, task, JobTrainer(one, world.spill / "half", aids))
    job = jobs.look(world.context("look"), one.name(), chain=True)
    assert job.out is not None
    assert sum("bfloat16 beside float32 on the next batch" in line for line in said) == 1
    ours = folder / "half.caffemodel"
    ours.write_bytes(world.bucket.files[next(f.key for f in job.out.files if f.name == "net.caffemodel")][0])
    alone = train(Alone(Path("solver.prototxt"), how=half))
    assert alone.ended.model is not None
    found, wanted = blobs(ours), blobs(alone.ended.model)
    assert all(np.array_equal(values, wanted[key]) for key, values in found.items())


def test_the_kind_of_cpu_is_its_model_or_its_architecture(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some(R)  Processor 8 @ 2GHz\n\nmodel name\t: Other\n")
    capability = torch.backends.cpu.get_cpu_capability()
    assert cpu_name(told) == f"Some(R) Processor 8 @ 2GHz, {capability}"
    told.write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert cpu_name(told) == cpu_name(tmp_path / "none") == f"{platform.machine()}, {capability}"


def test_a_job_that_is_cut_anywhere_has_the_same_bits_in_each_snapshot(folder: Path, world: World) -> None:
    one = spec(world)
    jobs.submit(world.context(), one)
    whole = attempt(world, one, "box.whole")
    other = World(world.spill.parent / "other")
    jobs.submit(other.context(), one)
    job, number = jobs.look(other.context(), one.name()), 0
    for number, steps in enumerate((3, 5, 1, 6, 4, 2, 7, 50, 500)):
        if job.out is not None:
            break
        job = attempt(other, one, f"box.{number}", steps)
    assert number > 2
    assert job.iterations == whole.iterations
    assert [link.content for link in job.snapshots.values()] == [link.content for link in whole.snapshots.values()]
    assert [row["step"] for row in rows_of(job)] == [row["step"] for row in rows_of(whole)]


def test_first_weights_are_in_the_bucket_and_decide_the_name(folder: Path, world: World) -> None:
    plain = spec(world)
    train(Alone(Path("solver.prototxt"), how=How(1), until=4))
    one = spec(world, weights=("s_iter_4.caffemodel",))
    assert one.name() != plain.name()
    assert [file.key in world.bucket.files for file in one.weights] == [True]
    Path("s_iter_4.caffemodel").rename("other name.caffemodel")
    assert spec(world, weights=("other name.caffemodel",)).name() == one.name()
    jobs.submit(world.context(), one)
    assert attempt(world, one, "box.one").standing(frozenset()) == Finished(LAST)


def test_what_decides_no_number_leaves_the_name_and_other_data_do_not(folder: Path, world: World) -> None:
    first = spec(world).name()
    path = Path("solver.prototxt")
    path.write_text(path.read_text().replace('snapshot_prefix: "s"', 'snapshot_prefix: "t"'))
    assert spec(world).name() == first
    assert spec(world, seed=5).name() != first
    source = next(iter(spec(world).data))
    assert Path(source).exists()
    names: set[object] = {first}
    target = Path(source).resolve()
    Path("net_of_data").mkdir()
    for file in target.iterdir():
        (Path("net_of_data") / file.name).write_bytes(file.read_bytes() + b"\0" * 4096)
    link = Path(source)
    net = next(one for one in Path().glob("*.prototxt") if source in one.read_text())
    text = net.read_text()
    net.unlink()
    net.write_text(text.replace(str(link), "net_of_data"))
    names.add(spec(world).name())
    assert len(names) == 2


def test_a_job_that_diverges_fails_with_layer_and_blob(folder: Path, world: World) -> None:
    path = Path("solver.prototxt")
    path.write_text(path.read_text().replace("base_lr: 0.003", "base_lr: 1e38"))
    one = spec(world)
    jobs.submit(world.context(), one)
    standing = attempt(world, one, "box.one").standing(frozenset())
    assert isinstance(standing, Failed)
    assert "of layer '" in standing.cause
    out = jobs.look(world.context("look"), one.name()).out
    assert out is not None
    assert out.engine.startswith("torch ")
    assert out.cpu == cpu_name()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(lambda: Path("solver.prototxt").unlink(), "cannot be read"),
     (lambda: Path("solver.prototxt").write_text("base_lr: x"), "solver.prototxt")],
)  # fmt: skip
def test_a_solver_that_is_refused_makes_no_job(
    spoil: Callable[[], object], says: str, folder: Path, world: World
) -> None:
    spoil()
    with pytest.raises(SolverError, match=says):
        spec(world)
