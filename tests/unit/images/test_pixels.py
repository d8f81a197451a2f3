"""See-through in every depth and kind of colour, frames that do not cover the canvas, what libjpeg passes over."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.images import decode
from tests.unit.images.pictures import bgr, encoded, photo

PHOTO = photo(60, 40)


def pixels(content: bytes) -> NDArray[np.uint8]:
    found = decode(content)
    assert isinstance(found, np.ndarray), found
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    colour: int, depth: int, samples: NDArray[Any], *chunks: tuple[bytes, bytes], interlaced: bool = False
) -> bytes:
    """samples: (height, width, channels) whole numbers of that depth."""
    high, wide = samples.shape[:2]
    passes = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
    raw = b""
    for left, across, top, down in passes if interlaced else [(0, 1, 0, 1)]:
        part = samples[top::down, left::across]
        if part.size:
            for row in part.reshape(len(part), -1):
                bits = "".join(f"{value:0{depth}b}" for value in row)
                raw += b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, interlaced))
    more = b"".join(chunk(*one) for one in chunks)
    data = zlib.compress(raw)
    half = len(data) // 2
    return (b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
            + chunk(b"IEND", b""))  # fmt: skip


CASES = [(colour, depth) for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16),
                                                6: (8, 16)}.items() for depth in depths]  # fmt: skip


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour", "depth"), CASES)
def test_a_png_of_every_colour_and_depth_lies_over_white(
    colour: int, depth: int, transparent: bool, interlaced: bool
) -> None:
    random = np.random.default_rng(colour * 100 + depth)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    top = (1 << depth) - 1
    samples = random.integers(0, top + 1, (11, 13, channels))
    if depth == 16 and colour in (0, 2):  # a grey whose high byte is the same, and which is not see-through
        samples[0, 0], samples[0, 1] = 0x1234, 0x1235
    key = samples[0, 0]
    chunks = []
    if colour == 3:
        palette = random.integers(0, 256, (top + 1, 3))
        chunks.append((b"PLTE", palette.astype(np.uint8).tobytes()))
        alphas = np.full(top + 1, 255)
        if transparent:
            alphas[: top // 2 + 1] = random.integers(0, 256, top // 2 + 1)
            chunks.append((b"tRNS", alphas[: top // 2 + 1].astype(np.uint8).tobytes()))
        rgb, alpha = palette[samples[:, :, 0]], alphas[samples[:, :, 0]] / 255
    else:
        eight = samples >> 8 if depth == 16 else samples * 255 // top
        rgb = eight[:, :, :1].repeat(3, 2) if channels < 3 else eight[:, :, :3]
        alpha = eight[:, :, -1] / 255 if colour in (4, 6) else np.ones((11, 13))
        if transparent and colour in (0, 2):
            chunks.append((b"tRNS", struct.pack(f">{channels}H", *key)))
            alpha = 1.0 - (samples == key).all(2)
    want = rgb * alpha[:, :, None] + 255 * (1 - alpha[:, :, None])
    got = pixels(png(colour, depth, samples, *chunks, interlaced=interlaced))
    assert np.abs(got[:, :, ::-1] - want).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True, "exact": True}), ("WEBP", {"quality": 95}),
                                               ("TIFF", {}), ("ICO", {}), ("ICO", {"bitmap_format": "bmp"}),
                                               ("AVIF", {"quality": 95}), ("JPEG2000", {})])  # fmt: skip
def test_what_is_see_through_shows_white_in_every_format(kind: str, options: dict[str, Any], mode: str) -> None:
    image = PHOTO.copy()
    image.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    image = image.convert("RGBA" if "bitmap_format" in options else mode)  # Pillow writes no other
    if kind == "ICO":
        image = image.resize((48, 48))
        options = {**options, "sizes": [(48, 48)]}
    over = Image.alpha_composite(Image.new("RGBA", image.size, (255,) * 4), image.convert("RGBA"))
    far = np.abs(pixels(encoded(image, kind, **options)).astype(int) - bgr(over))
    assert far.mean() <= (2.5 if options.get("quality") else 0.6)


def test_premultiplied_and_plain_alpha_of_a_tiff_are_told_apart() -> None:
    plain = np.zeros((4, 4, 4), np.uint8)
    plain[...] = (200, 100, 50, 128)
    multiplied = np.array(plain)
    multiplied[:, :, :3] = (plain[:, :, :3].astype(int) * 128 + 127) // 255
    want = (np.array([200, 100, 50]) * 128 + 255 * 127) / 255
    for values, extra in ((plain, 2), (multiplied, 1)):
        said, says = (struct.pack("<HHIHH", 338, 3, 1, value, 0) for value in (2, extra))
        content = encoded(Image.fromarray(values), "TIFF")
        assert said in content
        content = content.replace(said, says)
        assert np.abs(pixels(content)[0, 0, ::-1] - want).max() <= 2, extra


def gif(frame: tuple[int, int, int, int], transparent: int | None = None) -> bytes:
    """32 x 32; a frame of colour 1 (green) there, colour 2 (blue) at its first pixel; the background is red."""
    wide, high = frame[2:]
    codes = []
    for at in range(wide * high):
        codes += ([4] if at % 2 == 0 else []) + [2 if at == 0 else 1]
    bits = "".join(f"{code:03b}"[::-1] for code in [*codes, 5])
    data = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    see = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    return (b"GIF89a" + struct.pack("<HHBBB", 32, 32, 0x81, 0, 0) + bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
            + see + b"\x2c" + struct.pack("<HHHHB", *frame, 0) + b"\x02" + blocks + b"\0\x3b")  # fmt: skip


@pytest.mark.parametrize("transparent", [None, 2])
@pytest.mark.parametrize("frame", [(8, 8, 16, 16), (0, 0, 32, 31), (31, 31, 1, 1), (0, 0, 32, 32)])
def test_around_a_first_frame_that_is_smaller_than_the_canvas_there_is_white(
    frame: tuple[int, int, int, int], transparent: int | None
) -> None:
    left, top, wide, high = frame
    want = np.full((32, 32, 3), 255)
    want[top : top + high, left : left + wide] = (0, 255, 0)
    want[top, left] = (255, 255, 255) if transparent == 2 else (0, 0, 255)
    np.testing.assert_array_equal(pixels(gif(frame, transparent))[:, :, ::-1], want)


JPEG = encoded(PHOTO, "JPEG", quality=95)
TABLES = JPEG.index(b"\xff\xdb")


def put(what: bytes, at: int = TABLES) -> bytes:
    return JPEG[:at] + what + JPEG[at:]


def without(marker: int) -> bytes:
    out, at = JPEG[:2], 2
    while True:
        end = at + 2 + struct.unpack_from(">H", JPEG, at + 2)[0]
        if JPEG[at + 1] != marker:
            out += JPEG[at:end]
        if JPEG[at + 1] == 0xDA:
            return out + JPEG[end:]
        at = end


@pytest.mark.parametrize("reduce_to", [None, (8, 8)])
@pytest.mark.parametrize(
    "content",
    [put(b"\0"), put(b"junk" * 99), put(b"\xff" * 9), put(b"\xff\0\xff\0"), put(b"\xff\xd3"), put(b"\xff\x01"),
     put(b"\xff\xe5\0\0"), put(b"\xff\xe5\0\1"), put(b"\xff\xe3\0\x04abmore than it says"),
     put(b"\xff\xe1\0\x08Exif\0\0"), put(b"\xff\xfe\0\x06\xff\xd9\xff\xda"), without(0xC4), without(0xE0),
     JPEG + b"\0" * 700, JPEG + JPEG, put(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07")],
    ids=["a zero", "text", "fill bytes", "stuffed zeros", "restart", "TEM", "length 0", "length 1", "length too small",
         "empty EXIF", "markers in a comment", "no Huffman tables", "no JFIF", "zeros behind", "a second behind",
         "unknown Adobe transform"],
)  # fmt: skip
def test_what_libjpeg_passes_over_between_the_segments_costs_no_picture(
    content: bytes, reduce_to: tuple[int, int] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    got = decode(content, reduce_to=reduce_to)
    assert isinstance(got, np.ndarray), got
    want = decode(JPEG, reduce_to=reduce_to)
    np.testing.assert_array_equal(got, want)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sampling", ["1x1", "2x1", "1x2", "2x2", "4x1", "4x2", "1x4", "3x1"])
def test_jpegs_of_any_sampling_are_read_as_pillow_reads_them(sampling: str) -> None:
    """Of other samplings than the usual ones libjpeg's simple interface says nothing."""
    content = bytearray(encoded(PHOTO.convert("RGB"), "JPEG", subsampling=0))
    at = content.index(b"\xff\xc0") + 4 + 6
    wide, high = map(int, sampling.split("x"))
    content[at + 1] = wide << 4 | high  # the codes do not fit then, but both read the same of them
    try:
        want = np.asarray(Image.open(io.BytesIO(bytes(content))).convert("RGB"))[:, :, ::-1]
    except OSError:
        want = None
    got = decode(bytes(content))
    if want is None:
        assert not isinstance(got, np.ndarray)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
@pytest.mark.parametrize("reduce_to", [None, (8, 8)])
def test_inks_and_greys_have_pillows_colours_whole_and_reduced(mode: str, reduce_to: tuple[int, int] | None) -> None:
    content = encoded(photo(120, 80).convert(mode), "JPEG", quality=95)
    got = decode(content, reduce_to=reduce_to)
    assert isinstance(got, np.ndarray)
    want = Image.open(io.BytesIO(content)).convert("RGB").resize(got.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(got[:, :, ::-1].astype(int) - np.asarray(want)).mean() <= 2
