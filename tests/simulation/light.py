"""Lighter forms for the simulation: JSON in place of protobuf, Parquet and gzip, and the rules of docs/protocol.md 6
in the most obvious way.  Ref files are lines `partner,external id,url`; a line `!` is rejected, `!!` ends what can be
read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.codec.codecs import Forms
from pipeline.codec.delivered.failures import held_detail
from pipeline.codec.delivered.merge import Merged, MergeInput, Output, PartnerResult, WrittenFile
from pipeline.codec.delivered.without import Gone, Left
from pipeline.codec.hashed_file import Written
from pipeline.codec.refs.tables import Cursor, Rejected, Taken
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix
from pipeline.records import ImageRef, item_id_of, normalise_external_id
from pipeline.settings import Columns

COLLIDED = "another external id has this item id"
GAVE_UP = "gave up after 4 tries"


def encode(refs: Iterable[ImageRef]) -> bytes:
    return json.dumps([[r.partner_id, r.item_id, r.external_id, r.url] for r in refs]).encode()


def decode(data: bytes, first_ordinal: int) -> list[ImageRef]:
    return [ImageRef(p, i, e, u, b"", first_ordinal + n) for n, (p, i, e, u) in enumerate(json.loads(data))]


class Reader:
    """Reads the lines of a file from a byte offset on."""

    def __init__(self, file: BinaryIO, at: Cursor) -> None:
        file.seek(at.position)
        self._lines = file.read().splitlines(keepends=True)
        self._at = at

    def take(self, max_refs: int, max_bytes: int) -> Taken:
        refs: list[ImageRef] = []
        samples: list[Rejected] = []
        rows = 0
        position, row = self._at.position, self._at.row
        while self._lines and len(refs) < max_refs:
            line = self._lines.pop(0)
            text = line.decode().strip()
            if text.startswith("!") or text.count(",") != 2 or not text.split(",")[0].isdigit():
                samples.append(Rejected(row + rows, position, "malformed", text))
                if text == "!!":
                    position += sum(map(len, self._lines))
                    self._lines = []
            else:
                partner, external, url = text.split(",")
                refs.append(ImageRef(int(partner), item_id_of(external), external, url, b"", len(refs)))
            position += len(line)
            rows += 1
        self._at = Cursor(position, row + rows)
        return Taken(refs, rows, rows - len(refs), tuple(samples[:10]), self._at, not self._lines)

    def close(self) -> None:
        self._lines = []


def open_refs(
    file: BinaryIO, name: str, format: object, columns: Columns, partner_id: int | None, at: Cursor, how: object
) -> Reader:
    return Reader(file, at)


def write_features(path: Path, rows: Sequence[FeatureRow], matrix: Matrix) -> Written:
    lines = [
        [r.partner_id, r.item_id, r.ordinal, r.external_id, r.url, [round(float(v), 6) for v in vector]]
        for r, vector in zip(rows, matrix, strict=True)
    ]
    return _write(path, sorted(lines))


def write_failures(path: Path, rows: Sequence[FailureRow]) -> Written:
    lines = [[r.partner_id, r.item_id, r.ordinal, r.external_id, r.url, r.reason, r.retriable, r.detail] for r in rows]
    return _write(path, sorted(lines))


def _write(path: Path, lines: list[list[Any]]) -> Written:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(content)
    return Written(len(content), hashlib.sha256(content).hexdigest(), len(lines))


def read_lines(content: bytes) -> list[list[Any]]:
    return [json.loads(line) for line in content.splitlines()]


def merge(inputs: Sequence[MergeInput], output: Output) -> Merged:
    folder, last_try = output.folder, output.last_try
    features: list[list[Any]] = []
    failures: list[list[Any]] = []
    for one in inputs:
        features += read_lines(one.features.read_bytes()) if one.features else []
        failures += read_lines(one.failures.read_bytes()) if one.failures else []
        for ref in one.held:
            failures.append(
                [
                    ref.partner_id,
                    ref.item_id,
                    ref.ordinal,
                    ref.external_id,
                    ref.url,
                    "held",
                    False,
                    held_detail(one.batch),
                ]
            )
    refs = len(features) + len(failures)
    items: dict[tuple[int, int], list[list[Any]]] = {}
    for row in features + failures:
        items.setdefault((row[0], row[1]), []).append(row)
    good: list[list[Any]] = []
    bad: list[list[Any]] = []
    for rows in items.values():
        names = {normalise_external_id(row[3]) for row in rows if row[3]}
        if len(names) > 1:
            latest = {normalise_external_id(row[3]): row for row in sorted(rows, key=lambda row: int(row[2]))}
            bad += [[*row[:5], "id_collision", False, COLLIDED] for row in latest.values()]
            continue
        best = max(rows, key=lambda row: (len(row) == 6, len(row) == 8 and bool(row[6]), int(row[2])))
        (good if len(best) == 6 else bad).append(best)
    bad.sort()
    good.sort()
    carried = None
    carried_rows = [row for row in bad if row[6]]
    if last_try:
        bad = [[*row[:6], False, f"{row[7]}; {GAVE_UP}"] if row[6] else row for row in bad]
    folder.mkdir(parents=True, exist_ok=True)
    if carried_rows and not last_try:
        carried = folder / "carried"
        carried.write_bytes(encode(ImageRef(r[0], r[1], r[3], r[4], b"", 0) for r in carried_rows))
    reasons: dict[str, int] = {}
    for row in bad:
        reasons[row[5]] = reasons.get(row[5], 0) + 1
    return Merged(
        partners=tuple(_partner(folder, p, good, bad) for p in sorted({row[0] for row in good + bad})),
        refs=refs,
        features=len(good),
        failures=len(bad),
        duplicates=refs - len(good) - len(bad),
        reasons=reasons,
        carried=carried,
        carried_refs=len(carried_rows) if carried else 0,
        numbers=output.numbers,
    )


def _partner(folder: Path, partner: int, good: list[list[Any]], bad: list[list[Any]]) -> PartnerResult:
    files = []
    counts = []
    for kind, rows in (("features", good), ("failures", bad)):
        mine = [row for row in rows if row[0] == partner]
        counts.append(len(mine))
        if mine:
            name = f"{kind}/part-00000.json"
            path = folder / f"{partner}.{kind}"
            written = _write(path, mine)
            files.append(WrittenFile(name, path, written.size, written.sha256, written.rows))
    return PartnerResult(partner, tuple(files), counts[0], counts[1])


def pieces(path: Path, refs: int, size: int) -> Iterator[list[ImageRef]]:
    found = decode(path.read_bytes(), 0)
    for start in range(0, len(found), refs):
        yield [ref._replace(ordinal=n) for n, ref in enumerate(found[start : start + refs])]


def held_items(path: Path, batch: int) -> frozenset[tuple[int, int]]:
    lines = read_lines(path.read_bytes())
    return frozenset((row[0], row[1]) for row in lines if (row[5], row[7]) == ("held", held_detail(batch)))


def _goes(row: list[Any], gone: Gone) -> bool:
    return gone.items is None or row[1] in gone.items


def holds(name: str, stream: BinaryIO, gone: Gone) -> bool:
    return any(_goes(row, gone) for row in read_lines(stream.read()))


def without(name: str, stream: BinaryIO, path: Path, gone: Gone) -> Left:
    rows = read_lines(stream.read())
    stay = [row for row in rows if not _goes(row, gone)]
    items = {row[1] for row in rows if _goes(row, gone)}
    return Left(_write(path, stay) if stay else None, len(rows) - len(stay), items)


LIGHT = Forms(
    encode, decode, open_refs, write_features, write_failures, merge, pieces, held_items, holds=holds, without=without
)
