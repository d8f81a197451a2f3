"""Bodies: what they begin with, how they are packed, and those that stand in their URL or in a folder."""

from __future__ import annotations

import base64
import gzip
import io
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.fetch.encoding import KNOWN, decompress
from pipeline.fetch.inline import is_data, is_file, read_data, read_file
from pipeline.fetch.sniff import image_format, looks_like
from pipeline.records import Failure

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize(
    ("writer", "name"),
    [
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("BMP", "bmp"),
        ("TIFF", "tiff"),
        ("JPEG2000", "jpeg2000"),
        ("ICO", "ico"),
        ("AVIF", "avif"),
    ],
)
def test_what_an_encoder_writes_is_recognised(writer: str, name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 10, 10)).save(out, writer)
    assert image_format(out.getvalue()[:64]) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", "avif"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "heic"),
        (b"\x00\x00\x00\x1cftypisom\x00\x00\x00\x00isommp42avif", "avif"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", None),
        (b"BM is also how a text may begin", None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"%PDF-1.7", None),
        (b"", None),
        (b"\xff\xd8", None),
    ],
)
def test_containers_are_told_apart_by_what_they_hold(head: bytes, name: str | None) -> None:
    assert image_format(head) == name


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"  <!DOCTYPE html>", "html"),
        (b"\xef\xbb\xbf<html>", "html"),
        (b"<svg xmlns=", "xml or svg"),
        (b'{"error"', "json"),
        (b"\x00\x01", "unknown format"),
    ],
)
def test_what_is_no_image_is_named_where_it_is_known(head: bytes, words: str) -> None:
    assert looks_like(head) == words


@given(st.sampled_from(KNOWN), st.binary(max_size=5000))
def test_what_was_packed_comes_out_as_it_was(encoding: str, content: bytes) -> None:
    assert decompress(PACK[encoding](content), encoding, 5000) == content


@given(st.sampled_from(KNOWN), st.binary(min_size=2, max_size=5000), st.data())
def test_one_byte_over_the_cap_is_too_large(encoding: str, content: bytes, data: st.DataObject) -> None:
    cap = data.draw(st.integers(1, len(content) - 1))
    assert decompress(PACK[encoding](content), encoding, cap) == Failure.of("too_large", "after decompression")


@given(st.sampled_from(KNOWN), st.binary(max_size=300))
def test_no_bytes_make_unpacking_an_exception(encoding: str, junk: bytes) -> None:
    assert isinstance(decompress(junk, encoding, 1000), bytes | Failure)


def test_several_gzip_members_are_one_body_under_one_cap() -> None:
    packed = gzip.compress(b"a" * 600) + gzip.compress(b"b" * 600)
    assert decompress(packed, "gzip", 1200) == b"a" * 600 + b"b" * 600
    assert decompress(packed, "gzip", 1199) == Failure.of("too_large", "after decompression")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_very_many_members_cost_what_they_weigh(encoding: str) -> None:
    """Twice as many cost twice as much, not four times."""
    empty = PACK[encoding](b"")

    def cost(number: int) -> float:
        body = empty * number
        began = time.process_time()
        assert decompress(body, encoding, 1000) == b""
        return time.process_time() - began

    cost(1000)
    few = min(cost(10_000) for _ in range(3))
    assert cost(80_000) < 24 * few  # 64 times as much, were it the square


def test_a_bare_deflate_stream_is_read_too() -> None:
    packer = zlib.compressobj(wbits=-15)
    assert decompress(packer.compress(b"abc") + packer.flush(), "deflate", 10) == b"abc"


@given(st.binary(min_size=1, max_size=200))
def test_a_data_url_gives_its_bytes_back(content: bytes) -> None:
    packed = base64.b64encode(content).decode()
    for url in (
        f"data:image/png;base64,{packed}",
        f"DATA:;BASE64,{packed.rstrip('=')}",
        f" data:,{quote(content)}",
        f"data:image/png;charset=x; base64 ,{quote(packed)}",
    ):
        assert is_data(url)
        assert read_data(url, 200) == content


@pytest.mark.parametrize(
    ("url", "reason", "detail"),
    [
        ("data:image/png;base64", "bad_url", "data without a comma"),
        ("data:;base64,a*b", "bad_url", "data is not base64"),
        ("data:;base64,a", "bad_url", "data is not base64"),
        ("data:,", "empty", "data"),
        ("data:," + "x" * 101, "too_large", "data"),
        ("data:," + "x" * 1001, "too_large", "data"),
    ],
)
def test_a_bad_data_url_is_a_failure(url: str, reason: str, detail: str) -> None:
    outcome = read_data(url, 100)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.detail, outcome.retriable) == (reason, detail, False)


def test_files_are_read_under_the_allowed_folders_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "größe 1.gif").write_bytes(b"GIF89a")
    (outside / "secret").write_bytes(b"GIF89a")
    (inside / "link").symlink_to(outside / "secret")
    os.mkfifo(inside / "pipe")
    allowed = [str(inside)]
    good = (inside / "größe 1.gif").as_uri()
    assert is_file(good)
    assert read_file(good, allowed, 100) == b"GIF89a"
    assert read_file(str(inside / "größe 1.gif"), allowed, 100) == b"GIF89a"
    for bad in (inside / "link", outside / "secret", inside / ".." / "out" / "secret", Path("/etc/passwd")):
        assert read_file(str(bad), allowed, 100) == Failure.of("blocked", "scheme file")
    assert read_file(str(inside / "pipe"), allowed, 100) == Failure.of("blocked", "not a file")
    assert read_file(str(inside), allowed, 100) == Failure.of("blocked", "not a file")
    assert read_file(str(inside / "missing"), allowed, 100) == Failure.of("http_4xx", "404")
    assert read_file(good, allowed, 5) == Failure.of("too_large", "data")
    assert read_file(f"file://elsewhere{inside}/x", allowed, 100) == Failure.of("blocked", "scheme file")
