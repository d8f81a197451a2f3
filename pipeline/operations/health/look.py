"""Facts gathered at the edges: one look at everything that this host can see, by the same state function as ship."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import FormatError, PipelineError, Stopped
from pipeline.ledger.bodies import NewerFormat
from pipeline.ledger.forgetting import waiting_requests
from pipeline.ledger.layout import Root, seconds_of
from pipeline.ledger.protocol import Context, beats
from pipeline.ledger.state import REPAIR, waits_for
from pipeline.operations.health import this_host
from pipeline.operations.health.backlog import PARTNERS, Waiting, backlog, freshness, most_lagging, waiting_since
from pipeline.operations.health.disagreement import refusals
from pipeline.operations.health.facts import (
    Disk,
    Facts,
    FailingPartner,
    Freshness,
    Heard,
    LakeFacts,
    ServiceTrouble,
    StoreFacts,
)
from pipeline.operations.health.failing import Failing
from pipeline.operations.health.folders import Folders
from pipeline.operations.health.gateways import heard
from pipeline.operations.health.rhythm import joined
from pipeline.operations.health.sources import AtSources, Onlooker
from pipeline.operations.health.stuck import stuck
from pipeline.operations.open_shipments import OpenShipments, open_shipments
from pipeline.process.host import host_name
from pipeline.process.lock import estop_since
from pipeline.process.troubles import troubles as troubles_here
from pipeline.settings import Settings
from pipeline.stages.index import read_index
from pipeline.stages.operator_requests import held
from pipeline.stages.snapshots import takes
from pipeline.stores.store import Lake, Store

HELD = 100
"""Held batches that one look reads."""
REBUILD = "stop the daemons and run `hathi verify --repair`, which rebuilds the index from the manifests"
FOLDERS = 200
"""Delivered folders that one look of a daemon lists, round and round."""


@dataclass
class _Seen:
    """What is remembered of one lake between looks."""

    sources: Onlooker
    folders: dict[str, Folders] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    beats: dict[str, frozenset[str]] = field(default_factory=dict)


class Look:
    """One host's looks; those of a daemon are cheap, since bodies and covered snapshots are remembered.

    expects_lakes: a lake that cannot be seen is trouble here, not just far away.  unopened: by lake, why it could
    not even be opened.  folders: delivered folders that one look lists; None: all of them.  forms: also look whether a
    source's form has changed, which reads the ends of the last day's shipments.  disks: how the local disks are looked
    at.  service: what stands in the way of the service, where there is one; it raises PipelineError.
    """

    def __init__(
        self,
        settings: Settings,
        contexts: Sequence[Context],
        clock: Clock,
        *,
        expects_lakes: bool,
        unopened: Mapping[str, PipelineError] | None = None,
        folders: int | None = FOLDERS,
        forms: bool = True,
        disks: Callable[[Settings], tuple[tuple[Disk, ...], dict[str, str]]] = this_host.disks,
        service: Callable[[], Sequence[ServiceTrouble]] | None = None,
    ) -> None:
        self._service = service
        self._settings = settings
        self._contexts = contexts
        self._clock = clock
        self._expects_lakes = expects_lakes
        self._unopened = unopened or {}
        self._folders = folders
        self._forms = forms
        self._disks = disks
        self._seen = {context.lake_name: _Seen(Onlooker(context)) for context in contexts}

    def __call__(self, first_seen: Callable[[str], float], opened: Mapping[str, OpenShipments] | None = None) -> Facts:
        """Everything, now.  first_seen: when a look first saw a snapshot that no shipment covered.

        opened: by lake, what the caller has read of it already.

        Raises Stopped at a safe point; what a store does not answer is a fact.
        """
        state = Path(self._settings.state)
        running, died = this_host.programs(state)
        stores: list[StoreFacts] = []
        lakes: list[LakeFacts] = []
        disks, unseen = self._disks(self._settings)
        bucket = self._bucket(unseen)
        if bucket is not None:
            stores.append(bucket)
        for context in self._contexts:
            context.safe_point()
            lake, store = self._lake_store(context, unseen)
            if store is not None:
                stores.append(store)
            if bucket is not None and not bucket.trouble:
                try:
                    lakes.append(self._lake(context, lake, first_seen, (opened or {}).get(context.lake_name)))
                except Stopped:
                    raise
                except PipelineError as error:  # it answered a moment ago
                    stores.append(StoreFacts(f"bucket for lake {context.lake_name}", said(error), error.hint))
        return Facts(
            at=self._clock.now(),
            host=host_name(),
            lakes=tuple(lakes),
            stores=tuple(stores),
            disks=disks,
            estop=estop_since(state),
            programs=running,
            died=died,
            troubles=troubles_here(state, self._clock.now()),
            unseen=unseen,
            service=self._of_service(),
        )

    def _of_service(self) -> tuple[ServiceTrouble, ...]:
        if self._service is None:
            return ()
        try:
            return tuple(self._service())
        except PipelineError as error:
            return (ServiceTrouble("database", f"the service cannot be looked at: {said(error)}", error.hint),)

    def _bucket(self, unseen: dict[str, str]) -> StoreFacts | None:
        """The bucket once for all lakes, with what it would forget of each."""
        if not self._contexts:
            return None
        store = self._contexts[0].bucket
        try:
            skew = self._skew(store, self._contexts[0].keys.alive_hints)
            ends = store.credentials_end()
        except PipelineError as error:
            return StoreFacts("bucket", said(error), error.hint)
        forgets: dict[str, str] = {}
        try:
            forgets = {one.lake_name: store.forgets(f"{one.lake_name}/") for one in self._contexts}
        except PipelineError as error:
            unseen["the bucket's own rules"] = said(error)
        return StoreFacts("bucket", "", "", skew, ends, {lake: rule for lake, rule in forgets.items() if rule})

    def _lake_store(self, context: Context, unseen: dict[str, str]) -> tuple[Lake | None, StoreFacts | None]:
        """The lake where it can be seen, and what is known of its server; elsewhere why it is not judged."""
        name = f"lake {context.lake_name}"
        lake = context.lake
        url = self._settings.lakes[context.lake_name].url
        trouble: PipelineError | None = self._unopened.get(context.lake_name)
        if lake is not None:
            try:
                ends = lake.credentials_end()
                skew = self._skew(lake, "_hathi/")
                if lake.stat("") is not None or any(True for _ in lake.list("", folders=True)):
                    return lake, StoreFacts(name, "", "", skew, ends)
                trouble = PipelineError(f"nothing stands at {url}", "", "mount it, or correct the url of the lake")
            except PipelineError as error:
                trouble = error
        if trouble is not None and self._expects_lakes:
            return None, StoreFacts(name, said(trouble), trouble.hint)
        unseen[name] = said(trouble) if trouble is not None else "this program does not open the lake"
        return None, None

    def _skew(self, store: Store, prefix: str) -> float:
        """The store's clock less ours, by a listing of something small."""
        before = self._clock.now()
        theirs = store.list(prefix, folders=True).now
        return theirs - (before + self._clock.now()) / 2

    def _lake(
        self,
        context: Context,
        lake: Lake | None,
        first_seen: Callable[[str], float],
        opened: OpenShipments | None,
    ) -> LakeFacts:
        opened = opened or open_shipments(context)
        hints = opened.hints
        states = [one.state for one in opened.planned]
        open_ = [
            Waiting(state, waiting_since(hints.due[state.name].due, hints.due[state.name].put))
            for state in states
            if waits_for(state) not in ("close", REPAIR)
        ]
        sets = self._settings.sets
        unknown = {one.state.plan.set for one in open_ if one.state.plan and one.state.plan.set not in sets}
        at = AtSources()
        sent: float | None = None
        fresh: list[Freshness] = []
        failing: list[FailingPartner] = []
        troubles: dict[str, PipelineError] = {}
        renewals: dict[str, set[float]] = {}
        if lake is not None:
            at = self._seen[context.lake_name].sources.look(lake, hints.now, forms=self._forms)
            sent, fresh, failing = self._delivered(context, lake, at, hints.now, troubles, renewals)
            for partner, version in at.newest.items():
                renewals.setdefault(partner, set()).add(seconds_of(version))
        unplanned = [max(seconds_of(version), first_seen(key)) for key, version in at.unplanned.items()]
        waits = [(one.since, waits_for(one.state)) for one in open_ if one.state.plan and one.state.plan.set in sets]
        first = min([*waits, *((since, "ship") for since in unplanned)], default=None)
        seen = self._seen[context.lake_name]
        beating = beats(context, hints.now)
        mine = [
            (one.state, one.times) for one in opened.read if one.state.plan is None or one.state.plan.set not in unknown
        ]
        hours = self._settings.health.warning_hours
        return LakeFacts(
            lake=context.lake_name,
            now=hints.now,
            sees_lake=lake is not None,
            backlog=backlog(open_, unplanned),
            not_looked_at=opened.not_read,
            waiting_since=first[0] if first else None,
            waiting_for=first[1] if first else "",
            sent=sent,
            moved=max((state.newest for state in states), default=None),
            retries=len(hints.later),
            next_due=min((seconds_of(hint.due) for hint in hints.later.values()), default=None),
            unreadable=tuple(one for state in states for one in state.unreadable),
            held=_held(context),
            forgets=waiting_requests(context),
            stuck=stuck(context.keys, mine, hints.now, sent, hours, beating.alive),
            unknown_sets=tuple(sorted(unknown)),
            refused_by=refusals(context, {str(state.name): state for state in states}, beating.alive, hints.now),
            missing=tuple(path for root in sorted(seen.folders) for path in seen.folders[root].all_missing),
            folders_checked=sum(folders.checked for folders in seen.folders.values()),
            troubles={**at.troubles, **{where: said(error) for where, error in troubles.items()}},
            remedies={**at.remedies, **{where: error.hint for where, error in troubles.items() if error.hint}},
            refused=at.refused,
            left=at.left,
            later=at.later,
            freshness=most_lagging(fresh),
            renewals={partner: joined((), times) for partner, times in renewals.items()},
            failing=tuple(sorted(failing, key=lambda one: (-one.failed, one.set, int(one.partner)))[:PARTNERS]),
            unplanned=tuple(sorted(at.unplanned)),
            alive=tuple(sorted(beating.alive)),
            gateway={stage: Heard(last) for stage, last in heard(context, seen.beats).items()},
            estop=beating.estop,
        )

    def _delivered(
        self,
        context: Context,
        lake: Lake,
        at: AtSources,
        now: float,
        troubles: dict[str, PipelineError],
        renewals: dict[str, set[float]],
    ) -> tuple[float | None, list[Freshness], list[FailingPartner]]:
        """When something was last entered into an index, how fresh each partner is, of whose images too many failed;
        folders are looked at."""
        times: list[float] = []
        fresh: list[Freshness] = []
        failing: list[FailingPartner] = []
        limits = self._settings.health
        seen = self._seen[context.lake_name]
        for name, root in _roots(context):
            folders = seen.folders.setdefault(root.root, Folders(root.root))
            try:
                index = read_index(lake, root)
                for one in index.deliveries:
                    renewals.setdefault(str(one.partner_id), set()).add(seconds_of(one.jobTimeStamp))
                times += [seconds_of(one.delivered) for one in index.deliveries if one.delivered]
                fresh += freshness(name, index, at.newest, now)
                folders.look(lake, index, self._folders, context.safe_point)
                failed = seen.failing.setdefault(root.root, Failing())
                failing += failed.look(lake, root, name, index, now, limits, troubles, context.safe_point)
            except Stopped:
                raise
            except (PipelineError, ValueError) as error:  # ValueError: a jobTimeStamp that is none
                troubles[root.index] = _of_the_index(error)
        return max(times, default=None), fresh, failing


def _of_the_index(error: PipelineError | ValueError) -> PipelineError:
    """Why an index cannot be read: a damaged one can be rebuilt, a server's trouble has a remedy of its own."""
    if not isinstance(error, PipelineError):
        return PipelineError("the index cannot be read", str(error), REBUILD)
    damaged = isinstance(error, FormatError) and not isinstance(error, NewerFormat)
    return PipelineError("the index cannot be read", said(error), REBUILD if damaged else error.hint)


def _roots(context: Context) -> Iterator[tuple[str, Root]]:
    """Set and target root, of the sets that serve a lake."""
    for name, one in sorted(context.settings.sets.items()):
        if takes(one, context.lake_name):
            yield name, Root(one.folder)


def _held(context: Context) -> tuple[str, ...]:
    """Held batches that nobody has answered; of very many the first ones."""
    return tuple(f"{one.name}.{one.batch}" for one in islice(held(context), HELD) if not one.answered)


def said(error: PipelineError) -> str:
    return f"{error.message} ({error.detail})" if error.detail else error.message
