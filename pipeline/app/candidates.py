"""What can be promoted: files by hand, the result of a training, or an older promotion."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from pipeline.amounts import counted
from pipeline.app.trainings import Training
from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger import promotions
from pipeline.ledger.data import download
from pipeline.ledger.layout import MANIFEST
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.model_files import folder_of
from pipeline.ledger.promotions import PromotedFile, Role
from pipeline.ledger.protocol import Context, scratch
from pipeline.ledger.trainings import JobFile
from pipeline.settings import FeatureSet
from pipeline.settings.preprocessing import FROM_FILE
from pipeline.training.retention import rows_of

NETS = (".prototxt", ".onnx")
MEANS = (".binaryproto", ".npy")
_TEST = "test/"


@dataclass(frozen=True)
class Piece:
    """A file of a model as it lies on this host.  stored: where a promotion has it already."""

    role: Role
    name: str
    path: Path
    size: int
    sha256: str
    stored: PromotedFile | None = None


@dataclass(frozen=True)
class Candidate:
    """A model that could be put into use.  figures: those that come with it."""

    pieces: tuple[Piece, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    job: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    again: Promoted | None = None
    labels: tuple[str, ...] = ()

    def configured(self, one: FeatureSet) -> FeatureSet:
        """A set that follows the model, with these files."""
        found = {piece.role: str(piece.path) for piece in self.pieces}
        changes: dict[str, object] = {"model": None, "net": found["net"], "weights": found.get("weights")}
        if "mean" in found:
            changes["preprocess"] = one.preprocess.model_copy(update={"mean": found["mean"]})
        return one.model_copy(update=changes)


@dataclass(frozen=True)
class Files:
    """Of a model, as a person names them."""

    net: Path | None = None
    weights: Path | None = None
    mean: Path | None = None


def of_files(given: Files) -> Candidate:
    """Raises ConfigError for a file that is missing or of another kind."""
    return Candidate(tuple(_pieces(given)))


def data_of(names: Iterable[str]) -> dict[str, str]:
    """What a model was trained on, as a person names it; of a dataset's folder the SHA-256 of its manifest."""
    return {name: _digest(Path(name) / MANIFEST) for name in names}


def _digest(path: Path) -> str:
    return _piece("beside", path.name, path).sha256 if path.is_file() else ""


def same_as_before(piece: Piece) -> bool:
    """Whether the file still holds what was looked at."""
    return _piece(piece.role, piece.name, piece.path).sha256 == piece.sha256


def _pieces(given: Files) -> Iterator[Piece]:
    net, weights, mean = given.net, given.weights, given.mean
    if net is None or net.suffix not in NETS:
        raise ConfigError(f"{net} is no net", f"nets end in {' or '.join(NETS)}", "name a deploy .prototxt or an .onnx")
    yield _piece("net", f"net{net.suffix}", net)
    if net.suffix == ".onnx":
        if weights is not None:
            raise ConfigError(f"the model {net} takes no weights", str(weights), "an .onnx model holds its own weights")
        if (told := net.parent / FROM_FILE).is_file():
            yield _piece("preprocessor", FROM_FILE, told)
        from pipeline.nets.onnx.source import OnnxSource

        for location, path in OnnxSource(net).beside().items():
            if location in (f"net{net.suffix}", FROM_FILE) or not _storable(location):
                hint = "export the model anew: with its weights within, or in files of plain names"
                raise ConfigError(
                    f"the model {net} has weights in a file of a name that cannot be kept", location, hint
                )
            yield _piece("beside", location, path)
    elif weights is not None:
        yield _piece("weights", "weights.caffemodel" + (".h5" if weights.suffix == ".h5" else ""), weights)
    if mean is not None:
        if mean.suffix not in MEANS:
            raise ConfigError(
                f"{mean} is no mean", f"means end in {' or '.join(MEANS)}", "hathi dataset mean makes one"
            )
        yield _piece("mean", f"mean{mean.suffix}", mean)


def _piece(role: Role, name: str, path: Path, stored: PromotedFile | None = None) -> Piece:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return Piece(role, name, path.resolve(), path.stat().st_size, found, stored)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "give the path of a file") from error


def _storable(name: str) -> bool:
    try:
        PromotedFile(role="beside", name=name, key="x", size=0, sha256="0" * 64)
    except ValueError:
        return False
    return True


def of_promotion(context: Context, promoted: Promoted) -> Candidate:
    """The way back.  Raises NotFound where there is no such promotion, or its files are lost."""
    body = promotions.read(context, promoted)
    folder = folder_of(context, body, set())
    pieces = tuple(_piece(one.role, one.name, folder / one.name, one) for one in body.files)
    return Candidate(pieces, dict(body.figures), body.job, dict(body.data), promoted, body.labels)


@contextlib.contextmanager
def of_training(one: Training, given: Files) -> Iterator[Candidate]:
    """The result of a training, its files on this host for as long as it takes.

    given: the net that serves and the mean, where they are not those of the training.
    Raises PermanentError where it has no result.
    """
    out, spec = one.job.out, one.job.spec
    if out is None or out.kind != "model" or spec is None:
        hint = "promote it once it has finished, or promote a snapshot's files: --net FILE --weights FILE"
        raise PermanentError(f"{one.name} has no model: it is {one.word}", one.why, hint)
    with scratch(one.context) as folder:
        weights = folder / _weights_of(one, out.files).name
        download(one.context, _weights_of(one, out.files), weights)
        net = given.net or _net_of(spec.solver, folder)
        pieces = tuple(_pieces(Files(net, weights, given.mean)))
        yield Candidate(pieces, _figures(one), one.name, dict(spec.data))


def _weights_of(one: Training, files: tuple[JobFile, ...]) -> JobFile:
    found = [file for file in files if file.name.endswith((".caffemodel", ".caffemodel.h5"))]
    if len(found) != 1:
        names = ", ".join(file.name for file in files)
        raise PermanentError(
            f"{one.name} has {counted(len(found), 'file')} of weights", names, "name one with --net and --weights"
        )
    return found[0]


def _net_of(solver: str, folder: Path) -> Path:
    """The training's own net; whether it can serve is seen when it is loaded."""
    read = text_format.Parse(solver, caffe_pb2.SolverParameter())
    net = read.net_param if read.HasField("net_param") else read.train_net_param
    path = folder / "net.prototxt"
    path.write_text(text_format.MessageToString(net))
    return path


def _figures(one: Training) -> dict[str, float]:
    """Those of the training's test of its last weights."""
    out = one.job.out
    rows = [row for row in rows_of(one.job) if out and row.get("kind") == "test" and row["step"] == out.iteration]
    found: dict[str, float] = {}
    for row in rows:
        for name, value in row.get("values", {}).items():
            if name.startswith(_TEST) and isinstance(value, int | float):
                found[name.removeprefix(_TEST)] = float(value)
    return found
