"""What objects of the service are called in the bucket: under `s/<tenant>/`, and made nowhere else.

An object is written once, under a name that nobody else uses: the number of the attempt stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.service.ids import is_id

TOP = "s/"
ESTOP = f"{TOP}ESTOP"
"""An object that stops every server and worker of the service, on every host; a person puts and deletes it."""
UNNAMED = f"{TOP}unnamed/"
"""Where a prune notes which objects no row names, and since when; no tenant's."""


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """The names of one tenant's objects.  Raises ValueError for what is no name of a tenant."""

    tenant: str

    def __post_init__(self) -> None:
        if not is_id(self.tenant):
            raise ValueError(f"{self.tenant!r} is no name of a tenant")

    @property
    def top(self) -> str:
        return f"{TOP}{self.tenant}/"

    def chunk_of_upload(self, datafile: str, offset: int, nonce: str) -> str:
        """A piece of a datafile as it came, from that byte on."""
        return f"{self._of('u', datafile)}{offset:015d}-{nonce}"

    def attempt(self, job: str, epoch: int) -> str:
        """Where one attempt at a job writes, and nobody else ever."""
        return f"{self._of('j', job)}a{epoch:06d}/"

    def chunk(self, job: str, epoch: int, kind: str, number: int) -> str:
        """Rows of metrics, or lines of the log."""
        return f"{self.attempt(job, epoch)}{kind}-{number:08d}"

    def snapshot(self, job: str, epoch: int, iteration: int, name: str) -> str:
        """A file of a snapshot.  name: of the trainer, one word without a slash."""
        if "/" in name or name.startswith("."):
            raise ValueError(f"{name!r} is no name of a file of a snapshot")
        return f"{self.attempt(job, epoch)}s-{iteration:010d}/{name}"

    def _of(self, kind: str, name: str) -> str:
        if not is_id(name):
            raise ValueError(f"{name!r} is no name of a thing")
        return f"{self.top}{kind}/{name}/"
