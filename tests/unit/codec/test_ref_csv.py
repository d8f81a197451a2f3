from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.refs import lines as ref_lines
from pipeline.codec.refs import separated
from pipeline.codec.refs.tables import How
from pipeline.errors import FormatError
from pipeline.settings import Text
from tests.unit.codec.ref_files import reader, take_all

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(st.tuples(cells, cells, cells), max_size=12),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(deadline=None)
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[tuple[str, str, str]], separator: str, end: str, quoting: int
) -> None:
    rows = [(f"a{title}", f"i{name}", f"u{url}") for title, name, url in rows]
    if quoting == csv.QUOTE_MINIMAL and end == "\n":  # then Python's writer leaves a "\r" bare, which ends a line
        rows = [(title.replace("\r", ""), name.replace("\r", ""), url.replace("\r", "")) for title, name, url in rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["title", "external_id", "url"])
    writer.writerows(rows)
    quoted = How(Text(quote='"', escape=""))
    taken = take_all(text.getvalue().encode(), "refs.csv" if separator == "," else "refs.tsv", how=quoted)
    assert [(ref.external_id, ref.url) for ref in taken.refs] == [(name, url) for _, name, url in rows]
    assert taken.rejected == 0


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_quotes_newlines_and_separators_within_cells(end: bytes) -> None:
    data = end.join(
        [b"item_id,title,url", b'1,"a, ""b""', b'c",http://a/', b"", b'2,5" wide,"http://b/?x=1,2"', b'3,,"http://c/"']
    )
    taken = take_all(data, "refs.csv")
    assert [(ref.item_id, ref.url) for ref in taken.refs] == [
        (1, "http://a/"),
        (2, "http://b/?x=1,2"),
        (3, "http://c/"),
    ]
    assert (taken.rows, taken.rejected) == (3, 0)


@pytest.mark.parametrize("bad", [b'2,"http://b/', b'2,"http://b/?""', b'"2,http://b/'])
def test_a_quote_that_is_never_closed_costs_its_own_line(bad: bytes) -> None:
    lines = [b"item_id,url", b"1,http://a/", bad, b"3,http://c/", b"4,http://d/"]
    taken = take_all(b"\n".join(lines), "refs.csv")
    assert [ref.item_id for ref in taken.refs] == [1, 3, 4]
    assert [(rejected.row, rejected.why) for rejected in taken.samples] == [(1, separated.OPEN)]
    assert taken.rows == 4


def test_a_quote_that_only_a_later_rows_quote_would_close_costs_its_own_line() -> None:
    lines = [b"item_id,url", b'1,"http://a/"', b'2,"http://b/', b'3,"http://c/"', b'4,"http://d/"']
    taken = take_all(b"\n".join(lines), "refs.csv")
    assert [ref.item_id for ref in taken.refs] == [1, 3, 4]
    assert [rejected.why for rejected in taken.samples] == [separated.STRAY]


def test_a_cell_over_many_lines_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separated, "MAX_BEYOND", 100)
    for lines, refs, rejected in ((10, 1, 0), (40, 0, 41)):
        data = b"item_id,url,title\n" + b'1,http://a/,"' + b"line\n" * lines + b'"\n'
        taken = take_all(data, "refs.csv")
        assert (len(taken.refs), taken.rejected) == (refs, rejected)


@pytest.mark.parametrize("line", ['a",,"', ',"', '1,"""\n""', '","', '"\n""'])
def test_a_file_full_of_open_quotes_takes_work_that_grows_with_its_length_only(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_ahead = 0

    class Counting(separated._Page):
        def has(self, place: int) -> bool:
            nonlocal looked_ahead
            looked_ahead += 1
            return super().has(place)

    monkeypatch.setattr(separated, "_Page", Counting)
    taken = take_all(("item_id,url\n" + f"{line}\n" * 3000).encode(), "refs.csv")
    assert taken.rows >= 1000
    assert looked_ahead < 4 * 6000


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"1,http://a/,b.jpg", "the row has 3 cells, the header 2"),
        (b"1", "the row has 1 cells, the header 2"),
        (b'1,"http://a/"x', separated.STRAY),
    ],
)
def test_a_line_of_another_shape_is_rejected(line: bytes, why: str) -> None:
    data = b"item_id,url\n" + line + b"\n2,http://b/\n"
    taken = take_all(data, "refs.csv")
    assert [ref.item_id for ref in taken.refs] == [2]
    (rejected,) = taken.samples
    assert (rejected.why, rejected.offset) == (why, 12)


def test_a_line_longer_than_the_limit_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ref_lines, "MAX_LINE", 3 * 2**20)
    data = b"item_id,url\n1,http://a/\n" + b"2," + b"x" * (5 * 2**20) + b"\n3,http://c/\n4," + b"y" * (4 * 2**20)
    taken = take_all(data, "refs.csv")
    assert [ref.item_id for ref in taken.refs] == [1, 3]
    assert [rejected.why for rejected in taken.samples] == ["a line of 5242882 bytes", "a line of 4194306 bytes"]
    assert [rejected.offset for rejected in taken.samples] == [24, data.index(b"4,y")]
    assert taken.cursor.position == len(data)


def test_blank_lines_are_no_rows_but_rows_of_empty_cells_are() -> None:
    taken = take_all(b"\r\n\nitem_id,url\n\n\r\n,\n1,http://a/\n\n", "refs.csv")
    assert (len(taken.refs), taken.rows, taken.rejected) == (1, 2, 1)


def test_a_header_alone_is_a_file_without_rows() -> None:
    assert take_all(b"item_id,url", "refs.csv").rows == 0


@pytest.mark.parametrize(
    "data", [b'"item_id,url\n1,http://a/\n', b'item_id,"url"x\n', b"http://a/1.jpg\nhttp://a/2.jpg\n"]
)
def test_a_file_without_a_header_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        reader(data, "refs.csv")
    assert "refs.csv" in caught.value.message
