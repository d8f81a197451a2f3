"""No text takes longer to normalise or to redact than its length accounts for, and what comes out stays the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.refs.rows import sample_of
from pipeline.process.logs import redact
from pipeline.process.redaction import redact_query
from pipeline.records import normalise_external_id

LONGEST = 65_536
CPU_SECONDS = 5.0
"""Of processor time; each takes some hundredths, and took more than that, or minutes, before."""


def one_round_after_the_other(text: str) -> str:
    text = text.lower()
    while (decoded := unquote(text)) != text:
        text = decoded
    return text


PIECES = st.sampled_from(["%", "25", "%25", "%2525", "41", "%41", "%c3", "a4", "%A4", "2", "ä", "4a", "%252525", "x"])


@given(st.lists(PIECES, max_size=14).map("".join))
def test_an_id_is_decoded_as_round_after_round_would(text: str) -> None:
    assert normalise_external_id(text) == one_round_after_the_other(text)


@pytest.mark.parametrize("work", [normalise_external_id, redact, redact_query, sample_of])
@pytest.mark.parametrize(
    "piece",
    ["25", "%25", "a", "a://", "http:", "http://", "a@", "?", "-a", "://", ":@", "%40", "&#64;", "#", "//a:b ", ";",
     "token=", "data:,", "x:y@z/", "\\u0040"],
)  # fmt: skip
def test_no_text_takes_longer_than_its_length_accounts_for(work: Callable[[str], str], piece: str) -> None:
    text = ("%" + piece * LONGEST)[: 2 * LONGEST]
    began = time.process_time()
    work(text)
    assert time.process_time() - began < CPU_SECONDS


def test_the_user_of_a_url_is_redacted_as_its_query_is() -> None:
    for before, after in (
        ("http://a:b@h/x?y#z", "http://redacted@h/x?redacted"),
        ("HTTP:\\\\a:b@h/", "HTTP:\\\\redacted@h/"),
        ("http:a:b@h/", "http:redacted@h/"),
        ("s3://key:secret@bucket/x", "s3://redacted@bucket/x"),
        ("http://h/a@b", "http://h/a@b"),
        ("user:pass@shop", "redacted@shop"),
    ):
        assert redact_query(before) == after
