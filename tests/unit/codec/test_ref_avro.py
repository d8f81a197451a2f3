from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest

from pipeline.codec.refs.rows import Taken
from pipeline.codec.refs.tables import Cursor
from pipeline.errors import FormatError
from pipeline.records import MAX_ITEM_ID
from tests.unit.codec.ref_files import reader, take_all

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Ref",
    "fields": [
        {"name": "item_id", "type": ["null", "long"]},
        {"name": "sku", "type": ["null", "string"]},
        {"name": "url", "type": ["null", "string"]},
        {"name": "nested", "type": {"type": "array", "items": {"type": "record", "name": "N", "fields": []}}},
        {"name": "content", "type": ["null", "bytes"]},
    ],
}


def row(number: int, **cells: Any) -> dict[str, Any]:
    return {"item_id": number, "sku": None, "url": f"http://a/{number}", "nested": [{}], "content": None, **cells}


def avro(rows: list[dict[str, Any]], codec: str = "null", schema: Any = SCHEMA, block: int = 200) -> bytes:
    """A file of many blocks; packed by us where fastavro lacks a library for it."""
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, codec=codec, sync_interval=block, sync_marker=b"0123456789abcdef")
    return file.getvalue()


def items(taken: Taken) -> list[int]:
    return [ref.item_id for ref in taken.refs]


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_avro_is_read_whatever_packs_its_blocks(codec: str) -> None:
    rows = [row(at) for at in range(500)]
    taken = take_all(avro(rows, codec), "refs.avro")
    assert items(taken) == list(range(500))
    assert [ref.url for ref in taken.refs] == [one["url"] for one in rows]
    assert (taken.rejected, taken.cursor) == (0, Cursor(500, 500))


@pytest.mark.parametrize("codec", ["snappy", "zstandard"])
def test_the_codecs_of_spark_are_read(codec: str) -> None:
    import zlib

    import pyarrow as pa

    def pack(data: bytes) -> bytes:
        if codec == "snappy":
            packed: bytes = pa.Codec("snappy").compress(data, asbytes=True)
            return packed + zlib.crc32(data).to_bytes(4, "big")
        return bytes(pa.Codec("zstd").compress(data, asbytes=True))

    taken = take_all(repacked(avro([row(at) for at in range(100)]), codec, pack), "refs.avro")
    assert items(taken) == list(range(100))


def repacked(data: bytes, codec: str, pack: Any) -> bytes:
    """The blocks of a file that is not packed, packed."""
    sync = b"0123456789abcdef"
    head, *blocks = data.split(sync)
    assert blocks.pop() == b""
    out = head.replace(b"\x14avro.codec\x08null", b"\x14avro.codec" + bytes([2 * len(codec)]) + codec.encode()) + sync
    for block in blocks:
        at = 1 if block[0] < 128 else 2
        count, rest = block[:at], block[at:]
        at = 1 if rest[0] < 128 else 2
        packed = pack(rest[at:])
        number, size = 2 * len(packed), b""
        while number > 127:
            size += bytes([number & 127 | 128])
            number >>= 7
        out += count + size + bytes([number]) + packed + sync
    return out


def test_ids_nulls_content_and_bytes_that_are_no_text() -> None:
    rows = [
        row(-1),
        row(2, item_id=None, sku="SKU-1"),
        row(3, item_id=None),
        row(4, url=None, content=b"\xff\xd8"),
        row(5, url=None),
        row(6, content=b"<html>"),
    ]
    taken = take_all(avro(rows), "refs.avro")
    assert [(ref.item_id, ref.external_id, ref.url, ref.content) for ref in taken.refs] == [
        (MAX_ITEM_ID, "", "http://a/-1", b""),
        (15341120044065015867, "SKU-1", "http://a/2", b""),
        (4, "", "", b"\xff\xd8"),
        (6, "", "http://a/6", b""),
    ]
    assert [one.why for one in taken.samples] == ["the id is empty", "no url and no content"]
    broken = avro([row(1), row(2)]).replace(b"http://a/2", b"http://a/\xff")
    assert [one.why for one in take_all(broken, "refs.avro").samples] == ["the url is not UTF-8"]


@pytest.mark.parametrize(
    "kind", [["null", "long", "string"], "string", "int", {"type": "enum", "name": "E", "symbols": ["a"]}]
)
def test_ids_may_be_text_or_numbers(kind: Any) -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "id", "type": kind}, {"name": "url", "type": "string"}],
    }
    value: Any = 7 if kind == "int" else "a"
    (ref,) = take_all(avro([{"id": value, "url": "http://a/"}], schema=schema), "refs.avro").refs
    assert ref.external_id == str(value)


@pytest.mark.parametrize("kind", [{"type": "array", "items": "string"}, "boolean", "double", ["string", "bytes"],
                                  {"type": "long", "logicalType": "timestamp-millis"}])  # fmt: skip
def test_a_field_of_the_wrong_type_is_refused_by_name(kind: Any) -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "id", "type": kind}, {"name": "url", "type": "string"}],
    }
    with pytest.raises(FormatError) as caught:
        reader(avro([], schema=schema), "refs.avro")
    assert "its column id has type" in caught.value.detail


def test_a_reader_goes_on_from_any_row() -> None:
    data = avro([row(at, url=None if at % 7 == 0 else "http://a/") for at in range(100)], "deflate")
    whole = take_all(data, "refs.avro")
    for at in (0, 1, 13, 50, 99, 100):
        rest = reader(data, "refs.avro", at=Cursor(at, at)).take(1000, 10**9)
        assert items(rest) == [number for number in items(whole) if number >= at]
        assert (rest.rows, rest.cursor) == (100 - at, whole.cursor)


def test_a_damaged_record_costs_the_rest_of_its_block_and_a_damaged_frame_one_row() -> None:
    data = avro([row(at) for at in range(200)])
    blocks = data.split(b"0123456789abcdef")
    inside, frame = list(blocks), list(blocks)
    inside[3] = inside[3][:40] + b"\xff" * (len(inside[3]) - 40)
    frame[3] = b"\xff" * 12 + frame[3][12:]
    for broken, about in ((inside, "in their block"), (frame, "cannot be read and counts as one")):
        damaged = b"0123456789abcdef".join(broken)
        taken = take_all(damaged, "refs.avro")
        assert items(taken)[-1] == 199
        assert 180 <= len(taken.refs) < 200
        assert any(about in one.why for one in taken.samples)
        resumed = reader(damaged, "refs.avro", at=Cursor(5, 5)).take(1000, 10**9)
        assert items(resumed) == items(taken)[5:]


def test_a_file_that_was_cut_off_keeps_the_rows_before_the_cut() -> None:
    data = avro([row(at) for at in range(100)])
    taken = take_all(data[:-30], "refs.avro")
    assert items(taken) == list(range(len(taken.refs)))
    assert (len(taken.refs) > 80, taken.rejected) == (True, 1)
    assert "counts as one" in taken.samples[0].why


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"Obj\x01", b"Obj\x01\x02" + b"\xff" * 50, avro([]).replace(b'"record"', b'"recorx"'),
     avro([]).replace(b"avro.codec\x08null", b"avro.codec\x08nulx")],
)  # fmt: skip
def test_what_is_no_avro_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        reader(data, "refs.avro")
    assert "cannot be read as Avro" in caught.value.message


def test_a_block_that_unpacks_to_more_than_it_may_costs_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = avro([row(at) for at in range(3)] + [row(3, sku="x" * 300 * 2**20)] + [row(4)], "deflate", block=1)
    taken = take_all(data, "refs.avro")
    assert items(taken) == [0, 1, 2, 4]
    assert taken.rejected == 1
