"""Files on their way: an upload that goes on where it broke, a download that appears whole, pictures in a form."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import requests

from pipeline.errors import ConfigError
from pipeline.remote.documents import Datafile
from pipeline.remote.transport import Asked, Away, Problem, Transport

Moved = Callable[[int], None]
"""Told how many bytes are there by now."""


def uploaded(transport: Transport, there: Datafile, file: BinaryIO, moved: Moved) -> Datafile:
    """The datafile, once it has all bytes of the file.  Patience counts anew with each byte that arrives.

    Raises Problem, Away.
    """
    tries = transport.tries()
    while not there["complete"]:
        begins = there["received"]
        broke = _sent(transport, there, _Rest(file, begins, there["size"], moved))
        there = cast(Datafile, transport.ask(Asked("GET", f"/v1/datafiles/{there['id']}")).json())
        if there["received"] > begins:
            tries = transport.tries()
        if broke is not None and not there["complete"]:
            tries.wait(broke, 0.0)
    return there


def _sent(transport: Transport, there: Datafile, rest: _Rest) -> Away | None:
    """Sends what is missing; what broke, if it did and may go on.  Raises Problem."""
    size = there["size"]
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Range": f"bytes {there['received']}-{size - 1}/{size}",
    }
    path = f"/v1/datafiles/{there['id']}/content"
    try:
        transport.ask(Asked("PUT", path, headers=headers, reader=lambda: rest, again=False))
    except Away as error:
        return error
    except Problem as error:
        if error.status not in (400, 409, 416):  # the service has not seen yet that the last connection broke
            raise
        return Away(error.message, error.detail, error.hint)
    return None


class _Rest:
    """The bytes of a file from a place to its announced end, as they are sent."""

    def __init__(self, file: BinaryIO, begins: int, size: int, moved: Moved) -> None:
        file.seek(begins)
        self._file, self._at, self._size, self._moved = file, begins, size, moved
        moved(begins)

    def __len__(self) -> int:
        return self._size - self._at

    def read(self, most: int = -1) -> bytes:
        """The next ones; raises ConfigError where the file ends early."""
        some = self._file.read(len(self) if most < 0 else min(most, len(self)))
        if not some and len(self):
            raise ConfigError("the file became shorter while it was sent", "", "push it when nobody writes it")
        self._at += len(some)
        self._moved(self._at)
        return some


def opened(path: Path) -> BinaryIO:
    """Raises ConfigError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "give a file") from error


def downloaded(transport: Transport, path: str, to: Path) -> Path:
    """The file, which appears whole or not at all.  Raises Problem, Away; ConfigError where it cannot be written."""
    beside = to.with_name(f"{to.name}.part")
    try:
        with transport.ask(Asked("GET", path, stream=True)) as answer, beside.open("wb") as file:
            for some in answer.iter_content(2**20):
                file.write(some)
        beside.replace(to)
    except requests.RequestException as error:
        raise Away(f"the download of {to.name} broke", str(error), "try again") from error
    except OSError as error:
        raise ConfigError(f"{to} cannot be written", error.strerror or str(error), "give another folder") from error
    finally:
        beside.unlink(missing_ok=True)
    return to


def part_of(one: str | os.PathLike[str] | bytes, number: int) -> tuple[str, Any]:
    """A part of a form.  Raises ConfigError where a file cannot be read."""
    if isinstance(one, bytes):
        return "files", (f"{number}", one)
    if isinstance(one, str) and one.startswith(("http://", "https://")):
        return "urls", (None, one)
    path = Path(one)
    try:
        return "files", (path.name, path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "give a picture or a URL") from error
