"""The processes of a training that somebody else began, each told by its environment which one it is.

The variables are torch's (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`), which torchrun and Kubernetes' operators
set as well, or those of Caffe2's (`SHARD_ID`, `NUM_SHARDS`, `RUN_ID`, `REDIS_HOST`, `NFS_PATH`).  All come to process
0, which tells each of them where the others are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, TemporaryError
from pipeline.times import HOUR
from pipeline.training.sharing.connection import HINT, PeerLost
from pipeline.training.sharing.meeting import Listening, Member, accept, connect, exactly, listen
from pipeline.training.sharing.peers import PATIENCE_SECONDS, Peers
from pipeline.training.sharing.redis import Redis

NAMES = {"RANK": "SHARD_ID", "WORLD_SIZE": "NUM_SHARDS"}
"""torch's names, and Caffe2's for the same."""
AGAIN_SECONDS = 0.2
"""Between two looks whether process 0 is there."""
KEPT_SECONDS = int(HOUR)
"""So long Redis keeps where process 0 is."""
_LENGTH = struct.Struct("<I")
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Replica:
    """Which process this is.

    rank: its number; size: of all.  run: a name that all of them have, and no earlier attempt.  attempt: their number.
    address, port: of process 0; where redis (`HOST`, port) or nfs (a folder) is given, it says there where it is.
    secret: what only they know; "" where they trust their network.
    """

    rank: int
    size: int
    run: str
    attempt: int = 0
    address: str = ""
    port: int = 0
    redis: tuple[str, int] | None = None
    nfs: str = ""
    secret: str = ""

    @property
    def token(self) -> bytes:
        """What a process shows to the others."""
        return hashlib.sha256(f"{self.run}\0{self.secret}".encode()).digest()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"worker {self.rank} ({socket.gethostname()})"


def replica_of(environ: Mapping[str, str]) -> Replica:
    """What the environment says.  Raises ConfigError where it lacks something, or says what cannot be."""
    rank, size = (_number(environ, name, other) for name, other in NAMES.items())
    if not 0 <= rank < size:
        raise ConfigError(f"RANK is {rank} of {size} workers", "", "RANK counts from 0 to WORLD_SIZE - 1")
    redis = environ.get("REDIS_HOST", "")
    found = Replica(
        rank=rank,
        size=size,
        run=environ.get("RUN_ID") or environ.get("HATHI_RUN") or "",
        attempt=_number(environ, "HATHI_ATTEMPT", "", 0),
        address=environ.get("MASTER_ADDR", ""),
        port=_number(environ, "MASTER_PORT", "", 29500),
        redis=(redis, _number(environ, "REDIS_PORT", "", 6379)) if redis else None,
        nfs=environ.get("NFS_PATH", ""),
        secret=environ.get("HATHI_TOKEN", ""),
    )
    if found.size > 1 and not (found.address or found.redis or found.nfs):
        hint = "MASTER_ADDR, REDIS_HOST or NFS_PATH says where worker 0 is"
        raise ConfigError("the environment does not say how the workers find each other", "", hint)
    if (found.redis or found.nfs) and not found.run and found.size > 1:
        raise ConfigError("the environment has no RUN_ID", "an earlier run could be met in its place", "set RUN_ID")
    return found


def _number(environ: Mapping[str, str], name: str, other: str, default: int | None = None) -> int:
    text = environ.get(name) or (environ.get(other) if other else None)
    if text is None and default is not None:
        return default
    if text is None or not text.isdecimal():
        both = f"{name} or {other}" if other else name
        said = f"it says {text!r}" if text is not None else "the environment lacks it"
        hint = "hathi train --on replicas is begun by an operator or a launcher, once for each worker"
        raise ConfigError(f"{both} has to be a number", said, hint)
    return int(text)


def meet(one: Replica, shards: int, seconds: float = PATIENCE_SECONDS) -> Peers:
    """The exchange with all others, once they are there.  seconds: the patience with each of them.

    Raises PeerLost where one does not come or goes again, and TemporaryError where this host lets nobody listen.
    """
    listening, members = gather(one, seconds)
    peers = Peers(one.rank, shards, members)
    try:
        peers.meet(listening, one.token, seconds)
    except TemporaryError as error:
        raise PeerLost(error.message, error.detail, error.hint) from error
    return peers


def gather(one: Replica, seconds: float) -> tuple[Listening, list[Member]]:
    """Where this process listens for the others, and who all of them are.

    Raises PeerLost where they do not come in time, and TemporaryError where this host lets nobody listen.
    """
    if one.rank == 0:
        return _as_first(one, seconds)
    ends = time.monotonic() + seconds
    stream = _to_first(one, ends)
    with stream:
        stream.settimeout(seconds)
        mine = str(stream.getsockname()[0])
        listening = _listening(mine)
        try:
            _put(stream, asdict(Member(mine, listening.port, one.name)))
            members = [Member(**each) for each in _take(stream)]
        except OSError as error:
            listening.close()
            raise PeerLost("worker 0 is gone", str(error), HINT) from error
    return listening, members


def _as_first(one: Replica, seconds: float) -> tuple[Listening, list[Member]]:
    """Process 0 waits for all others, and tells them."""
    ends = time.monotonic() + seconds
    where = _own_address(one, ends)
    door = _listening(where, 0 if one.redis or one.nfs else one.port)
    with contextlib.ExitStack() as held:
        held.callback(door.close)
        _announce(one, where, door.port, ends)
        try:
            streams = accept(door, range(1, one.size), one.token, seconds)
        except TemporaryError as error:
            raise PeerLost(error.message, error.detail, error.hint) from error
        listening = _listening(where)
        members = {0: Member(where, listening.port, one.name)}
        try:
            for rank, stream in streams.items():
                held.enter_context(stream)
                stream.settimeout(seconds)
                members[rank] = Member(**_take(stream))
            ordered = [members[rank] for rank in range(one.size)]
            for stream in streams.values():
                _put(stream, [asdict(each) for each in ordered])
        except OSError as error:
            listening.close()
            raise PeerLost("another worker is gone before all have met", str(error), HINT) from error
    return listening, ordered


def _listening(where: str, port: int = 0) -> Listening:
    """At the address that the others know, or at all where it is not this host's own (a network that translates).

    Raises TemporaryError where somebody has the port.
    """
    try:
        try:
            return listen(where, port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return listen("", port)
    except OSError as error:
        raise TemporaryError(f"port {port} of {where} cannot be had", str(error), "MASTER_PORT names it") from error


def _own_address(one: Replica, ends: float) -> str:
    """The address by which the others reach process 0, which is one of this host's."""
    if one.redis:
        return Redis(*one.redis, ends).own_address
    # Where a file says it, no name has to: an operator makes one by a Service, which a shared folder does without.
    name = socket.gethostname() if one.nfs else one.address or socket.gethostname()
    return _resolved(name, ends)


def _resolved(name: str, ends: float) -> str:
    """A name in the cluster's DNS comes some time after its pod."""
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError as error:
            if time.monotonic() > ends:
                raise PeerLost(f"worker 0 has no address: {name}", str(error), HINT) from error
        time.sleep(AGAIN_SECONDS)


def _announce(one: Replica, where: str, port: int, ends: float) -> None:
    """Says where process 0 is, where no name does."""
    text = f"{where}:{port}"
    if one.redis:
        Redis(*one.redis, ends).put(f"hathi/{one.run}", text, KEPT_SECONDS)
    elif one.nfs:
        path = _file(one)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            fresh.write_text(text)
            fresh.replace(path)
        except OSError as error:
            raise ConfigError(f"NFS_PATH cannot be written: {path}", str(error), "mount it into each worker") from error


def _file(one: Replica) -> Path:
    return Path(one.nfs) / "hathi" / one.run


def _announced(one: Replica, ends: float) -> tuple[str, int] | None:
    """Where process 0 says that it is; None: it has not said so yet."""
    if one.redis:
        text = Redis(*one.redis, ends).get(f"hathi/{one.run}")
    elif one.nfs:
        try:
            text = _file(one).read_text()
        except OSError:
            text = ""
    else:
        return _resolved(one.address, ends), one.port
    host, _, port = text.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


def _to_first(one: Replica, ends: float) -> socket.socket:
    """A connection to process 0, once it is there."""
    said = "it has not said where it is"
    while (left := ends - time.monotonic()) > 0:
        where = _announced(one, ends)
        if where is not None:
            first = Member(*where, "worker 0")
            try:
                return connect(first, Member("", 0, one.name), one.rank, one.token, left)
            except TemporaryError as error:
                said = error.detail
        time.sleep(min(AGAIN_SECONDS, left))
    raise PeerLost("worker 0 did not come in time", said, HINT)


def _put(stream: socket.socket, body: object) -> None:
    content = json.dumps(body).encode()
    stream.sendall(_LENGTH.pack(len(content)) + content)


def _take(stream: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(exactly(stream, _LENGTH.size))
    if length > _LONGEST:
        raise ConnectionError(f"it sends {length} bytes in place of a name")
    return json.loads(exactly(stream, length))
