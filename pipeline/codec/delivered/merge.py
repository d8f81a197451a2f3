"""The shards of one shipment -> the files that are delivered for it (docs/protocol.md 6), in a local folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.amounts import counted
from pipeline.codec import image_refs
from pipeline.codec.delivered.failures import GROUP_ROWS as FAILURES_AT_ONCE
from pipeline.codec.delivered.failures import FailuresWriter
from pipeline.codec.delivered.forms import FAILURES, FEATURES, PARQUET, TextFiles, rows_of_failures, rows_of_features
from pipeline.codec.delivered.merge_plan import Indices, Winners, choose
from pipeline.codec.delivered.merge_sources import MergeInput, Sources
from pipeline.codec.delivered.parquet import GROUP_ROWS as FEATURES_AT_ONCE
from pipeline.codec.delivered.parquet import IMAGE_BYTES, FeaturesWriter, rows_of_group
from pipeline.codec.hashed_file import HashedFile, Written
from pipeline.codec.shards import DAMAGE, GROUP_CONTENT_BYTES, FailureRow, FeatureRow
from pipeline.codec.shards import GROUP_ROWS as SHARD_GROUP_ROWS
from pipeline.errors import LawBroken
from pipeline.records import ImageRef, Numbers

__all__ = ["MergeInput", "Merged", "Output", "PartnerResult", "WrittenFile", "merge"]

GAVE_UP = "gave up after 4 tries"
_JOBS_PER_THREAD = 4
_MEMORY = 2 * 2**30
"""Bytes that the threads of a merge may hold together, about; one thread always runs."""
_MEMORY_OF_ROWS = 6
"""A chunk of rows takes so many times its vectors while it is written: the matrix, text cells, Parquet pages."""

Vector = npt.NDArray[np.float32]
Marks = Counter[tuple[int, str]]
"""Features by partner and mark: of a damaged image, or used again, and how."""


@dataclass(frozen=True)
class WrittenFile:
    """A file to be delivered."""

    name: str
    """Relative to the partner's folder, with slashes."""
    path: Path
    size: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class PartnerResult:
    """What is delivered for one partner."""

    partner_id: int
    files: tuple[WrittenFile, ...]
    features: int
    failures: int
    not_modified: int = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: int = 0
    """Features that were computed before: the host sent the same bytes."""


@dataclass(frozen=True)
class Merged:
    """What became of a shipment's refs: refs = features + failures + duplicates."""

    partners: tuple[PartnerResult, ...]
    """By partner id."""
    refs: int
    features: int
    failures: int
    duplicates: int
    reasons: dict[str, int]
    """Failures by reason."""
    carried: Path | None
    """The complete refs of the retriable failures, in the order of their rows; None where there are none."""
    carried_refs: int
    damaged: int = 0
    """Features of images that the decoder said were damaged."""
    not_modified: int = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: int = 0
    """Features that were computed before: the host sent the same bytes."""
    alike: int = 0
    """Of the duplicates: rows whose external id is written otherwise than the one that stands for the item."""
    alike_ids: tuple[tuple[int, str, str], ...] = ()
    """The first of them: partner, the id as it is written, and as it stands for the item."""
    numbers: Numbers = "float32"
    """Of features in Parquet."""


@dataclass(frozen=True)
class Output:
    """What a merge is to write, the same for all partners."""

    folder: Path
    """Each partner's files go to folder/<partner>/."""
    dim: int
    """Values of a feature."""
    version: str
    fingerprint: str
    formats: Sequence[str]
    """Of `forms.FORMATS`."""
    redact_queries: bool
    last_try: bool
    """Failures that are retriable are final."""
    numbers: Numbers = "float32"
    """Of features in Parquet."""

    def file(self, partner_id: int, path: Path, written: Written) -> WrittenFile:
        name = path.relative_to(self.folder / str(partner_id)).as_posix()
        return WrittenFile(name, path, written.size, written.sha256, written.rows)


def merge(inputs: Sequence[MergeInput], output: Output, threads: int = 0) -> Merged:
    """Writes each partner's files; the same inputs give the same bytes.

    threads: 0 for all cores that this process may use.  Raises FormatError for a damaged shard, LawBroken if rows
    are missing at the end, OSError for a full disk.
    """
    sources = Sources(inputs, output.dim)
    winners = choose(sources.rows, sources.name_digests)
    output.folder.mkdir(parents=True, exist_ok=True)
    features, marks = _write_features(sources, winners, output, threads or len(os.sched_getaffinity(0)))
    failures = _Failures(output)
    failures.write(sources, winners)
    merged = Merged(
        partners=_partners(features, failures.files, winners, sources, marks),
        refs=len(sources.rows.kind),
        features=len(winners.features),
        failures=len(winners.failures),
        duplicates=winners.duplicates,
        reasons=dict(sorted(failures.reasons.items())),
        carried=failures.carried,
        carried_refs=failures.carried_refs,
        damaged=_marked(marks, DAMAGE),
        not_modified=_marked(marks, "not_modified"),
        equal_bytes=_marked(marks, "equal_bytes"),
        alike=winners.alike,
        alike_ids=_alike_ids(sources, winners),
        numbers=output.numbers,
    )
    _check(merged, output)
    return merged


def _marked(marks: Marks, what: str) -> int:
    return sum(number for (_, mark), number in marks.items() if mark == what)


def _alike_ids(sources: Sources, winners: Winners) -> tuple[tuple[int, str, str], ...]:
    rows = np.array([row for pair in winners.pairs for row in pair], np.int64)
    names = list(sources.external_ids(rows))
    partners = sources.rows.partner_id[rows[::2]].tolist()
    return tuple(zip(partners, names[::2], names[1::2], strict=True))


def _write_features(
    sources: Sources, winners: Winners, output: Output, threads: int
) -> tuple[dict[int, list[WrittenFile]], Marks]:
    """Files by partner, and how many features are of damaged images or were computed before.

    Partners are written in parallel, neighbours by one job: they lie in the same row groups.
    """
    held = (sources.shards * SHARD_GROUP_ROWS + _MEMORY_OF_ROWS * FEATURES_AT_ONCE) * output.dim * 4
    if not output.dim:
        held = sources.shards * GROUP_CONTENT_BYTES + _MEMORY_OF_ROWS * IMAGE_BYTES
    threads = min(threads, max(1, _MEMORY // max(1, held)))
    rows_of_job = max(FEATURES_AT_ONCE, len(winners.features) // (threads * _JOBS_PER_THREAD))
    jobs: list[list[Indices]] = []
    room = 0
    for some in _by_partner(sources, winners.features):
        if room <= 0:
            jobs.append([])
            room = rows_of_job
        jobs[-1].append(some)
        room -= len(some)
    if threads == 1 or len(jobs) < 2:
        results = [_write_partners(sources, job, output) for job in jobs]
    else:
        with ThreadPoolExecutor(min(threads, len(jobs)), thread_name_prefix="merge") as pool:
            try:
                results = list(pool.map(lambda job: _write_partners(sources, job, output), jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    files = {partner_id: files for result, _ in results for partner_id, files in result.items()}
    return files, sum((marks for _, marks in results), Marks())


def _write_partners(sources: Sources, job: list[Indices], output: Output) -> tuple[dict[int, list[WrittenFile]], Marks]:
    marks: Marks = Counter()

    def counted() -> Iterator[tuple[FeatureRow, Vector]]:
        for row, vector in sources.features(np.concatenate(job)):
            if row.damage:
                marks[row.partner_id, DAMAGE] += 1
            if row.reused:
                marks[row.partner_id, row.reused] += 1
            yield row, vector

    rows, files = counted(), {}
    for some in job:
        partner_id = int(sources.rows.partner_id[some[0]])
        files[partner_id] = _write_partner(partner_id, islice(rows, len(some)), len(some), output)
    return files, marks


def _write_partner(
    partner_id: int, rows: Iterator[tuple[FeatureRow, Vector]], count: int, output: Output
) -> list[WrittenFile]:
    """One partner's features in each format, a row group of them at a time."""
    folder = output.folder / str(partner_id)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as abandoned:
        parquet = None
        texts = TextFiles(folder, output.formats)
        abandoned.callback(texts.abandon)
        if PARQUET in output.formats:
            parquet = FeaturesWriter(
                folder / FEATURES, output.dim, output.version, output.fingerprint, numbers=output.numbers
            )
            abandoned.callback(parquet.abandon)
        matrix = np.empty((min(count, rows_of_group(output.dim)), output.dim), np.float32)
        while chunk := _filled(matrix, rows):
            if texts:
                texts.write(partner_id, [row.item_id for row in chunk], matrix[: len(chunk)])
            if parquet:
                parquet.write(chunk, matrix[: len(chunk)])
        files = texts.close() + (parquet.close() if parquet else [])
    return [output.file(partner_id, path, written) for path, written in files]


def _filled(matrix: npt.NDArray[np.float32], rows: Iterator[tuple[FeatureRow, Vector]]) -> list[FeatureRow]:
    """The next rows, as many as the matrix has room for, with their vectors in it; of images some megabytes."""
    chunk: list[FeatureRow] = []
    size = 0
    for row, vector in islice(rows, len(matrix)):
        matrix[len(chunk)] = vector
        chunk.append(row)
        size += len(row.image or b"")
        if size >= IMAGE_BYTES:
            break
    return chunk


class _Failures:
    """Writes the failures of all partners, and the refs that are carried over."""

    def __init__(self, output: Output) -> None:
        self.files: dict[int, list[WrittenFile]] = {}
        self.reasons: Counter[str] = Counter()
        self.carried: Path | None = None
        self.carried_refs = 0
        self._output = output

    def write(self, sources: Sources, winners: Winners) -> None:
        rows = sources.failures(winners.failures, winners.collided)
        path = self._output.folder / "carried.pb"
        carried = HashedFile(path)
        try:
            for some in _by_partner(sources, winners.failures):
                partner_id = int(sources.rows.partner_id[some[0]])
                self._write_partner(partner_id, islice(rows, len(some)), carried)
        finally:
            carried.close()
        if self.carried_refs:
            self.carried = path
        else:
            path.unlink()

    def _write_partner(self, partner_id: int, rows: Iterator[FailureRow], carried: HashedFile) -> None:
        output = self._output
        writer = FailuresWriter(
            output.folder / str(partner_id) / FAILURES, output.version, output.fingerprint, output.redact_queries
        )
        with ExitStack() as abandoned:
            abandoned.callback(writer.abandon)
            delivered = (self._delivered(row, carried) for row in rows)
            while chunk := list(islice(delivered, FAILURES_AT_ONCE)):
                writer.write(chunk)
            files = [output.file(partner_id, path, written) for path, written in writer.close()]
        self.files[partner_id] = files

    def _delivered(self, row: FailureRow, carried: HashedFile) -> FailureRow:
        """The row as it is delivered, without its image; carried over if it is to be tried again."""
        self.reasons[row.reason] += 1
        if not row.retriable:
            return row
        if self._output.last_try:
            detail = f"{row.detail}; {GAVE_UP}" if row.detail else GAVE_UP
            return replace(row, retriable=False, detail=detail, content=None)
        ref = ImageRef(row.partner_id, row.item_id, row.external_id, row.url, row.content or b"", 0)
        carried.write(image_refs.encode([ref]))
        self.carried_refs += 1
        return replace(row, content=None)


def _by_partner(sources: Sources, some: Indices) -> Iterator[Indices]:
    """Sorted rows, cut where the partner changes."""
    partner_ids = sources.rows.partner_id[some]
    yield from (part for part in np.split(some, np.flatnonzero(np.diff(partner_ids)) + 1) if len(part))


def _partners(
    features: dict[int, list[WrittenFile]],
    failures: dict[int, list[WrittenFile]],
    winners: Winners,
    sources: Sources,
    marks: Marks,
) -> tuple[PartnerResult, ...]:
    features_of = Counter(sources.rows.partner_id[winners.features].tolist())
    failures_of = Counter(sources.rows.partner_id[winners.failures].tolist())
    return tuple(
        PartnerResult(
            partner_id,
            (*features.get(partner_id, ()), *failures.get(partner_id, ())),
            features_of[partner_id],
            failures_of[partner_id],
            not_modified=marks[partner_id, "not_modified"],
            equal_bytes=marks[partner_id, "equal_bytes"],
        )
        for partner_id in sorted({*features, *failures})
    )


def _check(merged: Merged, output: Output) -> None:
    """The law, and that each format holds what was counted."""
    found = merged.features + merged.failures + merged.duplicates
    if merged.refs != found:
        raise LawBroken(
            "a merge lost rows", f"{counted(merged.refs, 'ref')}, but features, failures and duplicates are {found:,}"
        )
    for partner in merged.partners:
        rows = rows_of_features(partner.files)
        lost = len(rows) < len({*output.formats}) and partner.features
        if lost or {*rows.values()} != {partner.features} or rows_of_failures(partner.files) != partner.failures:
            what = f"{rows} of {counted(partner.features, 'feature')}, {counted(partner.failures, 'failure')}"
            raise LawBroken("a merge lost rows", f"partner {partner.partner_id}: {what}")
