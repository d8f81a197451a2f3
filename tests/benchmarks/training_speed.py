"""Speed and memory of training in one run: `OMP_WAIT_POLICY=passive python -m tests.benchmarks.training_speed`.

As ratios: a step of LeNet, CIFAR-10 quick and CaffeNet beside the same net written by hand in torch, and on a GPU the
same with the card's name; the whole loop beside the bare step, and the share of waiting for data (CaffeNet's are JPEGs
of 256x256 in an LMDB); peak memory; a snapshot of CaffeNet; bfloat16.  With --quick, CaffeNet is left out.
"""

from __future__ import annotations

import argparse
import os

import torch

from pipeline.training.engine.starting import start
from tests.benchmarks.training_loop import snapshots, whole_loop
from tests.benchmarks.training_step import halves, memories, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    start(options.threads)
    nets = ["lenet", "cifar"] + ["caffenet"] * (not options.quick)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"torch {torch.__version__}, threads: {options.threads}, cores: {cores}, load before: {load:.1f}", flush=True)
    for name in nets:
        steps(name, options.rounds)
    for name in nets:
        whole_loop(name, options.threads, max(3, options.rounds // 3))
    for name in nets:
        memories(name)
    if not options.quick:
        snapshots(options.threads, 3)
        halves("caffenet", options.rounds)
    if not torch.cuda.is_available():
        print("no GPU is here: its figures are left out")
        return
    card = torch.device("cuda")
    print(f"on {torch.cuda.get_device_name(card)}:")
    for name in ("lenet", "cifar", "caffenet"):
        steps(name, options.rounds * 8, card)
    halves("caffenet", options.rounds * 8, card)


if __name__ == "__main__":
    main()
