"""What is fed: each reader of foreign bytes with good inputs to begin from and the words of its format."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import CurrentManifest, Index, PartnerManifest, Proposal
from pipeline.ledger.manifest import Attempt, AttemptEnd, Batch, Done, End, Out, Plan, Result
from pipeline.records import Failure
from tests import peak
from tests.fuzz import seeds

CORPUS = Path(__file__).with_name("corpus")
TINY = Path(__file__).parents[1] / "golden" / "tiny"
_TAKEN_ROWS = 50_000  # an input that declares a great many equal rows is no finding as long as memory stays flat


@dataclass(frozen=True)
class Target:
    """read: bytes -> anything that tells outcomes apart; may raise PipelineError and nothing else."""

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()

    def inputs(self) -> list[bytes]:
        """The seeds, and what the corpus keeps of earlier findings."""
        return [*self.seeds(), *(path.read_bytes() for path in sorted(CORPUS.glob(f"{self.name}-*")))]


@cache
def _file(suffix: str) -> Path:
    handle, name = tempfile.mkstemp(suffix=suffix)
    os.close(handle)
    return Path(name)


def _refs(name: str) -> Callable[[bytes], object]:
    """A ref file, taken in small pieces, as ship takes it."""

    def read(data: bytes) -> object:
        from pipeline.codec.refs.tables import Cursor, detect, open_refs
        from pipeline.settings import Columns

        reader = open_refs(io.BytesIO(data), name, detect(name), Columns(), 7, Cursor(0, 0))
        whys: set[str] = set()
        rows = 0
        while rows < _TAKEN_ROWS:
            taken = reader.take(1024, 2**20)
            if taken.rows != len(taken.refs) + taken.rejected:
                raise AssertionError("the law does not hold")
            whys.update(rejected.why for rejected in taken.samples)
            rows += taken.rows
            if taken.ended:
                break
        reader.close()
        return sorted(whys)

    return read


def _take(data: bytes, name: str, how: object, at: object, most: int) -> tuple[list[object], list[str], object]:
    """Refs, reasons and the places between takes of a few refs."""
    from pipeline.codec.refs.tables import Cursor, How, detect, open_refs
    from pipeline.settings import Columns

    assert isinstance(how, How)
    assert isinstance(at, Cursor)
    reader = open_refs(io.BytesIO(data), name, detect(name), Columns(), 7, at, how)
    refs: list[object] = []
    whys: set[str] = set()
    places: list[object] = []
    rows = 0
    while rows < _TAKEN_ROWS:
        taken = reader.take(most, 2**20)
        if taken.rows != len(taken.refs) + taken.rejected:
            raise AssertionError("the law does not hold")
        refs += [ref[:5] for ref in taken.refs]
        whys.update(rejected.why for rejected in taken.samples)
        rows += taken.rows
        if taken.ended:
            break
        places.append((len(refs), taken.cursor))
    reader.close()
    return refs, sorted(whys), places


def _any_dialect(data: bytes) -> object:
    """A text table by settings that its first byte chooses; read on from a row in its midst, it says the same."""
    from pipeline.codec.refs.tables import How
    from pipeline.settings import Text

    texts = (Text(), Text(escape="\\"), Text(quote=""), Text(quote="'"), Text(separator=";", quote=""),
             Text(encoding="utf-16"), Text(encoding="cp1252"), Text(header=False, names=["id", "url"]))  # fmt: skip
    names = (
        "refs.csv",
        "refs.tsv",
        "refs.jsonl",
        "refs.txt",
        "refs.csv.gz",
        "refs.csv.bz2",
        "refs.csv.zst",
        "refs.csv.xz",
    )
    choice = data[0] if data else 0
    how = How(texts[choice % 8], as_written=choice > 127)
    return _same_from_any_row(data[1:], names[choice // 8 % 8], how)


def _same_from_any_row(data: bytes, name: str, how: object) -> object:
    from pipeline.codec.refs.tables import Cursor

    refs, whys, places = _take(data, name, how, Cursor(0, 0), 3)
    assert isinstance(places, list)
    for count, cursor in places[len(places) // 2 :][:1]:
        rest, _, _ = _take(data, name, how, cursor, 1024)
        if rest != refs[count:]:
            raise AssertionError("read on from a row, the rest is another")
    return name, whys


def _avro(data: bytes) -> object:
    from pipeline.codec.refs.tables import How

    return _same_from_any_row(data, "refs.avro", How())


def _prototxt(data: bytes) -> object:
    from pipeline.nets import load
    from pipeline.nets.caffe_net import CaffeNet

    path = _file(".prototxt")
    path.write_bytes(data)
    net = load(path, engine="onnxruntime")
    assert isinstance(net, CaffeNet)
    return [net.fingerprint(blob, {}) and blob for blob in net.graph.default[:1]]


def _caffemodel(data: bytes) -> object:
    from pipeline.nets.caffe import caffemodel

    path = _file(".caffemodel")
    path.write_bytes(data)
    found = caffemodel.read_index(path)
    return [len(values) for layer in found.layers for values in found.read(list(layer.blobs))]


def _onnx(data: bytes) -> object:
    from pipeline.nets import load
    from pipeline.nets.onnx import inspection as onnx_inspection
    from pipeline.nets.onnx.net import OnnxNet

    path = _file(".onnx")
    path.write_bytes(data)
    net = load(path, engine="onnxruntime")
    assert isinstance(net, OnnxNet)
    prints = [net.fingerprint(blob, {})[:0] for blob in net.default[:1]]
    shapes = {name: tuple(max(size, 2) for size in shape) for name, shape in net.inputs.items()}
    if max(map(math.prod, shapes.values()), default=0) < 2**24:
        prints += [net.rows(blob, shapes).kind for blob in net.default[:1]]
    return [prints, [row.kind for row in onnx_inspection.layers(net, net.default)]]


def _mean(data: bytes) -> object:
    from pipeline.codec.mean_image import read_mean

    path = _file(".mean")
    path.write_bytes(data)
    return read_mean(path).ndim


def _batch(data: bytes) -> object:
    from pipeline.codec import image_refs

    path = _file(".pb")
    path.write_bytes(data)
    for piece in image_refs.pieces(path, 3, 2**16):
        image_refs.encode(piece)
    return len(image_refs.decode(data)) > 3


def _index(data: bytes) -> object:
    from pipeline.settings import Source
    from pipeline.sources.index_entries import Home, judge, read_entries

    home, source = Home.of("hdfs://nn:50070/data"), Source(path="outputByPartner", convention="index")
    whys = []
    for key, raw in read_entries(data).items():
        try:
            entry = judge(key, raw, source, home, 1_700_000_000.0)
        except ValueError as error:  # the one that its caller expects
            whys.append(str(error)[:30])
            continue
        for path, _ in entry.files:
            if path.startswith("/") or ".." in path.split("/"):
                raise AssertionError(f"a path leaves the lake: {path!r}")
    return sorted(set(whys))


BODIES = (Plan, Batch, End, Attempt, AttemptEnd, Result,
          Out, Done, PartnerManifest, CurrentManifest, Index,
          Proposal)  # fmt: skip


def _manifest(data: bytes) -> object:
    from pipeline.errors import FormatError

    said = []
    for kind in BODIES:
        try:
            body_of(kind, body_of(kind, data, "key").encode(), "key")
        except FormatError as error:
            said.append(error.detail[:40])
    return said


def _said() -> int:
    """Bytes that were written to stderr, where that is a file: decoders in C write there past Python."""
    return os.fstat(2).st_size if stat.S_ISREG(os.fstat(2).st_mode) else 0


def _image(data: bytes) -> object:
    before = _said()
    found = _images(data)
    if _said() != before:
        raise AssertionError("a decoder wrote to stderr")
    return found


_COST = 2.0, 4e-6
"""Processor seconds of one picture of at most a million pixels, and more for each of its bytes."""


def _cost(data: bytes) -> object:
    """What decoding costs follows the bytes and the pixels that are allowed, whatever a file says of itself."""
    from pipeline.images import decode

    began, before = time.process_time(), peak.forget()
    found = decode(data, max_pixels=1_000_000)
    spent = time.process_time() - began
    grown = peak.held() - before
    if spent > _COST[0] + _COST[1] * len(data):
        raise AssertionError(f"{spent:.1f} s for {len(data)} bytes")
    if grown > 128 * 2**20 + 16 * len(data):
        raise AssertionError(f"{grown >> 20} MiB for {len(data)} bytes")
    return found.reason if isinstance(found, Failure) else found.shape[2]


def _images(data: bytes) -> object:
    from pipeline.images import decode, sniff
    from pipeline.images.preparing import Preparation
    from pipeline.settings import Preprocess

    whole = decode(data, max_pixels=1_000_000)
    small = Preparation(Preprocess(max_pixels=1_000_000, resize="crop"), (32, 32))(data)
    if isinstance(whole, Failure) and isinstance(small, Failure):
        return sniff(data), whole.reason, whole.detail[:40]
    return sniff(data), isinstance(whole, Failure)


def _exif(data: bytes) -> object:
    """A picture with these bytes as its EXIF: turned as Pillow turns it, whole, reduced and cropped."""
    from PIL import Image

    from pipeline.images.decoding import decode, decode_reduced
    from pipeline.images.preparing import Preparation
    from pipeline.settings import Preprocess
    from tests.unit.images.pictures import upright

    content = seeds.on_its_side(data[:60_000])
    with Image.open(io.BytesIO(content)) as opened:
        wanted = upright(opened).size
    whole = decode(content)
    reduced = decode_reduced(content, 10**6, (16, 16))
    if isinstance(whole, Failure) or isinstance(reduced, Failure):
        raise AssertionError(f"the picture is lost: {whole if isinstance(whole, Failure) else reduced}")
    if whole.shape[1::-1] != wanted or (reduced[1][0] > reduced[1][1]) != (wanted[1] > wanted[0]):
        raise AssertionError(f"{whole.shape}, reduced {reduced[1]}; Pillow has {wanted}")
    if Preparation(Preprocess(resize="crop", resize_to=16), (16, 16)).noted(content)[0].shape != (3, 16, 16):
        raise AssertionError("another shape")
    return wanted


def _http(data: bytes) -> object:
    from datetime import UTC, datetime

    from pipeline.fetch.answer import read_head, read_status, seconds_to_wait, verdict
    from pipeline.fetch.encoding import codings, decompress
    from pipeline.fetch.sniff import image_format, looks_like
    from pipeline.fetch.target import join, parse

    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.splitlines(keepends=True)
    read_status(data)
    if not lines:
        return None
    found = read_head(lines)
    if isinstance(found, Failure):
        return found.detail
    said: list[object] = [verdict(found, 2**20), seconds_to_wait(found.retry_after, datetime(2026, 1, 1, tzinfo=UTC))]
    base = parse("https://shop.example/a/b.jpg", 8000)
    assert not isinstance(base, Failure)
    said.append(type(join(base, found.location, 8000)).__name__)
    if codings(found.encoding):
        plain = decompress(body, found.encoding, 2**20)
        said.append(plain.detail if isinstance(plain, Failure) else image_format(plain[:64]) or looks_like(plain[:64]))
    return said


CPU_SECONDS, CPU_PER_BYTE = 0.1, 3e-6
"""Of processor time: what any body and any head may cost, and each byte that goes in or comes out.  The worst that is
known, empty frames of zstd, is a tenth of it."""
_WEIGHED = 2**18


def _body(data: bytes) -> object:
    """A head and a body, each again and again until it weighs something: what costs more than its bytes shows."""
    from pipeline.fetch.answer import read_head
    from pipeline.fetch.encoding import KNOWN

    if not data:
        return None
    coding, piece = KNOWN[data[0] % len(KNOWN)], data[1:]
    encoding = f"{coding}, {coding}" if data[0] & 64 else coding
    times = max(1, _WEIGHED // max(1, len(piece)))
    lines = [b"HTTP/1.1 200 OK\r\n", *(piece.splitlines(keepends=True) or [b"x\n"]) * min(times, 20_000)]
    began = time.thread_time()
    head = read_head(lines)
    _check_cost(began, sum(map(len, lines)))
    return encoding, type(head).__name__, _unpacked(piece, encoding), _unpacked(piece * times, encoding)


def _unpacked(body: bytes, encoding: str) -> object:
    from pipeline.fetch.encoding import unpack
    from pipeline.fetch.sniff import image_format

    work, made, began = unpack(body, encoding, 2**22, image_format), 0, time.thread_time()
    while True:
        try:
            made += max(0, next(work))
        except StopIteration as end:
            _check_cost(began, len(body) + made)
            found = end.value
            return found.detail if isinstance(found, Failure) else image_format(found[:64])


def _check_cost(began: float, weighs: int) -> None:
    spent = time.thread_time() - began
    if spent > CPU_SECONDS + CPU_PER_BYTE * weighs:
        raise AssertionError(f"{spent:.2f} s of processor time for {weighs} bytes")


def _url(data: bytes) -> object:
    from pipeline.fetch.inline import is_data, is_file, read_data, read_file
    from pipeline.fetch.target import parse
    from pipeline.process.redaction import redact_query
    from pipeline.records import item_id_of, item_id_of_url

    text = data.decode("utf-8", "replace")
    item_id_of(text), item_id_of_url(text), redact_query(text)
    if is_data(text):
        read_data(text, 2**20)
    if is_file(text):
        read_file(text, (), 2**20)
    found = parse(text, 8000)
    return found.detail if isinstance(found, Failure) else (found.scheme, found.address is None)


def _reuse_page(data: bytes) -> object:
    """A record, or an index, each with a checksum that fits: who can write to the bucket can write one."""
    from pipeline.codec import reuse_pages

    if data[:1] == b"r":
        return reuse_pages.decode(reuse_pages._checksum(data[1:]) + data[1:], "page")
    line, _, arrays = data[1:].partition(b"\n")
    sums = re.sub(rb"[0-9a-f]{64}(?=\"})", hashlib.sha256(arrays).hexdigest().encode(), line)
    return len(reuse_pages.PageIndex.decode(sums + b"\n" + arrays, "page").ends)


def _shard(data: bytes) -> object:
    from pipeline.codec.shards import Shard

    path = _file(".shard")
    path.write_bytes(data)
    shard = Shard(path)
    shard.keys()
    return [len(shard.features(group, 4)[0]) + len(shard.external_ids(group)) for group in range(len(shard.starts) - 1)]


def _with_checksums(data: bytes) -> bytes:
    """The same, each header of tar with a checksum that fits: whoever writes an archive writes it."""
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


def _archive(data: bytes) -> object:
    """Any bytes as tar, tar.gz or zip: every entry ends as one thing, none is larger than it may be."""
    from pipeline.service.archive import judging
    from pipeline.service.archive.entries import REASONS, Limits, Picture

    limits = Limits(packed=2**20, unpacked=2**26, entries=20_000, file=2**20, pixels=1_000_000)
    judge = judging.Judge(limits)
    data = _with_checksums(data)
    outcomes: set[str] = set()
    for number, entry in enumerate(judging.entries(io.BytesIO(data), limits)):
        if entry.number != number or len(entry.content or b"") > limits.file or {"..", ""} & {*entry.path}:
            raise AssertionError(f"entry {number}: {entry.number} {entry.path}")
        found = judge.judged(entry)
        outcome = "folder" if found is None else "picture" if isinstance(found, Picture) else found.reason
        if outcome not in REASONS and outcome not in ("folder", "picture"):
            raise AssertionError(f"an unknown reason: {outcome}")
        outcomes.add(outcome)
    return sorted(outcomes)


def _specification(data: bytes) -> object:
    """A solver and, behind a line of dashes, a net: refused by name, or rebuilt so that it names our files alone."""
    from pipeline.nets.caffe import prototxt
    from pipeline.service.specification import child, words

    solver, _, net = data.decode("utf-8", "replace").partition("\n---\n")
    shape = {"labels": 4, "channels": 3, "height": 16, "width": 16, "sides": {"train": 10, "test": 10}}
    told = child._judge({"solver": solver, "net": net, "data": shape, "limits": {}})
    if not told["problems"]:
        for layer in prototxt.parse(told["net"]).layer:
            if layer.type == "Data" and layer.data_param.source not in words.FILES:
                raise AssertionError(f"a file is named: {layer.data_param.source!r}")
    return sorted({problem[1][:40] for problem in told["problems"]})[:3]


_TABLE_WORDS = (b"partner_id", b"item_id", b"external_id", b"url", b"content", b'"', b'""', b",", b"\t", b"\r\n",
                b"http://", b"\xef\xbb\xbf", b"null", b"\x1f\x8b\x08\x00", b"\\u0000", b"\\ud800", b"{", b"[" * 500,
                b"1e999", b"NaN")  # fmt: skip
_DIALECT_WORDS = (*_TABLE_WORDS, b"\\", b'\\"', b"\\\n", b"\\\t", b"\r", b";", b"|", b"'", b"sep=;\n", b"\0",
                  b"\xff\xfe", b"NULL", b"\\N", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0")  # fmt: skip
_NET_WORDS = (b"layer {", b"}", b"type: \"Convolution\"", b"num_output: ", b"kernel_size: 0", b"stride: 0", b"dim: ",
              b"group: 0", b"bottom: \"data\"", b"axis: -9", b"slice_point: 4", b"pad: 4294967295", b"nan", b"inf",
              b"layers {", b"input_dim: 1", b"{" * 300, b"type: \"Reshape\"", b"type: \"Pooling\"", b"dilation: 0",
              b"reshape_param {", b"shape {", b"{ dim: -1 dim: 0 }", b"include { phase: TEST }")  # fmt: skip
_HTTP_WORDS = (b"Content-Length: ", b"Transfer-Encoding: chunked", b"Location: ", b"Content-Encoding: gzip",
               b"Content-Encoding: deflate", b"Retry-After: ", b"HTTP/1.1 ", b"\r\n", b"\r\n\r\n", b"http://[::1]",
               b"//", b"@", b"xn--", b"%00", b"\x85", b"Fri, 31 Dec 9999 23:59:60 -9999")  # fmt: skip
_BODY_WORDS = (b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x78\x9c", b"\x03\0", b"\r\n",
               b"Content-Encoding: ", b"Set-Cookie: ", b"\xff\xd8\xff")  # fmt: skip
_JSON_WORDS = (b'"format":1', b"null", b"true", b"[]", b"{}", b"1e999", b"NaN", b"-0", b"[" * 2000, b'{"a":' * 2000,
               b"\\ud800", b"\\u0000", b'"../x"', b'"files"', b'"partners"', b"99999999T999999Z")  # fmt: skip
_IMAGE_WORDS = (b"\xff\xd8\xff", b"\xff\xda", b"\xff\xc2", b"\xff\xc4", b"\xff\xd9", b"IHDR", b"IDAT", b"tRNS", b"acTL",
                b"fdAT", b"iCCP", b"eXIf", b"Exif\0\0II*\0", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ftypavif",
                b"\xff\xff\xff\x7f")  # fmt: skip
_ARCHIVE_WORDS = (b"ustar\x0000", b"ustar  \0", b"../", b"path=", b"size=", b"GNU.sparse.major=1", b"\x80\0\0\0",
                  b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\x1f\x8b\x08\0", bytes(512),
                  b"\1\0\x10\0")  # fmt: skip

_ALL = (
    Target("prototxt", _prototxt, lambda: seeds.of_files(TINY, "*.prototxt"), _NET_WORDS),
    Target("caffemodel", _caffemodel, lambda: seeds.of_files(TINY, "*.caffemodel")),
    Target("onnx", _onnx, seeds.onnx_models, (b"Reshape", b"Constant", b"axes", b"data_0", b"ai.onnx")),
    Target("mean", _mean, seeds.means, (b"\x93NUMPY", b"'descr': '|O'", b"'shape': (", b"True")),
    Target("batch", _batch, seeds.batches),
    Target("csv", _refs("refs.csv"), lambda: seeds.tables("csv", "csv.gz"), _TABLE_WORDS),
    Target("tsv", _refs("refs.tsv"), lambda: seeds.tables("tsv"), _TABLE_WORDS),
    Target("jsonl", _refs("refs.jsonl"), lambda: seeds.tables("jsonl", "jsonl.gz"), _TABLE_WORDS),
    Target("text", _refs("refs.txt"), lambda: seeds.tables("txt", "txt.gz"), _TABLE_WORDS),
    Target("protobuf", _refs("refs.pb"), lambda: seeds.tables("pb", "pb.gz")),
    Target("parquet", _refs("refs.parquet"), seeds.parquets, (b"PAR1", b"parquet", b"ARROW:schema", b"url")),
    Target("orc", _refs("refs.orc"), seeds.orcs, (b"ORC",)),
    Target("avro", _avro, seeds.avros, (b"Obj\x01", b"avro.codec", b"avro.schema", b'"type"', b'"null"')),
    Target("dialect", _any_dialect, seeds.dialects, _DIALECT_WORDS),
    Target("index", _index, seeds.indexes, _JSON_WORDS),
    Target("manifest", _manifest, seeds.manifests, _JSON_WORDS),
    Target("image", _image, seeds.images, _IMAGE_WORDS),
    Target(
        "imagecost", _cost, seeds.images, (*_IMAGE_WORDS, b"\xff\xda\0\x08\1\1\0\1\x3f\0", b"ispe", b"ftypmif1", b"SOT")
    ),
    Target("exif", _exif, seeds.exif_blocks, (b"II*\0", b"MM\0*", b"II+\0", b"Exif\0\0", b"\x12\x01", b"\x01\x12")),
    Target("http", _http, seeds.answers, _HTTP_WORDS),
    Target("body", _body, seeds.bodies, _BODY_WORDS),
    Target("url", _url, seeds.urls, (*_HTTP_WORDS, b"data:image/png;base64,", b"file:///", b"0x7f.1", b"\\", b"&#0;")),
    Target("shard", _shard, seeds.shards, (b"PAR1", b"features", b"item_id")),
    Target(
        "specification",
        _specification,
        seeds.specifications,
        (*_NET_WORDS, b"max_iter: ", b"test_iter: ", b"net_param {", b'source: "/etc"', b"mean_file: ", b"\n---\n"),
    ),
    Target("archive", _archive, seeds.archives, _ARCHIVE_WORDS),
    Target("reuse-page", _reuse_page, seeds.reuse_pages, (b"format", b"fingerprint", b"results", b"[[[[")),
)
TARGETS = {target.name: target for target in _ALL}
