"""Images in a bucket: read where the settings allow it, refused elsewhere, and typed by what the server says."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.objects import ReadObject, reader_of
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, limits, outcomes
from tests.integration.fetch.hostile import JPEG, Hostile
from tests.servers.demand import free_port
from tests.servers.s3 import S3Server, running


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    with running() as server:
        server.make_bucket("private")
        folder = server.place("shared", "a b")
        folder.mkdir()
        (folder / "ok.jpg").write_bytes(JPEG)
        (folder / "größe%20#?.jpg").write_bytes(JPEG + b"2")
        (folder / "long.jpg").write_bytes(JPEG + bytes(3_000_000))
        (folder / "..two.jpg").write_bytes(JPEG + b"3")
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "page.jpg").write_bytes(b"<html>" + bytes(100))
        yield server


def fetched(server: S3Server, *urls: str, **changes: Any) -> dict[str, Fetched | Failure]:
    settings = limits(**{"allow_buckets": ["shared"], "max_bytes": 2_000_000, "total_seconds": 20.0, **changes})
    return outcomes(Fetcher(settings, read_object=reader_of(server.settings(), settings)), urls)


def said(outcome: Fetched | Failure) -> tuple[str, str, bool]:
    assert isinstance(outcome, Failure), outcome
    return outcome.reason, outcome.detail, outcome.retriable


def test_an_object_of_an_allowed_bucket_is_an_image_like_any_other(bucket: S3Server, server: Hostile) -> None:
    objects = ["s3://shared/a b/ok.jpg", "S3://shared/a b/größe%20#?.jpg", "s3://shared/a b/..two.jpg"]
    found = fetched(bucket, *objects, web := server.url("/ok.jpg"))
    contents = {url: outcome.content for url, outcome in found.items() if isinstance(outcome, Fetched)}
    assert contents == dict(zip([*objects, web], [JPEG, JPEG + b"2", JPEG + b"3", JPEG], strict=True))


def test_what_is_wrong_with_an_object_is_typed(bucket: S3Server) -> None:
    folder = "s3://shared/a b"
    found = fetched(
        bucket, f"{folder}/none.jpg", f"{folder}/long.jpg", f"{folder}/empty.jpg", f"{folder}/page.jpg", "s3://shared",
        "s3://private/ok.jpg", "s3:///ok.jpg",
    )  # fmt: skip
    assert {url.removeprefix(f"{folder}/"): said(outcome) for url, outcome in found.items()} == {
        "none.jpg": ("http_4xx", "404", False),
        "long.jpg": ("too_large", "body", False),
        "empty.jpg": ("empty", "200", True),
        "page.jpg": ("not_image", "html", False),
        "s3://shared": ("bad_url", "malformed", False),
        "s3://private/ok.jpg": ("blocked", "bucket", False),
        "s3:///ok.jpg": ("bad_url", "malformed", False),
    }


@pytest.mark.parametrize("scheme", ["s3a", "s3n", "S3A"])
def test_the_names_that_hadoop_has_for_s3_are_s3(bucket: S3Server, scheme: str) -> None:
    urls = [f"{scheme}://shared/a b/ok.jpg", f"{scheme}://KEY:secret@shared/a b/ok.jpg", f"{scheme}://private/ok.jpg"]
    found = fetched(bucket, *urls)
    assert [getattr(found[url], "content", b"") for url in urls] == [JPEG, JPEG, b""]
    assert said(found[urls[2]]) == ("blocked", "bucket", False)


def test_an_object_that_is_stored_compressed_is_its_image(bucket: S3Server) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=bucket.endpoint, region_name="us-east-1",
        aws_access_key_id=bucket.access_key, aws_secret_access_key=bucket.secret_key,
    )  # fmt: skip
    stored = {
        "said.jpg": (gzip.compress(JPEG), "gzip"),
        "chunked.jpg": (gzip.compress(JPEG), "aws-chunked,gzip"),
        "br.jpg": (brotli.compress(JPEG), "br"),
        "untold.jpg.gz": (gzip.compress(JPEG), ""),
        "plain.jpg": (JPEG, "gzip"),
    }
    for name, (body, encoding) in stored.items():
        more = {"ContentEncoding": encoding} if encoding else {}
        client.put_object(Bucket="shared", Key=f"packed/{name}", Body=body, **more)
    found = fetched(bucket, *(f"s3://shared/packed/{name}" for name in stored))
    assert [getattr(outcome, "content", outcome) for outcome in found.values()] == [JPEG] * len(stored)


def test_without_a_bucket_in_the_settings_no_object_is_read(bucket: S3Server) -> None:
    found = fetched(bucket, "s3://shared/a b/ok.jpg", allow_buckets=[])
    assert [said(outcome) for outcome in found.values()] == [("blocked", "scheme s3", False)]


def test_a_bucket_that_is_not_there_and_keys_that_are_refused(bucket: S3Server) -> None:
    url = "s3://nowhere/ok.jpg"
    assert said(fetched(bucket, url, allow_buckets=["nowhere"])[url]) == ("http_4xx", "404", False)
    settings = limits(allow_buckets=["shared"], total_seconds=5.0)
    wrong = reader_of(bucket.settings(secret_key="another"), settings)
    url = "s3://shared/a b/ok.jpg"
    assert said(outcomes(Fetcher(settings, read_object=wrong), [url])[url]) == ("http_4xx", "403", True)


def test_a_server_that_cannot_be_reached_is_a_failure_to_be_tried_again(bucket: S3Server) -> None:
    settings = limits(allow_buckets=["shared"])
    nobody = bucket.settings(endpoint=f"http://127.0.0.1:{free_port()}", retry_seconds=0.0)
    url = "s3://shared/a b/ok.jpg"
    found = outcomes(Fetcher(settings, read_object=reader_of(nobody, settings)), [url])
    assert said(found[url]) == ("connect", "failed", True)


def test_objects_are_read_beside_each_other_and_end_at_their_deadline(hand: Hand) -> None:
    begun: list[str] = []

    def slow(_bucket: str, key: str, _most: int, on_time: Any) -> bytes | Failure:
        begun.append(key)
        while on_time():
            hand.turn(1.0 if len(begun) >= 8 else 0.0)
            hand.clock.sleep(0.001)
        return Failure.of("timeout", "body")

    reader: ReadObject = slow
    fetcher = Fetcher(limits(allow_buckets=["shared"], total_seconds=500.0), clock=hand.clock, read_object=reader)
    ends = hand.monotonic() + 100.0
    found = [result for result in fetcher.stream((n, f"s3://shared/{n}", ends) for n in range(20)) if result]
    assert sorted(item for item, _ in found) == list(range(20))
    reasons = [said(outcome)[:2] for _, outcome in found]
    assert sorted(reasons) == [("host_busy", "batch deadline")] * 12 + [("timeout", "body")] * 8


def test_the_command_reads_objects_with_the_bucket_of_its_configuration(bucket: S3Server, tmp_path: Path) -> None:
    config = tmp_path / "hathi.toml"
    config.write_text(
        f'[bucket]\nurl = "s3://shared"\nendpoint = "{bucket.endpoint}"\nregion = "us-east-1"\n'
        f'access_key = "{bucket.access_key}"\nsecret_key = "{bucket.secret_key}"\n[fetch]\nallow_buckets = ["shared"]\n'
    )
    urls = ["s3a://shared/a b/ok.jpg", "s3://private/ok.jpg"]
    command = [sys.executable, "-m", "pipeline.cli.main", "fetch", "--json", "--config", str(config), *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {line["url"]: (line["ok"], line["reason"]) for line in map(json.loads, done.stdout.splitlines())}
    assert found == {urls[0]: (True, None), urls[1]: (False, "blocked")}
