"""Nearest items: what `hathi similar` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.analysis.similar.catalogue import About, Catalogue, sources_of
from pipeline.analysis.similar.images import feature_of, fetched
from pipeline.analysis.similar.indexed import approximate
from pipeline.analysis.similar.measures import Metric
from pipeline.analysis.similar.nearest import Found, Query, exact
from pipeline.app.contexts import loadable
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.layout import Root
from pipeline.operations.forget.made import SIMILAR
from pipeline.operations.why.story import question_of
from pipeline.process.redaction import redact_query, redact_text
from pipeline.settings import Settings
from pipeline.stages.snapshots import takes
from pipeline.stores.opening import open_lake
from pipeline.stores.store import Lake


@dataclass(frozen=True)
class Wanted:
    """Whose neighbours, among the items of which partner.

    One of: item, an item id (unsigned decimal) or an external id; image, a file; url, an image on the web.
    """

    partner: int
    item: str | None = None
    image: Path | None = None
    url: str | None = None
    metric: Metric = "l2"
    count: int = 10


@dataclass(frozen=True)
class Place:
    """Where features are looked for."""

    set: str
    lake_name: str
    lake: Lake
    root: Root


@dataclass(frozen=True)
class Similar:
    """The nearest items.

    label, url: of what was asked for, in words and where its image is.  content: that image's bytes, where they are
    known already.  about: by place of `found.nearest`.
    """

    wanted: Wanted
    label: str
    url: str
    content: bytes | None
    found: Found
    about: tuple[About, ...]


def place_of(settings: Settings, set_name: str | None, lake_name: str | None) -> Place:
    """The only set and lake, or those that are named.  Raises ConfigError where that does not say which."""
    name = _one_of("set", set_name, sorted(settings.sets))
    one = settings.sets[name]
    lake = _one_of("lake", lake_name, sorted(lake for lake in settings.lakes if takes(one, lake)))
    return Place(name, lake, open_lake(settings, lake), Root(one.folder))


def _one_of(what: str, given: str | None, known: Sequence[str]) -> str:
    if given is None and len(known) == 1:
        return known[0]
    if given is None or given not in known:
        said = f"no {what} {given}" if given else f"which {what}?"
        raise ConfigError(said, "", f"--{what}: {', '.join(known) or 'none is configured'}")
    return given


def similar(settings: Settings, place: Place, wanted: Wanted, *, by_index: bool = False) -> Similar:
    """The nearest items, by the newest feature of each.  by_index: ask an index, built the first time and kept.

    Raises PermanentError where nothing can be compared, ConfigError for what is no image.
    """
    catalogue = Catalogue(place.lake, sources_of(place.lake, place.root, wanted.partner))
    query, label, url, content = _query(settings, place, catalogue, wanted)
    found = approximate(catalogue, query, Path(settings.state) / SIMILAR) if by_index else exact(catalogue, query)
    if not found.compared and found.left_out:
        what = f"other nets made the features of {counted(found.left_out, 'item')} of partner {wanted.partner}"
        raise PermanentError("nothing can be compared", what, "hathi backfill, or the set that they were made with")
    about = catalogue.about([one.row for one in found.nearest])
    return Similar(wanted, label, url, content, found, tuple(about))


def _query(
    settings: Settings, place: Place, catalogue: Catalogue, wanted: Wanted
) -> tuple[Query, str, str, bytes | None]:
    """What is asked of the catalogue; its label, URL and bytes."""
    if wanted.item is not None:
        item, row = _row_of(catalogue, wanted.partner, wanted.item)
        matrix, prints = catalogue.features([row])
        (about,) = catalogue.about([row])
        label = f"{about.external_id} (item {item})" if about.external_id else f"item {item}"
        return Query(matrix[0], prints[0], wanted.metric, wanted.count, item), label, about.url, None
    content, label = _image_of(settings, wanted)
    mine = loadable(settings, place.set, place.lake_name, "similar")
    vector, fingerprint = feature_of(mine, place.set, content, label)
    return Query(vector, fingerprint, wanted.metric, wanted.count), label, "", content


def _image_of(settings: Settings, wanted: Wanted) -> tuple[bytes, str]:
    if wanted.image is not None:
        try:
            return wanted.image.read_bytes(), str(wanted.image)
        except OSError as error:
            why = error.strerror or ""
            raise ConfigError(f"the image {wanted.image} cannot be read", why, "check --image") from error
    assert wanted.url is not None
    got = fetched(settings, [wanted.url])[wanted.url]
    if isinstance(got, str):
        raise ConfigError("the image could not be fetched", got, "hathi fetch URL tells more")
    return got, redact_query(wanted.url)


def _row_of(catalogue: Catalogue, partner: int, text: str) -> tuple[int, int]:
    for item in question_of(partner, text, as_written=True).items:
        row = catalogue.row_of(item)
        if row is not None:
            return item, row
    raise PermanentError(f"no feature of item {text}", f"partner {partner}", f"hathi why {partner} {text} tells why")


def as_tree(one: Similar, *, redact_queries: bool) -> dict[str, Any]:
    """For programs.  Keys are only ever added."""
    near = [
        {
            "item_id": str(near.item_id),
            "distance": near.distance,
            "external_id": redact_text(known.external_id) if redact_queries else known.external_id,
            "url": redact_query(known.url) if redact_queries else known.url,
        }
        for near, known in zip(one.found.nearest, one.about, strict=True)
    ]
    return {
        "partner": one.wanted.partner,
        "asked": redact_text(one.label) if redact_queries else one.label,
        "metric": one.wanted.metric,
        "compared": one.found.compared,
        "left_out": one.found.left_out,
        "nearest": near,
    }
