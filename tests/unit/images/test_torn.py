"""Torn files of every format are `truncated`; a JPEG that was torn and patched is marked; nothing goes to stderr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.images import Preparation
from pipeline.images.decoding import Decoded, read
from pipeline.records import Failure
from pipeline.settings import Preprocess
from tests.unit.images.pictures import encoded, photo

PHOTO = photo(120, 80)
END = b"\xff\xd9"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}), "progressive": ("JPEG", {"progressive": True}), "png": ("PNG", {}), "gif": ("GIF", {}),
    "webp": ("WEBP", {}), "webp lossless": ("WEBP", {"lossless": True}), "bmp": ("BMP", {}), "tiff": ("TIFF", {}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}), "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {}), "jp2": ("JPEG2000", {}), "j2k": ("JPEG2000", {"no_jp2": True}), "ico": ("ICO", {}),
    "ico bmp": ("ICO", {"bitmap_format": "bmp"}),
}  # fmt: skip


def seen(content: bytes) -> Decoded:
    found = read(content, 10**8, None)
    assert isinstance(found, Decoded), found
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_ends_anywhere_before_its_end_is_truncated_and_may_be_fetched_again(name: str) -> None:
    kind, options = KINDS[name]
    content = encoded(PHOTO, kind, **options)
    whole = seen(content).pixels
    places = {*range(1, 48), *range(48, len(content), len(content) // 40), *range(len(content) - 12, len(content))}
    for at in sorted(places):
        got = read(content[:at], 10**8, None)
        if isinstance(got, Failure):
            assert (got.reason, got.retriable) == ("truncated", True), (at, got)
        else:  # nothing of the picture lay behind
            np.testing.assert_array_equal(got.pixels, whole, str(at))
            assert at > len(content) - 4


def torn(content: bytes, part: float) -> bytes:
    """A part of it, and an end marker."""
    return content[: int(len(content) * part)] + END


def zeros(content: bytes) -> bytes:
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third :]


def junk(content: bytes) -> bytes:
    """Libjpeg passes over it, and would speak of it before it speaks of anything else."""
    at = content.index(b"\xff\xdb")
    return content[:at] + b"\0\0" + content[at:]


JPEGS = [
    encoded(PHOTO, "JPEG"), encoded(PHOTO, "JPEG", progressive=True), encoded(PHOTO.convert("L"), "JPEG"),
    encoded(PHOTO.convert("CMYK"), "JPEG"), encoded(PHOTO, "JPEG", restart_marker_rows=1),
]  # fmt: skip


@pytest.mark.parametrize("damage", [lambda c: torn(c, 0.5), lambda c: torn(c, 0.8), zeros, lambda c: junk(zeros(c)),
                                    lambda c: junk(torn(c, 0.6))])  # fmt: skip
@pytest.mark.parametrize("content", JPEGS, ids=["plain", "progressive", "grey", "cmyk", "restarts"])
def test_a_torn_jpeg_with_an_end_marker_is_decoded_and_its_damage_said(
    content: bytes, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    found = seen(damage(content))
    assert found.pixels.shape == (80, 120, 3)
    assert found.damage.startswith("Corrupt JPEG data: ")
    assert "extraneous bytes before marker 0xdb" not in found.damage
    assert capfd.readouterr() == ("", "")


def test_damaged_jpegs_are_failures_where_the_settings_say_so_and_good_ones_are_not() -> None:
    strict = Preparation(Preprocess(damaged="fail"), (32, 32))
    kind = Preparation(Preprocess(), (32, 32))
    bad = torn(JPEGS[0], 0.5)
    got = strict.noted(bad)
    assert isinstance(got, Failure)
    assert (got.reason, got.retriable, got.detail) == (
        "truncated", True, "Corrupt JPEG data: premature end of data segment",
    )  # fmt: skip
    kept = kind.noted(bad)
    assert not isinstance(kept, Failure)
    assert kept[1] == got.detail
    for good in (*JPEGS, junk(JPEGS[0])):
        there = strict.noted(good)
        assert not isinstance(there, Failure)
        assert there[1] == ""


def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole_and_one_that_lacks_more_is_torn() -> None:
    plain, progressive = JPEGS[:2]
    found = seen(plain[:-2])
    np.testing.assert_array_equal(found.pixels, seen(plain).pixels)
    assert found.damage == "the JPEG has no end marker"
    for torn_one in (plain[:-1], plain[:-9], progressive[:-2]):
        got = read(torn_one, 10**8, None)
        assert isinstance(got, Failure)
        assert got.reason == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO"])
def test_no_decoder_writes_to_the_terminal_whatever_it_meets(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(7)
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    content = np.frombuffer(encoded(PHOTO, kind, **options), np.uint8)
    for _ in range(60):
        bad = content.copy()
        bad[random.integers(0, len(bad), 4)] = random.integers(0, 256, 4)
        read(bad.tobytes(), 10**6, None)
    palette = encoded(PHOTO.quantize(16), "PNG") if kind == "PNG" else b""
    if palette:  # an index beyond the palette, a profile that libpng knows to be wrong
        read(palette.replace(b"PLTE", b"PLTE"), 10**6, None)
        read(encoded(PHOTO, "PNG", icc_profile=b"\0" * 200), 10**6, None)
    assert capfd.readouterr().err == ""


def test_other_formats_that_are_not_read_here_are_named_with_the_package_that_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    for content, name, module in (
        (heic, "HEIC", "pillow_heif"), (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL", "pillow_jxl"),
        (b"\xff\x0a" + bytes(40), "JPEG XL", "pillow_jxl"),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, module, None)
        got = read(content, 10**8, None)
        package = {"HEIC": "pillow-heif", "JPEG XL": "pillow-jxl-plugin"}[name]
        assert got == Failure("decode", f"it is {name}; the package {package} reads it")


def test_an_image_is_known_by_its_compatible_brands_where_its_major_one_names_a_container_alone() -> None:
    avif = encoded(PHOTO, "AVIF")
    want = seen(avif).pixels
    for brand in (b"mif1", b"msf1", b"miaf", b"MA1B", b"avis"):
        brands = avif[:8] + brand + avif[12:]
        np.testing.assert_array_equal(seen(brands).pixels, want)
