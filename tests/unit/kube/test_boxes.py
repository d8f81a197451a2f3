"""`hathi kube check` compares what each box may ask of a host with how many boxes there may be."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import TemporaryError
from pipeline.kube.api import ApiError
from pipeline.kube.checking import BOXES, findings
from pipeline.kube.manifests import Wish
from tests.unit.kube.jobs import NOW

Body = dict[str, Any]


class Cluster:
    """Answers about boxes; everything else is not there.  variables: of the one container; most: maxReplicas."""

    def __init__(self, variables: list[Body], most: int) -> None:
        target = {"kind": "Deployment", "name": "boxes"}
        self._scaling = {"metadata": {"namespace": "team"}, "spec": {"scaleTargetRef": target, "maxReplicas": most}}
        self._boxes = {"spec": {"template": {"spec": {"containers": [{"name": "box", "env": variables}]}}}}

    def call(self, method: str, path: str, body: Body | None = None, **query: str) -> Body:
        if path == "/version":
            return {"gitVersion": "v1.37.2"}
        if path == "/apis/autoscaling/v2/horizontalpodautoscalers":
            assert query == {"labelSelector": BOXES}
            return {"items": [self._scaling]}
        if path == "/apis/apps/v1/namespaces/team/deployments/boxes":
            return self._boxes
        raise ApiError(404, "NotFound", "it is not there", path)

    def list(self, path: str, **query: str) -> tuple[list[Body], str]:
        raise AssertionError(path)


@pytest.mark.parametrize(
    ("share", "most", "ok"),
    [("1/4", 4, True), ("0.25", 4, True), ("0.1", 4, True), ("1/3", 3, True), ("1/4", 5, False), ("1", 1, True),
     ("1.0", 2, False), ("0", 4, False), ("many", 4, False), (None, 1, False)],
)  # fmt: skip
def test_all_boxes_together_may_ask_a_host_for_no_more_than_its_limits(share: str | None, most: int, ok: bool) -> None:
    variables = [] if share is None else [{"name": "HATHI_FETCH__SHARE", "value": share}]
    (found,) = [one for one in findings(Cluster(variables, most), Wish(), NOW) if one.what.startswith("fetch.share")]
    assert (found.what, found.ok) == ("fetch.share of team/boxes", ok)
    assert bool(found.hint) is not ok
    assert f"1/{most}" in found.hint or ok


def test_boxes_that_are_gone_and_a_list_that_is_refused_are_findings() -> None:
    class Gone(Cluster):
        def call(self, method: str, path: str, body: Body | None = None, **query: str) -> Body:
            if path.endswith(self.gone):
                raise TemporaryError("it does not answer")
            return super().call(method, path, body, **query)

        gone = ""

    for gone, what in (("/boxes", "fetch.share of team/boxes"), ("autoscalers", "fetch.share of boxes")):
        cluster = Gone([], 1)
        cluster.gone = gone
        found = findings(cluster, Wish(), NOW)[-1]
        assert (found.what, found.ok) == (what, False)
        assert "it does not answer" in found.words
