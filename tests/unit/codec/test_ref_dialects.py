"""Separated values as the writers of this world write them, and what is said where they cannot be told."""

from __future__ import annotations

import csv
import io

import pytest

from pipeline.codec.refs import separated
from pipeline.codec.refs.rows import Taken
from pipeline.codec.refs.tables import Cursor, How
from pipeline.errors import ConfigError, FormatError
from pipeline.settings import Text, load
from tests.unit.codec.ref_files import reader, take_all

U = "http://a/"


def ids(taken: Taken) -> list[str]:
    return [ref.external_id for ref in taken.refs]


def urls(taken: Taken) -> list[str]:
    return [ref.url for ref in taken.refs]


def whys(taken: Taken) -> list[str]:
    return [one.why for one in taken.samples]


def text(data: str, name: str, **how: object) -> Taken:
    return take_all(data.encode(), name, how=How(Text(**how)))  # type: ignore[arg-type]


def test_quotes_of_a_tsv_are_text() -> None:
    rows = [
        '1\thttp://a/1\t"Big" shoe',
        '2\thttp://a/2\t"Wide',
        "3\thttp://a/3\tred",
        '4\thttp://a/4\tsize 5"',
        '"5\thttp://a/5\t"',
    ]
    taken = text("\n".join(["id\turl\ttitle", *rows]), "refs.tsv")
    assert ids(taken) == ["1", "2", "3", "4", '"5']
    assert taken.rejected == 0


def test_a_tsv_that_a_csv_writer_has_written_is_read_where_its_quotes_can_be_told() -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerows(
        [["title", "id", "url"], ["a\tb", "1", "http://a/1"], ["c\nd", "2", 'http://a/"2"'], ["e", "3", U]]
    )
    taken = text(file.getvalue(), "refs.tsv")
    assert (ids(taken), urls(taken)) == (["1", "2", "3"], ["http://a/1", 'http://a/"2"', U])
    assert taken.rejected == 0


@pytest.mark.parametrize("quote", ["auto", '"'])
def test_a_tsv_whose_names_stand_in_quotes_is_quoted(quote: str) -> None:
    taken = text('"id"\t"url"\t"title"\n"1"\t"http://a/"\t"a ""b"""\n', "refs.tsv", quote=quote)
    assert (ids(taken), urls(taken)) == (["1"], [U])


def test_the_escapes_of_hive_and_mysql_are_undone_in_a_tsv() -> None:
    rows = [
        "a\\\\b\thttp://a/1\tx",
        "c\\td\thttp://a/2\tx",
        "e\thttp://a/3\ta tab \\\t of MySQL",
        "f\thttp://a/4\tover \\\ntwo lines",
        "\\N\thttp://a/5\tx",
        "g\\d\thttp://a/6\t\\N",
        "h\thttp://a/7\tC:\\dir\\",
    ]
    taken = text("\n".join(["id\turl\ttitle", *rows]), "refs.tsv")
    assert ids(taken) == ["a\\b", "c\td", "e", "f", "g\\d", "h"]
    assert whys(taken) == ["the id is empty"]
    plain = text("\n".join(["id\turl\ttitle", rows[0], rows[2]]), "refs.tsv", escape="")
    assert (ids(plain), whys(plain)) == (["a\\\\b"], ["the row has 4 cells, the header 3"])


def test_lines_that_an_escape_joins_cost_work_that_grows_with_their_number_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = 0

    class Counting(separated._Page):
        def has(self, place: int) -> bool:
            nonlocal looked_at
            looked_at += 1
            return super().has(place)

    monkeypatch.setattr(separated, "_Page", Counting)
    for name, line in (
        ("refs.tsv", "x\\\n"),
        ("refs.csv", "x\\\n"),
        ("refs.tsv", "x\ty\tz\\\n"),
        ("refs.tsv", "x\ty\\\n"),
    ):
        looked_at = 0
        separator = "\t" if name == "refs.tsv" else ","
        taken = text(f"id{separator}url\n" + line * 3000 + f"y\n1{separator}{U}\n", name)
        assert ids(taken)[-1] == "1"
        assert looked_at < 4 * 3000


def test_sparks_escaped_quotes_are_read_beside_doubled_ones() -> None:
    rows = ['1,"5\\" pipe",http://a/1',
            '2,"a \\"b\\", c",http://a/2', '3,"a ""b"", c",http://a/3', "4,x,http://a/4",
            '5,"two\nlines with \\"quotes\\"",http://a/5', '6,"C:\\dir\\",http://a/6',
            '7,"""\\"",http://a/7']  # fmt: skip
    taken = text("\n".join(["id,title,url", *rows]), "refs.csv")
    assert ids(taken) == ["1", "2", "3", "4", "5", "6", "7"]
    assert taken.rejected == 0


def test_ids_of_spark_are_unescaped() -> None:
    taken = text('id,url\n"a\\"b, c\\\\",http://a/\n', "refs.csv")
    assert ids(taken) == ['a"b, c\\']


def test_a_stray_quote_of_a_csv_costs_its_line_and_swallows_no_rows() -> None:
    rows = [
        '1,http://a/1,"Big" shoe',
        '2,http://a/2,"Wide',
        "3,http://a/3,red",
        '4,http://a/4,size 5"',
        "5,http://a/5,ok",
    ]
    taken = text("\n".join(["item_id,url,title", *rows]), "refs.csv")
    assert [ref.item_id for ref in taken.refs] == [3, 4, 5]
    assert whys(taken) == [separated.STRAY, separated.OPEN]


def test_a_quoted_cell_over_lines_that_are_no_rows_is_one_cell() -> None:
    taken = text('id,url,title\n1,http://a/1,"one,\ntwo,three,four\nfive"\n2,http://a/2,x\n', "refs.csv")
    assert (ids(taken), taken.rejected) == (["1", "2"], 0)


@pytest.mark.parametrize("separator", [";", "|", "\t", ","])
@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv"])
def test_the_separator_is_the_one_under_which_there_is_a_url_column(name: str, separator: str) -> None:
    rows = [["id", "url", "title"], ["1", "http://a/?x=1", "a"], ["2", U, "b"]]
    taken = text("\n".join(separator.join(row) for row in rows), name)
    assert (ids(taken), urls(taken)) == (["1", "2"], ["http://a/?x=1", U])


def test_excels_first_line_names_the_separator() -> None:
    taken = text("sep=;\r\nid;url\r\n1;http://a/\r\n", "refs.csv")
    assert (ids(taken), taken.rows) == (["1"], 1)


@pytest.mark.parametrize(
    ("data", "how"),
    [
        ("id~url\n1~http://a/\n", {"separator": "~"}),
        ("id\x01url\n1\x01http://a/\n", {"separator": "\\x01"}),
        ("id\turl\n1\thttp://a/\n", {"separator": "tab"}),
        ("id,url\n'1','http://a/'\n", {"quote": "'"}),
        ('id,url\n"1",http://a/"\n', {"quote": ""}),
        ("id,url,t\n1,http://a/,a^,b\n", {"escape": "^"}),
        ("1,http://a/\n", {"header": False, "names": ["id", "url"]}),
        ("1;http://a/\n", {"header": False, "names": ["id", "url"]}),
        ("1\t2\thttp://a/\n", {"header": False, "names": ["id", "n", "url"]}),
    ],
)
def test_a_setting_says_what_cannot_be_told(data: str, how: dict[str, object]) -> None:
    taken = text(data, "refs.csv", **how)
    assert [one.strip('"') for one in ids(taken)] == ["1"]
    assert [one.strip('"') for one in urls(taken)] == [U]


def test_columns_without_names_are_called_by_their_number() -> None:
    taken = take_all(
        b"x,1,http://a/\ny,2,http://a/\n",
        "refs.csv",
        url=["3"],
        external_id=["2"],
        how=How(Text(header=False)),
    )
    assert (ids(taken), taken.rows) == (["1", "2"], 2)


def test_a_file_whose_header_is_missing_says_what_to_set() -> None:
    with pytest.raises(FormatError) as caught:
        reader(b"1,http://a/1.jpg\n2,http://a/2.jpg\n", "refs.csv")
    assert "text.header = false" in caught.value.hint


@pytest.mark.parametrize("name", ["refs.csv", "refs.tsv", "refs.txt", "refs.jsonl"])
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r\n", "mixed"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_with_a_newline_a_carriage_return_or_both(name: str, end: str, last: bool) -> None:
    lines = {
        "refs.csv": ["id,url", "1,http://a/1", "2,http://a/2", "3,http://a/3"],
        "refs.tsv": ["id\turl", "1\thttp://a/1", "2\thttp://a/2", "3\thttp://a/3"],
        "refs.txt": ["http://a/1", "http://a/2", "http://a/3"],
        "refs.jsonl": ['{"url": "http://a/1"}', '{"url": "http://a/2"}', '{"url": "http://a/3"}'],
    }[name]
    ends = ["\r", "\n", "\r\n", "\r"] if end == "mixed" else [end] * 4
    data = "".join(line + end for line, end in zip(lines, ends, strict=False))
    if not last:
        data = data.rstrip("\r\n")
    taken = take_all(data.encode(), name)
    assert urls(taken) == ["http://a/1", "http://a/2", "http://a/3"]
    assert (taken.rows, taken.cursor.position) == (3, len(data))


def test_a_quoted_cell_keeps_its_line_ends() -> None:
    taken = text('id,url\r\n"a\rb\r\nc\nd",http://a/\r\n', "refs.csv")
    assert ids(taken) == ["a\rb\r\nc\nd"]


def test_form_feeds_and_the_line_ends_of_unicode_end_no_line() -> None:
    taken = text("id,url\n1\x0c,http://a/\x0b\u2028\x85\n", "refs.csv")
    assert (ids(taken), urls(taken)) == (["1\x0c"], ["http://a/\x0b\u2028\x85"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("name", ["refs.csv", "refs.txt", "refs.jsonl"])
def test_unicode_in_every_width_is_told_by_its_first_bytes(name: str, encoding: str, mark: bool) -> None:
    line = {"refs.csv": "url\nhttp://a/ü\n", "refs.txt": "http://a/ü\n", "refs.jsonl": '{"url": "http://a/ü"}\n'}[name]
    if encoding == "utf-32" and not mark:
        data = line.encode("utf-32")  # it has its own
    else:
        data = (("\ufeff" if mark and encoding not in ("utf-16", "utf-32") else "") + line).encode(encoding)
    assert urls(take_all(data, name)) == ["http://a/ü"]


def test_an_encoding_is_set_where_nothing_tells_it() -> None:
    data = "id,url\nGröße,http://a/\n".encode("latin-1")
    assert whys(take_all(data, "refs.csv")) == ["the external id is not UTF-8"]
    assert ids(take_all(data, "refs.csv", how=How(Text(encoding="latin-1")))) == ["Größe"]
    undefined = take_all(b"id,url\na\x81,http://a/\nb,http://b/\n", "refs.csv", how=How(Text(encoding="cp1252")))
    assert (ids(undefined), whys(undefined)) == (["b"], ["the external id is not UTF-8"])


def test_half_a_character_at_the_end_of_utf_16_is_a_rejected_rest() -> None:
    taken = take_all("url\nhttp://a/1\nhttp://a/2\n".encode("utf-16") + b"h", "refs.csv")
    assert urls(taken) == ["http://a/1", "http://a/2"]
    assert "utf-16-le text is damaged" in whys(taken)[0]


def test_a_reader_of_utf_16_goes_on_from_any_row() -> None:
    data = "".join(["id,url\r\n", *(f"ü{n},http://a/{n}\r\n" for n in range(50))]).encode("utf-16")
    whole = take_all(data, "refs.csv")
    first = reader(data, "refs.csv").take(20, 10**6)
    rest = reader(data, "refs.csv", at=first.cursor).take(100, 10**6)
    assert [ref[:5] for ref in first.refs + rest.refs] == [ref[:5] for ref in whole.refs]
    assert rest.cursor == whole.cursor != Cursor(0, 0)


@pytest.mark.parametrize("name", ["refs.csv", "refs.txt", "refs.jsonl"])
def test_a_zero_byte_in_a_url_costs_its_row_and_beside_it_nothing(name: str) -> None:
    data = {
        "refs.csv": b"url,note\nhttp://a/1,\0\nhttp://a/\0,x\nhttp://a/3,x\n",
        "refs.txt": b"http://a/1\nhttp://a/\0\nhttp://a/3\n",
        "refs.jsonl": b'{"url": "http://a/1"}\n{"url": "http://a/\\u0000"}\n{"url": "http://a/3"}\n',
    }[name]
    taken = take_all(data, name)
    assert (urls(taken), whys(taken)) == (["http://a/1", "http://a/3"], ["the url holds a zero byte"])


@pytest.mark.parametrize(
    "key", ["separator = ''", "separator = 'ab'", "quote = 'ab'", 'escape = "\\n"', "encoding = 'klingon'"]
)
def test_a_sign_that_cannot_be_is_refused(key: str, tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "hathi.toml"
    path.write_text(
        f"[bucket]\nurl = 'b'\n[lakes.a]\nurl = 'x'\n[[lakes.a.sources]]\npath = 'r'\n[lakes.a.sources.text]\n{key}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert key.split(" ")[0] in str(caught.value)


@pytest.mark.parametrize("how", [{}, {"separator": "\\x01"}])
def test_quotes_of_a_text_of_hive_are_text(how: dict[str, object]) -> None:
    rows = ["id\x01title\x01url", '1\x01"Big" shoe\x01http://a/1', '2\x01"Wide\x01http://a/2', '3\x015"\x01http://a/3']
    taken = text("\n".join([*rows, '4\x01"x"\x01http://a/4', "5\x01a\\\x01b\x01http://a/5"]), "refs.csv", **how)
    assert (ids(taken), urls(taken)) == (["1", "2", "3", "4", "5"], [f"http://a/{n}" for n in range(1, 6)])
    assert taken.rejected == 0
