"""Failures of delivered files: examples of each reason, and the hosts behind them; by columns, never by rows."""

from __future__ import annotations

from collections import Counter
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.failures import hosts_and_reasons
from pipeline.errors import FormatError
from pipeline.operations.report.facts import Example, HostCount
from pipeline.process.redaction import redact_query
from pipeline.records import unsigned

T = TypeVar("T")

EXAMPLES = 5
"""Of each reason, as different ones as there are."""
CANDIDATES = 40
BROKEN = ("decode", "not_image", "truncated", "too_many_pixels")
"""Reasons of which one wants to see the image."""
BROKEN_EXAMPLES = 24
ROWS = 2_000_000
"""Failures that are looked at for hosts; of more, the first."""
KNOWN_HOSTS = 50_000
"""Of more, those that fail least are forgotten on the way."""
_COLUMNS = ["partner_id", "item_id", "external_id", "url", "reason", "retriable", "detail"]
_LONG = 2000
"""Of a text from outside, so many characters are kept."""


class Failing:
    """Adds up files of failures; what it keeps is bounded."""

    def __init__(self, redact_queries: bool) -> None:
        self._redact = redact_queries
        self.rows = 0
        self.left_out = 0
        """Rows that were not looked at."""
        self._examples: dict[str, list[Example]] = {}
        self.broken: list[Example] = []
        self._hosts: Counter[tuple[str, str]] = Counter()

    def add(self, stream: BinaryIO, lake: str, shipment: str) -> Counter[str]:
        """One delivered file; its failures by reason.  Raises FormatError when it is damaged."""
        found: Counter[str] = Counter()
        try:
            file = pq.ParquetFile(stream)
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if self.rows >= ROWS:
                    self.left_out += rows
                    continue
                found += self._add(file.read_row_group(group, columns=_COLUMNS, use_threads=False), lake, shipment)
                self.rows += rows
        except ARROW_ERRORS as error:
            what = f"{shipment}: {damage_of(error)}"
            raise FormatError("a file of failures is damaged", what, "hathi verify") from error
        return found

    def examples(self, reason: str) -> tuple[Example, ...]:
        """Some of a reason, of different files where there are such."""
        return tuple(_spread(self._examples.get(reason, []), EXAMPLES))

    def hosts(self, at_most: int) -> tuple[tuple[HostCount, ...], int]:
        """Those that fail most, and how many there are beyond them."""
        sums: Counter[str] = Counter()
        for (host, _), number in self._hosts.items():
            sums[host] += number
        shown = sums.most_common(at_most)
        reasons: dict[str, Counter[str]] = {host: Counter() for host, _ in shown}
        for (host, reason), number in self._hosts.items():
            if host in reasons:
                reasons[host][reason] += number
        found = tuple(HostCount(host, number, tuple(reasons[host].most_common())) for host, number in shown)
        return found, len(sums) - len(found)

    def _add(self, table: pa.Table, lake: str, shipment: str) -> Counter[str]:
        reasons = table.column("reason")
        counts = hosts_and_reasons(table)
        self._hosts.update(counts)
        if len(self._hosts) > 2 * KNOWN_HOSTS:
            self._hosts = Counter(dict(self._hosts.most_common(KNOWN_HOSTS)))
        for reason in pc.unique(reasons).to_pylist():
            self._keep(table, pc.equal(reasons, reason), reason, lake, shipment)
        found: Counter[str] = Counter()
        for (_, reason), number in counts.items():
            found[reason] += number
        return found

    def _keep(self, table: pa.Table, mask: Any, reason: str, lake: str, shipment: str) -> None:
        known = self._examples.setdefault(reason, [])
        wants = min(EXAMPLES, CANDIDATES - len(known))
        wants_broken = BROKEN_EXAMPLES - len(self.broken) if reason in BROKEN else 0
        most = max(wants, wants_broken)
        if most <= 0:
            return
        places = _spread(pc.indices_nonzero(mask).to_pylist(), most)
        found = [self._example(row, lake, shipment) for row in table.take(pa.array(places)).to_pylist()]
        known.extend(found[: max(0, wants)])
        self.broken.extend(found[: max(0, wants_broken)])

    def _example(self, row: dict[str, Any], lake: str, shipment: str) -> Example:
        return Example(
            lake,
            shipment,
            row["partner_id"],
            unsigned(row["item_id"]),
            self._shown(row["external_id"], row["url"]),
            self._shown(row["url"], row["url"]),
            row["reason"],
            row["retriable"],
            row["detail"][:_LONG],
        )

    def _shown(self, text: str, url: str) -> str:
        return (redact_query(text) if self._redact and text == url else text)[:_LONG]


def _spread(all_: list[T], most: int) -> list[T]:
    """So many of them, from the first to the last, evenly."""
    if len(all_) <= most:
        return all_
    return [all_[at * len(all_) // most] for at in range(most)]
