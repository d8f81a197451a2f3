"""`hathi service start` over a folder of its own: what it says, its workers as processes, and rows of its database."""

from __future__ import annotations

import contextlib
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.service.database.sqlite import connected
from tests.servers.demand import Server, free_port, until
from tests.servers.service import Person

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
POOL = b"pipeline.cli.wiring.service_pool"


@dataclass
class Started:
    """A service of one host."""

    folder: Path
    port: int = field(default_factory=free_port)
    server: Server | None = None

    def configure(self, more: str) -> None:
        (self.folder / "etc").mkdir(exist_ok=True)
        (self.folder / "etc/service.toml").write_text(
            f'state = "../state"\nlogs.folder = "../logs"\n[bucket]\nurl = "../bucket"\n[service]\n'
            f'database = "../service.db"\nlisten = "127.0.0.1:{self.port}"\n{textwrap.dedent(more)}'
        )

    def begin(self) -> None:
        command: list[str | Path] = [HATHI, "service", "start", "--config", self.folder / "etc/service.toml"]
        count = self.log().count("/openapi.json")
        self.server = Server.start(command, log=self.folder / "log")
        self.server.until(lambda: self.log().count("/openapi.json") > count, "the API answers")

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def person(self) -> Person:
        until(lambda: "hathi_" in self.log(), "a first token")
        return Person(f"http://127.0.0.1:{self.port}", next(w for w in self.log().split() if w.startswith("hathi_")))

    def workers(self, kind: str) -> list[int]:
        """Their processes."""
        assert self.server is not None
        found = []
        for path in Path(f"/proc/{self.server.process.pid}/task").glob("*/children"):
            for child in children_in(path):
                words = command_of(child)
                if POOL in words and kind.encode() in words:
                    found.append(int(child))
        return found

    def row(self, work: str) -> dict[str, Any]:
        (found,) = [row for row in self.rows("work") if row["id"] == work]
        return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Of every tenant."""
        connection = connected(self.folder / "service.db")
        try:
            return [dict(row) for row in connection.execute(f"select * from bare_{table}")]
        finally:
            connection.close()


def command_of(process: str) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def children_in(path: Path) -> list[str]:
    """The processes that such a file of /proc names; none where its thread has ended meanwhile."""
    with contextlib.suppress(OSError):
        return path.read_text().split()
    return []
