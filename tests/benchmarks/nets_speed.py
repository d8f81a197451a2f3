"""Images a second of the three full-size nets: ours beside the same net by hand in each CPU runtime.

`python -m tests.benchmarks.nets_speed [--batch 32] [--rounds 5] [NET...]`: passes take turns, medians are shown.
Wall-clock figures need a quiet machine; CPU milliseconds an image hold on a busy one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import nets
from pipeline.errors import NetError
from tests.benchmarks.nets_by_hand import NETS
from tests.golden import bignets

Pass = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def ours(name: str, blob: str, engine: str, precision: str) -> Pass:
    net = nets.load(bignets.prototxt(name), bignets.weights(name), blobs=[blob], engine=engine, precision=precision)
    return lambda x: net.forward({"data": x})[blob]


def by_openvino(model: bytes) -> Pass:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"})  # fmt: skip
    request = compiled.create_infer_request()
    return lambda x: np.array(next(iter(request.infer({0: x}, share_inputs=True).values())))


def by_onnxruntime(model: bytes) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        values: Any = session.run(None, {"data": x})
        return np.asarray(values[0])

    return run


def measure(name: str, batch: int, rounds: int) -> None:
    by_hand, blob = NETS[name]
    x = np.concatenate([bignets.images(name)] * -(-batch // 4))[:batch]
    ways: dict[str, Pass] = {
        "ours openvino fp32": ours(name, blob, "openvino", "fp32"),
        "hand openvino fp32": by_openvino(by_hand(batch, False)),
        "ours onnxruntime": ours(name, blob, "onnxruntime", "fp32"),
        "hand onnxruntime": by_onnxruntime(by_hand(batch, False)),
        "hand onnxruntime banded": by_onnxruntime(by_hand(batch, True)),
    }
    try:
        ways["ours openvino bf16"] = ours(name, blob, "openvino", "bf16")
    except NetError as error:
        print(error.message)
    golden = bignets.golden(name)[blob].reshape(4, -1)
    wall: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    far = {way: float(np.abs(run(x)[:4].reshape(4, -1) - golden).max() / golden.max()) for way, run in ways.items()}
    for _ in range(rounds):
        for way, run in ways.items():
            began, used = time.perf_counter(), time.process_time()
            run(x)
            wall[way].append(time.perf_counter() - began)
            busy[way].append(time.process_time() - used)
    for way in ways:
        rate, cost = batch / median(wall[way]), median(busy[way]) / batch * 1e3
        print(f"{name:<10} {way:<24} {rate:>7.1f} images/s  {cost:>6.1f} ms CPU  {far[way]:.1e} from Caffe")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="*", default=list(NETS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for one in chosen.net:
        measure(one, chosen.batch, chosen.rounds)
