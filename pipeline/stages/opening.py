"""A batch that is opened: it is claimed, its refs are read, and its attempt ends in order (docs/protocol.md 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.codec.reuse_pages import Remembered
from pipeline.errors import FormatError, LawBroken, NotFound, PipelineError
from pipeline.extraction.packing import Pack
from pipeline.ledger import protocol
from pipeline.ledger.data import Damaged, load_data
from pipeline.ledger.layout import ShipmentName, Task
from pipeline.ledger.manifest import AttemptEnd, Batch
from pipeline.ledger.protocol import Context, body_at, claim, law, readable
from pipeline.ledger.state import Counted
from pipeline.records import ImageRef
from pipeline.stages.archived_images import Images
from pipeline.stages.following import Asked
from pipeline.stages.remembering import Reuse

ORDINALS_PER_BATCH = 1 << 20
"""A ref's ordinal in its shipment is its batch times this plus its place: it sorts, and needs no earlier batch."""

TELL_SECONDS = 0.5
"""So often images that ended are told of."""


@dataclass(frozen=True)
class BatchTask:
    """One batch to compute, or to hold."""

    name: ShipmentName
    batch: int
    set: str
    fingerprint: str
    number: int
    """Of the attempt."""
    mode: str
    """open: in the window with others; alone: in a child process; hold: it is given up."""
    counted: Counted
    asked: Asked | None = None
    """What it is computed with; None: the set and the files that it names."""
    kind: str = "source"
    """Of its shipment's plan."""
    from_archive: bool = False
    """Images that the archive has are not fetched, as the plan says."""

    @property
    def by(self) -> Asked:
        return self.asked or Asked(self.set)

    @property
    def task(self) -> Task:
        return Task.batch(self.fingerprint, self.batch)


@dataclass
class Begun:
    """A batch that was opened, and what it has to do with the archive."""

    refs: int = 0
    images: Images | None = None
    pack: Pack | None = None

    def dropped(self) -> None:
        if self.pack is not None:
            self.pack.drop()


def known(context: Context, task: BatchTask) -> bool:
    """Whether the batch's body can be read; a broken one is named, and waits."""
    return readable(context, context.keys.batch(task.name, task.batch), Batch) is not None


def claimed(context: Context, task: BatchTask) -> bool:
    """Whether the attempt is ours; what stands in its place and is none is named, and the batch waits."""
    try:
        return known(context, task) and claim(context, task.name, task.task, task.number, alone=task.mode == "alone")
    except FormatError as error:
        context.once(f"{task.name} {task.batch} claim", str(error))
        return False


def refs_of(context: Context, task: BatchTask) -> list[ImageRef] | None:
    """The refs of a claimed batch; None when its data is damaged, which is a strike."""
    body = body_at(context, context.keys.batch(task.name, task.batch), Batch)
    try:
        content = load_data(context, body.data)
        refs = context.forms.decode(content, task.batch * ORDINALS_PER_BATCH)
        law(f"{task.name} batch {task.batch}", body.refs, read=len(refs))
        return refs
    except (Damaged, NotFound, FormatError, LawBroken) as error:
        context.once(f"{task.name} {task.batch}", f"Alert: {error}")
        give_up(context, task, AttemptEnd(kind="strike", cause="its refs are damaged"))
        return None


def before(context: Context, reuse: Reuse, task: BatchTask, refs: Sequence[ImageRef]) -> dict[int, Remembered]:
    """What was computed before of a batch's refs.

    Nobody looks for what is tried again, since it failed, nor for what a person ships again or computes anew.
    """
    if not context.settings.sets[task.set].reuse:
        return {}
    return reuse.opened(task.name, task.batch, refs, look=task.kind == "source")


def with_images(refs: Sequence[ImageRef], images: Images | None) -> list[ImageRef]:
    """Refs for a child process, which asks no archive: those whose image is there take it with them."""
    found = ((ref, images.take(place) if images is not None else None) for place, ref in enumerate(refs))
    return [ref if image is None else ref._replace(content=image[0]) for ref, image in found]


def abandon(context: Context, task: BatchTask) -> None:
    give_up(context, task, AttemptEnd(kind="abandoned", cause="the run was stopped"))


def give_up(context: Context, task: BatchTask, end: AttemptEnd) -> None:
    """Best effort: an attempt whose end cannot be written just counts as lost."""
    try:
        protocol.give_up(context, task.name, task.task, task.number, end)
    except PipelineError as error:
        context.say(
            f"This process could not say that it ends its work on batch {task.batch} of {task.name}: {error}; "
            "other processes take the batch once this one counts as gone"
        )


class Ended:
    """Tells of images as they end, some at a time: a word for each would cost more than a small net's pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._number = 0
        self._at = context.process.clock.monotonic()

    def __call__(self) -> None:
        self._number += 1
        if self._context.process.clock.monotonic() >= self._at + TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Now, before a batch of them is published: whoever counts them counts each once."""
        if self._number:
            self._context.progress("compute", self._number, 0)
        self._number, self._at = 0, self._context.process.clock.monotonic()
