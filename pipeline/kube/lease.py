"""Who of several operators works: a Lease of the cluster (coordination.k8s.io/v1), as client-go uses it.

Two that both believe they lead do no harm (`perform.py`); the lease saves them from doing everything twice.  Times are
this process's own: a lease is over when its version was not seen to change for its length, so clocks need not agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.kube.api import ApiError
from pipeline.kube.names import OPERATOR, resource_path
from pipeline.kube.perform import Asking
from pipeline.kube.times import micro_stamp

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
SURE_SECONDS = 10.0
"""A leader that could not renew for so long does nothing more: before others may take over."""


@dataclass
class Lease:
    """Our claim to lead.  me: a name that nobody else has."""

    api: Asking
    namespace: str
    me: str
    clock: Clock = field(default_factory=Clock)
    _sure_until: float = float("-inf")
    _seen: tuple[str, float] = ("", 0.0)
    """The version of somebody else's lease, and when we saw it first, by our monotonic clock."""

    @property
    def leads(self) -> bool:
        """Whether we may work now."""
        return self.clock.monotonic() < self._sure_until

    def renew(self) -> bool:
        """One try to have it or to keep it; whether we lead.  Raises PipelineError where nobody answers."""
        began = self.clock.monotonic()
        path = resource_path("coordination.k8s.io/v1", "leases", self.namespace)
        try:
            body = self.api.call("GET", f"{path}/{OPERATOR}")
        except ApiError as error:
            if error.code != 404:
                raise
            return self._write("POST", path, self._fresh({}), began)
        spec = body.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = body["metadata"]["resourceVersion"]
        if holder not in ("", self.me) and not self._over(version, spec):
            return False
        return self._write("PUT", f"{path}/{OPERATOR}", self._fresh(body), began)

    def release(self) -> None:
        """At the end: the next one need not wait.  One that cannot be released runs out."""
        if not self.leads:
            return
        self._sure_until = float("-inf")
        path = resource_path("coordination.k8s.io/v1", "leases", self.namespace, OPERATOR)
        try:
            body = self.api.call("GET", path)
            if (body.get("spec") or {}).get("holderIdentity") == self.me:
                self.api.call("PUT", path, {**body, "spec": {**body["spec"], "holderIdentity": ""}})
        except PipelineError:
            return

    def _over(self, version: str, spec: dict[str, Any]) -> bool:
        """Whether a lease of somebody else did not change for its length."""
        now = self.clock.monotonic()
        if version != self._seen[0]:
            self._seen = (version, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _fresh(self, body: dict[str, Any]) -> dict[str, Any]:
        now = micro_stamp(self.clock.now())
        old = body.get("spec") or {}
        mine = old.get("holderIdentity") == self.me
        moves = int(old.get("leaseTransitions") or 0) + (0 if mine or not old else 1)
        return {
            **body,
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": body.get("metadata") or {"name": OPERATOR, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self.me,
                "leaseDurationSeconds": int(LEASE_SECONDS),
                "acquireTime": old["acquireTime"] if mine else now,
                "renewTime": now,
                "leaseTransitions": moves,
            },
        }

    def _write(self, method: str, path: str, body: dict[str, Any], began: float) -> bool:
        """409: somebody else was first.  The lease counts from before we asked."""
        try:
            self.api.call(method, path, body)
        except ApiError as error:
            if error.code != 409:
                raise
            self._sure_until = float("-inf")
            return False
        self._sure_until = began + SURE_SECONDS
        return True
