"""What goes wrong with Kerberos on the way to an HDFS is named with cause and remedy: a real KDC, a secured HDFS."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

from pipeline.clock import random_nonce
from pipeline.errors import ConfigError, NotFound, PermanentError, TemporaryError
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.store import HdfsStore
from pipeline.stores.hdfs.tickets import Tickets
from tests.servers.demand import free_port, until
from tests.servers.hdfs import HdfsServer
from tests.servers.kerberos import Realm, faked


@pytest.fixture
def tickets(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's ticket cache, where `kinit` puts tickets; it is not there yet."""
    cache = tmp_path / "tickets"
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{cache}")
    return cache


def by_cache(server: HdfsServer, **more: object) -> HdfsStore:
    return server.store(keytab=None, retry_seconds=0.0, **{"principal": None, **more})  # type: ignore[arg-type]


def test_without_its_package_one_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    with pytest.raises(ConfigError, match="needs the Python package gssapi") as error:
        HdfsStore("hdfs://localhost:1/x", Hdfs(authentication="kerberos"))
    assert "scripts/kerberos.sh" in error.value.hint


def test_without_a_ticket_one_is_told_what_to_type(secure_hdfs: HdfsServer, tickets: Path) -> None:
    with pytest.raises(PermanentError, match="there is no Kerberos ticket") as error:
        by_cache(secure_hdfs).get("k")
    assert error.value.hint == "run: kinit PRINCIPAL"
    with pytest.raises(PermanentError) as error:
        by_cache(secure_hdfs, principal="hathi@HATHI.TEST", ticket_cache=str(tickets)).get("k")
    assert error.value.hint == f"run: kinit -c {tickets} hathi@HATHI.TEST"


def test_a_ticket_that_has_expired_is_told_and_a_client_with_a_cookie_goes_on(
    secure_hdfs: HdfsServer, realm: Realm, tickets: Path
) -> None:
    realm.kinit(tickets, lifetime="5s")
    old = by_cache(secure_hdfs)
    old.put("k", b"1")
    ends = old.credentials_end()
    assert ends is not None
    assert ends - time.time() < 6
    until(lambda: time.time() > ends + 1.5, "the ticket has ended", 20.0)
    with pytest.raises(PermanentError, match="the Kerberos ticket has expired") as error:
        by_cache(secure_hdfs, principal="hathi").get("k")
    assert error.value.hint == "run: kinit hathi"
    assert old.get("k") == b"1"
    with pytest.raises(PermanentError, match="the Kerberos ticket has expired"):
        old.credentials_end()
    realm.kinit(tickets)
    by_cache(secure_hdfs).stat("k")


def test_the_ticket_of_somebody_else_is_not_taken(secure_hdfs: HdfsServer, realm: Realm, tickets: Path) -> None:
    realm.kinit(tickets)
    with pytest.raises(PermanentError, match="the ticket is not of other") as error:
        by_cache(secure_hdfs, principal="other").get("k")
    assert "kinit other" in error.value.hint


def test_a_keytab_that_cannot_be_used_is_told_why(secure_hdfs: HdfsServer, realm: Realm, tmp_path: Path) -> None:
    def said(keytab: Path, principal: str = "hathi") -> PermanentError:
        with pytest.raises(PermanentError) as error:
            secure_hdfs.store(keytab=str(keytab), principal=principal, retry_seconds=0.0).get("k")
        return error.value

    absent = tmp_path / "absent.keytab"
    assert said(absent).message == "the keytab is not there"
    assert str(absent) in said(absent).detail
    (tmp_path / "folder").mkdir()
    assert said(tmp_path / "folder").message == "the keytab cannot be read"
    assert "chmod 400" in said(tmp_path / "folder").hint
    (tmp_path / "text").write_text("secret")
    assert said(tmp_path / "text").message == "the file is no keytab"
    other = said(realm.keytab("hathi"), "other")
    assert other.message == "the keytab holds no key of other"
    assert f"klist -kt {realm.keytab('hathi')}" in other.hint


def test_a_key_that_was_changed_and_a_principal_that_is_gone_are_told(
    secure_hdfs: HdfsServer, realm: Realm, tmp_path: Path
) -> None:
    keytab = realm.add("leaving")
    old = tmp_path / "old.keytab"
    shutil.copy(keytab, old)
    realm.admin("cpw -randkey leaving")
    store = secure_hdfs.store(keytab=str(old), principal="leaving", retry_seconds=0.0)
    with pytest.raises(PermanentError, match="the KDC does not accept the key of the keytab") as error:
        store.get("k")
    assert f"kinit -kt {old} leaving" in error.value.hint
    realm.admin("delprinc -force leaving")
    store = secure_hdfs.store(keytab=str(old), principal="leaving", retry_seconds=0.0)
    with pytest.raises(PermanentError, match="the KDC does not know leaving"):
        store.get("k")


def test_a_keytab_renews_tickets_that_end(
    secure_hdfs: HdfsServer, realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "krb5.conf"
    conf.write_text(realm.conf.read_text().replace("[libdefaults]", "[libdefaults]\nticket_lifetime = 3s"))
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    tickets = Tickets(secure_hdfs.settings())
    first = tickets.held().ends
    assert first - time.time() < 4
    until(lambda: time.time() > first + 1.5, "the ticket has ended", 20.0)
    assert tickets.handshake("localhost").token
    assert tickets.held().ends > first


def test_a_kdc_that_does_not_answer_is_waited_for(
    secure_hdfs: HdfsServer, realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "krb5.conf"
    conf.write_text(realm.conf.read_text().replace(str(realm.port), str(free_port())))
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    with pytest.raises(TemporaryError, match="the KDC is not reachable") as error:
        secure_hdfs.store(retry_seconds=0.0).get("k")
    assert "kdc =" in error.value.hint


def test_clocks_that_differ_are_told(
    secure_hdfs: HdfsServer, realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name in ("krb5.conf", "kdc.conf"):
        text = (realm.folder / name).read_text().replace(f"127.0.0.1:{realm.port}", f"127.0.0.1:{port}")
        (tmp_path / name).write_text(text)
    ahead = Realm(tmp_path, port=port)
    ahead.start_kdc(**faked("+3600"))
    monkeypatch.setenv("KRB5_CONFIG", str(ahead.conf))
    try:
        with pytest.raises(TemporaryError, match="the clocks differ too much for Kerberos") as error:
            secure_hdfs.store(retry_seconds=0.0).get("k")
    finally:
        ahead.stop()
    assert "date" in error.value.hint


def test_who_forgets_that_a_cluster_is_secured_is_told(secure_hdfs: HdfsServer) -> None:
    with pytest.raises(PermanentError, match="asks for Kerberos") as error:
        HdfsStore(secure_hdfs.url(), Hdfs(user="hathi", retry_seconds=0.0)).get("k")
    assert 'lakes.*.hdfs.authentication = "kerberos"' in error.value.hint


def test_a_service_that_the_kdc_does_not_know_is_told(secure_hdfs: HdfsServer, realm: Realm) -> None:
    url = f"hdfs://127.0.0.1:{secure_hdfs.web}/tests"
    with pytest.raises(PermanentError) as error:
        HdfsStore(url, secure_hdfs.settings(retry_seconds=0.0)).get("k")
    assert "full name" in error.value.hint


def test_two_lakes_with_two_keytabs_live_in_one_process(secure_hdfs: HdfsServer, realm: Realm) -> None:
    folder = f"tests/{random_nonce()}"
    secure_hdfs.superuser().open_to_all(f"/{folder}")
    keytab = realm.add("second")
    one, two = secure_hdfs.store(folder), secure_hdfs.store(folder, principal="second", keytab=str(keytab))
    for name, store in (("a", one), ("b", two), ("c", one), ("d", two)):
        HdfsStore(store.url, store._settings).put(name, b"")
    assert [secure_hdfs.superuser().owner(f"/{folder}/{name}") for name in "abcd"] == ["hathi", "second"] * 2
    assert one.credentials_end() is two.credentials_end() is None


def test_nothing_at_a_path_is_only_that(secure_hdfs: HdfsServer) -> None:
    with pytest.raises(NotFound):
        secure_hdfs.store().get("k")
