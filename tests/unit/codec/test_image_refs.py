from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import image_refs
from pipeline.codec import image_refs_pb2 as messages
from pipeline.errors import FormatError
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID, ImageRef

refs = st.lists(
    st.tuples(
        st.integers(0, MAX_PARTNER_ID) | st.sampled_from([0, MAX_PARTNER_ID]),
        st.integers(0, MAX_ITEM_ID) | st.sampled_from([0, MAX_ITEM_ID]),
        st.text(),
        st.text(),
        st.binary(max_size=300),
    )
).map(lambda rows: [ImageRef(*row, ordinal) for ordinal, row in enumerate(rows)])


@given(refs)
def test_every_batch_comes_back_as_it_went(batch: list[ImageRef]) -> None:
    assert image_refs.decode(image_refs.encode(batch)) == batch


@given(refs, st.integers(0, 2**40))
def test_ordinals_count_on_from_the_first_one(batch: list[ImageRef], first: int) -> None:
    decoded = image_refs.decode(image_refs.encode(batch), first)
    assert [ref.ordinal for ref in decoded] == list(range(first, first + len(batch)))


@given(refs)
def test_the_bytes_are_those_of_the_delimited_form_that_other_languages_write(batch: list[ImageRef]) -> None:
    expected = b""
    for ref in batch:
        body = messages.ImageRef(
            partner_id=ref.partner_id,
            item_id=ref.item_id,
            external_id=ref.external_id,
            url=ref.url,
            content=ref.content,
        ).SerializeToString()
        length = len(body)
        while length > 127:
            expected += bytes([length & 127 | 128])
            length >>= 7
        expected += bytes([length]) + body
    assert image_refs.encode(batch) == expected


def test_a_large_image_travels_inline() -> None:
    ref = ImageRef(1, 2, "", "", bytes(5_000_000), 0)
    assert image_refs.decode(image_refs.encode([ref])) == [ref]


@pytest.mark.parametrize(
    "ref",
    [
        ImageRef(-1, 0, "", "", b"", 0),
        ImageRef(0, -1, "", "", b"", 0),
        ImageRef(0, 2**64, "", "", b"", 0),
        ImageRef(0, 0, "\ud800", "", b"", 0),
        ImageRef(0, 0, "", "http://a/\udcff", b"", 0),
        ImageRef(0, 0, "", "", bytes(image_refs.MAX_RECORD + 1), 0),
    ],
)
def test_a_ref_that_the_format_cannot_hold_is_refused(ref: ImageRef) -> None:
    with pytest.raises(FormatError):
        image_refs.encode([ref])


GOOD = image_refs.encode([ImageRef(1, 2, "x", "http://a/", b"", 0)])


@pytest.mark.parametrize(
    "tail",
    [
        b"\x05ab",  # ends within a record
        b"\x80",  # ends within a length
        b"\xff" * 11,  # no length
        b"\x02\xff\xff",  # no message
        b"\x00",  # no item id
    ],
)
def test_a_damaged_batch_is_refused_with_the_offset(tail: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        image_refs.decode(GOOD + tail)
    assert f"offset {len(GOOD)}" in caught.value.detail


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refs_or_a_format_error(data: bytes) -> None:
    with suppress(FormatError):
        assert image_refs.encode(image_refs.decode(data)) or not data
