"""What of a URL may be seen: users, passwords, queries, fragments and parameters are secrets, in every spelling.

A URL is taken apart by its delimiters, be they written as they are, percent-encoded once or often, escaped as in JSON,
as HTML entities or in their wide forms; what is shown keeps its spelling.  Where it is not clear how a text is to be
read, rather too much is hidden.  The time that it takes follows the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

HIDDEN = "redacted"

_WIDE = {
    ord(wide): narrow
    for narrow, forms in {
        "#": "\uff03\ufe5f", "/": "\uff0f\u2215\u2044", ":": "\uff1a\ufe55", ";": "\uff1b\ufe54", "=": "\uff1d\ufe66",
        "?": "\uff1f\ufe56", "@": "\uff20\ufe6b", "\\": "\uff3c\ufe68",
    }.items()
    for wide in forms
}  # fmt: skip
_HEX = "23|2[cC]|2[fF]|3[aA]|3[bB]|3[dD]|3[fF]|40|5[cC]"
_NAMES = {"num": "#", "sol": "/", "colon": ":", "semi": ";", "equals": "=", "quest": "?", "commat": "@", "bsol": "\\"}
_CODED = re.compile(
    rf"%(?:25){{0,64}}({_HEX})|\\{{1,8}}(?:u00|x|u\{{)({_HEX})\}}?|&#(?:[xX]0{{0,8}}({_HEX})|0{{0,8}}(35|44|47|58|59|61|63|64|92));?"
    rf"|&({'|'.join(_NAMES)});"
)
_SOMEHOW_CODED = re.compile(rf"[%&]|\\[ux\\]|[{''.join(map(chr, _WIDE))}]")

# What most URLs are: a host and a path with nothing in them that could hide a user, a parameter or another URL.
# Proven equal to the slow way by a property test.
_PLAIN = re.compile(r"https?://[A-Za-z0-9.\-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~+\-/]*)?")
_SUSPECT = re.compile(rf"[/\\:@?#=%&{''.join(map(chr, _WIDE))}]")
_CUT = re.compile(r"[?#]")
_PIECE = re.compile(r"[^/\\]+")
_PLAIN_SCHEME = re.compile(r"\s*(?:https?|ftps?|wss?):", re.IGNORECASE)
_DATA = re.compile(r"(?<![A-Za-z0-9+.\-])data:(?=[^,]{0,200},)", re.IGNORECASE)
_OPAQUE = re.compile(r"\s*(?:about|blob|cid|javascript|magnet|mailto|sip|sms|tag|tel|urn):", re.IGNORECASE)
_PLACE = re.compile(r"(?:(?:\[[0-9A-Fa-f:.%]*\]|[^:\[\],]*)(?::[0-9]{0,5})?[\s)\]}.]*(?:,|$))*")
"""A host, and a port where it names one; HDFS names several."""
_SECRET = re.compile(
    r"(?:token|secret|passwo?r?d|pwd|signature|api[_\-]?key|access[_\-]?key|secret[_\-]?key|sess(?:ion)?id|\bsi[dg]|"
    r"credentials?|jwt|hmac)=",
    re.IGNORECASE,
)
_SECRET_END = re.compile(r"[&;,\s\"'<>]|$")

_WORD = re.compile(r"[^\s\"'<>]+")
_TELLING = re.compile(r"[/\\]{2}|:[/\\]|data:|https?:", re.IGNORECASE)
_UP_TO_USER = re.compile(r"[^\n@]{0,400}@")


class _Range(NamedTuple):
    """Of the text with its delimiters as they are: what is hidden.  bad: it stands where a host should."""

    start: int
    end: int
    bad: bool = False


def redact_query(url: str) -> str:
    """The URL as it may be shown: without its user, its query or fragment, and the parameters of its path."""
    plain = _PLAIN.match(url)
    if plain is not None and (plain.end() == len(url) or url[plain.end()] in "?#"):
        return url[: plain.end() + 1] + HIDDEN if len(url) > plain.end() + 1 else url
    return _redacted_slowly(url)


def _redacted_slowly(url: str) -> str:
    return _hidden(url, bare=True, cut=False)[0]


def redact_value(text: str, most: int) -> str:
    """A cell that may be a URL as it may be shown, at most `most` characters of it; a long one may be torn."""
    seen = text[: 8 * most]
    plain = _plain(seen)[0]
    if len(seen) == len(text) and not _telling(plain) and _CUT.search(plain) is None:
        return seen[:most]
    return _hidden(seen, bare=True, cut=len(text) > len(seen))[0][:most]


def redact_tree(value: object) -> object:
    """Each text of a JSON value as it may be shown; under the key `url` stands one URL, whatever it holds."""
    if isinstance(value, dict):
        return {key: _under(key, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_tree(one) for one in value]
    return redact_text(value) if isinstance(value, str) else value


def _under(key: object, value: object) -> object:
    return redact_query(value) if key in ("url", "final_url") and isinstance(value, str) else redact_tree(value)


def redact_row(text: str, most: int) -> str:
    """A row of a source as it may be shown, at least its first `most` characters; from its first query on it ends."""
    seen = text[: 8 * most]
    return _hidden(seen, bare=False, cut=len(text) > len(seen))[0]


def redact_text(text: str) -> str:
    """A text in which URLs may stand, as it may be shown."""
    if not _telling(text) and _SOMEHOW_CODED.search(text) is None:
        return text
    out: list[str] = []
    at = 0
    while (word := _WORD.search(text, at)) is not None:
        out.append(text[at : word.start()])
        at = word.end()
        if _SUSPECT.search(word[0]) is None or _PLAIN.fullmatch(word[0]) or not _telling(_plain(word[0])[0]):
            out.append(word[0])
            continue
        shown, bad = _hidden(word[0], bare=False, cut=False)
        out.append(shown)
        if bad and (rest := _UP_TO_USER.match(text, at)) is not None:
            at = rest.end() - 1  # a user or a password with a blank or a quote in it
    out.append(text[at:])
    return "".join(out)


def _telling(plain: str) -> bool:
    """It is worth a look."""
    return (
        _TELLING.search(plain) is not None
        or _SECRET.search(plain) is not None
        or 0 <= plain.find(":") < plain.rfind("@")
        or 0 <= plain.find("?") < plain.rfind("=")
        or 0 <= plain.find("@") < max(plain.rfind("/"), plain.rfind("\\"))
    )


def _hidden(text: str, bare: bool, cut: bool) -> tuple[str, bool]:
    """(the text as it may be shown, whether something stood where a host should).

    bare: it is a URL, so that it may begin with its host.  cut: it goes on, but not here.
    """
    plain, places = _plain(text)
    out: list[str] = []
    at, bad = 0, False
    for one in _ranges(plain, bare, cut):
        bad = bad or one.bad
        start, end = (one.start, one.end) if places is None else (places[one.start], places[one.end])
        if start < at or start == end:
            continue
        out += (text[at:start], HIDDEN)
        at = end
    if not out:
        return text, False
    out.append(text[at:])
    return "".join(out), bad


def _plain(text: str) -> tuple[str, list[int] | None]:
    """The text with its delimiters as they are, and where each of its characters began; None: where it stands."""
    if _SOMEHOW_CODED.search(text) is None:
        return text, None
    text = text.translate(_WIDE)
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for found in _CODED.finditer(text):
        parts += (text[at : found.start()], _meant(found))
        places += range(at, found.start() + 1)
        at = found.end()
    if not parts:
        return text, None
    parts.append(text[at:])
    places += range(at, len(text) + 1)
    return "".join(parts), places


def _meant(found: re.Match[str]) -> str:
    number = found[1] or found[2] or found[3]
    if number:
        return chr(int(number, 16))
    return chr(int(found[4])) if found[4] else _NAMES[found[5]]


def _ranges(plain: str, bare: bool, cut: bool) -> Iterator[_Range]:
    """What is to be hidden, in order."""
    if (data := (_DATA.match(plain.lstrip()) if bare else _DATA.search(plain))) is not None:
        start = data.end() + (len(plain) - len(plain.lstrip()) if bare else 0)
        yield from _of_head(plain, start, False, False)
        yield _Range(start, len(plain))
        return
    if bare and (opaque := _OPAQUE.match(plain)) is not None:
        yield _Range(opaque.end(), len(plain))
        return
    query = _query(plain, bare)
    yield from _of_head(plain, query, bare, cut and query == len(plain))
    if query < len(plain):
        yield _Range(query + 1, len(plain))


def _query(plain: str, bare: bool) -> int:
    """Where the query or the fragment begins; a `#` beside no URL is none."""
    if bare:
        found = _CUT.search(plain)
        return found.start() if found else len(plain)
    url = plain.find("//")
    last_secret = max((named.start() for named in _SECRET.finditer(plain)), default=-1)
    for found in _CUT.finditer(plain):
        at = found.start()
        if found[0] == "?" or 0 <= url < at or at < last_secret:
            return at
    return len(plain)


def _of_head(plain: str, end: int, bare: bool, cut: bool) -> Iterator[_Range]:
    """Of what stands before the query: a piece between slashes that is, or may be, a host with its user."""
    last_at = plain.rfind("@", 0, end)
    done, before, first = 0, "", True
    for found in _PIECE.finditer(plain, 0, end):
        start, stop = found.span()
        leading = start >= 2 and not plain[:start].strip("/\\ \t\r\n") if start <= 32 else False
        is_place = leading or before.endswith(":")
        if not bare and start > 1 and plain[start - 2] in "/\\" and last_at >= start:
            is_place = True  # `//user:password@host` within a text
        if first and bare and start == 0 and not (found[0].rstrip().endswith(":") and stop < end):
            is_place = True
            scheme = _PLAIN_SCHEME.match(found[0])
            start += scheme.end() if scheme else 0
        alone = first and stop < end and not found[0].rstrip().endswith(":")  # `token@host/`
        before, first = found[0].rstrip(), False
        if start < done:
            continue
        user = plain.rfind("@", start, stop)
        if user >= 0 and (is_place or alone or ":" in plain[start:user]):
            yield _Range(start, user)
            start = done = user + 1
        if is_place and ((cut and stop == end) or _PLACE.fullmatch(plain, start, stop) is None):
            done = last_at if last_at > stop else stop
            yield _Range(start, done, True)
            continue
        if cut and stop == end and ":" in plain[start:stop]:  # a user that is cut before its host
            start = max(start, *(plain.rfind(mark, start, stop) + 1 for mark in ',\t"'))
            yield _Range(start, stop)
            continue
        yield from _of_piece(plain, start, stop)


def _of_piece(plain: str, start: int, stop: int) -> Iterator[_Range]:
    """Parameters behind a semicolon, and values that are named as secrets are."""
    semicolon = plain.find(";", start, stop)
    if semicolon < 0:
        semicolon = stop
    at = start
    while (named := _SECRET.search(plain, at, semicolon)) is not None:
        found = _SECRET_END.search(plain, named.end(), semicolon)
        at = found.start() if found else semicolon
        yield _Range(named.end(), at)
    if semicolon < stop:
        yield _Range(semicolon + 1, stop)
