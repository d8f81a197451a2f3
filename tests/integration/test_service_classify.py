"""What a job's net said of its test pictures is what the service says: by files, by URLs, in batches, cold and warm."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from tritonclient import http  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from pipeline.clock import Clock
from pipeline.fetch.fetcher import Fetcher
from pipeline.service.database.statements import Database
from pipeline.service.serving.parent import Sizes
from pipeline.service.work.attempt import Hands
from pipeline.service.work.worker import work
from tests.integration.fetch.asking import limits
from tests.servers import picture_training as spots
from tests.servers.bodies import hosting
from tests.servers.databases import sites
from tests.servers.demand import until
from tests.servers.service import Person, Stand, standing

TESTED = spots.pictures(60, 1)
FILES = [spots.png(image) for image, _ in TESTED]


@dataclass
class Host:
    """A host of the test pictures, by their numbers."""

    url: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    asked: list[str] = []
    bodies = {f"/{number}": content for number, content in enumerate(FILES)} | {"/page": b"<html>not a picture</html>"}
    with hosting(bodies, asked.append) as url:
        yield Host(url, asked)


@dataclass
class Trained:
    """A job that is over, and who owns it.  folder: of its newest snapshot's files."""

    stand: Stand
    ann: Person
    job: str
    folder: Path

    def classifier(self, **more: Any) -> str:
        body = {"name": "spots", "training_job_id": self.job, "labels": spots.LABELS, **more}
        return str(self.ann.got("POST", "/v1/classifiers", body)["id"])

    def where(self, classifier: str) -> str:
        return f"{self.stand.url}/v1/classifiers/{classifier}/classify?top=6"

    def post(self, classifier: str, **given: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.ann.token}", **given.pop("headers", {})}
        return requests.post(self.where(classifier), headers=headers, timeout=120, **given)


def _work(stand: Stand) -> list[str]:
    """A worker does what is queued; what it said."""
    said: list[str] = []

    async def works(database: Database) -> None:
        fetcher = lambda: Fetcher(limits())  # noqa: E731
        hands = Hands(
            database, stand.store, Clock(), stand.folder / "scratch", lambda: False, said.append, fetcher,
            Sizes(threads=1),
        )  # fmt: skip
        await work(hands, once=True)

    stand.site.run(works(stand.site.open()))
    return said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("classify")
    for site in sites("sqlite", folder, None):
        with standing(site, folder, Sizes(threads=1), lambda: Fetcher(limits())) as stand:
            ann = stand.person("ayes", "ann")
            inputs = {
                "train": ann.datafile(spots.database(spots.pictures(240, 0))),
                "test": ann.datafile(spots.database(TESTED)),
            }
            job = ann.job(solver_id=ann.solver(spots.SOLVER, spots.NET), inputs=inputs, seed=3)

            _work(stand)
            end = ann.got("GET", f"/v1/training-jobs/{job}")
            assert end["state"] == "succeeded", end["detail"]
            weights = f"/v1/training-jobs/{job}/snapshots/120/net.caffemodel"
            (folder / "net.caffemodel").write_bytes(ann.ask("GET", weights).content)
            yield Trained(stand, ann, job, folder)


@pytest.fixture(scope="module")
def said_by_the_job(trained: Trained) -> NDArray[np.float32]:
    """(60, classes): what the job's net says in its own test, by the engine that trained it, one example a batch."""
    from pipeline.training.assembly import How
    from pipeline.training.evaluating import evaluate
    from pipeline.training.solver import Flags

    folder = trained.folder
    (folder / "test").mkdir()
    (folder / "test/data.mdb").write_bytes(spots.database(TESTED))
    text = f"""
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ {spots.TRANSFORM} }}
        data_param {{ source: "{folder}/test" backend: LMDB batch_size: 1 }} }}
{spots.BODY} layer {{ name: "p" type: "Softmax" bottom: "ip" top: "p" }}
"""
    (folder / "test.prototxt").write_text(text)
    found: list[float] = []

    def say(place: str, line: str, level: str = "I") -> None:
        if value := re.fullmatch(r"Batch \d+, p = (\S+)", line):
            found.append(float(value[1]))

    evaluate(folder / "test.prototxt", folder / "net.caffemodel", 60, Flags(), say, How(threads=1))  # type: ignore[arg-type]
    return np.array(found, np.float32).reshape(60, spots.CLASSES)


def values(answer: dict[str, Any]) -> NDArray[np.float32]:
    """(pictures, classes), by the classes' numbers."""
    rows = []
    for one in answer["results"]:
        assert one["failure"] is None
        order = [of["probability"] for of in sorted(one["predictions"], key=lambda of: of["index"])]
        assert [of["probability"] for of in one["predictions"]] == sorted(order, reverse=True)
        assert all(of["label"] == spots.LABELS[of["index"]] for of in one["predictions"])
        rows.append(order)
    return np.array(rows, np.float32)


def test_the_test_pictures_get_the_jobs_own_predictions_by_files_urls_and_batches_cold_and_warm(
    trained: Trained, said_by_the_job: NDArray[np.float32], host: Host
) -> None:
    name = trained.classifier()
    parts = [("files", (f"{at}.png", content)) for at, content in enumerate(FILES)]
    urls = [f"{host.url}/{at}" for at in range(60)]
    cold = trained.post(name, files=parts)
    assert cold.ok, (cold.text, trained.stand.said)
    ways = {
        "a batch of files, cold": cold.json(),
        "the same, warm": trained.post(name, files=parts).json(),
        "URLs": trained.post(name, json={"urls": urls}).json(),
        "URLs in a form": trained.post(name, files=[("urls", (None, url)) for url in urls]).json(),
        "one by one": {"results": [trained.post(name, data=one).json()["results"][0] for one in FILES]},
        "half and half": trained.post(
            name, files=[*parts[:30], *(("urls", (None, url)) for url in urls[30:])]
        ).json(),
    }  # fmt: skip
    job = said_by_the_job
    right = float(np.mean(job.argmax(1) == [label for _, label in TESTED]))
    assert 0.5 < right < 1.0, "some are wrong, so that equal mistakes say something"
    measured = trained.ann.got("GET", f"/v1/training-jobs/{trained.job}/metrics")["metrics"]["test/accuracy"][-1][2]
    assert right == pytest.approx(measured), "the job measured the same"
    for way, answer in ways.items():
        found = values(answer)
        assert found.shape == job.shape, way
        assert (found.argmax(1) == job.argmax(1)).all(), way
        np.testing.assert_allclose(found, job, rtol=0, atol=2e-5, err_msg=way)  # two engines' sums; six digits logged
    assert [one["name"] for one in ways["URLs"]["results"]] == urls


def test_a_broken_picture_is_a_failure_of_its_own(trained: Trained, host: Host) -> None:
    name = trained.classifier()
    given = [
        ("files", ("a.png", FILES[0])), ("files", ("torn.png", FILES[1][:300])), ("files", ("empty", b"")),
        ("files", ("text", b"hello, I am no picture")), ("urls", (None, f"{host.url}/page")),
        ("urls", (None, "file:///etc/passwd")), ("urls", (None, "http://")), ("files", ("b.png", FILES[2])),
    ]  # fmt: skip
    results = trained.post(name, files=given).json()["results"]
    reasons = [one["failure"]["reason"] if one["failure"] else "" for one in results]
    assert reasons[0] == reasons[4] == "", "those beside it are answered"
    assert [bool(one["predictions"]) for one in results] == [not reason for reason in reasons]
    assert reasons[1:4] == ["truncated", "empty", "not_image"]
    assert reasons[5:] == ["not_image", "blocked", "bad_url"]
    for body, code in ((b"", 422), (b'{"urls": "x"}', 422), (b'{"urls": []}', 422)):
        answer = trained.post(name, data=body, headers={"Content-Type": "application/json" if body else "image/png"})
        assert answer.status_code == code, answer.text
    many = [("files", ("x", FILES[0]))] * 65
    assert trained.post(name, files=many).status_code in (400, 422)


def test_addresses_within_are_refused_by_the_services_own_fetcher(trained: Trained, host: Host) -> None:
    """The fetcher that a real server makes, whatever its settings allow the pipeline."""
    from pipeline.service.fetching import fetched, fetcher_for

    found = fetched(fetcher_for(limits(allow_folders=["/"]))(), [f"{host.url}/0", "http://[::1]/", "/etc/hostname"])
    assert [getattr(one, "reason", one) for one in found] == ["blocked", "blocked", "blocked"]


def test_a_killed_serving_process_is_a_typed_503_and_the_next_request_is_answered(trained: Trained) -> None:
    """It is frozen first, so that a request is surely under way when it dies."""
    name = trained.classifier()
    before = trained.post(name, data=FILES[0]).json()["results"]
    process = _serving_of(os.getpid())[0]
    os.kill(process, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: trained.post(name, data=FILES[0]))
        until(lambda: _is_asked(process), "the process is asked")
        os.kill(process, signal.SIGKILL)
        answer = asked.result()
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert (answer.json()["type"], answer.headers["Retry-After"]) == ("/problems/serving", "1")
    assert trained.post(name, data=FILES[0]).json()["results"] == before
    assert _serving_of(os.getpid())[0] != process
    assert "serving process was killed by SIGKILL" in " ".join(trained.stand.said)
    idle = _serving_of(os.getpid())[0]
    os.kill(idle, signal.SIGKILL)
    ended = os.WEXITED | os.WNOWAIT | os.WNOHANG  # a leader is a zombie before its last thread has ended
    until(lambda: os.waitid(os.P_PID, idle, ended) is not None, "it is dead")
    assert trained.post(name, data=FILES[0]).json()["results"] == before, "one that died unasked takes nobody with it"


def test_too_many_at_once_are_refused_at_once_with_the_limit(trained: Trained) -> None:
    name = trained.classifier()
    trained.post(name, data=FILES[0])
    process = _serving_of(os.getpid())[0]
    os.kill(process, signal.SIGSTOP)
    parts = [("files", ("x.png", one)) for one in FILES]
    try:
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(lambda: trained.post(name, files=parts)) for _ in range(6)]
            until(lambda: sum(one.done() for one in asked) == 2, "those that do not fit are answered")
            refused = [one.result() for one in asked if one.done()]
            os.kill(process, signal.SIGCONT)
            codes = sorted(one.result().status_code for one in asked)
    finally:
        os.kill(process, signal.SIGCONT)
    for one in refused:
        said = one.json()
        assert (one.status_code, said["type"], one.headers["Retry-After"]) == (503, "/problems/busy", "1")
        assert (said["limit"], said["allowed"]) == ("serving_items_of_tenant", 128)
    assert codes == [200] * 4 + [503] * 2


def test_a_process_that_has_grown_ends_after_its_answer_and_a_net_makes_room_for_another(trained: Trained) -> None:
    """A server whose processes may have 2 MiB: each answer is the last of its process.  Another holds one net."""
    names = [trained.classifier(), trained.classifier(iteration=60)]
    wanted = [trained.post(name, data=FILES[0]).json()["results"] for name in names]
    assert wanted[0] != wanted[1], "they are two nets"
    for sizes, begun in ((Sizes(threads=1, bytes=2**21), 4), (Sizes(threads=1, nets=1), 0)):
        with standing(trained.stand.site, trained.stand.folder, sizes) as other:
            who = replace(trained, stand=other)
            found = [who.post(name, data=FILES[0]).json()["results"] for name in names * 2]
            assert found == wanted * 2
            assert len([one for one in other.said if "and another one begins" in one]) == begun


def _serving_of(process: int) -> list[int]:
    """The serving processes that a process began."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    numbers = [int(one) for some in children for one in some.read_text().split()]
    return [one for one in numbers if b"service.serving.process" in Path(f"/proc/{one}/cmdline").read_bytes()]


def _is_asked(process: int) -> bool:
    """The server waits for an answer of that process."""
    return any(thread.name == f"patience with {process}" for thread in threading.enumerate())


@pytest.fixture
def triton(trained: Trained) -> Iterator[Any]:
    """Triton's own client, which knows the protocol and nothing of us."""
    client = http.InferenceServerClient(trained.stand.url.removeprefix("http://"), network_timeout=120.0)
    yield client
    client.close()


def test_the_inference_protocol_gives_the_same_predictions_to_tritons_own_client(
    trained: Trained, triton: Any, said_by_the_job: NDArray[np.float32]
) -> None:
    name, headers = trained.classifier(name="by protocol"), {"Authorization": f"Bearer {trained.ann.token}"}
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.get_server_metadata()["extensions"] == ["classification", "binary_tensor_data"]
    assert triton.is_model_ready("by protocol", headers=headers)
    told = triton.get_model_metadata(name, headers=headers)
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["inputs"]] == [
        ("image", "BYTES", [-1]), ("data", "FP32", [-1, 3, 16, 16]),
    ]  # fmt: skip

    pictures = http.InferInput("image", [60], "BYTES")
    pictures.set_data_from_numpy(np.array(FILES, np.object_))
    middle = (slice(None), slice(2, 18), slice(2, 18), slice(None))
    pixels = np.stack([image for image, _ in TESTED])[middle].astype(np.float32).transpose(0, 3, 1, 2)
    prepared = (pixels - np.array([90, 100, 110], np.float32).reshape(1, 3, 1, 1)) * np.float32(0.02)
    # the client writes the length of each request into the headers that it is given
    for given in (pictures, _numbers(prepared, binary=True), _numbers(prepared, binary=False)):
        for wanted in (None, [http.InferRequestedOutput("probabilities", binary_data=False)]):
            found = triton.infer(name, [given], outputs=wanted, headers={**headers}).as_numpy("probabilities")
            assert found.shape == (60, 6)
            assert (found.argmax(1) == said_by_the_job.argmax(1)).all()
            np.testing.assert_allclose(found, said_by_the_job, rtol=0, atol=2e-5)
    for binary in (True, False):
        wanted = [http.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        found = triton.infer("by protocol", [pictures], outputs=wanted, headers={**headers}).as_numpy("probabilities")
        assert found.shape == (60, 2)
        first = [one.decode() if isinstance(one, bytes) else one for one in found[:, 0]]
        values, numbers, labels = zip(*(one.split(":") for one in first), strict=True)
        assert [int(one) for one in numbers] == said_by_the_job.argmax(1).tolist()
        assert list(labels) == [spots.LABELS[int(one)] for one in numbers]
        np.testing.assert_allclose([float(one) for one in values], said_by_the_job.max(1), rtol=0, atol=2e-5)


def _numbers(prepared: NDArray[np.float32], *, binary: bool) -> Any:
    given = http.InferInput("data", list(prepared.shape), "FP32")
    given.set_data_from_numpy(prepared, binary_data=binary)
    return given


def test_the_inference_protocol_says_what_is_wrong_in_its_own_words(trained: Trained, triton: Any) -> None:
    name, headers = trained.classifier(), {"Authorization": f"Bearer {trained.ann.token}"}
    broken = http.InferInput("image", [2], "BYTES")
    broken.set_data_from_numpy(np.array([FILES[0], FILES[1][:300]], np.object_))
    with pytest.raises(InferenceServerException, match="row 1: truncated"):
        triton.infer(name, [broken], headers={**headers})
    with pytest.raises(InferenceServerException, match="no token"):
        triton.infer(name, [broken])
    with pytest.raises(InferenceServerException, match="no such thing"):
        triton.get_model_metadata("nobody's", headers=headers)
    good = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILES[0]).decode()]}
    where = f"/v2/models/{name}/infer"
    answer = trained.ann.ask("POST", where, {"id": "mine", "inputs": [good]})
    assert (answer.status_code, answer.json()["id"], answer.json()["outputs"][0]["shape"]) == (200, "mine", [1, 6])
    for wrong in (
        {}, [], {"inputs": []}, {"inputs": [good, good]}, {"inputs": [{**good, "shape": [2]}]},
        {"inputs": [{**good, "shape": [10**9]}]}, {"inputs": [{**good, "shape": "x"}]},
        {"inputs": [{**good, "data": ["not base64"]}]}, {"inputs": [{**good, "data": 5}]},
        {"inputs": [{**good, "datatype": "FP32"}]}, {"inputs": [{**good, "name": "other"}]},
        {"inputs": [good], "outputs": [{"name": "other"}]},
        {"inputs": [{"name": "data", "datatype": "FP32", "shape": [1, 3, 16, 16], "data": [1.0]}]},
        {"inputs": [{"name": "data", "datatype": "FP32", "shape": [1, 3, 16, 16], "data": [[["x"] * 768]]}]},
    ):  # fmt: skip
        answer = trained.ann.ask("POST", where, wrong)
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), (wrong, answer.text)
    for length in ("x", "-1", "100000", "9" * 30):
        answer = trained.ann.ask("POST", where, b"{}", **{"Inference_Header_Content_Length": length})
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), length


def test_a_version_answers_as_its_snapshot_and_an_alias_as_the_version_that_it_names_then(
    trained: Trained, said_by_the_job: NDArray[np.float32]
) -> None:
    ann = trained.ann
    model = ann.got("POST", "/v1/models", {"name": "spots"})["id"]
    for iteration in (60, 120):
        version = {"training_job_id": trained.job, "iteration": iteration, "labels": spots.LABELS}
        ann.got("POST", f"/v1/models/{model}/versions", version)
    alias = f"/v1/models/{model}/aliases/best"
    assert ann.ask("PUT", alias, {"version": 1}, If_None_Match="*").status_code == 201
    parts = [("files", ("x.png", one)) for one in FILES]

    def said(classifier: str) -> NDArray[np.float32]:
        return values(trained.post(classifier, files=parts).json())

    first, second = (
        ann.got("POST", "/v1/classifiers", {"name": "v", "model_id": model, "version": number})["id"]
        for number in (1, 2)
    )
    best = ann.got("POST", "/v1/classifiers", {"name": "best", "model_id": model, "alias": "best"})["id"]
    early, late = said(first), said(second)
    np.testing.assert_allclose(late, said_by_the_job, rtol=0, atol=2e-5)
    assert np.abs(early - late).max() > 0.01, "they are two nets"
    np.testing.assert_array_equal(said(best), early)
    assert ann.ask("PUT", alias, {"version": 2}, If_Match="*").status_code == 200
    np.testing.assert_array_equal(said(best), late)
    shown = ann.got("GET", f"/v1/classifiers/{best}")
    assert (shown["alias"], shown["version"], shown["labels"]) == ("best", None, spots.LABELS)
    assert ann.ask("DELETE", f"/v1/models/{model}/versions/1").status_code == 409, "a classifier answers with it"
    assert ann.ask("DELETE", alias, If_Match="*").status_code == 204
    gone = trained.post(best, files=parts[:1])
    assert (gone.status_code, gone.json()["detail"]) == (409, "the model has no alias best now")
    for wrong in ({}, {"model_id": model}, {"model_id": model, "version": 1, "alias": "best"},
                  {"model_id": model, "version": 9}, {"training_job_id": trained.job, "version": 1}):  # fmt: skip
        assert ann.ask("POST", "/v1/classifiers", {"name": "x", **wrong}).status_code == 422, wrong


def packed(entries: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return held.getvalue()


def test_a_classification_job_answers_urls_and_archives_as_one_request_does(
    trained: Trained, host: Host, said_by_the_job: NDArray[np.float32]
) -> None:
    ann, name = trained.ann, trained.classifier()
    urls = [f"{host.url}/{at % 60}" for at in range(90)]
    urls[7], urls[70] = f"{host.url}/page", "ftp://nowhere/x"
    entries = {f"set/{at:02d}.png": one for at, one in enumerate(FILES)} | {"set/zz.txt": b"no picture"}
    both = {
        "urls": {"urls": urls},
        "archive": {"datafile_id": ann.datafile(packed(entries))},
    }  # fmt: skip
    jobs = {
        way: ann.got("POST", "/v1/classification-jobs", {"name": way, "classifier_id": name, "top": 6, **given})
        for way, given in both.items()
    }
    where = {way: f"/v1/classification-jobs/{job['id']}" for way, job in jobs.items()}
    assert ann.ask("GET", f"{where['urls']}/results").status_code == 409
    gone = ann.got("POST", "/v1/classification-jobs", {"name": "g", "classifier_id": name, "urls": urls[:1]})["id"]
    assert ann.ask("POST", f"/v1/classification-jobs/{gone}/cancel").json()["state"] == "cancelled"
    _work(trained.stand)

    found: dict[str, list[Any]] = {}
    for way, path in where.items():
        end = ann.got("GET", path)
        assert end["state"] == "succeeded", end
        following, found[way] = f"{path}/results?limit=40", []
        while following:
            answer = ann.ask("GET", following)
            assert answer.ok, answer.text
            found[way] += answer.json()["items"]
            following = answer.links["next"]["url"] if "next" in answer.links else ""
    assert [one["number"] for one in found["urls"]] == list(range(90))
    assert [one["name"] for one in found["urls"]] == urls
    assert {at: one["failure"]["reason"] for at, one in enumerate(found["urls"]) if one["failure"]} == {
        7: "not_image", 70: "blocked",
    }  # fmt: skip
    assert ann.got("GET", where["urls"])["result"] == {"pictures": 90, "failed": 2}
    good = [one for at, one in enumerate(found["urls"]) if at not in (7, 70)]
    wanted = said_by_the_job[[at % 60 for at in range(90) if at not in (7, 70)]]
    np.testing.assert_allclose(values({"results": good}), wanted, rtol=0, atol=2e-5)
    assert found["archive"][60]["failure"]["reason"] == "not_image"
    np.testing.assert_allclose(values({"results": found["archive"][:60]}), said_by_the_job, rtol=0, atol=2e-5)
    listed = ann.got("GET", "/v1/classification-jobs")["items"]
    assert [one["id"] for one in listed] == [gone, jobs["archive"]["id"], jobs["urls"]["id"]]
    assert ann.ask("DELETE", where["urls"], If_Match="*").status_code == 204
    assert ann.ask("GET", where["urls"]).status_code == 404
    assert ann.got("GET", "/v1/training-jobs")["items"][0]["id"] == trained.job, "they are no trainings"


def test_what_ends_a_classification_job_is_said(trained: Trained, host: Host) -> None:
    ann, name = trained.ann, trained.classifier()

    def job(**given: Any) -> str:
        return str(ann.got("POST", "/v1/classification-jobs", {"name": "j", "classifier_id": name, **given})["id"])

    torn = job(datafile_id=ann.datafile(b"no archive at all" * 100))
    lost = trained.classifier()
    orphan = ann.got("POST", "/v1/classification-jobs", {"name": "o", "classifier_id": lost, "urls": ["http://x/"]})
    assert ann.ask("DELETE", f"/v1/classifiers/{lost}", If_Match="*").status_code == 204
    good = job(urls=[f"{host.url}/0"])
    _work(trained.stand)
    ends = {one: ann.got("GET", f"/v1/classification-jobs/{one}") for one in (torn, orphan["id"], good)}
    assert [(one["state"], one["reason"]) for one in ends.values()] == [
        ("failed", "no_data"), ("failed", "no_data"), ("succeeded", None),
    ]  # fmt: skip
    assert "classifier of this job is gone" in ends[orphan["id"]]["detail"]
    for wrong, code in (({}, 422), ({"urls": []}, 422), ({"urls": ["x"], "datafile_id": _any_datafile(ann)}, 422),
                        ({"urls": ["x"] * 10_001}, 422), ({"urls": ["x" * 9000]}, 422)):  # fmt: skip
        body = {"name": "x", "classifier_id": name, **wrong}
        assert ann.ask("POST", "/v1/classification-jobs", body).status_code == code, wrong


def _any_datafile(ann: Person) -> str:
    return str(ann.got("GET", "/v1/datafiles")["items"][0]["id"])


def test_the_walk_through_of_the_document_is_typed(trained: Trained, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/service.md").read_text()
    typed = re.findall(r"```sh\n(AUTH=.*?)```", text, re.DOTALL)
    assert len(typed) == 1
    for name, content in (("picture.png", FILES[0]), ("other.png", FILES[1])):
        (tmp_path / name).write_bytes(content)
    environ = {"PATH": os.environ["PATH"], "TOKEN": trained.ann.token, "API": trained.stand.url, "JOB": trained.job}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", typed[0].replace("\ncurl -s", "\necho\ncurl -s")],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, many = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert len(one["results"][0]["predictions"]) == 3
    assert [bool(found["predictions"]) for found in many["results"]] == [True, True, False]


def test_the_api_process_loads_no_engine_and_no_decoder() -> None:
    program = (
        "import sys, pipeline.app.promotions, pipeline.service.http.server as s; s.make_app(None)\n"
        "print([one for one in ('torch', 'cv2', 'openvino', 'onnxruntime', 'PIL', 'pycurl') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_what_a_classifier_is_made_from_is_judged(trained: Trained) -> None:
    ann = trained.ann
    body = {"name": "x", "training_job_id": trained.job}
    first = ann.got("POST", "/v1/classifiers", {**body, "iteration": 60})
    assert (first["iteration"], first["labels"]) == (60, ["0", "1", "2", "3", "4", "5"])
    assert first["pictures"] == {
        "channels": 3, "size": [20, 20], "crop": 16, "scale": pytest.approx(0.02), "mean": [90.0, 100.0, 110.0],
    }  # fmt: skip
    for wrong, code, where in (
        ({"iteration": 61}, 422, "#/iteration"), ({"labels": ["a"]}, 422, "#/labels"),
        ({"preprocessing": {"scale": 2.0}}, 422, "#/preprocessing"), ({"what": 1}, 422, "#/what"),
    ):  # fmt: skip
        answer = ann.ask("POST", "/v1/classifiers", {**body, **wrong})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (code, where), answer.text
    job = f"/v1/training-jobs/{trained.job}"
    assert ann.ask("DELETE", job, If_Match="*").status_code == 409, "classifiers answer with its snapshots"
    where = f"/v1/classifiers/{first['id']}"
    assert ann.ask("DELETE", where).status_code == 428
    assert ann.ask("DELETE", where, If_Match='"1"').status_code == 204
    assert ann.ask("GET", where).status_code == 404
    assert json.dumps(ann.got("GET", "/v1/classifiers")).count(first["id"]) == 0
