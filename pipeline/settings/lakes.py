"""The Hadoop side: where refs are, and how it is reached."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from pipeline.settings.places import SourcePath
from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section

Format = Literal["csv", "tsv", "jsonl", "parquet", "orc", "avro", "text", "protobuf"]
"""The forms of files that refs are read from."""

NULL_WORDS = (
    "\\N",
    "NULL",
    "(null)",
    "<null>",
    "None",
    "NaN",
    "NaT",
    "<NA>",
    "N/A",
    "#N/A",
    "nil",
    "undefined",
    "__HIVE_DEFAULT_PARTITION__",
)
"""How Hive, MySQL, Sqoop, Spark, pandas, Excel and others write that there is no value."""

AUTO = "auto"
_NAMED = {"\\t": "\t", "tab": "\t", "\\u0001": "\x01", "\\x01": "\x01", "\\001": "\x01"}


class Columns(Section):
    """Names of the columns of ref tables. Hathi uses the first name that a file has; set your own names where your
    tables use others."""

    url: list[str] = ["url", "image_url", "imageUrl", "image"]
    """The image's URL. Set the name of your column if it is not among these."""
    partner_id: list[str] = ["partner_id", "partner", "partnerId"]
    """The partner: an integer. Without such a column the partner_id of the source applies, otherwise 0."""
    item_id: list[str] = ["item_id", "itemId"]
    """The item: an integer of 64 bits, signed or unsigned. Set the name of your column if it is not among these."""
    external_id: list[str] = ["external_id", "externalId", "sku", "id"]
    """The shop's own id as text. If a row has no item id, Hathi hashes this text to one."""
    content: list[str] = ["content", "image_bytes"]
    """The image's bytes. Hathi uses the default names only if the column can hold images (bytes in Parquet, ORC and
    Avro, base64 in text), and only in rows without a url. It always uses names that you set, before the url; an empty
    list: no column holds images."""

    @property
    def content_is_configured(self) -> bool:
        """Whether somebody has named the column."""
        default: list[str] = Columns.model_fields["content"].default
        return self.content != default

    @property
    def of_images(self) -> bool:
        """Whether a row has to have an image."""
        return True


class ItemColumns(Columns):
    """Names of the columns of a table about items that holds no images, such as labels."""

    content: list[str] = []

    @property
    def of_images(self) -> bool:
        return False


def _separator(text: str) -> str:
    text = _NAMED.get(text.lower(), text)
    if text != AUTO and (len(text) != 1 or text in '\r\n"'):
        raise ValueError("one character is expected that is neither a quote nor a line end; or auto")
    return text


def _sign(text: str) -> str:
    if text != AUTO and (len(text) > 1 or (text and text in "\r\n")):
        raise ValueError('one character is expected that does not end a line; "" for none; or auto')
    return text


def _encoding(text: str) -> str:
    try:
        known = codecs.lookup(text).name if text != AUTO else AUTO
    except (LookupError, ValueError):
        known = ""
    if known != AUTO and not (known in _ENCODINGS or known.startswith(_CHARMAPS)):
        raise ValueError("not a known encoding; examples: utf-8, utf-16, latin-1, cp1252, shift_jis, gb18030; or auto")
    return text


_ENCODINGS = ("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
              "big5", "big5hkscs", "euc_jp", "euc_kr", "gb2312", "gb18030", "gbk", "johab", "ptcp154", "shift_jis",
              "shift_jis_2004", "tis-620", "hp-roman8")  # fmt: skip
_CHARMAPS = ("cp", "iso8859", "koi8", "mac")


class Text(Section):
    """The form of CSV, TSV, JSON lines and lists of URLs, where the files themselves do not tell it."""

    encoding: Annotated[str, AfterValidator(_encoding)] = AUTO
    """The encoding of characters, for example utf-16, latin-1 or cp1252. auto: UTF-8, or UTF-16 and UTF-32 if the
    first bytes of the file show it. Set it where cells show wrong letters."""
    separator: Annotated[str, AfterValidator(_separator)] = AUTO
    """CSV, TSV: the character between cells. auto: a comma or a tab, by the name of the file; if that gives no url
    column, the one of comma, tab, semicolon and `|` that gives one. Set it for any other character."""
    quote: Annotated[str, AfterValidator(_sign)] = AUTO
    """CSV, TSV: the character around cells. "": no such character, quotes are text. auto: `"` in CSV; in TSV none,
    unless the names in the header are quoted."""
    escape: Annotated[str, AfterValidator(_sign)] = AUTO
    """CSV, TSV: the character before a quote, separator or line end that is text. "": no such character. auto: in CSV a
    doubled quote, and a backslash (as Spark writes) in rows that cannot be read otherwise; in TSV a backslash."""
    header: bool = True
    """CSV, TSV: the first line names the columns. Turn it off for files without a header; without `names` the columns
    are then called 1, 2, 3 ..."""
    names: list[str] = []
    """CSV, TSV without a header: the names of the columns, in order. Set them with header = false."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError) as error:
        raise ValueError("no such time zone; zones are named as in Europe/Paris or UTC") from error
    return name


class Source(Section):
    """Where a lake's image refs are."""

    path: SourcePath = Field(examples=["refs"])
    """The folder, file or glob with the refs, relative to the lake. With index it is the index file; with success,
    `%Y/%m/%d` in it stands for a day."""
    convention: Literal["each_file", "success", "index"] = "each_file"
    """How Hathi knows that files are complete. each_file: every file is a snapshot; success: a folder is a snapshot
    once it contains _SUCCESS; index: a JSON file names the files of each partner (as outputByPartner does)."""
    format: Literal["auto", Format] = "auto"
    """The format of the files. auto: by the name of each file; with index, delimited protobuf where the name tells no
    format. Set it where names are wrong."""
    partner_id: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = Field(default=None, examples=[101])
    """The partner of refs for which the row, the folder (`partner=123`) and the index name no partner. none: 0."""
    ids: Literal["normalised", "as_written"] = "normalised"
    """How external ids are hashed. normalised: in lower case and percent-decoded: `SKU-1`, `sku-1` and `sku%2D1` are
    one item; as_written: byte by byte: they are three items. A change gives new item ids to all items of the source;
    use the same value for all sources of a partner."""
    null_words: list[str] = list(NULL_WORDS)
    """Words that mean "no value" in cells of ids, partners and URLs and in `partner=123` folders, in any of these
    forms: as written here, in lower case, in capitals, capitalised, with blanks around. An empty list: only empty
    cells mean that."""
    keep: list[str] = []
    """A list of your own (`hathi run --refs ... --keep`): further columns of it that hathi.read_features and --out show
    beside the features. Name those that you want to have at hand there; other sources do not use it."""
    columns: Columns = Columns()
    text: Text = Text()
    settle_seconds: Annotated[float, Field(ge=0)] = 0.0
    """each_file: Hathi reads a file when it has not changed for this long, seconds by the store's clock. Raise it where
    programs write files in place."""
    look_back_days: Annotated[int, Field(ge=0, le=400)] = 3
    """success: how many days before today each poll looks at in a path with `%Y/%m/%d`, by the store's clock, UTC.
    Raise it where folders of a day arrive late."""
    sweep_days: Annotated[int, Field(ge=0, le=400)] = 30
    """success: how many days before today Hathi looks at once a day, for folders that arrive very late. Raise it where
    they arrive later still."""
    job_time_unit: Literal["milliseconds", "seconds", "text"] = "milliseconds"
    """index: the unit of jobTimeStamp since 1970; text: yyyymmddhhmmss, with or without separators. Use what the
    program that writes the index uses."""
    job_time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """index: the time zone of a jobTimeStamp that is text. Set it where the program that writes the index does not use
    UTC."""


class Hdfs(Section):
    """How Hathi connects to the NameNode, where the lake is an HDFS."""

    authentication: Literal["simple", "kerberos"] = "simple"
    """simple: no authentication; the server trusts the user name given below. kerberos: by a keytab or a ticket
    cache (needs one more Python package: docs/hdfs.md)."""
    user: str | None = Field(default=None, examples=["hathi"])
    """simple: the user name that is sent. none: the name of this process's user."""
    principal: str | None = Field(default=None, examples=["hathi@EXAMPLE.ORG"])
    """kerberos: the principal, such as hathi@EXAMPLE.ORG. none: the principal of the ticket cache."""
    keytab: FilePath | None = Field(default=None, examples=["/etc/hathi/hathi.keytab"])
    """kerberos: the keytab from which Hathi takes and renews tickets. none: Hathi uses the ticket cache, and you must
    renew the tickets (kinit)."""
    ticket_cache: FilePath | None = Field(default=None, examples=["/tmp/krb5cc_1000"])
    """kerberos: the ticket cache that kinit writes. none: the usual place of this user."""
    ca_bundle: FilePath | None = Field(default=None, examples=["/etc/ssl/ours.pem"])
    """swebhdfs: a file of trusted certificates. Set it where the cluster's certificate is from your own authority."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long to wait for a connection, seconds. Raise it for a cluster that is far away."""
    read_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The longest silence of the server within an answer, seconds. Raise it for a NameNode under heavy load."""
    retry_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long a request is tried again after an error that may pass, seconds, all tries together. Raise it to survive
    a longer failover of the NameNode."""


class Lake(Section):
    """One lake (a Hadoop side): its store and its sources."""

    url: FilePath | None = Field(default=None, examples=["hdfs://namenode.example.org:9870/data"])
    """A folder; or `hdfs://namenode:port[,namenode:port]/folder` with the ports of WebHDFS (`swebhdfs://`: over TLS;
    `httpfs://`: an HttpFS gateway, which can only be read). A gateway needs it; a compute box only needs the lake's
    name, so there the table stays empty."""
    follow_links: bool = False
    """For a lake that is a folder: follow links that lead out of it, for reading and for writing. Without it Hathi does
    not read such links, and names them. Turn it on if the lake consists of links that you trust."""
    hdfs: Hdfs = Hdfs()
    sources: list[Source] = []
    """The places of the refs. A lake without sources only receives features."""
