"""How long a net takes to its first feature, and what memory that takes: `python -m tests.benchmarks.nets_start`.

Each net in a process of its own; memory is what the process grew by after the imports, beside the size of the weights.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from tests.benchmarks.nets_by_hand import NETS
from tests.golden import bignets


def once(name: str) -> None:
    import onnx  # noqa: F401
    import openvino  # noqa: F401

    from pipeline.nets import caffe_net, load  # noqa: F401

    x = bignets.images(name, 1)
    before, imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    net = load(bignets.prototxt(name), bignets.weights(name), blobs=[NETS[name][1]])
    loaded = time.perf_counter()
    net.forward({"data": x})
    first = time.perf_counter()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    weights = bignets.weights(name).stat().st_size
    seconds = f"load {loaded - imported:.2f} s  first image {first - loaded:.2f} s"
    print(f"{name:<10} {seconds}  memory {grown / 2**20:.0f} MiB, {grown / weights:.2f} of the weights")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        once(sys.argv[1])
    else:
        for one in NETS:
            subprocess.run([sys.executable, "-m", "tests.benchmarks.nets_start", one], check=True)
