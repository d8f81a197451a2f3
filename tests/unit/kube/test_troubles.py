"""docs/runbook.md, troubles of training jobs: each line is what the product says where that trouble is injected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.kube.api import ApiError, Unreachable
from pipeline.kube.checking import Finding, findings
from pipeline.kube.conditions import Condition
from pipeline.kube.lease import LEASE_SECONDS
from pipeline.kube.manifests import Wish
from pipeline.kube.names import OPERATOR
from pipeline.kube.plan import plan
from pipeline.kube.story import NEXT, story
from pipeline.kube.times import micro_stamp
from tests.unit.kube.jobs import NOW, job

Body = dict[str, Any]
PAGE = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text()


def rows(begins: str) -> list[str]:
    """What the lines of one of the two tables begin with."""
    (part,) = re.findall(r"^## Troubles of training jobs\n(.*?)^## ", PAGE, re.S | re.M)
    (table,) = re.findall(rf"^\| {begins} \|.*?(?=^$|\Z)", part, re.S | re.M)
    return re.findall(r"^\| `([^`]+)` \|", table, re.M)


class Cluster:
    """One in which all is well but what stands in `wrong`, by the end of a path: the answer, or the error."""

    def __init__(self, wrong: Mapping[str, Body | Exception]) -> None:
        established = {"conditions": [{"type": "Established", "status": "True"}]}
        renewed = {"holderIdentity": "pod-a", "renewTime": micro_stamp(NOW - 2)}
        self.answers: dict[str, Body | Exception] = {
            "/version": {"gitVersion": "v1.37.2"},
            "/customresourcedefinitions/trainingjobs.hathi.dev": {
                "spec": {"versions": [{"name": "v1alpha1", "served": True}]}, "status": established,
            },
            f"/deployments/{OPERATOR}": {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}},
            f"/leases/{OPERATOR}": {"spec": renewed},
            "/subjectaccessreviews": {"status": {"allowed": True}},
            "/horizontalpodautoscalers": {"items": []},
            "/deployments/boxes": {"spec": {"template": {"spec": {"containers": [{"name": "box"}]}}}},
            **wrong,
        }  # fmt: skip

    def call(self, method: str, path: str, body: Body | None = None, **query: str) -> Body:
        (answer,) = [answer for end, answer in self.answers.items() if path.endswith(end)]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list(self, path: str, **query: str) -> tuple[list[Body], str]:
        raise AssertionError(path)


TARGET = {"scaleTargetRef": {"name": "boxes"}, "maxReplicas": 3}
WRONG: dict[str, Mapping[str, Body | Exception]] = {
    "the API server: ": {"/version": Unreachable("the API server does not answer", "connection refused")},
    "the kind ": {"/trainingjobs.hathi.dev": ApiError(404, "NotFound", "not found", "/x")},
    "0 of 2 replicas ready": {f"/deployments/{OPERATOR}": {"spec": {"replicas": 2}, "status": {}}},
    "has it, renewed": {
        f"/leases/{OPERATOR}": {"spec": {"holderIdentity": "a", "renewTime": micro_stamp(NOW - 3 * LEASE_SECONDS)}}
    },
    "it may not": {"/subjectaccessreviews": {"status": {"allowed": False}}},
    "fetch.share of": {"/horizontalpodautoscalers": {"items": [{"metadata": {"namespace": "team"}, "spec": TARGET}]}},
}
"""By the line of the page: what is wrong in the cluster."""


def not_well(found: list[Finding]) -> list[str]:
    """As the command prints what is not well."""
    return [f"{one.what}: {one.words}" for one in found if not one.ok]


def test_a_cluster_in_which_all_is_well_has_no_finding() -> None:
    assert not_well(findings(Cluster({}), Wish(), NOW)) == []


def test_the_pages_lines_are_those_of_the_troubles_here() -> None:
    assert rows("`hathi kube check` says") == list(WRONG)


@pytest.mark.parametrize("line", WRONG)
def test_each_trouble_is_said_in_the_words_of_its_line_and_with_what_to_do(line: str) -> None:
    wrong = WRONG[line]
    if line.startswith("the kind"):
        wrong = {"/customresourcedefinitions/trainingjobs.hathi.dev": wrong["/trainingjobs.hathi.dev"]}
    found = findings(Cluster(wrong), Wish(), NOW)
    (said,) = not_well(found)
    assert line in said
    (one,) = [one for one in found if not one.ok]
    assert one.hint or "does not answer" in one.words


def test_each_reason_of_a_job_that_does_not_go_on_has_a_line_and_its_story_says_what_to_do() -> None:
    reasons = [reason for row in rows("`hathi kube why JOB` says") for reason in row.split(", ")]
    assert sorted(reasons) == sorted(set(NEXT) - {"Complete", "Suspended"})
    for reason in reasons:
        one = job()
        ends = reason not in ("ImagePullBackOff", "ErrImagePull", "Unschedulable", "PodsRefused", "NameTaken")
        condition = Condition("Failed" if ends else "Running", ends, reason, "words", NOW, 1)
        status = replace(plan(one, [], NOW).status, state="Failed" if ends else "Pending", conditions=(condition,))
        assert story(replace(one, status=status), [], [])[-1] == f"what to do: {NEXT[reason]}"
