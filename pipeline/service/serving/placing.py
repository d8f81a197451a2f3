"""The files of classifiers on this host's disk: fetched once, however many ask, and gone when others are asked more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.service import blobs
from pipeline.stores.store import Store

NET, WEIGHTS, GIVEN = "deploy.prototxt", "net.caffemodel", "given.json"
"""Of a classifier's folder: the net's text, as the serving process writes it, its weights, and what its maker said."""


@dataclass(frozen=True)
class Model:
    """What answers.  tenant: whose it is; id: of the classifier; files: name on the disk -> key, size, SHA-256.

    given: what its maker said of pictures; {}: its job says it.
    """

    tenant: str
    id: str
    files: Mapping[str, Mapping[str, Any]]
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(int(one["size"]) for one in self.files.values())


@dataclass
class _Place:
    folder: Path
    size: int
    ready: asyncio.Future[None]
    users: int = 0


class Places:
    """Below `root`.  most, most_bytes: of models that lie there and that nobody uses just now."""

    def __init__(self, store: Store, root: Path, most: int, most_bytes: int) -> None:
        self._store, self._root, self._most, self._most_bytes = store, root, most, most_bytes
        self._placed: OrderedDict[str, _Place] = OrderedDict()

    @contextlib.asynccontextmanager
    async def placed(self, model: Model) -> AsyncIterator[Path]:
        """The folder with its files, which stays while the block lasts.

        Raises PipelineError where the bucket does not give them, as whole as they were put.
        """
        place = self._placed.get(model.id)
        mine = place is None
        if place is None:
            place = _Place(self._root / model.id, model.size, asyncio.get_running_loop().create_future())
            self._placed[model.id] = place
        self._placed.move_to_end(model.id)
        place.users += 1
        try:
            if mine:
                await self._fill(model, place)
            await asyncio.shield(place.ready)
            yield place.folder
        finally:
            place.users -= 1
            await self._make_room()

    async def _fill(self, model: Model, place: _Place) -> None:
        try:
            await asyncio.to_thread(_written, self._store, model, place.folder)
            place.ready.set_result(None)
        except BaseException as error:
            del self._placed[model.id]
            place.ready.set_exception(error)
            place.ready.exception()  # whoever waits beside raises it as well; without any it has been told here
            raise

    async def _make_room(self) -> None:
        for name in list(self._placed):
            small = sum(one.size for one in self._placed.values()) <= self._most_bytes
            if len(self._placed) <= self._most and small:
                return
            if self._placed[name].users == 0:
                await asyncio.to_thread(shutil.rmtree, self._placed.pop(name).folder, True)


def _written(store: Store, model: Model, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / GIVEN).write_text(json.dumps(dict(model.given)))
    for name, one in model.files.items():
        if not blobs.copied(store, one["key"], folder / name, one["sha256"]):
            shutil.rmtree(folder)
            raise FormatError(f"{one['key']} is not what was put there", "", "train it again")
