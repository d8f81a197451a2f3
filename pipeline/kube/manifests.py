"""What is put into a cluster before the operator works there: kinds, rights, the operator itself.

The kinds stand in `schema/`, as YAML; what depends on what a person wants is made here and printed as JSON, which is
YAML as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipeline import __version__
from pipeline.kube.gang import GROUPS
from pipeline.kube.names import CAFFE2_GROUP, CAFFE2_PLURAL, GROUP, OPERATOR, PLURAL

PORT = 8080
"""Where the operator answers Prometheus and its kubelet."""
READS = ["get", "list", "watch"]
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Wish:
    """How an operator is installed.

    home: the namespace that it runs in.  watched: the only namespace whose jobs it runs, "" for all.  caffe2: of the
    seed's kind as well.
    """

    home: str = "hathi-system"
    image: str = f"hathi:{__version__}"
    watched: str = ""
    caffe2: bool = False


def kinds(wish: Wish) -> list[str]:
    """The CustomResourceDefinitions, as YAML."""
    folder = resources.files("pipeline.kube") / "schema"
    names = ["trainingjobs.yaml", *(["caffe2jobs.yaml"] if wish.caffe2 else [])]
    return [(folder / name).read_text() for name in names]


def rules(wish: Wish) -> list[dict[str, Any]]:
    """What the operator may do where the jobs are: each verb is one that it uses."""
    of_jobs = [(GROUP, PLURAL), *([(CAFFE2_GROUP, CAFFE2_PLURAL)] if wish.caffe2 else [])]
    found = []
    for group, plural in of_jobs:
        found += [
            _rule(group, plural, [*READS, "delete"]),
            _rule(group, f"{plural}/status", ["update"]),
            _rule(group, f"{plural}/finalizers", ["update"]),  # for blockOwnerDeletion, where a cluster asks for it
        ]
    groups = sorted({version.partition("/")[0] for version in GROUPS.values()})
    return [
        *found,
        _rule("", "pods", [*READS, "create", "delete"]),
        _rule("", "services", ["get", "create"]),
        *(_rule(group, "podgroups", ["get", "create"]) for group in groups),
        _rule("events.k8s.io", "events", ["create"]),
    ]


def lease_rules() -> list[dict[str, Any]]:
    """What it may do at home: one Lease."""
    lease = _rule("coordination.k8s.io", "leases", ["get", "update"])
    return [_rule("coordination.k8s.io", "leases", ["create"]), {**lease, "resourceNames": [OPERATOR]}]


def objects(wish: Wish) -> Iterator[dict[str, Any]]:
    """Namespace, service account, rights, and the operator's Deployment."""
    enforced = {f"pod-security.kubernetes.io/{each}": "restricted" for each in ("enforce", "warn")}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wish.home, "labels": enforced}}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": OPERATOR, "namespace": wish.home}}
    yield from _role(wish, OPERATOR, wish.watched, rules(wish))
    yield from _role(wish, f"{OPERATOR}-lease", wish.home, lease_rules())
    yield from _for_people(wish)
    yield _deployment(wish)


def printed(wish: Wish, *, only_kinds: bool = False) -> str:
    """All of it, to be piped into `kubectl apply -f -`."""
    parts = [text.rstrip("\n") for text in kinds(wish)]
    if not only_kinds:
        parts += [json.dumps(body, indent=2) for body in objects(wish)]
    return "\n---\n".join(parts) + "\n"


def _rule(group: str, resource: str, verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs}


def _role(wish: Wish, name: str, space: str, allowed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A role and its binding.  space: "" for all namespaces."""
    kind = "Role" if space else "ClusterRole"
    meta = {"name": name, **({"namespace": space} if space else {})}
    yield {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": meta, "rules": allowed}
    yield {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": wish.home}],
    }


def _for_people(wish: Wish) -> Iterator[dict[str, Any]]:
    """Who may edit or view a namespace may do so with its jobs."""
    plurals = [(GROUP, [PLURAL, f"{PLURAL}/scale"]), *([(CAFFE2_GROUP, [CAFFE2_PLURAL])] if wish.caffe2 else [])]
    change = ["create", "delete", "deletecollection", "patch", "update"]
    for word, verbs, to in (("edit", [*READS, *change], ("edit", "admin")), ("view", READS, ("view",))):
        labels = {f"{_RBAC}/aggregate-to-{each}": "true" for each in to}
        yield {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"hathi-jobs-{word}", "labels": labels},
            "rules": [{"apiGroups": [group], "resources": names, "verbs": verbs} for group, names in plurals],
        }


def arguments(wish: Wish) -> list[str]:
    """What the operator's container is begun with."""
    words = ["kube", "operator", "--lease", wish.home, "--address", "0.0.0.0", "--port", str(PORT)]
    words += ["--namespace", wish.watched] if wish.watched else []
    return [*words, *(["--caffe2jobs"] if wish.caffe2 else [])]


def _deployment(wish: Wish) -> dict[str, Any]:
    """Two operators, one of which leads: the other takes over within 15 s."""
    labels = {"app.kubernetes.io/name": OPERATOR}

    def probe(path: str, seconds: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "figures"}, "periodSeconds": seconds, "timeoutSeconds": 5}

    container = {
        "name": "operator",
        "image": wish.image,
        "args": arguments(wish),
        "ports": [{"name": "figures", "containerPort": PORT}],
        "livenessProbe": probe("/healthz", 30),
        "readinessProbe": probe("/readyz", 10),
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip
    spec = {
        "serviceAccountName": OPERATOR,
        "terminationGracePeriodSeconds": 20,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OPERATOR, "namespace": wish.home, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
