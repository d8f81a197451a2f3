"""Logging in: by password, token and one-time link; a session's whole life; what other pages may not do with it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.clock import Clock
from pipeline.service.auth import sessions
from pipeline.service.database.statements import Database
from pipeline.service.words import Actor, Role
from tests.servers.databases import KINDS, empty, sites_of
from tests.servers.service import Person, Stand, standing

passwords = pytest.importorskip(
    "pipeline.service.auth.passwords", reason="LEFT OUT: the service: scripts/service.sh installs what it needs"
)
HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
PASSWORD = "correct horse ☂ é"
OWN = {"Sec_Fetch_Site": "same-origin"}


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites_of(request, folder):
        with standing(site, folder) as stand:
            yield stand


def actor_of(who: Person, role: Role = Role.ADMIN, *, platform: bool = False) -> Actor:
    return Actor(who.tenant, who.user, "", role, platform)


def with_password(stand: Stand, who: Person, password: str = PASSWORD, *, platform: bool = False) -> None:
    async def kept(database: Database) -> None:
        hashed = await passwords.Passwords(Clock()).hashed(password)
        await passwords.set_by_operator(database, actor_of(who, platform=platform), hashed, Clock())

    stand.site.run(kept(stand.site.open()))


def link(stand: Stand, who: Person) -> str:
    async def made(database: Database) -> str:
        return await sessions.add_link(database, actor_of(who), Clock().now())

    return stand.site.run(made(stand.site.open()))


def logged_in(stand: Stand, body: dict[str, Any]) -> Person:
    browser = Person(stand.url)
    browser.got("POST", "/v1/session", body, **OWN)
    return browser


def actions(who: Person) -> list[str]:
    return [one["action"] for one in who.got("GET", "/v1/audit")["items"]]


def test_a_password_begins_a_session_that_ends_when_it_is_ended(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    with_password(shared, ann)
    browser = Person(shared.url)
    answer = browser.ask("POST", "/v1/session", {"username": "ann", "password": PASSWORD}, **OWN)
    assert answer.status_code == 201
    assert answer.json() == browser.got("GET", "/v1/me") == {**ann.got("GET", "/v1/me")}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("hathi_session=")
    assert {"HttpOnly", "Path=/", "SameSite=strict", "Max-Age=604800"} <= set(cookie.split("; "))
    secret = cookie.split("=")[1].split(";")[0]
    assert secret not in json.dumps(shared.site.run(shared.site.bare("select * from @sessions"))), "its SHA-256 is kept"
    assert secret not in answer.text
    again = Person(shared.url)
    again.session.cookies.set("hathi_session", secret)
    assert again.ask("GET", "/v1/me").ok
    assert browser.ask("DELETE", "/v1/session", **OWN).status_code == 204
    assert [one.ask("GET", "/v1/me").status_code for one in (browser, again)] == [401, 401]
    assert actions(ann)[:2] == ["session ended", "session begun"]
    assert ann.ask("DELETE", "/v1/session").status_code == 404, "a token is no session"


def test_with_tls_the_cookie_never_travels_without(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    tls = {"X_Forwarded_Proto": "https"}
    answer = Person(shared.url).ask("POST", "/v1/session", {"token": ann.token}, **OWN, **tls)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-hathi=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "domain" not in cookie.lower()
    sent = {"Cookie": cookie.split(";")[0]}
    assert Person(shared.url).ask("GET", "/v1/me", **sent, **tls).ok
    assert Person(shared.url).ask("GET", "/v1/me", **sent).status_code == 401, "not without TLS"
    plain = {"Cookie": sent["Cookie"].replace("__Host-hathi", "hathi_session")}
    assert Person(shared.url).ask("GET", "/v1/me", **plain, **tls).status_code == 401, "nor by a name anybody may set"


def test_a_change_by_a_cookie_comes_from_a_page_of_the_service(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    browser = logged_in(shared, {"token": ann.token})
    host = shared.url.removeprefix("http://")
    made = {"name": "made", "size": 1}
    refused = (
        {}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"},
        {"Origin": "https://evil.invalid"}, {"Origin": "null"}, {"Origin": f"https://{host}"},
        {"Origin": shared.url + "1"}, {"Sec_Fetch_Site": "cross-site", "Origin": shared.url},
    )  # fmt: skip
    for said in refused:
        answer = browser.ask("POST", "/v1/datafiles", made, **said)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/origin"), said
        assert browser.ask("GET", "/v1/datafiles", **said).ok, "reading changes nothing"
    assert browser.got("GET", "/v1/datafiles")["items"] == []
    for said in (OWN, {"Origin": shared.url}):
        assert browser.ask("POST", "/v1/datafiles", made, **said).status_code == 201, said
    assert ann.ask("POST", "/v1/datafiles", made, Sec_Fetch_Site="cross-site").status_code == 201, "a token says it all"
    for said in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.invalid"}):
        assert Person(shared.url).ask("POST", "/v1/session", {"token": ann.token}, **said).status_code == 403
    assert Person(shared.url).ask("POST", "/v1/session", {"token": ann.token}).status_code == 201, "curl says nothing"


def test_a_session_by_a_token_has_its_rights_and_ends_with_it(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    made = ann.got("POST", "/v1/tokens", {"name": "little", "role": "viewer"})
    browser = logged_in(shared, {"token": made["token"]})
    assert browser.got("GET", "/v1/me")["role"] == "viewer"
    assert browser.ask("POST", "/v1/datafiles", {"name": "a", "size": 1}, **OWN).status_code == 403
    assert browser.ask("PUT", "/v1/me/password", {"new": "a long password"}, **OWN).status_code == 403, "no more rights"
    assert ann.ask("PUT", "/v1/me/password", {"new": "a long password"}).status_code == 403
    assert ann.ask("DELETE", f"/v1/tokens/{made['id']}").status_code == 204
    assert browser.ask("GET", "/v1/me").status_code == 401


def test_a_session_is_over_after_hours_without_a_request_and_after_a_week(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    browser = logged_in(shared, {"token": ann.token})

    def bare(sql: str) -> list[dict[str, Any]]:
        return shared.site.run(shared.site.bare(sql))

    def left() -> tuple[float, float]:
        row = bare("select expires_at - used_at as idle, ends_at - created_at as most from @sessions")[0]
        return row["idle"], row["most"]

    assert left() == (pytest.approx(12 * 3600, abs=5), pytest.approx(7 * 86400, abs=5))
    bare("update @sessions set used_at = used_at - 7200, expires_at = expires_at - 7200")
    before = bare("select expires_at from @sessions")[0]["expires_at"]
    assert browser.ask("GET", "/v1/me").ok
    assert bare("select expires_at from @sessions")[0]["expires_at"] - before == pytest.approx(7200, abs=60)
    bare("update @sessions set used_at = used_at - 7200, ends_at = expires_at - 3600")
    assert browser.ask("GET", "/v1/me").ok
    row = bare("select expires_at, ends_at from @sessions")[0]
    assert row["expires_at"] == row["ends_at"], "a week is a week"
    bare("update @sessions set expires_at = used_at - 1")
    assert browser.ask("GET", "/v1/me").status_code == 401
    ann.got("POST", "/v1/session", {"token": ann.token})
    assert len(bare("select id from @sessions")) == 1, "what is over is removed"


def test_a_link_holds_once_and_for_an_hour(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    first, second = link(shared, ann), link(shared, ann)
    codes = []

    def follow() -> None:
        codes.append(Person(shared.url).ask("POST", "/v1/session", {"token": second}).status_code)

    several = [threading.Thread(target=follow) for _ in range(8)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert sorted(codes) == [201, *[401] * 7], "eight at once, one is let in"
    assert Person(shared.url).ask("POST", "/v1/session", {"token": first}).status_code == 401, "a newer one was made"
    third = link(shared, ann)
    assert Person(shared.url, third).ask("GET", "/v1/me").status_code == 401, "a link is no token"
    shared.site.run(shared.site.bare("update @links set expires_at = expires_at - 3601"))
    assert Person(shared.url).ask("POST", "/v1/session", {"token": third}).status_code == 401
    assert "link made" in actions(ann)


def test_one_who_came_by_a_link_sets_a_password_and_all_sessions_end_when_it_changes(shared: Stand) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    browser = logged_in(shared, {"token": link(shared, ann)})
    assert browser.got("GET", "/v1/me")["platform"] is True
    assert browser.ask("PUT", "/v1/me/password", {"new": "short"}, **OWN).status_code == 422
    assert browser.ask("PUT", "/v1/me/password", {"new": PASSWORD}, **OWN).status_code == 204
    assert browser.ask("GET", "/v1/me").status_code == 401
    two = [logged_in(shared, {"username": "ann", "password": PASSWORD}) for _ in range(2)]
    assert two[0].got("GET", "/v1/me")["platform"] is True, "as the session had it in which it was set"
    wrong = two[0].ask("PUT", "/v1/me/password", {"current": "not it", "new": "another password"}, **OWN)
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/current")
    assert two[0].ask("PUT", "/v1/me/password", {"new": "another password"}, **OWN).status_code == 422
    changed = {"current": PASSWORD, "new": "another password"}
    assert two[0].ask("PUT", "/v1/me/password", changed, **OWN).status_code == 204
    assert [one.ask("GET", "/v1/me").status_code for one in two] == [401, 401]
    old = Person(shared.url).ask("POST", "/v1/session", {"username": "ann", "password": PASSWORD})
    assert old.status_code == 401
    logged_in(shared, {"username": "ann", "password": "another password"})
    assert actions(ann).count("password changed") == 2


def test_an_unknown_user_is_answered_as_a_wrong_password_and_costs_the_same(
    shared: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(shared.site)
    ann, bea = shared.person("ayes", "ann"), shared.person("bees", "bea")
    with_password(shared, ann)
    verified: list[str] = []
    real = passwords.Passwords._verified

    def counted(self: Any, hashed: str, password: str) -> bool:
        verified.append(hashed.rpartition("$")[0].rpartition("$")[0])
        return real(self, hashed, password)

    monkeypatch.setattr(passwords.Passwords, "_verified", counted)
    asked = (
        {"username": "ann", "password": "wrong"}, {"username": "nobody", "password": "wrong"},
        {"username": "bea", "password": "wrong"}, {"username": "ann", "password": PASSWORD, "tenant": "bees"},
        {"username": "ann", "password": PASSWORD, "tenant": "nowhere"},
    )  # fmt: skip
    answers = [Person(shared.url).ask("POST", "/v1/session", body) for body in asked]
    assert {(one.status_code, one.text) for one in answers} == {(401, answers[0].text)}
    assert len(verified) == len(asked), "each is verified once"
    assert len(set(verified)) == 1, "with the same costs"
    assert bea.ask("GET", "/v1/me").ok


def test_who_tries_too_many_passwords_waits_and_other_accounts_do_not(
    shared: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(shared.site)
    ann, bea = shared.person("ayes", "ann"), shared.person("ayes", "bea")
    for who in (ann, bea):
        with_password(shared, who)
    wrong = {"username": "ann", "password": "wrong"}
    codes = [Person(shared.url).ask("POST", "/v1/session", wrong).status_code]
    began = time.monotonic()
    codes += [Person(shared.url).ask("POST", "/v1/session", wrong).status_code for _ in range(9)]
    assert codes == [401] * 10
    gone = time.monotonic() - began  # a slow machine earns attempts meanwhile: they are taken away
    shared.site.run(shared.site.bare(f"update @throttles set until = until + {gone} where name like 'account %'"))
    answer = Person(shared.url).ask("POST", "/v1/session", {**wrong, "password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/attempts")
    assert 20 <= int(answer.headers["Retry-After"]) <= 30
    named = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    basic = Person(shared.url).ask("POST", "/solvers", {}, Authorization=f"Basic {named}")
    assert basic.status_code == 429, "one count for every door"
    change = ann.ask("PUT", "/v1/me/password", {"current": PASSWORD, "new": "another one"})
    assert change.status_code == 429, "and for a new password"
    logged_in(shared, {"username": "bea", "password": PASSWORD})
    kept = json.dumps(shared.site.run(shared.site.bare("select * from @throttles")))
    assert '"account ann"' not in kept
    shared.site.run(shared.site.bare("update @throttles set until = until - 31 where name like 'account %'"))
    logged_in(shared, {"username": "ann", "password": PASSWORD})
    assert [Person(shared.url).ask("POST", "/v1/session", wrong).status_code for _ in range(3)] == [401] * 3, "anew"
    shared.site.run(shared.site.bare("delete from @throttles where name like 'address %'"))
    later = time.time() + 200
    shared.site.run(shared.site.bare(f"insert into @throttles (name, until) values ('address 127.0.0.1', {later})"))
    answer = Person(shared.url).ask("POST", "/v1/session", {"username": "bea", "password": "wrong"})
    assert answer.status_code == 429, "an address has a limit of its own"
    logged_in(shared, {"username": "bea", "password": PASSWORD})  # known for a minute: it costs nothing


def test_two_passwords_are_looked_at_in_the_same_instant_and_the_rest_waits_or_is_told_to(
    shared: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(shared.site)
    ann = shared.person("ayes", "ann")
    lock, now, most, let = threading.Lock(), [0], [0], threading.Event()

    def slow(self: Any, hashed: str, password: str) -> bool:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        let.wait(20)
        with lock:
            now[0] -= 1
        return False

    monkeypatch.setattr(passwords.Passwords, "_verified", slow)
    codes: list[int] = []

    def attempt(number: int) -> None:
        answer = Person(shared.url).ask("POST", "/v1/session", {"username": f"u{number}", "password": "x"})
        codes.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "5"
            let.set()

    several = [threading.Thread(target=attempt, args=(number,)) for number in range(passwords.WAITING + 1)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert most[0] == passwords.AT_ONCE
    assert sorted(codes) == [*[401] * passwords.WAITING, 503]
    assert ann.ask("GET", "/v1/me").ok


def test_elasticthoughts_door_takes_a_name_with_a_password_and_forgets_it_when_it_changes(
    shared: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(shared.site)
    root = shared.person("ayes", "root", platform=True)
    body = {"username": "foo", "email": "foo@example.org", "password": "foo"}
    made = root.got("POST", "/users", body)
    kept = json.dumps(shared.site.run(shared.site.bare("select * from @passwords")))
    assert "argon2id" in kept
    assert '"foo"' not in kept
    counted = [0]
    real = passwords.Passwords._verified

    def verified(self: Any, hashed: str, password: str) -> bool:
        counted[0] += 1
        return real(self, hashed, password)

    monkeypatch.setattr(passwords.Passwords, "_verified", verified)

    def ask(name: str, secret: str) -> int:
        return requests.get(
            f"{shared.url}/training-jobs/tj_00000000000000000000000000/status", auth=(name, secret), timeout=30
        ).status_code

    assert [ask("foo", "foo") for _ in range(5)] == [404] * 5
    assert counted[0] == 1, "its verdict is known for a minute"
    assert ask("whoever", made["token"]) == 404
    assert [ask("foo", "fo"), ask("fo", "foo"), ask("foo", ""), ask("foo", "x" * 2000)] == [401] * 4
    with_password(shared, Person(shared.url, "", root.tenant, made["id"]), "another one")
    assert [ask("foo", "foo"), ask("foo", "another one")] == [401, 404]
    assert root.ask("POST", "/users", {**body, "username": "bar", "password": ""}).status_code == 201
    assert ask("bar", "") == 401, "none was given, none is kept"
    assert actions(root).count("password set") == 2


def test_a_member_who_goes_takes_sessions_and_links_along(shared: Stand) -> None:
    empty(shared.site)
    ann, bea = shared.person("ayes", "ann"), shared.person("ayes", "bea")
    with_password(shared, bea)
    browser, left = logged_in(shared, {"username": "bea", "password": PASSWORD}), link(shared, bea)
    assert ann.ask("DELETE", f"/v1/members/{bea.user}", If_Match="*").status_code == 204
    assert browser.ask("GET", "/v1/me").status_code == 401
    for body in ({"username": "bea", "password": PASSWORD}, {"token": left}):
        assert Person(shared.url).ask("POST", "/v1/session", body).status_code == 401


def test_an_operator_gives_a_password_on_standard_input(shared: Stand, tmp_path: Path) -> None:
    empty(shared.site)
    root = shared.person("ayes", "root")
    config = tmp_path / "service.toml"
    config.write_text(f'state = "state"\n[bucket]\nurl = "bucket"\n[service]\ndatabase = "{shared.site.url}"\n')

    def user(password: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HATHI, "service", "user", "ayes", "max", "--password", "--config", config, *more], input=password,
            capture_output=True, text=True, timeout=60, env={**os.environ},
        )  # fmt: skip

    refused = user("short\n")
    assert (refused.returncode, "8 to 1000 letters" in refused.stderr) == (2, True)
    done = user(PASSWORD + "\n", "--role", "viewer", "--platform")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    me = logged_in(shared, {"username": "max", "password": PASSWORD}).got("GET", "/v1/me")
    assert (me["role"], me["platform"]) == ("viewer", True)
    assert "password set" in actions(root)
