"""Whether the operator is installed and works, asked with the rights of whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.amounts import counted, quotient
from pipeline.errors import PipelineError
from pipeline.kube.lease import LEASE_SECONDS
from pipeline.kube.manifests import Wish, rules
from pipeline.kube.names import CAFFE2_GROUP, CAFFE2_PLURAL, GROUP, OPERATOR, PLURAL, VERSION, resource_path
from pipeline.kube.perform import Asking
from pipeline.kube.times import seconds_of

_INSTALL = "hathi kube manifests | kubectl apply -f -"
BOXES = "app.kubernetes.io/part-of=hathi,app.kubernetes.io/component=compute"
"""The labels of what scales boxes (config/kubernetes/compute)."""
SHARE = "HATHI_FETCH__SHARE"
LATE_SECONDS = 2 * LEASE_SECONDS
"""A lease that nobody renewed for so long: no operator works, whatever clocks differ by."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.  words: how it is; hint: what to do where it is not well."""

    what: str
    ok: bool
    words: str
    hint: str = ""


def findings(api: Asking, wish: Wish, now: float) -> list[Finding]:
    """All that was looked at, in the order in which one needs the other.  What cannot be asked is a finding, too."""
    found = [_asked("the API server", lambda: _answers(api))]
    if not found[0].ok:
        return found
    kinds = [f"{PLURAL}.{GROUP}", *([f"{CAFFE2_PLURAL}.{CAFFE2_GROUP}"] if wish.caffe2 else [])]
    found += [_asked(f"the kind {name}", partial(_established, api, name)) for name in kinds]
    found.append(_asked("the operator's Deployment", lambda: _deployed(api, wish)))
    found.append(_asked("the lease", lambda: _led(api, wish, now)))
    found.append(_asked("the operator's rights", lambda: _allowed(api, wish)))
    return [*found, *_shares(api)]


def _asked(what: str, ask: Callable[[], Finding]) -> Finding:
    try:
        return ask()
    except PipelineError as error:
        return Finding(what, False, str(error), _INSTALL if getattr(error, "code", 0) == 404 else "")


def _answers(api: Asking) -> Finding:
    version = api.call("GET", "/version").get("gitVersion", "unknown")
    return Finding("the API server", True, f"it answers, Kubernetes {version}")


def _established(api: Asking, name: str) -> Finding:
    body = api.call("GET", resource_path("apiextensions.k8s.io/v1", "customresourcedefinitions", "", name))
    status = body.get("status") or {}
    known = any(each["type"] == "Established" and each["status"] == "True" for each in status.get("conditions") or ())
    served = [each["name"] for each in body["spec"]["versions"] if each["served"]]
    ok = known and VERSION in served
    words = f"it is {'' if known else 'not '}established, versions {', '.join(served)}"
    return Finding(f"the kind {name}", ok, words, "" if ok else _INSTALL)


def _deployed(api: Asking, wish: Wish) -> Finding:
    body = api.call("GET", resource_path("apps/v1", "deployments", wish.home, OPERATOR))
    ready, wanted = (body.get("status") or {}).get("readyReplicas") or 0, body["spec"].get("replicas", 1)
    hint = "" if ready else f"kubectl -n {wish.home} describe pods"
    return Finding("the operator's Deployment", ready > 0, f"{ready} of {counted(wanted, 'replica')} ready", hint)


def _led(api: Asking, wish: Wish, now: float) -> Finding:
    spec = api.call("GET", resource_path("coordination.k8s.io/v1", "leases", wish.home, OPERATOR)).get("spec") or {}
    holder, renewed = spec.get("holderIdentity") or "nobody", seconds_of(spec.get("renewTime")) or 0.0
    ok = holder != "nobody" and now - renewed < LATE_SECONDS
    hint = "" if ok else f"kubectl -n {wish.home} logs deployment/{OPERATOR}"
    return Finding("the lease", ok, f"{holder} has it, renewed {max(0.0, now - renewed):.0f} s ago", hint)


def _allowed(api: Asking, wish: Wish) -> Finding:
    """By SubjectAccessReview, one for each verb."""
    missing = [words for words, what in _reviews(wish) if not _may(api, wish, what)]
    words = "it may do all that it does" if not missing else f"it may not {', '.join(missing)}"
    return Finding("the operator's rights", not missing, words, _INSTALL if missing else "")


def _shares(api: Asking) -> Iterator[Finding]:
    """Whether boxes, however many there may be, together ask a host for no more than one may."""
    try:
        scalings = api.call("GET", resource_path("autoscaling/v2", "horizontalpodautoscalers", ""), labelSelector=BOXES)
    except PipelineError as error:
        yield Finding("fetch.share of boxes", False, str(error), "ask as somebody who may list the scalings")
        return
    for each in scalings["items"]:
        space, name = each["metadata"]["namespace"], each["spec"]["scaleTargetRef"]["name"]
        yield _asked(f"fetch.share of {space}/{name}", partial(_share, api, each))


def _share(api: Asking, scaling: dict[str, Any]) -> Finding:
    space, name = scaling["metadata"]["namespace"], scaling["spec"]["scaleTargetRef"]["name"]
    what, most = f"fetch.share of {space}/{name}", scaling["spec"]["maxReplicas"]
    deployed = api.call("GET", resource_path("apps/v1", "deployments", space, name))
    containers = deployed["spec"]["template"]["spec"]["containers"]
    given = [one.get("value", "") for each in containers for one in each.get("env") or () if one["name"] == SHARE]
    hint = f"set {SHARE} of each box to 1/{most}, or maxReplicas to what it allows"
    if not given:
        return Finding(what, False, f"no container has {SHARE}, and there may be {counted(most, 'box', 'boxes')}", hint)
    ok = 0 < _number(given[-1]) * most < 1 + 1e-6
    return Finding(what, ok, f"it is {given[-1]}, and there may be {counted(most, 'box', 'boxes')}", "" if ok else hint)


def _number(text: str) -> float:
    """As `fetch.share` reads it; 0.0 for what it refuses."""
    value = quotient(text)
    try:
        return float(text) if value is None else value
    except ValueError:
        return 0.0


def _reviews(wish: Wish) -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in rules(wish):
        resource, _, part = rule["resources"][0].partition("/")
        for verb in rule["verbs"]:
            what = {"group": rule["apiGroups"][0], "resource": resource, "verb": verb, "namespace": wish.watched}
            yield f"{verb} {rule['resources'][0]}", {**what, **({"subresource": part} if part else {})}


def _may(api: Asking, wish: Wish, what: dict[str, Any]) -> bool:
    account = f"system:serviceaccount:{wish.home}:{OPERATOR}"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": account, "groups": ["system:serviceaccounts"], "resourceAttributes": what},
    }
    answer = api.call("POST", resource_path("authorization.k8s.io/v1", "subjectaccessreviews"), body)
    return bool(answer["status"]["allowed"])
