"""The deployment over real servers: the bucket is an S3, the lake an HDFS, plain or secured by Kerberos."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq

from pipeline.stores.hdfs.store import HdfsStore
from tests.acceptance.world import Host
from tests.night import own_mounts
from tests.night.deployment import Deployment, Tables
from tests.night.own_mounts import Names, small_disk
from tests.night.shop import Shop
from tests.night.standby import Standby
from tests.servers import hdfs, kerberos, s3
from tests.servers.hdfs import HdfsServer
from tests.servers.kerberos import Realm
from tests.servers.s3 import S3Server

NAMENODE = "namenode.night"
"""The name of the NameNode's host, which only the deployment knows."""
DISK = "96m"
"""That of the S3 server."""
WORKER = "worker"
"""Whose keys gateway and box have: a bucket policy allows them the bucket."""
LIMITS = {"connect_seconds": 2.0, "read_seconds": 5.0, "retry_seconds": 3.0}


@dataclass(kw_only=True)
class Served(Deployment):
    """The same deployment, with servers that faults are done to.  names: None where this process may not mount."""

    s3: S3Server
    hdfs: HdfsServer
    names: Names | None = None
    secret: str = "worker-secret"
    """Of the keys that gateway and box have."""
    standby: Standby | None = None
    """What stands where the NameNode was."""
    _read: dict[str, set[str]] = field(default_factory=dict)
    """By delivered file: its external ids."""

    def configure(self, name: str, more: Tables | None = None) -> Path:
        bucket: dict[str, object] = {
            "url": "s3://shared/hathi", "endpoint": self.s3.endpoint, "region": "us-east-1", "access_key": WORKER,
            "secret_key": self.secret, **LIMITS,
        }  # fmt: skip
        lake: dict[str, object] = {**LIMITS, **self.who_we_are()}
        tables = {"bucket": bucket, "lakes.shop": {"url": self.url}, "lakes.shop.hdfs": lake}
        return super().configure(name, {**tables, **(more or {})})

    @property
    def url(self) -> str:
        host = "localhost" if self.names is None else NAMENODE
        return f"hdfs://{host}:{self.hdfs.web}/shop"

    @property
    def ours(self) -> HdfsStore:
        """The lake as its owner sees it, whatever happens to the gateway's way there."""
        return self.hdfs.store("shop", **self.owner())

    def who_we_are(self) -> dict[str, object]:
        """How gateway and box prove it."""
        return {"user": "hathi"}

    def owner(self) -> dict[str, object]:
        """How whoever writes refs proves it."""
        return {"user": "hathi"}

    def begin(self) -> None:
        self.s3.add_person(WORKER, self.secret)
        self.allow()
        self.hdfs.superuser().open_to_all("/shop")
        super().begin()

    def allow(self) -> None:
        """Our keys may do everything in the bucket."""
        everything = {
            "Effect": "Allow", "Principal": {"AWS": [WORKER]}, "Action": "s3:*",
            "Resource": ["arn:aws:s3:::shared", "arn:aws:s3:::shared/*"],
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        self._administrator().put_bucket_policy(Bucket="shared", Policy=policy)

    def forbid(self) -> None:
        self._administrator().delete_bucket_policy(Bucket="shared")

    def rotate(self, secret: str) -> None:
        """The server's owner gives our access key another secret."""
        self.s3.change_person(WORKER, secret)

    def _administrator(self) -> Any:
        return boto3.client(
            "s3", endpoint_url=self.s3.endpoint, region_name="us-east-1", aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
        )  # fmt: skip

    def write(self, key: str, content: bytes, days: float = 0.0) -> None:
        self.ours.put(key, content)

    def delivered(self) -> set[str]:
        ours = self.ours
        for entry in ours.list("features/"):
            if entry.key.endswith(".parquet") and entry.key not in self._read:
                table = pq.read_table(io.BytesIO(ours.get(entry.key)), columns=["external_id"])
                self._read[entry.key] = set(table["external_id"].to_pylist())
        return set().union(*self._read.values())


@dataclass(kw_only=True)
class Secured(Served):
    """With Kerberos.  tickets: the gateway's ticket cache; the owner of the lake has a keytab."""

    realm: Realm
    tickets: Path

    def who_we_are(self) -> dict[str, object]:
        return {"authentication": "kerberos", "ticket_cache": str(self.tickets)}

    def owner(self) -> dict[str, object]:
        return {}

    def _host(self, name: str) -> Host:
        plain = super()._host(name)
        return Host(plain.config, {**plain.environ, "KRB5_CONFIG": str(self.realm.conf)})


@contextmanager
def on_servers(folder: Path) -> Iterator[Served]:
    """A plain HDFS.  Where this process may mount, the lake's host has a name of its own and the S3 a small disk."""
    with ExitStack() as open_:
        names = None
        if may_mount():
            own_mounts.unshare()
            (folder / "etc").mkdir()
            names = Names(folder / "etc")
            open_.callback(names.close)
            names.know(NAMENODE)
            open_.enter_context(small_disk(folder / "s3" / "data", DISK))
        lake = open_.enter_context(hdfs.running())
        bucket = open_.enter_context(s3.running(folder / "s3"))
        made = Served(folder, Shop(), s3=bucket, hdfs=lake, names=names)
        open_.callback(made.end)
        made.begin()
        yield made


@contextmanager
def behind_kerberos(folder: Path) -> Iterator[Secured]:
    """An HDFS that asks for tickets."""
    with kerberos.running() as realm, hdfs.running(realm) as lake, s3.running() as bucket:
        tickets = folder / "tickets"
        realm.kinit(tickets)
        made = Secured(folder, Shop(), s3=bucket, hdfs=lake, realm=realm, tickets=tickets)
        try:
            made.begin()
            yield made
        finally:
            made.end()


def may_mount() -> bool:
    """Whether this user may have mounts of its own, as root in most containers."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
