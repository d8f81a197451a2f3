"""A new file whose size and SHA-256 are known as soon as it is closed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Written:
    """A file as its manifest will name it."""

    size: int
    sha256: str
    rows: int


class HashedFile:
    """Writes and hashes in one pass; raises FileExistsError for a file that is there, since nothing is overwritten."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def written(self, rows: int) -> Written:
        """What was written, once the file is closed."""
        return Written(self.size, self._hash.hexdigest(), rows)
