"""Which columns of a source hold an image ref."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.codec.ref_rows import sample_of
from pipeline.codec.ref_rules import Cell, RawRows
from pipeline.errors import FormatError
from pipeline.settings import Columns


@dataclass(frozen=True, slots=True)
class Found:
    """Places of the columns; None for one that the file lacks."""

    partner_id: int | None
    item_id: int | None
    external_id: int | None
    url: int | None
    content: int | None

    def raw_rows(
        self, positions: Sequence[int], rows: Sequence[int], column: Callable[[int], Sequence[Cell]]
    ) -> RawRows:
        """Rows from their columns, each of which is asked for by its place."""

        def cells(place: int | None) -> Sequence[Cell] | None:
            return None if place is None else column(place)

        return RawRows(
            positions,
            rows,
            partner_id=cells(self.partner_id),
            item_id=cells(self.item_id),
            external_id=cells(self.external_id),
            url=cells(self.url),
            content=cells(self.content),
        )


def find_columns(names: Sequence[str], columns: Columns, file: str) -> Found:
    """For each column the first configured name that the file has, in its own letter case or else in any.

    Raises FormatError where there is neither a url nor a content column.
    """
    exact = {name: at for at, name in reversed(list(enumerate(names)))}
    folded = {name.casefold(): at for at, name in reversed(list(enumerate(names)))}

    def place(wanted: Sequence[str]) -> int | None:
        for name in wanted:
            at = exact.get(name, folded.get(name.casefold()))
            if at is not None:
                return at
        return None

    found = Found(
        partner_id=place(columns.partner_id),
        item_id=place(columns.item_id),
        external_id=place(columns.external_id),
        url=place(columns.url),
        content=place(columns.content),
    )
    if found.url is None and found.content is None:
        has = ", ".join(map(sample_of, names[:50])) or "none"
        raise FormatError(
            f"{file} has no url column and no content column",
            f"its columns are: {has}",
            f"name the column one of {', '.join(columns.url)}, or set the source's columns.url; "
            "with --refs: --url-column NAME",
        )
    return found
