"""Stories of items: what `hathi why` answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from pipeline.ledger.protocol import Context
from pipeline.operations.why import Question, Story, items_of_url, question_of, story
from pipeline.process.redaction import redact_query, redact_text


@dataclass(frozen=True)
class Asked:
    """Whose story is told: an item of a partner, or the items whose image a URL is.

    partner: None only with a URL, for any partner.  item: an item id as an unsigned decimal, or an external id.
    """

    partner: int | None
    item: str | None = None
    url: str | None = None


def stories(contexts: Iterable[Context], asked: Asked) -> list[Story]:
    """A story for each lake and item, also where nothing is known; of a URL that nobody shipped none."""
    found = [story(context, question) for context in contexts for question in _questions(context, asked)]
    if asked.url and len(found) > 1:  # the reading of the URL as an id is a guess; others were found
        found = [one for one in found if one.chapters or one.rejected] or found[:1]
    return found


def _questions(context: Context, asked: Asked) -> Iterator[Question]:
    if asked.item is not None and asked.partner is not None:
        sources = context.settings.lakes[context.lake_name].sources
        yield question_of(asked.partner, asked.item, as_written=any(one.ids == "as_written" for one in sources))
    elif asked.url is not None:
        yield from items_of_url(context, asked.url, asked.partner)


def as_tree(told: Story) -> dict[str, Any]:
    """A story for programs.  Keys are only ever added."""
    body = asdict(told)
    body["items"] = {str(item): how for item, how in told.items.items()}
    body["consumers_see"] = [asdict(one) for one in told.consumers_see()]
    return body


def without_secrets(value: Any) -> Any:
    """The same with the secrets of URLs hidden, at any depth; an external id can be a URL, too."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list | tuple):
        return type(value)(map(without_secrets, value))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed: dict[str, Any] = {one.name: without_secrets(getattr(value, one.name)) for one in fields(value)}
    url = getattr(value, "url", "")
    if isinstance(url, str) and url:
        changed["url"] = redact_query(url)
        if getattr(value, "external_id", None) == url:
            changed["external_id"] = changed["url"]
    return replace(value, **changed)
