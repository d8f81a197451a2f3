"""docs/failures.md names every reason and every word that the fetcher uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.fetch.breakdown import _CERTIFICATE, _CODES, _CONNECT
from pipeline.records import REASONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", PAGE, re.M)}
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "pipeline/fetch").glob("*.py")))
LITERALS = sorted(
    {
        *re.findall(r'Failure\.of\("(\w+)", f?"([^"{]+)', SOURCE),
        *_CODES.values(),
        *(("tls", words) for words in _CERTIFICATE.values()),
        *(("connect", words) for words in _CONNECT.values()),
    }
)


def test_the_page_has_a_row_for_each_reason_in_the_vocabularys_order() -> None:
    assert list(ROWS) == list(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_the_page_says_whether_a_reason_is_retriable_by_default(reason: str) -> None:
    word = ROWS[reason].split("|")[2].strip()
    assert word.startswith("yes") == REASONS[reason].retriable


@pytest.mark.parametrize(("reason", "words"), LITERALS)
def test_the_page_names_each_detail(reason: str, words: str) -> None:
    assert words.strip() in ROWS[reason] or words.isdigit()
