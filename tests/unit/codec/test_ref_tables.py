from __future__ import annotations

import gzip

import pytest

from pipeline.codec.refs.tables import Cursor, detect
from pipeline.errors import ConfigError, FormatError
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID, ImageRef, item_id_of, item_id_of_url
from tests.unit.codec.ref_files import Row, reader, take_all, written

TABLES = ["refs.csv", "refs.tsv", "refs.jsonl", "refs.parquet", "refs.orc", "refs.csv.gz", "refs.jsonl.gz"]
ALL = [*TABLES, "refs.pb", "refs.pb.gz"]


def whys(data: bytes, name: str, **more: object) -> list[str]:
    return [rejected.why for rejected in take_all(data, name, **more).samples]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("urls.csv", "csv"),
        ("URLS.CSV", "csv"),
        ("a/b.c/urls.tsv.gz", "tsv"),
        ("urls.jsonl", "jsonl"),
        ("part-0.snappy.parquet", "parquet"),
        ("x.orc", "orc"),
        ("x.txt", "text"),
        ("x.pb", "protobuf"),
        ("x.pb.gz", "protobuf"),
    ],
)
def test_the_name_tells_the_format(name: str, expected: str) -> None:
    assert detect(name) == expected


@pytest.mark.parametrize("name", ["urls", "urls.xlsx", "urls.parquet.gz", ".gz", "csv", ""])
def test_a_name_that_tells_no_format_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        detect(name)
    assert ".parquet" in caught.value.detail


@pytest.mark.parametrize("name", ALL)
def test_each_format_gives_the_same_refs(name: str) -> None:
    rows: list[Row] = [
        {"partner_id": 7, "external_id": "SKU-1", "url": "http://a/1.jpg"},
        {"partner_id": MAX_PARTNER_ID, "external_id": "Größe 42", "url": 'http://b/ü?x=1,2&y="3"'},
        {"partner_id": 7, "external_id": "a+b", "url": "http://a/2.jpg"},
    ]
    taken = take_all(written(rows, name, ["partner_id", "external_id", "url"]), name)
    assert taken.refs == [
        ImageRef(7, 15341120044065015867, "SKU-1", "http://a/1.jpg", b"", 0),
        ImageRef(MAX_PARTNER_ID, 15151182146836470961, "Größe 42", 'http://b/ü?x=1,2&y="3"', b"", 1),
        ImageRef(7, 17012988459546284613, "a+b", "http://a/2.jpg", b"", 2),
    ]
    assert taken.rejected == 0


@pytest.mark.parametrize("name", ["refs.csv", "refs.jsonl", "refs.pb"])
def test_ids_may_use_all_64_bits(name: str) -> None:
    rows: list[Row] = [{"item_id": item_id, "url": "http://a/"} for item_id in (0, 1, 2**63, MAX_ITEM_ID)]
    taken = take_all(written(rows, name, ["item_id", "url"]), name)
    assert [ref.item_id for ref in taken.refs] == [0, 1, 2**63, MAX_ITEM_ID]
    assert {ref.external_id for ref in taken.refs} == {""}


@pytest.mark.parametrize("name", ["refs.parquet", "refs.orc"])
def test_signed_ids_of_columns_carry_the_same_bits(name: str) -> None:
    rows: list[Row] = [{"item_id": item_id, "url": "http://a/"} for item_id in (0, -1, -(2**63), 5)]
    taken = take_all(written(rows, name, ["item_id", "url"]), name)
    assert [ref.item_id for ref in taken.refs] == [0, MAX_ITEM_ID, 2**63, 5]


@pytest.mark.parametrize("name", ALL)
def test_an_item_id_wins_over_an_external_id_which_is_kept(name: str) -> None:
    rows: list[Row] = [{"item_id": 5, "external_id": "SKU-1", "url": "http://a/"}]
    (ref,) = take_all(written(rows, name, ["item_id", "external_id", "url"]), name).refs
    assert (ref.item_id, ref.external_id) == (5, "SKU-1")


@pytest.mark.parametrize("name", TABLES)
def test_a_row_without_an_item_id_falls_back_to_its_external_id(name: str) -> None:
    rows: list[Row] = [{"item_id": 5, "url": "http://a/"}, {"external_id": "SKU-1", "url": "http://b/"}]
    taken = take_all(written(rows, name, ["item_id", "external_id", "url"]), name)
    assert [ref.item_id for ref in taken.refs] == [5, item_id_of("SKU-1")]


@pytest.mark.parametrize("name", [*ALL, "refs.txt", "refs.txt.gz"])
def test_a_list_without_ids_takes_the_url_as_external_id_and_hashes_its_bytes_as_they_are(name: str) -> None:
    rows: list[Row] = [{"url": "http://A/%41.jpg"}, {"url": "http://a/a.jpg"}]
    taken = take_all(written(rows, name, ["url"]), name)
    assert [ref[:4] for ref in taken.refs] == [
        (0, item_id_of_url(url), url, url) for url in ("http://A/%41.jpg", "http://a/a.jpg")
    ]
    assert take_all(written(rows, name, ["url"]), name, 12).refs[0].partner_id == 12


@pytest.mark.parametrize("name", ALL)
def test_the_sources_partner_is_that_of_refs_that_name_none(name: str) -> None:
    rows: list[Row] = [{"partner_id": 3, "item_id": 1, "url": "http://a/"}, {"item_id": 2, "url": "http://a/"}]
    data = written(rows, name, ["partner_id", "item_id", "url"])
    assert [ref.partner_id for ref in take_all(data, name, 9).refs] == [3, 9]


@pytest.mark.parametrize("name", TABLES)
def test_a_row_without_a_partner_is_rejected_where_the_source_has_none(name: str) -> None:
    rows: list[Row] = [{"partner_id": 3, "item_id": 1, "url": "http://a/"}, {"item_id": 2, "url": "http://a/"}]
    data = written(rows, name, ["partner_id", "item_id", "url"])
    assert whys(data, name) == ["the partner id is empty"]


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.jsonl"])
@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("x", "the item id is not an integer"),
        ("1.0", "the item id is not an integer"),
        ("1_000", "the item id is not an integer"),
        ("+1", "the item id is not an integer"),
        ("٣", "the item id is not an integer"),
        ("-1", "the item id is negative"),
        (str(2**64), f"the item id is greater than {MAX_ITEM_ID}"),
        ("9" * 5000, f"the item id is greater than {MAX_ITEM_ID}"),
        ("", "the id is empty"),
        ("  ", "the id is empty"),
    ],
)
def test_a_bad_item_id_is_rejected_and_the_rest_goes_on(name: str, cell: str, why: str) -> None:
    rows: list[Row] = [
        {"item_id": "1", "url": "http://a/"},
        {"item_id": cell, "url": "http://b/?secret"},
        {"item_id": "2", "url": "http://c/"},
    ]
    data = written(rows, name, ["item_id", "url"])
    taken = take_all(data, name)
    assert [(ref.item_id, ref.url, ref.ordinal) for ref in taken.refs] == [(1, "http://a/", 0), (2, "http://c/", 1)]
    (rejected,) = taken.samples
    assert (rejected.row, rejected.why) == (1, why)
    assert rejected.offset is not None
    assert b"http://b/" in data[rejected.offset :].splitlines()[0]
    assert "secret" not in rejected.sample
    assert taken.cursor == Cursor(len(data), 3)


@pytest.mark.parametrize("name", ["refs.csv", "refs.jsonl"])
@pytest.mark.parametrize("cell", ["x", "-1", str(2**63), "1.5"])
def test_a_bad_partner_id_is_rejected(name: str, cell: str) -> None:
    rows: list[Row] = [{"partner_id": cell, "item_id": "1", "url": "http://a/"}]
    (why,) = whys(written(rows, name, ["partner_id", "item_id", "url"]), name)
    assert why.startswith("the partner id is")


@pytest.mark.parametrize("cell", ["1.5", "1e3", "true", "[1]", "{}", "NaN", "-1", str(2**64), "9" * 5000])
def test_a_json_value_that_is_no_id_is_rejected(cell: str) -> None:
    data = f'{{"item_id": 1, "url": "http://a/"}}\n{{"item_id": {cell}, "url": "http://b/"}}\n'.encode()
    taken = take_all(data, "refs.jsonl")
    assert ([ref.item_id for ref in taken.refs], taken.rejected) == ([1], 1)


@pytest.mark.parametrize("name", ALL)
def test_a_row_with_neither_url_nor_content_is_rejected(name: str) -> None:
    rows: list[Row] = [{"item_id": 1, "url": "http://a/"}, {"item_id": 2}, {"item_id": 3, "content": b"\xff\xd8"}]
    taken = take_all(written(rows, name, ["item_id", "url", "content"]), name)
    assert [(ref.item_id, ref.url, ref.content) for ref in taken.refs] == [
        (1, "http://a/", b""),
        (3, "", b"\xff\xd8"),
    ]
    assert [rejected.why for rejected in taken.samples] == ["no url and no content"]


@pytest.mark.parametrize("name", ["refs.csv", "refs.jsonl"])
def test_content_in_a_text_format_is_base64_or_the_row_is_rejected(name: str) -> None:
    rows: list[Row] = [{"item_id": 1, "content": "not base64!"}, {"item_id": 2, "content": b"abc"}]
    taken = take_all(written(rows, name, ["item_id", "content"]), name)
    assert [ref.content for ref in taken.refs] == [b"abc"]
    assert taken.samples[0].why == "the content is not base64"


@pytest.mark.parametrize("name", [*ALL, "refs.txt"])
def test_a_url_of_10000_characters_is_left_to_the_fetcher_and_one_of_65537_is_rejected(name: str) -> None:
    urls = ["http://a/" + "x" * 10_000, "x" * 65_537, "http://b/", "y" * 65_536]
    taken = take_all(written([{"url": url} for url in urls], name, ["url"]), name)
    assert [ref.url for ref in taken.refs] == [urls[0], urls[2], urls[3]]
    assert len(taken.samples[0].sample) <= 200


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.txt", "refs.csv.gz"])
def test_bytes_that_are_no_utf8_cost_their_row_only(name: str) -> None:
    data = b"" if "txt" in name else b"url\n"
    data += b"http://a/\xc3\xbc\nhttp://a/\xff\xfe\nhttp://a/\xed\xa0\x80\nhttp://b/\n"
    taken = take_all(gzip.compress(data) if name.endswith("gz") else data, name)
    assert [ref.url for ref in taken.refs] == ["http://a/ü", "http://b/"]
    assert {rejected.why for rejected in taken.samples} == {"the url is not UTF-8"}
    assert taken.samples[0].sample.endswith("\\xff\\xfe")


def test_a_lone_surrogate_in_json_costs_its_row_only() -> None:
    data = b'{"url": "http://a/\\ud800"}\n{"url": "http://a/\\ud83d\\ude00"}\n{"url": "\xff"}\n'
    taken = take_all(data, "refs.jsonl")
    assert [ref.url for ref in taken.refs] == ["http://a/\U0001f600"]
    assert [rejected.why for rejected in taken.samples] == ["the url is not UTF-8", "the url is not UTF-8"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "no JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"url": 5.5}', "the url is not text"),
        (b'{"url": ["http://a/"]}', "the url is not text"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_line_that_is_no_json_object_with_a_url_costs_itself_only(line: bytes, why: str) -> None:
    taken = take_all(b'{"url": "http://a/"}\n' + line + b'\n\n{"url": "http://b/"}', "refs.jsonl")
    assert [ref.url for ref in taken.refs] == ["http://a/", "http://b/"]
    assert [rejected.why for rejected in taken.samples] == [why]
    assert taken.rows == 3


def test_json_ids_may_be_numbers_or_text_and_keys_may_come_late() -> None:
    data = b'{"url": "http://a/", "sku": 12}\n{"sku": "12", "url": "http://b/"}\n{"url": "http://c/"}\n'
    taken = take_all(data, "refs.jsonl")
    assert [(ref.external_id, ref.item_id) for ref in taken.refs] == [("12", item_id_of("12"))] * 2
    assert [rejected.why for rejected in taken.samples] == ["the id is empty"]


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.jsonl", "refs.txt", "refs.pb", "refs.csv.gz"])
def test_an_empty_file_has_no_rows(name: str) -> None:
    taken = take_all(b"", name)
    assert (taken.refs, taken.rows, taken.cursor) == ([], 0, Cursor(0, 0))


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.jsonl", "refs.txt"])
def test_a_file_of_blank_lines_has_no_rows(name: str) -> None:
    taken = take_all(b"\n\r\n\n", name)
    assert (taken.refs, taken.rows, taken.ended) == ([], 0, True)


@pytest.mark.parametrize("name", ["refs.parquet", "refs.orc"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"ORC" * 10, b"hello" * 100, bytes(1000)])
def test_a_file_that_is_no_table_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        reader(data, name)
    assert name in caught.value.message
    assert caught.value.hint


def test_a_parquet_file_that_was_cut_off_is_refused() -> None:
    data = written([{"url": "http://a/"}], "refs.parquet", ["url"])
    with pytest.raises(FormatError):
        reader(data[:-1], "refs.parquet")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_url_column_is_refused_with_the_columns_that_it_has(name: str) -> None:
    rows: list[Row] = [{"link": "http://a/", "item_id": 1}]
    with pytest.raises(FormatError) as caught:
        reader(written(rows, name, ["item_id", "link"]), name)
    assert "item_id, link" in caught.value.detail
    assert "columns.url" in caught.value.hint
    assert "--url-column NAME" in caught.value.hint
    assert len(take_all(written(rows, name, ["item_id", "link"]), name, url=["link"]).refs) == 1


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_found_in_any_letter_case_and_in_the_order_of_the_settings(name: str) -> None:
    rows: list[Row] = [{"Image_URL": "http://b/", "URL": "http://a/", "Item_Id": 4}]
    (ref,) = take_all(written(rows, name, ["Image_URL", "Item_Id", "URL"]), name).refs
    assert (ref.url, ref.item_id) == ("http://a/", 4)


@pytest.mark.parametrize("name", ["refs.txt", "refs.csv", "refs.jsonl"])
@pytest.mark.parametrize("data", [b"url\0\nhttp://a/\n", b"PAR1\x15\x04\x00\x00", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_file_that_is_no_text_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        reader(data, name)


def test_a_json_array_is_refused_with_what_to_do() -> None:
    with pytest.raises(FormatError) as caught:
        reader(b'[\n{"url":\n"http://a/"}]\n', "refs.json")
    assert "each line" in caught.value.hint


@pytest.mark.parametrize("name", ["refs.csv", "refs.jsonl", "refs.txt"])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(name: str) -> None:
    taken = take_all(b"\xef\xbb\xbf" + written([{"url": "http://a/"}], name, ["url"]), name)
    assert [ref.url for ref in taken.refs] == ["http://a/"]


def test_blank_lines_of_a_url_list_are_no_rows_and_anything_else_is_one() -> None:
    taken = take_all(b"\n  http://a/ \r\n\r\n# comment\n\t\nhttp://b/", "refs.txt")
    assert [ref.url for ref in taken.refs] == ["http://a/", "# comment", "http://b/"]
    assert (taken.rows, taken.rejected) == (3, 0)


@pytest.mark.parametrize("cut", [1, 8, 9, 1000])
def test_a_gzip_file_that_was_cut_off_keeps_the_refs_before_the_cut(cut: int) -> None:
    urls = [f"http://a/{at * 7919 % 104729}" for at in range(5000)]
    data = gzip.compress("\n".join(urls).encode())
    taken = take_all(data[:-cut], "refs.txt.gz")
    got = [ref.url for ref in taken.refs]
    assert got == urls[: len(got)]
    assert len(got) > 3000
    (rejected,) = taken.samples
    assert "cut off" in rejected.why
    assert rejected.offset is not None
    assert f"byte {rejected.offset} " in rejected.why


def test_damaged_gzip_counts_as_one_rejected_entry() -> None:
    urls = [f"http://a/{at * 7919 % 104729}" for at in range(50_000)]
    data = bytearray(gzip.compress("\n".join(urls).encode()))
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    taken = take_all(bytes(data), "refs.txt.gz")
    assert len(taken.refs) > 10_000
    assert "damaged" in taken.samples[-1].why


def test_a_name_that_promises_gzip_is_held_to_it() -> None:
    with pytest.raises(FormatError):
        reader(b"url\nhttp://a/\n", "refs.csv.gz")


def test_gzip_is_seen_without_its_name_and_with_several_members() -> None:
    data = gzip.compress(b"url\nhttp://a/\n") + gzip.compress(b"http://b/\n") + bytes(512)
    assert [ref.url for ref in take_all(data, "refs.csv").refs] == ["http://a/", "http://b/"]


def test_ten_rejected_rows_are_shown_and_all_are_counted() -> None:
    data = b"item_id,url\n" + b"x,http://a/\n" * 25 + b"1,http://a/\n"
    taken = take_all(data, "refs.csv")
    assert (len(taken.refs), taken.rows, taken.rejected, len(taken.samples)) == (1, 26, 25, 10)
    assert [rejected.row for rejected in taken.samples] == list(range(10))


def test_what_a_terminal_would_obey_is_escaped_in_samples() -> None:
    (rejected,) = take_all("item_id,url\n\x1b[2J\u202ex,http://a/\n".encode(), "refs.csv").samples
    assert rejected.sample == "item_id=\\x1b[2J\\u202ex url=http://a/"


@pytest.mark.parametrize("name", ALL)
def test_a_take_ends_before_the_bytes_pass_the_limit_but_has_one_ref_at_least(name: str) -> None:
    rows: list[Row] = [{"external_id": "ää", "url": "http://a/" + "x" * 87} for _ in range(5)]  # 100 bytes each
    open_reader = reader(written(rows, name, ["external_id", "url"]), name)
    assert [len(open_reader.take(10, limit).refs) for limit in (250, 199, 5)] == [2, 1, 1]
    last = open_reader.take(10, 100)
    assert (len(last.refs), last.ended) == (1, True)


@pytest.mark.parametrize("name", ALL)
def test_a_file_has_ended_with_the_take_of_its_last_ref(name: str) -> None:
    rows: list[Row] = [{"item_id": at, "url": "http://a/"} for at in range(4)] + [{"item_id": 9}] * 3
    open_reader = reader(written(rows, name, ["item_id", "url"]), name)
    first = open_reader.take(2, 10**6)
    assert (len(first.refs), first.rejected, first.ended) == (2, 0, False)
    second = open_reader.take(2, 10**6)
    assert (len(second.refs), second.rejected, second.ended) == (2, 3, True)
    assert [ref.ordinal for ref in second.refs] == [0, 1]
    open_reader.close()
