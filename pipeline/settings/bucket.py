"""The object store that gateways and compute boxes share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from pipeline.configuration import FilePath
from pipeline.settings.section import Section


class Bucket(Section):
    url: FilePath
    """`s3://bucket/prefix`, or a folder."""
    endpoint: str | None = None
    """S3: another server than Amazon's."""
    region: str | None = None
    """S3: where the bucket lies."""
    profile: str | None = None
    """S3: of the usual credentials file; without profile and keys, the machine's own rules (variables, role)."""
    access_key: SecretStr | None = None
    """S3: better as a variable, or by the machine's own role."""
    secret_key: SecretStr | None = None
    """S3: better as a variable, or by the machine's own role."""
    session_token: SecretStr | None = None
    """S3: of temporary keys."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """S3: whether the bucket stands in the path or in the host's name; auto: path where an endpoint is given."""
    ca_bundle: FilePath | None = None
    """S3: the certificates that are trusted, when not the machine's own."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """S3: server-side encryption that each object is written with; none: as the bucket says."""
    kms_key: str | None = None
    """S3: the key of aws:kms; the account's own when absent."""
    storage_class: str | None = None
    """S3: of data objects, as in INTELLIGENT_TIERING; manifests stay in STANDARD."""
    multipart_bytes: Annotated[int, Field(ge=5 * 2**20)] = 32 * 2**20
    """S3: larger files go up in parts of this size."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """S3: until a connection stands."""
    read_seconds: Annotated[float, Field(gt=0)] = 60.0
    """S3: longest silence of a server within an answer."""
    retry_seconds: Annotated[float, Field(ge=0)] = 60.0
    """S3: how long a request that failed for a passing reason is tried again, all tries together."""
    fsync: bool = True
    """Folders: flush each file to the disk before it counts."""
