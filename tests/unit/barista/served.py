"""Solvers that a barista serves, and what a single process computes of the same data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.barista.shared_net import named
from pipeline.training import solver
from pipeline.training.assembly import How, Nets, assemble
from pipeline.training.draws.draws import OurDraws, draws
from pipeline.training.engine.starting import start
from pipeline.training.network import Mask
from pipeline.training.statistics import apart
from tests.unit.barista.inputs import CLASSES, ROWS

ROOT = Path(__file__).parents[3]
FED = f"""layer {{ name: "in" type: "Input" top: "data" top: "label" input_param {{
  shape {{ dim: {ROWS} dim: 1 dim: 12 dim: 12 }} shape {{ dim: {ROWS} }} }} }}
"""
LAYERS = f"""layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "scale" top: "scale" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "scale" top: "ip1"
  inner_product_param {{ num_output: 16 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" dropout_param {{ dropout_ratio: 0.4 }} }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
SOLVER = """net: "net.prototxt" type: "Nesterov" base_lr: 0.05 momentum: 0.9 lr_policy: "inv" gamma: 0.1 power: 0.75
weight_decay: 0.001 max_iter: 100 test_iter: 1 test_interval: 50 random_seed: 3 snapshot_prefix: "s" solver_mode: CPU
"""
Arrays = dict[str, NDArray[np.float32]]


def solver_in(folder: Path, net: str = FED + LAYERS, text: str = SOLVER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(text.replace("net.prototxt", str(folder / "net.prototxt")))
    return folder / "solver.prototxt"


class Single:
    """One process with the solver's net, and nobody beside it."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        start(threads)
        self.read = solver.read(path)
        nets: Nets = assemble(self.read, draws(self.read.seed, 0), How(threads), lambda says: None, lambda says: None)
        self.nets, self.net = nets, nets.train.network
        self._draws = OurDraws(max(0, self.read.seed))
        self.names = named(self.net.learned)

    def feeds(self, data: Mapping[str, NDArray[np.float32]], number: int) -> Arrays:
        masks = {one.feed: self._draws.mask(one, number) for one in self.net.draws if isinstance(one, Mask)}
        return {**data, **masks}

    def gradient(self, data: Mapping[str, NDArray[np.float32]], number: int) -> tuple[float, Arrays]:
        """The loss, and by name the gradients; of BatchNorm's own blobs what the pass adds to them."""
        self.net.clear()
        result, sums = apart(self.net, lambda: self.net.backward(self.feeds(data, number)))
        found = {
            name: sums[one.slot] if one.slot in sums else self.net.gradient(one.slot)
            for name, one in zip(self.names, self.net.learned, strict=True)
        }
        return result.loss, found

    def weights(self) -> Arrays:
        return {name: self.net.weights(one.slot) for name, one in zip(self.names, self.net.learned, strict=True)}


def same(some: Mapping[str, NDArray[np.float32]], others: Mapping[str, NDArray[np.float32]]) -> bool:
    """To the bit."""
    return some.keys() == others.keys() and all(one.tobytes() == others[name].tobytes() for name, one in some.items())


def environ(**more: str) -> dict[str, str]:
    from tests.environment import environ as clean

    return clean(OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), **more)


def hathi(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command as people type it."""
    command = [sys.executable, "-m", "pipeline.cli.main", "barista", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environ(), timeout=300, **more)


@contextmanager
def running(*commands: list[str], **more: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed at the end, should they still run."""
    begun = [subprocess.Popen(one, text=True, env=environ(), stdout=subprocess.PIPE, **more) for one in commands]
    try:
        yield begun
    finally:
        for one in begun:
            if one.poll() is None:
                one.send_signal(signal.SIGKILL)
            one.communicate()


def until(holds: Any, seconds: float = 60.0) -> bool:
    """Whether it came to hold in time."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def descriptors(of: int) -> int:
    """Mappings and descriptors of a barista's memory, in all processes that have the mounts of process `of`."""
    mounts, count = os.readlink(f"/proc/{of}/ns/mnt"), 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/mnt") != mounts:
                continue  # another test's
            links = [os.readlink(one) for one in (process / "fd").iterdir()]
            maps = (process / "maps").read_text()
        except OSError:
            continue
        count += sum("memfd:hathi-barista" in one for one in links) + maps.count("memfd:hathi-barista")
    return count
