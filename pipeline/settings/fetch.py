"""The fetcher, for all hosts and for one.

A header of one host is a secret like a password: it has the type of one, and what is said about a wrong header names
the header and never its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from pipeline.amounts import quotient
from pipeline.settings.section import Section

_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_HOST = re.compile(r"[a-z0-9._\-]+|\[[0-9a-f:.]+\]")
_OWNED = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    )
)
"""Headers that the fetcher sets itself, or whose answers it does not expect; beside them all of `if-` and `proxy-`."""


def _line(text: str) -> str:
    """What may stand in one line of a request."""
    if not _VALUE.fullmatch(text):
        raise PydanticCustomError("line", "it must be one line of ASCII: no newline, no control character")
    return text


def _quotient(given: object) -> object:
    value = quotient(given) if isinstance(given, str) else None
    return given if value is None else value


def _headers(given: object) -> object:
    if isinstance(given, Mapping):
        for name, value in given.items():
            if flaw := _flaw(str(name), value.get_secret_value() if isinstance(value, SecretStr) else value):
                raise PydanticCustomError("header", "{flaw}", {"flaw": flaw})
    return given


def _flaw(name: str, value: object) -> str:
    """What is wrong with a header; its value is never named, nor what may be one within its name."""
    known = _HEADER.match(name)
    if known is None or known[0] != name:
        begin = f' (it begins with "{known[0]}")' if known else ""
        return f"the name of a header may hold letters, digits and -, and no colon or blank{begin}"
    if name.lower() == "user-agent":
        return "the header User-Agent is set by user_agent, in the same table"
    if name.lower() in _OWNED or name.lower().startswith(("if-", "proxy-")):
        return f"the fetcher sets the header {name} itself, or leaves it out on purpose"
    if not isinstance(value, str):
        return f"the value of the header {name} must be a text, in quotes"
    if not value.strip() or not _VALUE.fullmatch(value):
        return f"the value of the header {name} must be one line of ASCII: not empty, no newline, no control character"
    return ""


def _hosts(given: object) -> object:
    """Each is a host, and stands there once: in whatever spelling, with its port where that is not the web's own."""
    if isinstance(given, Mapping):
        seen: dict[str, str] = {}
        for name in given:
            place = _place(str(name))
            if place is None:
                raise PydanticCustomError(
                    "host", '"{name}" must be a host, or host:port: no scheme, no path, no *', {"name": name}
                )
            if place in seen:
                raise PydanticCustomError(
                    "host_twice", '"{first}" and "{name}" are one host', {"first": seen[place], "name": name}
                )
            seen[place] = str(name)
    return given


def _place(name: str) -> str | None:
    """The host as the URL standard writes it, with a port that is not the web's own."""
    import ada_url  # only where a host has settings of its own

    try:
        parts = ada_url.URL(f"http://{name}/")
    except ValueError:
        return None
    host = parts.hostname.removesuffix(".")
    if parts.href != f"http://{parts.host}/" or not _HOST.fullmatch(host):
        return None
    return host if parts.port in ("", "443") else f"{host}:{parts.port}"


Line = Annotated[str, AfterValidator(_line)]


class HostFetch(Section):
    """Settings for one host that replace those for all hosts, for example for an image host of your own or a partner's
    CDN. The name is the host as URLs write it, for the ports 80 and 443; "host:port" for another port."""

    connections: Annotated[int, Field(ge=1)] | None = Field(default=None, examples=[16])
    """The most connections that are open to this host at once. none: connections_per_host. A host with
    connections or requests_per_second of its own is not counted in the limits of its registered domain."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = Field(default=None, examples=[200.0])
    """The most requests to this host in a second, on average, by all boxes together (see share). none:
    fetch.requests_per_second."""
    burst: Annotated[int, Field(ge=1)] | None = Field(default=None, examples=[50])
    """How many requests this host may get at once before requests_per_second limits them. none: fetch.burst. Lower it
    together with requests_per_second."""
    user_agent: Line | None = Field(default=None, examples=["Partner/1.0 (contact: {contact})"])
    """What this host sees as the User-Agent; {contact} is replaced by fetch.contact. none: fetch.user_agent. Set it
    where the host admits only a name that you have agreed on."""
    headers: Annotated[dict[str, SecretStr], BeforeValidator(_headers)] = {}
    """Headers that are sent to this host, such as { Authorization = "Bearer ..." }. The values are secrets: they are
    never printed, and no other host gets them, not even after a redirect. They are also sent over http where a URL
    says http. Headers that the fetcher sets itself are refused."""


class Fetch(Section):
    """How Hathi fetches images from web hosts: limits, timeouts, and what is allowed."""

    allow_private: bool = False
    """Also fetch from addresses inside your network and from any port; all other rules stay. Turn it on for image hosts
    of your own, and only where you trust everybody who writes the URLs."""
    allow_ports: list[int] = [80, 443]
    """The ports that a URL may name. Add a port if an image host uses another one."""
    allow_downgrade: bool = False
    """Follow a redirect from https to http. Turn it on for hosts that redirect so; everybody on the network path can
    then read and change their images."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """The most redirects that are followed for one URL; a URL with more fails with `redirect`. Raise it for hosts with
    long chains of redirects."""
    connections_per_host: Annotated[int, Field(ge=1)] = 4
    """The most connections that are open to one host at once. Raise it for hosts of your own; lower it for a host
    that breaks under load."""
    requests_per_second: Annotated[float, Field(gt=0)] = 20.0
    """The most requests to one host in a second, on average, by all boxes together (see share). Raise it for hosts
    of your own; lower it when a host answers 429."""
    burst: Annotated[int, Field(ge=1)] = 20
    """How many requests one host may get at once before requests_per_second limits them. Lower it for hosts that block
    bursts."""
    connections_per_domain: Annotated[int, Field(ge=1)] = 16
    """The most connections to all hosts of one registered domain at once. Raise it for a shop whose many image hosts
    are independent machines."""
    rates_per_domain: Annotated[float, Field(ge=1)] = 4.0
    """All hosts of one registered domain together get at most this many times requests_per_second. Raise it together
    with connections_per_domain."""
    share: Annotated[float, Field(gt=0, le=1), BeforeValidator(_quotient)] = 1.0
    """This box's part of every limit for a host: 1 divided by the number of boxes, as a number or as "1/3". With two
    boxes set 0.5 on each; otherwise a host sees twice its limits."""
    connections: Annotated[int, Field(ge=1)] = 512
    """The most connections of this process to all hosts. Raise it for lists of very many hosts, and `ulimit -n` with
    it."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long to wait for a connection and its TLS handshake, seconds; then the image fails with `timeout`. Raise it
    for hosts that are far away."""
    total_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The deadline of one whole transfer with its redirects, seconds. Raise it for large images from slow hosts."""
    min_bytes_per_second: Annotated[float, Field(ge=0)] = 1024.0
    """The lowest speed of a transfer, bytes a second; a slower one fails with `too_slow`. Lower it for hosts with slow
    lines; 0: no lowest speed, only total_seconds counts."""
    min_speed_grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a transfer may be slower than min_bytes_per_second, seconds. Raise it for hosts that start slowly."""
    max_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20
    """The longest body of an image, bytes, also after decompression; a longer one fails with `too_large`. Raise it
    for a catalogue with huge originals; memory grows with it."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**10
    """The longest header of an answer, bytes; a longer one fails with `protocol`. Raise it only for a host that
    sends very long headers."""
    max_url_length: Annotated[int, Field(ge=1)] = 8192
    """The longest URL, characters; a longer one fails with `bad_url`. Raise it for signed URLs that are longer."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How many times a URL is tried while its batch is computed, as long as its failures are retriable. Lower it to
    leave more to the later retries (ship.retry_delays)."""
    retry_seconds: Annotated[float, Field(ge=0)] = 1.0
    """The pause before the second try, seconds; it doubles with each further try, and a random part is added.
    Raise it for hosts that need longer to recover."""
    retry_after_seconds: Annotated[float, Field(ge=0)] = 30.0
    """The longest Retry-After that is obeyed by waiting, seconds. A host that asks for a longer pause is not asked
    again until the shipment's retry. Raise it where hosts often ask for longer pauses."""
    breaker_failures: Annotated[int, Field(ge=1)] = 20
    """After this many failures in a row a host is not asked for breaker_seconds; a timeout on all of its connections
    counts as this many failures. Raise it for hosts where many images are missing in a row."""
    breaker_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long a failing host is not asked before one request tries it again, seconds. Lower it to notice sooner that
    the host works again."""
    buffer_bytes: Annotated[int, Field(ge=2**20)] = 256 * 2**20
    """Memory for images that are fetched and not yet decoded, bytes; when it is full, fetching waits. Lower it on small
    machines."""
    pending_urls: Annotated[int, Field(ge=1)] = 20_000
    """The most URLs that are waiting or being fetched at once. Raise it for lists with very many slow hosts."""
    pending_per_host: Annotated[int, Field(ge=1)] = 2048
    """The most of these URLs for one host; its further batches wait, so that one slow host does not fill the queue.
    Raise it for a list of one fast host of your own."""
    dns_servers: list[str] = []
    """Name servers to ask (address or address:port) in place of the machine's own. Set them where the machine's
    resolver is too slow for the load."""
    dns_seconds: Annotated[float, Field(gt=0)] = 8.0
    """How long to wait for the address of a host, seconds; then the image fails with `dns`. Raise it for slow name
    servers."""
    dns_negative_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long Hathi remembers that a host name does not exist, seconds. Lower it while you repair name resolution."""
    allow_folders: list[str] = []
    """Folders whose files may be read by file:// URLs and absolute paths; files elsewhere fail with `blocked`. Empty:
    none. Set it only where you trust everybody who writes the refs."""
    allow_buckets: list[str] = []
    """Buckets whose objects may be read by s3:// URLs, with the credentials of the pipeline's bucket; other
    buckets fail with `blocked`. Empty: none. Set it only where you trust everybody who writes the refs."""
    batch_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """The deadline of a batch, seconds. Refs whose host has not been asked by then fail with `host_busy` and are
    retried later. Raise it for hosts with very low limits."""
    user_agent: Line = "Hathi/0.1 (image features; contact: {contact})"
    """What hosts see as the User-Agent; {contact} is replaced by the setting below. Change it where a host admits only
    a name that you have agreed on."""
    contact: Line = "not configured"
    """A mail address or a page where the owner of a host reaches you. Set it: an owner who can ask you does not have to
    block you."""
    hosts: Annotated[dict[str, HostFetch], BeforeValidator(_hosts)] = Field(default={}, examples=["img.shop.example"])
    """Settings for one host that replace those above, for example for an image host of your own or a partner's CDN. The
    name of the table is the host as URLs write it, for the ports 80 and 443, or "host:port" for another port. Letter
    case does not matter; there are no wildcards."""
