"""Files that something has packed, whole and damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable

import pytest

from pipeline.codec.refs.guess import guess
from pipeline.codec.refs.tables import Cursor, detect
from pipeline.errors import ConfigError, FormatError
from pipeline.settings import Columns, Text
from tests.unit.codec.ref_files import reader, take_all

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": lambda data: bz2.compress(data, 1),  # blocks of 100 KB
    "zst": zstd.compress,
    "xz": lzma.compress,
    "deflate": zlib.compress,
}
URLS = [f"http://a/{at * 7919 % 104729}" for at in range(20_000)]
LIST = "".join(f"{url}\n" for url in URLS).encode()


@pytest.mark.parametrize("name", PACK)
def test_packed_files_are_read_and_read_on_from_any_row(name: str) -> None:
    data = PACK[name](LIST)
    taken = take_all(data, f"refs.txt.{name}")
    assert [ref.url for ref in taken.refs] == URLS
    position = len("".join(f"{url}\n" for url in URLS[:15_000]))
    rest = reader(data, f"refs.txt.{name}", at=Cursor(position, 15_000)).take(10**6, 10**9)
    assert ([ref.url for ref in rest.refs], rest.cursor) == (URLS[15_000:], taken.cursor)


@pytest.mark.parametrize("name", ["gz", "bz2", "zst", "xz"])
def test_what_packs_a_file_is_seen_without_its_name_and_may_come_in_parts(name: str) -> None:
    data = PACK[name](b"url\nhttp://a/\n") + PACK[name](b"") + PACK[name](b"http://b/\n")
    assert [ref.url for ref in take_all(data, "refs.csv").refs] == ["http://a/", "http://b/"]


@pytest.mark.parametrize("name", PACK)
def test_what_is_cut_off_keeps_the_rows_before_the_cut(name: str) -> None:
    data = PACK[name](LIST)
    taken = take_all(data[: len(data) - (20 if name == "bz2" else 200)], f"refs.txt.{name}")
    got = [ref.url for ref in taken.refs]
    assert got == URLS[: len(got)]
    assert taken.rejected == 1
    assert "cut off" in taken.samples[0].why


@pytest.mark.parametrize("name", PACK)
def test_what_stands_behind_the_packed_data_is_one_rejected_entry(name: str) -> None:
    taken = take_all(PACK[name](b"http://a/\nhttp://b/\n") + b"and some more", f"refs.txt.{name}")
    assert [ref.url for ref in taken.refs] == ["http://a/", "http://b/"]
    assert taken.rejected == 1
    assert "damaged" in taken.samples[0].why


@pytest.mark.parametrize("name", ["gz", "bz2", "zst", "xz"])
def test_a_name_that_promises_a_packing_is_held_to_it(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        reader(b"url\nhttp://a/\n", f"refs.csv.{name}")
    assert "not what its name says" in caught.value.message


@pytest.mark.parametrize("name", ["a.csv.bz2", "A.CSV.ZST", "a.csv.zstd", "a.b.csv.xz", "a.csv.deflate"])
def test_the_name_tells_the_format_below_its_packing(name: str) -> None:
    assert detect(name) == "csv"
    assert detect("part-m-00000.avro") == "avro"


@pytest.mark.parametrize(
    ("name", "what"), [("a.csv.snappy", "Snappy"), ("a.csv.lz4", "LZ4"), ("a.csv.lzo", "LZO"), ("a.xlsx", "Excel"),
                       ("a.parquet.zst", "Parquet"), ("a.zip", "ZIP")]
)  # fmt: skip
def test_what_is_not_read_is_named(name: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        detect(name)
    assert what in caught.value.detail


@pytest.mark.parametrize(
    ("data", "what"), [(b"SEQ\x06\x19org", "sequence file"), (b"RCF\x01", "RCFile"), (b"PK\x03\x04abc", "ZIP"),
                       (b"\x04\x22\x4d\x18abc", "LZ4"), (b"Obj\x01abc", "Avro")]
)  # fmt: skip
def test_a_text_that_is_something_else_is_named(data: bytes, what: str) -> None:
    with pytest.raises(FormatError) as caught:
        reader(data, "refs.csv")
    assert what in caught.value.detail


@pytest.mark.parametrize("pack", [None, "gz", "bz2", "zst", "xz"])
@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"id,url\n1,http://a/\n", "csv"),
        (b"id;url\n1;http://a/\n", "csv"),
        (b"id\turl\n1\thttp://a/\n", "tsv"),
        (b'{"url": "http://a/"}\n', "jsonl"),
        (b"http://a/1.jpg\r\nhttps://b/2.jpg\r\n", "text"),
        (b"a page\nof words\n", None),
        (b"id,link\n1,http://a/\n", None),
        (b"", None),
        (b"\x08\x01\x10\x02", None),
    ],
)
def test_the_first_bytes_tell_a_format_or_none(data: bytes, format: str | None, pack: str | None) -> None:
    assert guess(PACK[pack](data) if pack else data, "part-00000", Columns(), Text()) == format


def test_tables_are_told_by_their_magic() -> None:
    for magic, format in ((b"PAR1", "parquet"), (b"ORC", "orc"), (b"Obj\x01", "avro")):
        assert guess(magic + bytes(100), "part-00000", Columns(), Text()) == format
    assert guess("id,url\n1,http://a/\n".encode("utf-16"), "part-00000", Columns(), Text()) == "csv"


def test_a_header_of_one_column_may_be_told_from_a_table() -> None:
    assert guess(b"url\na/1.jpg\n", "refs.txt", Columns(), Text()) == "csv"
    assert guess(b"url\na/1.jpg\n", "refs.txt", Columns(), Text(), least=2) is None
