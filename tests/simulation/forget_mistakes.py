"""Mistakes with archive and forgetting that look harmless, planted one at a time: the simulation finds each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipeline.extraction.packing import Pack
from pipeline.ledger import forgetting
from pipeline.ledger.archive import Archived
from pipeline.ledger.forgetting import Request
from pipeline.ledger.layout import ArchivedBatch
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context, commit
from pipeline.operations import forget, prune
from pipeline.operations.forget import bucket
from pipeline.operations.forget.whose import Pass
from pipeline.operations.prune.archive import plan_archive
from pipeline.operations.prune.deletion import Deletion
from pipeline.stages import archiving

Plant = Callable[[pytest.MonkeyPatch], None]


def the_key_before_its_files(patch: pytest.MonkeyPatch) -> None:
    """The pack follows as soon as the key stands."""
    real = archiving.store

    def keep(context: Context, batch: ArchivedBatch, pack: Pack) -> int:
        pack.close()
        if not pack.rows:
            return 0
        pack_file, index = (
            DataFile(key=context.keys.archive_file(batch, "0" * 16, what), size=1, sha256="0" * 64, rows=1)
            for what in ("pack", "index")
        )
        commit(context, context.keys.archived(batch), Archived(pack=pack_file, index=index))
        real(context, batch, pack)
        return len(pack.rows)

    patch.setattr(archiving, "keep", keep)


def files_before_their_key(patch: pytest.MonkeyPatch) -> None:
    """Space is what prune is for: the packs first."""
    real = plan_archive

    def plan(context: Context, now: float) -> Iterator[Deletion]:
        yield from sorted(real(context, now), key=lambda one: one.key.startswith(context.keys.archive))

    patch.setattr(prune, "plan_archive", plan)


def data_of_open_shipments(patch: pytest.MonkeyPatch) -> None:
    """A person waits for nobody."""
    patch.setattr(bucket, "is_closed", lambda context, state: True)


def done_while_something_waits(patch: pytest.MonkeyPatch) -> None:
    """What waits is said, and somebody will see to it."""
    real = Pass.__init__

    def begin(self: Pass, context: Context, request: Request) -> None:
        real(self, context, request)
        self.waiting = _Nothing()

    patch.setattr(Pass, "__init__", begin)


class _Nothing(dict[str, str]):
    def __setitem__(self, key: str, value: str) -> None:
        pass


def a_request_is_deleted_before_it_is_done(patch: pytest.MonkeyPatch) -> None:
    """It names the item, so it goes first."""
    real = forgetting.finish

    def finish(context: Context, number: int, request: Request, at: str, look: Callable[[], None]) -> None:
        context.bucket.delete(context.keys.forget_request(number))
        real(context, number, request, at, look)

    patch.setattr(forget, "finish", finish)


MISTAKES: list[Plant] = [
    the_key_before_its_files,
    files_before_their_key,
    data_of_open_shipments,
    done_while_something_waits,
    a_request_is_deleted_before_it_is_done,
]
