"""CPU of a gateway's stages against raw clients, on the same S3 and HDFS servers in the same run.

`python -m tests.benchmarks.gateway [MB]` (400; the target is stated for 2,000): ships images inline from Parquet on
HDFS to S3, and delivers files of 5 to 50 MB from S3 to HDFS.  Wanted: client CPU a MB <= 1.15 x (raw HdfsCLI + raw
boto3 over the same bytes) + the hashing; memory <= 300 MB.  Each measurement is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.app.contexts import contexts
from pipeline.ledger.layout import FIRST_DUE, Keys, ShipmentName, version_of
from pipeline.ledger.manifest import End, Out, OutFile, OutPartner, Plan, Snapshot, SourceFile
from pipeline.ledger.protocol import Context, announce, commit
from pipeline.settings import Settings
from pipeline.stages.loop import LakeStages
from tests.servers import hdfs, s3

MB = 1_000_000
SIZES = (5, 10, 20, 50)
IMAGE = 50_000
BLOCK = 1 << 20


def settings_of(values: dict[str, Any]) -> Settings:
    return Settings.model_validate(values)


def turns_of(settings: Settings) -> tuple[LakeStages, Context]:
    context = contexts(settings, ["ship", "deliver"], lambda: False, "benchmark")[0]

    def nothing(*asked: object) -> Any:
        raise RuntimeError("a gateway computes nothing")

    return LakeStages(context, nothing, strict=True), context


def make_refs(settings: Settings, total: int) -> None:
    """A Parquet file of images on the lake."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, context = turns_of(settings)
    assert context.lake is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.parquet"
        schema = pa.schema([("partner_id", pa.int64()), ("item_id", pa.int64()), ("content", pa.binary())])
        with pq.ParquetWriter(path, schema, compression="none") as writer:
            for first in range(0, total * MB // IMAGE, 200):
                items = range(first, first + 200)
                columns = [[7] * 200, list(items), [os.urandom(IMAGE) for _ in items]]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        context.lake.put("refs/images.parquet", path)


def make_out(settings: Settings, total: int) -> None:
    """A shipment that is aggregated: files of all sizes, one partner each."""
    _, context = turns_of(settings)
    version = version_of(time.time() - 100)
    snapshot = Snapshot(source="x", version=version, files=(SourceFile(path="x", length=1, modified=1),))
    name = ShipmentName.of("shop", "x", "demo", version, 0, 0, 0)
    plan = Plan(lake="shop", set="demo", snapshot=snapshot, snapshot_digest="x", batch_refs=1, batch_bytes=1, batches=1,
                due=FIRST_DUE, retry_delays=(1.0, 2.0, 3.0))  # fmt: skip
    announce(context, name, plan)
    partners, left, number = {}, total, 0
    while left > 0:
        size = SIZES[number % len(SIZES)]
        content = os.urandom(size * MB)
        key = Keys("shop").shipment_data(name, "data", f"{number}.parquet")
        context.bucket.put(key, content)
        file = OutFile(name="features/part-00000.parquet", key=key, size=len(content),
                       sha256=hashlib.sha256(content).hexdigest(), rows=1)  # fmt: skip
        partners[str(number)] = OutPartner(files=(file,), features=1, failures=0)
        left, number = left - size, number + 1
    commit(context, context.keys.end(name), End(batches=0, refs=number, rows=number, rejected=0))
    commit(context, context.keys.out(name), Out(fingerprint="ab" * 32, dim=4, at=version, partners=partners,
           refs=number, features=number, failures=0, duplicates=0, reasons={}))  # fmt: skip


def raw(values: dict[str, Any], prefix: str, *, up: bool) -> int:
    """The same bytes by hand, a block at a time; up: from HDFS to S3, else from S3 to HDFS."""
    import boto3
    from hdfs import InsecureClient

    bucket, lake = values["bucket"], values["lakes"]["shop"]["url"]
    keys = {"aws_access_key_id": bucket["access_key"], "aws_secret_access_key": bucket["secret_key"]}
    client = boto3.client("s3", endpoint_url=bucket["endpoint"], region_name="us-east-1", **keys)
    address, _, root = lake.removeprefix("hdfs://").partition("/")
    web = InsecureClient(f"http://{address}", user="root")
    done = 0
    if up:
        with web.read(f"/{root}/refs/images.parquet") as reader:
            while block := reader.read(40 * MB):
                client.put_object(Bucket="shared", Key=f"raw/{done}", Body=block)
                done += len(block)
        return done
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="shared", Prefix=prefix):
        for entry in page.get("Contents", ()):
            body = client.get_object(Bucket="shared", Key=entry["Key"])["Body"]
            with web.write(f"/tests/raw/{done}", overwrite=True) as writer:
                while block := body.read(BLOCK):
                    writer.write(block)
                    done += len(block)
    return done


def cpu() -> float:
    """Of this process and of the readers that it has waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def measure(what: str, values: dict[str, Any], total: int) -> None:
    """In a process of its own: prints CPU seconds, bytes, and the peak of memory in MB."""
    settings = settings_of(values)
    turns, _ = turns_of(settings)
    began = cpu()
    if what in ("ship", "deliver"):
        tally = turns.take(what)
        assert not tally.problems
        done = tally.bytes
    elif what == "hash":
        block, done = os.urandom(BLOCK), 0
        while done < total * MB:
            hashlib.sha256(block).digest()
            done += BLOCK
    else:
        done = raw(values, "gateway/shop/d/", up=what == "raw ship")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([cpu() - began, done, peak]))


def run(what: str, values: dict[str, Any], total: int) -> tuple[float, int]:
    """CPU milliseconds a MB, and the peak of memory in MB."""
    words = [sys.executable, "-m", "tests.benchmarks.gateway", "--measure", what, str(total)]
    done = subprocess.run(words, input=json.dumps(values), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    seconds, size, peak = json.loads(done.stdout)
    return seconds * 1000 / (size / MB), peak


def main(total: int) -> None:
    with s3.running() as bucket, hdfs.running() as lake, tempfile.TemporaryDirectory() as folder:
        table = bucket.settings("s3://shared/gateway").model_dump(exclude_unset=True)
        table |= {key: getattr(bucket, key) for key in ("access_key", "secret_key")}
        url = lake.url("tests/gateway")
        values = {
            "state": f"{folder}/state", "bucket": table, "logs": {"folder": f"{folder}/logs"},
            "lakes": {"shop": {"url": url, "hdfs": {"user": "root"}, "sources": [{"path": "refs"}]}},
            "sets": {"demo": {"net": "hog", "blob": "hog", "root": "features"}},
        }  # fmt: skip
        settings = settings_of(values)
        hashing, _ = run("hash", values, total)
        make_out(settings, total)
        show("deliver", run("raw deliver", values, total)[0], *run("deliver", values, total), hashing)
        make_refs(settings, total)
        show("ship inline", run("raw ship", values, total)[0], *run("ship", values, total), hashing)


def show(what: str, raw_ms: float, ours: float, peak: int, hashing: float) -> None:
    wanted = 1.15 * raw_ms + hashing
    print(f"{what:<12} {ours:.2f} ms CPU/MB; raw clients {raw_ms:.2f}, hashing {hashing:.2f}: "
          f"{ours / wanted:.2f} of 1.15 x raw + hashing; peak {peak} MB")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], json.loads(sys.stdin.read()), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
