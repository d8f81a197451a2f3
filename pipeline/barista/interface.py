"""The interface file: a small JSON file that says where a barista is, and what lies beside it.

    FILE            who it is; written once it is ready
    FILE.socket     where it listens; a dead one's stands in nobody's way
    FILE.lock       who has it runs (`process.lock`); it stays

All baristas of a user are found through a folder of the user's own, where those that lie elsewhere have a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.barista import layout
from pipeline.barista.messages import process_of, socket_made, user_of
from pipeline.errors import ConfigError, PermanentError
from pipeline.nets.caffe.writing import replacing
from pipeline.process.lock import holder, left_behind
from pipeline.process.scratch import private_folder

SUFFIX = ".interface"
_FOLDER = "hathi-barista"
_LONGEST = 64 * 1024


@dataclass(frozen=True)
class Interface:
    """What an interface file says.  solver: its path.  since: when it was ready, UTC.  format: what it speaks."""

    solver: str
    pid: int
    since: str
    version: str
    format: int = layout.FORMAT


def folder() -> Path:
    """The user's own folder of interface files.  Raises PermanentError where another user made it."""
    return private_folder(Path(tempfile.gettempdir()), _FOLDER)


def default(solver: Path) -> Path:
    """The interface file of a solver where none is named."""
    return folder() / f"{solver.stem}-{_digest(solver.resolve())}{SUFFIX}"


def socket_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.socket")


def alive(file: Path) -> str | None:
    """Who runs at this interface file, or begins to; None: nobody."""
    return holder(file.parent, file.name)


def read(file: Path) -> Interface:
    """Raises ConfigError: there is none, or it is something else."""
    hint = "hathi barista list names those that run; hathi barista start SOLVER begins one"
    try:
        with file.open("rb") as content:
            text = content.read(_LONGEST)
    except OSError as error:
        raise ConfigError(f"no barista is at {file}", error.strerror or str(error), hint) from error
    try:
        body = json.loads(text)
        if body["format"] != layout.FORMAT:
            raise layout.another(body["format"])
        return Interface(**body)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no interface file of a barista", str(error), hint) from error


def dead(file: Path) -> PermanentError:
    """The error of an interface file whose barista has ended."""
    how = left_behind(file.parent, file.name) or "it ended as it was asked to, or was idle"
    return PermanentError(
        f"the barista of {file} has ended", how, f"start it: hathi barista start SOLVER --interface {file}"
    )


def connected(file: Path, seconds: float | None = None) -> socket.socket:
    """A connection to the barista of an interface file.  seconds: the longest wait for each answer; None: for ever.

    Raises ConfigError for a file that is none; PermanentError where the barista has ended, or is another user's.
    """
    read(file)
    found = socket_made()
    try:
        with _short(socket_of(file)) as path:
            found.connect(path)
    except OSError as error:
        found.close()
        if alive(file) is None:
            raise dead(file) from error
        raise PermanentError(f"the barista of {file} takes no connection", error.strerror or str(error)) from error
    if user_of(found) != os.geteuid():
        user = user_of(found)
        found.close()
        raise PermanentError(f"the barista of {file} is user {user}'s", "", "name an interface file of your own")
    found.settimeout(seconds)
    return found


def listening(file: Path) -> socket.socket:
    """The socket of the one who holds the file's lock, for this user alone.  A dead one's socket makes way.

    Raises PermanentError where something else stands there.
    """
    path = socket_of(file)
    found = socket_made()
    try:
        if path.is_socket():
            path.unlink()
        before = os.umask(0o177)
        try:
            with _short(path) as name:
                found.bind(name)
        finally:
            os.umask(before)
        found.listen(128)
    except OSError as error:
        found.close()
        hint = "remove what stands there, or name another interface file"
        raise PermanentError(f"the socket {path} is taken", error.strerror or str(error), hint) from error
    return found


def write(file: Path, found: Interface) -> None:
    """Puts the file there, whole.  Raises PermanentError where it cannot be written."""
    try:
        with replacing(file) as out:
            out.write(json.dumps(asdict(found)).encode() + b"\n")
    except OSError as error:
        raise _unwritable(file, error) from error


def prepared(file: Path) -> None:
    """The folder of a file that is to be written.  Raises PermanentError where it cannot be; ConfigError where
    something else has the name: it stays as it is."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(file):
            read(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def put_back(file: Path, found: Interface) -> str:
    """Writes the file again where somebody deleted it: its barista runs.  Why nobody can find that any more; ""."""
    if not os.path.lexists(socket_of(file)):
        return f"somebody deleted {socket_of(file)}, where it listened"
    try:
        if not os.path.lexists(file):
            write(file, found)
            listed(file)
    except PermanentError as error:
        return f"{error.message}: {error.detail}"
    return ""


def listed(file: Path) -> None:
    """From now on `all_files` finds it."""
    if file.parent != folder():
        with contextlib.suppress(FileExistsError):
            _link(file).symlink_to(file)


def all_files() -> Iterator[Path]:
    """The interface files of all baristas of this user, dead ones too; a link to what is gone is removed."""
    for one in sorted(folder().glob(f"*{SUFFIX}")):
        file = Path(os.readlink(one)) if one.is_symlink() else one
        if file.exists():
            yield file
        elif one.is_symlink() and alive(file) is None:
            one.unlink(missing_ok=True)


def remove(file: Path) -> None:
    """What a barista leaves behind but its lock."""
    for one in (file, socket_of(file), _link(file)):
        with contextlib.suppress(OSError):  # a folder that is gone, or that nobody may write any more
            one.unlink(missing_ok=True)


def mine(other: socket.socket, say: Callable[[str], None]) -> bool:
    """Whether a customer is this user's; another's is told of."""
    if user_of(other) == os.geteuid():
        return True
    say(f"process {process_of(other)} of user {user_of(other)} was sent away: the barista serves its own user alone")
    return False


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket that is short enough for the kernel, however long its folder's is."""
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def _link(file: Path) -> Path:
    return folder() / f"{file.stem}-{_digest(file)}{SUFFIX}"


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _unwritable(file: Path, error: OSError) -> PermanentError:
    hint = "name a file in a folder that this user may write, with --interface"
    return PermanentError(f"the interface file {file} cannot be written", error.strerror or str(error), hint)
