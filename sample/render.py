"""Makes the small sample lake under work/: pictures to be served, refs of three partners, and the demonstration net.

`python sample/render.py [--work work] [--port 8973] [--labels]`: does nothing if the sample exists already.
--labels: the lake of `hathi sample loop`: a fourth partner with more pictures, and labels of what pictures show.
The refs have the time of the first call and keep it, so a second run of the pipeline finds nothing to do.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PORT = 8973
CATALOGUE = 404
"""The partner with more pictures."""
FIRST_DAY = 28
"""Pictures of each kind below this number have their label on the first day."""


class Row(NamedTuple):
    """A row of a ref file, before it takes the file's form."""

    name: str
    url: str


def main() -> int:
    """0; 2 when the lake under work/ was made for another port."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE.parent / "work")
    parser.add_argument("--port", type=int, default=PORT, help="where sample/server.py will serve the pictures")
    parser.add_argument("--labels", action="store_true", help="also a partner with more pictures, and labels")
    args = parser.parse_args()
    stamp = args.work / "sample" / "made-from"
    wanted = f"port {args.port}\nsample {digest()}\n" + "labels\n" * args.labels
    made = stamp.read_text() if stamp.exists() else ""
    if made == wanted:
        return 0
    if made and not made.startswith(f"port {args.port}\n"):
        print(f"the sample lake in {args.work} was made for {made.splitlines()[0]}, not {args.port}", file=sys.stderr)
        print(f"use that port (SAMPLE_PORT=...), or move {args.work} away to start anew", file=sys.stderr)
        return 2
    print(f"making the sample lake: pictures, refs and a net, under {args.work}", file=sys.stderr)
    origin = f"http://127.0.0.1:{args.port}"
    render(args.work, origin)
    if args.labels:
        render_labelled(args.work, origin)
    stamp.write_text(wanted)
    return 0


def digest() -> str:
    """Of everything that decides what the sample is."""
    content = hashlib.sha256()
    for path in sorted(HERE.glob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def render(work: Path, origin: str) -> None:
    """Pictures and net to work/sample, refs to work/lake/refs."""
    sys.path.insert(0, str(HERE.parent))  # the pipeline's own code writes protobuf refs and the net
    from sample import pictures, random_features

    web, refs = work / "sample" / "web", work / "lake" / "refs"
    for folder in (web, refs):
        folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for name, content in pictures.render():
        (web / name).write_bytes(content)
        names.append(name)
    whole = (web / "mug-00.jpg").read_bytes()
    (web / "torn.jpg").write_bytes(whole[: len(whole) * 3 // 5])
    random_features.write(work / "sample" / "random_features.caffemodel")
    for name, content in ref_files(names, origin):
        write(refs / name, content)


def render_labelled(work: Path, origin: str) -> None:
    """The pictures and refs of partner 404, labels.csv, and labels-first.csv with those of the first day."""
    from sample import pictures

    names = []
    for name, content in pictures.more():
        (work / "sample" / "web" / name).write_bytes(content)
        names.append(name.removesuffix(".jpg"))
    refs = table_of_text(CATALOGUE, [Row(name, f"{origin}/{name}.jpg") for name in names])
    write(work / "lake" / "refs" / "catalogue.csv", refs)
    write(work / "labels.csv", labels([*labelled_before(), *((CATALOGUE, name) for name in names)]))
    first = [name for name in names if int(name[-2:]) < FIRST_DAY]
    write(work / "labels-first.csv", labels([(CATALOGUE, name) for name in first]))


def labelled_before() -> Iterator[tuple[int, str]]:
    """Items of the other partners that have a label: two without an image, and one that was never in the shop."""
    from sample import pictures

    for partner, kind in ((101, "mug"), (202, "cushion")):
        yield from ((partner, f"{kind}-{at:02}") for at in range(pictures.EACH))
    yield from ((101, "mug-gone"), (202, "cushion-sold-out"), (CATALOGUE, "mug-99"))


def labels(items: list[tuple[int, str]]) -> bytes:
    """CSV: the category of each item; of one whose name has no number, that of the first of its kind."""
    from sample import pictures

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("partner_id", "sku", "label"))
    for partner, name in items:
        kind, _, number = name.partition("-")
        writer.writerow((partner, name, pictures.category(f"{kind}-{number if number.isdigit() else '00'}")))
    return text.getvalue().encode()


def ref_files(names: list[str], origin: str) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each partner's refs, each in a form of its own, with what goes wrong in a real shop."""
    of = {kind: [name for name in names if name.startswith(kind)] for kind in ("mug", "cushion", "lamp")}
    rows = {kind: [Row(f"{kind}-{at:02}", f"{origin}/{name}") for at, name in enumerate(of[kind])] for kind in of}
    mugs = [*rows["mug"], Row("mug-gone", f"{origin}/gone.jpg")]
    moved = rows["cushion"][3]
    cushions = [*rows["cushion"], rows["cushion"][0], Row("cushion-sold-out", f"{origin}/sold-out.html")]
    cushions[3] = moved._replace(url=f"{origin}/moved/{moved.url.rpartition('/')[2]}")
    lamps = [*rows["lamp"], Row("lamp-torn", f"{origin}/torn.jpg"), Row("lamp-busy", f"{origin}/busy.jpg")]
    yield "mugs.pb", protobuf(101, mugs)
    yield "cushions.csv", table_of_text(202, cushions)
    yield "lamps.parquet", parquet(303, lamps)


def protobuf(partner_id: int, rows: list[Row]) -> bytes:
    """Delimited ImageRef messages (proto/image_refs.proto)."""
    from pipeline.codec import image_refs
    from pipeline.records import ImageRef, item_id_of

    return image_refs.encode(
        ImageRef(partner_id, item_id_of(row.name), row.name, row.url, b"", at) for at, row in enumerate(rows)
    )


def table_of_text(partner_id: int, rows: list[Row]) -> bytes:
    """CSV whose items are named by the shop's own texts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("partner_id", "sku", "image_url"))
    writer.writerows((partner_id, row.name, row.url) for row in rows)
    return text.getvalue().encode()


def parquet(partner_id: int, rows: list[Row]) -> bytes:
    """Parquet whose items have numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "partner_id": pa.array([partner_id] * len(rows), pa.int64()),
            "item_id": pa.array(range(1001, 1001 + len(rows)), pa.int64()),
            "url": [row.url for row in rows],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Whole or not at all; a file that has the content already keeps its time."""
    if path.exists() and path.read_bytes() == content:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.rename(path)


if __name__ == "__main__":
    sys.exit(main())
