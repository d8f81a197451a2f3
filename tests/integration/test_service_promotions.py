"""The way round: a job becomes a version, that goes into use, and the lake's features are as good as the job said.

API, worker and the four stages are processes of their own, as a person begins them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lmdb", reason="LEFT OUT: what reads databases: scripts/training.sh installs it")

from pipeline.stores.local import LocalStore
from tests.environment import environ
from tests.integration.conftest import row
from tests.integration.test_service_datasets import NET, dataset, packed, pictures, sides
from tests.servers import picture_training as spots
from tests.servers.databases import sites
from tests.servers.demand import Server, free_port, until
from tests.servers.promoting import ROOT, Lake
from tests.servers.service import Person, Stand

pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
SET = f"""model = "spots"
blob = "prob"
normalise = "none"
root = "spots"
preprocess = {{ resize = "crop", resize_to = {spots.SIZE}, mean = [90.0, 100.0, 110.0], input_scale = 0.02 }}"""
LOOK_SECONDS = 0.2
WALK = Path(__file__).parents[2] / "docs/service.md"


@dataclass
class Round:
    """A lake with the pictures that a job is tested with, and the job's model.  names: of the classes, in order."""

    ann: Person
    lake: Lake
    model: str
    names: list[str]
    tested: dict[str, str]
    """Of each test picture its label."""
    stages: Server

    def figures(self, version: int) -> float:
        return float(self.ann.got("GET", f"/v1/models/{self.model}/versions/{version}")["figures"]["test/accuracy"])

    def accuracy(self, fingerprint: str) -> float:
        """Of what lies in the lake, by one fingerprint: the greatest value against the label."""
        rows = [one for one in self.lake.rows("spots") if one["fingerprint"] == fingerprint]
        found = {one["external_id"]: self.names[int(np.argmax(one["features"]))] for one in rows}
        assert found.keys() == self.tested.keys()
        return float(np.mean([found[name] == label for name, label in self.tested.items()]))

    def done(self, promotion: str) -> dict[str, Any]:
        shown: dict[str, Any] = {}

        def over() -> bool:
            shown.update(self.ann.got("GET", f"/v1/promotions/{promotion}"))
            return shown["finished_at"] is not None

        until(over, "the promotion is over", 120)
        assert shown["state"] == "succeeded", shown
        return shown

    def delivered(self, promotion: str) -> dict[str, Any]:
        """Once its back-fill is at its end."""
        shown: dict[str, Any] = {}

        def over() -> bool:
            time.sleep(LOOK_SECONDS)
            shown.update(self.ann.got("GET", f"/v1/promotions/{promotion}"))
            told = shown["progress"]
            return told is not None and told["delivered"] == told["snapshots"] > 0

        self.stages.until(over, "the back-fill is delivered", 300)
        return shown


@contextlib.contextmanager
def process(words: list[str], log: Path, says: str = "") -> Iterator[Server]:
    """says: what stands in its log once it is ready."""
    server = Server.start(words, log=log, env={**environ(), "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    try:
        server.until(lambda: says in log.read_text(), f"it says {says}", 120)
        yield server
    finally:
        server.stop(40)


@pytest.fixture
def round_(tmp_path: Path) -> Iterator[Round]:
    lake = Lake(tmp_path / "etc", tmp_path / "bucket")
    port = free_port()
    for site in sites("sqlite", tmp_path, None):
        lake.write({"ayes": ["spots"]}, {"spots": SET})
        text = lake.config.read_text()
        service = f'[service]\ndatabase = "{site.url}"\nlisten = "127.0.0.1:{port}"\n[service.promotion]'
        lake.config.write_text(text.replace("[service.promotion]", service))
        stand = Stand(f"http://127.0.0.1:{port}", site, LocalStore(tmp_path / "bucket"), [], tmp_path)
        api, worker, stages = (tmp_path / f"{name}.log" for name in ("api", "worker", "stages"))
        with contextlib.ExitStack() as stack:
            stack.enter_context(process(lake.command("service", "serve"), api, "the API answers"))
            stack.enter_context(process(lake.command("service", "worker"), worker))
            ann = stand.person("ayes", "ann")
            model, names, tested = _trained(ann)
            refs = lake.folder / "lake" / "refs" / "a.jsonl"
            refs.parent.mkdir(parents=True)
            files = pictures(240, 0)
            refs.write_text("\n".join(row(name, files[name]) for name in tested))
            daemon = lake.command("serve", "ship", "compute", "aggregate", "deliver")
            served = stack.enter_context(process(daemon, stages))
            yield Round(ann, lake, model, names, tested, served)


def _trained(ann: Person) -> tuple[str, list[str], dict[str, str]]:
    """A model of two versions, two snapshots of one job; its classes; the pictures that it was tested with."""
    made = dataset(ann, packed(pictures(240, 0)), split={"train": 80, "test": 20})
    _over(ann, f"/v1/datasets/{made}")
    held = sides(ann, made)["test"]
    files = pictures(240, 0).items()
    tested = {name: name.split("/")[0] for name, one in files if hashlib.sha256(one).digest() in held}
    assert len(tested) == 48
    # three batches of 16 are the 48 pictures, each once
    net = NET.replace('source: "any" backend: LMDB batch_size: 20 }', 'source: "any" backend: LMDB batch_size: 16 }')
    asked = {"name": "spots", "solver": spots.SOLVER, "net": net, "dataset_id": made}
    job = ann.job("spots", solver_id=ann.got("POST", "/v1/solvers", asked)["id"], inputs={}, seed=3)
    end = _over(ann, f"/v1/training-jobs/{job}")
    assert end["state"] == "succeeded", end["detail"]
    model = str(ann.got("POST", "/v1/models", {"name": "spots"})["id"])
    for iteration in (60, 120):
        version = ann.got("POST", f"/v1/models/{model}/versions", {"training_job_id": job, "iteration": iteration})
    ann.ask("PUT", f"/v1/models/{model}/aliases/best", {"version": 2}, If_None_Match="*").raise_for_status()
    return model, version["labels"], tested


def _over(ann: Person, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def over() -> bool:
        time.sleep(LOOK_SECONDS)
        found.update(ann.got("GET", where))
        return found["state"] in ("succeeded", "failed")

    until(over, f"{where} is over", 300)
    return found


def test_from_a_job_to_features_in_the_lake_and_back(round_: Round, figures: Callable[[str], None]) -> None:
    ann, lake = round_.ann, round_.lake
    asked = {"feature_set": "spots", "model_id": round_.model, "version": 1, "blob": "prob", "why": "the first"}
    began = time.monotonic()
    promotion = ann.got("POST", "/v1/promotions", asked)["id"]
    index = lake.folder / "lake" / "spots" / "outputByPartner"
    round_.stages.until(index.exists, "features in the lake", 300)
    seconds = {"the first": time.monotonic() - began}
    (first,) = round_.done(promotion)["in_use"]
    assert set(lake.prints("spots")) == {first["fingerprint"]}, "the fingerprint that it told"
    assert round_.accuracy(first["fingerprint"]) == pytest.approx(round_.figures(1), abs=1e-6), "what the job said"

    began = time.monotonic()
    typed = _typed(ann, round_.model)
    (second,), why = typed["in_use"], typed["why"]
    assert (second["number"], second["before"], why) == (2, first["fingerprint"], "more of them")
    shown = round_.delivered(typed["id"])
    seconds["with a back-fill"] = time.monotonic() - began
    assert shown["progress"] == {
        "snapshots": 1, "delivered": 1, "refs": 48, "computed": 48, "features": 48, "failures": 0}  # fmt: skip
    assert round_.accuracy(second["fingerprint"]) == pytest.approx(round_.figures(2), abs=1e-6)
    assert round_.figures(1) != round_.figures(2), "so that equal figures say something"
    body = lake.promotions("spots")[1]
    lineage = ann.got("GET", f"/v1/models/{round_.model}/versions/2")["lineage"]
    digest = ann.got("GET", f"/v1/datasets/{lineage['dataset_id']}")["contents"]["digest"]
    assert body["data"] == {lineage["dataset_id"]: digest}
    assert (body["job"], body["labels"]) == (lineage["training_job_id"], round_.names)
    assert body["figures"]["accuracy"] == round_.figures(2)

    began = time.monotonic()
    back = ann.got("POST", "/v1/promotions", {"feature_set": "spots", "number": 1, "backfill": True})["id"]
    (third,) = round_.delivered(back)["in_use"]
    seconds["back again"] = time.monotonic() - began
    assert third == {**first, "number": 3, "before": second["fingerprint"]}
    assert dict(lake.prints("spots")) == {first["fingerprint"]: 96, second["fingerprint"]: 48}
    newest = max(lake.rows("spots"), key=lambda one: one["shipment"])
    assert newest["fingerprint"] == first["fingerprint"], "the greatest shipment wins"
    told = [json.loads(line) for line in lake.hathi("models", "spots", "--json").splitlines()]
    in_use = [(one["number"], one["in_use"], one["again"]) for one in told]
    assert in_use == [(3, True, 1), (2, False, None), (1, False, None)]
    round_.stages.stop(40)
    lake.hathi("verify", "--deep")
    figures("from POST to features in the lake: " + ", ".join(f"{what} {took:.1f} s" for what, took in seconds.items()))


def _typed(ann: Person, model: str) -> dict[str, Any]:
    """What the document types, after what it types first of all."""
    text = WALK.read_text()
    (begins,) = re.findall(r"```sh\n(ask\(\).*?\n)\n", text, re.DOTALL)
    (asks,) = re.findall(r"```sh\n(PROMOTION=.*?)```", text, re.DOTALL)
    given = {"PATH": os.environ["PATH"], "TOKEN": ann.token, "API": ann.url, "MODEL": model}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", begins + asks], env=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "succeeded", found
    return dict(found)
