"""A list that `--refs` names by a URL or as `-`: copied beside the features, and then read as any other."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, PermanentError, PipelineError, TemporaryError
from pipeline.process.logs import redact
from pipeline.records import REASONS, Failure
from pipeline.settings import Settings, Source
from pipeline.settings.places import folder_of
from pipeline.sources.each_file import WatchedFiles
from pipeline.sources.found import NONE_LEFT, Left
from pipeline.sources.paths import fixed
from pipeline.stores.backends import HDFS, S3
from pipeline.stores.keys_as_files import KeysAsFiles
from pipeline.stores.local import typed
from pipeline.stores.store import Lake, Stat
from pipeline.times import HOUR

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
WEB = ("http", "https")
KNOWN = "hdfs://namenode:port/path, s3://bucket/key, https://host/file, file:///path, a path, or - for standard input"
MAX_BYTES = 2**30
"""Of a list from the web, which is held in memory until it is whole."""
SECONDS = HOUR
"""Until it is there."""
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_HEAD = 64 * 2**10


def scheme_of(refs: str) -> str:
    """Of a URL, in lower case; `-` for standard input; empty for a path."""
    if refs == "-":
        return "-"
    match = _SCHEME.match(refs)
    return match[1].lower() if match else "file" if refs.lower().startswith("file:/") else ""


def path_of(refs: str, out: Path) -> str:
    """Where the list lies once it is here: absolute.  Raises ConfigError for a URL that cannot be read."""
    scheme = scheme_of(refs)
    if not scheme:
        return os.path.abspath(refs)
    if scheme == "file":
        folder = folder_of(refs)
        if folder is None:
            raise ConfigError(f"--refs {refs} names a file of another host", "", "write file:///path, or a path")
        return os.path.abspath(folder)
    base = _base(refs, out)
    if scheme == "-":
        return str(base)
    if scheme in WEB:
        return str(base / _name(refs))
    if scheme not in (*S3.names, *HDFS.names):
        raise ConfigError(
            f"--refs {redact(refs)}: Hathi does not read {scheme}://", f"it reads {KNOWN}", "copy the list to this host"
        )
    _, path = _server_and_path(refs)
    return str(base / fixed(path))


def bring(settings: Settings, source: Source, refs: str, out: Path, say: Callable[[str], None]) -> Left:
    """Copy what `refs` names, where that is not here; what lies there and is not read.

    What is here already, and as it is there, is not copied again.  Raises ConfigError where nothing stands there, and
    what the server's trouble is, with the settings that reach it.
    """
    scheme = scheme_of(refs)
    if scheme in ("", "file"):
        return NONE_LEFT
    base = _base(refs, out)
    try:
        base.mkdir(parents=True, exist_ok=True)
        if scheme == "-":
            _keep_only(base, {_from_standard_input(base)})
        elif scheme in WEB:
            _put(base / _name(refs), _fetched(settings, refs))
        else:
            return _copied(_opened(settings, scheme, refs), source, refs, base, say)
    except OSError as error:
        raise typed(error, base) from error
    return NONE_LEFT


def _base(refs: str, out: Path) -> Path:
    return out / ".hathi" / "refs" / hashlib.blake2b(refs.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def _server_and_path(refs: str) -> tuple[str, str]:
    """A URL's server and its path without a `/` before it; signs of a pattern, `?` and `#` are a path's."""
    server, _, path = refs.partition("://")[2].partition("/")
    if not server:
        raise ConfigError(f"--refs {refs} names no server", "", f"write it as in {KNOWN}")
    path = "/".join(part for part in path.split("/") if part not in ("", "."))
    if ".." in path.split("/"):
        raise ConfigError(f"--refs {refs} holds a `..`", "", "write the path without `..`")
    return server, path


def _name(url: str) -> str:
    """What a file of the web is called here; it is unpacked when it comes."""
    name = unquote(urlsplit(url).path).rpartition("/")[2].replace("\0", "")
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    return name.lstrip("._")[-100:] or "refs"


def _fetched(settings: Settings, url: str) -> bytes:
    """By the pipeline's own fetcher, under the rules on addresses and ports that images are under."""
    from pipeline.fetch import Fetched, Fetcher  # takes its time to import

    limits = settings.fetch.model_copy(
        update={"max_bytes": MAX_BYTES, "total_seconds": SECONDS, "buffer_bytes": 2 * MAX_BYTES, "allow_folders": []}
    )
    outcome: Any = None
    with Fetcher(limits, accept=lambda head: None if head.startswith(_COMPRESSED) else "refs") as fetcher:
        for result in fetcher.stream(iter([(None, url)])):
            outcome = result[1] if result is not None else outcome
    if isinstance(outcome, Fetched):
        return outcome.content
    failure = cast(Failure, outcome)
    hint = (
        "allow addresses in your network and other ports with --allow-private"
        if failure.reason == "blocked"
        else "check the URL"
    )
    kind = TemporaryError if failure.retriable else PermanentError
    said = f"{failure.reason}: {failure.detail}: {REASONS[failure.reason].meaning}"
    raise kind(f"the list cannot be fetched: {redact(url)}", said, hint)


def _opened(settings: Settings, scheme: str, refs: str) -> Lake:
    """The store that a URL leads to, by the settings that a configuration's bucket and lake have."""
    from pipeline.stores.opening import hasty

    server, _ = _server_and_path(refs)
    settings = hasty(settings)
    if scheme in S3.names:
        from pipeline.stores.s3.store import S3Store  # boto3 takes its time to import

        return cast(Lake, KeysAsFiles(S3Store(settings.bucket.model_copy(update={"url": f"s3://{server}"}))))
    from pipeline.stores.hdfs.store import HdfsStore  # requests takes its time to import

    (lake,) = settings.lakes.values()
    return HdfsStore(f"{HDFS.names[scheme]}://{server}", lake.hdfs)


_S3_HINT = (
    "set how S3 is reached with HATHI_BUCKET__ENDPOINT, __REGION, __PROFILE, __ACCESS_KEY, __SECRET_KEY, or "
    "--set bucket.endpoint=...; otherwise the AWS variables and files of this machine apply"
)
_HDFS_HINT = (
    "name the WebHDFS port (that of the NameNode's web page): hdfs://namenode:9870/path; give user and Kerberos "
    "with --set lakes.list.hdfs.user=..., lakes.list.hdfs.authentication=kerberos"
)


def _copied(lake: Lake, source: Source, refs: str, base: Path, say: Callable[[str], None]) -> Left:
    """What the source finds at that place, copied; nothing where a table's folder stands there."""
    _, path = _server_and_path(refs)
    there = source.model_copy(update={"path": path})
    try:
        named = WatchedFiles(lake, there, ()).look(0.0)
        for one in named.found:
            for file in one.snapshot.files:
                _copy(lake, Stat(file.path, file.length, file.modified), base / file.path)
    except ConfigError as error:
        raise ConfigError(f"no refs at {refs}", error.detail, "check the URL") from error
    except PipelineError as error:
        reached = _S3_HINT if scheme_of(refs) in S3.names else _HDFS_HINT
        hint = f"{error.hint}; {reached}" if error.hint else reached
        raise type(error)(f"--refs {refs} cannot be read: {error.message}", error.detail, hint) from error
    if named.troubles:
        raise PermanentError(
            f"--refs {refs} is not read", "; ".join(named.troubles.values()), "name a file or folder that Hathi reads"
        )
    for where, why in named.left.first.items():
        say(f"left out: {where}: {why}")
    _keep_only(base, {base / file.path for one in named.found for file in one.snapshot.files})
    return named.left


def _copy(lake: Lake, file: Stat, target: Path) -> None:
    with suppress(FileNotFoundError):
        here = target.stat()
        if (here.st_size, here.st_mtime_ns // 1_000_000) == (file.length, file.modified):
            return
    with lake.open(file.path) as source, _written(target) as out:
        shutil.copyfileobj(source, out, 1 << 20)
    os.utime(target, ns=(file.modified * 1_000_000, file.modified * 1_000_000))


def _put(target: Path, content: bytes) -> None:
    """What is here already is left as it is: it is no new snapshot."""
    if not target.is_file() or target.read_bytes() != content:
        with _written(target) as out:
            out.write(content)


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """The old file or the new one stands there, whenever the process is killed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".brought-", delete=False) as out:
        try:
            yield cast(BinaryIO, out)
            out.flush()
            os.replace(out.name, target)
        except BaseException:
            os.unlink(out.name)
            raise


def _keep_only(base: Path, wanted: set[Path]) -> None:
    """What is no longer there is no longer here, nor what a killed run left half."""
    for path in base.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def _from_standard_input(base: Path) -> Path:
    """Standard input to its end, under a name that tells the format which its first line shows."""
    temporary = base / ".standard-input"
    with temporary.open("wb") as out:
        shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)
    with temporary.open("rb") as file:
        head = file.read(_HEAD)
    if not head.strip():
        temporary.unlink()
        raise ConfigError(
            "--refs -: standard input is empty", "", "pipe a list into it: `cat urls.txt | hathi run ...`"
        )
    target = base / f"standard-input{_ending(head)}"
    if target.is_file() and target.read_bytes() == temporary.read_bytes():
        temporary.unlink()
    else:
        os.replace(temporary, target)
    return target


def _ending(head: bytes) -> str:
    """The ending for what bytes look like; `--format` goes before it."""
    from pipeline.codec.refs.guess import TABLES  # what reads refs takes a while to import

    for table, format in TABLES:
        if head.startswith(table):
            return f".{format}"
    for magic, ending in ((_COMPRESSED[0], ".gz"), (b"BZh", ".bz2"), (_COMPRESSED[1], ".zst")):
        if head.startswith(magic):
            return f".txt{ending}"
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").splitlines()[0]
    if line.startswith(b"{"):
        return ".jsonl"
    if re.match(rb"[A-Za-z][A-Za-z0-9+.-]*:[^\t ,]*$|/[^\t,]*$", line):
        return ".txt"
    return ".tsv" if b"\t" in line else ".csv" if b"," in line else ".txt"
