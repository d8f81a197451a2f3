"""The nets that one serving process holds: a few, those that were asked last, each with its preparation of pictures."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.images import Preparation
from pipeline.nets.loading import load
from pipeline.nets.net import Net
from pipeline.records import Failure
from pipeline.service.serving.placing import GIVEN, NET, WEIGHTS
from pipeline.service.work.preparing import SERVING
from pipeline.settings import Preprocess
from pipeline.training.deploying import CHANNELS, Deployed, Pictures, transform_of

BATCHES = (1, 8, 32)
"""A pass has one of these numbers of rows; those that are missing are zeros, and nobody sees what comes of them."""
Rows = NDArray[np.float32]
Answers = list[Rows | Failure]


class Loaded:
    """One classifier's net.  bytes: of its weights.  Raises PipelineError for what cannot serve."""

    def __init__(self, folder: Path, threads: int) -> None:
        made = Deployed.read((folder / SERVING).read_bytes())
        self._made, self._how, self._order = made, *_preparation(made, json.loads((folder / GIVEN).read_bytes()))
        (folder / NET).write_text(made.net)
        self._net: Net = load(folder / NET, folder / WEIGHTS, blobs=[made.blob], threads=threads)
        self.bytes = (folder / WEIGHTS).stat().st_size
        own = self._net.rows(made.blob, {made.input: (BATCHES[1], *made.shape)}).kind == "own"
        self._batches = BATCHES if own else BATCHES[:1]
        if lacking := self._net.lacking(made.blob):
            raise NetError("the snapshot lacks weights of the net", ", ".join(lacking[:5]), "train it again")
        self._prepare = None
        if self._how is not None:
            plain = Preprocess(mean=[0.0], channel_order=self._order)
            self._prepare = Preparation(plain, self._how.size, channels=self._how.channels)

    def of_pictures(self, contents: Sequence[bytes], pool: ThreadPoolExecutor) -> Answers:
        """The values of each picture; why not, for those that are none."""
        if self._prepare is None:
            return [Failure.of("bad_ref", "this net takes no pictures, but numbers")] * len(contents)
        prepared = list(pool.map(self._prepared, contents))
        good = [one for one in prepared if not isinstance(one, Failure)]
        rows = iter(self._forward(np.stack(good)) if good else ())
        return [one if isinstance(one, Failure) else _finite(next(rows)) for one in prepared]

    def of_numbers(self, contents: Sequence[bytes]) -> Answers:
        """The values of each row of float32, prepared by whoever asks."""
        length = int(np.prod(self._made.shape))
        good = [np.frombuffer(one, "<f4") for one in contents if len(one) == 4 * length]
        if len(good) < len(contents):
            return [Failure.of("bad_ref", f"a row has {length} numbers")] * len(contents)
        return [_finite(row) for row in self._forward(np.stack(good).reshape(-1, *self._made.shape))]

    def _prepared(self, content: bytes) -> Rows | Failure:
        assert self._prepare is not None
        assert self._how is not None
        found = self._prepare(content)
        if isinstance(found, Failure):
            return found
        out = np.empty(self._made.shape, np.float32)
        self._how.transform.apply(found, np.zeros(0, np.uint32), out)
        return out

    def _forward(self, batch: Rows) -> Rows:
        found = []
        while len(batch):
            size = next((one for one in self._batches if one >= len(batch)), self._batches[-1])
            some, batch = batch[:size], batch[size:]
            fed = np.zeros((size, *some.shape[1:]), np.float32)
            fed[: len(some)] = some
            rows = self._net.forward({self._made.input: fed}, [self._made.blob])[self._made.blob]
            found.append(np.array(rows.reshape(size, -1)[: len(some)]))
        return np.concatenate(found)


class Nets:
    """At most so many nets, of so many bytes of weights together; whoever was asked longest ago goes first."""

    def __init__(self, most: int, most_bytes: int, threads: int) -> None:
        self._most, self._most_bytes, self._threads = most, most_bytes, threads
        self._held: OrderedDict[str, Loaded] = OrderedDict()

    def net(self, name: str, folder: Path) -> Loaded:
        """The net of that name, from its folder where it is not held.  Raises PipelineError, OSError."""
        if name not in self._held:
            self._make_room((folder / WEIGHTS).stat().st_size)
            self._held[name] = Loaded(folder, self._threads)
        self._held.move_to_end(name)
        return self._held[name]

    def names(self) -> list[str]:
        """Those that are held, the one that was asked last at the end."""
        return list(self._held)

    def _make_room(self, wanted: int) -> None:
        while self._held and (
            len(self._held) >= self._most or sum(one.bytes for one in self._held.values()) + wanted > self._most_bytes
        ):
            self._held.popitem(last=False)


def _preparation(made: Deployed, given: dict[str, Any]) -> tuple[Pictures | None, Any]:
    """How pictures are prepared: as the job's data layer did, or as the maker said where that layer read numbers."""
    if made.pictures is not None or not given or len(made.shape) != 3 or made.shape[0] not in CHANNELS:
        return made.pictures, "bgr"
    mean = np.asarray(given["mean"], np.float32).reshape(-1, 1, 1) if given["mean"] else None
    channels, high, wide = made.shape
    return Pictures(channels, (high, wide), transform_of(mean, given["scale"])), given["channel_order"]


def _finite(row: Rows) -> Rows | Failure:
    return row if np.isfinite(row).all() else Failure.of("not_finite")
