"""The files that a plan froze, read on from a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from pipeline.codec.codecs import Forms
from pipeline.codec.refs.guess import guess
from pipeline.codec.refs.rows import sampled
from pipeline.codec.refs.rules import null_forms
from pipeline.codec.refs.tables import Cursor, Format, How, RefReader, Rejected, Taken, column_names, detect
from pipeline.errors import ConfigError, FormatError
from pipeline.ledger.manifest import Place, Plan, Rejection, SourceFile
from pipeline.records import ImageRef
from pipeline.settings import NULL_WORDS, Columns, Text
from pipeline.sources.paths import NO_VALUE, partner_number
from pipeline.stores.store import Lake

_GUESSED_FROM = 2**20
FORMATS: dict[str, Format] = {name: name for name in get_args(Format)}


class FrozenFiles:
    """Refs batch by batch, rows that are none counted; not opened before they are asked for."""

    def __init__(self, lake: Lake, forms: Forms, plan: Plan, place: Place, keep: tuple[str, ...] = ()) -> None:
        """keep: further columns that come along (`takes`)."""
        self._lake = lake
        self._open_refs = forms.open_refs
        self._plan = plan
        reading = plan.reading
        nulls = NULL_WORDS if reading.null_words is None else reading.null_words
        try:
            self._columns = Columns.model_validate(reading.columns) if reading.columns else Columns()
            text = Text.model_validate(reading.text)
        except ValueError as error:
            raise FormatError(
                "this version does not know how to read its files", str(error), "upgrade Hathi on this host"
            ) from error
        self._how = How(text, nulls, as_written=reading.ids == "as_written", keep=keep)
        self._nulls = null_forms(nulls)
        self._reader: RefReader | None = None
        self.go_to(place)

    def go_to(self, place: Place) -> None:
        """Read on from here; what waited is forgotten."""
        self.close()
        self.place = place
        self.waiting_rows = 0
        self.waiting_rejections: tuple[Rejection, ...] = ()

    @property
    def ended(self) -> bool:
        return self.place.file >= len(self._plan.snapshot.files)

    @property
    def file(self) -> SourceFile:
        """The one that is read."""
        return self._plan.snapshot.files[self.place.file]

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def take(self) -> tuple[list[ImageRef], int, int, tuple[Rejection, ...], Place] | None:
        """The refs of the next batch, with the rows and rejected rows since the last one; None at the end.

        A batch lies within one file.
        """
        for file, taken in self.takes():
            self.waiting_rows += taken.rows
            self.waiting_rejections = tuple(sampled(self.waiting_rejections + self._rejections(taken, file)))
            if taken.refs:
                rows, rejections = self.waiting_rows, self.waiting_rejections
                self.waiting_rows, self.waiting_rejections = 0, ()
                return taken.refs, rows, rows - len(taken.refs), rejections, self.place
        return None

    def takes(self) -> Iterator[tuple[SourceFile, Taken]]:
        """What is read to the end, a batch's size at a time, and the file that it is of."""
        while not self.ended:
            file, at = self.file, self.place.file
            taken = self._from_this_file()
            self.place = Place(file=at, position=taken.cursor.position, row=taken.cursor.row)
            if taken.ended:
                self.close()
                self.place = Place(file=at + 1)
            yield file, taken

    def names(self) -> list[str]:
        """The columns of the file that is next.  Raises FormatError where it cannot be read."""
        path, form = self.file.path, self._format()
        return column_names(self._lake.open(path), path, form, self._columns, self._how)

    def _from_this_file(self) -> Taken:
        at = Cursor(position=self.place.position, row=self.place.row)
        try:
            if self._reader is None:
                self._reader = self._open(at)
            return self._reader.take(self._plan.batch_refs, self._plan.batch_bytes)
        except FormatError as error:
            # The file cannot be read on: what is left of it counts as one rejected row, loudly.
            why = "; ".join(part for part in (error.message, error.detail, error.hint) if part)
            rest = Rejected(row=at.row, offset=at.position, why=why, sample="")
            return Taken(refs=[], rows=1, rejected=1, samples=(rest,), cursor=at, ended=True)

    def _open(self, at: Cursor) -> RefReader:
        path, partner = self.file.path, self._partner()
        form = self._format()
        how = replace(self._how, null_partner=bool(self.file.partner))
        return self._open_refs(self._lake.open(path), path, form, self._columns, partner, at, how)

    def _partner(self) -> int | None:
        """Of rows that name none: what the file's own folder says, before what its source says.

        A folder may say that there is none (`partner=__HIVE_DEFAULT_PARTITION__`), as an empty cell does.
        """
        text = self.file.partner
        if not text or text in self._nulls or text == NO_VALUE:
            return self._plan.reading.partner_id
        partner = partner_number(text)
        if partner is None:
            raise FormatError(
                f"the partner {text[:40]!r} in its folder's name is not a number", "", "as in partner=123"
            )
        return partner

    def _format(self) -> Format:
        path, reading = self.file.path, self._plan.reading
        try:
            if reading.format != "auto":
                return FORMATS[reading.format]
            try:
                named = detect(path)
            except ConfigError:
                if reading.otherwise:
                    return FORMATS[reading.otherwise]
                guessed = self._guess(path)
                if guessed is None:
                    raise
                return guessed
            if named != "text":
                return named
            # MySQL, Excel and shops call a table `.txt` as well; a header of one column may be the first of the URLs.
            guessed = self._guess(path, least=2)
            return guessed if guessed in ("csv", "tsv", "jsonl") else named
        except (ConfigError, KeyError) as error:
            raise FormatError(
                f"the format of {path} is not known", str(error), "set the format of the source"
            ) from error

    def _guess(self, path: str, least: int = 1) -> Format | None:
        """The format that the file's first bytes tell.  least: columns that a header has."""
        with self._lake.open(path) as file:
            return guess(file.read(_GUESSED_FROM), path, self._columns, self._how.text, least)

    def _rejections(self, taken: Taken, file: SourceFile) -> tuple[Rejection, ...]:
        return tuple(
            Rejection(file=file.path, row=one.row, offset=one.offset, why=one.why, sample=one.sample)
            for one in taken.samples
        )
