"""A real PostgreSQL: Debian's, in a temporary folder, on loopback, with a password, as the user postgres."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.apt import install_packages
from tests.servers.demand import Server, Uninstalled, accepts, free_port, locked, missing

PACKAGE = "postgresql-15"
BINARIES = Path("/usr/lib/postgresql/15/bin")
OWNER = "hathi_owner"
PASSWORD = "correct horse"

__all__ = ["Postgres", "Uninstalled", "install", "running"]


@dataclass(frozen=True)
class Postgres:
    """A server.  user: Debian's, since initdb refuses root; None where we are somebody else ourselves."""

    port: int
    folder: Path
    server: Server

    def url(self, database: str, user: str = OWNER) -> str:
        return f"postgresql://{user}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """The URL of an empty database."""
        psql(self.port, self.folder, f'create database "{name}" owner {OWNER}')
        return self.url(name)


def install() -> None:
    """Debian's package, where it is missing.  Raises Uninstalled."""
    with locked("postgres"):
        if not (BINARIES / "initdb").is_file():
            install_packages("PostgreSQL", PACKAGE)


@contextlib.contextmanager
def running(*, fsync: bool = False) -> Iterator[Postgres]:
    """A server that ends with the block; a test that cannot have it fails where servers are demanded."""
    try:
        install()
    except Uninstalled as error:
        missing(str(error))
    folder = Path(tempfile.mkdtemp(prefix="hathi-postgres-"))
    try:
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, data, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            [*_as_postgres(), str(BINARIES / "initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256",
             "--pwfile", str(secret), "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
            capture_output=True, text=True, cwd=folder,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stderr[-1000:]}")
        server, port = start(folder, fsync=fsync)
        try:
            psql(port, folder, f"create role {OWNER} login createrole password '{PASSWORD}'")
            yield Postgres(port, folder, server)
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, *, fsync: bool, port: int = 0) -> tuple[Server, int]:
    """The server over the folder of one that was made; it answers when this returns."""
    port = port or free_port()
    command = [*_as_postgres(), str(BINARIES / "postgres"), "-D", str(folder / "data"), "-p", str(port),
               "-h", "127.0.0.1", "-k", str(folder), "-F" if not fsync else "-B128MB",
               "-c", "max_connections=60"]  # fmt: skip
    server = Server.start(command, log=folder / "postgres.log", cwd=folder)
    server.until(lambda: accepts(port) and _ready(port), "PostgreSQL answers")
    return server, port


def psql(port: int, folder: Path, sql: str) -> str:
    """What a statement of the superuser answers."""
    environ = {**os.environ, "PGPASSWORD": PASSWORD}
    command = [str(BINARIES / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres", "-XAtq",
               "-v", "ON_ERROR_STOP=1", "-c", sql]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"psql: {done.stderr}")
    return done.stdout


def _ready(port: int) -> bool:
    asks = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(asks, timeout=60).returncode == 0


def _as_postgres() -> list[str]:
    """The kernel forgets at a change of user who has to die with whom: it is told again."""
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]
        if os.geteuid() == 0
        else []
    )
