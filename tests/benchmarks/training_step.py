"""One training step at batch 64 (forward, backward, update) against the same net written by hand in torch.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_step [lenet cifar caffenet] [--threads 2] [--rounds 30]

The two take turns, step by step, so that what else runs on the machine meets both; ratios are medians of wall time,
and of CPU time, which other people's programs change less.  The hand-written net has its channels last and torch's own
SGD, fused; Dropout is left out of both.  With --half CaffeNet runs in bfloat16 too, with the distance of its gradients;
with --memory each net takes two steps in a process of its own, whose largest memory is printed.  training_speed runs
all of it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np
import torch
from google.protobuf import text_format
from torch import nn

from pipeline.codec import caffe_pb2
from pipeline.nets.graph import caffe_graph, rules
from pipeline.training import updates
from pipeline.training.engine.building import build
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.engine.program import Arithmetic
from tests.benchmarks.nets_by_torch import caffenet, pool, relu
from tests.golden import bignets
from tests.unit.training.trained import inputs, layer

BATCH = 64
FILLED = 'weight_filler { type: "xavier" }'
UPDATE = updates.Update("SGD", momentum=0.9, weight_decay=0.0005)
Step = Callable[[], object]


def conv(below: str, name: str, width: int, kernel: int, pad: int = 0) -> str:
    body = f"convolution_param {{ num_output: {width} kernel_size: {kernel} pad: {pad} {FILLED} }}"
    return layer("Convolution", below, name, body)


def pooled(below: str, name: str, method: str, kernel: int, stride: int) -> str:
    return layer("Pooling", below, name, f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} }}")


def full(below: str, name: str, width: int) -> str:
    return layer("InnerProduct", below, name, f"inner_product_param {{ num_output: {width} {FILLED} }}")


def lenet_text() -> str:
    text = inputs(data=(BATCH, 1, 28, 28), label=(BATCH,)) + conv("data", "c1", 20, 5) + pooled("c1", "p1", "MAX", 2, 2)
    text += conv("p1", "c2", 50, 5) + pooled("c2", "p2", "MAX", 2, 2) + full("p2", "i1", 500)
    return (
        text
        + layer("ReLU", "i1", "i1", name="r1")
        + full("i1", "i2", 10)
        + layer("SoftmaxWithLoss", "i2 label", "loss")
    )


def cifar_text() -> str:
    text = inputs(data=(BATCH, 3, 32, 32), label=(BATCH,)) + conv("data", "c1", 32, 5, 2)
    text += pooled("c1", "p1", "MAX", 3, 2) + layer("ReLU", "p1", "p1", name="r1") + conv("p1", "c2", 32, 5, 2)
    text += layer("ReLU", "c2", "c2", name="r2") + pooled("c2", "p2", "AVE", 3, 2) + conv("p2", "c3", 64, 5, 2)
    text += layer("ReLU", "c3", "c3", name="r3") + pooled("c3", "p3", "AVE", 3, 2) + full("p3", "i1", 64)
    return text + full("i1", "i2", 10) + layer("SoftmaxWithLoss", "i2 label", "loss")


def caffenet_text() -> str:
    """The golden net, with labels and a loss."""
    text = re.sub(r"layer \{[^{}]*type: \"Dropout\".*?\n\}\n", "", bignets.prototxt("caffenet").read_text(), flags=re.S)
    net = caffe_pb2.NetParameter()
    text_format.Parse(text, net)
    kept = [one for one in net.layer if one.type not in ("Dropout", "Softmax", "Input")]
    net.ClearField("layer")
    net.ClearField("input")
    net.ClearField("input_shape")
    net.ClearField("input_dim")
    net.layer.extend(kept)
    body = str(text_format.MessageToString(net))
    last = kept[-1].top[0]
    return inputs(data=(BATCH, 3, 227, 227), label=(BATCH,)) + body + layer("SoftmaxWithLoss", f"{last} label", "loss")


def lenet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(800, 500), nn.ReLU(inplace=True), nn.Linear(500, 10))  # fmt: skip


def cifar() -> nn.Module:
    mean = nn.AvgPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), pool(), nn.ReLU(inplace=True), relu(32, 32, 5, pad=2), mean,
                         relu(32, 64, 5, pad=2), mean, nn.Flatten(), nn.Linear(1024, 64),
                         nn.Linear(64, 10))  # fmt: skip


def caffenet_by_hand() -> nn.Module:
    return nn.Sequential(caffenet(), nn.Linear(4096, 1000))


NETS: dict[str, tuple[Callable[[], str], Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet": (lenet_text, lenet, (1, 28, 28), 10),
    "cifar": (cifar_text, cifar, (3, 32, 32), 10),
    "caffenet": (caffenet_text, caffenet_by_hand, (3, 227, 227), 1000),
}


CPU = torch.device("cpu")


def ours(name: str, half: bool = False, device: torch.device = CPU) -> tuple[Step, TorchNetwork]:
    text, _, shape, classes = NETS[name]
    net = caffe_pb2.NetParameter()
    text_format.Parse(text(), net)
    state = rules.state_of("TRAIN", 0, ())
    live = build(caffe_graph.build(caffe_graph.NetText(net, name), None, state, None, lambda says: None),
                 Arithmetic(device, half=half))  # fmt: skip
    images, labels = batch(shape, classes)
    history = {one.slot: torch.zeros(live.tensor(one.slot).numel(), device=device) for one in live.learned}

    def step() -> None:
        live.clear()
        live.backward({"data": images, "label": labels.astype(np.float32)})
        with torch.no_grad():
            for number, one in enumerate(live.learned):
                flat = [tensor.view(-1) for tensor in (live.tensor(one.slot), live.gradient_tensor(one.slot))]
                blob = updates.Blob(flat[0], flat[1], (history[one.slot],), one.lr_mult, one.decay_mult)
                updates.apply(UPDATE, blob, 1e-4, number)

    return step, live


def by_hand(name: str, device: torch.device = CPU) -> Step:
    _, make, shape, classes = NETS[name]
    images, labels = batch(shape, classes)
    net = make().to(device, memory_format=torch.channels_last)
    solver = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=0.0005, fused=True)
    loss = nn.CrossEntropyLoss()

    def step() -> float:
        solver.zero_grad(set_to_none=True)
        fed = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
        found = loss(net(fed), torch.from_numpy(labels).to(device))
        found.backward()
        solver.step()
        return float(found.detach())

    return step


def batch(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]],
                                                         np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:  # fmt: skip
    random = np.random.default_rng(3)
    return random.normal(size=(BATCH, *shape)).astype(np.float32), random.integers(0, classes, BATCH)


@dataclass(frozen=True)
class Took:
    """Of each way, step by step: milliseconds of wall time and of CPU time."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def ratio(self, one: str, other: str) -> str:
        """How often as fast as `other` the way `one` is: the medians of wall and CPU time, and where halves lie."""
        wall, cpu = (
            [theirs / mine for theirs, mine in zip(times[other], times[one], strict=True)]
            for times in (self.wall, self.cpu)
        )
        low, _, high = quantiles(wall, n=4) if len(wall) > 1 else wall * 3
        return f"{median(wall):.2f} in wall time (half within {low:.2f} to {high:.2f}), {median(cpu):.2f} in CPU time"


def timed(steps: dict[str, Step], rounds: int) -> Took:
    """Each in turn, one step at a time, after two that count for nothing."""
    found = Took({name: [] for name in steps}, {name: [] for name in steps})
    for at in range(rounds + 2):
        for name, step in steps.items():
            began, cpu = time.perf_counter(), time.process_time()
            step()
            if at > 1:
                found.wall[name].append((time.perf_counter() - began) * 1e3)
                found.cpu[name].append((time.process_time() - cpu) * 1e3)
    return found


def memory(name: str, which: str) -> float:
    """The largest MiB of a process that takes two steps of a net."""
    code = (
        "import torch; from tests import peak; from tests.benchmarks import training_step as t; "
        "torch.set_num_threads(2); "
        f"step = t.ours({name!r})[0] if {which!r} == 'ours' else t.by_hand({name!r}); step(); step(); "
        "print(peak.held() / 2**20)"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def rounds_of(name: str, rounds: int) -> int:
    """Steps of a measurement: CaffeNet's takes a hundred times as long as LeNet's."""
    return max(2, rounds // 8) if name == "caffenet" else rounds


def steps(name: str, rounds: int, device: torch.device = CPU) -> None:
    """Prints how fast a step is beside the hand-written one."""
    took = timed({"by hand": by_hand(name, device), "ours": ours(name, device=device)[0]}, rounds_of(name, rounds))
    line = ", ".join(f"{who} {median(values):.1f}" for who, values in took.wall.items())
    print(f"{name:9} step: {took.ratio('ours', 'by hand')} of the hand-written speed; ms: {line}", flush=True)


def memories(name: str) -> None:
    """Prints the largest memory beside the hand-written net's."""
    mine, theirs = memory(name, "ours"), memory(name, "by hand")
    print(f"{name:9} memory: {mine / theirs:.2f} of the hand-written; ours {mine:,.0f} MiB, theirs {theirs:,.0f} MiB",
          flush=True)  # fmt: skip


def halves(name: str, rounds: int, device: torch.device = CPU) -> None:
    """Prints what bfloat16 gains, and how far its gradients are."""
    step, net = ours(name, device=device)
    half, other = ours(name, half=True, device=device)
    far = distance(net, other, name)
    took = timed({"fp32": step, "bf16": half}, rounds_of(name, rounds))
    print(f"{name:9} bf16: {took.ratio('bf16', 'fp32')} of fp32's speed; "
          f"gradients differ by up to {far:.1e} of a blob's largest", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["lenet", "cifar"], help=f"of {', '.join(NETS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.nets:
        if options.memory:
            memories(name)
        elif options.half:
            halves(name, options.rounds)
        else:
            steps(name, options.rounds)


def distance(one: TorchNetwork, other: TorchNetwork, name: str) -> float:
    images, labels = batch(NETS[name][2], NETS[name][3])
    worst = 0.0
    for net in (one, other):
        net.clear()
        net.backward({"data": images, "label": labels.astype(np.float32)})
    for blob in one.learned:
        full, short = one.gradient(blob.slot), other.gradient(blob.slot)
        worst = max(worst, float(np.abs(full - short).max() / max(1e-30, np.abs(full).max())))
    return worst


if __name__ == "__main__":
    main()
