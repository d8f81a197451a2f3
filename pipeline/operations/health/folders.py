"""Whether the files that an index names stand on the lake, with the length that it says: one list for each folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.ledger.deliveries import Index
from pipeline.stores.store import Lake


def named(index: Index) -> dict[str, dict[str, int | None]]:
    """By folder, relative to the root: the files of each partner's newest version, with their length where known."""
    sizes = {f"{one.folder}/{file.name}": file.size for one in index.deliveries for file in one.files}
    found: dict[str, dict[str, int | None]] = {}
    for partner in index.partners.values():
        for file in partner.files:
            folder = "/".join(file.split("/")[:2])  # SHIPMENT/PARTNER; files lie in it and in folders below
            found.setdefault(folder, {})[file] = sizes.get(file)
    return found


@dataclass
class Folders:
    """Looks at the folders of one root, some at each look, round and round; remembers what was missing."""

    root: str
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By folder."""
    checked: int = 0
    """Looked at in the last look."""
    _after: str = ""

    def look(
        self, lake: Lake, index: Index, at_most: int | None = None, safe_point: Callable[[], None] = lambda: None
    ) -> None:
        """Look at the next `at_most` folders (None: at all)."""
        wanted = named(index)
        self.missing = {folder: files for folder, files in self.missing.items() if folder in wanted}
        chosen = self._next(sorted(wanted), at_most)
        for folder in chosen:
            safe_point()
            files = self._missing(lake, folder, wanted[folder])
            if files:
                self.missing[folder] = files
            else:
                self.missing.pop(folder, None)
        self.checked = len(chosen)

    @property
    def all_missing(self) -> tuple[str, ...]:
        """Paths on the lake."""
        return tuple(path for folder in sorted(self.missing) for path in self.missing[folder])

    def _next(self, folders: list[str], at_most: int | None) -> list[str]:
        if at_most is None or len(folders) <= at_most:
            return folders
        if not at_most:
            return []
        begin = next((i for i, folder in enumerate(folders) if folder > self._after), 0)
        chosen = (folders[begin:] + folders[:begin])[:at_most]
        self._after = chosen[-1]
        return chosen

    def _missing(self, lake: Lake, folder: str, files: Mapping[str, int | None]) -> tuple[str, ...]:
        prefix = f"{self.root}/{folder}/"
        stands = {entry.key: entry.size for entry in lake.list(prefix)}
        return tuple(_not_whole(self.root, files, stands))


def _not_whole(root: str, files: Mapping[str, int | None], stands: Mapping[str, int]) -> Iterable[str]:
    for file, size in sorted(files.items()):
        path = f"{root}/{file}"
        if path not in stands or (size is not None and stands[path] != size):
            yield path
