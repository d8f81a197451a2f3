"""A reader that is closed and opened again at its cursor goes on as if it had never been closed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.refs import byte_stream, protobuf, sandbox
from pipeline.codec.refs import lines as ref_lines
from pipeline.codec.refs import packed as ref_packed
from pipeline.codec.refs.tables import Cursor, Rejected
from pipeline.errors import FormatError
from pipeline.records import ImageRef
from tests.unit.codec.ref_files import EVERYTHING, Row, framed, reader, record, take_all, written

Split = tuple[int, int, bool]
"""Refs and bytes of a take, and whether the reader is opened anew behind it."""

splits = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200), st.booleans()), min_size=1, max_size=8)

rows = st.lists(
    st.fixed_dictionaries(
        {
            "partner_id": st.sampled_from([0, 5, -5]),
            "external_id": st.sampled_from(["a", "Ä", 'q"', "n\nn", "", "x" * 40]),
            "url": st.sampled_from(["http://a/", "http://b/ü,\n", "", "u" * 70]),
        }
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def small_pieces() -> Iterator[None]:
    """Files of a few hundred bytes are read in many pieces, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (byte_stream, ref_lines, protobuf):
            patch.setattr(module, "PIECE", 64)
        patch.setattr(ref_packed, "PIECE", 32)
        patch.setattr(sandbox, "BATCH_ROWS", 3)
        patch.setattr(protobuf, "_ROWS", 4)
        yield


def by_splits(data: bytes, name: str, how: list[Split]) -> tuple[list[ImageRef], list[Rejected], int, Cursor]:
    open_reader = reader(data, name)
    refs: list[ImageRef] = []
    samples: list[Rejected] = []
    rejected = takes = 0
    while True:
        max_refs, max_bytes, again = how[takes % len(how)]
        takes += 1
        taken = open_reader.take(max_refs, max_bytes)
        assert [ref.ordinal for ref in taken.refs] == list(range(len(taken.refs)))
        assert taken.rows == len(taken.refs) + taken.rejected
        assert len(taken.refs) <= max_refs
        size = sum(len(ref.url.encode()) + len(ref.external_id.encode()) + len(ref.content) for ref in taken.refs)
        assert size <= max_bytes or len(taken.refs) == 1
        assert taken.refs or taken.ended
        refs += taken.refs
        samples += taken.samples
        rejected += taken.rejected
        if taken.ended:
            open_reader.close()
            return [ref._replace(ordinal=0) for ref in refs], samples, rejected, taken.cursor
        if again:
            open_reader.close()
            open_reader = reader(data, name, at=taken.cursor)


def check(data: bytes, name: str, how: list[Split]) -> None:
    try:
        whole = take_all(data, name)
    except FormatError:  # nothing of it can be read
        with pytest.raises(FormatError):
            reader(data, name)
        return
    refs, samples, rejected, cursor = by_splits(data, name, how)
    assert refs == [ref._replace(ordinal=0) for ref in whole.refs]
    assert (rejected, cursor) == (whole.rejected, whole.cursor)
    if whole.rejected <= 10:
        assert samples == list(whole.samples)


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.jsonl", "refs.parquet", "refs.orc", "refs.csv.gz"])
@given(content=rows, how=splits)
@settings(max_examples=50, deadline=None)
def test_tables_are_read_the_same_for_any_split(name: str, content: list[Row], how: list[Split]) -> None:
    check(written(content, name, ["partner_id", "external_id", "url"]), name, how)


@given(
    lines=st.lists(
        st.sampled_from(
            [b"", b"\r", b"1,http://a/", b'2,"http://b/"', b'3,"http', b'/"', b'"', b'""', b',""', b"x,y,z", b"\xff,u"]
        ),
        max_size=25,
    ),
    how=splits,
)
@settings(max_examples=500, deadline=None)
def test_broken_csv_is_read_the_same_for_any_split(lines: list[bytes], how: list[Split]) -> None:
    check(b"\n".join([b"item_id,url", *lines]), "refs.csv", how)


@given(
    lines=st.lists(st.sampled_from([b"", b"  ", b"http://a/", b"\xff", b"# x", b"u" * 100, b"\xc3\xbc"]), max_size=25),
    how=splits,
    cut=st.integers(0, 30),
    packed=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_url_lists_are_read_the_same_for_any_split_up_to_their_damage(
    lines: list[bytes], how: list[Split], cut: int, packed: bool
) -> None:
    data = b"\n".join(lines)
    if packed:
        data = gzip.compress(data)
        data = data[: max(3, len(data) - cut)]
    check(data, "refs.txt.gz" if packed and data else "refs.txt", how)


@given(
    parts=st.lists(
        st.sampled_from(
            [
                record(partner_id=1, item_id=2, url="http://a/"),
                record(external_id="ä", content=b"x" * 130),
                record(url="u" * 100),
                record(partner_id=2**63, item_id=1, url="http://a/"),
                record(),
                framed(b"\xff\xff\xff"),
                framed(b"\x22\x01\xff"),
            ]
        ),
        max_size=25,
    ),
    tail=st.sampled_from([b"", b"\x80", b"\x05abc", b"\xff" * 12, b"\xff\xff\xff\xff\x0f and much more" * 20]),
    how=splits,
)
@settings(max_examples=200, deadline=None)
def test_delimited_records_are_read_the_same_for_any_split(parts: list[bytes], tail: bytes, how: list[Split]) -> None:
    check(b"".join(parts) + tail, "refs.pb", how)


@given(parts=st.binary(max_size=300), how=splits, name=st.sampled_from(["a.pb", "a.csv", "a.jsonl", "a.txt"]))
@settings(max_examples=200, deadline=None)
def test_garbage_is_read_the_same_for_any_split(parts: bytes, how: list[Split], name: str) -> None:
    start = {"a.csv": b"item_id,url\n", "a.jsonl": b'{"url": "http://a/"}\n'}.get(name, b"x")
    check(start + parts.replace(b"\0", b"\n") if name != "a.pb" else parts, name, how)


def test_a_take_up_to_the_last_ref_says_that_nothing_follows() -> None:
    data = written([{"url": "http://a/"}] * 5, "refs.csv", ["url"])
    taken = reader(data, "refs.csv", at=Cursor(len(data) - 22, 3)).take(EVERYTHING, EVERYTHING)
    assert (len(taken.refs), taken.cursor, taken.ended) == (2, Cursor(len(data), 5), True)
