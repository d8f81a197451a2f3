"""The fetcher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings.section import Section


class Fetch(Section):
    """How other people's hosts are met."""

    allow_private: bool = False
    """Lifts the rules on addresses and on ports, nothing else: for tests and local lakes."""
    allow_ports: list[int] = [80, 443]
    """Ports that a URL may name."""
    allow_downgrade: bool = False
    """Allow a redirect from https to http."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """More of them fail the URL: redirect."""
    connections_per_host: Annotated[int, Field(ge=1)] = 4
    """At the same time."""
    requests_per_second: Annotated[float, Field(gt=0)] = 20.0
    """For each host; see share."""
    burst: Annotated[int, Field(ge=1)] = 20
    """Requests to a host that may come at once before requests_per_second holds."""
    connections_per_domain: Annotated[int, Field(ge=1)] = 16
    """At the same time, over all hosts of a registered domain."""
    rates_per_domain: Annotated[float, Field(ge=1)] = 4.0
    """The hosts of a registered domain together: so many times the rate of one host."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """This box's part of a host's limit: 1 / boxes."""
    connections: Annotated[int, Field(ge=1)] = 512
    """In all."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Until the connection stands, its TLS handshake included."""
    total_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Deadline of one whole transfer, redirects included."""
    min_bytes_per_second: Annotated[float, Field(ge=0)] = 1024.0
    """A slower transfer fails: too_slow."""
    min_speed_grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a transfer may be slower than that."""
    max_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20
    """Of a body, also after decompression."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**10
    """Of an answer's header."""
    max_url_length: Annotated[int, Field(ge=1)] = 8192
    """Characters; a longer URL fails: bad_url."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Tries of a retriable failure within one attempt at a batch."""
    retry_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Before the second try; doubled for each further one, with jitter."""
    retry_after_seconds: Annotated[float, Field(ge=0)] = 30.0
    """The longest Retry-After that is waited for within an attempt."""
    breaker_failures: Annotated[int, Field(ge=1)] = 20
    """So many failures of a host in a row open its breaker; a timeout on each of its connections does too."""
    breaker_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Until an open breaker lets one probe through."""
    buffer_bytes: Annotated[int, Field(ge=2**20)] = 256 * 2**20
    """Bodies fetched and not yet taken, at the most."""
    pending_urls: Annotated[int, Field(ge=1)] = 20_000
    """URLs taken from the batches and not yet ended, at the most."""
    pending_per_host: Annotated[int, Field(ge=1)] = 2048
    """Of these, for one host; its further batches wait."""
    dns_servers: list[str] = []
    """Ask these (address or address:port) instead of the machine's own."""
    dns_seconds: Annotated[float, Field(gt=0)] = 8.0
    """Until a name that nobody answers for fails: dns."""
    dns_negative_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long it is remembered that a name does not exist."""
    allow_folders: list[str] = []
    """file:// URLs and absolute paths under these folders are read; others fail: blocked."""
    allow_buckets: list[str] = []
    """s3:// URLs into these buckets are read, with the credentials of the pipeline's bucket; others fail: blocked."""
    batch_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """Deadline of a batch: refs that still wait for their host then fail, host_busy."""
    user_agent: str = "Hathi/0.1 (image features; contact: {contact})"
    """What hosts see; {contact} is filled in."""
    contact: str = "not configured"
    """An address or page where a host's owner reaches you."""
