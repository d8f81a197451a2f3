"""Whether an image changed, asked of a real server: RFC 9110, 13, and what servers make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.conditions import identity
from pipeline.records import Condition, Failure, NotModified
from tests.integration.fetch.asking import limits
from tests.integration.fetch.hostile import JPEG, Hostile, Visit, answer

TAG, TIME = '"v1"', "Wed, 21 Oct 2015 07:28:00 GMT"
NOON = datetime(2015, 10, 22, 12, tzinfo=UTC)
PATH = "/image.jpg"


def known(url: str, etag: str = TAG, last_modified: str = TIME, fetched_at: datetime = NOON) -> Condition:
    return Condition(identity(url), etag, last_modified, fetched_at)


def ask(conditions: Mapping[str, Condition | None]) -> dict[str, Fetched | NotModified | Failure]:
    items = ((url, url, None, condition) for url, condition in conditions.items())
    return {found[0]: found[1] for found in Fetcher(limits()).changed(items) if found is not None}


def ask_one(url: str, condition: Condition | None) -> Fetched | NotModified | Failure:
    return ask({url: condition})[url]


def wanted(head: str) -> dict[str, str]:
    """The conditions in a request."""
    lines = (line.partition(":") for line in head.split("\r\n"))
    return {name.lower(): value.strip() for name, _, value in lines if name.lower().startswith("if-")}


def serve(server: Hostile, with_condition: bytes, without: bytes | None = None, path: str = PATH) -> list[str]:
    """What a path answers, by whether it is asked with a condition; the heads of the requests so far."""
    heads: list[str] = []

    async def visit(one: Visit) -> None:
        heads.append(one.head)
        plain = answer(JPEG, "200 OK", f"ETag: {TAG}", f"Last-Modified: {TIME}")
        await one.send(with_condition if wanted(one.head) else without or plain)

    server.extra[path] = visit
    return heads


def status(words: str, *headers: str) -> bytes:
    return answer(b"", words, *headers, length=None)


def test_an_image_that_did_not_change_is_not_sent_again(server: Hostile) -> None:
    heads = serve(server, status("304 Not Modified", f"ETag: {TAG}", "Cache-Control: no-store"))
    url = server.url(PATH)
    assert ask_one(url, known(url)) == NotModified(url)
    assert [wanted(head) for head in heads] == [{"if-none-match": TAG}], "the tag says more than the time"


def test_without_a_tag_the_time_is_asked_for(server: Hostile) -> None:
    heads = serve(server, status("304 Not Modified"))
    url = server.url(PATH)
    assert ask_one(url, known(url, etag="")) == NotModified(url)
    assert [wanted(head) for head in heads] == [{"if-modified-since": TIME}]


@pytest.mark.parametrize(
    ("etag", "last_modified"),
    [
        ("", ""),
        ("v1", ""),  # no quotes: no entity tag
        ('""', ""),
        ('"a b"', ""),
        ('"a"b"', ""),
        ('"\u00e9"', ""),
        ('"' + "x" * 600 + '"', ""),
        ('"x"\r\nX-Injected: 1', ""),
        ("", "yesterday"),
        ("", "Wed, 31 Feb 2015 07:28:00 GMT"),
        ("", "Thu, 22 Oct 2015 11:59:30 GMT"),  # it changed half a minute before it was fetched
        ("", "Fri, 23 Oct 2015 07:28:00 GMT"),  # and here after it
    ],
)
def test_what_says_nothing_sure_is_not_asked_for(server: Hostile, etag: str, last_modified: str) -> None:
    heads = serve(server, status("304 Not Modified"))
    url = server.url(PATH)
    assert isinstance(ask_one(url, known(url, etag, last_modified)), Fetched)
    assert [wanted(head) for head in heads] == [{}]
    assert "injected" not in heads[0].lower()


@pytest.mark.parametrize(("mine", "theirs"), [('W/"v1"', '"v1"'), ('"v1"', 'W/"v1"'), ('W/"v1"', 'W/"v1"')])
def test_weak_tags_are_compared_weakly(server: Hostile, mine: str, theirs: str) -> None:
    heads = serve(server, status("304 Not Modified", f"ETag: {theirs}"))
    url = server.url(PATH)
    assert isinstance(ask_one(url, known(url, etag=mine)), NotModified)
    assert [wanted(head) for head in heads] == [{"if-none-match": mine}]


@pytest.mark.parametrize(
    "lie",
    [
        status("304 Not Modified", 'ETag: "v2"'),
        status("412 Precondition Failed"),
        answer(b"no" * 100_000, "412 Precondition Failed"),
    ],
)
def test_an_answer_that_is_not_to_be_believed_costs_a_request_without_a_condition(server: Hostile, lie: bytes) -> None:
    heads = serve(server, lie)
    url = server.url(PATH)
    fetched = ask_one(url, known(url))
    assert isinstance(fetched, Fetched)
    assert fetched.content == JPEG
    assert [wanted(head) for head in heads] == [{"if-none-match": TAG}, {}]


def test_a_304_with_another_time_is_not_believed(server: Hostile) -> None:
    heads = serve(server, status("304 Not Modified", "Last-Modified: Thu, 22 Oct 2015 07:28:00 GMT"))
    url = server.url(PATH)
    assert isinstance(ask_one(url, known(url, etag="")), Fetched)
    assert [wanted(head) for head in heads] == [{"if-modified-since": TIME}, {}]


def test_a_304_that_nobody_asked_for_is_no_answer(server: Hostile) -> None:
    serve(server, b"", status("304 Not Modified", f"ETag: {TAG}"))
    url = server.url(PATH)
    found = ask_one(url, None)
    assert isinstance(found, Failure)
    assert (found.reason, found.detail) == ("protocol", "status 304")
    serve(server, status("304 Not Modified", 'ETag: "v2"'), status("304 Not Modified", f"ETag: {TAG}"))
    assert isinstance(ask_one(url, known(url)), Failure), "a host that always says 304 ends as a failure"


def test_a_host_that_knows_no_conditions_sends_the_image(server: Hostile) -> None:
    heads = serve(server, answer(JPEG, "200 OK", f"ETag: {TAG}"))
    url = server.url(PATH)
    assert isinstance(ask_one(url, known(url)), Fetched)
    assert len(heads) == 1


@pytest.mark.parametrize(("words", "reason"), [("404 Not Found", "http_4xx"), ("503 Busy", "http_5xx")])
def test_a_failure_stays_one(server: Hostile, words: str, reason: str) -> None:
    heads = serve(server, answer(b"", words))
    url = server.url(PATH)
    found = ask_one(url, known(url))
    assert isinstance(found, Failure)
    assert found.reason == reason
    assert len(heads) == 1


def test_a_condition_is_for_the_url_at_the_end_of_redirects_alone(server: Hostile) -> None:
    """Another resource may carry the same tag: it is asked without it."""
    first, there, elsewhere = server.url("/first"), server.url("/there.jpg"), server.url("/elsewhere.jpg")
    to: list[str] = [there]

    async def redirect(one: Visit) -> None:
        assert not wanted(one.head)
        await one.send(answer(b"", "302 Found", f"Location: {to[0]}"))

    server.extra["/first"] = redirect
    unchanged = status("304 Not Modified", f"ETag: {TAG}")
    heads = [serve(server, unchanged, path=path) for path in ("/there.jpg", "/elsewhere.jpg")]
    assert isinstance(ask_one(first, known(there)), NotModified)
    to[0] = elsewhere
    fetched = ask_one(first, known(there))
    assert isinstance(fetched, Fetched)
    assert fetched.final_url == elsewhere
    assert [[wanted(head) for head in some] for some in heads] == [[{"if-none-match": TAG}], [{}]]


def test_who_knows_nothing_gets_the_image_beside_one_who_does(server: Hostile) -> None:
    async def slow(one: Visit) -> None:
        await asyncio.sleep(0.2)
        await one.send(status("304 Not Modified") if wanted(one.head) else answer(JPEG))

    server.extra[PATH] = slow
    url = server.url(PATH)
    items = [(0, url, None, known(url)), (1, url, None, None), (2, url, None, known(url)), (3, url, None, None)]
    found = dict(one for one in Fetcher(limits()).changed(items) if one is not None)
    assert [isinstance(found[at], NotModified) for at in range(4)] == [True, False, True, False]
    assert server.visits[PATH] == 2


def test_a_condition_is_of_one_request_and_the_connection_lives_on(server: Hostile) -> None:
    """What a handle asked for is not asked again by the next request over it."""
    heads = serve(server, status("304 Not Modified"))
    url = server.url(PATH)
    fetcher = Fetcher(limits(connections=1, connections_per_host=1))
    asked = [known(url), None, known(url, etag='"other"'), known(url, etag="", fetched_at=NOON + timedelta(days=1))]
    items = [(at, url, None, one) for at, one in enumerate(asked)]
    found = [one for one in fetcher.changed(items) if one is not None]
    assert len(found) == 4
    conditions = [wanted(head) for head in heads]
    assert conditions == [{"if-none-match": TAG}, {}, {"if-none-match": '"other"'}, {"if-modified-since": TIME}]
    assert server.connections == 1
    assert fetcher.counts.total().unchanged == 3


def test_settings_of_a_host_stay_beside_a_condition(server: Hostile) -> None:
    heads = serve(server, status("304 Not Modified"))
    url = server.url(PATH)
    rules = limits(hosts={f"127.0.0.1:{server.port}": {"headers": {"X-Key": "k"}}})
    found = [one for one in Fetcher(rules).changed([(0, url, None, known(url))]) if one is not None]
    assert isinstance(found[0][1], NotModified)
    assert "x-key: k" in heads[0].lower()
    assert "accept: image/jpeg" in heads[0].lower()
