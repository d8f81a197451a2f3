"""put_first where a store never says that it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import Exists, TemporaryError, Unknown
from pipeline.ledger.commit import TRIES, put_first
from pipeline.stores.local import LocalStore


class Silent(LocalStore):
    """Writes nothing, and says this."""

    words: Unknown | Exists

    def put_new(self, key: str, body: bytes) -> None:
        raise self.words


def tried(folder: Path, words: Unknown | Exists) -> TemporaryError:
    store = Silent(folder)
    store.words = words
    waited: list[float] = []
    with pytest.raises(TemporaryError) as raised:
        put_first(store, "c/S/plan", b"mine", waited.append)
    assert len(waited) == TRIES
    return raised.value


def test_what_the_store_said_last_is_the_cause_with_its_remedy(tmp_path: Path) -> None:
    full = Unknown("the disk of the S3 server is full", "c/S/plan: No space left on device", "free space there", 30.0)
    said = tried(tmp_path, full)
    assert not isinstance(said, Unknown), "it is for the whole step to be tried again"
    assert (said.message, said.hint, said.delay) == (full.message, full.hint, full.delay)
    assert "c/S/plan: No space left on device" in said.detail


def test_a_store_that_refuses_and_shows_nothing_is_named_by_the_key(tmp_path: Path) -> None:
    said = tried(tmp_path, Exists("the key exists"))
    assert said.message == "the store did not say whether c/S/plan was written"
