"""What things are called in a bucket and on a lake.  Nobody else spells a key (docs/protocol.md 1, 3, 7, 8)."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

FIRST_DUE = "00000000T000000Z"
INDEX = "outputByPartner"
SUCCESS = "_SUCCESS"
ESTOP = "ESTOP"
MANIFEST = "_manifest.json"

# ASCII alone: other digits are digits to Python, and would be two names of one thing.
_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z)\.([0-9]{3})\.([0-9]{5})\.([0-9])-([0-9a-f]{12})")

# What stands under `c/S/`, beside plan, end, out and done.
BATCH = re.compile(r"b/(?P<batch>[0-9]{5})")
RESULT = re.compile(r"(?P<fingerprint>[0-9a-f]{12})/r/(?P<batch>[0-9]{5})")
ATTEMPT = re.compile(r"(?P<task>t/(?:out|done)|[0-9a-f]{12}/t/[0-9]{5})/(?P<number>[0-9]{5})(?P<ended>\.x)?")
FOLDER = re.compile(r"b|t(/out|/done)?|[0-9a-f]{12}(/[rt](/[0-9]{5})?)?")
"""Where folders are: a file of such a name takes their place in a store that has folders."""

_JOB = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})-([0-9a-f]{12})")
_NO_WORD = re.compile(r"[^A-Za-z0-9._-]+")

# What stands under `j/J/`, beside spec, out and stop.
SNAPSHOT = re.compile(r"s/(?P<iteration>[0-9]{10})")
JOB_ATTEMPT = re.compile(r"t/(?P<number>[0-9]{5})(?P<ended>\.x)?")
JOBS = "j"
"""Of trainings: beside `c`, and below `d`."""
MODELS = "m"
"""Of promoted models: beside `c`, and below `d`."""
ARCHIVE = "a"
"""Of images that are kept: beside `c`, and below `d`."""
FORGET = "f"
"""Of what persons asked to be forgotten: beside `c`."""
_ARCHIVE_FILE = re.compile(r"(?P<batch>[0-9]{5})\.(?P<number>[0-9]{3})\.[a-z.]+")
_ARCHIVED = re.compile(r"(?P<shipment>[^/]+)/(?P<batch>[0-9]{5})\.(?P<number>[0-9]{3})")

REUSE = "u"
"""Of features that are found again: beside `c`."""
MIXED = "mixed"
"""The scope of partners that have few refs in a batch."""

MAX_ROUND = 999
MAX_PART = 99_999
LAST_GENERATION = 3
"""Generation 0 is the first try, 1 to 3 are retries, 4 is a release, 5 to 7 its retries."""
RELEASE = 4
LAST_RELEASE_GENERATION = 7


def version_of(seconds: float) -> str:
    """A time (seconds since 1970) as names carry it: yyyymmddThhmmssZ, UTC."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(int(seconds)))


@lru_cache(maxsize=4096)
def seconds_of(version: str) -> float:
    """The time of a version, seconds since 1970.  Raises ValueError when it is none.

    A poll reads the names of the same shipments again and again: what they say is remembered.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"not a version: {version!r}")
    fields = (version[0:4], version[4:6], version[6:8], version[9:11], version[11:13], version[13:15])
    year, month, day, hour, minute, second = map(int, fields)
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ValueError(f"not a version: {version!r}: {error}") from error


def held_of(text: str) -> tuple[ShipmentName, int]:
    """The shipment and the batch that a hint of a held batch names.  Raises ValueError when it names none."""
    name, _, batch = text.rpartition(".")
    return ShipmentName.parse(name), int(batch)


def number_of(text: str, digits: int = 19) -> int | None:
    """The number that a name is; None for what is none of ours: a sign, other digits than 0 to 9, too many of them."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


def digest(*parts: object) -> str:
    """SHA-256 (hex) over values written as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, order=True, slots=True)
class ShipmentName:
    """The name of a shipment; names sort by version, round, part, generation."""

    version: str
    round: int
    part: int
    generation: int
    hash: str

    @staticmethod
    def of(
        lake: str, snapshot: str, feature_set: str, version: str, round: int, part: int, generation: int, salt: str = ""
    ) -> ShipmentName:
        """The name that follows from the source alone.  snapshot: the snapshot's digest."""
        full = digest(lake, snapshot, feature_set, round, part, generation, salt)
        return ShipmentName(version, round, part, generation, full[:12])

    @staticmethod
    def parse(text: str) -> ShipmentName:
        """Raises ValueError for what is no shipment's name."""
        match = _NAME.fullmatch(text)
        if not match:
            raise ValueError(f"not a shipment: {text!r}")
        version, round_, part, generation, hash_ = match.groups()
        seconds_of(version)
        return ShipmentName(version, int(round_), int(part), int(generation), hash_)

    def __str__(self) -> str:
        return f"{self.version}.{self.round:03d}.{self.part:05d}.{self.generation}-{self.hash}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one lake in a bucket."""

    lake: str

    @property
    def commits(self) -> str:
        return f"{self.lake}/c/"

    @property
    def data(self) -> str:
        return f"{self.lake}/d/"

    @property
    def open_hints(self) -> str:
        return f"{self.lake}/h/open/"

    @property
    def held_hints(self) -> str:
        return f"{self.lake}/h/held/"

    @property
    def gone_hints(self) -> str:
        return f"{self.lake}/h/gone/"

    @property
    def expects_hints(self) -> str:
        return f"{self.lake}/h/expects/"

    @property
    def refused_hints(self) -> str:
        return f"{self.lake}/h/refused/"

    @property
    def alive_hints(self) -> str:
        return f"{self.lake}/h/alive/"

    @property
    def estop(self) -> str:
        """Stops every host; among the beats, which each poll lists, so that looking for it costs nothing."""
        return f"{self.alive_hints}{ESTOP}"

    def open_hint(self, due: str, name: ShipmentName) -> str:
        return f"{self.open_hints}{due}/{name}"

    def held_hint(self, name: ShipmentName, batch: int) -> str:
        return f"{self.held_hints}{name}.{batch:05d}"

    def alive_hint(self, process: str) -> str:
        return f"{self.alive_hints}{process}"

    def gone_hint(self, name: ShipmentName) -> str:
        return f"{self.gone_hints}{name}"

    def expects_hint(self, feature_set: str) -> str:
        return f"{self.expects_hints}{feature_set}"

    def refused_hint(self, feature_set: str, host: str) -> str:
        return f"{self.refused_hints}{feature_set}/{host}"

    def shipment(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/"

    def plan(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/plan"

    def batches(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/b/"

    def batch(self, name: ShipmentName, batch: int) -> str:
        return f"{self.commits}{name}/b/{batch:05d}"

    def end(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/end"

    def out(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/out"

    def done(self, name: ShipmentName) -> str:
        return f"{self.commits}{name}/done"

    def result(self, name: ShipmentName, fingerprint: str, batch: int) -> str:
        return f"{self.commits}{name}/{fingerprint[:12]}/r/{batch:05d}"

    def attempts(self, name: ShipmentName, task: Task) -> str:
        return f"{self.commits}{name}/{task.path}/"

    def attempt(self, name: ShipmentName, task: Task, number: int) -> str:
        return f"{self.attempts(name, task)}{number:05d}"

    def attempt_end(self, name: ShipmentName, task: Task, number: int) -> str:
        return f"{self.attempt(name, task, number)}.x"

    def shipment_data(self, name: ShipmentName, nonce: str, file: str) -> str:
        """Data of a shipment under a name that nobody else uses."""
        return f"{self.data}{name}/{nonce}/{file}"

    @property
    def jobs(self) -> str:
        return f"{self.lake}/{JOBS}/"

    @property
    def jobs_data(self) -> str:
        return f"{self.data}{JOBS}/"

    @property
    def train_hints(self) -> str:
        return f"{self.lake}/h/train/"

    def job(self, name: JobName) -> JobKeys:
        return JobKeys(self, name)

    @property
    def models(self) -> str:
        return f"{self.lake}/{MODELS}/"

    def promotions(self, model: str) -> str:
        return f"{self.models}{model}/"

    def promotion(self, model: str, number: int) -> str:
        return f"{self.promotions(model)}{number:010d}"

    @property
    def models_data(self) -> str:
        return f"{self.data}{MODELS}/"

    def model_file(self, nonce: str, file: str) -> str:
        """A file of a promoted model under a name that nobody else uses."""
        return f"{self.models_data}{nonce}/{file}"

    @property
    def forget(self) -> str:
        return f"{self.lake}/{FORGET}/"

    def forget_request(self, number: int) -> str:
        return f"{self.forget}{number:010d}"

    def forgotten(self, number: int) -> str:
        return f"{self.forget}{number:010d}.done"

    @property
    def archive(self) -> str:
        return f"{self.lake}/{ARCHIVE}/"

    def archive_of(self, version: str) -> str:
        """Images of all shipments of a version: of each set, round, part and generation."""
        return f"{self.archive}{version}."

    def archive_of_batch(self, of: ArchivedBatch) -> str:
        """Each number of its images."""
        return f"{self.archive}{of.name}/{of.batch:05d}."

    def archived(self, of: ArchivedBatch) -> str:
        return f"{self.archive}{of}"

    @property
    def archive_data(self) -> str:
        return f"{self.data}{ARCHIVE}/"

    def archive_file(self, of: ArchivedBatch, nonce: str, file: str) -> str:
        """A pack or its index under a name that nobody else uses."""
        return f"{self.archive_data}{of.name}/{nonce}/{of.batch:05d}.{of.number:03d}.{file}"

    @property
    def reuse(self) -> str:
        return f"{self.lake}/{REUSE}/"

    def reuse_index(self, fingerprint: str, scope: str, page: str) -> str:
        """What a page of features that are found again holds; the empty page: of all pages of the scope."""
        return f"{self.reuse}i/{fingerprint[:12]}/{scope}/{page}"

    def reuse_data(self, fingerprint: str, scope: str, page: str) -> str:
        return f"{self.reuse}d/{fingerprint[:12]}/{scope}/{page}"


@dataclass(frozen=True, order=True, slots=True)
class ArchivedBatch:
    """The images of one batch in the archive.  number: how often they were written anew; the greatest one counts."""

    name: ShipmentName
    batch: int
    number: int = 0

    @staticmethod
    def parse(text: str) -> ArchivedBatch:
        """Raises ValueError for what is no key of the archive, without what all of them begin with."""
        match = _ARCHIVED.fullmatch(text)
        if not match:
            raise ValueError(f"not images of a batch: {text!r}")
        return ArchivedBatch(ShipmentName.parse(match["shipment"]), int(match["batch"]), int(match["number"]))

    def __str__(self) -> str:
        return f"{self.name}/{self.batch:05d}.{self.number:03d}"


def archive_file_number(key: str) -> tuple[int, int] | None:
    """Of a file of the archive its batch, and how often the images were written anew; None for what is none."""
    match = _ARCHIVE_FILE.fullmatch(key.rpartition("/")[2])
    return (int(match["batch"]), int(match["number"])) if match else None


def scope_of(partner_id: int) -> str:
    """The scope of a partner's features that are found again."""
    return f"p{partner_id}"


@dataclass(frozen=True, order=True, slots=True)
class JobName:
    """The name of a training: its model's, and a hash of all that decides it.  The same training twice is one job."""

    model: str
    hash: str

    @staticmethod
    def of(model: str, *decides: object) -> JobName:
        """model: any text; what a key cannot hold of it becomes `-`."""
        word = _NO_WORD.sub("-", model).strip("-._")[:64].rstrip("-._")
        return JobName(word or "net", digest(model, *decides)[:12])

    @staticmethod
    def parse(text: str) -> JobName:
        """Raises ValueError for what is no job's name."""
        match = _JOB.fullmatch(text)
        if not match:
            raise ValueError(f"not a job: {text!r}")
        return JobName(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.model}-{self.hash}"


@dataclass(frozen=True, slots=True)
class JobKeys:
    """The keys of one training."""

    keys: Keys
    name: JobName

    @property
    def top(self) -> str:
        return f"{self.keys.jobs}{self.name}/"

    @property
    def spec(self) -> str:
        return f"{self.top}spec"

    @property
    def out(self) -> str:
        return f"{self.top}out"

    @property
    def stop(self) -> str:
        return f"{self.top}stop"

    @property
    def hint(self) -> str:
        return f"{self.keys.train_hints}{self.name}"

    @property
    def data(self) -> str:
        return f"{self.keys.jobs_data}{self.name}/"

    def snapshot(self, iteration: int) -> str:
        return f"{self.top}s/{iteration:010d}"

    def attempt(self, number: int) -> str:
        return f"{self.top}t/{number:05d}"

    def attempt_end(self, number: int) -> str:
        return f"{self.attempt(number)}.x"

    def file(self, nonce: str, name: str) -> str:
        """Data under a name that nobody else uses."""
        return f"{self.data}{nonce}/{name}"


@dataclass(frozen=True, slots=True)
class Task:
    """What an attempt is at: a batch under a fingerprint, `out`, or `done`."""

    path: str

    @staticmethod
    def batch(fingerprint: str, batch: int) -> Task:
        return Task(f"{fingerprint[:12]}/t/{batch:05d}")

    @property
    def number(self) -> int | None:
        """The batch; None for `out` and `done`."""
        return None if self.path.startswith("t/") else int(self.path.rpartition("/")[2])


AGGREGATE = Task("t/out")
DELIVER = Task("t/done")


@dataclass(frozen=True, slots=True)
class Root:
    """Paths under a feature set's target root on a lake."""

    root: str

    @property
    def index(self) -> str:
        return f"{self.root}/{INDEX}"

    def proposal(self, version: int) -> str:
        return f"{self.root}/_index/{version:010d}"

    @property
    def proposals(self) -> str:
        return f"{self.root}/_index"

    def token(self, nonce: str) -> str:
        return f"{self.root}/_index/tokens/{nonce}"

    def shipment(self, name: ShipmentName) -> str:
        return f"{self.root}/{name}"

    def partner(self, name: ShipmentName, partner_id: int) -> str:
        return f"{self.root}/{name}/{partner_id}"

    def temporary(self, name: ShipmentName, nonce: str) -> str:
        return f"{self.root}/_tmp/{name}.{nonce}"

    @property
    def currents(self) -> str:
        return f"{self.root}/_current"

    def currents_of(self, partner_id: int) -> str:
        return f"{self.root}/_current/{partner_id}"

    def current(self, partner_id: int, number: int) -> str:
        """A partner's compacted table; hidden, so that a glob over shipments does not read its rows twice."""
        return f"{self.root}/_current/{partner_id}/{number:010d}"

    def temporary_current(self, partner_id: int, nonce: str) -> str:
        return f"{self.root}/_tmp/current-{partner_id}.{nonce}"

    @property
    def mades(self) -> str:
        """What says where data sets and files lie that were made of what is delivered here."""
        return f"{self.root}/_made"

    def made(self, host: str, path: str) -> str:
        return f"{self.mades}/{digest('made', host, path)[:16]}"

    @property
    def own(self) -> str:
        """Of a list of one's own: what Hathi keeps beside its features."""
        return f"{self.root}/.hathi"

    @property
    def kept(self) -> str:
        """Columns of the list that stand beside the features."""
        return f"{self.own}/kept.parquet"
