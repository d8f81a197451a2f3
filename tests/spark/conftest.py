"""A real local cluster (executor JVMs and Python workers of their own), and small lakes to work off on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from pipeline.settings import Settings, load
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers.demand import missing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MASTER = "local-cluster[2,1,1024]"
CONF = {
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
    "spark.driver.memory": "600m",
    "spark.executor.memory": "512m",
    "spark.executorEnv.PYTHONPATH": str(ROOT),
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.python.worker.reuse": "true",
    "spark.log.level": "ERROR",
}
_SHORT_LIVES = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Of JVMs that live for a minute: the second compiler takes more CPU than all that its code saves them."""
SHORT = CONF | {"spark.driver.extraJavaOptions": _SHORT_LIVES, "spark.executor.extraJavaOptions": _SHORT_LIVES}
OF_A_RUN = {"fetched_at"}
"""Columns that differ between two runs."""


def spark_environ() -> dict[str, str]:
    return environ() | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}


def submitted(*program: str, master: str = MASTER, conf: Mapping[str, str] | None = None) -> list[str]:
    """The words of spark-submit for a program and its arguments."""
    import pyspark

    tool = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    settings = {**SHORT, **(conf or {})}
    words = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    return [str(tool), "--master", master, *words, *program]


def demand_spark() -> None:
    try:
        import pyspark.sql  # noqa: F401
    except ImportError:
        missing("Spark: scripts/servers.sh spark installs it")
    if shutil.which("java") is None:
        missing("Spark: no java here; install a JRE of 17 or newer")


@pytest.fixture(scope="package")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session of Spark writes what its tasks did."""
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="package")
def session(events: Path) -> Iterator[SparkSession]:
    demand_spark()
    from pyspark.sql import SparkSession

    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    builder = SparkSession.builder.master(MASTER).appName("tests")
    more = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": events.as_uri(), "spark.eventLog.compress": "false"}
    for name, value in (SHORT | more).items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    yield made
    made.stop()


@dataclass(frozen=True)
class Lake:
    """A folder with a configuration, refs, a net, a bucket and what is delivered."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def settings(self) -> Settings:
        return load(self.config, {})

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def delivered(self) -> Path:
        return self.folder / "lake" / "features"

    def hathi(self, *words: str, code: int = 0) -> dict[str, Any]:
        """A command that prints JSON, over this lake."""
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.config), "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def twin(self, name: str) -> Lake:
        """The same lake in another folder."""
        target = self.folder.parent / name
        shutil.copytree(self.folder, target)
        return Lake(target)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Delivered rows of all folders, less what differs between two runs, in an order of their own."""
        files = sorted(self.delivered.glob(f"*/*/{kind}/*.parquet"))
        found = [one for file in files for one in pq.read_table(file).to_pylist()]
        kept = [{name: value for name, value in one.items() if name not in OF_A_RUN} for one in found]
        return sorted(kept, key=lambda one: (one["version"], one["partner_id"], one["item_id"], str(one)))

    def texts(self) -> dict[str, bytes]:
        """The text features, by their place."""
        import gzip

        files = self.delivered.glob("*/*/cnn_features.txt.gz")
        return {str(file.relative_to(self.delivered)): gzip.decompress(file.read_bytes()) for file in files}

    def results(self) -> list[dict[str, Any]]:
        """THE results of all batches."""
        return [json.loads(path.read_bytes()) for path in sorted(self.bucket.glob("shop/c/*/*/r/*"))]

    def attempts(self) -> list[tuple[str, str]]:
        """(batch's place, process) of every attempt at a batch."""
        found = []
        for path in sorted(self.bucket.glob("shop/c/*/*/t/*/*")):
            if path.suffix != ".x" and path.parent.name.isdigit():
                found.append((f"{path.parents[3].name}/{path.parent.name}", json.loads(path.read_bytes())["process"]))
        return found


def make_lake(folder: Path, partners: dict[int, list[str]], **more: object) -> Lake:
    """partners: the JSON lines of each.  more: settings as dotted keys with `__`."""
    (folder / "lake" / "refs").mkdir(parents=True)
    for partner, lines in partners.items():
        (folder / "lake" / "refs" / f"{partner}.jsonl").write_text("\n".join(lines))
    random_features.write(folder / "random.caffemodel")
    tables: dict[str, dict[str, object]] = {
        "bucket": {"url": "bucket", "fsync": False},
        "ship": {"batch_refs": 16, "batches_per_shipment": 8},
        "daemon": {"beat_seconds": 1.0, "alive_seconds": 6.0},
        "fetch": {"allow_private": True, "requests_per_second": 500.0, "burst": 500},
        "compute": {"threads": 1},
        "logs": {"folder": "logs"},
    }
    for key, value in more.items():
        table, _, name = key.partition("__")
        tables.setdefault(table, {})[name] = value
    text = 'state = "state"\n[lakes.shop]\nurl = "lake"\n[[lakes.shop.sources]]\npath = "refs"\n[sets.demo]\n'
    text += f'net = "{ROOT / "sample" / "random_features.prototxt"}"\nweights = "random.caffemodel"\n'
    text += 'blob = "features"\nroot = "features"\n'
    for table, values in tables.items():
        text += f"[{table}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    (folder / "hathi.toml").write_text(text)
    return Lake(folder)


def lines(partner: int, number: int, first: int = 0) -> list[str]:
    """Rows with their images inline; each ninth is no image."""
    contents = [picture(partner * 1000 + n) if n % 9 else b"no picture" for n in range(first, first + number)]
    return [row(f"sku-{first + n}", content, partner) for n, content in enumerate(contents)]
