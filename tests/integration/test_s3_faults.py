"""What goes wrong between a store and its S3 server: each is named, and what can recover does."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.auth
import pytest

from pipeline.clock import Clock, random_nonce
from pipeline.errors import ConfigError, Exists, NotFound, PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.ledger.commit import put_first
from pipeline.settings import Bucket
from pipeline.stores.retrying import Retry
from pipeline.stores.s3.store import S3Store
from tests.servers.demand import free_port, until
from tests.servers.proxy import Proxy
from tests.servers.s3 import S3Server, running
from tests.servers.s3_stub import Canned, answering

MIB = 2**20
AT_ONCE = Retry(0.0)
"""One try."""
OK = Canned(200, headers={"ETag": '"0123"'})


@pytest.fixture
def prefix() -> str:
    return random_nonce()


@pytest.fixture
def store(s3_server: S3Server, prefix: str) -> S3Store:
    return S3Store(s3_server.settings(f"s3://shared/{prefix}"))


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    proxy = Proxy(s3_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def hurt(tmp_path: Path) -> Iterator[S3Server]:
    """A server of this test's own, to be killed."""
    with running(tmp_path / "server") as server:
        yield server


def through(proxy: Proxy, server: S3Server, prefix: str, retry: Retry | None = None, **changes: Any) -> S3Store:
    endpoint = f"http://127.0.0.1:{proxy.port}"
    return S3Store(server.settings(f"s3://shared/{prefix}", endpoint=endpoint, **changes), retry)


def when_waiting(do: Callable[[], object]) -> Retry:
    """A retry that does something, once, instead of its first pause, and does not wait."""
    left = [do]
    return Retry(60.0, Clock(sleep=lambda _: left.pop()() if left else None))  # type: ignore[arg-type]


def methods(proxy: Proxy) -> list[str]:
    return [line.partition(" ")[0] for line in proxy.requests]


def never(_: float) -> None:
    raise AssertionError("nothing was to be waited for")


def test_a_winner_whose_answer_was_lost_reads_back_and_has_won(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix)
    proxy.lose_answer(b"PUT ")
    with pytest.raises(Unknown):
        store.put_new("first", b"mine")
    assert store.get("first") == b"mine"
    proxy.requests.clear()
    proxy.lose_answer(b"PUT ")
    assert put_first(store, "k", b"mine", never) == b"mine"
    assert methods(proxy) == ["PUT", "GET"]


def test_a_loser_whose_answer_was_lost_finds_the_winner(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix)
    store.put_new("k", b"another's")
    proxy.lose_answer(b"PUT ")
    assert put_first(store, "k", b"mine", never) == b"another's"


def test_a_request_that_was_lost_is_sent_again(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix)
    proxy.lose_request(b"PUT ", times=2)
    pauses: list[float] = []
    assert put_first(store, "k", b"mine", pauses.append) == b"mine"
    assert len(pauses) == 2
    assert methods(proxy) == ["PUT", "GET", "PUT", "GET", "PUT"]
    assert store.get("k") == b"mine"


def test_a_request_that_arrives_late_is_still_its_writers_own(
    s3_server: S3Server, store: S3Store, proxy: Proxy, prefix: str
) -> None:
    """The client gave up, saw nothing, and asks again; by then the first request has done its work."""
    slow = through(proxy, s3_server, prefix, read_seconds=1.0)
    release = threading.Event()
    proxy.meet(b"PUT ", do=release.wait, then="pass")

    def stands() -> bool:
        return [entry.key for entry in store.list("")] == ["k"]

    def let_it_through(_: float) -> None:
        release.set()
        until(stands, "the late request was done")

    assert put_first(slow, "k", b"mine", let_it_through) == b"mine"
    assert store.get("k") == b"mine"


def test_of_sixteen_racers_who_lose_answers_one_wins(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix)
    for round_ in range(5):
        proxy.lose_answer(b"PUT ", times=6)
        proxy.lose_request(b"PUT ", times=2)
        stands: dict[int, bytes] = {}

        def race(number: int, key: str = f"k/{round_}", stands: dict[int, bytes] = stands) -> None:
            stands[number] = put_first(store, key, b"%d" % number, lambda _: None)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        proxy.forgive()
        assert len(stands) == 16
        (winner,) = set(stands.values())
        assert [number for number, body in stands.items() if body == b"%d" % number] == [int(winner)]
        assert store.get(f"k/{round_}") == winner


@pytest.mark.parametrize("parts", [False, True], ids=["in one request", "in parts"])
def test_a_server_killed_in_mid_put_keeps_the_old_object_and_takes_the_new_one_once_it_runs(
    hurt: S3Server, tmp_path: Path, parts: bool
) -> None:
    proxy = Proxy(hurt.port)
    settings = {"multipart_bytes": 5 * MIB if parts else 32 * MIB}
    (tmp_path / "new").write_bytes(b"new" * (4 * MIB))
    store = through(proxy, hurt, "p", AT_ONCE, **settings)
    store.put("x", b"old")
    fault = proxy.meet(rb"PUT .*partNumber=2" if parts else rb"PUT ", after=2 * MIB, do=hurt.kill)
    with pytest.raises(TemporaryError):
        store.put("x", tmp_path / "new")
    assert fault.met.wait(60.0)
    hurt.start()
    assert store.get("x") == b"old"
    assert [entry.key for entry in store.list("")] == ["x"]
    assert store.sweep(-60.0) == (1 if parts else 0)

    patient = through(proxy, hurt, "p", when_waiting(hurt.start), **settings)
    again = proxy.meet(rb"PUT .*partNumber=2" if parts else rb"PUT ", after=2 * MIB, do=hurt.kill)
    patient.put("x", tmp_path / "new")
    assert again.met.wait(60.0)
    assert patient.get("x") == b"new" * (4 * MIB)
    proxy.close()


def test_a_server_killed_while_an_object_is_read_is_waited_for(hurt: S3Server) -> None:
    proxy = Proxy(hurt.port)
    store = through(proxy, hurt, "p", when_waiting(hurt.start))
    content = bytes(range(256)) * (16 * 1024)
    store.put("x", content)
    fault = proxy.meet(b"GET ", way="answer", after=2 * MIB, do=hurt.kill, then="cut")
    with store.open("x") as stream:
        assert stream.read() == content
    assert fault.met.wait(60.0)
    proxy.close()


def test_an_upload_in_parts_whose_last_answer_was_lost_is_complete(
    s3_server: S3Server, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    store = through(proxy, s3_server, prefix, multipart_bytes=5 * MIB)
    (tmp_path / "file").write_bytes(b"1234" * (2 * MIB))
    proxy.lose_answer(rb"POST .*uploadId=")
    store.put("x", tmp_path / "file")
    assert store.get("x") == b"1234" * (2 * MIB)
    assert methods(proxy).count("POST") == 3


def test_an_upload_that_the_server_knows_no_more_is_judged_by_what_stands_there(
    s3_server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(6 * MIB))
    begun = Canned(200, body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    gone = Canned(404, "NoSuchUpload")

    def put(stands: Canned) -> None:
        with answering(begun, OK, OK, gone, stands, Canned(204)) as stub:
            settings = s3_server.settings(endpoint=stub.endpoint, multipart_bytes=5 * MIB)
            S3Store(settings, AT_ONCE).put("x", tmp_path / "file")

    put(Canned(200, headers={"ETag": '"0123-2"', "Content-Length": str(6 * MIB)}))
    for other in ({"ETag": '"0123-2"', "Content-Length": "7"}, {"ETag": '"0123"', "Content-Length": str(6 * MIB)}):
        with pytest.raises(TemporaryError, match="an upload was lost"):
            put(Canned(200, headers=other))


def test_an_outage_is_waited_out(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    proxy.down()
    store = through(proxy, s3_server, prefix, when_waiting(proxy.up))
    store.put_new("k", b"1")
    proxy.down()
    assert through(proxy, s3_server, prefix, when_waiting(proxy.up)).get("k") == b"1"
    proxy.down()
    with pytest.raises(TemporaryError, match="cannot be reached"):
        through(proxy, s3_server, prefix, AT_ONCE).list("")


def test_a_server_that_falls_silent_is_left_after_its_time(hurt: S3Server) -> None:
    store = S3Store(hurt.settings(read_seconds=0.5), AT_ONCE)
    S3Store(hurt.settings()).put("x", b"1")
    assert hurt.server is not None
    hurt.server.freeze()
    with pytest.raises(TemporaryError, match="stopped answering"):
        store.get("x")
    with pytest.raises(Unknown, match="stopped answering"):
        store.put_new("y", b"1")
    hurt.server.thaw()
    assert S3Store(hurt.settings()).get("x") == b"1"


def test_an_answer_that_comes_too_late_is_asked_for_again(s3_server: S3Server, proxy: Proxy, prefix: str) -> None:
    store = through(proxy, s3_server, prefix, when_waiting(lambda: setattr(proxy, "delay", 0.0)), read_seconds=1.0)
    store.put("x", b"1")
    proxy.delay = 5.0
    with pytest.raises(TemporaryError, match="stopped answering"):
        through(proxy, s3_server, prefix, AT_ONCE, read_seconds=1.0).get("x")
    assert store.get("x") == b"1"


def test_a_server_whose_secret_was_changed_refuses_until_it_is_changed_back(hurt: S3Server) -> None:
    store = S3Store(hurt.settings())
    store.put("x", b"1")
    right, hurt.secret_key = hurt.secret_key, "another"
    hurt.kill()
    hurt.start()
    with pytest.raises(PermanentError, match="the secret key is not that of the access key"):
        store.get("x")
    hurt.secret_key = right
    hurt.kill()
    hurt.start()
    assert store.get("x") == b"1"


def test_what_may_pass_is_asked_again_and_a_put_new_is_not(s3_server: S3Server) -> None:
    trouble = [Canned(503, "SlowDown"), Canned(500, "InternalError"), Canned(502, body=b"<html>no</html>")]
    pauses: list[float] = []
    retry = Retry(600.0, Clock(monotonic=lambda: sum(pauses), sleep=pauses.append), lambda: 1.0)
    with answering(*trouble, Canned(200, body=b"at last", headers=OK.headers)) as stub:
        store = S3Store(s3_server.settings(endpoint=stub.endpoint), retry)
        assert store.get("x") == b"at last"
        assert len(stub.requests) == 4
    assert pauses == [2.0, 2.0, 4.0]
    for answer in (*trouble, Canned(409, "ConditionalRequestConflict")):
        with answering(answer) as stub:
            with pytest.raises(Unknown):
                S3Store(s3_server.settings(endpoint=stub.endpoint), retry).put_new("x", b"1")
            assert len(stub.requests) == 1
    with answering(Canned(412, "PreconditionFailed")) as stub, pytest.raises(Exists):
        S3Store(s3_server.settings(endpoint=stub.endpoint), retry).put_new("x", b"1")


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which nothing gives keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def said(settings: Bucket) -> PipelineError:
    """What one look raises: cause and remedy in one line."""
    with pytest.raises(PipelineError) as raised:
        S3Store(settings, AT_ONCE).list("")
    error = raised.value
    assert error.hint
    assert "\n" not in str(error)
    assert settings.url in error.detail or isinstance(error, ConfigError)
    return error


@pytest.mark.parametrize(
    ("changes", "kind", "words", "remedy"),
    [
        ({"secret_key": "wrong"}, PermanentError, "the secret key is not that of the access key", "bucket.access_key"),
        ({"access_key": "nobody"}, PermanentError, "S3 does not know the access key", "bucket.access_key"),
        ({"session_token": "made up"}, PermanentError, "S3 does not know the session token", "bucket.access_key"),
        ({"url": "s3://missing-bucket"}, PermanentError, "there is no such bucket", "bucket.url"),
        ({"url": "s3://X"}, PermanentError, "no bucket can have this name", "bucket.url"),
        ({"endpoint": "http://no-such-host.invalid"}, TemporaryError, "name of the S3 server is not known", "endpoint"),
        ({"endpoint": "no-url"}, ConfigError, "the settings of the bucket are wrong", "bucket.endpoint"),
        ({"region": "no region"}, ConfigError, "the settings of the bucket are wrong", "[bucket]"),
        ({"access_key": None, "secret_key": None}, PermanentError, "no keys for S3", "profile"),
        ({"access_key": None, "secret_key": None, "profile": "no"}, ConfigError, "are wrong", "[bucket]"),
    ],
)
def test_what_the_operator_wrote_wrong_is_named(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: type, words: str, remedy: str
) -> None:
    nowhere(monkeypatch)
    error = said(s3_server.settings(**changes))
    assert type(error) is kind
    assert words in error.message
    assert remedy in error.hint


def test_a_server_that_does_not_run_is_named(s3_server: S3Server) -> None:
    error = said(s3_server.settings(endpoint=f"http://127.0.0.1:{free_port()}"))
    assert isinstance(error, TemporaryError)
    assert error.message == "the S3 server cannot be reached"
    tls = said(s3_server.settings(endpoint=f"https://127.0.0.1:{s3_server.port}"))
    assert "TLS" in tls.message


def test_rights_that_are_missing_are_named_with_the_verb(s3_server: S3Server) -> None:
    s3_server.add_person("stranger", "stranger-secret")
    settings = s3_server.settings(access_key="stranger", secret_key="stranger-secret")
    error = said(settings)
    assert error.message == "S3 does not allow it"
    assert "ListObjectsV2" in error.detail
    assert "docs/permissions.md" in error.hint
    steps = list(S3Store(settings).examine("scratch/"))
    assert [(step.step, step.ok) for step in steps] == [("reach", True), ("identity", True), ("list", False)]


def test_a_clock_that_is_off_is_named(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    right = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *a, **k: right(*a, **k) + datetime.timedelta(hours=1)
    )
    error = said(s3_server.settings())
    assert error.message == "this host's clock and that of S3 differ too much"
    assert "timedatectl" in error.hint
    monkeypatch.setattr(botocore.auth, "get_current_datetime", right)


@pytest.mark.parametrize(
    ("answer", "words", "remedy"),
    [
        (Canned(400, "ExpiredToken"), "the session token has expired", "new temporary keys"),
        (Canned(301, "PermanentRedirect"), "the bucket lies in another region", "bucket.region"),
        (Canned(400, "AuthorizationHeaderMalformed"), "the bucket lies in another region", "bucket.region"),
        (Canned(503, "SlowDown"), "slow down", "by itself"),
        (Canned(507, "XMinioStorageFull"), "the disk of the S3 server is full", "free space"),
        (Canned(403, "InvalidObjectState"), "moved into an archive", "archiving rule"),
        (Canned(501, "NotImplemented"), "does not support", "hathi doctor"),
        (Canned(418, "ATeapot"), "S3 refuses it", "own words above"),
        (
            Canned(200, body=b"<html>log in to this network</html>"),
            "the server that answers is not S3",
            "bucket.endpoint",
        ),
    ],
    ids=lambda value: value.error if isinstance(value, Canned) else "",
)
def test_what_only_a_stub_can_be_brought_to_say_is_named(
    s3_server: S3Server, answer: Canned, words: str, remedy: str
) -> None:
    with answering(answer) as stub:
        error = said(s3_server.settings(endpoint=stub.endpoint))
    assert words in error.message
    assert remedy in error.hint
    if "region" in words:
        assert "eu-north-1" in error.detail


def test_a_page_that_answers_every_request_with_200_wins_no_key(s3_server: S3Server) -> None:
    with answering(Canned(200, body=b"<html>log in to this network</html>")) as hotel:
        store = S3Store(s3_server.settings(endpoint=hotel.endpoint), AT_ONCE)
        with pytest.raises(Unknown, match="is not S3"):
            store.put_new("x", b"1")
        for verb in (lambda: store.get("x"), lambda: store.open("x"), lambda: store.put("x", b"")):
            with pytest.raises(TemporaryError, match="is not S3"):
                verb()


def test_looking_at_a_server_ends_at_the_first_step_that_is_not_ok(
    s3_server: S3Server, proxy: Proxy, prefix: str
) -> None:
    def steps(settings: Bucket) -> list[tuple[str, bool]]:
        return [(step.step, step.ok) for step in S3Store(settings).examine("scratch/")]

    assert steps(s3_server.settings(endpoint=f"http://127.0.0.1:{free_port()}")) == [("reach", False)]
    assert steps(s3_server.settings(secret_key="wrong")) == [("reach", True), ("identity", False)]
    assert steps(s3_server.settings("s3://missing-bucket"))[-1] == ("list", False)
    listed = Canned(200, body=b"<ListBucketResult><Name>shared</Name></ListBucketResult>")
    with answering(listed, OK) as careless:
        last = steps(s3_server.settings(endpoint=careless.endpoint))[-1]
    assert last == ("put-if-absent", False)
    with answering(listed, Canned(403, "AccessDenied")) as forbidden:
        assert steps(s3_server.settings(endpoint=forbidden.endpoint))[-1] == ("write", False)


def test_keys_that_are_put_right_are_taken_without_a_restart(
    s3_server: S3Server, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(monkeypatch)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(secret: str) -> None:
        file.write_text(f"[box]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {secret}\n")

    write("mistyped")
    settings = s3_server.settings(f"s3://shared/{prefix}", access_key=None, secret_key=None, profile="box")
    store = S3Store(settings)
    with pytest.raises(PermanentError, match="the secret key is not that of the access key"):
        store.put("x", b"1")
    write(s3_server.secret_key)
    store.put("x", b"1")
    assert store.get("x") == b"1"


def test_the_keys_of_a_role_are_taken_and_renewed_by_themselves(
    s3_server: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container's agent gives them: the first ones end within minutes, so that others are asked for."""
    nowhere(monkeypatch)

    def role(seconds: int, secret: str) -> Canned:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        keys = {"AccessKeyId": s3_server.access_key, "SecretAccessKey": secret, "Token": ""}  # this server takes none
        return Canned(200, body=json.dumps({**keys, "Expiration": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}).encode())

    with answering(role(300, "ends soon"), role(3600, s3_server.secret_key)) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.endpoint}/role")
        store = S3Store(s3_server.settings(f"s3://shared/{prefix}", access_key=None, secret_key=None))
        store.put("x", b"1")
        assert store.get("x") == b"1"
        assert agent.requests == ["GET /role", "GET /role"]
        assert store.credentials_end() is None


def test_temporary_keys_of_variables_that_have_ended_are_named(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    store = S3Store(s3_server.settings(access_key=None, secret_key=None), AT_ONCE)
    with pytest.raises(PermanentError, match="the temporary keys have expired"):
        store.list("")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2100-01-01T00:00:00Z")
    with pytest.raises(NotFound):
        store.get("none")
