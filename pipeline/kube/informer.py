"""A kind of object in memory, as the API server has it: listed once, then watched.

What the products of others teach: a stream can be open and dead (a read that waits for ever), a version can be too old
(410), and a list of resourceVersion=0 can be older than what one has written oneself.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.kube.api import Api, ApiError

LONGEST_PAUSE = 5.0
"""Seconds between two tries while the API server is away."""
DEAF_SECONDS = 150.0
"""A watch without any sign for so long has failed, and its process should be begun anew."""
GONE = 410

Body = dict[str, Any]


class Informer:
    """One kind of object.  changed: told each object that came, changed or went, from the informer's thread.

    trimmed: makes of a body what is kept of it; a cluster's pods do not fit into 80 MiB as they are.
    """

    def __init__(
        self, api: Api, path: str, changed: Callable[[Body], None], trimmed: Callable[[Body], Body], clock: Clock,
        **query: str,
    ) -> None:  # fmt: skip
        self._api, self._path, self._query = api, path, query
        self._changed, self._trimmed, self._clock = changed, trimmed, clock
        self._lock = threading.Lock()
        self._objects: dict[str, Body] = {}
        self._heard = clock.monotonic()
        self._ending = threading.Event()
        self.synced = threading.Event()
        self.lists = 0
        self.trouble = ""
        """Why it does not hear anything now; "" while it does."""

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"watch {self._path}", daemon=True).start()

    def stop(self) -> None:
        self._ending.set()

    @property
    def deaf(self) -> bool:
        """Whether nothing was heard for longer than any silence that is in order."""
        return self._clock.monotonic() - self._heard > DEAF_SECONDS

    @property
    def silent(self) -> float:
        """Seconds since the last sign."""
        return self._clock.monotonic() - self._heard

    def all(self) -> list[Body]:
        with self._lock:
            return list(self._objects.values())

    def one(self, uid: str) -> Body | None:
        with self._lock:
            return self._objects.get(uid)

    def keep(self, body: Body) -> None:
        """What was just written: its event comes later."""
        with self._lock:
            old = self._objects.get(body["metadata"]["uid"])
            if old is not None and _number(old) <= _number(body):
                self._objects[body["metadata"]["uid"]] = self._trimmed(body)

    def _run(self) -> None:
        pause = 0.1
        while not self._ending.is_set():
            try:
                version = self._list()
                pause = 0.1
                self._follow(version)
            except ApiError as error:
                if error.code == GONE:
                    continue
                pause = self._rest(pause, error)
            except (PipelineError, ValueError, KeyError) as error:
                pause = self._rest(pause, error)

    def _rest(self, pause: float, error: Exception) -> float:
        self.trouble = str(error)
        self._ending.wait(pause * (0.5 + random.random()))
        return min(2 * pause, LONGEST_PAUSE)

    def _list(self) -> str:
        """Everything, consistently: without a version, so that it is never older than what we wrote."""
        items, version = self._api.list(self._path, **self._query)
        self.lists += 1
        new = {each["metadata"]["uid"]: self._trimmed(each) for each in items}
        with self._lock:
            old, self._objects = self._objects, new
        self._sign()
        for each in {**old, **new}.values():
            self._changed(each)
        self.synced.set()
        return version

    def _follow(self, version: str) -> None:
        """Watch after watch from a version on; returns when the server ends one that brought nothing new."""
        broken = 0.1
        while not self._ending.is_set():
            try:
                for event in self._api.watch(self._path, version, random.randint(240, 300), **self._query):
                    version = self._take(event)
                    broken = 0.1
                    if self._ending.is_set():
                        return
                self._sign()
            except ApiError:
                raise
            except PipelineError as error:
                broken = self._rest(broken, error)

    def _take(self, event: Mapping[str, Any]) -> str:
        body: Body = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(int(body.get("code") or 500), str(body.get("reason")), str(body.get("message")), self._path)
        self._sign()
        meta = body["metadata"]
        if event["type"] != "BOOKMARK":
            with self._lock:
                if event["type"] == "DELETED":
                    self._objects.pop(meta["uid"], None)
                else:
                    self._objects[meta["uid"]] = self._trimmed(body)
            self._changed(body)
        version: str = meta["resourceVersion"]
        return version

    def _sign(self) -> None:
        self._heard = self._clock.monotonic()
        self.trouble = ""


def _number(body: Mapping[str, Any]) -> int:
    """resourceVersion as a number: the API server's are comparable (KEP-5504), since 1.35 by promise."""
    text = body["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0


def trimmed_job(body: Body) -> Body:
    """Without managedFields, which are half of it."""
    body["metadata"].pop("managedFields", None)
    return body


def trimmed_pod(body: Body) -> Body:
    """What `model.pod_of` looks at."""
    meta, status = body["metadata"], body.get("status") or {}
    kept = ("name", "namespace", "uid", "labels", "resourceVersion", "deletionTimestamp", "ownerReferences")
    said = ("phase", "reason", "message", "conditions", "containerStatuses")
    main = body["spec"]["containers"][0]["name"]
    return {
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"containers": [{"name": main}], "nodeName": body["spec"].get("nodeName", "")},
        "status": {name: status[name] for name in said if name in status},
    }
