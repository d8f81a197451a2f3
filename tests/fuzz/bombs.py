"""Small files that want to become large: each is read here, in a process of its own, and what it took is printed."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable

from tests import peak

GOOD = [{"partner_id": 7, "external_id": f"sku-{at}", "url": f"http://shop.example/{at}"} for at in range(10)]
COLUMNS = ["partner_id", "external_id", "url"]


def _good(name: str) -> bytes:
    from tests.unit.codec.ref_files import written

    return written(GOOD, name, COLUMNS)


def _gzip_of(before: bytes, piece: bytes, times: int, after: bytes) -> bytes:
    """gzip of piece x times, without its ever being held."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(before)
        for _ in range(times):
            file.write(piece)
        file.write(after)
    return out.getvalue()


def gzip_csv() -> bytes:
    """A line of 384 MiB between good ones."""
    good = _good("a.csv").splitlines(keepends=True)
    return _gzip_of(b"".join(good[:6]), b"a" * 2**20, 384, b"\r\n" + b"".join(good[6:]))


def gzip_jsonl() -> bytes:
    good = _good("a.jsonl").splitlines(keepends=True)
    return _gzip_of(b"".join(good[:5]) + b'{"url": "', b"[" * 2**20, 384, b'"}\n' + b"".join(good[5:]))


def gzip_protobuf() -> bytes:
    """A record that says it has a terabyte, and zeros."""
    return _gzip_of(_good("a.pb") + b"\x80\x80\x80\x80\x80\x20", bytes(2**20), 384, b"")


def parquet_dictionary() -> bytes:
    """400 rows of one text of 32 MiB, which stands in the file once; and good rows."""
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.array(["x" * 2**25])
    schema = pa.schema([("external_id", pa.string()), ("url", pa.dictionary(pa.int32(), pa.string()))])
    bomb = pa.table(
        [pa.array(["sku"] * 400), pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), text)], schema=schema
    )
    urls = pa.array([row["url"] for row in GOOD]).dictionary_encode()
    good = pa.table([pa.array([row["external_id"] for row in GOOD]), urls], schema=schema)
    buffer = io.BytesIO()
    with parquet.ParquetWriter(buffer, schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(bomb)
        writer.write_table(good)
    return buffer.getvalue()


def parquet_zstd() -> bytes:
    """300 images of 1 MiB of zeros in pages of a few bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    schema = pa.schema([("external_id", pa.string()), ("url", pa.string()), ("content", pa.binary())])
    with parquet.ParquetWriter(buffer, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(3):
            columns = [["sku"] * 100, ["http://shop.example/"] * 100, [bytes(2**20)] * 100]
            writer.write_table(pa.table(columns, schema=schema))
    return buffer.getvalue()


def png_profile() -> bytes:
    """A small picture whose colour profile and text inflate to 384 MiB each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    large = b"".join(packer.compress(bytes(2**20)) for _ in range(384)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
    middle = chunk(b"iCCP", b"icc\0\0" + large) + chunk(b"PLTE", b"abc") + chunk(b"tRNS", b"\x80")
    rows = zlib.compress(bytes(9) * 8)
    more = chunk(b"zTXt", b"Comment\0\0" + large)
    return b"\x89PNG\r\n\x1a\n" + head + middle + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _layers(content: bytes, *pack: Callable[[bytes], bytes]) -> bytes:
    for one in pack:
        content = one(content)
    return content


def bodies() -> dict[str, tuple[str, Callable[[], bytes]]]:
    """Answers of a host: Content-Encoding, body.  Each wants to become 256 MiB, or is very many members."""
    import brotli
    import zstandard

    zeros, times = bytes(2**20), 256
    zstd = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=23))

    def zstded() -> bytes:
        packer = zstd.compressobj()
        return b"".join(packer.compress(zeros) for _ in range(times)) + packer.flush()

    big = lambda: _gzip_of(b"", zeros, times, b"")  # noqa: E731
    return {
        "gzip_thrice": ("gzip, gzip, gzip", lambda: _layers(big(), gzip.compress, gzip.compress)),
        "gzip_in_brotli": ("gzip, br", lambda: _layers(big(), brotli.compress)),
        "zstd": ("zstd", zstded),
        "gzip_members": ("gzip", lambda: gzip.compress(b"", mtime=0) * 90_000),
        "zstd_frames": ("zstd", lambda: zstd.compress(b"") * 150_000),
    }


def _read_body(data: bytes, encoding: str) -> dict[str, object]:
    from pipeline.fetch.encoding import decompress
    from pipeline.records import Failure

    found = decompress(data, encoding, 32 * 2**20)
    return {
        "reason": found.reason if isinstance(found, Failure) else "",
        "made": len(found) if isinstance(found, bytes) else 0,
    }


def _jpeg(side: int, **more: object) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (side, side), (10, 200, 10)).save(out, "JPEG", **more)  # type: ignore[arg-type]
    return out.getvalue()


def _sized(jpeg: bytes, side: int) -> bytes:
    """The same with another size in its frame."""
    at = next(at for at in range(len(jpeg)) if jpeg[at] == 0xFF and jpeg[at + 1] in (0xC0, 0xC2))
    return jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :]


def _hidden(side: int, where: bytes) -> bytes:
    """A large frame in what may look like a segment, before a small one."""
    large = _sized(_jpeg(64), side)[2:]
    return b"\xff\xd8" + where + struct.pack(">H", len(large) + 2) + large + _jpeg(16)[2:]


def _many_scans(side: int, times: int) -> bytes:
    plain = _jpeg(side, progressive=True, quality=30)
    table = plain.rfind(b"\xff\xc4", 0, plain.rfind(b"\xff\xda"))
    return plain[:-2] + plain[table:-2] * times + b"\xff\xd9"


def _png(side: int, *beside: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(min(side, 4000))) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    more = b"".join(chunk(*one) for one in beside)
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _icon(body: bytes) -> bytes:
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(body), 22) + body


def _says(kind: str, box: bytes, at: int, side: int) -> bytes:
    """A picture whose container says 16 x 16."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (side, side), 7).save(out, kind, **({"speed": 10} if kind == "AVIF" else {}))
    data = bytearray(out.getvalue())
    where = data.find(box) + at
    data[where : where + 8] = struct.pack(">II", 16, 16)
    return bytes(data)


def _tiles(side: int) -> bytes:
    """A small TIFF of one tile that is large."""
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 200),
        (325, 900),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(200) + zlib.compress(bytes(2**20))


def _dib(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side * 2, 1, 8, 1, 0, 0, 0, 256, 0)
    return head + bytes(1024) + b"\0\1"


IMAGES: dict[str, Callable[[], bytes]] = {
    "jpeg, a frame behind a stuffed zero": lambda: _hidden(30_000, b"\xff\0"),
    "jpeg, a frame behind a restart": lambda: _hidden(30_000, b"\xff\xd0"),
    "jpeg, a frame behind junk": lambda: _hidden(30_000, b"ab"),
    "jpeg, two frames": lambda: _jpeg(16)[:2] + _sized(_jpeg(64), 30_000)[2:-2][:400] + _jpeg(16)[2:],
    "jpeg, 500 scans of 25 million pixels": lambda: _many_scans(5000, 495),
    "jpeg, 50 scans of 9 million pixels": lambda: _many_scans(3000, 45),
    "jpeg, 5000 scans": lambda: _many_scans(64, 5000),
    "jpeg, a million restarts in its header": lambda: b"\xff\xd8" + b"\xff\xd0" * 10**6 + _jpeg(16)[2:],
    "jpeg, a hundred thousand segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 10**5 + _jpeg(16)[2:],
    "png, 30,000 a side": lambda: _png(30_000),
    "png, texts beside it": lambda: _png(64, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))] * 40),
    "png, EXIF in a text": lambda: _png(
        64, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\n" + b"41" * 2**25))
    ),
    "png, a hundred thousand chunks": lambda: _png(64, *[(b"teSt", b"")] * 10**5),
    "ico, a png within": lambda: _icon(_png(30_000)),
    "ico, a bitmap within": lambda: _icon(_dib(20_000)),
    "avif, 12,000 a side says 16": lambda: _says("AVIF", b"ispe", 8, 12_000),
    "jp2, 8,000 a side says 16": lambda: _says("JPEG2000", b"ihdr", 4, 8_000),
    "tiff, a tile of 30,000 a side": lambda: _tiles(30_000),
    "gif, a frame beyond its canvas": lambda: b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + b","
    + struct.pack("<HHHHB", 0, 0, 65_000, 65_000, 0) + b"\x02\x02\x44\x01\0;",
    "gif, half a million extensions": lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\0" * 500_000 + b";",
}  # fmt: skip
PIXELS = 9_000_000
"""That a picture may have here."""


REFS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip_csv": ("refs.csv", gzip_csv),
    "gzip_jsonl": ("refs.jsonl", gzip_jsonl),
    "gzip_protobuf": ("refs.pb", gzip_protobuf),
    "parquet_dictionary": ("refs.parquet", parquet_dictionary),
    "parquet_zstd": ("refs.parquet", parquet_zstd),
}


def _read_refs(data: bytes, name: str) -> dict[str, object]:
    from tests.unit.codec.ref_files import reader

    found = reader(data, name, 7)
    refs, rejected, whys = 0, 0, []
    while True:
        taken = found.take(1024, 2**26)
        refs, rejected = refs + len(taken.refs), rejected + taken.rejected
        whys += [one.why for one in taken.samples]
        if taken.ended:
            return {"refs": refs, "rejected": rejected, "whys": whys}


def _read_image(data: bytes) -> dict[str, object]:
    from pipeline.images import decode
    from pipeline.records import Failure

    found = decode(data)
    return {"reason": found.reason if isinstance(found, Failure) else ""}


def image_costs() -> None:
    """A JSON line for each image: what became of it, its bytes, processor seconds and memory that it took."""
    from pipeline.images import decode
    from pipeline.records import Failure

    (
        decode(_jpeg(64)),
        decode(_png(64)),
        decode(_says("AVIF", b"ispe", 8, 16)),
        decode(_says("JPEG2000", b"ihdr", 4, 16)),
    )
    for name, make in IMAGES.items():
        data = make()
        before, began = peak.forget(), time.process_time()
        found = decode(data, max_pixels=PIXELS)
        spent = time.process_time() - began
        said = found.reason if isinstance(found, Failure) else "x".join(map(str, found.shape))
        print(
            json.dumps({"name": name, "said": said, "size": len(data), "seconds": spent, "grown": peak.held() - before})
        )


def main(name: str) -> None:
    """Facts as JSON; grown: bytes of memory beyond what reading a good file of the kind takes."""
    from pipeline.images import decode

    if name == "images":
        return image_costs()
    read: Callable[[bytes], dict[str, object]]
    if name.startswith("body_"):
        encoding, make = bodies()[name.removeprefix("body_")]
        data = make()
        read = lambda data: _read_body(data, encoding)  # noqa: E731
        read(data[:64])
    elif name == "png_profile":
        data, read = png_profile(), _read_image
        decode(data[:64])
    else:
        file, make = REFS[name]
        data = make()
        read = lambda data: _read_refs(data, file)  # noqa: E731
        read(_good(file))
    before = peak.forget()
    began = time.process_time()
    facts = read(data)
    grown = peak.held() - before
    print(json.dumps({**facts, "size": len(data), "grown": grown, "seconds": time.process_time() - began}))


if __name__ == "__main__":
    main(sys.argv[1])
