"""Where the fields of a protobuf text stand: enough of its grammar to leave one out and keep all others in place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(r"#[^\n]*|\s+|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|(?P<mark>[{}<>\[\]:;,])"
                    r"|(?P<word>[^\s{}<>\[\]:;,\"'#]+)", re.DOTALL)  # fmt: skip
_DEEPEST = 64
_CLOSED_BY = {"{": "}", "<": ">"}


@dataclass
class Field:
    """A field with its value, from `begin` to before `end`; `inner`: the fields of its messages."""

    name: str
    begin: int
    end: int = 0
    inner: list[Field] = field(default_factory=list)

    def at(self, place: int) -> list[Field]:
        """This field and those within it that hold the place, the outermost first."""
        if not self.begin <= place < self.end:
            return []
        return [self, *next((found for one in self.inner if (found := one.at(place))), [])]


def fields_of(text: str) -> list[Field] | None:
    """The fields of a text, outermost ones, in order; None where it is not made of fields."""
    tokens = list(_tokens(text))
    if tokens and tokens[-1][0] == "broken":
        return None
    try:
        found, at = _fields(tokens, 0, "", 0)
    except (IndexError, ValueError):
        return None
    return found if at == len(tokens) else None


def without(text: str, left_out: Sequence[Field]) -> str:
    """The text with blanks for those fields: whatever else it says stands at its line and column."""
    for one in left_out:
        gap = re.sub(r"[^\n]", " ", text[one.begin : one.end])
        text = text[: one.begin] + gap + text[one.end :]
    return text


_Token = tuple[str, str, int, int]


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            yield "broken", "", at, at
            return
        if token.lastgroup:
            yield token.lastgroup, token[0], token.start(), token.end()
        at = token.end()


def _fields(tokens: Sequence[_Token], at: int, closed_by: str, depth: int) -> tuple[list[Field], int]:
    """Up to the mark that closes the message, or the end; raises ValueError where there is no field."""
    if depth > _DEEPEST:
        raise ValueError("too deep")
    found: list[Field] = []
    while at < len(tokens) and tokens[at][1] != closed_by:
        kind, name, begin, _ = tokens[at]
        if kind != "word":
            raise ValueError("no name")
        one = Field(name, begin)
        at = _value(tokens, at + 1, one, depth)
        one.end = tokens[at - 1][3]
        if at < len(tokens) and tokens[at][1] in (",", ";"):
            at += 1
        found.append(one)
    return found, at


def _value(tokens: Sequence[_Token], at: int, one: Field, depth: int) -> int:
    at += tokens[at][1] == ":"
    kind, text, _, _ = tokens[at]
    if text in _CLOSED_BY:
        inner, at = _fields(tokens, at + 1, _CLOSED_BY[text], depth + 1)
        one.inner += inner
        tokens[at]  # what closes it must be there
        return at + 1
    if text == "[":
        at += 1
        while tokens[at][1] != "]":
            at = at + 1 if tokens[at][1] == "," else _value(tokens, at, one, depth + 1)
        return at + 1
    if kind == "mark":
        raise ValueError("no value")
    at += 1
    while kind == "string" and at < len(tokens) and tokens[at][0] == "string":  # neighbours are joined
        at += 1
    return at
