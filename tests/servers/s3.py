"""versitygw, an S3 server over a folder: installed by Go, started on a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.demand import Server, accepts, free_port, installed, missing

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"


class Uninstalled(Exception):
    """The server cannot be had on this machine: why."""


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
    """One server over `folder`; it keeps its port when it is started again."""

    folder: Path
    access_key: str = "hathi-key"
    secret: str = "hathi-secret"
    port: int = field(default_factory=free_port)
    server: Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to be let in."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        try:
            program = install()
        except Uninstalled as error:
            missing(str(error))
        data, sidecar = self.folder / "data", self.folder / "meta"
        data.mkdir(parents=True, exist_ok=True)
        sidecar.mkdir(exist_ok=True)
        command = [
            program, "--port", f"127.0.0.1:{self.port}", "--access", self.access_key, "--secret", self.secret,
            "--quiet", "posix", data,
        ]  # fmt: skip
        self.server = Server.start(command, log=self.folder / "server.log", cwd=self.folder)
        self.server.until(lambda: accepts(self.port), "the S3 server listens")

    def kill(self) -> None:
        """As kill -9."""
        assert self.server is not None
        self.server.kill()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()

    def make_bucket(self, name: str) -> None:
        (self.folder / "data" / name).mkdir()
