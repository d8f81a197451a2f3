from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.codec.refs import separated
from pipeline.codec.refs.columns import Found
from pipeline.codec.refs.dialect import form
from pipeline.codec.refs.grid import columns_of
from pipeline.codec.refs.lines import Lines
from pipeline.codec.refs.rows import Rejected
from pipeline.codec.refs.rules import Rules
from pipeline.settings import Text

FORMS = {
    "commas": form("csv", Text()),
    "tabs": form("tsv", Text()),
    "tabs and quoted names": form("tsv", Text(), quoted_header=True),
    "an escape": form("csv", Text(escape="\\")),
    "no quotes": form("csv", Text(quote="", escape="")),
    "a blank between cells": form("csv", Text(separator=" "), " "),
}


def by_line(lines: list[str], how: str, width: int) -> tuple[list[list[str]], list[Rejected], int]:
    """The columns as they are read line by line, what is rejected, and the number of rows."""
    broken: list[Rejected] = []
    found = Found(None, None, None, 0, None)
    header = separated.Header(FORMS[how], width, found, 0)
    page = separated._Page(Lines(list(lines), list(range(len(lines) + 1)), ["\n"] * len(lines)), iter(()))
    seen: list[list[str]] = []

    def keep(cells_of, positions, rows, header, rules):  # type: ignore[no-untyped-def]
        seen.extend(cells_of(place) for place in range(width))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separated, "_raw", keep)
        _, rows = separated._by_line(page, 0, header, broken, Rules())
    return seen, broken, rows


cells = st.text(st.sampled_from('ab"\\ '), max_size=3)
bits = st.one_of(cells, cells.map(lambda text: f'"{text}"'), st.just('"a"'))


@given(st.data(), st.sampled_from(sorted(FORMS)), st.integers(1, 3))
@settings(deadline=None, max_examples=500)
def test_what_stands_in_a_grid_comes_out_as_line_by_line(data: st.DataObject, how: str, width: int) -> None:
    separator = FORMS[how].separator
    exact = st.lists(bits, min_size=width, max_size=width)
    line = st.one_of(exact, exact, exact, st.lists(bits, max_size=4)).map(separator.join)
    lines = data.draw(st.lists(line, min_size=1, max_size=4))
    check(lines, how, width)


@given(st.lists(st.text(st.sampled_from('a",\\'), max_size=8), min_size=1, max_size=3))
@example(['","""'])
@example(['"a,b"'])
@example(['"a,"b"', '"c,"d"'])
@settings(deadline=None, max_examples=500)
def test_quotes_and_commas_anyhow_come_out_as_line_by_line(lines: list[str]) -> None:
    check(lines, "commas", 2)


def check(lines: list[str], how: str, width: int) -> None:
    columns = columns_of(lines, width, FORMS[how])
    if columns is not None:
        assert (columns, [], len(lines)) == by_line(lines, how, width)


@pytest.mark.parametrize(
    ("lines", "how", "columns"),
    [
        (["1,a", "2,b"], "commas", [["1", "2"], ["a", "b"]]),
        (['1,"a"', '2,""'], "commas", [["1", "2"], ["a", ""]]),
        (['1\t"a"', "\\N\tb"], "tabs", [["1", "\\N"], ['"a"', "b"]]),
        (["1\ta\\", "2\tb"], "tabs", None),
        (["1,a,", "b"], "commas", None),
        (['1,"a"', "2,b"], "commas", None),
        (['1,"a""b"'], "commas", None),
        (["1,a\\"], "an escape", None),
        (["1,a", "", "2,b"], "commas", None),
    ],
)
def test_a_grid_has_one_width_and_quotes_around_each_cell_of_a_column_or_none(
    lines: list[str], how: str, columns: list[list[str]] | None
) -> None:
    assert columns_of(lines, 2, FORMS[how]) == columns
