"""What a partner's delivery consists of: what its files are called and which of them are which.  It stands here alone.

    features/part-00000.parquet    features, every column      format `parquet`
    cnn_features.txt.gz            features as text            format `text`
    cnn_features.libsvm.gz         features as libsvm has them format `libsvm`
    failures/part-00000.parquet    items without a feature     always

Each form that a set's `formats` name holds all features of the delivery, so each has as many rows as there are
features; that is the law of a delivery.  A text form is two functions, from features to lines and back: a further one
is a module with these two and an entry in TEXT_FORMS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.codec.hashed_file import Written

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.codec.delivered.text import TextWriter
    from pipeline.codec.shards import Matrix

PARQUET = "parquet"
"""The format that has every column, and that current tables are merged from."""
FEATURES = "features"
FAILURES = "failures"
"""Folders of Parquet files in a partner's folder."""


class File(Protocol):
    """A delivered file, as manifests and merges name it: relative to the partner's folder."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...


F = TypeVar("F", bound=File)


@dataclass(frozen=True)
class TextForm:
    """Features as lines of text in one file, gzip.  name: in a set's `formats`."""

    name: str
    file: str
    lines: Callable[[int, Sequence[int], Matrix], npt.NDArray[np.uint8]]
    """(partner, unsigned items, matrix) -> the bytes of as many lines, newlines included."""
    read: Callable[[Sequence[bytes], int], tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.uint64], Matrix]]
    """(lines, values of a feature or 0 if unknown) -> partners or None where lines have none, unsigned items, matrix.

    Raises ValueError or OverflowError for what are no such lines.
    """
    item_word: int
    """Which word of a line is the item."""

    def claims(self, path: str) -> bool:
        """Whether a file of any folder looks like this form by the end of its name, packed or not."""
        return path.removesuffix(".gz").endswith(Path(self.file.removesuffix(".gz")).suffix)


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module of this room that is imported at its first call: who asks for names needs no NumPy."""

    def call(*given: Any) -> Any:
        return getattr(import_module(f"pipeline.codec.delivered.{module}"), name)(*given)

    return call


TEXT_FORMS = (
    TextForm("text", "cnn_features.txt.gz", _late("text", "text_lines"), _late("text", "read_lines"), item_word=1),
    TextForm(
        "libsvm", "cnn_features.libsvm.gz", _late("libsvm", "libsvm_lines"), _late("libsvm", "read_libsvm_lines"),
        item_word=0,
    ),
)  # fmt: skip
"""Where there is no Parquet, the first of them that is there is read."""
FORMATS = (PARQUET, *(form.name for form in TEXT_FORMS))
_OF_A_PARTNER = re.compile(rf"/(\d+)/(?:{FEATURES}/[^/]+|{'|'.join(re.escape(form.file) for form in TEXT_FORMS)})$")


def is_table(name: str) -> bool:
    """Whether a delivered file is Parquet of features."""
    return name.startswith(f"{FEATURES}/")


def is_failures(name: str) -> bool:
    """Whether a delivered file is Parquet of failures."""
    return name.startswith(f"{FAILURES}/")


def is_text(name: str) -> bool:
    """Whether a delivered file is features as text, in any form."""
    return any(name == form.file for form in TEXT_FORMS)


def tables(files: Iterable[F]) -> list[F]:
    """Those that are Parquet of features."""
    return [file for file in files if is_table(file.name)]


def to_read(files: Iterable[F]) -> list[F]:
    """The files that hold each feature once: Parquet, else one text form; none where no features were delivered."""
    listed = list(files)
    texts = ([file for file in listed if file.name == form.file] for form in TEXT_FORMS)
    return tables(listed) or next((some for some in texts if some), [])


def text_form_of(path: str) -> TextForm:
    """The text form of a file of any folder, by the end of its name; the first one where that tells nothing."""
    return next((form for form in TEXT_FORMS if form.claims(path)), TEXT_FORMS[0])


def partner_of(path: str) -> int | None:
    """The partner that the folder of a file of features names."""
    match = _OF_A_PARTNER.search(path)
    return int(match[1]) if match else None


def rows_of_features(files: Iterable[File]) -> dict[str, int]:
    """The rows of each form that is there, by its file or folder; {"features": 0} where none is.

    Each of them has to be the number of features.
    """
    rows: dict[str, int] = {}
    for file in files:
        if is_table(file.name) or is_text(file.name):
            place = file.name.partition("/")[0]
            rows[place] = rows.get(place, 0) + file.rows
    return rows or {FEATURES: 0}


def rows_of_failures(files: Iterable[File]) -> int:
    """The rows of all files of failures."""
    return sum(file.rows for file in files if is_failures(file.name))


class TextFiles:
    """New files in a folder, one for each text form among the formats; none where there is no such."""

    def __init__(self, folder: Path, formats: Sequence[str]) -> None:
        from pipeline.codec.delivered.text import TextWriter

        self._files: list[tuple[Path, TextWriter]] = []
        try:
            for form in TEXT_FORMS:
                if form.name in formats:
                    path = folder / form.file
                    self._files.append((path, TextWriter(path, form.lines)))
        except BaseException:
            self.abandon()
            raise

    def __bool__(self) -> bool:
        return bool(self._files)

    def write(self, partner_id: int, item_ids: Sequence[int], matrix: Matrix) -> None:
        """Adds a line for each row of the matrix (n, dim) to each file.  Raises FormatError for what is not finite."""
        for _, writer in self._files:
            writer.write(partner_id, item_ids, matrix)

    def close(self) -> list[tuple[Path, Written]]:
        """All files, in the order of the forms."""
        return [(path, writer.close()) for path, writer in self._files]

    def abandon(self) -> None:
        """Closes files that will not be used."""
        for _, writer in self._files:
            writer.abandon()
