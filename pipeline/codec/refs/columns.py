"""Which columns of a source hold an image ref."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.codec.refs.rows import sample_of
from pipeline.codec.refs.rules import Cell, Kept, RawRows
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
    url_first: bool = False
    """Nobody has named the content column: it is taken for rows without a url only."""
    kept: tuple[int | None, ...] = ()
    """Of further columns that are wanted."""

    def keeping(self, names: Sequence[str], keep: Sequence[str]) -> Found:
        """With the places of further columns among all names; None for one that the file lacks."""
        return replace(self, kept=tuple(place_of(names, name) for name in keep)) if keep else self

    def raw_rows(
        self,
        positions: Sequence[int],
        rows: Sequence[int],
        column: Callable[[int], Sequence[Cell]],
        kept: Callable[[int], Kept],
    ) -> RawRows:
        """Rows from their columns, each of which is asked for by its place.  kept: a further column, as it is kept."""

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
            url_first=self.url_first,
            kept=tuple([None] * len(rows) if place is None else kept(place) for place in self.kept),
        )


def place_of(names: Sequence[str], wanted: str) -> int | None:
    """The place of a name, in its own letter case or else in any; of names that stand twice the first."""
    if wanted in names:
        return names.index(wanted)
    folded = [name.casefold() for name in names]
    return folded.index(wanted.casefold()) if wanted.casefold() in folded else None


def find_columns(
    names: Sequence[str], columns: Columns, file: str, holds_bytes: Callable[[int], bool] | None = None
) -> Found:
    """For each column the first configured name that the file has, in its own letter case or else in any.

    holds_bytes: whether a column has bytes, in a format that knows it.  Beside a url column, a content column that
    nobody has named must hold them, or be base64 in a text, and is for rows without a url.
    Raises FormatError where there is neither a url nor a content column; of a table without images, where no column
    names items.
    """
    exact = {name: at for at, name in reversed(list(enumerate(names)))}
    folded = {name.casefold(): at for at, name in reversed(list(enumerate(names)))}

    def places(wanted: Sequence[str]) -> Iterator[int]:
        for name in wanted:
            at = exact.get(name, folded.get(name.casefold()))
            if at is not None:
                yield at

    url = next(places(columns.url), None)
    content = next(places(columns.content), None)
    url_first = False
    if not columns.content_is_configured and url is not None:
        content = next(filter(holds_bytes or (lambda place: True), places(columns.content)), None)
        url_first = content is not None
    partner, item, external = (
        next(places(one), None) for one in (columns.partner_id, columns.item_id, columns.external_id)
    )
    has = ", ".join(map(sample_of, names[:50])) or "none"
    if not columns.of_images and item is None and external is None and url is None:
        raise FormatError(
            f"{file} has no column that names items",
            f"its columns are: {has}",
            "name a column item_id, external_id or url; or say which it is: --external-id-column NAME",
        )
    if columns.of_images and url is None and content is None:
        hint = (
            f"name the column one of {', '.join(columns.url)}, or set the source's columns.url; "
            "with --refs: --url-column NAME"
        )
        if any("://" in name for name in names):
            hint = "its first line looks like a row: set the source's text.header = false and text.names; " + hint
        raise FormatError(f"{file} has no url column and no content column", f"its columns are: {has}", hint)
    return Found(
        partner_id=partner,
        item_id=item,
        external_id=external,
        url=url,
        content=content,
        url_first=url_first,
    )
