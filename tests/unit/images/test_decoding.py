"""Right colours, the right way up, and a typed failure for everything else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.images import decode, sniff
from pipeline.images.decoding import Pixels, decode_reduced
from pipeline.images.resizing import resize
from pipeline.records import REASONS, Failure
from tests.unit.images.pictures import bgr, encoded, photo, psnr

PHOTO = photo(300, 200)
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"]


def pixels(content: bytes, **options: object) -> Pixels:
    image = decode(content, **options)  # type: ignore[arg-type]
    assert isinstance(image, np.ndarray), image
    return image


def failure(content: bytes, **options: object) -> Failure:
    result = decode(content, **options)  # type: ignore[arg-type]
    assert isinstance(result, Failure)
    assert result.reason in REASONS
    return result


def by_pillow(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as opened:
        return ImageOps.exif_transpose(opened)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_told_by_its_first_bytes_and_decoded_in_right_colours(kind: str) -> None:
    content = encoded(PHOTO, kind)
    assert sniff(content) == kind.lower()
    assert psnr(pixels(content), bgr(by_pillow(content))) >= 45
    assert psnr(pixels(content), bgr(PHOTO)) >= 25


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PHOTO, kind, exif=exif)
    assert psnr(pixels(content), bgr(by_pillow(content))) >= 45


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(640, 480), "JPEG", exif=exif, quality=95)
    upright = by_pillow(content)
    small = pixels(content, reduce_to=(100, 100))
    assert small.shape[:2] == (upright.height // 2, upright.width // 2)
    assert psnr(small, bgr(upright.resize(small.shape[1::-1], Image.Resampling.BOX))) >= 38


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95),
        lambda image: encoded(image, "JPEG", quality=95, progressive=True),
        lambda image: encoded(image.convert("L"), "JPEG", quality=95),
        lambda image: encoded(image.quantize(256), "PNG"),
        lambda image: encoded(image.quantize(16), "PNG"),
        lambda image: encoded(image.convert("L"), "PNG"),
        lambda image: encoded(image.convert("1"), "PNG"),
        lambda image: encoded(image.convert("CMYK"), "TIFF"),
        lambda image: encoded(image.convert("1"), "TIFF"),
        lambda image: encoded(image.convert("L"), "GIF"),
    ],
    ids=["cmyk", "progressive", "grey jpeg", "palette", "palette 16", "grey", "bits", "cmyk tiff", "bits tiff", "gif"],
)
def test_every_kind_of_pixel_has_the_colours_that_pillow_gives_it(convert: Callable[[Image.Image], bytes]) -> None:
    content = convert(PHOTO)
    assert psnr(pixels(content), bgr(by_pillow(content))) >= 45


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits_become_8(suffix: str, grey: bool) -> None:
    eight = bgr(PHOTO.convert("L") if grey else PHOTO)
    sixteen = eight[:, :, 0].astype(np.uint16) * 257 if grey else eight.astype(np.uint16) * 257
    content = cv2.imencode(suffix, sixteen)[1].tobytes()
    assert psnr(pixels(content), eight) >= 45


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_see_through_shows_white(kind: str, mode: str) -> None:
    image = PHOTO.copy()
    image.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    image = image.convert(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    want = Image.alpha_composite(white, image.convert("RGBA"))
    assert psnr(pixels(encoded(image, kind, **options)), bgr(want)) >= 45


def test_a_transparent_colour_shows_white() -> None:
    image = Image.new("P", (40, 30), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 20, 30))
    for kind in ("PNG", "GIF"):
        got = pixels(encoded(image, kind, transparency=0))
        assert (got[:, :20] == 255).all()
        assert (got[:, 20:] == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (50, 40), (200, 30, 30)), Image.new("RGB", (50, 40), (30, 30, 200))
    got = pixels(encoded(first, kind, save_all=True, append_images=[second]))
    assert got.shape == (40, 50, 3)
    np.testing.assert_allclose(got[20, 25], (30, 30, 200), atol=12)


SIZES = [(800, 600), (1600, 1200), (1000, 700), (600, 800), (605, 605), (1201, 903), (603, 2407)]


@pytest.mark.parametrize("orientation", [1, 2, 5])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_reduced_decoding_stays_within_40_db_of_pillows_full_path(width: int, height: int, orientation: int) -> None:
    """Of an odd width the last reduced column holds half a column: the picture must not shrink by the other half."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(width, height, 3), "JPEG", quality=92, exif=exif)
    found = decode_reduced(content, 100_000_000, (227, 227))
    assert not isinstance(found, Failure)
    assert found[0].size < 3 * width * height or (orientation > 1 and width % 2)
    whole = by_pillow(content).convert("RGB").resize((227, 227), Image.Resampling.BICUBIC)
    assert psnr(resize(found[0], (227, 227), found[1]), bgr(whole)) >= 40


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_a_truncated_image_is_a_failure_never_a_partly_grey_image(kind: str, part: float) -> None:
    content = encoded(PHOTO, kind)
    assert failure(content[: int(len(content) * part)]).reason in ("truncated", "decode", "not_image")


def test_a_truncated_jpeg_or_png_is_named_so_and_may_be_fetched_again() -> None:
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})):
        content = encoded(PHOTO, kind, **options)
        for size in (len(content) - 1, len(content) // 2, 40):
            got = failure(content[:size])
            assert (got.reason, got.retriable) == ("truncated", True)


def test_a_thumbnails_end_marker_does_not_hide_that_the_image_is_cut() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x"
    content = encoded(PHOTO, "JPEG")
    thumbnail = encoded(PHOTO.resize((32, 32)), "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = content[:2] + segment + content[2:]
    assert psnr(pixels(whole), pixels(content)) == 200
    assert failure(whole[: len(whole) - 500]).reason == "truncated"


def test_bytes_that_are_no_image_are_told_apart() -> None:
    assert failure(b"").reason == "empty"
    assert failure(b"<!DOCTYPE html><html>not found</html>") == Failure("not_image", "it is an HTML page")
    assert failure(b"<svg xmlns='http://www.w3.org/2000/svg'/>").reason == "not_image"
    assert failure(b"%PDF-1.7 and so on").reason == "not_image"
    assert failure(bytes(1000)).reason == "not_image"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    content = bytearray(encoded(PHOTO, "JPEG"))
    at = content.find(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def gif_of(width: int, height: int) -> bytes:
    content = bytearray(encoded(PHOTO, "GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


@pytest.mark.parametrize("make", [png_of, jpeg_of, gif_of])
def test_an_image_bomb_is_refused_before_its_pixels_are_there(make: Callable[[int, int], bytes]) -> None:
    import tracemalloc

    content = make(50_000, 50_000)
    tracemalloc.start()
    got = failure(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.reason == "too_many_pixels"
    assert "50000 x 50000" in got.detail
    assert peak < 5_000_000


def test_the_pixel_cap_is_the_callers() -> None:
    content = encoded(PHOTO, "PNG")
    assert failure(content, max_pixels=PHOTO.width * PHOTO.height - 1).reason == "too_many_pixels"
    assert pixels(content, max_pixels=PHOTO.width * PHOTO.height).shape == (200, 300, 3)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    content = encoded(PHOTO, "JPEG", progressive=True)
    at = content.rfind(b"\xff\xd9")
    assert failure(content[:at] + b"\xff\xda\x00\x02" * 600 + content[at:]).reason == "decode"


def test_a_png_with_a_broken_checksum_is_a_failure() -> None:
    content = bytearray(encoded(PHOTO, "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert failure(bytes(content)).reason in ("decode", "truncated")


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(FORMATS), data=st.data())
def test_no_damage_makes_it_raise(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(SMALL, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    result = decode(bytes(content), max_pixels=1_000_000)
    assert isinstance(result, Failure) or (result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3)


SMALL = photo(24, 16)
HEADS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBP", b"BM1234\0\0\0\0", b"II*\0"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=200))
def test_no_bytes_make_it_raise(head: bytes, rest: bytes) -> None:
    assert isinstance(decode(head + rest), Failure | np.ndarray)
