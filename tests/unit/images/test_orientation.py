"""One opinion about which way is up: Pillow's, whole and reduced, in every format."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import Preparation, decode
from pipeline.images.decoding import decode_reduced
from pipeline.records import Failure
from pipeline.settings import Preprocess
from tests.unit.images.pictures import ORIENTATION as TAG
from tests.unit.images.pictures import encoded, photo, upright

PHOTO = photo(48, 32)
JPEG = encoded(photo(160, 96), "JPEG", quality=95)
XMP = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 5: "II", 10: "ii", 2: "s", 7: "B"}


def exif(kind: int, value: int, order: str = "<", count: int = 1, before: int = 0) -> bytes:
    """An EXIF block whose orientation is of that type, behind so many other tags."""
    packed = {5: (value, 1), 10: (value * 3, 3), 2: (str(value).encode(),)}.get(kind, (value,))
    data = struct.pack(order + TYPES[kind], *packed) * count
    entries = [struct.pack(order + "HHIHH", 0x0100 + at, 3, 1, 9, 0) for at in range(before)]
    end = 8 + 2 + 12 * (before + 1) + 4
    cell = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", end)
    entries.append(struct.pack(order + "HHI", TAG, kind, count) + cell)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block = head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + block + (data if len(data) > 4 else b"")


def with_segments(*bodies: bytes) -> bytes:
    segments = (b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies)
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def xmp(number: int) -> bytes:
    return b"http://ns.adobe.com/xap/1.0/\0" + XMP % number


def by_pillow(content: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(upright(opened).convert("RGB"))[:, :, ::-1]


def check(content: bytes) -> None:
    """Whole, reduced and cropped alike, and as Pillow has it."""
    want = by_pillow(content)
    whole = decode(content)
    assert isinstance(whole, np.ndarray), whole
    np.testing.assert_array_equal(whole, want)
    found = decode_reduced(content, 10**6, (24, 24))
    assert not isinstance(found, Failure)
    small = np.asarray(Image.fromarray(want).resize(found[0].shape[1::-1], Image.Resampling.BOX))
    assert np.abs(found[0].astype(int) - small).mean() <= 4
    for how in ("crop", "direct"):
        prepared = Preparation(Preprocess.model_validate({"resize": how, "resize_to": 32}), (32, 32))(content)
        assert isinstance(prepared, np.ndarray)
        assert prepared.shape == (3, 32, 32)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TYPES)
def test_an_orientation_of_any_type_is_what_pillow_takes_it_for(kind: int, order: str) -> None:
    for number in (1, 6, 7, 8):
        check(with_segments(exif(kind, number, order)))


@pytest.mark.parametrize(
    "segments",
    [[exif(3, 1), exif(3, 6)], [exif(3, 6), exif(3, 1)], [exif(4, 8), exif(3, 3)], [exif(3, 0), exif(3, 6)],
     [b"Exif\0\0", exif(3, 6)], [b"Exif\0\0garbage", exif(3, 6)], [exif(3, 6)[:20], b"Exif\0\0" + exif(3, 6)[20:]],
     [xmp(6)], [exif(3, 1), xmp(6)], [xmp(3), exif(3, 6)], [xmp(3), xmp(8)], [exif(3, 6, before=40)],
     [exif(3, 6, count=2)], [exif(3, 9)], [exif(3, 6)[:-6]], [exif(3, 6)[:22]], [b"Exif\0\0II*\0\xff\xff\xff\xff"],
     [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"], [b"Exif\0\0Exif\0\0" + exif(3, 6)[6:]]],
)  # fmt: skip
def test_of_several_segments_the_first_block_decides_and_a_damaged_one_says_nothing(segments: list[bytes]) -> None:
    check(with_segments(*segments))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_the_block_makes_two_opinions(data: st.DataObject) -> None:
    block = bytearray(exif(data.draw(st.sampled_from(sorted(TYPES))), data.draw(st.integers(0, 9)), "<", 1, 2))
    for _ in range(data.draw(st.integers(0, 5))):
        block[data.draw(st.integers(6, len(block) - 1))] = data.draw(st.integers(0, 255))
    check(with_segments(bytes(block)))


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_that_says_so_is_turned(kind: str, number: int) -> None:
    block = Image.Exif()
    block[TAG] = number
    content = encoded(PHOTO, kind, exif=block)
    got = decode(content)
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, by_pillow(content))
    assert got.shape[:2] == ((48, 32) if number >= 5 else (32, 48))


@pytest.mark.parametrize("packed", [False, True])
def test_a_png_says_it_in_texts_of_older_programs_too(packed: bool) -> None:
    from PIL.PngImagePlugin import PngInfo

    block = exif(4, 6)
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=packed)
    only_xmp = PngInfo()
    only_xmp.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode(), zip=packed)
    for texts in (info, only_xmp):
        content = encoded(PHOTO, "PNG", pnginfo=texts)
        got = decode(content)
        assert isinstance(got, np.ndarray)
        assert got.shape[:2] == (48, 32)
        np.testing.assert_array_equal(got, by_pillow(content))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_exif_that_cannot_be_read_costs_no_picture(kind: str) -> None:
    content = encoded(PHOTO, kind, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    for bad in (b"XX*\0", b"II*\1"):
        got = decode(content.replace(b"II*\0\x08", bad + b"\x08"))
        assert isinstance(got, np.ndarray), got
        assert got.shape == (32, 48, 3)
