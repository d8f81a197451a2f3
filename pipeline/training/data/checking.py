"""Whether all examples can be used: found before the first iteration, named by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import FormatError
from pipeline.training.data.source import Labels, Source, Trouble

_PIECE = 64  # examples that a thread looks at together
_NAMED = 5


def check(
    sources: Sequence[Source],
    labels: Mapping[str, Labels],
    threads: int = 2,
    ending: Callable[[], bool] = lambda: False,
    seen: Callable[[int], None] = lambda _: None,
) -> None:
    """Reads every example of these sources once, or until `ending`.

    labels: what the net takes, by top; seen: told how many were read.

    Raises FormatError with the number of examples that cannot be used, and the first of them by key.
    """
    with ThreadPoolExecutor(max(1, threads), "hathi-check") as pool:
        for source in sources:
            pieces = [range(at, min(at + _PIECE, source.count)) for at in range(0, source.count, _PIECE)]

            def look(piece: range, source: Source = source) -> list[Trouble]:
                return [] if ending() else list(source.examine(labels, piece))

            found: list[Trouble] = []
            try:
                for piece, troubles in zip(pieces, pool.map(look, pieces), strict=True):
                    found += troubles
                    seen(len(piece))
                    if ending():
                        pool.shutdown(wait=False, cancel_futures=True)
                        return
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            if found:
                raise _refusal(source, found)


def _refusal(source: Source, found: list[Trouble]) -> FormatError:
    keys = {one.key for one in found}
    named = "; ".join(f"{one.key}: {one.says}" for one in found[:_NAMED])
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return FormatError(
        f"layer '{source.layer}': {len(keys)} of {source.count} examples cannot be used",
        named + more,
        "repair or remove them; nothing was trained",
    )
