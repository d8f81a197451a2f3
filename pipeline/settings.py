"""Every setting, its default and what it means; the configuration files hold the same words with comments.

Paths are relative to the folder of the file that names them.  Each setting is also an environment variable:
`HATHI_` and the path with double underscores, e.g. `HATHI_FETCH__CONNECTIONS_PER_HOST=8`; lists are JSON there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import configuration
from pipeline.configuration import FilePath

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Of a lake or a feature set: it becomes part of keys and folders."""


class Section(BaseModel):
    """A table of the configuration: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


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


class Source(Section):
    """Where a lake's image refs are."""

    path: str
    """Folder, file or glob, relative to the lake."""
    convention: Literal["each_file", "success"] = "each_file"
    """each_file: every file is a snapshot; success: a folder is one once it holds _SUCCESS."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "orc", "text", "protobuf"] = "auto"
    """auto: by the name of the file."""
    partner_id: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """The partner of refs whose file names none."""
    columns: Columns = Columns()
    settle_seconds: Annotated[float, Field(ge=0)] = 0.0
    """each_file: leave a file alone that changed within this many seconds, by the store's clock."""


class Lake(Section):
    """One Hadoop side: a store, source roots, and a place for targets."""

    url: FilePath
    """`hdfs://host:port`, or a folder."""
    sources: list[Source] = []
    """Where the refs are; a lake without sources only receives."""


DECODE_POLICY = "2"
"""What decoding and resizing do to an image; raised when their pixels change, which changes every fingerprint."""


class Preprocess(Section):
    """Image bytes -> network input, in the terms of Caffe's `caffe.io.Transformer`."""

    resize: Literal["direct", "crop"] = "direct"
    """direct: straight to the net's input size; crop: the short side to resize_to, then the centre."""
    resize_to: Annotated[int, Field(ge=1, le=4096)] = 256
    """crop: length of the short side before the centre is cut out."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """The order that the net was trained with."""
    raw_scale: float = 255.0
    """Pixels run from 0 to raw_scale before the mean is taken off (Caffe's nets: 255)."""
    mean: list[float] | FilePath = [104.0, 117.0, 123.0]
    """One value a channel in channel_order, or a .binaryproto or .npy file."""
    std: list[float] = [1.0, 1.0, 1.0]
    """Divides after the mean, one value a channel (ONNX backbones)."""
    input_scale: float = 1.0
    """Multiplies last, as Transformer.set_input_scale."""
    reduced_decode: bool = True
    """Let the JPEG decoder leave out detail that the resize would drop (1/2, 1/4, 1/8)."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """An image that declares more is refused before its pixels are allocated."""


class FeatureSet(Section):
    """What is computed, and where it is delivered."""

    net: FilePath
    """A deploy .prototxt, an .onnx model, or `hog`: OpenCV's descriptor, which needs no weights."""
    weights: FilePath | None = None
    """A .caffemodel; none for ONNX."""
    blob: str
    """The blob (or ONNX output) that is the feature."""
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width that the net is fed; what it declares when absent."""
    preprocess: Preprocess = Preprocess()
    normalise: Literal["l2", "none"] = "l2"
    """l2: each feature is divided by its length."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the net's arithmetic; part of the fingerprint."""
    engine: Literal["auto", "openvino", "onnxruntime", "torch", "pycaffe"] = "auto"
    """What runs the net; auto: the fastest that is here."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Images in one forward pass; the last pass is padded, so a row's bits do not depend on its neighbours."""
    root: str
    """Where features are delivered, relative to the lake."""
    lakes: list[str] | None = None
    """Lakes whose refs this set takes; all of them when absent."""
    formats: Annotated[list[Literal["text", "parquet"]], Field(min_length=1)] = ["text", "parquet"]
    """What is delivered: text (cnn_features.txt.gz) and Parquet."""


class Ship(Section):
    batch_refs: Annotated[int, Field(ge=1, le=65536)] = 1024
    """A batch is so many refs,"""
    batch_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """or so many bytes, whichever comes first."""
    batches_per_shipment: Annotated[int, Field(ge=1, le=4096)] = 128
    """A shipment is a part of a snapshot of at most so many batches."""
    refs_per_run: Annotated[int, Field(ge=1)] = 50_000_000
    """A run stops after so many refs; the next one goes on."""
    bytes_per_run: Annotated[int, Field(ge=1)] = 100 * 2**30
    """A run stops after so many bytes."""
    files_per_run: Annotated[int, Field(ge=1)] = 10_000
    """A run begins no more files than that."""
    open_shipments: Annotated[int, Field(ge=1)] = 256
    """No new snapshot is begun while this many due shipments are open."""
    retry_delays: Annotated[
        list[Annotated[float, Field(ge=0, le=10 * 366 * 86400)]], Field(min_length=3, max_length=3)
    ] = [3600.0, 86400.0, 259200.0]
    """Seconds until the first, second and third retry of a retriable failure."""
    gone_seconds: float = 86400.0
    """A shipment whose frozen file has been missing for so long is void."""


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
    """So many failures of a host in a row open its breaker."""
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
    batch_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """Deadline of a batch: refs that still wait for their host then fail, host_busy."""
    user_agent: str = "Hathi/0.1 (image features; contact: {contact})"
    """What hosts see; {contact} is filled in."""
    contact: str = "not configured"
    """An address or page where a host's owner reaches you."""


class Compute(Section):
    threads: Annotated[int, Field(ge=0)] = 0
    """Cores for decoding and the net together; 0: all that this process may use."""
    open_batches: Annotated[int, Field(ge=1)] = 64
    """Batches that are worked on at the same time, at the most."""
    open_bytes: Annotated[int, Field(ge=2**20)] = 1024 * 2**20
    """Refs and features of open batches in memory, at the most."""
    strikes: Annotated[int, Field(ge=1)] = 2
    """A batch with so many strikes runs alone."""
    lost: Annotated[int, Field(ge=1)] = 3
    """A batch with so many lost attempts runs alone."""
    strikes_alone: Annotated[int, Field(ge=1)] = 3
    """A batch with so many strikes while it ran alone is held."""
    lost_alone: Annotated[int, Field(ge=1)] = 20
    """A batch with so many lost attempts while it ran alone is held."""
    alone_bytes: Annotated[int, Field(ge=2**28)] = 8 * 2**30
    """Memory of the child process in which a batch runs alone, at the most."""
    max_run_seconds: Annotated[float, Field(gt=0)] = 3300.0
    """A run from cron takes nothing new after so long."""


class Deliver(Section):
    index_days: Annotated[float, Field(gt=0)] = 7.0
    """How long a delivery stays in the index's list."""


class Prune(Section):
    keep_days: Annotated[float, Field(ge=0)] = 14.0
    """Data of closed shipments stays in the bucket so long."""
    ledger_days: Annotated[float, Field(ge=0)] = 400.0
    """The record of what was done stays so long."""
    lake_days: Annotated[float, Field(ge=0)] | None = None
    """Delivered folders are deleted after so long; none: never."""
    orphan_days: Annotated[float, Field(ge=0)] = 7.0
    """What no manifest names, in the bucket or half delivered, is deleted after so long."""


class Daemon(Section):
    poll_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Between two looks for work."""
    beat_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Between two signs of life of a process in the bucket."""
    alive_seconds: Annotated[float, Field(gt=0)] = 360.0
    """A process without a sign of life for so long counts as dead, by the store's clock."""
    watchdog_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A process at work that fetches, computes and commits nothing for so long dumps its stacks and kills itself."""


class Logs(Section):
    folder: FilePath = "../logs"
    """One file for each program."""
    max_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    """Of one file, before it is rotated."""
    keep: Annotated[int, Field(ge=0)] = 5
    """Rotated files that are kept."""
    echo: bool = True
    """Print the lines on stderr, too."""
    redact_queries: bool = True
    """Keep the query of a URL out of logs, failures and reports: it can be a secret."""


class Bucket(Section):
    url: FilePath
    """`s3://bucket/prefix`, or a folder."""
    endpoint: str | None = None
    """S3: another server than Amazon's."""
    region: str | None = None
    """S3: where the bucket lies."""
    access_key: SecretStr | None = None
    """S3: better as a variable, or by the machine's own role."""
    secret_key: SecretStr | None = None
    """S3: better as a variable, or by the machine's own role."""
    fsync: bool = True
    """Folders: flush each file to the disk before it counts."""


class Settings(BaseSettings):
    """All settings of one installation; `load` reads them, tests may construct them."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    state: FilePath = "../state"
    """The folder of this host's locks, ESTOP and spilled data; never shared between hosts."""
    bucket: Bucket
    """What gateways and compute boxes share."""
    lakes: dict[Name, Lake] = {}
    """By name: a to z, 0 to 9, - and _."""
    sets: dict[Name, FeatureSet] = {}
    """Feature sets by name: a to z, 0 to 9, - and _."""
    ship: Ship = Ship()
    fetch: Fetch = Fetch()
    compute: Compute = Compute()
    deliver: Deliver = Deliver()
    prune: Prune = Prune()
    daemon: Daemon = Daemon()
    logs: Logs = Logs()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is constructed with: `load` alone looks at the environment, once, where it can be shown."""
        return (init_settings,)

    @model_validator(mode="after")
    def _sets_name_lakes_that_exist(self) -> Settings:
        for name, feature_set in self.sets.items():
            for lake in feature_set.lakes or ():
                if lake not in self.lakes:
                    raise PydanticCustomError(
                        "unknown_lake",
                        "no such lake; lakes are: {known}",
                        {"known": ", ".join(sorted(self.lakes)) or "none", "parts": ["sets", name, "lakes"]},
                    )
        return self

    @model_validator(mode="after")
    def _each_set_has_a_root_of_its_own(self) -> Settings:
        for name, one in self.sets.items():
            for other_name, other in self.sets.items():
                shared = set(one.lakes or self.lakes) & set(other.lakes or self.lakes)
                if name < other_name and shared and one.root.strip("/") == other.root.strip("/"):
                    raise PydanticCustomError(
                        "shared_root",
                        "set {other} delivers there too, and two sets in one root would mix",
                        {"other": name, "parts": ["sets", other_name, "root"]},
                    )
        return self


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Settings:
    """The effective settings: overrides (nested, or dotted keys) win over HATHI_... variables, these over the file.

    Paths are absolute in them.  Raises ConfigError naming the file or variable, the key and what is allowed.
    """
    return configuration.validate(Settings, configuration.read(Settings, path, environ, overrides or {}))


def load_fetch(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Fetch:
    """Section `fetch` alone, for commands that need no bucket; as `load`."""
    return configuration.validate(Fetch, configuration.read(Settings, path, environ, overrides or {}), "fetch")
