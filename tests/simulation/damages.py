"""Damage as disks, people and other programs do it; each says where it is to be found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.ledger.layout import ShipmentName
from tests.simulation.folders import HEADER, Folders, url


def flip(path: Path) -> None:
    """One bit, the length stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


Damage = Callable[[Folders], str]
"""Does it, and says where it is to be found."""


def a_flipped_bit_on_the_lake(world: Folders) -> str:
    path = world.on_lake("features/*/7/features/part-00000.parquet")
    flip(path)
    return str(path.relative_to(world.top / "lake"))


def a_flipped_bit_in_the_bucket(world: Folders) -> str:
    path = world.in_bucket("shop/d/*/*/00000.pb")
    flip(path)
    return str(path.relative_to(world.top / "bucket"))


def a_file_of_another_length(world: Folders) -> str:
    path = world.on_lake("features/*/7/cnn_features.txt.gz")
    path.write_bytes(path.read_bytes() + b"x")
    return str(path.relative_to(world.top / "lake"))


def a_lost_delivered_file(world: Folders) -> str:
    path = world.on_lake("features/*/8/failures/part-00000.parquet")
    path.unlink()
    return str(path.relative_to(world.top / "lake"))


def a_lost_data_object_of_an_open_shipment(world: Folders) -> str:
    (child,) = (p for p in world.top.glob("bucket/shop/c/*") if ShipmentName.parse(p.name).generation == 1)
    path = world.in_bucket(f"shop/d/{child.name}/*/00000.pb")
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def a_shortened_data_object(world: Folders) -> str:
    path = world.in_bucket("shop/d/*/*/00000.features.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    return str(path.relative_to(world.top / "bucket"))


def a_deleted_folder(world: Folders) -> str:
    path = world.on_lake("features/*/7")
    shutil.rmtree(path)
    return str(path.relative_to(world.top / "lake"))


def a_lost_success(world: Folders) -> str:
    path = world.on_lake("features/*/7/_SUCCESS")
    path.unlink()
    return str(path.relative_to(world.top / "lake"))


def a_lost_manifest(world: Folders) -> str:
    path = world.on_lake("features/*/7/_manifest.json")
    path.unlink()
    return str(path.parent.relative_to(world.top / "lake"))


def a_swapped_folder(world: Folders) -> str:
    path = world.on_lake("features/*/7")
    path.rename(path.parent / "9")
    return str((path.parent / "9").relative_to(world.top / "lake"))


def a_manifest_that_says_something_else(world: Folders) -> str:
    path = world.on_lake("features/*/7/_manifest.json")
    body = json.loads(path.read_bytes())
    path.write_text(json.dumps({**body, "fingerprint": "00" * 32}))
    return str(path.relative_to(world.top / "lake"))


def a_truncated_out(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/out")
    path.write_bytes(path.read_bytes()[:40])
    return str(path.relative_to(world.top / "bucket"))


def an_empty_plan(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/plan")
    path.write_bytes(b"")
    return str(path.relative_to(world.top / "bucket"))


def a_lost_plan(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/plan")
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def a_lost_end(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/end")
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def a_lost_result(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/*/r/00000")
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def a_lost_out(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/out")
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def an_end_that_lost_refs(world: Folders) -> str:
    path = world.in_bucket("shop/c/*/end")
    body = json.loads(path.read_bytes())
    path.write_text(json.dumps({**body, "refs": body["refs"] - 1, "rows": body["rows"] - 1}))
    return str(path.relative_to(world.top / "bucket"))


def a_child_that_lost_refs(world: Folders) -> str:
    (child,) = (p for p in world.top.glob("bucket/shop/c/*") if ShipmentName.parse(p.name).generation == 1)
    body = json.loads((child / "end").read_bytes())
    (child / "end").write_text(json.dumps({**body, "refs": 0, "rows": 0, "batches": 0}))
    return str((child / "end").relative_to(world.top / "bucket"))


def an_index_rolled_back(world: Folders) -> str:
    path = world.on_lake("features/outputByPartner")
    old = path.read_bytes()
    world.put_refs("b.csv", f"{HEADER}7,e,{url('ok', 5)}\n")
    world.run()
    path.write_bytes(old)
    return "features/outputByPartner"


def a_lost_index(world: Folders) -> str:
    world.on_lake("features/outputByPartner").unlink()
    return "features/outputByPartner"


def an_index_that_is_no_json(world: Folders) -> str:
    world.on_lake("features/outputByPartner").write_bytes(b"{")
    return "features/outputByPartner"


def an_index_entry_that_names_nothing(world: Folders) -> str:
    path = world.on_lake("features/outputByPartner")
    body = json.loads(path.read_bytes())
    body["deliveries"].append({**body["deliveries"][0], "folder": "20250101T000000Z.000.00000.0-0123456789ab/7"})
    path.write_text(json.dumps(body))
    return "features/outputByPartner"


def an_index_without_a_delivery(world: Folders) -> str:
    path = world.on_lake("features/outputByPartner")
    body = json.loads(path.read_bytes())
    body["deliveries"].pop()
    path.write_text(json.dumps(body))
    return "features/outputByPartner"


def an_index_with_another_size(world: Folders) -> str:
    path = world.on_lake("features/outputByPartner")
    body = json.loads(path.read_bytes())
    body["partners"]["7"]["outputSize"] += 1
    path.write_text(json.dumps(body))
    return "features/outputByPartner"
