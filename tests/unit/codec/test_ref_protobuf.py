from __future__ import annotations

import io

import pytest

from pipeline.codec.image_refs import MAX_RECORD, encode
from pipeline.codec.refs.tables import Cursor
from pipeline.records import MAX_ITEM_ID, ImageRef, item_id_of_url
from tests.unit.codec.ref_files import framed, record, take_all

A = record(partner_id=1, item_id=1, url="http://a/")
B = record(partner_id=1, item_id=MAX_ITEM_ID, url="http://b/")


def test_the_batches_that_this_project_writes_are_a_source_as_well() -> None:
    refs = [ImageRef(3, at, f"e{at}", f"http://a/{at}", bytes(at), at) for at in range(100)]
    assert take_all(encode(refs), "refs.pb").refs == refs


@pytest.mark.parametrize("bad", [framed(b"\xff\xff\xff"), framed(b"\x22\x02\xc3\x28"), framed(b"\x22\x7fabc")])
def test_a_record_that_is_no_message_is_rejected_with_its_offset_and_the_rest_goes_on(bad: bytes) -> None:
    taken = take_all(A + bad + B, "refs.pb")
    assert [ref.item_id for ref in taken.refs] == [1, MAX_ITEM_ID]
    (rejected,) = taken.samples
    assert (rejected.row, rejected.offset, rejected.why) == (1, len(A), "not an ImageRef message")


@pytest.mark.parametrize(
    "tail",
    [
        b"\x7f" + B,  # a record that ends behind the file
        (MAX_RECORD + 1).to_bytes(4, "little") and b"\x81\x80\x80\x20" + B,  # over 64 MiB
        b"\xff" * 10 + B,  # no length at all
        b"\x80",  # half a length
    ],
)
def test_lost_framing_counts_the_rest_as_one_rejected_entry_and_says_how_much_it_is(tail: bytes) -> None:
    taken = take_all(A + B + tail, "refs.pb")
    assert len(taken.refs) == 2
    assert (taken.rows, taken.rejected) == (3, 1)
    (rejected,) = taken.samples
    assert rejected.offset == len(A + B)
    assert f"{len(tail)} bytes from offset {len(A + B)} on" in rejected.why
    assert taken.cursor == Cursor(len(A + B + tail), 3)


def test_records_without_ids_take_their_url() -> None:
    taken = take_all(record(url="http://a/") + record(content=b"x") + record(url="http://b/", item_id=0), "refs.pb")
    assert [ref[:3] for ref in taken.refs] == [(0, item_id_of_url("http://a/"), "http://a/"), (0, 0, "")]
    assert [rejected.why for rejected in taken.samples] == ["the id is empty"]


def test_a_partner_beyond_63_bits_is_rejected() -> None:
    taken = take_all(record(partner_id=2**63, item_id=1, url="http://a/"), "refs.pb")
    assert (taken.refs, taken.rejected) == ([], 1)


def test_fields_that_are_not_known_are_passed_over() -> None:
    body = A[1:] + b"\xaa\x06\x03abc"
    assert len(take_all(framed(body), "refs.pb").refs) == 1


def test_a_file_that_gives_few_bytes_at_a_time_is_read_whole() -> None:
    from pipeline.codec.refs.tables import open_refs
    from pipeline.settings import Columns

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    reader = open_refs(Slow(A * 50), "refs.pb", "protobuf", Columns(), None, Cursor(0, 0))
    assert len(reader.take(1000, 10**9).refs) == 50
