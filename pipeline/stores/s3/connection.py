"""The client behind a store: opened when it is first asked, and again when its keys were refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.utils import parse_timestamp

from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.settings import Bucket
from pipeline.stores.retrying import Retry
from pipeline.stores.s3.errors import CAUGHT, NO_S3, about_keys, typed

CONNECTIONS = 64
"""Kept open at the same time; a thread more than that opens one of its own."""

SIGNS = {
    "get_object": "ETag", "put_object": "ETag", "head_object": "ETag", "upload_part": "ETag",
    "create_multipart_upload": "UploadId", "complete_multipart_upload": "ETag", "list_objects_v2": "Name",
}  # fmt: skip
"""What an answer holds that comes from S3; the page of some proxy or hotel, which says 200 too, does not."""


def open_client(settings: Bucket) -> Any:
    """A boto3 client whose own retries are off (`Retry` is the only loop); it is safe for threads.

    Keys come from the settings, else by boto3's rules: profile, variables, files, web identity, container, instance.
    """
    core = botocore.session.Session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    session = boto3.Session(
        botocore_session=core,
        profile_name=settings.profile,
        region_name=settings.region,
        aws_access_key_id=_open(settings.access_key),
        aws_secret_access_key=_open(settings.secret_key),
        aws_session_token=_open(settings.session_token),
    )
    style = settings.addressing
    if style == "auto" and settings.endpoint:
        style = "path"
    config = Config(
        connect_timeout=settings.connect_seconds,
        read_timeout=settings.read_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        s3={"addressing_style": style},
        user_agent_extra="hathi",
    )
    region = settings.region or session.region_name or ("us-east-1" if settings.endpoint else None)
    return session.client(
        "s3", endpoint_url=settings.endpoint, region_name=region, verify=settings.ca_bundle, config=config
    )


def _time(text: Any) -> datetime:
    """A page of keys has a thousand times: read at once, they cost half of what botocore's own reader takes."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):  # of a header, as in Fri, 20 Nov 2026 22:21:34 GMT
        other: datetime = parse_timestamp(text)
        return other
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _open(secret: Any) -> str | None:
    return None if secret is None else secret.get_secret_value()


@dataclass
class Connection:
    """Requests to one server; each is tried again by `retry`, and what is raised is typed."""

    settings: Bucket
    retry: Retry
    opened: Callable[[Bucket], Any] = open_client
    _client: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def where(self) -> str:
        return f"{self.settings.url} at {self.settings.endpoint or 'Amazon'}"

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """What the server answers.  Raises the typed errors of errors.py once `retry` has given up."""
        return self.retry(lambda: self.once(verb, **arguments))

    def once(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """One try."""
        client = None
        try:
            client = self.client()
            answer: dict[str, Any] = getattr(client, verb)(**arguments)
        except CAUGHT as error:
            known = typed(error, self.where)
            known.__cause__ = error
            if about_keys(known):
                self._forget(client)
            raise known from error
        except RuntimeError as error:
            if "still expired" not in str(error):  # botocore's word for keys of variables that have ended
                raise
            self._forget(client)
            hint = "put new keys in their place"
            raise PermanentError("the temporary keys have expired", self.where, hint) from error
        if verb in SIGNS and SIGNS[verb] not in answer:
            raise TemporaryError(NO_S3[0], f"{self.where}: the answer has no {SIGNS[verb]}", NO_S3[1])
        return answer

    def client(self) -> Any:
        """boto3's own; raises what boto3 raises, and ConfigError for an endpoint that is no URL."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = self.opened(self.settings)
                except ValueError as error:
                    if isinstance(error, CAUGHT):
                        raise
                    hint = "write bucket.endpoint as a URL, for example https://s3.example.org"
                    raise ConfigError("the settings of the bucket are wrong", str(error), hint) from error
            return self._client

    def credentials_end(self) -> float | None:
        """Of keys that stand in variables together with their end; all others are without one, or renewed."""
        ends = os.environ.get("AWS_CREDENTIAL_EXPIRATION", "")
        if self.settings.access_key is not None or self.settings.profile is not None or not ends:
            return None
        return datetime.fromisoformat(ends).timestamp() if os.environ.get("AWS_ACCESS_KEY_ID") else None

    def _forget(self, client: Any) -> None:
        """The next request opens a client anew, which reads files and variables again."""
        with self._lock:
            if self._client is client:
                self._client = None
