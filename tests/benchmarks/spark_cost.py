"""CPU of an image on Spark, by one box, and by what one would write instead: `python -m tests.benchmarks.spark_cost`.

Pictures of 600 x 450 come over loopback from a process whose CPU is not counted; the net is CaffeNet's fc7.  Each way
runs twice, over FEW and over FEW + MORE batches; what the second run costs beyond the first is divided by its further
images, so that starts, JVMs that warm up and nets that are loaded fall out.  CPU is that of all processes of a run,
JVMs and Python workers, sampled until they end.

The rival is Spark's mapInPandas with requests, Pillow and ONNX Runtime over the same URLs and the same net.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.end_to_end import server
from tests.environment import environ
from tests.golden import bignets
from tests.integration.conftest import ROOT
from tests.spark.conftest import CONF, MASTER, spark_environ

BATCH = 32
FEW, MORE = 12, 60
MARK = "BENCHMARK_MARK"
TICK = os.sysconf("SC_CLK_TCK")


class Cost:
    """CPU seconds of every process that has our mark in its environment, sampled while this lasts."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._seen: dict[tuple[int, str], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Cost:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return sum(self._seen.values())

    def _sample(self) -> None:
        ours: dict[int, bool] = {}
        while not self._over.wait(0.1):
            for entry in os.scandir("/proc"):
                if not entry.name.isdigit():
                    continue
                pid = int(entry.name)
                try:
                    if not ours.get(pid):
                        ours[pid] = self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes()
                    if ours[pid]:
                        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                        self._seen[pid, fields[19]] = (int(fields[11]) + int(fields[12])) / TICK
                except OSError:
                    continue  # it has just ended; what was seen of it last counts


def cost_of(words: list[str], environment: Mapping[str, str], folder: Path) -> float:
    with Cost() as cost:
        done = subprocess.run(words, env={**environment, MARK: cost.mark}, cwd=folder, capture_output=True, text=True)
        time.sleep(0.3)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return cost.seconds


def lake(folder: Path, port: int, batches: int) -> Path:
    """A configuration whose refs are shipped already."""
    (folder / "lake" / "refs").mkdir(parents=True)
    urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(batches * BATCH)]
    (folder / "lake" / "refs" / "urls.txt").write_text("\n".join(urls))
    net, weights = bignets.prototxt("caffenet"), bignets.weights("caffenet")
    tables: dict[str, dict[str, object]] = {
        "bucket": {"url": "bucket", "fsync": False}, "lakes.shop": {"url": "lake", "sources": [{"path": "refs"}]},
        "sets.demo": {"net": str(net), "weights": str(weights), "blob": "fc7", "root": "features"},
        "ship": {"batch_refs": BATCH},
        "fetch": {"allow_private": True, "requests_per_second": 1e6, "burst": 100_000, "connections_per_host": 64,
                  "connections_per_domain": 256, "rates_per_domain": 100.0},
        "compute": {"threads": 1}, "logs": {"folder": "logs"},
    }  # fmt: skip
    text = 'state = "state"\n'
    for table, values in tables.items():
        text += f"[{table}]\n"
        for key, value in values.items():
            text += "sources = [{ path = 'refs' }]\n" if key == "sources" else f"{key} = {json.dumps(value)}\n"
    (folder / "hathi.toml").write_text(text)
    ship = [sys.executable, "-m", "pipeline.cli.main", "run", "ship", "--config", "hathi.toml"]
    subprocess.run(ship, cwd=folder, env=environ(), check=True, capture_output=True)
    return folder / "hathi.toml"


def spark_submit(*words: str) -> list[str]:
    import pyspark

    tool = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    conf = [word for name, value in CONF.items() for word in ("--conf", f"{name}={value}")]
    return [str(tool), "--master", MASTER, *conf, *words]


def one_box(folder: Path, port: int, batches: int) -> float:
    config = lake(folder, port, batches)
    words = [sys.executable, "-m", "pipeline.cli.main", "run", "compute", "aggregate", "--config", str(config)]
    return cost_of(words, environ() | {"PYTHONPATH": str(ROOT)}, folder)


def on_spark(folder: Path, port: int, batches: int) -> float:
    config = lake(folder, port, batches)
    return cost_of(
        spark_submit(str(ROOT / "scripts/spark_submit.py"), "--config", str(config)), spark_environ(), folder
    )


def by_hand(folder: Path, port: int, batches: int) -> float:
    folder.mkdir()
    model = folder.parent / "caffenet.onnx"
    if not model.exists():
        words = [str(bignets.prototxt("caffenet")), str(bignets.weights("caffenet")), "--blob", "fc7"]
        words += ["--onnx", str(model), "--batch", str(BATCH)]
        export = [sys.executable, "-m", "pipeline.cli.main", "net", "export", *words]
        subprocess.run(export, cwd=ROOT, env=environ(), check=True, capture_output=True)
    program = str(ROOT / "tests/benchmarks/spark_by_hand.py")
    words = spark_submit(program, str(model), f"http://127.0.0.1:{port}", str(batches * BATCH), str(folder / "out"))
    return cost_of(words, spark_environ(), folder)


def main() -> None:
    ways = {"one box": one_box, "Spark": on_spark, "mapInPandas by hand": by_hand}
    found: dict[str, float] = {}
    with server() as port, tempfile.TemporaryDirectory() as scratch:
        for name, way in ways.items():
            costs = [way(Path(scratch) / f"{way.__name__}-{n}", port, n) for n in (FEW, FEW + MORE)]
            found[name] = (costs[1] - costs[0]) / (MORE * BATCH)
            print(f"{name:<20} {1000 * found[name]:6.1f} ms CPU an image; a run of {FEW} batches {costs[0]:.0f} s CPU")
    print(f"Spark / one box           {found['Spark'] / found['one box']:.2f} (wanted <= 1.15)")
    print(f"Spark / mapInPandas       {found['Spark'] / found['mapInPandas by hand']:.2f} (wanted <= 0.5)")


if __name__ == "__main__":
    main()
