"""versitygw, an S3 server over a folder: installed by Go, started on a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.settings import Bucket
from pipeline.stores.s3.store import S3Store
from tests.servers.demand import Server, Uninstalled, accepts, free_port, installed, missing

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"


def install() -> Path:
    """The server's program, from the cache or compiled.  Raises Uninstalled."""

    def make(folder: Path) -> None:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
        if go is None:
            raise Uninstalled("the S3 server needs Go to be installed: https://go.dev/dl, or apt-get install golang")
        environ = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
        command = [go, "install", "-ldflags=-s -w", f"{MODULE}@{VERSION}"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if done.returncode != 0:
            raise Uninstalled(f"go install {MODULE}@{VERSION} failed: {done.stderr.strip()[-500:]}")

    return installed(f"versitygw-{VERSION}", make) / "versitygw"


@dataclass
class S3Server:
    """One server over `folder`; it keeps its port, its buckets and its people when it is started again."""

    folder: Path
    access_key: str = "hathi-key"
    secret_key: str = "hathi-secret"
    port: int = field(default_factory=free_port)
    server: Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        try:
            program = install()
        except Uninstalled as error:
            missing(str(error))
        for name in ("data", "people"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            program, "--port", f"127.0.0.1:{self.port}", "--access", self.access_key, "--secret", self.secret_key,
            "--iam-dir", self.folder / "people", "--keep-alive", "--quiet", "posix",
            "--default-etag", "placed", self.folder / "data",
        ]  # fmt: skip
        self.server = Server.start(command, log=self.folder / "server.log", cwd=self.folder)
        self.server.until(lambda: accepts(self.port), "the S3 server listens")

    def kill(self) -> None:
        """As kill -9."""
        assert self.server is not None
        self.server.kill()

    def freeze(self) -> None:
        """It stands still, its connections open, until `thaw`."""
        assert self.server is not None
        self.server.freeze()

    def thaw(self) -> None:
        assert self.server is not None
        self.server.thaw()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()

    def make_bucket(self, name: str) -> None:
        self.place(name).mkdir()

    def place(self, bucket: str, key: str = "") -> Path:
        """Where the server keeps a bucket, or an object of it: a file that is put there is an object to it."""
        return self.folder / "data" / bucket / key

    def add_person(self, access_key: str, secret_key: str) -> None:
        """Somebody whom the server knows and to whom it allows nothing."""
        self._admin("create-user", "--access", access_key, "--secret", secret_key, "--role", "user")

    def change_person(self, access_key: str, secret_key: str) -> None:
        """Another secret for somebody whom the server knows."""
        self._admin("update-user", "--access", access_key, "--secret", secret_key)

    def _admin(self, *words: str) -> None:
        keys = ["--access", self.access_key, "--secret", self.secret_key, "--endpoint-url", self.endpoint]
        subprocess.run([install(), "admin", *keys, *words], check=True, capture_output=True)

    def settings(self, url: str = "s3://shared", **changes: Any) -> Bucket:
        """A table [bucket] that leads here."""
        values: dict[str, Any] = {
            "url": url, "endpoint": self.endpoint, "region": "us-east-1", "access_key": self.access_key,
            "secret_key": self.secret_key, "retry_seconds": 30.0, **changes,
        }  # fmt: skip
        return Bucket.model_validate(values)


def _memory() -> str | None:
    """A file system in memory, where it keeps attributes as the server needs them: tens of thousands of small objects
    are made and deleted there in no time.  None: the usual place for temporary files."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            os.setxattr(file.name, "user.hathi", b"1")
        return "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 * 2**30 else None
    except OSError:
        return None


@contextmanager
def running(folder: Path | None = None) -> Iterator[S3Server]:
    """A server with the bucket `shared`, stopped at the end; its folder is made and deleted where none is given."""
    with tempfile.TemporaryDirectory(prefix="hathi-s3-", dir=_memory()) as scratch:
        server = S3Server(folder or Path(scratch))
        server.start()
        try:
            server.make_bucket("shared")
            yield server
        finally:
            server.stop()


@dataclass(frozen=True)
class Asked:
    """One request as it went out."""

    operation: str
    url: str
    headers: dict[str, str]


def asked(store: S3Store) -> list[Asked]:
    """A list to which each request of this store is added from now on."""
    seen: list[Asked] = []

    def note(request: Any, event_name: str, **_: Any) -> None:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
        }
        seen.append(Asked(event_name.rpartition(".")[2], request.url, headers))

    store.connection.client().meta.events.register("before-send.s3", note)
    return seen
