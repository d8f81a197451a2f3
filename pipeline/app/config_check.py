"""What would not work on this host, before anything is begun: what the stages demand, and what is odd without that.

It reads, and writes nothing: no folder is made, no file, no object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.app.config_diff import MUST_MATCH
from pipeline.app.demands import demands
from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.process.lock import estop_since
from pipeline.settings import Settings, reading
from pipeline.settings.places import folder_of
from pipeline.stage_names import ON_THE_BOX, ON_THE_LAKE, SHIP
from pipeline.stages.expectations import expectation

LEFT_OUT = 10
"""Paths of a source that are not read, of those that a check names."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` has to say of one setting."""

    level: Literal["ok", "warning", "error"]
    key: str
    text: str


def check(settings: Settings, stages: Sequence[str], *, costly: bool = True) -> Iterator[Finding]:
    """Everything that can be known before work.  costly: also what asks a server or loads a net."""
    broken: set[str] = set()
    for one in demands(settings, stages):
        if (one.costly and not costly) or one.key in broken or f"{one.key}.url" in broken:
            continue
        try:
            yield Finding("ok", one.key, one.meet())
        except PipelineError as error:
            broken.add(one.key)
            yield Finding("error", one.key, str(error))
    yield from _odd(settings)
    for name in sorted(settings.lakes) if SHIP in stages else ():
        if f"lakes.{name}.url" not in broken and f"lakes.{name}" not in broken:
            yield from _sources(settings, name)
    if not (set(ON_THE_LAKE) & set(stages) and set(ON_THE_BOX) & set(stages)):
        yield from _matching(settings)


def _odd(settings: Settings) -> Iterator[Finding]:
    """What works, and that somebody may regret."""
    fetch = settings.fetch
    if (since := estop_since(Path(settings.state))) is not None and since:
        yield Finding("warning", "state", f"ESTOP stands in {settings.state}: nothing starts before it is removed")
    if not settings.sets:
        yield Finding("warning", "sets", "no feature set is configured: there is nothing to compute")
    for name, one in settings.sets.items():
        if not (settings.lakes if one.lakes is None else one.lakes):
            yield Finding("warning", f"sets.{name}.lakes", "no lake: nothing is ever shipped for this set")
    if fetch.allow_private:
        yield Finding("warning", "fetch.allow_private", "true: URLs may reach this host and its private networks")
    if fetch.allow_downgrade:
        yield Finding("warning", "fetch.allow_downgrade", "on: redirects from https to http are followed")
    if fetch.contact == type(fetch).model_fields["contact"].default:
        yield Finding("warning", "fetch.contact", "not set: the owner of a host cannot ask you before blocking Hathi")
    if not settings.logs.redact_queries:
        yield Finding("warning", "logs.redact_queries", "false: logs and reports show signed URLs, which are secrets")
    file = settings.metrics.file
    if file is not None and not file.endswith(".prom"):
        yield Finding("warning", "metrics.file", f"{file} does not end in .prom: the node exporter ignores it")


def _sources(settings: Settings, name: str) -> Iterator[Finding]:
    """What ship would find in a folder lake, and what it would leave out."""
    from pipeline.sources.conventions import Sources  # the readers of tables take their time to import
    from pipeline.stores.local import LocalStore

    lake = settings.lakes[name]
    if not lake.sources:
        yield Finding("warning", f"lakes.{name}.sources", "no source: nothing is shipped from this lake")
    folder = folder_of(settings.url_of(name))
    if folder is None:
        return
    store = LocalStore(folder, fsync=False, links=lake.follow_links)
    for number, source in enumerate(lake.sources):
        key = f"lakes.{name}.sources.{number}.path"
        named = Sources(store, [source], settings.delivered(name), settings.url_of(name)).look(Clock().now())
        for why in named.troubles.values():
            yield Finding("error", key, why)
        for path, why in list(named.left.first.items())[:LEFT_OUT]:
            yield Finding("warning", key, f"not read: {path}: {why}")
        if named.left.number > LEFT_OUT:
            yield Finding("warning", key, f"not read: {named.left.number - LEFT_OUT:,} more files or folders")


def _matching(settings: Settings) -> Iterator[Finding]:
    """What another host has to have as well, since this one runs a half of the pipeline."""
    for key, what in MUST_MATCH.items():
        yield Finding("ok", key, f"has to match between gateway and boxes: {what}")
    for name, one in sorted(settings.sets.items()):
        fingerprint = expectation(one).fingerprint
        text = f"fingerprint {fingerprint[:12]}" if fingerprint else "no fingerprint: the net's files are not here"
        text = text if one.model is None else f"it follows the model {one.model}"
        yield Finding("ok", f"sets.{name}", f"{text}; hathi config diff compares two files")


def unread_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """HATHI_ variables that name no setting; those with sections were refused when the settings were read."""
    known = {reading.PREFIX + name.upper() for name in Settings.model_fields} | {"HATHI_CONFIG"}
    for name in sorted(environ):
        if name.startswith(reading.PREFIX) and reading.DELIMITER not in name and name not in known:
            yield Finding("warning", name, "this variable names no setting")
