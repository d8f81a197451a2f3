"""Archives that strangers might send, each by a name, and what has to become of it.

`python -m tests.unit.service.hostile_archives` reads each as the product does, and prints a JSON line: its outcome, the
processor time of its child, and the most memory that any child has held so far.  It stays small itself, since a child
inherits its parent's figure.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = 512


class Case(NamedTuple):
    """make: its bytes.  whole: why all of it is refused; "" where it is not.  rejected: how many, by reason."""

    make: Callable[[], bytes]
    whole: str = ""
    rejected: dict[str, int] = {}  # noqa: RUF012
    pictures: int = 0


def png(side: int = 1) -> bytes:
    """A grey picture; of a large one the rows are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 + side))) + chunk(b"IEND", b"")


GREY = png()
"""Of one pixel."""


def header(name: bytes, size: int | bytes = 0, kind: bytes = b"0", link: bytes = b"", prefix: bytes = b"") -> bytes:
    """A header of ustar.  size: as it stands there, where it is bytes."""
    block = bytearray(BLOCK)
    told = size if isinstance(size, bytes) else b"%011o\0" % size
    for at, field in ((0, name[:100]), (100, b"0000644\0"), (124, told), (136, b"00000000000\0"), (156, kind),
                      (157, link), (257, b"ustar\00000"), (345, prefix)):  # fmt: skip
        block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def entry(name: bytes, content: bytes = GREY, **more: bytes) -> bytes:
    return header(name, len(content), **more) + padded(content)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """records: `key=value`; their lengths are put before them."""
    told = b""
    for record in records:
        size = len(record) + 3
        while len(b"%d %s\n" % (size, record)) != size:
            size += 1
        told += b"%d %s\n" % (size, record)
    return entry(b"pax", told, kind=kind)


def tar(*entries: bytes, end: bool = True) -> bytes:
    """Two good pictures around what is hostile."""
    return b"".join([entry(b"a/first.png"), *entries, entry(b"b/last.png"), bytes(1024) if end else b""])


def packed(*pieces: tuple[bytes, int]) -> bytes:
    """gzip of each piece so many times, without its ever being held."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        for piece, times in pieces:
            for _ in range(times):
                file.write(piece)
    return out.getvalue()


class Zipped(NamedTuple):
    """An entry of a zip, and how its headers lie.  in_file: fields of its own header that differ."""

    name: bytes
    content: bytes = GREY
    method: int = 8
    flags: int = 0
    mode: int = 0
    crc: int | None = None
    packed: int | None = None
    size: int | None = None
    in_file: dict[str, int | bytes] = {}  # noqa: RUF012
    begin: int | None = None
    body: bytes | None = None


def zip_of(*entries: Zipped, before: bytes = b"", count: int | None = None, comment: bytes = b"") -> bytes:
    out, directory = bytearray(before), bytearray()
    every = [Zipped(b"a/first.png"), *entries, Zipped(b"b/last.png")]
    for one in every:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = one.body
        if body is None:
            body = packer.compress(one.content) + packer.flush() if one.method == 8 else one.content
        crc = zlib.crc32(one.content) if one.crc is None else one.crc
        sizes = (len(body) if one.packed is None else one.packed, len(one.content) if one.size is None else one.size)
        begin = len(out) if one.begin is None else one.begin
        name = bytes(one.in_file.get("name", one.name))  # type: ignore[arg-type]
        method = int(one.in_file.get("method", one.method))
        mine = (int(one.in_file.get("crc", crc)), int(one.in_file.get("packed", sizes[0])),
                int(one.in_file.get("size", sizes[1])))  # fmt: skip
        if one.begin is None:
            out += b"PK\3\4" + struct.pack("<5H3I2H", 20, one.flags, method, 0, 0, *mine, len(name), 0) + name + body
        directory += b"PK\1\2" + struct.pack(
            "<6H3I5H2I", 3 << 8 | 20, 20, one.flags, one.method, 0, 0, crc, *sizes, len(one.name), 0, 0, 0, 0,
            one.mode << 16, begin,
        ) + one.name  # fmt: skip
    number = len(every) if count is None else count
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, number, number, len(directory), len(out), len(comment))
    return bytes(out + directory + end + comment)


def _many_labels() -> bytes:
    return b"".join(entry(b"%05d/a.png" % at) for at in range(10_050)) + bytes(1024)


def _many_empty() -> bytes:
    names = (hashlib.sha256(b"%d" % at).hexdigest().encode() for at in range(50_100))
    return packed((entry(b"a/a.png"), 1), *((header(b"a/" + name), 1) for name in names))


def _quoted() -> bytes:
    """An entry whose bytes are a whole entry themselves, which the directory names as well."""
    inner = zip_of()
    begin = 30 + 11 + len(inner[41 : inner.index(b"PK\3\4", 4)]) + 30 + 7
    return zip_of(Zipped(b"a/x.png", inner, 0), Zipped(b"a/first.png", begin=begin))


def _small_bombs() -> bytes:
    content = bytes(4 * 2**20)
    return zip_of(*[Zipped(b"a/%d.png" % at, content) for at in range(80)])


def _sparse_map() -> bytes:
    """A GNU sparse file whose map goes on for 1,000 blocks."""
    block = bytearray(header(b"a/s.png", BLOCK, kind=b"S"))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    maps = bytearray(BLOCK * 1000)
    for at in range(999):
        maps[at * BLOCK + 504] = 1
    return bytes(block + maps) + bytes(BLOCK)


def _bad_checksum() -> bytes:
    block = bytearray(entry(b"a/x.png"))
    block[0] = 98
    return bytes(block)


def _of(make: Callable[[], bytes], reason: str, count: int = 1) -> Case:
    return Case(make, "", {reason: count}, 2)


X = entry(b"a/x.png")
_TOO_LONG = b"d/" * 3000 + b"x.png"
_TWO = Zipped(b"a/x.png", b"\0" * 300)

CASES: dict[str, Case] = {
    "tar: a symbolic link out of the folder": _of(
        lambda: tar(entry(b"a/x.png", b"", kind=b"2", link=b"/etc/shadow")), "link"),
    "tar: a hard link out of the folder": _of(lambda: tar(entry(b"a/x.png", b"", kind=b"1", link=b"../../x")), "link"),
    "tar: a folder that is a link, and a file below it": Case(
        lambda: tar(entry(b"a/l", b"", kind=b"2", link=b"/tmp"), entry(b"l/x.png")), "", {"link": 1}, 3),
    "tar: a link that says it has bytes": Case(
        lambda: tar(header(b"a/x", 512, kind=b"2") + b"x" * 512), "damaged"),
    "tar: a device": _of(lambda: tar(entry(b"a/x.png", b"", kind=b"3")), "device"),
    "tar: a block device": _of(lambda: tar(entry(b"a/x.png", b"", kind=b"4")), "device"),
    "tar: a pipe": _of(lambda: tar(entry(b"a/x.png", b"", kind=b"6")), "device"),
    "tar: an absolute name": _of(lambda: tar(entry(b"/etc/x.png")), "absolute"),
    "tar: a name with ..": _of(lambda: tar(entry(b"a/../../x.png")), "traversal"),
    "tar: .. in a pax name": _of(lambda: tar(pax(b"path=../../x.png") + X), "traversal"),
    "tar: .. in a GNU name": _of(
        lambda: tar(entry(b"././@LongLink", b"../" * 50 + b"x.png\0", kind=b"L") + X), "traversal"),
    "tar: .. in a prefix": _of(lambda: tar(entry(b"x.png", prefix=b"a/../..")), "traversal"),
    "tar: a GNU name of 200 MB": Case(
        lambda: packed((X, 1), (header(b"l", 200 * 2**20, kind=b"L"), 1), (b"a" * 2**20, 200)), "inflates"),
    "tar: a GNU name of 60 KB": _of(
        lambda: tar(entry(b"l", b"a" * 60_000, kind=b"L") + X), "bad_name"),
    "tar: pax says 10^15 bytes": Case(lambda: gzip.compress(pax(b"size=%d" % 10**15) + header(b"a/x.png")), "damaged"),
    "tar: pax says a terabyte": Case(lambda: gzip.compress(pax(b"size=%d" % 10**11) + header(b"a/x.png")), "truncated"),
    "tar: pax says less than nothing": Case(lambda: tar(pax(b"size=-512") + X), "damaged"),
    "tar: pax says a size that is no number": Case(lambda: tar(pax(b"size=1e9") + X), "damaged"),
    "tar: a pax record beyond its header": Case(lambda: tar(entry(b"p", b"999 path=a/b\n", kind=b"x") + X), "damaged"),
    "tar: a pax record of no bytes": Case(lambda: tar(entry(b"p", b"0 path=a/b\n", kind=b"x") + X), "damaged"),
    "tar: a pax record without its end": Case(lambda: tar(entry(b"p", b"11 path=abc", kind=b"x") + X), "damaged"),
    "tar: a pax header of a megabyte": _of(lambda: tar(pax(b"comment=" + b"a" * 2**20) + X), "bad_name"),
    "tar: pax gives every entry one name": Case(lambda: tar(pax(b"path=a/b.png", kind=b"g")), "damaged"),
    "tar: a pax name that is not UTF-8": _of(lambda: tar(pax(b"path=a/\xff\xfe.png") + X), "bad_name"),
    "tar: fifty thousand empty entries": Case(_many_empty, "too_many_rejected"),
    "tar: half a million folders": Case(lambda: packed((X, 1), (header(b"a/", kind=b"5"), 500_000)), "inflates"),
    "tar: headers about no entry": Case(
        lambda: packed((entry(b"a/a.png"), 1), (entry(b"l", b"a\0", kind=b"L"), 50_000)), "inflates"),
    "tar: a size of 8 GB, cut off": Case(lambda: header(b"a/x.png", 8 * 2**30 - 1), "truncated"),
    "tar: a size of 2^62 bytes": Case(
        lambda: header(b"a/x.png", b"\x80" + bytes(3) + struct.pack(">Q", 2**62)), "damaged"),
    "tar: a size below zero": Case(lambda: tar(header(b"a/x.png", b"\xff" * 12)), "damaged"),
    "tar: a size of letters": Case(lambda: tar(header(b"a/x.png", b"ZZZZZZZZZZZ\0")), "damaged"),
    "tar: a wrong checksum in its midst": Case(lambda: tar(_bad_checksum()), "damaged"),
    "tar: cut off within a picture": Case(lambda: tar()[: BLOCK + 30], "truncated"),
    "tar: cut off between two entries": Case(lambda: tar(end=False), "truncated"),
    "tar: zeros between two entries": Case(lambda: tar(bytes(BLOCK)), "damaged"),
    "tar: a sparse file with a long map": _of(lambda: tar(_sparse_map()), "sparse"),
    "tar: a sparse file of pax": _of(
        lambda: tar(pax(b"GNU.sparse.major=1", b"GNU.sparse.realsize=%d" % 10**15) + X), "sparse"),
    "tar: a part of several volumes": _of(lambda: tar(entry(b"a/x.png", kind=b"M")), "type"),
    "tar: a kind that nobody knows": _of(lambda: tar(entry(b"a/x.png", kind=b"Z")), "type"),
    "tar: a name with an escape": _of(lambda: tar(entry(b"a/\x1b[2J.png")), "bad_name"),
    "tar: a name with a line end": _of(lambda: tar(entry(b"a/x\n.png")), "bad_name"),
    "tar: a name that turns text round": _of(lambda: tar(entry("a/\u202egnp.exe".encode())), "bad_name"),
    "tar: a name that is not UTF-8": _of(lambda: tar(entry(b"a/\xe4.png")), "bad_name"),
    "tar: a name with a backslash": _of(lambda: tar(entry(b"a\\x.png")), "bad_name"),
    "tar: a drive": _of(lambda: tar(entry(b"C:/x.png")), "absolute"),
    "tar: a name of 3,000 folders": _of(lambda: tar(pax(b"path=" + _TOO_LONG) + X), "bad_name"),
    "tar: files that macOS and Windows leave": _of(
        lambda: tar(*map(entry, (b"a/._x.png", b"a/.DS_Store", b"a/Thumbs.db", b"__MACOSX/a/x.png"))), "junk", 4),
    "tar: ten thousand labels": Case(_many_labels, "too_many_labels"),
    "tar: a file of 33 MiB": _of(lambda: tar(entry(b"a/x.png", bytes(33 * 2**20))), "too_large"),
    "tar: a picture of 50,000 a side": _of(lambda: tar(entry(b"a/x.png", png(50_000))), "too_many_pixels"),
    "tar: a page called a picture": _of(lambda: tar(entry(b"a/x.jpg", b"<html>" * 100)), "not_image"),
    "tar: an empty picture": _of(lambda: tar(entry(b"a/x.jpg", b"")), "empty"),
    "tar: a torn picture": _of(lambda: tar(entry(b"a/x.png", GREY[:45])), "truncated"),
    "tar: a tar within": _of(lambda: tar(entry(b"a/x.png", tar())), "nested"),
    "tar: a zip within": _of(lambda: tar(entry(b"a/x.png", zip_of())), "nested"),
    "gzip: a gigabyte of zeros": Case(
        lambda: packed((header(b"a/x.png", 8 * 2**30 - 1), 1), (bytes(2**20), 300)), "inflates"),
    "gzip: cut off": Case(lambda: gzip.compress(tar())[:-30], "truncated"),
    "gzip: a wrong checksum": Case(lambda: gzip.compress(tar())[:-8] + bytes(8), "damaged"),
    "gzip: damaged in its midst": Case(lambda: gzip.compress(tar())[:60] + b"\xff" * 40 + bytes(900), "damaged"),
    "gzip: a hundred thousand empty members": Case(lambda: gzip.compress(b"", mtime=0) * 100_000, "damaged"),
    "gzip: gzip within": Case(lambda: gzip.compress(gzip.compress(tar())), "unknown"),
    "zip: two entries of the same bytes": Case(
        lambda: zip_of(*[_TWO._replace(name=b"a/%d.png" % at, begin=0) for at in range(3)]), "", {"overlap": 4}, 1),
    "zip: an entry within another": Case(_quoted, "", {"overlap": 1}, 3),
    "zip: it has more bytes than it says": _of(lambda: zip_of(Zipped(b"a/x.png", bytes(10**6), size=100)), "disagrees"),
    "zip: it has fewer bytes than it says": _of(lambda: zip_of(Zipped(b"a/x.png", size=10**6)), "disagrees"),
    "zip: a wrong checksum": _of(lambda: zip_of(Zipped(b"a/x.png", crc=7)), "checksum"),
    "zip: damaged in its midst": _of(lambda: zip_of(Zipped(b"a/x.png", body=b"\xff" * 50)), "checksum"),
    "zip: encrypted": _of(lambda: zip_of(Zipped(b"a/x.png", flags=1)), "encrypted"),
    "zip: packed by LZMA": _of(lambda: zip_of(Zipped(b"a/x.png", method=14)), "method"),
    "zip: a symbolic link": _of(lambda: zip_of(Zipped(b"a/x.png", b"/etc/shadow", mode=0o120777)), "link"),
    "zip: a pipe": _of(lambda: zip_of(Zipped(b"a/x.png", mode=0o010644)), "device"),
    "zip: a name with ..": _of(lambda: zip_of(Zipped(b"../../x.png")), "traversal"),
    "zip: an absolute name": _of(lambda: zip_of(Zipped(b"/x.png")), "absolute"),
    "zip: a backslash": _of(lambda: zip_of(Zipped(b"..\\..\\x.png")), "traversal"),
    "zip: two names for one entry": _of(lambda: zip_of(Zipped(b"a/x.png", in_file={"name": b"a/y.png"})), "disagrees"),
    "zip: two sizes for one entry": _of(lambda: zip_of(Zipped(b"a/x.png", in_file={"size": 5})), "disagrees"),
    "zip: a name that is not UTF-8 and says so": _of(lambda: zip_of(Zipped(b"a/\xff.png", flags=0x800)), "bad_name"),
    "zip: a bomb of 32 MiB in 32 KB": _of(lambda: zip_of(Zipped(b"a/x.png", bytes(32 * 2**20))), "inflates"),
    "zip: eighty bombs below the limit of one": Case(_small_bombs, "inflates"),
    "zip: a file that says 4 GB": _of(lambda: zip_of(Zipped(b"a/x.png", size=2**32 - 2)), "too_large"),
    "zip: an entry far away": _of(lambda: zip_of(Zipped(b"a/x.png", begin=2**31)), "disagrees"),
    "zip: cut off": Case(lambda: zip_of()[:-30], "truncated"),
    "zip: its directory has fewer entries than it says": Case(lambda: zip_of(count=77), "damaged"),
    "zip: sizes of 64 bits that are not there": Case(lambda: zip_of(count=0xFFFF), "damaged"),
    "zip: something before it": Case(lambda: b"PK\3\4" + bytes(100) + zip_of(), "damaged"),
    "zip: no entry": Case(lambda: b"PK\5\6" + bytes(18)),
    "nothing": Case(lambda: b"", "unknown"),
    "7z": Case(lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600), "unknown"),
    "tar.bz2": Case(lambda: b"BZh91AY&SY" + bytes(600), "unknown"),
    "noise": Case(lambda: bytes(range(256)) * 100, "unknown"),
}  # fmt: skip


def outcome(path: Path) -> dict[str, object]:
    """What became of an archive."""
    from pipeline.errors import PipelineError
    from pipeline.service.archive.entries import Picture, Refused
    from pipeline.service.archive.reading import read

    rejected: Counter[str] = Counter()
    pictures = 0
    try:
        for one in read(path):
            if isinstance(one, Picture):
                pictures += 1
            else:
                rejected[one.reason] += 1
    except Refused as refused:
        return {"whole": refused.reason, "detail": refused.detail}
    except PipelineError as error:
        return {"whole": str(error)}
    return {"whole": "", "rejected": dict(rejected), "pictures": pictures}


def special(folder: Path) -> Iterator[tuple[str, Path]]:
    """What is no file at all."""
    os.mkfifo(folder / "pipe.tar")
    yield "a pipe", folder / "pipe.tar"
    yield "a folder", folder
    yield "a file that is not there", folder / "none"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def tell(name: str, path: Path) -> None:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            found = outcome(path)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(json.dumps({"name": name, **found, "seconds": round(spent, 2), "most": after.ru_maxrss * 1024}))

        for name, path in special(folder):
            tell(name, path)
        path = folder / "archive"
        for name, case in CASES.items():
            with path.open("wb") as file:
                file.write(case.make())
            tell(name, path)


if __name__ == "__main__":
    sys.exit(main())
