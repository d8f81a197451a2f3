"""A gateway and boxes whose set follows a model, each with a state folder of its own, and `hathi` over them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.ledger.bodies import body_of
from pipeline.ledger.manifest import Plan
from sample import random_features
from tests.integration.conftest import ROOT, environ, picture, row

NET = ROOT / "sample" / "random_features.prototxt"


@dataclass(frozen=True)
class Hosts:
    """A gateway and a box: each its own configuration, state and cache, one bucket."""

    folder: Path

    def write(self, host: str, source: str = 'model = "shoes"', sets: str = "", **compute: object) -> None:
        """source: where the net of set demo is from.  sets: all of `[sets.demo]` and what follows, instead."""
        (self.folder / host).mkdir(exist_ok=True)
        lines = [f'role = "{"compute" if host.startswith("box") else "gateway"}"', 'state = "state"']
        lines += ["[bucket]", 'url = "../bucket"', "[logs]", 'folder = "logs"']
        lines += ["[ship]", "batch_refs = 2", "[compute]", "free_bytes = 0"]
        lines += [f"{name} = {value}" for name, value in compute.items()]
        lines += ["[lakes.shop]", *(['url = "../lake"'] if not host.startswith("box") else [])]
        if not host.startswith("box"):
            lines += ["[[lakes.shop.sources]]", 'path = "refs"']
        lines += ["[sets.demo]", sets or f'{source}\nblob = "features"\nroot = "features"']
        (self.folder / host / "hathi.toml").write_text("\n".join(lines))

    def refs(self, name: str, *items: str) -> None:
        path = self.folder / "lake" / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(row(item, picture(len(item) + at)) for at, item in enumerate(items)))

    def weights(self, seed: int) -> Path:
        path = self.folder / f"{seed}.caffemodel"
        random_features.write(path, seed)
        return path

    def hathi(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", f"{self.folder}/{host}/hathi.toml"]
        return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=120)

    def well(self, host: str, *words: str, code: int = 0) -> str:
        done = self.hathi(host, *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def promote(self, seed: int, *more: str) -> str:
        return self.well("box", "promote", "demo", "--net", str(NET), "--weights", str(self.weights(seed)), *more)

    def go_round(self, *boxes: str) -> None:
        self.well("gateway", "run", "ship")
        for box in boxes or ("box",):
            self.well(box, "run", "compute", "aggregate")
        self.well("gateway", "run", "deliver")

    def rows(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "lake" / "features").glob("2*/*/features/*.parquet"))
        return [{"shipment": file.parts[-4], **found} for file in files for found in pq.read_table(file).to_pylist()]

    def prints(self) -> Counter[str]:
        """Delivered features by fingerprint."""
        return Counter(found["fingerprint"] for found in self.rows())

    def models(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.well("box", "models", "--json", *words).splitlines()]

    def plans(self) -> list[Plan]:
        return [body_of(Plan, path.read_bytes(), str(path)) for path in (self.folder / "bucket/shop/c").glob("*/plan")]

    def promotions(self) -> list[Path]:
        return sorted((self.folder / "bucket/shop/m/shoes").iterdir())
