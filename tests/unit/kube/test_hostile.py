"""What others write in a namespace: pods with our labels, things with our names, words for our terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import kube
from pipeline.kube.api import ApiError
from pipeline.kube.model import LONGEST_MESSAGE, pod_of
from pipeline.kube.names import KIND
from pipeline.kube.perform import TAKEN_SECONDS, Performer, Seen
from pipeline.kube.plan import LAUNCH_SECONDS
from tests.unit.kube.jobs import job_body, pod_body

Body = dict[str, Any]


class Cluster:
    """A job, and pods and a Service that are there already.  asked: each write."""

    def __init__(self, job: Body, pods: list[Body], owner_of_names: str = "") -> None:
        """owner_of_names: whoever has each name that is to be made; "": nobody."""
        self.job, self.pods, self.owner = job, pods, owner_of_names
        self.asked: list[tuple[str, str]] = []
        self.there: Body | None = None
        """The metadata of what has the names, where it is more than an owner."""

    def call(self, method: str, path: str, body: Body | None = None, **query: str) -> Body:
        if method != "GET":
            self.asked.append((method, path))
        if path.endswith("/trainingjobs/digits"):
            return self.job
        if method == "PUT":
            assert body is not None
            self.job = {**body, "metadata": {**body["metadata"], "resourceVersion": "8"}}
            return self.job
        if self.owner and method == "POST" and path.endswith(("/pods", "/services")):
            raise ApiError(409, "AlreadyExists", "it is there already", path)
        if method == "GET":
            return {"metadata": self.there or {"ownerReferences": [{"uid": self.owner}]}}
        return body or {}

    def list(self, path: str, **query: str) -> tuple[list[Body], str]:
        return self.pods, "8"

    def deleted(self) -> Sequence[str]:
        return [path for method, path in self.asked if method == "DELETE"]


def test_a_pod_with_a_jobs_labels_that_belongs_to_another_is_neither_counted_nor_deleted() -> None:
    forged = [pod_body(0, phase="Failed", code=2, owner="else"), pod_body(1, attempt=7, owner="else")]
    cluster = Cluster(job_body(replicas=2), forged)
    Performer(cluster).step(KIND, Seen(cluster.job, forged))
    assert cluster.deleted() == []
    assert cluster.job["status"]["attempt"] == 0
    assert cluster.job["status"].get("failures", 0) == 0
    made = [path for method, path in cluster.asked if method == "POST" and path.endswith("/pods")]
    assert len(made) == 2, "its own are made"
    real = [pod_body(0, phase="Failed", code=2), pod_body(1)]
    cluster = Cluster(job_body(replicas=2), real)
    Performer(cluster).step(KIND, Seen(cluster.job, real))
    assert cluster.job["status"]["state"] == "Failed", "the same from a pod of its own is the end"


def test_what_has_the_name_and_belongs_to_another_is_not_taken_for_its_own() -> None:
    """It is named, without an event at each look, and no pod is made that nobody would find."""
    cluster = Cluster(job_body(replicas=2), [], "else")
    performer = Performer(cluster)
    for _ in range(3):
        assert performer.step(KIND, Seen(cluster.job, [])) == LAUNCH_SECONDS, "it looks again"
    assert performer.services == set()
    assert cluster.deleted() == []
    assert [path for _, path in cluster.asked if path.endswith("/pods")] == []
    (waits,) = cluster.job["status"]["conditions"]
    assert (waits["type"], waits["status"], waits["reason"]) == ("Running", "False", "NameTaken")
    assert "Service digits is there already and is not this job's" in waits["message"]
    told = [path for method, path in cluster.asked if path.endswith("/events")]
    assert len(told) == 2, "that it was accepted, and that it is hindered"
    cluster.owner = ""
    performer.step(KIND, Seen(cluster.job, []))
    assert len([path for _, path in cluster.asked if path.endswith("/pods")]) == 2, "the name is free now"


def test_what_is_left_of_a_job_of_the_same_name_is_waited_for() -> None:
    for how in ({"ownerReferences": [{"uid": "u0", "kind": KIND, "name": "digits"}]}, {"deletionTimestamp": "now"}):
        cluster = Cluster(job_body(replicas=2), [], "else")
        cluster.there = how
        assert Performer(cluster).step(KIND, Seen(cluster.job, [])) == TAKEN_SECONDS
        assert [one["reason"] for one in cluster.job["status"]["conditions"]] == ["Pending"]
        assert [path for _, path in cluster.asked if path.endswith("/pods")] == []


def test_what_is_its_own_is_taken_for_that() -> None:
    cluster = Cluster(job_body(replicas=2), [], "u1")
    performer = Performer(cluster)
    performer.step(KIND, Seen(cluster.job, []))
    assert performer.services == {"u1"}


def test_the_last_words_of_a_container_are_cut_and_never_reach_the_terminal_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "\x1b]0;owned\x07\u202e" + "x" * 10_000
    body = pod_body(0, phase="Failed", code=1)
    body["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = words
    pod = pod_of(body)
    assert pod is not None
    assert len(pod.message) == LONGEST_MESSAGE

    class Answers:
        namespace = "team"

        def call(self, method: str, path: str, **query: str) -> Body:
            return job_body(status={"state": "Pending", "message": words})

        def list(self, path: str, **query: str) -> tuple[list[Body], str]:
            return ([body], "8") if path.endswith("/pods") else ([], "8")

    class Held:
        def __enter__(self) -> Answers:
            return Answers()

        def __exit__(self, *error: object) -> None:
            return None

    monkeypatch.setattr(kube, "_asking", lambda args: Held())
    from pipeline.cli.main import main

    assert main(["kube", "why", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b]0;owned\\x07\\u202e" in shown
    assert main(["kube", "why", "digits", "--json"]) == 0
    assert "\x1b" not in capsys.readouterr().out
