"""The object store that gateways and compute boxes share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section


class Bucket(Section):
    """The object store that gateways and compute boxes share."""

    url: FilePath = Field(examples=["s3://bucket/prefix"])
    """Where the bucket is: `s3://bucket/prefix`, or a folder. Gateways and boxes must reach the same one."""
    endpoint: str | None = Field(default=None, examples=["https://s3.example.org"])
    """S3: the server's address. Set it for any server but Amazon's: MinIO, Ceph, a proxy."""
    region: str | None = Field(default=None, examples=["eu-west-1"])
    """S3: the region of the bucket. Set it where the machine's own AWS settings do not name it."""
    profile: str | None = Field(default=None, examples=["hathi"])
    """S3: the profile in the usual credentials file. Without a profile and keys the AWS variables are used,
    then the role of the machine."""
    access_key: SecretStr | None = Field(default=None, examples=["..."])
    """S3: the access key's id. Set it as the variable HATHI_BUCKET__ACCESS_KEY rather than here; leave it out where the
    machine has a role."""
    secret_key: SecretStr | None = Field(default=None, examples=["..."])
    """S3: the key's secret; it is never printed. Set it as the variable HATHI_BUCKET__SECRET_KEY rather than here."""
    session_token: SecretStr | None = Field(default=None, examples=["..."])
    """S3: the token that belongs to temporary keys; it is never printed."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """S3: how an address names the bucket: path (server/bucket) or virtual (bucket.server). auto: path
    where an endpoint is set, else virtual. Change it when the server refuses the other form."""
    ca_bundle: FilePath | None = Field(default=None, examples=["/etc/ssl/ours.pem"])
    """S3: a file of trusted certificates. Set it where the server's certificate is from your own authority."""
    encryption: Literal["AES256", "aws:kms"] | None = Field(default=None, examples=["AES256"])
    """S3: server-side encryption of every object that is written. Set it where the bucket's policy demands it in each
    request. none: the bucket's own setting is used."""
    kms_key: str | None = Field(default=None, examples=["alias/hathi"])
    """S3: the key for aws:kms. none: the account's default key."""
    storage_class: str | None = Field(default=None, examples=["INTELLIGENT_TIERING"])
    """S3: the storage class of data objects; manifests stay in STANDARD, since they are read often. Set it to save
    money on data that lives for weeks."""
    multipart_bytes: Annotated[int, Field(ge=5 * 2**20)] = 32 * 2**20
    """S3: files that are larger are uploaded in parts of this size, bytes. Raise it on a fast, reliable line; lower
    it where uploads break off."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """S3: how long to wait for a connection, seconds. Raise it for a server that is far away."""
    read_seconds: Annotated[float, Field(gt=0)] = 60.0
    """S3: the longest silence of the server within an answer, seconds. Raise it for a server under heavy load."""
    retry_seconds: Annotated[float, Field(ge=0)] = 60.0
    """S3: how long a request is tried again after an error that may pass, seconds, all tries together. Raise it to
    survive longer outages; lower it to see errors sooner."""
    fsync: bool = True
    """Folders: flush each file to the disk before it counts as written. Turn it off only where a power cut may lose the
    bucket, such as in tests."""
