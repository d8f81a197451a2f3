"""Good inputs to begin from, made when they are needed so that the repository holds no binaries for them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_COLUMNS = ["partner_id", "external_id", "url", "content"]
_LARGEST = 64 * 1024
_NAME = "20231114T221320Z.000.00000.0-0123456789ab"


def of_files(folder: Path, pattern: str) -> list[bytes]:
    """The small files of a folder."""
    return [path.read_bytes() for path in sorted(folder.glob(pattern)) if path.stat().st_size <= _LARGEST]


def _rows(number: int) -> list[dict[str, object]]:
    return [
        {"partner_id": 7 + at % 2, "external_id": f"Größe {at}", "url": f'http://shop.example/"a",{at}.jpg?x={at}'}
        | ({"content": b"\xff\xd8\xff\x00"} if at % 3 == 0 else {})
        for at in range(number)
    ]


def tables(*endings: str) -> Iterator[bytes]:
    from tests.unit.codec.ref_files import written

    for ending in endings:
        for number in (0, 1, 20):
            yield written(_rows(number), f"refs.{ending}", _COLUMNS)


def dialects() -> Iterator[bytes]:
    """Text tables behind a byte that chooses how they are read (targets.py): each dialect, line end and packing."""
    import bz2
    import lzma

    from pipeline.codec.refs.packed import zstd  # type: ignore[attr-defined]

    rows = [
        ("id", "title", "url"),
        ("1", "5 inch", "http://a/1"),
        ("2", "a; b", "http://a/2"),
        ("3", "x", "http://a/3"),
    ]
    tables = [
        "".join(separator.join(row) + end for row in rows) for separator in ",\t;|" for end in ("\n", "\r", "\r\n")
    ]
    tables += ['id,title,url\n1,"5\\" pipe",http://a/\n2,"a ""b""\nc",http://a/\n3,"x,http://a/\n4,y,http://a/\n',
               "id\ttitle\turl\na\\\\b\tc\\\td\thttp://a/\n\\N\tx\\\ny\thttp://a/\n",
               'sep=;\nid;url\n"a;b";http://a/\n']  # fmt: skip
    for number, table in enumerate(tables):
        data = table.encode()
        yield bytes([8 * (number % 2)]) + data  # as CSV, as TSV
        yield bytes([5]) + table.encode("utf-16")
        yield bytes([32]) + gzip.compress(data, mtime=0)
        yield bytes([40]) + bz2.compress(data)
        yield bytes([48]) + zstd.compress(data)
        yield bytes([56]) + lzma.compress(data)
    yield bytes([16]) + (json.dumps({"url": "http://a/"}) + "\n" + json.dumps({"URL": "http://b/"}) + "\n").encode()
    yield bytes([24]) + b"http://a/\rhttp://b/\r\nhttp://c/"
    yield bytes([7]) + b"1,http://a/\n2,http://b/\n"


def avros() -> Iterator[bytes]:
    import fastavro

    kinds = ["null", "long", "string", "bytes", {"type": "array", "items": "int"}]
    fields = [{"name": "url", "type": ["null", "string"]}, {"name": "id", "type": ["null", "long", "string"]},
              {"name": "content", "type": ["null", "bytes"]}, {"name": "more", "type": kinds}]  # fmt: skip
    schema = {"type": "record", "name": "Ref", "fields": fields}
    rows = [
        {"url": f"http://a/{at}", "id": at if at % 2 else f"s{at}", "content": None, "more": [at]} for at in range(40)
    ]
    for codec in ("null", "deflate", "bzip2", "xz"):
        buffer = io.BytesIO()
        fastavro.writer(buffer, schema, rows, codec=codec, sync_interval=200, sync_marker=b"0123456789abcdef")
        yield buffer.getvalue()


def parquets() -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    yield from tables("parquet")
    rows = {
        "partner_id": pa.array(range(50), pa.uint16()),
        "item_id": pa.array(range(50), pa.int64()),
        "url": pa.array([f"http://shop.example/{at}" for at in range(50)], pa.large_string()),
        "content": pa.array([None, b"x" * 9] * 25, pa.binary()),
    }
    for codec in ("none", "snappy", "gzip", "zstd", "brotli", "lz4"):
        for version in ("1.0", "2.0"):
            buffer = io.BytesIO()
            dictionary = version == "1.0"
            parquet.write_table(pa.table(rows), buffer, compression=codec, use_dictionary=dictionary,
                                data_page_version=version, row_group_size=20)  # fmt: skip
            yield buffer.getvalue()


def orcs() -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import orc

    yield from tables("orc")
    table = pa.table({"item_id": list(range(40)), "url": [f"http://shop.example/{at % 5}" for at in range(40)]})
    for codec in ("uncompressed", "snappy", "zlib", "zstd", "lz4"):
        buffer = io.BytesIO()
        orc.write_table(table, buffer, compression=codec, stripe_size=64 * 1024, dictionary_key_size_threshold=0.9)
        yield buffer.getvalue()


def batches() -> Iterator[bytes]:
    from pipeline.codec import image_refs
    from pipeline.records import ImageRef

    yield b""
    yield image_refs.encode(
        [ImageRef(7, 2**64 - at - 1, f"sku-{at}", f"http://a/{at}", b"x" * at, at) for at in range(9)]
    )


def onnx_models() -> Iterator[bytes]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for opset in (11, 17):
        weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1), "weight")
        shape = numpy_helper.from_array(np.array([0, -1], np.int64), "shape")
        nodes = [
            helper.make_node("Conv", ["image", "weight"], ["wide"], name="conv", kernel_shape=[1, 1]),
            helper.make_node("Relu", ["wide"], ["sharp"]),
            helper.make_node("Reshape", ["sharp", "shape"], ["flat"]),
            helper.make_node("Softmax", ["flat"], ["out"], axis=1),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 4])
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 64])
        graph = helper.make_graph(nodes, "net", [image], [out], [weight, shape])
        yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


def means() -> Iterator[bytes]:
    import numpy as np

    from pipeline.codec.caffe_pb2 import BlobProto

    for shape in ((3,), (3, 4, 4), (1, 3, 2, 2)):
        buffer = io.BytesIO()
        np.save(buffer, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
        yield buffer.getvalue()
    old = BlobProto(num=1, channels=3, height=2, width=2)
    old.data.extend(range(12))
    yield old.SerializeToString()
    new = BlobProto()
    new.shape.dim.extend((3, 2, 2))
    new.double_data.extend(range(12))
    yield new.SerializeToString()


def indexes() -> Iterator[bytes]:
    entry = {
        "jobTimeStamp": 1_699_999_000_000,
        "outputFolder": "hdfs://nn/data/refs/1",
        "files": ["a.pb", {"path": "b.pb", "size": 3}],
        "outputSize": "9",
    }
    yield json.dumps({"7": entry, "8": {**entry, "files": {"c.pb": 1}, "outputFolder": "refs/8"}}).encode()
    yield json.dumps({"outputByPartner": [{"partnerId": 7, **entry}, entry]}).encode()
    yield json.dumps({"partners": {"007": {**entry, "files": "a.csv", "jobTimeStamp": 1_699_999_000.5}}}).encode()


def manifests() -> Iterator[bytes]:
    data = {"key": f"shop/d/{_NAME}/x/refs.pb", "size": 9, "sha256": "0" * 64, "rows": 3}
    out_file = {"name": "features/a.parquet", "key": "k", "size": 1, "sha256": "0" * 64, "rows": 1}
    snapshot = {"source": "refs/a.csv", "version": "20231114T221320Z",
                "files": [{"path": "refs/a.csv", "length": 9, "modified": 1}]}  # fmt: skip
    place = {"file": 0, "position": 0, "row": 0}
    counts = {"refs": 3, "rows": 3, "rejected": 0}
    bodies: list[dict[str, object]] = [
        {"lake": "shop", "set": "demo", "snapshot": snapshot, "snapshot_digest": "x", "batch_refs": 9,
         "batch_bytes": 9, "batches": 128, "due": "20231114T221320Z", "parent": _NAME, "cursor": place},
        {"data": data, **counts, "cursor": place,
         "rejections": [{"file": "a", "row": 1, "offset": 3, "why": "w"}]},
        {"batches": 1, **counts, "next": place},
        {"process": "host.boot.1", "at": "20231114T221320Z", "kind": "strike", "cause": "killed"},
        {"kind": "shard", "refs": 3, "features": 3, "features_file": data, "dim": 4},
        {"fingerprint": "f" * 64, "dim": 4, "at": "20231114T221320Z", "refs": 3, "features": 3, "failures": 0,
         "duplicates": 0, "reasons": {"http_4xx": 1}, "carried": data,
         "partners": {"7": {"files": [out_file], "features": 3, "failures": 0}}},
        {"folders": ["features/x"], "at": "20231114T221320Z"},
        {"version": 3, "partners": {"7": {"jobTimeStamp": "1", "outputFolder": "o", "files": ["a"], "outputSize": 1}},
         "current": {"7": {"folder": "_current/7/1", "number": 1, "files": [], "features": 1, "newest": _NAME}}},
        {"token": "x"},
    ]  # fmt: skip
    for body in bodies:
        yield json.dumps({"format": 1, "nonce": "n", **body}).encode()


def images() -> Iterator[bytes]:
    from PIL import Image

    picture = Image.radial_gradient("L").resize((48, 40)).convert("RGB")
    see_through = picture.copy()
    see_through.putalpha(128)
    for mode, kind, more in (
        (picture, "JPEG", {"quality": 80}),
        (picture, "JPEG", {"progressive": True, "quality": 50}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}),
        (see_through, "PNG", {}),
        (picture.convert("P"), "PNG", {}),
        (picture.convert("P"), "GIF", {}),
        (picture, "GIF", {"save_all": True, "append_images": [picture.rotate(90)]}),
        (picture, "WEBP", {"lossless": True}),
        (see_through, "WEBP", {"quality": 60}),
        (picture, "BMP", {}),
        (picture, "TIFF", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (picture, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (picture, "AVIF", {"speed": 10}),
        (picture, "JPEG2000", {}),
        (picture, "ICO", {"sizes": [(16, 16)]}),
    ):
        buffer = io.BytesIO()
        mode.save(buffer, kind, **more)  # type: ignore[arg-type]
        yield buffer.getvalue()


def answers() -> Iterator[bytes]:
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\nhello'
    yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: ../b.jpg?x=1#y\r\n\r\n"
    yield b"HTTP/1.0 429\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n"
    for encoding, body in ((b"gzip", gzip.compress(b"<html>" * 99, mtime=0)), (b"deflate", b"x\x9c\x03\0\0\0\0\x01")):
        yield b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nLast-Modified: x\r\n\r\n%s" % (encoding, body)


def exif_blocks() -> Iterator[bytes]:
    """Orientations of several types, in both orders, alone and among other tags."""
    from PIL import Image

    for order, head in (("<", b"II*\0"), (">", b"MM\0*")):
        for kind, cell in ((3, "HH"), (4, "I"), (9, "i"), (1, "BBBB"), (11, "f")):
            values = (6, 0, 0, 0)[: len(cell)]
            entry = struct.pack(order + "HHI" + cell, 0x0112, kind, 1, *values)
            yield head + struct.pack(order + "IH", 8, 1) + entry + bytes(4)
    full = Image.Exif()
    full.update({0x0112: 6, 0x010F: "a maker", 0x8298: "\u00a9 somebody", 0x011A: 300.0})
    yield full.tobytes()[6:]


def on_its_side(exif: bytes) -> bytes:
    """A JPEG of 96 x 64 with such a block."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (96, 64), (200, 30, 30)).save(out, "JPEG")
    plain = out.getvalue()
    body = b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def urls() -> list[bytes]:
    return [
        b"http://shop.example/a.jpg",
        b"https://user:word@xn--bcher-kva.example:8443/%E4/../b?c=d&amp;e#f",
        "//Bücher.example\\a b".encode(),
        b"http://[::ffff:127.0.0.1]/",
        b"http://0x7f.1/",
        b"data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        b"file:///data/a.jpg",
        b"SKU%252F1 A%2",
    ]


def shards() -> Iterator[bytes]:
    import numpy as np

    from pipeline.codec.shards import FeatureRow, write_features

    when = datetime(2026, 1, 1, tzinfo=UTC)
    fields = {"partner_id": 7, "external_id": "x", "url": "http://a/", "content_sha256": b"\0" * 32, "fetched_at": when}
    with tempfile.TemporaryDirectory() as scratch:
        for number in (1, 70):
            path = Path(scratch) / str(number)
            rows = [FeatureRow(item_id=at, ordinal=at, **fields) for at in range(number)]  # type: ignore[arg-type]
            write_features(path, rows, np.ones((number, 4), np.float32))
            yield path.read_bytes()


def reuse_pages() -> Iterator[bytes]:
    """Behind a letter: a record without its checksum, or an index."""
    import numpy as np

    from pipeline.codec.reuse_pages import PageIndex, Remembered, digests_of, encode

    when = datetime(2026, 1, 1, tzinfo=UTC)
    for etag, values in (('"x"', np.ones(4, np.float32)), (None, b"an image")):
        record = encode(Remembered(bytes(32), bytes(32), bytes(32), when, etag, None, None, values))
        yield b"r" + record[16:]
    for number in (0, 3):
        ends = np.arange(1, number + 1, dtype=np.uint64) * 200
        index = PageIndex("ab" * 32, "an engine", ("a key",), digests_of([bytes(32)] * number), ends)
        yield b"i" + index.encode()


def bodies() -> list[bytes]:
    """Compressed bodies behind a byte that chooses a coding: gzip, x-gzip, deflate, br, zstd; with 64 added, twice."""
    import brotli
    import zstandard

    jpeg = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
    empty = zlib.compressobj(9, zlib.DEFLATED, 31)
    bare = zlib.compressobj(wbits=-15)
    zstd = zstandard.ZstdCompressor()
    return [
        b"\0" + gzip.compress(jpeg, mtime=0),
        b"\0" + empty.compress(b"") + empty.flush(),
        b"\x40" + gzip.compress(gzip.compress(jpeg, mtime=0), mtime=0),
        b"\2" + zlib.compress(jpeg),
        b"\2" + bare.compress(jpeg) + bare.flush(),
        b"\3" + brotli.compress(jpeg),
        b"\3" + brotli.compress(bytes(2**20)),
        b"\4" + zstd.compress(jpeg),
        b"\4" + zstd.compress(b""),
        b"\4" + zstd.compress(bytes(2**20)),
        b"\4" + b"\x50\x2a\x4d\x18\4\0\0\0abcd" + zstd.compress(b"x"),
        b"\0" + b"A: b\r\nContent-Length: 7\r\n",
    ]


def archives() -> Iterator[bytes]:
    """tar, tar.gz and zip of few small pictures, and the hostile ones that are small."""
    from tests.unit.service.hostile_archives import CASES, Zipped, entry, pax, tar, zip_of

    yield tar(pax("path=ä/b.png".encode()), entry(b"a/x.png"))
    yield gzip.compress(tar(entry(b"l", b"a/" + b"b" * 150 + b".png\0", kind=b"L"), entry(b"a/x.png")), mtime=0)
    yield zip_of(Zipped(b"a/stored.png", method=0), Zipped("ä/x.png".encode(), flags=0x800))
    for name in ("tar: a sparse file of pax", "zip: two names for one entry", "tar: a pipe", "zip: a symbolic link"):
        yield CASES[name].make()


def specifications() -> Iterator[bytes]:
    """A solver and a net, with a line of dashes between them."""
    folder = Path(__file__).parents[2] / "sample" / "digits"
    solver, net = (folder / name for name in ("solver.prototxt", "train_test.prototxt"))
    yield solver.read_bytes() + b"\n---\n" + net.read_bytes()
    small = b'layer { name: "in" type: "ImageData" top: "data" top: "label" image_data_param { batch_size: 2 } }\n'
    small += (
        b'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }\n'
    )
    small += b'layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "l" }\n'
    yield b'base_lr: 0.1 lr_policy: "fixed" max_iter: 9\n---\n' + small
    yield b'base_lr: 0.1 lr_policy: "step" stepsize: 2 max_iter: 9 net_param {\n' + small + b"}\n---\n"
