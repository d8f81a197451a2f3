"""The torch engine beside the same nets by hand in torch, on this machine's card (on the CPU where there is none).

`python -m tests.benchmarks.nets_gpu [--batch 64] [--rounds 9] [--precisions fp32,tf32,bf16,fp16] [NET...]`

Images a second with decoded images in memory: a float32 array goes in and an array of features comes out, so both
copies between host and card count.  Passes take turns, medians are shown.  Ours is to be >= 0.9 of the better way by
hand.  The distance is that of Caffe's own features (tests/golden), as a part of the largest one.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.engines.torch_engine import DTYPES, exact
from tests.benchmarks.nets_by_hand import NETS
from tests.benchmarks.nets_by_torch import Pass, by_hand
from tests.golden import bignets


def measure(name: str, precision: str, batch: int, rounds: int) -> None:
    blob = NETS[name][1]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = np.concatenate([bignets.images(name)] * -(-batch // 4))[:batch]
    try:
        net = nets.load(
            bignets.prototxt(name), bignets.weights(name), blobs=[blob], engine="torch", precision=precision
        )
    except NetError as error:
        print(f"{name:<10} {precision}: {error.message}, {error.detail}")
        return
    ways: dict[str, Pass] = {"ours": lambda images: net.forward({"data": images})[blob]}
    with exact(precision == "tf32"):
        ways["by hand"] = by_hand(name, device, DTYPES[precision], x, recorded=False)
        if device.type == "cuda":
            ways["by hand, recorded"] = by_hand(name, device, DTYPES[precision], x, recorded=True)
        golden = bignets.golden(name)[blob].reshape(4, -1)[: len(x)]
        far = np.abs(ways["ours"](x)[:4].reshape(len(golden), -1) - golden).max() / np.abs(golden).max()
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for way in ways.values():
            way(x)
        for _ in range(rounds):
            for way, run in ways.items():
                began = time.perf_counter()
                run(x)
                spent[way].append(time.perf_counter() - began)
    rates = {way: batch / median(times) for way, times in spent.items()}
    best = max(rate for way, rate in rates.items() if way != "ours")
    for way, rate in rates.items():
        more = f"  {rate / best:.2f} of the best by hand, {far:.1e} from Caffe" if way == "ours" else ""
        print(f"{name:<10} {precision:<5} batch {batch:>3}  {way:<18} {rate:>8.1f} images/s{more}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="*", default=list(NETS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precisions", default=",".join(DTYPES))
    chosen = parser.parse_args()
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no card: on the CPU"
    print(f"{card}; torch {torch.__version__}")
    for one in chosen.net:
        for precision in chosen.precisions.split(","):
            measure(one, precision, chosen.batch, chosen.rounds)
