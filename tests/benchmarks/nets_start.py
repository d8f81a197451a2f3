"""How long a net takes to its first feature, and what memory that takes: `python -m tests.benchmarks.nets_start`.

Each net in a process of its own.  Memory is what the process grew by at its peak, beside 2.2 times the weights and
the activations: those that some layer still needs, where they are most (the lowered net's own values, each freed after
its last reader).  In all, and without what the engine takes for itself, which a net of a few kilobytes shows (its code,
compiled kernels).  1.00 or less is wanted.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pipeline.nets.graph.lowered import Lowered
from tests.benchmarks.nets_by_hand import NETS
from tests.golden import bignets

TINY = Path(bignets.__file__).parent / "tiny" / "mini_alexnet.prototxt"


def once(name: str, batch: int) -> None:
    import onnx  # noqa: F401
    import openvino  # noqa: F401

    from pipeline.nets import caffe_net, load

    x = np.concatenate([bignets.images(name)] * -(-batch // 4))[:batch]
    before, imported, used = peak(), time.perf_counter(), time.process_time()
    net = load(bignets.prototxt(name), bignets.weights(name), blobs=[NETS[name][1]])
    assert isinstance(net, caffe_net.CaffeNet)
    net.forward({"data": x})
    seconds = f"{time.perf_counter() - imported:.2f} s, {time.process_time() - used:.2f} s CPU"
    grown, weights = peak() - before, bignets.weights(name).stat().st_size
    own, live = int(sys.argv[3]), activations(net.lower([NETS[name][1]], {"data": x.shape}))
    allowed = 2.2 * weights + live
    print(f"{name:<10} batch {batch:>2}: loaded and passed in {seconds}; memory {grown / 2**20:.0f} MiB; weights "
          f"{weights / 2**20:.0f} MiB, activations {live / 2**20:.0f} MiB: {grown / allowed:.2f} of what is allowed, "
          f"{(grown - own) / allowed:.2f} without the engine's own")  # fmt: skip


def activations(graph: Lowered) -> int:
    """Bytes of the values that are alive at once, where they are most."""
    last = {name: at for at, operation in enumerate(graph.operations) for name in operation.inputs}
    last.update({value.name: len(graph.operations) for value in graph.outputs.values()})
    alive = {name: math.prod(shape) * 4 for name, shape in graph.inputs.items()}
    most = 0
    for at, operation in enumerate(graph.operations):
        alive.update((name, math.prod(graph.shapes[name]) * 4) for name in operation.outputs)
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, at) > at}
    return most


def engine_alone() -> None:
    """Prints the bytes that the engine takes with next to no net."""
    import onnx  # noqa: F401
    import openvino  # noqa: F401

    from pipeline.nets import caffe_net, load  # noqa: F401

    before = peak()
    net = load(TINY, TINY.with_suffix(".caffemodel"), blobs=["fc6"])
    net.forward({name: np.zeros(shape, np.float32) for name, shape in net.inputs.items()})
    print(peak() - before)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 3:
        once(sys.argv[1], int(sys.argv[2]))
    elif len(sys.argv) > 1:
        engine_alone()
    else:
        again = [sys.executable, "-m", "tests.benchmarks.nets_start"]
        own = subprocess.run([*again, "engine"], check=True, capture_output=True, text=True).stdout.strip()
        print(f"the engine's own: {int(own) / 2**20:.0f} MiB")
        for one in NETS:
            for batch in ("1", "32"):
                subprocess.run([*again, one, batch, own], check=True)
