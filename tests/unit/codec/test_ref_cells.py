"""Which cells say that there is no value, which hold images, and whose keys count."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.codec.refs.rows import Taken
from pipeline.codec.refs.tables import Cursor, How
from pipeline.codec.refs.text import TWICE
from pipeline.errors import FormatError
from pipeline.records import item_id_as_written, item_id_of, item_id_of_url, item_ids_of
from tests.unit.codec.ref_files import Row, reader, take_all, written

TABLES = ["refs.csv", "refs.tsv", "refs.jsonl", "refs.parquet", "refs.orc", "refs.csv.gz"]
WORDS = ["\\N", "NULL", "null", "Null", "(null)", "None", "none", "NaN", "nan", "NAN", "<NA>", "NaT", "N/A", "#N/A",
         " NULL ", "", "  "]  # fmt: skip


def whys(taken: Taken) -> list[str]:
    return [one.why for one in taken.samples]


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("column", ["external_id", "item_id"])
def test_a_word_for_no_value_is_no_id(name: str, column: str) -> None:
    rows: list[Row] = [{column: word, "url": f"http://a/{at}"} for at, word in enumerate(WORDS)]
    rows += [{column: "12", "url": "http://a/"}]
    taken = take_all(written(rows, name, [column, "url"]), name)
    assert [ref.url for ref in taken.refs] == ["http://a/"]
    assert taken.rejected == len(WORDS)
    assert set(whys(taken)) == {"the id is empty"}


@pytest.mark.parametrize("name", TABLES)
def test_a_word_for_no_value_is_no_url_and_no_partner(name: str) -> None:
    rows: list[Row] = [
        {"partner_id": "NULL", "external_id": "a", "url": "http://a/"},
        {"partner_id": "7", "external_id": "b", "url": "null"},
    ]
    data = written(rows, name, ["partner_id", "external_id", "url"])
    taken = take_all(data, name)
    assert whys(taken) == ["the partner id is empty", "no url and no content"]
    assert [ref.partner_id for ref in take_all(data, name, 5).refs] == [5]


def test_the_words_for_no_value_are_the_sources_own() -> None:
    data = b"external_id,url\nNULL,http://a/\n-,http://b/\nnone at all,http://c/\n"
    assert [ref.external_id for ref in take_all(data, "refs.csv").refs] == ["-", "none at all"]
    for words, ids in (((), ["NULL", "-", "none at all"]), (("-", "null"), ["none at all"])):
        taken = take_all(data, "refs.csv", how=How(null_words=words))
        assert [ref.external_id for ref in taken.refs] == ids


def test_an_id_that_only_holds_such_a_word_is_one() -> None:
    data = b"external_id,url\nNULL-1,http://a/\nnano,http://a/\nNA,http://a/\n0,http://a/\n"
    assert len(take_all(data, "refs.csv").refs) == 4


@pytest.mark.parametrize("name", [*TABLES, "refs.pb"])
def test_ids_as_they_are_written_are_hashed_byte_by_byte(name: str) -> None:
    names = ["dQw4w9", "DQW4W9", "a b", "a%20b"]
    data = written([{"external_id": one, "url": "http://a/"} for one in names], name, ["external_id", "url"])
    usual = [ref.item_id for ref in take_all(data, name).refs]
    assert usual == list(map(item_id_of, names))
    assert len(set(usual)) == 2
    apart = take_all(data, name, how=How(as_written=True)).refs
    assert [ref.item_id for ref in apart] == list(map(item_id_as_written, names))
    assert len({ref.item_id for ref in apart}) == 4
    assert [ref.external_id for ref in apart] == names


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.jsonl"])
def test_text_in_a_column_named_content_is_no_image_beside_a_url(name: str) -> None:
    rows: list[Row] = [
        {"id": "1", "url": "http://a/", "content": "A fine shoe."},
        {"id": "2", "url": "http://b/", "content": "shoe"},
        {"id": "3", "url": "", "content": "A fine shoe."},
    ]
    data = written(rows, name, ["id", "url", "content"])
    taken = take_all(data, name)
    assert [(ref.url, ref.content) for ref in taken.refs] == [("http://a/", b""), ("http://b/", b"")]
    assert whys(taken) == ["the content is not base64"]
    assert whys(take_all(data, name, content=[])) == ["no url and no content"]
    named = take_all(data, name, content=["content"])
    assert [(ref.url, ref.content) for ref in named.refs] == [("http://b/", b"\xb2\x1a\x1e")]


@pytest.mark.parametrize("name", ["refs.parquet", "refs.orc"])
def test_a_column_named_content_is_for_images_where_it_has_bytes(name: str) -> None:
    def table(**columns: Any) -> bytes:
        buffer = io.BytesIO()
        (orc.write_table if name.endswith("orc") else pq.write_table)(pa.table(columns), buffer)
        return buffer.getvalue()

    urls = ["http://a/", None]
    text = table(url=urls, content=["a page", "another"])
    assert [(ref.url, ref.content) for ref in take_all(text, name).refs] == [("http://a/", b"")]
    both = table(url=urls, content=pa.array([b"<html>", b"\xff\xd8"]), id=["1", "2"])
    assert [(ref.url, ref.content) for ref in take_all(both, name).refs] == [("http://a/", b""), ("", b"\xff\xd8")]
    first = take_all(both, name, content=["content"]).refs
    assert [ref.content for ref in first] == [b"<html>", b"\xff\xd8"]
    behind = table(url=urls, content=["a page", "b"], image_bytes=pa.array([None, b"\xff\xd8"]), id=["1", "2"])
    assert [ref.content for ref in take_all(behind, name).refs] == [b"", b"\xff\xd8"]
    with pytest.raises(FormatError):
        reader(table(content=["a page"], id=["1"]), name)


def test_keys_of_json_may_come_however_late() -> None:
    early = [{"url": f"http://a/{at}"} for at in range(1500)]
    late = [{"url": f"http://a/{at}", "partner_id": 7, "item_id": at} for at in range(1500, 1510)]
    taken = take_all(jsonl(*early, *late), "refs.jsonl")
    assert taken.rejected == 0
    assert [(ref.partner_id, ref.item_id) for ref in taken.refs[1500:]] == [(7, at) for at in range(1500, 1510)]
    assert taken.refs[3][:3] == (0, item_id_of_url("http://a/3"), "http://a/3")


def test_a_key_that_the_first_thousand_objects_have_is_one_of_the_whole_file() -> None:
    rows = [{"url": "http://a/"}] * 100 + [{"url": "http://b/", "partner_id": 7, "item_id": 1000}]
    taken = take_all(jsonl(*rows), "refs.jsonl", 3)
    assert [(ref.partner_id, ref.item_id) for ref in taken.refs] == [(7, 1000)]
    assert (taken.rejected, whys(taken)[0]) == (100, "the id is empty")


def test_a_url_may_come_late_and_in_another_letter_case() -> None:
    rows: list[dict[str, Any]] = [{"id": at} for at in range(1200)]
    rows += [{"id": 1200, "URL": "http://a/"}, {"ID": 1201, "url": "http://b/"}, {"Id": 1202, "image_url": "http://c/"}]
    taken = take_all(jsonl(*rows), "refs.jsonl")
    assert [(ref.external_id, ref.url) for ref in taken.refs] == [
        ("1200", "http://a/"),
        ("1201", "http://b/"),
        ("1202", "http://c/"),
    ]
    assert (taken.rejected, whys(taken)[0]) == (1200, "no url and no content")


@pytest.mark.parametrize("at", [0, 3, 1000, 1499, 1505])
def test_json_with_late_keys_is_read_on_from_any_row(at: int) -> None:
    rows: list[dict[str, Any]] = [{"url": f"http://a/{one}"} for one in range(1500)]
    rows += [{"url": f"http://a/{one}", "sku": "s", "partner": 5} for one in range(1500, 1510)]
    data = jsonl(*rows)
    whole = take_all(data, "refs.jsonl").refs
    position = sum(map(len, data.splitlines(keepends=True)[:at]))
    rest = reader(data, "refs.jsonl", at=Cursor(position, at)).take(10_000, 10**9).refs
    assert [ref[:5] for ref in rest] == [ref[:5] for ref in whole[at:]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"url": "http://b/", "url": "http://c/"}', TWICE),
        ('{"url": "http://b/", "\\u0075rl": "http://c/"}', TWICE),
        ('{"url" :"http://b/","url":"http://c/"}', TWICE),
        ('{"url":"http://b/","url":"http://c/","in":{"url":"x"}}', TWICE),
        ('{"url": "http://b/"}{"url": "http://c/"}', "more than one JSON value on a line"),
        ('{"url": "http://b/"},', "more than one JSON value on a line"),
        ('{"url": "http://b/",}', "no JSON"),
    ],
)
def test_json_that_says_two_things_is_rejected(line: str, why: str) -> None:
    taken = take_all(f'{{"url": "http://a/"}}\n{line}\n{{"url": "http://d/"}}\n'.encode(), "refs.jsonl")
    assert [ref.url for ref in taken.refs] == ["http://a/", "http://d/"]
    assert whys(taken) == [why]


def test_keys_of_inner_objects_are_not_the_rows() -> None:
    data = jsonl({"url": "http://a/", "seen": {"url": "x", "id": 1}, "note": '"url": twice "url":'})
    (ref,) = take_all(data, "refs.jsonl").refs
    assert (ref.url, ref.external_id) == ("http://a/", "http://a/")


@given(st.lists(st.text(st.sampled_from("aZ%25\u00e4\u0130 -"), min_size=1, max_size=6), max_size=5))
def test_ids_hashed_together_are_those_hashed_one_by_one(names: list[str]) -> None:
    assert item_ids_of(names) == [item_id_of(name) for name in names]


def test_an_array_of_objects_is_refused_with_what_to_do() -> None:
    with pytest.raises(FormatError) as caught:
        reader(b'[\n{"url": "http://a/"},\n{"url": "http://b/"}\n]\n', "refs.json")
    assert "array" in caught.value.detail
    assert "each line" in caught.value.hint
