"""The Hadoop side: where refs are, and how it is reached."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from pipeline.configuration import FilePath
from pipeline.settings.places import SourcePath
from pipeline.settings.section import Section


class Columns(Section):
    """Names of the columns of ref tables; the first one that a file has is taken."""

    url: list[str] = ["url", "image_url", "imageUrl", "image"]
    """The image's URL."""
    partner_id: list[str] = ["partner_id", "partner", "partnerId"]
    """Integer; without it the partner of the source, else 0."""
    item_id: list[str] = ["item_id", "itemId"]
    """Integer of 64 bits, signed or unsigned."""
    external_id: list[str] = ["external_id", "externalId", "sku", "id"]
    """Text that is hashed to an item id where there is none."""
    content: list[str] = ["content", "image_bytes"]
    """The image's bytes, where a table carries them."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError) as error:
        raise ValueError("no such time zone; zones are named as in Europe/Paris or UTC") from error
    return name


class Source(Section):
    """Where a lake's image refs are."""

    path: SourcePath
    """Folder, file or glob, relative to the lake; index: the index file. success: `%Y/%m/%d` stands for a day."""
    convention: Literal["each_file", "success", "index"] = "each_file"
    """each_file: every file is a snapshot; success: a folder is one once it holds _SUCCESS; index: a JSON file says
    what each partner has (as outputByPartner)."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "orc", "text", "protobuf"] = "auto"
    """auto: by the name of the file; index: delimited protobuf where the name says nothing."""
    partner_id: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """The partner of refs whose row, folder (`partner=123`) and index name none."""
    columns: Columns = Columns()
    settle_seconds: Annotated[float, Field(ge=0)] = 0.0
    """each_file: leave a file alone that changed within this many seconds, by the store's clock."""
    look_back_days: Annotated[int, Field(ge=0, le=400)] = 3
    """success: a path with `%Y/%m/%d` is looked at for today and so many days before, by the store's clock, UTC."""
    sweep_days: Annotated[int, Field(ge=0, le=400)] = 30
    """success: once a day the folders of so many days are looked at, for those that came late."""
    job_time_unit: Literal["milliseconds", "seconds", "text"] = "milliseconds"
    """index: what jobTimeStamp counts since 1970; text: yyyymmddhhmmss, with or without signs between."""
    job_time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """index: the zone in which a jobTimeStamp of kind text was written."""


class Hdfs(Section):
    """How the NameNode is asked, where the lake is an HDFS."""

    authentication: Literal["simple", "kerberos"] = "simple"
    """simple: the user below is believed; kerberos: by a keytab or a ticket cache."""
    user: str | None = None
    """simple: who asks; the name of this process's user when absent."""
    principal: str | None = None
    """kerberos: who asks, as in hathi@EXAMPLE.ORG; the ticket cache's own when absent."""
    keytab: FilePath | None = None
    """kerberos: tickets are taken with this keytab; without it they come from the ticket cache."""
    ticket_cache: FilePath | None = None
    """kerberos: the cache (kinit's) when it is not the usual one."""
    ca_bundle: FilePath | None = None
    """swebhdfs: the certificates that are trusted, when not the machine's own."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Until a connection stands."""
    read_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest silence of a server within an answer."""
    retry_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long a request that failed for a passing reason is tried again, all tries together."""


class Lake(Section):
    """One Hadoop side: a store, source roots, and a place for targets."""

    url: FilePath
    """A folder; or `hdfs://namenode:port[,namenode:port]/folder` with the ports of WebHDFS (`swebhdfs://`: over TLS;
    `httpfs://`: a gateway that can only be read from)."""
    hdfs: Hdfs = Hdfs()
    sources: list[Source] = []
    """Where the refs are; a lake without sources only receives."""
