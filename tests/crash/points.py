"""The commit points of the protocol: every write that the product makes, by name, and where a story passes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHIPMENT = r"\d{8}T\d{6}Z\.\d{3}\.\d{5}\.\d-[0-9a-f]{12}"
FIRST = r"\d{8}T\d{6}Z\.\d{3}\.00000\.0-[0-9a-f]{12}"
NEXT = r"\d{8}T\d{6}Z\.\d{3}\.0000[1-9]\.0-[0-9a-f]{12}"
CHILD = r"\d{8}T\d{6}Z\.\d{3}\.\d{5}\.[1235-7]-[0-9a-f]{12}"
ANSWER = r"\d{8}T\d{6}Z\.\d{3}\.\d{5}\.4-[0-9a-f]{12}"
ROUND = r"\d{8}T\d{6}Z\.00[1-9]\.\d{5}\.0-[0-9a-f]{12}"
ROUND_NEXT = r"\d{8}T\d{6}Z\.00[1-9]\.0000[1-9]\.0-[0-9a-f]{12}"
F = "[0-9a-f]{12}"
NONCE = "[0-9a-f]{16}"


@dataclass(frozen=True)
class Point:
    """One place of the protocol: the n-th call of a story that it matches (`nth`)."""

    name: str
    story: str
    place: str
    verb: str
    keys: str
    nth: int = 1

    def is_like(self, place: str, verb: str, key: str) -> bool:
        """Whether a change is of this point's kind: of whatever shipment, batch, attempt and partner."""
        kind = self.keys
        for one in (FIRST, NEXT, CHILD, ANSWER, ROUND, ROUND_NEXT):
            kind = kind.replace(one, SHIPMENT)
        kind = re.sub(r"/0000\d", r"/\\d{5}", kind)
        kind = re.sub(r"/[78](?=[/$])", r"/\\d+", kind)
        return (place, verb) == (self.place, self.verb) and re.search(kind, key) is not None


def bucket(name: str, story: str, verb: str, keys: str, nth: int = 1) -> Point:
    return Point(name, story, "bucket", verb, f"^shop/{keys}$", nth)


def lake(name: str, story: str, verb: str, keys: str, nth: int = 1) -> Point:
    return Point(name, story, "lake", verb, f"^features/{keys}$", nth)


def prune(name: str, story: str, keys: str) -> Point:
    return bucket(name, story, "delete", keys)


POINTS = (
    bucket("beat", "whole", "put", "h/alive/.*"),
    bucket("hint", "whole", "put", f"h/open/0+T0+Z/{FIRST}"),
    bucket("plan", "whole", "put_new", f"c/{FIRST}/plan"),
    bucket("refs of a batch", "whole", "put", f"d/{FIRST}/{NONCE}/00000.pb"),
    bucket("b, the first", "whole", "put_new", f"c/{FIRST}/b/00000"),
    bucket("b, the last of a part", "whole", "put_new", f"c/{FIRST}/b/00001"),
    bucket("end", "whole", "put_new", f"c/{FIRST}/end"),
    bucket("next part's hint", "whole", "put", f"h/open/0+T0+Z/{NEXT}"),
    bucket("next part's plan", "whole", "put_new", f"c/{NEXT}/plan"),
    bucket("end of the last part", "whole", "put_new", f"c/{NEXT}/end"),
    bucket("t claim of a batch", "whole", "put_new", f"c/{FIRST}/{F}/t/00000/00001"),
    bucket("shard data: features", "whole", "put", f"d/{FIRST}/{NONCE}/00001.features.parquet"),
    bucket("shard data: failures", "whole", "put", f"d/{FIRST}/{NONCE}/00001.failures.parquet"),
    bucket("r, the first", "whole", "put_new", f"c/{SHIPMENT}/{F}/r/0000."),
    bucket("r, the last", "whole", "put_new", f"c/{SHIPMENT}/{F}/r/0000.", 3),
    bucket("t claim of out", "whole", "put_new", f"c/{FIRST}/t/out/00001"),
    bucket("out data: text", "whole", "put", f"d/{FIRST}/{NONCE}/8/cnn_features.txt.gz"),
    bucket("out data: features", "whole", "put", f"d/{FIRST}/{NONCE}/7/features/part-00000.parquet"),
    bucket("out data: failures", "whole", "put", f"d/{FIRST}/{NONCE}/7/failures/part-00000.parquet"),
    bucket("out data: carried over", "whole", "put", f"d/{NEXT}/{NONCE}/carried.pb"),
    bucket("out", "whole", "put_new", f"c/{FIRST}/out"),
    bucket("out that carries", "whole", "put_new", f"c/{NEXT}/out"),
    bucket("child's hint", "whole", "put", f"h/open/2.*/{CHILD}"),
    bucket("child's plan", "whole", "put_new", f"c/{CHILD}/plan"),
    bucket("child's refs", "whole", "put", f"d/{CHILD}/{NONCE}/00000.pb"),
    bucket("child's b", "whole", "put_new", f"c/{CHILD}/b/00000"),
    bucket("child's end", "whole", "put_new", f"c/{CHILD}/end"),
    bucket("t claim of done", "whole", "put_new", f"c/{FIRST}/t/done/00001"),
    lake("temporary folder: text", "whole", "put", f"_tmp/{FIRST}.{NONCE}/7/cnn_features.txt.gz"),
    lake("temporary folder: Parquet", "whole", "put", f"_tmp/{FIRST}.{NONCE}/8/features/part-00000.parquet"),
    lake("temporary folder: failures", "whole", "put", f"_tmp/{FIRST}.{NONCE}/7/failures/part-00000.parquet"),
    lake("manifest", "whole", "put", f"_tmp/{FIRST}.{NONCE}/7/_manifest.json"),
    lake("_SUCCESS", "whole", "put", f"_tmp/{FIRST}.{NONCE}/7/_SUCCESS"),
    lake("shipment's folder", "whole", "make_folder", FIRST),
    lake("rename, the first partner", "whole", "rename_new", f"{FIRST}/7"),
    lake("rename, the last partner", "whole", "rename_new", f"{FIRST}/8"),
    lake("temporary folder deleted", "whole", "delete_folder", f"_tmp/{SHIPMENT}.{NONCE}"),
    lake("index token", "whole", "put", f"_index/tokens/{NONCE}"),
    lake("index proposal written", "whole", "put", f"_index/tokens/{NONCE}.proposal"),
    lake("index proposal made", "whole", "rename_new", r"_index/\d{10}"),
    lake("index: rename_over", "whole", "rename_over", "outputByPartner"),
    lake("index: rename_over, the second", "whole", "rename_over", "outputByPartner", 2),
    bucket("done, the first", "whole", "put_new", f"c/{SHIPMENT}/done"),
    bucket("done, the last", "whole", "put_new", f"c/{SHIPMENT}/done", 3),
    bucket("hint deleted, the first", "whole", "delete", f"h/open/.*/{SHIPMENT}"),
    bucket("hint deleted, the last", "whole", "delete", f"h/open/.*/{SHIPMENT}", 3),
    bucket("last beat taken back", "whole", "delete", "h/alive/.*"),
    bucket("h/held", "held", "put", f"h/held/{FIRST}.00000"),
    bucket("r: held", "held", "put_new", f"c/{FIRST}/{F}/r/00000"),
    bucket("release: hint", "held", "put", f"h/open/0+T0+Z/{ANSWER}"),
    bucket("release: plan", "held", "put_new", f"c/{ANSWER}/plan"),
    bucket("release: refs", "held", "put", f"d/{ANSWER}/{NONCE}/00000.pb"),
    bucket("release: b", "held", "put_new", f"c/{ANSWER}/b/00000"),
    bucket("release: end", "held", "put_new", f"c/{ANSWER}/end"),
    bucket("release: h/held deleted", "held", "delete", f"h/held/{FIRST}.00000"),
    lake("release: rename", "held", "rename_new", f"{ANSWER}/7"),
    bucket("release: done", "held", "put_new", f"c/{ANSWER}/done"),
    bucket("drop: hint", "dropped", "put", f"h/open/0+T0+Z/{ANSWER}"),
    bucket("drop: plan", "dropped", "put_new", f"c/{ANSWER}/plan"),
    bucket("drop: void end", "dropped", "put_new", f"c/{ANSWER}/end"),
    bucket("drop: h/held deleted", "dropped", "delete", f"h/held/{FIRST}.00000"),
    bucket("r of a feature that is used again", "used again", "put_new", f"c/{SHIPMENT}/{F}/r/0000."),
    bucket("u, records", "used again", "put", f"u/d/{F}/mixed/{SHIPMENT}\\.{NONCE}"),
    bucket("u, the index that tells of them", "used again", "put", f"u/i/{F}/mixed/{SHIPMENT}\\.{NONCE}"),
    bucket("ship again: hint", "again", "put", f"h/open/0+T0+Z/{ROUND}"),
    bucket("ship again: plan", "again", "put_new", f"c/{ROUND}/plan"),
    bucket("ship again: b", "again", "put_new", f"c/{ROUND}/b/00000"),
    bucket("ship again: end", "again", "put_new", f"c/{ROUND}/end"),
    lake("ship again: rename", "again", "rename_new", f"{ROUND}/7"),
    bucket("back-fill: hint", "backfill", "put", f"h/open/0+T0+Z/{ROUND}"),
    bucket("back-fill: plan", "backfill", "put_new", f"c/{ROUND}/plan"),
    bucket("back-fill: refs", "backfill", "put", f"d/{ROUND}/{NONCE}/00000.pb"),
    bucket("back-fill: b", "backfill", "put_new", f"c/{ROUND}/b/00000"),
    bucket("back-fill: b, the last", "backfill", "put_new", f"c/{ROUND}/b/00001"),
    bucket("back-fill: end", "backfill", "put_new", f"c/{ROUND}/end"),
    bucket("back-fill: next part's hint", "backfill", "put", f"h/open/0+T0+Z/{ROUND_NEXT}"),
    bucket("back-fill: next part's plan", "backfill", "put_new", f"c/{ROUND_NEXT}/plan"),
    bucket("back-fill: done", "backfill", "put_new", f"c/{ROUND}/done"),
    bucket("a promoted file", "promoted", "put", f"d/m/{NONCE}/net.prototxt"),
    bucket("m, a promotion", "promoted", "put_new", "m/shoes/0000000001"),
    bucket("a plan by a promotion", "promoted", "put_new", f"c/{FIRST}/plan"),
    bucket("a pack", "archived", "put", f"d/a/{FIRST}/{NONCE}/00000.000.pack"),
    bucket("the index of a pack", "archived", "put", f"d/a/{FIRST}/{NONCE}/00000.000.index.parquet"),
    bucket("a, the images of a batch", "archived", "put_new", f"a/{FIRST}/00000.000"),
    bucket("r, from the archive", "archived", "put_new", f"c/{ROUND}/{F}/r/00000"),
    bucket("f, a request to forget", "forgotten item", "put_new", "f/0000000001"),
    bucket("forget: data", "forgotten item", "delete", f"d/{FIRST}/{NONCE}/00000.features.parquet"),
    bucket("forget: the data that has it", "forgotten item", "delete", f"d/{FIRST}/{NONCE}/00000.pb"),
    bucket("forget: a pack anew", "forgotten item", "put", f"d/a/{FIRST}/{NONCE}/00000.001.pack"),
    bucket("forget: its index", "forgotten item", "put", f"d/a/{FIRST}/{NONCE}/00000.001.index.parquet"),
    bucket("forget: a, the next number", "forgotten item", "put_new", f"a/{FIRST}/00000.001"),
    bucket("forget: the old pack", "forgotten item", "delete", f"d/a/{FIRST}/{NONCE}/00000.000.pack"),
    bucket("forget: the old index", "forgotten item", "delete", f"d/a/{FIRST}/{NONCE}/00000.000.index.parquet"),
    lake("forget: text anew", "forgotten item", "put", f"_tmp/{FIRST}.forget-{NONCE}/7/cnn_features.txt.gz"),
    lake("forget: Parquet anew", "forgotten item", "put", f"_tmp/{FIRST}.forget-{NONCE}/7/features/part-00000.parquet"),
    lake("forget: failures anew", "forgotten item", "put", f"_tmp/{FIRST}.forget-{NONCE}/7/failures/part-0.*"),
    lake("forget: the manifest", "forgotten item", "put", f"_tmp/{FIRST}.forget-{NONCE}/7/_manifest.json"),
    lake("forget: _SUCCESS", "forgotten item", "put", f"_tmp/{FIRST}.forget-{NONCE}/7/_SUCCESS"),
    lake("forget: the folder renamed away", "forgotten item", "rename_new", f"_tmp/_gone-{NONCE}"),
    lake("forget: the new one in its place", "forgotten item", "rename_new", f"{FIRST}/7"),
    lake("forget: the old one deleted", "forgotten item", "delete_folder", f"_tmp/_gone-{NONCE}"),
    lake("forget: what it was written in", "forgotten item", "delete_folder", f"_tmp/{FIRST}.forget-{NONCE}"),
    lake("forget: the index", "forgotten item", "rename_over", "outputByPartner"),
    lake("forget: kept columns", "forgotten item", "put", r"\.hathi/kept\.parquet"),
    lake("forget: what a killed run left of them", "forgotten item", "delete_folder", r"\.hathi/keep-left"),
    lake("forget: a data set says so", "forgotten item", "put", "_made/[0-9a-f]{16}"),
    lake("forget: a data set that is gone", "forgotten item", "delete", "_made/[0-9a-f]{16}"),
    bucket("forget: an index of a page", "forgotten item", "delete", f"u/i/{F}/mixed/{FIRST}.{NONCE}"),
    bucket("forget: a page", "forgotten item", "delete", f"u/d/{F}/mixed/{FIRST}.{NONCE}"),
    bucket("f, done", "forgotten item", "put_new", "f/0000000001.done"),
    bucket("f, the request goes", "forgotten item", "delete", "f/0000000001"),
    bucket(".x: a strike", "damaged refs", "put_new", f"c/{SHIPMENT}/{F}/t/0000./00001.x"),
    bucket("t claim after a strike", "damaged refs", "put_new", f"c/{SHIPMENT}/{F}/t/0000./00002"),
    bucket(".x: a batch abandoned", "full at a shard", "put_new", f"c/{SHIPMENT}/{F}/t/0000./00001.x"),
    bucket(".x: out abandoned", "full at out", "put_new", f"c/{SHIPMENT}/t/out/00001.x"),
    bucket(".x: done abandoned", "full on the lake", "put_new", f"c/{SHIPMENT}/t/done/00001.x"),
    bucket("h/gone", "gone and back", "put", f"h/gone/{FIRST}"),
    bucket("h/gone deleted", "gone and back", "delete", f"h/gone/{FIRST}"),
    bucket("h/gone of a void one", "changed", "put", f"h/gone/{FIRST}"),
    bucket("h/refused", "refused", "put", "h/refused/demo/.*"),
    bucket("h/expects", "refused", "put", "h/expects/demo"),
    bucket("void end", "changed", "put_new", f"c/{FIRST}/end"),
    bucket("plan behind a void one", "changed", "put_new", f"c/{FIRST}/plan"),
    prune("prune: data", "pruned", f"d/{SHIPMENT}/{NONCE}/.*"),
    prune("prune: an attempt", "pruned", f"c/{SHIPMENT}/{F}/t/0000./0000."),
    prune("prune: an attempt at out or done", "pruned", f"c/{SHIPMENT}/t/(out|done)/0000."),
    prune("prune: a file that no promotion names", "pruned", f"d/m/{NONCE}/net.prototxt"),
    prune("prune: an index of a page", "pruned", f"u/i/{F}/mixed/{NONCE}"),
    prune("prune: a page", "pruned", f"u/d/{F}/mixed/{NONCE}"),
    prune("prune: a beat", "pruned", "h/alive/nobody"),
    prune("prune: h/refused", "pruned", "h/refused/demo/nobody"),
    prune("prune: a hint without a plan", "pruned", "h/open/0+T0+Z/2020.*"),
    bucket("prune: a hint put back", "pruned", "put", f"h/open/2.*/{CHILD}"),
    lake("prune: a half delivery renamed away", "pruned", "rename_new", f"_tmp/_gone-{NONCE}"),
    lake("prune: a half delivery deleted", "pruned", "delete_folder", f"_tmp/_gone-{NONCE}"),
    lake("prune: a proposal", "pruned", "delete", r"_index/\d{10}"),
    lake("prune: a token", "pruned", "delete", f"_index/tokens/{NONCE}"),
    prune("prune: a plan", "forgotten", f"c/{SHIPMENT}/plan"),
    prune("prune: a batch", "forgotten", f"c/{SHIPMENT}/b/0000."),
    prune("prune: a result", "forgotten", f"c/{SHIPMENT}/{F}/r/0000."),
    prune("prune: end, out, done", "forgotten", f"c/{SHIPMENT}/(end|out|done)"),
    prune("prune: h/gone", "forgotten", f"h/gone/{SHIPMENT}"),
    lake("lake_days: a folder renamed away", "old folders", "rename_new", f"_tmp/_gone-{NONCE}"),
    lake("lake_days: a folder deleted", "old folders", "delete_folder", f"_tmp/_gone-{NONCE}"),
)  # fmt: skip
"""In the order in which a life passes them."""
