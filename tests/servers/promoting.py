"""A lake beside a test's service: a set that follows a model, granted to tenants; and a net made without torch."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from google.protobuf import text_format
from numpy.typing import NDArray

from pipeline.app.promotions import Promotions
from pipeline.clock import Clock
from pipeline.codec import caffe_pb2
from pipeline.service.database.statements import Database
from pipeline.service.work.attempt import Hands
from pipeline.service.work.preparing import SERVING
from pipeline.service.work.worker import work
from pipeline.settings import Settings, load
from tests.environment import environ
from tests.servers.service import SERVED, WEIGHTS, Stand

ROOT = Path(__file__).parents[2]
SIDE = 4
SET = """model = "shoes"
blob = "prob"
normalise = "none"
root = "features"
preprocess.mean = [0.0]"""
"""As the net below prepares pictures."""
NET = f"""layer {{ name: "data" type: "Input" top: "data"
        input_param {{ shape {{ dim: 1 dim: 3 dim: {SIDE} dim: {SIDE} }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 2 }} }}
layer {{ name: "prob" type: "Softmax" bottom: "ip" top: "prob" }}
"""


@dataclass(frozen=True)
class Lake:
    """A gateway, a box and the service in one configuration, over folders.  bucket: as the service has it."""

    folder: Path
    bucket: Path

    def write(self, granted: Mapping[str, Sequence[str]], sets: Mapping[str, str] | None = None) -> Path:
        """The configuration.  granted: sets by tenant; sets: their lines."""
        lines = ['state = "state"', "[bucket]", f'url = "{self.bucket}"', "[logs]", 'folder = "logs"', "echo = false"]
        lines += ["[ship]", "batch_refs = 16", "[compute]", "free_bytes = 0", "[daemon]", "poll_seconds = 0.2"]
        lines += ["[lakes.shop]", 'url = "lake"', "[[lakes.shop.sources]]", 'path = "refs"', "[service.promotion]"]
        lines += [f"{json.dumps(tenant)} = {json.dumps(list(names))}" for tenant, names in granted.items()]
        for name, text in (sets or {"b": SET}).items():
            lines += [f"[sets.{name}]", text]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(lines))
        return self.config

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def settings(self) -> Settings:
        return load(self.config, {})

    def promoter(self) -> Promotions:
        return Promotions(self.settings)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.config)]

    def hathi(self, *words: str) -> str:
        """What a command says, which has to succeed."""
        done = subprocess.run(
            self.command(*words), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, root: str = "features") -> list[dict[str, Any]]:
        """What is delivered, with the name of its shipment."""
        files = sorted((self.folder / "lake" / root).glob("2*/*/features/*.parquet"))
        return [{"shipment": file.parts[-4], **found} for file in files for found in pq.read_table(file).to_pylist()]

    def prints(self, root: str = "features") -> Counter[str]:
        """Delivered features by fingerprint."""
        return Counter(found["fingerprint"] for found in self.rows(root))

    def promotions(self, model: str = "shoes") -> list[dict[str, Any]]:
        """What stands in the bucket, the oldest first."""
        found = self.bucket / "shop" / "m" / model
        return [json.loads(path.read_bytes()) for path in sorted(found.iterdir())] if found.is_dir() else []

    def files(self) -> set[str]:
        """Files of models in the bucket, whoever names them."""
        top = self.bucket / "shop" / "d" / "m"
        return {str(path.relative_to(self.bucket)) for path in top.rglob("*") if path.is_file()}


def served(seed: int, **pictures: Any) -> dict[str, bytes]:
    """The files of a snapshot whose net serves: weights of a seed.  pictures: what its preparation says otherwise.

    mean: (channels, height, width), or of one number a channel, float32.
    """
    mean: NDArray[np.float32] | None = pictures.get("mean")
    if mean is not None:
        values = base64.b64encode(np.asarray(mean, "<f4").tobytes()).decode()
        pictures["mean"] = {"shape": list(mean.shape), "values": values}
    how = {**SERVED, "net": NET, "pictures": {**SERVED["pictures"], **pictures}}  # type: ignore[dict-item]
    found = caffe_pb2.NetParameter()
    text_format.Parse(NET, found)
    draws = np.random.default_rng(seed)
    for shape in ((2, 3 * SIDE * SIDE), (2,)):
        blob = found.layer[1].blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend(draws.normal(size=int(np.prod(shape))) / 100)
    return {WEIGHTS: found.SerializeToString(), SERVING: json.dumps(how).encode()}


def worker_of(stand: Stand, promoter: Promotions, name: str = "") -> list[str]:
    """A worker does what is queued; what it said."""
    said: list[str] = []

    async def works(database: Database) -> None:
        scratch = stand.folder / f"scratch{name}"
        hands = Hands(database, stand.store, Clock(), scratch, lambda: False, said.append, promoter=promoter)
        await work(hands, once=True)

    site = replace(stand.site, opened=[])  # another one may work beside it
    site.run(works(site.open()))
    return said
