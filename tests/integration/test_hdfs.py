"""An HDFS as a lake on real servers: what the conformance suite does not ask of every store."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import Clock, random_nonce
from pipeline.errors import Exists, PermanentError, TemporaryError, Unknown
from pipeline.ledger.commit import put_first
from pipeline.settings import Settings
from pipeline.stores.hdfs.listing import before, in_key_order, pages
from pipeline.stores.hdfs.store import TEMPORARY, HdfsStore
from pipeline.stores.hdfs.webhdfs import Page, Status
from pipeline.stores.opening import open_lake, probe
from tests.servers.hdfs import PAGE, HdfsServer
from tests.servers.proxy import Proxy

MIB = 1 << 20
RENAME = rb"PUT .*op=RENAME"


@pytest.fixture
def proxy(hdfs_server: HdfsServer) -> Iterator[Proxy]:
    proxy = Proxy(hdfs_server.web)
    yield proxy
    proxy.close()


def behind(proxy: Proxy, server: HdfsServer, folder: str = "", clock: Clock | None = None) -> HdfsStore:
    """A store that reaches its NameNode through the proxy."""
    url = server.url(folder).replace(server.address, f"localhost:{proxy.port}")
    return HdfsStore(url, server.settings(retry_seconds=30.0), clock=clock)


# What is lost


def test_a_lost_answer_is_unknown_and_the_winner_is_read_back(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    store = behind(proxy, hdfs_server)
    proxy.lose_answer(RENAME)
    with pytest.raises(Unknown):
        store.put_new("done", b"mine")
    assert store.get("done") == b"mine"
    proxy.lose_answer(RENAME)
    assert put_first(store, "won", b"mine", lambda _: None) == b"mine"
    proxy.lose_request(RENAME)
    assert put_first(store, "not heard", b"mine", lambda _: None) == b"mine"
    store.put("taken", b"theirs")
    proxy.lose_answer(RENAME)
    assert put_first(store, "taken", b"mine", lambda _: None) == b"theirs"
    store.put("folder/file", b"1")
    proxy.lose_answer(RENAME)
    with pytest.raises(Unknown):
        store.rename_new("folder", "moved")
    assert store.get("moved/file") == b"1"
    assert [entry.key for entry in store.list("")] == ["done", "moved/file", "not heard", "taken", "won"]


def test_what_may_be_done_twice_is_tried_again(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    store = behind(proxy, hdfs_server)
    for match in (RENAME, rb"PUT .*op=CREATE", rb"GET .*op=GETFILESTATUS"):
        proxy.lose_answer(match)
        store.put("k", match)
        assert store.get("k") == match
    for at in (20, 150, 300, 600):  # in the head, and in the body
        proxy.cut_answer(rb"GET .*op=LISTSTATUS_BATCH", after=at)
        assert [entry.key for entry in store.list("")] == ["k"]
        proxy.cut_answer(rb"PUT .*op=CREATE", after=at)
        store.put("k", b"2")
    assert list(store._hdfs.page(f"{store._top}/{TEMPORARY}", "").entries) == []


def test_with_several_namenodes_a_rename_is_not_sent_to_the_next_one(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    folder = random_nonce()
    url = f"hdfs://localhost:{proxy.port},{hdfs_server.address}/tests/{folder}"
    store = HdfsStore(url, hdfs_server.settings(retry_seconds=0.0))
    store.put_new("first", b"")
    proxy.lose_request(RENAME)
    with pytest.raises(Unknown):
        store.put_new("k", b"1")
    assert store.stat("k") is None
    proxy.down()
    store.put_new("k", b"1")
    assert store.get("k") == b"1"


# What lists


def test_a_folder_is_read_by_pages_and_only_as_far_as_needed(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    store = behind(proxy, hdfs_server, "tests/pages-" + random_nonce())
    names = [f"{number:03d}" for number in range(5 * PAGE)] + ["z", "ü"]
    for name in names:
        store.make_folder(f"k/{name}")

    def asked(take: int, prefix: str, **options: object) -> tuple[list[str], int]:
        proxy.requests.clear()
        entries = iter(store.list(prefix, folders=True, **options))  # type: ignore[arg-type]
        keys = [entry.key for entry, _ in zip(entries, range(take), strict=False)]
        assert all("LISTSTATUS_BATCH" in line for line in proxy.requests)
        return keys, len(proxy.requests)

    assert asked(1000, "k/") == ([f"k/{name}/" for name in names], 6)
    assert asked(3, "k/") == (["k/000/", "k/001/", "k/002/"], 1)
    assert asked(1000, "k/09") == ([f"k/09{n}/" for n in range(10)], 1)
    assert asked(1000, "k/", until="k/001/") == (["k/000/", "k/001/"], 1)
    assert list(store.list("none/")) == []


def test_a_page_more_or_less_is_the_same_listing(hdfs_server: HdfsServer) -> None:
    store = hdfs_server.store()
    names = sorted([f"a{sign}{n}" for sign in " !+-.0a~é" for n in range(6)] + ["a"], key=str.encode)
    for name in names:
        store.make_folder(name)
    assert [entry.key for entry in store.list("", folders=True)] == sorted(
        (f"{name}/" for name in names), key=str.encode
    )
    assert [entry.key for entry in store.list("a-", folders=True)] == [f"a-{n}/" for n in range(6)]


NAMES = st.dictionaries(st.text("a-/.0é日~".replace("/", ""), min_size=1, max_size=4), st.booleans(), max_size=30)


@given(names=NAMES, start=st.text("a-.0é~", max_size=2), size=st.integers(1, 5))
def test_the_order_of_hdfs_becomes_the_order_of_keys(names: dict[str, bool], start: str, size: int) -> None:
    """A server that lists by signed bytes, in pages, against plain sorting."""

    def signed(name: str) -> list[int]:
        return [byte - 256 if byte > 127 else byte for byte in name.encode()]

    there = sorted(names, key=signed)

    def ask(after: str) -> Page:
        rest = [name for name in there if signed(name) > signed(after)]
        return Page(0.0, tuple(Status(name, 0, 0, 0, names[name]) for name in rest[:size]), len(rest) > size)

    keys = [one.name + "/" * one.is_folder for one in in_key_order(pages(ask, ask(before(start)), start))]
    wanted = [name + "/" * is_folder for name, is_folder in names.items() if name.startswith(start)]
    assert keys == sorted(wanted, key=str.encode)


# What is read and written


def test_a_large_file_streams_both_ways_in_little_memory(hdfs_server: HdfsServer, tmp_path: Path) -> None:
    program = """
import hashlib, sys
from pathlib import Path
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.store import HdfsStore
from tests import peak
store = HdfsStore(sys.argv[1], Hdfs(user="root"))
before = peak.forget()
store.put("big", Path(sys.argv[2]))
sha = hashlib.sha256()
with store.open("big") as stream:
    while block := stream.read(1 << 20):
        sha.update(block)
print(sha.hexdigest(), (peak.held() - before) >> 20)
"""
    block = os.urandom(MIB)
    path = tmp_path / "big"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", program, hdfs_server.url(), str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    sha, grown = done.stdout.split()
    with path.open("rb") as file:
        assert sha == hashlib.file_digest(file, "sha256").hexdigest()
    print(f"200 MiB there and back: {grown} MiB more than before")
    assert int(grown) < 60


def test_a_stream_reads_what_is_asked_wherever_that_is(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    content = os.urandom(3 * MIB)
    store = behind(proxy, hdfs_server)
    store.put("k", content)
    with store.open("k") as stream:
        assert stream.seek(-8, os.SEEK_END) == len(content) - 8
        assert stream.read(100) == content[-8:]
        assert stream.read(1) == b""
        for at, length in ((0, 10), (2 * MIB, 100), (2 * MIB + 1000, MIB), (5, 3 * MIB), (4 * MIB, 1)):
            stream.seek(at)
            assert stream.read(length) == content[at : at + length]
    with store.open("k") as stream:
        proxy.requests.clear()
        assert stream.read() == content
        assert len([line for line in proxy.requests if "op=OPEN" in line]) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_not_read_on(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    store = behind(proxy, hdfs_server, clock=Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.1))))
    store.put("k", b"a" * (16 * MIB))
    with store.open("k") as stream:
        assert stream.read(1) == b"a"
        raw = stream.raw  # type: ignore[attr-defined]
        raw._answer.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)  # the connection to the DataNode breaks
        proxy.lose_answer(rb"GET .*op=GETFILESTATUS", times=2)
        hdfs_server.store(store._top.strip("/")).put("k", b"b" * (16 * MIB))
        for _ in range(2):
            with pytest.raises(TemporaryError, match="was replaced while it was read"):
                stream.read()


def test_temporary_files_lie_under_the_root_of_what_is_written(proxy: Proxy, hdfs_server: HdfsServer) -> None:
    """So that no rename leaves an encryption zone or a mount."""
    values = {
        "bucket": {"url": "/nowhere"},
        "lakes": {"shop": {"url": hdfs_server.url().replace(hdfs_server.address, f"localhost:{proxy.port}"),
                           "hdfs": {"user": "root"}}},
        "sets": {"demo": {"net": "n", "blob": "b", "root": "deep/features"}},
    }  # fmt: skip
    store = open_lake(Settings.model_validate(values), "shop")
    assert isinstance(store, HdfsStore)
    for key, place in (("deep/features/x/y", f"deep/features/{TEMPORARY}/"), ("deep/other", f"/{TEMPORARY}/")):
        proxy.requests.clear()
        store.put(key, b"1")
        assert [place in line for line in proxy.requests if "op=CREATE" in line] == [True]
    assert [entry.key for entry in store.list("")] == ["deep/features/x/y", "deep/other"]
    assert [found.path for found in store.walk("")] == ["deep/features/x/y", "deep/other"]
    assert store.sweep(-60.0) == 0
    store.put(f"deep/features/{TEMPORARY}/left", b"half")
    assert store.sweep(60.0) == 0
    assert store.sweep(-60.0) == 1
    store.delete("deep/features/x/y")
    store.delete_folder(f"deep/features/{TEMPORARY}")
    store.put("deep/features/z", b"1")
    store.delete_folder(f"deep/features/{TEMPORARY}")
    store.delete("deep/features/z")
    assert store.stat("deep/features/x") is None
    root = store.stat("deep/features")
    assert root is not None, "the root stays, with its rights"


def test_names_that_hdfs_does_not_know_are_refused_before_they_are_sent(hdfs_server: HdfsServer) -> None:
    store = hdfs_server.store()
    with pytest.raises(PermanentError, match="no name with a colon"):
        store.put("12:30", b"")
    store.put("#LATEST/x", b"as it is")
    assert store.get("#LATEST/x") == b"as it is"


def test_a_gateway_that_ignores_rename_options_is_only_read_from(hdfs_server: HdfsServer) -> None:
    """HttpFS has the same requests for reading, so that the NameNode stands in for it here."""
    folder = f"tests/{random_nonce()}"
    hdfs_server.store(folder).put("k", b"1")
    gateway = HdfsStore(f"httpfs://{hdfs_server.address}/{folder}", hdfs_server.settings())
    assert gateway.get("k") == b"1"
    assert [entry.key for entry in gateway.list("")] == ["k"]
    for write in (
        lambda: gateway.put_new("new", b""),
        lambda: gateway.put("new", b""),
        lambda: gateway.rename_new("k", "new"),
        lambda: gateway.rename_over("k", "new"),
        lambda: gateway.delete("k"),
    ):
        with pytest.raises(PermanentError, match="only reads from"):
            write()
    assert [(one.step, one.ok) for one in gateway.examine("x/")][-1] == ("write", True)


# Who looks at it


def test_it_is_examined_from_the_ground_up(secure_hdfs: HdfsServer, hdfs_server: HdfsServer, tmp_path: Path) -> None:
    steps = ["ticket", "NameNode", "list", "write", "put-if-absent", "rename", "delete"]
    for server in (hdfs_server, secure_hdfs):
        store = server.store()
        found = list(store.examine("scratch/"))
        assert [one.step for one in found] == steps
        assert all(one.ok for one in found), found
        assert [entry.key for entry in store.list("")] == []
        probe(store, "scratch/")
    assert "of hathi@HATHI.TEST until" in found[0].said
    broken = secure_hdfs.store(keytab=str(tmp_path / "none"), retry_seconds=0.0)
    assert [(one.step, one.ok) for one in broken.examine("x/")] == [("ticket", False)]
    away = HdfsStore("hdfs://localhost:1/x", hdfs_server.settings(retry_seconds=0.0))
    last = list(away.examine("x/"))[-1]
    assert (last.step, last.ok) == ("NameNode", False)
    assert "not reachable" in last.said
    assert last.hint


def test_a_second_writer_is_refused_with_its_own_error(hdfs_server: HdfsServer) -> None:
    store = hdfs_server.store()
    store.put_new("k", b"1")
    with pytest.raises(Exists, match="k exists"):
        store.put_new("k", b"2")


class Front(BaseHTTPRequestHandler):
    """Passes requests on to a NameNode."""

    protocol_version = "HTTP/1.1"
    target: int

    def do_GET(self) -> None:
        line = http.client.HTTPConnection("localhost", self.target)
        line.request(self.command, self.path)
        answer = line.getresponse()
        body = answer.read()
        self.send_response_only(answer.status)
        for name in ("Date", "Location", "Content-Type"):
            if value := answer.getheader(name):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        line.close()

    do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


class Forgetful(Front):
    """As HttpFS: what is asked of a rename does not reach the NameNode."""

    def do_PUT(self) -> None:
        self.path = re.sub(r"renameoptions=\w+&?", "", self.path)
        self.do_GET()


def test_a_server_that_ignores_rename_options_is_found_out(hdfs_server: HdfsServer) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Forgetful,), {"target": hdfs_server.web}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = hdfs_server.url().replace(hdfs_server.address, f"localhost:{server.server_port}")
    store = HdfsStore(url, hdfs_server.settings(retry_seconds=0.0))
    with pytest.raises(PermanentError, match="ignores rename options") as error:
        store.put_new("k", b"1")
    assert "NameNode's own port" in error.value.hint
    last = list(store.examine("x/"))[-1]
    assert (last.step, last.ok) == ("write", False)
    server.shutdown()
    server.server_close()


@pytest.fixture
def front(hdfs_server: HdfsServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a NameNode's TLS, and the file of the authority that signed it."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Front,), {"target": hdfs_server.web}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}", certificate
    server.shutdown()
    server.server_close()


def test_over_tls_the_server_has_to_be_trusted(hdfs_server: HdfsServer, front: tuple[str, Path]) -> None:
    address, certificate = front
    url = f"swebhdfs://{address}/tests/{random_nonce()}"
    store = HdfsStore(url, hdfs_server.settings(ca_bundle=str(certificate)))
    store.put_new("k", b"1")
    assert store.get("k") == b"1"
    with pytest.raises(PermanentError, match=r"TLS with .* failed") as error:
        HdfsStore(url, hdfs_server.settings()).get("k")
    assert "ca_bundle" in error.value.hint
    with pytest.raises(PermanentError, match=r"TLS with .* failed"):
        HdfsStore(url.replace(address, hdfs_server.address), hdfs_server.settings()).get("k")
