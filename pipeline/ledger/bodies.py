"""Documents: small JSON objects, each under one key, and the one way to read them: under a cap, every value judged.

Every body carries a format number and a nonce: whoever cannot know whether its put_new won reads the key back and
looks for its own nonce.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import IGNORED, UNREADABLE, FormatError, NotAFile
from pipeline.ledger.values import as_tuples
from pipeline.stores.store import Store

FORMAT = 1
"""The form of every body written today; who meets a greater one leaves that shipment alone."""

MOST_BYTES = 64 * 2**20
"""A longer body is not read, whoever wrote it."""

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")
_MOST_DIGITS = 20


class NewerFormat(FormatError):
    """A body written by a newer Hathi: upgrade this host (boxes before gateways)."""


class Part(BaseModel):
    """A piece of a document.  Types are taken at their word: no text, truth value or fraction is a number."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Body(Part):
    """A document under `c/`, `_manifest.json` or the index; unknown fields are kept out, never an error."""

    format: int = FORMAT
    nonce: str = ""

    def encode(self) -> bytes:
        """Canonical JSON: equal values give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass") + b"\n"

    def flaw(self) -> str:
        """How the document contradicts itself; "" where it does not."""
        return ""


B = TypeVar("B", bound=Body)


def body_of(kind: type[B], content: bytes, where: str) -> B:
    """The body that `content` holds, every value of it judged.  Raises NewerFormat or FormatError, naming `where`."""
    name = _CAPITAL.sub(" ", kind.__name__).lower()
    what = f"{where} is not {'an' if name[0] in 'aeio' else 'a'} {name}"
    if len(content) > MOST_BYTES:
        raise FormatError(
            what,
            f"it is longer than {MOST_BYTES:,} bytes",
            UNREADABLE,
        )
    try:
        fields = json.loads(
            content, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant, parse_float=_fraction
        )
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(what, f"it is not JSON: {why}", UNREADABLE) from error
    number = fields.get("format") if isinstance(fields, dict) else None
    if type(number) is not int or number < 1:
        raise FormatError(what, "it has no format number", f"Hathi did not write it; {IGNORED}")
    if number > FORMAT:
        raise NewerFormat(
            f"{where} was written by a newer Hathi",
            f"it has format {number}; this host knows {FORMAT}",
            "upgrade Hathi on this host",
        )
    try:
        body = kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
        raise FormatError(what, detail, UNREADABLE) from error
    flaw = body.flaw()
    if flaw:
        raise FormatError(what, flaw, UNREADABLE)
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, its arrays as tuples.  Raises ValueError for one that says something twice."""
    found = {key: as_tuples(value) for key, value in pairs}
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > 400:
        raise ValueError(f"a number has {len(text)} digits")
    return float(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def read_body(store: Store, kind: type[B], key: str) -> B:
    """The body at a key.  Raises NotFound; FormatError for what is damaged, too long or a folder; NewerFormat."""
    return body_of(kind, content_of(store, key), key)


def content_of(store: Store, key: str) -> bytes:
    """The content of a document.  Raises NotFound; FormatError for what is no file, or too long."""
    try:
        return store.get(key, MOST_BYTES)
    except NotAFile as error:
        raise FormatError(f"{key} is not a file", error.message, UNREADABLE) from error
