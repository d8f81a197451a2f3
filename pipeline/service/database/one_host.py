"""SQLite is for one host: its locks and its shared memory do not work over a network, and what is torn is not seen."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.process.host import host_name
from pipeline.service.database.statements import Database
from pipeline.service.words import WORKER

SHARED = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "ocfs2",
    "gfs2", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph",
})  # fmt: skip
"""File systems that more than one host may have mounted."""
MOUNTS = Path("/proc/self/mountinfo")
ALIVE_SECONDS = 60
_HINT = "set service.database to a file on a disk of this host, or to a PostgreSQL for many hosts"


def file_system_of(path: Path, mounts: str) -> str:
    """The kind of file system that a path lies on.  mounts: as the kernel lists them (mountinfo); "" unknown."""
    real, best, kind = os.path.realpath(path), "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, kind = point, after.split()[0]
    return kind


def refuse_network(path: Path, mounts: Path = MOUNTS) -> None:
    """Raises ConfigError for a database that other hosts might write, too."""
    kind = file_system_of(path, mounts.read_text()) if mounts.exists() else ""
    if kind in SHARED:
        raise ConfigError(f"SQLite's database lies on a network file system ({kind})", str(path), _HINT)


async def refuse_other_host(database: Database, host: str = "") -> None:
    """Raises ConfigError where workers of another host are at work on an SQLite database.  host: this one's name."""
    async with database.reading(WORKER) as statements:
        other = await statements.row(
            "select host from workers where state = 'active' and host <> $1 and beat_at > instant() - $2 limit 1",
            host or host_name(), float(ALIVE_SECONDS),
        )  # fmt: skip
    if other is not None:
        says = "SQLite's database is in use on another host"
        raise ConfigError(says, f"a worker of {other['host']} has it", _HINT)
