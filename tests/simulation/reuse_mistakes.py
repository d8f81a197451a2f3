"""Mistakes in using features again that look harmless; each is planted into the product, and each has to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.codec import reuse_pages
from pipeline.codec.reuse_pages import PageIndex, Remembered, digests_of
from pipeline.codec.shards import FeatureRow, Matrix
from pipeline.extraction.window import Window
from pipeline.ledger.layout import Keys
from pipeline.stages import publishing, remembering

Plant = Callable[[pytest.MonkeyPatch], None]


def using_features_of_another_fingerprint(patch: pytest.MonkeyPatch) -> None:
    """One memory of a URL for all nets."""

    def index_of(self: remembering.Reuse, key: str) -> PageIndex | None:
        return PageIndex.decode(self._context.bucket.get(key), key)

    patch.setattr(remembering.Reuse, "_index", index_of)
    patch.setattr(Keys, "reuse_index", lambda self, fingerprint, scope, page: f"{self.reuse}i/any/{scope}/{page}")
    patch.setattr(Keys, "reuse_data", lambda self, fingerprint, scope, page: f"{self.reuse}d/any/{scope}/{page}")


def using_a_feature_without_asking_the_host(patch: pytest.MonkeyPatch) -> None:
    """What was computed once is taken for good."""
    real = Window._begin

    def begin(self: Any, batch: Any, place: int) -> Any:
        origin = batch.before.get(place)
        if origin is None:
            return real(self, batch, place)
        self._queues.not_fetched(batch, 1)
        self._name(batch, place, batch.known[origin.sha256], origin._replace(reused="not_modified"))
        return None

    patch.setattr(Window, "_begin", begin)


def keeping_the_old_feature_beside_the_new_tag(patch: pytest.MonkeyPatch) -> None:
    """A changed image renews what is known of its URL, all but the feature."""
    real = remembering._remembered
    first: dict[tuple[bytes, bytes], Any] = {}

    def remembered(url: bytes, row: FeatureRow, vector: Matrix) -> Remembered:
        one = real(url, row, vector)
        values = first.setdefault((url, bytes(str(vector.dtype), "ascii")), one.values)
        return replace(one, values=values)

    patch.setattr(remembering, "_remembered", remembered)


def remembering_before_the_result_stands(patch: pytest.MonkeyPatch) -> None:
    real = publishing.publish

    def publish(context: Any, engine: str, computed: Any, begun: Any) -> Any:
        if computed.rows and context.settings.sets[computed.task.set].reuse:
            early = remembering.Reuse(context, computed.task.fingerprint, engine)
            early.opened(computed.task.name, computed.task.batch, (), look=False)
            publishing.remember(context, early, computed)
            early.write()
        return real(context, engine, computed, begun)

    patch.setattr(publishing, "publish", publish)


def writing_the_index_before_its_data(patch: pytest.MonkeyPatch) -> None:
    real = Keys.reuse_index

    def write(self: remembering.Reuse, scope: str) -> None:
        page = self._pending.pop(scope)
        name = f"{page.newest}.{self._context.process.nonce()}"
        ends = np.cumsum([len(one) for one in page.records]).astype(np.uint64)
        digests = digests_of(page.urls)
        index = PageIndex(self._fingerprint, self._engine, tuple(page.results), digests, ends)
        keys = self._context.keys
        self._context.bucket.put(real(keys, self._fingerprint, scope, name), index.encode())
        self._context.bucket.put(keys.reuse_data(self._fingerprint, scope, name), b"".join(page.records))

    patch.setattr(remembering.Reuse, "_write", write)


def trusting_damaged_records(patch: pytest.MonkeyPatch) -> None:
    """A record whose bytes changed is used as it is."""
    patch.setattr(reuse_pages, "_checksum", lambda content: bytes(16))


def taking_every_feature_of_a_batch_for_that_of_its_url(patch: pytest.MonkeyPatch) -> None:
    """The feature of the neighbour."""
    real = Window._take_up

    def take_up(self: Any, batch: Any, before: Any) -> None:
        places = sorted(before)
        real(self, batch, {place: before[other] for place, other in zip(places, places[1:] + places[:1], strict=True)})

    patch.setattr(Window, "_take_up", take_up)


MISTAKES: list[Plant] = [
    using_features_of_another_fingerprint,
    using_a_feature_without_asking_the_host,
    keeping_the_old_feature_beside_the_new_tag,
    remembering_before_the_result_stands,
    writing_the_index_before_its_data,
    trusting_damaged_records,
    taking_every_feature_of_a_batch_for_that_of_its_url,
]
