"""A bucket on a real server, beyond what the conformance suite asks of every store."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipeline.clock import random_nonce
from pipeline.errors import NotFound, PermanentError, TemporaryError
from pipeline.settings import Bucket
from pipeline.stores.opening import probe
from pipeline.stores.retrying import Retry
from pipeline.stores.s3.retention import in_words
from pipeline.stores.s3.store import S3Store
from tests.servers.proxy import Proxy
from tests.servers.s3 import S3Server, asked
from tests.servers.s3_stub import Canned, answering

MIB = 2**20


@pytest.fixture
def prefix() -> str:
    return random_nonce()


@pytest.fixture
def store(s3_server: S3Server, prefix: str) -> S3Store:
    return S3Store(s3_server.settings(f"s3://shared/{prefix}", multipart_bytes=5 * MIB))


@pytest.fixture
def proxy(s3_server: S3Server):  # type: ignore[no-untyped-def]
    proxy = Proxy(s3_server.port)
    yield proxy
    proxy.close()


def through(proxy: Proxy, server: S3Server, prefix: str, **changes: object) -> S3Store:
    """The same bucket by way of the proxy, tried again at once."""
    endpoint = f"http://127.0.0.1:{proxy.port}"
    return S3Store(server.settings(f"s3://shared/{prefix}", endpoint=endpoint, **changes))


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def operations(seen: Sequence[object]) -> Counter[str]:
    return Counter(one.operation for one in seen)  # type: ignore[attr-defined]


def test_a_large_file_goes_up_in_parts_that_the_server_verifies(store: S3Store, tmp_path: Path) -> None:
    content = noise(12 * MIB + 5)
    (tmp_path / "file").write_bytes(content)
    seen = asked(store)
    store.put("lake/d/x", tmp_path / "file")
    assert operations(seen) == {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
    for one in seen:
        if one.operation == "UploadPart":
            assert one.headers["x-amz-checksum-crc32"]
    assert store.get("lake/d/x") == content
    assert [(entry.key, entry.size) for entry in store.list("lake/")] == [("lake/d/x", len(content))]
    assert store.sweep(-60.0) == 0


def test_a_file_goes_up_and_comes_back_in_bounded_memory(store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for number in range(40):
            file.write(noise(MIB, number))
    store.list("")  # opens the client
    tracemalloc.start()
    try:
        store.put("big", path)
        sent = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with store.open("big") as stream, path.open("rb") as file:
            while block := stream.read(MIB):
                assert block == file.read(MIB)
            assert file.read() == b""
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent < 4 * MIB
    assert read < 8 * MIB


def test_an_upload_whose_checksum_is_wrong_is_refused(store: S3Store) -> None:
    with pytest.raises(TemporaryError, match="what S3 received is not what was sent"):
        store.connection.once(
            "put_object", Bucket=store.bucket, Key=f"{store.base}x", Body=b"content", ChecksumCRC32="AAAAAA=="
        )
    with pytest.raises(NotFound):
        store.get("x")


def test_an_upload_that_was_damaged_on_its_way_is_refused_and_sent_again(
    s3_server: S3Server, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    content = noise(2 * MIB)
    (tmp_path / "file").write_bytes(content)
    store = through(proxy, s3_server, prefix)
    for body in (content, tmp_path / "file"):
        proxy.requests.clear()
        fault = proxy.meet(b"PUT ", after=MIB, then="damage")
        store.put("x", body)
        assert fault.met.wait(60.0)
        assert [line[:4] for line in proxy.requests] == ["PUT ", "PUT "]
        assert store.get("x") == content


def test_reading_goes_on_where_an_answer_broke(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    content = noise(4 * MIB)
    store = through(proxy, s3_server, prefix)
    store.put("x", content)
    proxy.cut_answer(b"GET ", after=3 * MIB)
    seen = asked(store)
    with store.open("x") as stream:
        assert stream.read() == content
    first, second = seen
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").partition("-")[0])
    assert 0 < start < 3 * MIB
    assert second.headers["If-Match"]
    proxy.cut_answer(b"GET ", after=3 * MIB)
    assert store.get("x") == content


def test_an_answer_that_breaks_for_ever_is_a_temporary_error(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix, retry_seconds=0.0)
    store.put("x", noise(4 * MIB))
    proxy.cut_answer(b"GET ", after=MIB, times=9)
    with store.open("x") as stream, pytest.raises(TemporaryError):
        stream.read()
    with pytest.raises(TemporaryError):
        store.get("x")


def test_an_object_that_changes_while_it_is_read_is_no_mixture(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix)
    store.put("x", noise(4 * MIB))
    proxy.cut_answer(b"GET ", after=2 * MIB)
    with store.open("x") as stream:
        stream.read(MIB)
        store.put("x", noise(4 * MIB, 2))
        with pytest.raises(PermanentError, match="changed while it was read"):
            stream.read()
    with store.open("x") as stream:
        stream.seek(3 * MIB)
        store.delete("x")
        with pytest.raises(NotFound):
            stream.read()


def test_seeking_reads_what_a_file_would(store: S3Store) -> None:
    content = noise(3 * MIB)
    store.put("x", content)
    store.put("empty", b"")
    dice = random.Random(7)
    file = io.BytesIO(content)
    with store.open("x") as stream:
        for _ in range(40):
            offset, length = dice.randrange(len(content) + 100), dice.randrange(200_000)
            assert stream.seek(offset) == file.seek(offset)
            assert stream.read(length) == file.read(length)
            assert stream.tell() == file.tell()
        assert stream.seek(-5, io.SEEK_END) == len(content) - 5
        assert stream.read() == content[-5:]
        assert stream.read(1) == b""
    with store.open("empty") as stream:
        assert stream.read() == b""


def test_a_parquet_file_is_read_from_the_bucket(store: S3Store, tmp_path: Path) -> None:
    table = pa.table({"n": list(range(100_000)), "text": [f"row {n}" for n in range(100_000)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=20_000)
    store.put("t.parquet", tmp_path / "t.parquet")
    seen = asked(store)
    with store.open("t.parquet") as stream:
        found = pq.ParquetFile(stream)
        assert found.read_row_group(3, columns=["n"])["n"].to_pylist() == list(range(60_000, 80_000))
    assert len(seen) <= 6


def test_twenty_thousand_keys_are_listed_by_pages_in_bounded_memory(
    s3_server: S3Server, store: S3Store, prefix: str
) -> None:
    names = [f"k/{number // 50:03d}/{number:05d}" for number in range(20_000)]
    for name in names:
        file = s3_server.place("shared", f"{prefix}/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    seen = asked(store)
    tracemalloc.start()
    try:
        for entry, name in zip(store.list("k/"), names, strict=True):
            assert entry.key == name
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert operations(seen) == {"ListObjectsV2": 20}
    assert peak < 16 * MIB
    seen.clear()
    listing = store.list("k/", after=names[9_999], until=names[10_004])
    assert [entry.key for entry in listing] == names[10_000:10_005]
    assert next(iter(store.list("k/"))).key == names[0]
    assert operations(seen) == {"ListObjectsV2": 2}


def test_folders_and_keys_of_many_pages_come_in_one_order(s3_server: S3Server, store: S3Store, prefix: str) -> None:
    top = s3_server.place("shared", f"{prefix}/k")
    for number in range(1500):
        (top / f"{number:04d}-f").mkdir(parents=True)
        (top / f"{number:04d}-f" / "x").touch()
        (top / f"{number:04d}-g").touch()
    seen = asked(store)
    wanted = [name for number in range(1500) for name in (f"k/{number:04d}-f/", f"k/{number:04d}-g")]
    assert [entry.key for entry in store.list("k/", folders=True)] == wanted
    assert operations(seen) == {"ListObjectsV2": 3}
    assert [e.key for e in store.list("k/", folders=True, after="k/0700-f/", until="k/0701-f/")] == wanted[1401:1403]


def test_encryption_is_asked_for_everywhere_and_the_storage_class_for_data(
    s3_server: S3Server, prefix: str, tmp_path: Path
) -> None:
    settings = s3_server.settings(
        f"s3://shared/{prefix}", encryption="aws:kms", kms_key="alias/hathi", storage_class="STANDARD_IA",
        multipart_bytes=5 * MIB,
    )  # fmt: skip
    store = S3Store(settings)
    (tmp_path / "large").write_bytes(bytes(6 * MIB))
    seen = asked(store)
    store.put("lake/d/S/data", b"1")
    store.put("lake/d/S/large", tmp_path / "large")
    store.put_new("lake/c/S/plan", b"{}")
    store.put("lake/h/alive/d", b"")
    told = [
        (headers.get("x-amz-server-side-encryption"), headers.get("x-amz-storage-class"))
        for headers in (one.headers for one in seen if one.operation in ("PutObject", "CreateMultipartUpload"))
    ]
    assert told == [("aws:kms", "STANDARD_IA"), ("aws:kms", "STANDARD_IA"), ("aws:kms", None), ("aws:kms", None)]
    assert seen[0].headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/hathi"


@pytest.mark.parametrize(
    ("addressing", "endpoint", "host"),
    [
        ("auto", "http://s3.example.test", "http://s3.example.test/shared/x"),
        ("path", "http://s3.example.test", "http://s3.example.test/shared/x"),
        ("virtual", "http://s3.example.test", "http://shared.s3.example.test/x"),
        ("auto", None, "https://shared.s3.amazonaws.com/x"),
    ],
)
def test_the_bucket_stands_in_the_path_or_in_the_name(addressing: str, endpoint: str | None, host: str) -> None:
    settings = Bucket.model_validate(
        {"url": "s3://shared", "addressing": addressing, "endpoint": endpoint, "region": "eu-west-3",
         "access_key": "a", "secret_key": "b"}
    )  # fmt: skip
    client = S3Store(settings).connection.client()
    assert client.generate_presigned_url("get_object", {"Bucket": "shared", "Key": "x"}).startswith(f"{host}?")


def test_a_good_server_passes_each_step_and_nothing_is_left(store: S3Store) -> None:
    steps = list(store.examine("scratch/"))
    assert [step.step for step in steps] == ["reach", "identity", "list", "write", "put-if-absent", "delete"]
    assert all(step.ok for step in steps)
    probe(store, "")
    assert list(store.list("")) == []


def test_the_end_of_keys_is_told_where_something_says_it(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert S3Store(s3_server.settings()).credentials_end() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    by_variables = S3Store(s3_server.settings(access_key=None, secret_key=None))
    assert by_variables.credentials_end() is None
    assert list(by_variables.list("none/")) == []
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2033-05-18T03:33:20Z")
    assert by_variables.credentials_end() == 2_000_000_000.0


RULES = b"""<LifecycleConfiguration>
<Rule><ID>old data</ID><Status>Enabled</Status><Filter><Prefix>ours/</Prefix></Filter>
  <Expiration><Days>30</Days></Expiration></Rule>
<Rule><ID>elsewhere</ID><Status>Enabled</Status><Filter><Prefix>theirs/</Prefix></Filter>
  <Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>off</ID><Status>Disabled</Status><Filter><Prefix></Prefix></Filter>
  <Expiration><Days>2</Days></Expiration></Rule>
<Rule><ID>uploads</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>
  <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
<Rule><ID>cold</ID><Status>Enabled</Status><Filter><Prefix>ours/lake/d</Prefix></Filter>
  <Transition><Days>3</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>
<Rule><ID>tagged</ID><Status>Enabled</Status><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>
  <Expiration><Days>4</Days></Expiration></Rule>
</LifecycleConfiguration>"""


def test_rules_of_the_bucket_that_would_take_our_keys_are_told(s3_server: S3Server, store: S3Store) -> None:
    with answering(Canned(200, body=RULES)) as stub:
        told = S3Store(s3_server.settings("s3://shared/ours", endpoint=stub.endpoint))
        assert told.forgets("lake/") == (
            'rule "old data" deletes keys after 30 days (prefix "ours/"); '
            'rule "cold" moves keys into GLACIER after 3 days (prefix "ours/lake/d")'
        )
        assert told.forgets("other/") == 'rule "old data" deletes keys after 30 days (prefix "ours/")'
    assert store.forgets("") == "", "a server that has no rules"
    for answer in (Canned(404, "NoSuchLifecycleConfiguration"), Canned(403, "AccessDenied")):
        with answering(answer) as stub:
            assert S3Store(s3_server.settings(endpoint=stub.endpoint)).forgets("") == ""
    old = [{"ID": "all", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 9}}]
    assert in_words(old, "x/") == 'rule "all" deletes keys after 9 days (prefix "")'


def test_a_file_that_shrinks_while_it_is_sent_is_named(store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(4 * MIB))

    def shrink(**_: object) -> None:
        with path.open("rb+") as file:
            file.truncate(MIB)

    store.connection.client().meta.events.register("before-parameter-build.s3.PutObject", shrink)
    with pytest.raises(PermanentError, match="became shorter while it was sent"):
        store.put("x", path)
    with pytest.raises(NotFound):
        store.get("x")


def test_a_retry_is_the_stores_own_and_not_also_botocores(s3_server: S3Server) -> None:
    with answering(Canned(503, "SlowDown")) as stub:
        settings = s3_server.settings(endpoint=stub.endpoint)
        with pytest.raises(TemporaryError, match="slow down"):
            S3Store(settings, Retry(0.0)).get("x")
        assert len(stub.requests) == 1
