"""The stream of all that changes of a tenant's work, over both databases; and what a job's metrics and events share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.servers.databases import KINDS, empty
from tests.servers.service import Person, Stand, stood


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from stood(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def people(shared: Stand) -> tuple[Person, Person]:
    empty(shared.site)
    return shared.person("ayes", "ann"), shared.person("bees", "bob")


def told(answer: requests.Response) -> Iterator[tuple[str, Any, str]]:
    """(event, data, id) of each event as it comes."""
    said: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        name, _, value = line.partition(": ")
        if line:
            said[name] = value
        elif "data" in said:
            yield said["event"], json.loads(said["data"]), said.get("id", "")
            said = {}
        else:
            said = {}


def test_a_stream_tells_of_each_change_and_of_nobody_elses(shared: Stand, people: tuple[Person, Person]) -> None:
    ann, bob = people
    waiting = ann.job("waits")
    hers, his = told(ann.ask("GET", "/v1/events")), told(bob.ask("GET", "/v1/events"))
    kind, data, _ = next(hers)
    assert (kind, data["id"], data["kind"], data["state"]) == ("work", waiting, "train", "queued")
    second = ann.job("second")
    assert next(hers)[1] == {"id": second, "kind": "train", "state": "queued", "reason": None, "progress": {}}
    assert ann.got("POST", f"/v1/training-jobs/{waiting}/cancel")["state"] == "cancelled"
    assert next(hers)[1]["state"] == "cancelled"
    of_bob = bob.job("his own")
    assert next(his)[1]["id"] == of_bob, "the first that he is told of, whatever came before"
    bob.got("POST", f"/v1/training-jobs/{of_bob}/cancel")
    assert (found := next(his)[1])["id"] == of_bob
    assert found["state"] == "cancelled"


def test_events_go_on_where_metrics_ended(shared: Stand, people: tuple[Person, Person]) -> None:
    ann, _ = people
    job = ann.job("trained")
    before = ann.got("GET", f"/v1/training-jobs/{job}/metrics")
    assert before == {"metrics": {}, "last_event_id": "0.0"}
    shared.trained(ann, job, "mark")
    after = ann.got("GET", f"/v1/training-jobs/{job}/metrics")
    assert after["metrics"] == {"train/mark": [[5, 1.0, 2.5]], "test/mark": [[10, 2.0, 0.5]]}
    whole = told(ann.ask("GET", f"/v1/training-jobs/{job}/events"))
    assert [next(whole)[0] for _ in range(2)] == ["metrics", "job"]
    rest = told(ann.ask("GET", f"/v1/training-jobs/{job}/events", Last_Event_ID=after["last_event_id"]))
    assert next(rest)[0] == "job", "metrics that were read are not told again"


def test_templates_are_of_a_dataset_that_is_made(shared: Stand, people: tuple[Person, Person]) -> None:
    ann, bob = people
    datafile = ann.datafile(b"no archive", "a.zip")
    queued = ann.got("POST", "/v1/datasets", {"name": "queued", "datafile_id": datafile})["id"]
    assert ann.ask("GET", f"/v1/datasets/{queued}/templates").status_code == 409
    assert bob.ask("GET", f"/v1/datasets/{queued}/templates").status_code == 404
    ann.got("POST", f"/v1/datasets/{queued}/cancel")
    dataset = shared.dataset(ann, datafile, "label")
    [linear] = ann.got("GET", f"/v1/datasets/{dataset}/templates")["items"]
    given = {"name": "from a template", "solver": linear["solver"], "net": linear["net"], "dataset_id": dataset}
    solver = ann.got("POST", "/v1/solvers", given)
    assert solver["price"]["parameters"] == 3 * 8 * 8 + 1
