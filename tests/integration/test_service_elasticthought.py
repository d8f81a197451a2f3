"""ElasticThought's document, typed as it is written: from a user to the label of a picture, both spellings."""

from __future__ import annotations

import base64
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests

from pipeline.clock import Clock
from pipeline.fetch.fetcher import Fetcher
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.serving.parent import Sizes
from pipeline.service.words import Role
from pipeline.service.work.attempt import Hands
from pipeline.service.work.worker import work
from tests.integration.fetch.asking import limits
from tests.servers.bodies import hosting
from tests.servers.databases import sites
from tests.servers.service import Stand, standing

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX,
         cv2.FONT_HERSHEY_TRIPLEX)  # fmt: skip
SOLVER = """
net: "solver-net.prototxt" test_iter: 2 test_interval: 100 base_lr: 0.02 momentum: 0.9 weight_decay: 0.0005
lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 50 max_iter: 200 snapshot: 200 snapshot_prefix: "snapshot"
solver_mode: CPU
"""
NET = """
name: "letters"
layers { name: "letters" type: IMAGE_DATA top: "data" top: "label"
         image_data_param { source: "training" batch_size: 36 }
         transform_param { scale: 0.0039 } include: { phase: TRAIN } }
layers { name: "letters" type: IMAGE_DATA top: "data" top: "label"
         image_data_param { source: "test" batch_size: 36 }
         transform_param { scale: 0.0039 } include: { phase: TEST } }
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" blobs_lr: 1 blobs_lr: 2
         inner_product_param { num_output: 36 weight_filler { type: "xavier" } } }
layers { name: "accuracy" type: ACCURACY bottom: "fc" bottom: "label" top: "accuracy" include: { phase: TEST } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc" bottom: "label" top: "loss" }
"""


def drawn(letter: str, font: int) -> bytes:
    """A PNG of 28 x 28."""
    image = np.zeros((28, 28, 3), np.uint8)
    cv2.putText(image, letter, (4, 22), font, 0.8, (255, 255, 255), 1)
    return bytes(cv2.imencode(".png", image)[1])


def alphabet() -> bytes:
    """A tar.gz of `label/file`."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for letter in LETTERS:
            for number, font in enumerate(FONTS):
                content = drawn(letter, font)
                entry = tarfile.TarInfo(f"{letter}/{number}.png")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return held.getvalue()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    bodies = {
        "/mnist-data.tar.gz": alphabet(), "/page.tar.gz": b"<html>404</html>", "/imageurl1.png": drawn("a", FONTS[0]),
        "/mnist_solver.prototxt": SOLVER.encode(), "/mnist_train_test.prototxt": NET.encode(),
        "/binary.prototxt": b"\xff\xfe\0\0", "/wrong.prototxt": b"layer { what: 1 }",
    }  # fmt: skip
    with hosting(bodies) as url:
        yield url


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("elasticthought")

    def files(accept: Any, most: int) -> Fetcher:
        return Fetcher(limits(max_bytes=most), accept=accept)

    for site in sites("sqlite", folder, None):
        with standing(site, folder, Sizes(threads=1), lambda: Fetcher(limits()), files) as found:
            yield found


@dataclass
class Client:
    """One of ElasticThought's clients."""

    url: str
    authorization: str

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        headers = {"Authorization": self.authorization}
        return requests.request(method, self.url + path, headers=headers, json=body, timeout=60, **more)

    def posted(self, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """201, asked again where the answer says so."""
        ends = time.monotonic() + 120
        while True:
            answer = self.ask("POST", path, body, **more)
            if answer.status_code != 409 or "Retry-After" not in answer.headers or time.monotonic() > ends:
                break
            assert answer.json()["hint"]
            time.sleep(0.2)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_the_document_is_answered_as_it_is_written(stand: Stand, host: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
    operator = stand.person("ayes", "olga", platform=True)
    body = {"username": "foo", "email": "foo@foo.net", "password": "bar"}
    user = Client(stand.url, basic("olga", operator.token)).posted("/users", body)
    assert "bar" not in user.values()
    foo = Client(stand.url, basic("foo", user["token"]))
    ending = threading.Event()

    async def does(database: Database) -> None:
        await work(Hands(database, stand.store, Clock(), tmp_path / "scratch", ending.is_set, lambda said: None))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: stand.site.run(does(stand.site.open())))
        try:
            _replayed(foo, Client(stand.url, f"Token {user['token']}"), host)
        finally:
            ending.set()
        done.result()
    assert stand.said == [], "nothing that an operator has to know of"


def _replayed(foo: Client, token: Client, host: str) -> None:
    data = foo.posted("/datafiles", {"url": f"{host}/mnist-data.tar.gz", "layers_type": "IMAGE_DATA"})
    assert foo.posted("/datafiles", {"url": f"{host}/mnist-data.tar.gz"})["id"] != data["id"], "as the code bound it"
    sides = {"training": {"datafile-id": data["id"], "split-percentage": 0.7}}
    held = {"datafile-id": data["id"], "split-percentage": 0.3}
    as_bound = foo.posted("/datasets", {**sides, "test": held})
    dataset = foo.posted("/datasets", {**sides, "testing": held})
    assert dataset["_id"] == dataset["id"] != as_bound["id"]
    assert dataset["processing-state"] == "pending"
    assert (dataset["training"], dataset["testing"]) == ({"split-percentage": 0.7}, {"split-percentage": 0.3})

    spec = {"dataset-id": dataset["_id"], "specification-url": f"{host}/mnist_solver.prototxt",
            "specification-net-url": f"{host}/mnist_train_test.prototxt"}  # fmt: skip
    solver = foo.posted("/solvers", spec)["id"]
    job = foo.posted("/training-jobs", {"solver-id": solver})
    assert job["processing-state"] == "pending"
    asked = {"specification-url": f"{host}/mnist_classifier.prototxt", "training-job-id": job["id"], "scale": "255",
             "image-width": "28", "image-height": "28", "color": False, "gpu": False}  # fmt: skip
    classifier = foo.posted("/classifiers", asked)["id"]

    status = token.ask("GET", f"/training-jobs/{job['id']}/status").json()
    assert (status["state"], status["processing-state"]) == ("finished_successfully", "finished_successfully")
    assert (status["last-iteration"], status["max-iterations"]) == (200, 200)
    assert 0 < status["loss"] < 3.0, "36 labels by chance are 3.6"
    logs = token.ask("GET", status["logs"])
    assert logs.headers["Content-Type"].startswith("text/plain")
    assert "Iteration 200" in logs.text

    form = [("urls", (None, f"{host}/imageurl1.png")), ("files", ("imagefile1.png", drawn("7", FONTS[0]))),
            ("files", ("imagefile2.png", drawn("w", FONTS[2]))), ("files", ("torn.png", b"no picture"))]  # fmt: skip
    told = foo.posted(f"/classifiers/{classifier}/classify", files=form)
    right = {f"{host}/imageurl1.png": "a", "imagefile1.png": "7", "imagefile2.png": "w"}
    assert set(told["results"]) == set(right)
    assert sum(told["results"][name] == label for name, label in right.items()) >= 2, told["results"]
    assert [one["failure"]["reason"] for one in told["pictures"] if one["failure"]] == ["not_image"]
    older = foo.posted("/training-jobs", {"solver": solver})["id"]
    bearer = Client(foo.url, token.authorization.replace("Token", "Bearer"))
    assert bearer.ask("POST", f"/v1/training-jobs/{older}/cancel").status_code == 202
    states = {token.ask("GET", f"/training-jobs/{older}/status").json()["processing-state"]}
    assert states <= {"failed", "processing"}, "cancelled at once, or by its worker's next beat"


def test_what_the_door_refuses_has_its_reason(stand: Stand, host: str) -> None:
    ann = stand.person("bees", "ann", Role.MEMBER)
    who = Client(stand.url, basic("anybody", ann.token))
    user = {"username": "mallory", "email": "m@m.invalid", "password": "let-me-in-1"}
    for authorization in ("", basic("ann", "wrong"), "Basic !!!", "Token wrong", f"Digest {ann.token}"):
        answer = Client(stand.url, authorization).ask("POST", "/users", user)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), authorization
    answer = who.ask("POST", "/users", user)
    assert (answer.status_code, answer.json()["detail"]) == (403, "only an operator of the installation may do this")
    assert "let-me-in" not in answer.text + "".join(stand.said)
    mine, other = (ann.datafile(content) for content in (b"one", b"two"))
    never = {kind: new_id(kind, 1.0) for kind in (Kind.DATAFILE, Kind.DATASET, Kind.SOLVER, Kind.TRAINING_JOB)}
    half = {"datafile-id": mine, "split-percentage": 0.5}
    text = f"{host}/mnist_solver.prototxt"
    for path, body, pointer in (
        ("/datafiles", {"url": f"{host}/page.tar.gz"}, "#/url"),
        ("/datafiles", {"url": f"{host}/nothing"}, "#/url"),
        ("/datafiles", {"url": "file:///etc/passwd"}, "#/url"),
        ("/datafiles", {"url": text, "what": 1}, "#/what"),
        ("/datasets", {"training": half, "testing": {**half, "datafile-id": other}}, "#/testing/datafile-id"),
        ("/datasets", {"training": half, "testing": half, "test": half}, "#/testing"),
        ("/datasets", {"training": half}, "#/testing"),
        ("/datasets", {"training": half, "test": {**half, "split-percentage": 0.0}}, "#/training/split-percentage"),
        ("/datasets", {side: {"datafile-id": never[Kind.DATAFILE]} for side in ("training", "test")}, "#/datafile-id"),
        ("/solvers", {"dataset-id": never[Kind.DATASET], "specification-url": text, "specification-net-url": text},
         "#/dataset-id"),
        ("/training-jobs", {"solver-id": never[Kind.SOLVER]}, "#/solver-id"),
        ("/training-jobs", {}, "#/solver-id"),
        ("/classifiers", {"specification-url": text, "training-job-id": never[Kind.TRAINING_JOB]}, "#/training-job-id"),
    ):  # fmt: skip
        answer = who.ask("POST", path, body)
        found = answer.json()
        assert (answer.status_code, found["errors"][0]["pointer"]) == (422, pointer), (path, body, answer.text)
    # The service's own fetcher reaches no address within, whatever the settings of the pipeline allow.
    from pipeline.service.fetching import fetched, file_fetcher_for

    own = file_fetcher_for(limits(allow_folders=["/"]))(lambda head: "any", 100)
    (failure,) = fetched(own, [f"{host}/page.tar.gz"])
    assert getattr(failure, "reason", failure) == "blocked"
