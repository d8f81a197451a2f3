"""How fast classifiers answer beside the bare net in the same run, and what 200 of them cost in memory.

`python -m tests.benchmarks.service_classify [--pictures N] [--models N]`: CaffeNet's fc7, whose pictures are JPEGs of
256x256 that the service decodes and cuts; the bare net has its numbers ready.  Then small nets, asked by turns through
a process that holds four.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from pipeline import nets
from pipeline.service.serving.parent import Sizes
from pipeline.service.work.preparing import SERVING
from pipeline.training.data.transform import Transform
from pipeline.training.deploying import Deployed, Pictures
from tests.benchmarks.service_speed import memory_of, told
from tests.golden import bignets
from tests.servers.databases import sites
from tests.servers.service import WEIGHTS, Person, Stand, standing

BATCH, CLIENTS = 32, 4
"""Rows of a pass, and pictures of a request; connections at the same time."""
ROUNDS = 20
SMALL = """input: "data" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def pictures(side: int, crop: int) -> Pictures:
    """Those that are cut from squares, as their data layer would have told."""
    return Pictures(3, (side, side), Transform(crop, False, np.float32(1), None, False, True))


def jpeg(seed: int, side: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))[1])


def classifier(stand: Stand, who: Person, made: Deployed, weights: bytes) -> str:
    """Of a job that nobody trained, whose snapshot serves as `made` says."""
    job = who.job(priority=9)
    stand.trained(who, job, given={WEIGHTS: weights, SERVING: made.written()}, over=True)
    labels = [f"c{n}" for n in range(made.classes)]
    return str(who.got("POST", "/v1/classifiers", {"name": job, "training_job_id": job, "labels": labels})["id"])


def asked(who: Person, name: str, files: list[bytes]) -> float:
    """Seconds of one request.  Raises RuntimeError where a picture has no answer."""
    began = time.perf_counter()
    given = [("files", (f"{n}.jpg", one, "image/jpeg")) for n, one in enumerate(files)]
    headers = {"Authorization": f"Bearer {who.token}"}
    answer = who.session.post(f"{who.url}/v1/classifiers/{name}/classify?top=1", files=given, headers=headers)
    took = time.perf_counter() - began
    if answer.status_code != 200 or '"failure":{' in answer.text.replace(" ", ""):
        raise RuntimeError(f"{answer.status_code} {answer.text[:500]}")
    return took


def beside_the_net(stand: Stand, who: Person, number: int) -> None:
    """Prints images/s of the service and of the net alone, and the milliseconds of one warm picture."""
    text, weights = bignets.prototxt("caffenet").read_text(), bignets.weights("caffenet")
    made = Deployed(text, "data", (3, 227, 227), "fc7", 4096, False, pictures(256, 227))
    name = classifier(stand, who, made, weights.read_bytes())
    net = nets.load(bignets.prototxt("caffenet"), weights, blobs=["fc7"], threads=0)
    x = np.concatenate([bignets.images("caffenet")] * (BATCH // 4))
    people = [Person(who.url, who.token) for _ in range(CLIENTS)]
    files = [jpeg(n, 256) for n in range(BATCH)]
    net.forward({"data": x}), net.forward({"data": x[:1]}), asked(who, name, files), asked(who, name, files[:1])

    ratios, requests = [], max(CLIENTS, number // BATCH)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(5):  # they take turns: what others do on the machine meets both
            began = time.perf_counter()
            for _ in range(requests):
                net.forward({"data": x})
            bare = requests * BATCH / (time.perf_counter() - began)
            began = time.perf_counter()
            list(pool.map(lambda n: asked(people[n % CLIENTS], name, files), range(requests)))
            ratios.append((requests * BATCH / (time.perf_counter() - began), bare))
    ours, alone = told((ours for ours, _ in ratios), 1), told((bare for _, bare in ratios), 1)
    ratio = told((ours / bare for ours, bare in ratios), 2)
    print(f"classify: {ours} images/s, the bare net {alone}; ratio {ratio} (goal 0.85)", flush=True)

    ones = []
    for n in range(ROUNDS):
        began = time.perf_counter()
        net.forward({"data": x[:1]})
        bare = time.perf_counter() - began
        ones.append((asked(who, name, files[n % BATCH :][:1]) * 1e3, bare * 1e3))
    more = statistics.median(ours for ours, _ in ones) - statistics.median(bare for _, bare in ones)
    ours, alone = told((ours for ours, _ in ones), 1), told((bare for _, bare in ones), 1)
    print(f"one warm picture: {ours} ms, the net alone {alone} ms; {more:.1f} ms more (goal 8)", flush=True)


def many(stand: Stand, who: Person, number: int) -> None:
    """Prints the memory of all serving processes while so many classifiers are asked by turns, twice."""
    made = Deployed(SMALL, "data", (3, 16, 16), "prob", 10, True, pictures(16, 0))
    chance = np.random.default_rng(1)
    names = []
    for _ in range(number):
        values = [((10, 768), chance.normal(size=7680).astype("<f4")), ((10,), np.zeros(10, "<f4"))]
        names.append(classifier(stand, who, made, bignets.message("ip", "InnerProduct", values)))
    one, sizes, began = [jpeg(1, 16)], [], time.perf_counter()
    for _turn in range(2):
        for at, name in enumerate(names):
            asked(who, name, one)
            if at % (number // 4) == 0 or name == names[-1]:
                sizes.append(sum(memory_of(process, "VmRSS") for process in _serving()) / 2**20)
    took = (time.perf_counter() - began) / (2 * number) * 1e3
    print(f"{number} classifiers by turns, four held: {took:.0f} ms each; the process has "
          f"{', '.join(f'{size:.0f}' for size in sizes)} MiB on the way", flush=True)  # fmt: skip


def _serving() -> list[int]:
    """The processes of this one's server that hold nets."""
    found = [int(one) for task in Path("/proc/self/task").glob("*/children") for one in task.read_text().split()]
    return [one for one in found if b"pipeline.service.serving.process" in Path(f"/proc/{one}/cmdline").read_bytes()]


def main() -> None:
    """Prints one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--models", type=int, default=200)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="hathi-bench-") as name:
        folder = Path(name)
        for site in sites("sqlite", folder, None):
            with standing(site, folder, Sizes(threads=0)) as stand:
                who = stand.person("bench", "ann")
                beside_the_net(stand, who, args.pictures)
                many(stand, who, args.models)


if __name__ == "__main__":
    main()
