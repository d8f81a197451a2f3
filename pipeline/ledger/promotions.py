"""The documents of promotions: which files a model's name stands for, since when, by whom and why.

A promotion is a number of a model (docs/protocol.md 16).  It is written once and never modified: the newest one is in
use, and the way back is a newer one with the files of an older.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipeline.amounts import counted
from pipeline.errors import IGNORED, FormatError, NotFound
from pipeline.ledger.bodies import Body, Part
from pipeline.ledger.layout import digest, number_of
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.protocol import Context, body_at, commit
from pipeline.ledger.values import MAX_PROMOTION, Count, Delivered, Digest, Inside, ModelName, Stamp

Role = Literal["net", "weights", "mean", "preprocessor", "beside"]
"""What a file is to its model.  preprocessor: the preprocessor_config.json of an ONNX model; beside: a file that holds
weights of an ONNX model."""


class PromotedFile(Part):
    """A file of a model.  name: where it lies in the model's folder; key: where the bucket has it."""

    role: Role
    name: Delivered
    key: Inside
    size: Count
    sha256: Digest


class Promotion(Body):
    """`m/<model>/<number>`: from here on the model's name stands for these files."""

    model: ModelName
    files: tuple[PromotedFile, ...]
    figures: dict[str, float] = Field(default={})
    """How good it is, by the name of the figure: what a later promotion is compared with."""
    by: str
    at: Stamp
    why: str = ""
    job: str = ""
    """The training that it comes from; "" where its files were given by hand."""
    data: dict[str, str] = Field(default={})
    """What it was trained on: by path or name, a digest."""
    again: Annotated[int, Field(ge=1, le=MAX_PROMOTION)] | None = None
    """The older promotion whose files these are: the way back."""
    labels: tuple[str, ...] = ()
    """A name for each class, in the net's order; () where nobody said them."""
    request: str = ""
    """Who asked for it by a name of its own, which comes once: whoever asks again finds this promotion by it."""

    def flaw(self) -> str:
        names = [one.name for one in self.files]
        if len(set(names)) != len(names):
            return "a file's name stands there twice"
        nets, weights = ([one for one in self.files if one.role == role] for role in ("net", "weights"))
        if len(nets) != 1 or len(weights) > 1:
            return f"it has {counted(len(nets), 'net')} and {counted(len(weights), 'file')} of weights"
        return ""

    @property
    def digest(self) -> str:
        """Which model it is: of its files' content, whoever promoted it, when and wherever they lie."""
        return digest(sorted([one.role, one.name, one.sha256] for one in self.files))


def models(context: Context) -> Iterator[str]:
    """Names of the models that were ever promoted."""
    for entry in context.bucket.list(context.keys.models, folders=True):
        yield entry.key.removeprefix(context.keys.models).rstrip("/")


def numbers(context: Context, model: str) -> tuple[list[int], float]:
    """The numbers of its promotions, oldest first, and the store's time.  One list."""
    prefix = context.keys.promotions(model)
    listing = context.bucket.list(prefix)
    found = []
    for entry in listing:
        number = number_of(entry.key.removeprefix(prefix), 10)
        if number and entry.key == context.keys.promotion(model, number):
            found.append(number)
        else:
            context.once(entry.key, f"{entry.key} is not the key of a promotion; {IGNORED}")
    return found, listing.now


def newest(context: Context, model: str) -> Promoted | None:
    """The promotion in use; None where the model was never promoted."""
    found, _ = numbers(context, model)
    return Promoted(model=model, number=found[-1]) if found else None


def read(context: Context, promoted: Promoted) -> Promotion:
    """One promotion.  Raises NotFound; FormatError where it cannot be read here, or is of another model."""
    key = context.keys.promotion(promoted.model, promoted.number)
    try:
        found = body_at(context, key, Promotion)
    except NotFound as error:
        hint = f"`hathi models {promoted.model}` names those that there are"
        raise NotFound(f"there is no promotion {promoted}", error.message, hint) from error
    if found.model != promoted.model:
        raise FormatError(f"{key} is not a promotion of {promoted.model}", f"it is of {found.model}", IGNORED)
    return found


def write(context: Context, number: int, body: Promotion) -> tuple[bool, Promotion]:
    """put_new with read-back: whether we won, and what stands there now.  Its files are there before."""
    return commit(context, context.keys.promotion(body.model, number), body)
