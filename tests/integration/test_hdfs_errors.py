"""What goes wrong with an HDFS is named with cause and remedy, and passes when the cause does: on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from pipeline.clock import Clock, random_nonce
from pipeline.errors import ConfigError, PermanentError, PipelineError, TemporaryError
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.errors import refused
from pipeline.stores.hdfs.store import HdfsStore
from tests.servers import hdfs
from tests.servers.demand import free_port, until
from tests.servers.hdfs import HdfsServer

MIB = 1 << 20
OFTEN = Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.2)))
"""Asks again soon, so that a test does not wait for a pause to end."""


@pytest.fixture(scope="module")
def fragile() -> Iterator[HdfsServer]:
    """A server that may be stopped and killed; who does so starts it again."""
    with hdfs.running() as server:
        yield server


@pytest.fixture
def folder() -> str:
    return f"tests/{random_nonce()}"


def impatient(server: HdfsServer, folder: str = "", **more: object) -> HdfsStore:
    return server.store(folder, retry_seconds=0.0, **more)


def patient(server: HdfsServer) -> HdfsStore:
    return HdfsStore(server.url(), server.settings(retry_seconds=120.0), clock=OFTEN)


def test_a_denied_right_names_user_path_and_mode(hdfs_server: HdfsServer, folder: str) -> None:
    hdfs_server.superuser().open_to_all(f"/{folder}")
    hdfs_server.superuser().permit(f"/{folder}", "750")
    stranger = impatient(hdfs_server, folder, user="alice")
    with pytest.raises(PermanentError, match="user alice is not allowed") as error:
        stranger.put("k", b"")
    assert f"/{folder} is drwxr-x---" in error.value.detail
    assert f"setfacl -m user:alice:rwx /{folder}" in error.value.hint
    with pytest.raises(PermanentError, match="user alice is not allowed"):
        stranger.stat("k")  # and is not taken for absent
    with pytest.raises(PermanentError, match="user alice is not allowed"):
        stranger.list("")


def test_a_quota_is_named_and_work_goes_on_once_it_is_raised(hdfs_server: HdfsServer, folder: str) -> None:
    boss, store = hdfs_server.superuser(), impatient(hdfs_server, folder)
    boss.open_to_all(f"/{folder}")
    boss.limit(f"/{folder}", names=2)
    with pytest.raises(TemporaryError, match=f"the names quota of /{folder} is exceeded") as error:
        store.put("a/b/c", b"")
    assert f"hdfs dfsadmin -setQuota N /{folder}" in error.value.hint
    boss.limit(f"/{folder}", space=MIB)
    with pytest.raises(TemporaryError, match=f"the space quota of /{folder} is exceeded") as error:
        store.put("k", b"x")
    assert f"hdfs dfsadmin -setSpaceQuota N /{folder}" in error.value.hint
    assert store.stat("k") is None
    boss.limit(f"/{folder}")
    store.put("k", b"x")
    assert store.get("k") == b"x"


def test_in_safe_mode_nothing_is_written_and_it_is_tried_again(fragile: HdfsServer) -> None:
    store = patient(fragile)
    store.put("k", b"before")
    fragile.admin("-safemode", "enter")
    with pytest.raises(TemporaryError, match="safe mode") as error:
        HdfsStore(store.url, fragile.settings(retry_seconds=0.0)).put_new("new", b"")
    assert "hdfs dfsadmin -safemode get" in error.value.hint
    assert store.get("k") == b"before"
    with ThreadPoolExecutor() as pool:
        done = pool.submit(store.put, "k", b"after")
        fragile.admin("-safemode", "leave")
        done.result()
    assert store.get("k") == b"after"


def test_a_stopped_namenode_is_waited_for(fragile: HdfsServer) -> None:
    store = patient(fragile)
    store.put("k", b"before")
    assert fragile.namenode is not None
    fragile.namenode.kill()
    with pytest.raises(TemporaryError, match=f"the NameNode localhost:{fragile.web} is not reachable"):
        HdfsStore(store.url, fragile.settings(retry_seconds=0.0)).get("k")
    with ThreadPoolExecutor() as pool:
        done = pool.submit(store.put, "new", b"after")
        fragile.start_namenode()
        done.result()
    assert (store.get("k"), store.get("new")) == (b"before", b"after")


def test_a_datanode_killed_in_the_middle_of_a_write_leaves_nothing_under_the_name(
    fragile: HdfsServer, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1024 * MIB)
    store = impatient(fragile)
    data = fragile.folder / "data"

    def begun() -> bool:
        return any(path.stat().st_size > MIB for path in data.glob("current/BP-*/current/rbw/blk_*") if path.exists())

    def kill() -> None:
        until(begun, "the DataNode has a part of it")
        assert fragile.datanode is not None
        fragile.datanode.kill()

    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill)
        with pytest.raises(TemporaryError, match=r"the DataNode .* did not answer"):
            store.put("big", big)
        killed.result()
    assert store.stat("big") is None
    fragile.start_datanode()
    fragile.ready()
    store.put("big", b"whole")
    assert store.get("big") == b"whole"


def test_a_read_goes_on_where_it_was_when_its_datanode_is_back(fragile: HdfsServer, tmp_path: Path) -> None:
    content = random_nonce().encode() * (4 * MIB)
    (tmp_path / "big").write_bytes(content)
    store = patient(fragile)
    store.put("big", tmp_path / "big")
    assert fragile.datanode is not None
    hasty = HdfsStore(store.url, fragile.settings(retry_seconds=0.0))
    with store.open("big") as waiting, hasty.open("big") as stream, ThreadPoolExecutor() as pool:
        assert waiting.read(MIB) == stream.read(MIB) == content[:MIB]
        fragile.datanode.kill()
        with pytest.raises(TemporaryError, match=r"reading .* broke at byte"):
            stream.read()
        rest = pool.submit(waiting.read)
        fragile.start_datanode()
        assert rest.result() == content[MIB:]
    fragile.ready()


class Standby(BaseHTTPRequestHandler):
    """A NameNode that leaves the work to the other one."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        exception = {"exception": "StandbyException", "message": "Operation category READ is not supported"}
        body = json.dumps({"RemoteException": exception}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def standby() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Standby,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_the_active_namenode_is_found_and_remembered(hdfs_server: HdfsServer, standby: tuple[str, list[str]]) -> None:
    address, asked = standby
    nobody = f"localhost:{free_port()}"
    url = f"hdfs://{address},{nobody},{hdfs_server.address}/tests/{random_nonce()}"
    store = HdfsStore(url, hdfs_server.settings(retry_seconds=0.0))
    store.put_new("k", b"found")
    assert store.get("k") == b"found"
    assert len(asked) == 1
    alone = HdfsStore(f"hdfs://{address}/x", hdfs_server.settings(retry_seconds=0.0))
    with pytest.raises(TemporaryError, match="is a standby NameNode") as error:
        alone.get("k")
    assert "name all of them in lakes" in error.value.hint
    both = HdfsStore(f"hdfs://{address},{nobody}/x", hdfs_server.settings(retry_seconds=0.0))
    with pytest.raises(TemporaryError, match="no NameNode serves") as error:
        both.put("k", b"")
    assert "standby" in error.value.detail
    assert "not reachable" in error.value.detail


def test_a_port_that_is_not_webhdfs_is_named(hdfs_server: HdfsServer) -> None:
    store = HdfsStore(f"hdfs://localhost:{hdfs_server.rpc}/x", hdfs_server.settings(retry_seconds=0.0))
    with pytest.raises(PipelineError) as error:
        store.get("k")
    assert "9870" in error.value.hint or "the port is right" in error.value.hint
    for url in ("hdfs:///folder", "hdfs://namenode/folder", "hdfs://,/x"):
        with pytest.raises(ConfigError, match="not the URL of an HDFS"):
            HdfsStore(url, Hdfs())


def test_a_name_that_nobody_knows_is_named_as_such_and_not_as_a_server_that_is_down(hdfs_server: HdfsServer) -> None:
    store = HdfsStore("hdfs://namenode.invalid:9870/x", hdfs_server.settings(retry_seconds=0.0))
    with pytest.raises(TemporaryError, match=r"the name of the NameNode namenode\.invalid is not known") as error:
        store.get("k")
    assert "getent hosts namenode.invalid" in error.value.hint
    assert "lakes.*.url" in error.value.hint
    with pytest.raises(TemporaryError, match=r"the name of the DataNode datanode\.invalid is not known") as error:
        store._hdfs._namenodes[0].send("http://datanode.invalid:9864/webhdfs/v1/x", b"")
    assert "getent hosts datanode.invalid" in error.value.hint


def test_words_of_servers_that_cannot_be_brought_to_say_them() -> None:
    def of(exception: str, message: str, status: int = 403) -> PipelineError:
        response = requests.Response()
        response.status_code, response.url = status, "http://nn:9870/webhdfs/v1/x"
        response._content = json.dumps({"RemoteException": {"exception": exception, "message": message}}).encode()
        return refused(response, Hdfs(), "/x")

    full = of(
        "IOException", "File /x could only be written to 0 of the 1 minReplication nodes. There are 1 datanode(s)"
    )
    assert isinstance(full, TemporaryError)
    assert "no room" in full.message
    assert "dfsadmin -report" in full.hint
    for away in (("IOException", "No active nodes contain this block"), ("BlockMissingException", "Could not obtain")):
        gone = of(*away)
        assert isinstance(gone, TemporaryError)
        assert gone.message == "no DataNode that runs has /x"
        assert "dfsadmin -report" in gone.hint
    owned = of("AccessControlException", 'Permission denied: user=me, access=WRITE, inode="/x":me:all:dr-xr-xr-x')
    assert "-chmod u+rwx /x" in owned.hint, "neither chown nor an ACL helps its owner"
    others = of("AccessControlException", 'Permission denied: user=me, access=WRITE, inode="/x":you:all:dr-xr-xr-x')
    assert "-setfacl -m user:me:rwx /x" in others.hint
    starting = of("RetriableException", "NameNode still not started")
    assert isinstance(starting, TemporaryError)
    zone = of("IOException", "/x can't be moved from an encryption zone.")
    assert isinstance(zone, PermanentError)
    assert "sets.*.root" in zone.hint
    response = requests.Response()
    response.status_code, response.url, response._content = 502, "http://nn:9870/x", b"<title>Bad Gateway</title>"
    assert "Bad Gateway" in refused(response, Hdfs(), "/x").detail
