"""Look at a net, check it, measure it, write it as ONNX, or compute features of a few images."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli.wiring import given_set, set_options
from pipeline.cli.wiring.given_set import Given
from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError, NetError
from pipeline.settings import HOG

if TYPE_CHECKING:
    from pipeline.nets.inspection import LayerRow
    from pipeline.nets.net import Net
    from pipeline.settings import FeatureSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi net show|check|bench|export|features NET [WEIGHTS] ...`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    net = argparse.ArgumentParser(add_help=False)
    net.add_argument("net", metavar="NET", help="a .prototxt, an .onnx model, or hog")
    net.add_argument("weights", nargs="?", metavar="WEIGHTS", help="the .caffemodel of a .prototxt")
    net.add_argument(
        "--blob",
        action="append",
        default=[],
        metavar="NAME",
        help="the blobs to look at (default: the outputs of the net)",
    )
    set_options.add_arguments(net)
    net.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help=f"a setting of the feature set: {set_options.FORMS}")  # fmt: skip
    net.add_argument("--config", type=Path, help="a configuration with presets of your own ([preprocess.NAME])")
    net.add_argument("--phase", default="TEST", choices=("TEST", "TRAIN"))
    net.add_argument("--stage", action="append", default=[], metavar="NAME", help="for include and exclude rules")
    net.add_argument("--level", type=int, default=0, help="for include and exclude rules")
    net.add_argument(
        "--engine", default="auto", help=("what runs the net (default: auto, the fastest that is installed)")
    )
    net.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    net.add_argument("--threads", type=number_from(0), default=0, help="cores to use (default: 0: all)")
    show = actions.add_parser(
        "show",
        parents=[net],
        help=("show layers, shapes, parameters and multiply-adds, and which layers the blobs need"),
    )
    show.add_argument("--json", action="store_true", help="print one JSON object")
    check = actions.add_parser("check", parents=[net], help="run the net once and name what looks wrong")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    bench = actions.add_parser(
        "bench", parents=[net], help=("measure images per second by engine, precision and batch size")
    )
    bench.add_argument(
        "--batch", type=number_from(1), action="append", default=[], metavar="N", help="default: 1 and 32"
    )
    bench.add_argument("--rounds", type=number_from(1), default=5, help="passes of each; their median is shown")
    bench.add_argument("--engines", default="", help="comma-separated; default: all that are installed")
    bench.add_argument("--precisions", default="fp32,bf16", help="comma-separated; the first fp32 is the reference")
    bench.add_argument("--json", action="store_true", help="print one JSON object a line")
    export = actions.add_parser("export", parents=[net], help="write a Caffe net as an ONNX model")
    export.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    export.add_argument("--batch", type=number_from(1), metavar="N", help="default: the declared one")
    export.add_argument("--json", action="store_true", help="print one JSON object")
    features = actions.add_parser("features", parents=[net], help="compute features of images, one line each")
    features.add_argument("images", nargs="+", metavar="IMAGE", help="files")
    features.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """0; a net or an option that is refused is a NetError (2).  `check` and `features`: 1 when something is odd."""
    actions = {"show": _show, "check": _check, "bench": _bench, "export": _export, "features": _features}
    return actions[args.action](args)


def _load(
    args: argparse.Namespace, engine: str | None = None, precision: str | None = None, blobs: list[str] | None = None
) -> Net:
    """blobs: those of the command line, or else the net's outputs, when absent."""
    from pipeline.nets import load

    return load(
        args.net,
        args.weights,
        blobs=(args.blob or None) if blobs is None else blobs,
        engine=engine or args.engine,
        level=args.level,
        precision=precision or args.precision,
        phase=args.phase,
        stages=args.stage,
        threads=args.threads,
    )


def _show(args: argparse.Namespace) -> int:
    net = _load(args, blobs=args.blob)  # without one, nothing need be computed: layers of other branches are shown too
    blobs = args.blob or list(net.outputs)
    rows = _rows(net, blobs, _feature_set(args, blobs[0]).input_size if blobs else None)
    if rows is None:
        facts = {"name": net.name, "inputs": net.inputs, "outputs": net.outputs, "blobs": len(net.blobs)}
        print(json.dumps(facts) if args.json else "\n".join(f"{key}: {value}" for key, value in facts.items()))
        return 0
    if args.json:
        print(json.dumps({"name": net.name, "inputs": net.inputs, "blobs": blobs, "warnings": net.warnings,
                          "refused": _refused(net), "layers": [
            {"name": row.name, "type": row.kind, "tops": dict(zip(row.tops, row.shapes, strict=True)),
             "parameters": row.parameters, "multiply_adds": row.multiply_adds, "needed": row.needed} for row in rows
        ]}))  # fmt: skip
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{net.name}: what {', '.join(blobs)} needs is marked *", title_justify="left", box=None)
    for title in ("", "layer", "type", "tops"):
        table.add_column(title, no_wrap=True)
    for title in ("parameters", "multiply-adds"):
        table.add_column(title, justify="right")
    for row in rows:
        tops = ", ".join(f"{top} {_sizes(shape)}" for top, shape in zip(row.tops, row.shapes, strict=True))
        cost = "?" if row.multiply_adds is None else f"{row.multiply_adds:,}" if row.multiply_adds else ""
        table.add_row("*" if row.needed else "", row.name, row.kind, tops,
                      f"{row.parameters:,}" if row.parameters else "", cost)  # fmt: skip
    for what, chosen in (("all", rows), ("needed", [row for row in rows if row.needed])):
        least = "at least " if any(row.multiply_adds is None for row in chosen) else ""
        table.add_row("", what, counted(len(chosen), "layer"), "", f"{sum(row.parameters for row in chosen):,}",
                      f"{least}{sum(row.multiply_adds or 0 for row in chosen):,}")  # fmt: skip
    Console(highlight=False, width=1000, markup=False).print(table)  # nothing is cut where output goes to a file
    for says in _refused(net):
        print(f"not computed here: {says}")
    return 0


def _rows(net: Net, blobs: list[str], size: tuple[int, int] | None) -> list[LayerRow] | None:
    """A row a layer; None for what has none.  size: of images, where an ONNX model leaves it free."""
    from pipeline.nets import inspection
    from pipeline.nets.caffe_net import CaffeNet
    from pipeline.nets.onnx import inspection as onnx_inspection
    from pipeline.nets.onnx.net import OnnxNet

    if isinstance(net, CaffeNet):
        return inspection.layers(net, blobs)
    return onnx_inspection.layers(net, blobs, size) if isinstance(net, OnnxNet) else None


def _refused(net: Net) -> list[str]:
    """Why layers of a Caffe net cannot be computed; those that depend on them cannot be either."""
    from pipeline.nets.caffe_net import CaffeNet

    faults = net.plan.faults if isinstance(net, CaffeNet) else {}
    return [str(faults[number]) for number in sorted(faults)]


def _sizes(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "of unknown size"
    return "x".join("?" if size < 0 else str(size) for size in shape) or "one number"


def _check(args: argparse.Namespace) -> int:
    from pipeline.nets.inspection import fed, oddities

    net = _load(args)
    blobs = args.blob or list(net.outputs)
    chosen, unstated = _as_applied(_feature_set(args, blobs[0]))
    size = _size(net, blobs, chosen)
    odd = oddities(net, blobs, size)
    shapes = {blob: net.shape(blob, fed(net, [blob], 2, size)) for blob in blobs}
    lines = {blob: line for blob in blobs if (line := _preprocessing(net, blob, shapes[blob], chosen))}
    if lines and unstated:
        lines = {}
        odd.append(f"{unstated.message}: a feature set with it is refused; {unstated.hint}")
    if args.json:
        print(
            json.dumps({"name": net.name, "engine": str(net.engine), "inputs": net.inputs, "blobs": shapes,
                        "preprocess": lines, "odd": odd})
        )  # fmt: skip
        return 1 if odd else 0
    print(f"{net.name}: runs on {net.engine}")
    for name, shape in net.inputs.items():
        print(f"  input {name}: {_sizes(shape)}")
    for blob, shape in shapes.items():
        print(f"  blob {blob}: {_sizes(shape)} for a batch of 2")
        if blob in lines:
            print(f"    preprocess {lines[blob]}")
    for says in odd:
        print(f"  odd: {says}")
    return 1 if odd else 0


def _as_applied(chosen: FeatureSet) -> tuple[FeatureSet, ConfigError | None]:
    """The set with its preprocessing as it is applied; or as it is, and why it has none."""
    from pipeline.nets.preprocessing import with_stated

    try:
        return with_stated(chosen), None
    except ConfigError as error:
        return chosen, error


def _size(net: Net, blobs: list[str], chosen: FeatureSet) -> tuple[int, int] | None:
    """What images are fed in: the size that is given, or the preset's where the net's is free; None for the net's."""
    from pipeline.nets.inspection import fed

    if chosen.input_size is not None:
        return chosen.input_size
    try:
        fed(net, blobs)
    except NetError:
        if chosen.preprocess.size is None:
            raise
        return chosen.preprocess.size
    return None


def _preprocessing(net: Net, blob: str, shape: tuple[int, ...], chosen: FeatureSet) -> str:
    """How a feature set of this blob gets its features, in one line; empty where the blob is no feature of an image."""
    from pipeline.nets.features import described, image_input, taken
    from pipeline.nets.pooling import Pooling

    try:
        takes = taken(net, image_input(net, blob), chosen)
    except NetError:
        return ""
    return described(chosen, takes, Pooling(chosen.pool, blob, shape[1:], takes.size, last=takes.last))


def _bench(args: argparse.Namespace) -> int:
    from pipeline.nets.inspection import noise, speeds

    for place, batch in enumerate(args.batch or [1, 32]):
        nets = _nets_to_measure(args, say=place == 0)  # anew for each batch, so that each is compiled for it
        net = next(iter(nets.values()))
        blob = args.blob[0] if args.blob else net.outputs[0]
        size = _size(net, [blob], _as_applied(_feature_set(args, blob))[0])
        feeds = noise(net, [blob], batch, size)
        if place == 0 and not args.json:
            fed = ", ".join(_sizes(array.shape[1:]) for array in feeds.values())
            print(f"blob {blob}, fed with {fed}", file=sys.stderr)
            print(
                f"{'engine':<12} {'precision':<9} {'batch':>5} {'images/s':>9} {'CPU ms':>7}  distance from the first"
            )
        for speed in speeds(nets, blob, feeds, args.rounds, time.perf_counter):
            if args.json:
                print(json.dumps(asdict(speed)), flush=True)
                continue
            print(f"{speed.engine:<12} {speed.precision:<9} {speed.batch:>5} {speed.images_per_second:>9.1f} "
                  f"{speed.cpu_milliseconds:>7.1f}  {speed.distance:.1e}", flush=True)  # fmt: skip
    return 0


def _nets_to_measure(args: argparse.Namespace, say: bool) -> dict[tuple[str, str], Net]:
    from pipeline.nets.engines import installed

    nets: dict[tuple[str, str], Net] = {}
    refused: list[tuple[str, NetError]] = []
    if Path(args.net).name == HOG:
        net = _load(args)
        return {(net.engine.name, net.engine.precision): net}
    for precision in args.precisions.split(","):
        for engine in args.engines.split(",") if args.engines else installed():
            try:
                nets[engine, precision] = _load(args, engine, precision)
            except NetError as error:
                refused.append((f"{engine} {precision}", error))
    if not nets:
        raise refused[0][1]
    for what, why in refused if say else ():
        print(f"{what}: {why.message}", file=sys.stderr)
    return nets


def _export(args: argparse.Namespace) -> int:
    import onnx

    from pipeline.nets.caffe_net import CaffeNet
    from pipeline.nets.onnx import graph as onnx_graph
    from pipeline.nets.onnx.file import model_of, with_plain_names

    net = _load(args)
    if not isinstance(net, CaffeNet):
        raise NetError(f"the net {args.net} is no Caffe net", "only those are written as ONNX models")
    sizes = {name: (args.batch or shape[0], *shape[1:]) for name, shape in net.inputs.items()}
    model = with_plain_names(model_of(net.lower(args.blob or net.outputs, sizes), name=net.name))
    large = model.ByteSize() >= 2**31 - 2**20
    beside = args.onnx.with_name(f"{args.onnx.name}.data") if large else None
    try:
        onnx.save(model, args.onnx, save_as_external_data=large, location=f"{args.onnx.name}.data")
    except OSError as error:
        raise NetError(f"{args.onnx} cannot be written", error.strerror or str(error), "--onnx FILE") from error
    size = args.onnx.stat().st_size
    if args.json:
        inputs, outputs = ({value.name: onnx_graph.shape_of(value) for value in values}
                           for values in (model.graph.input, model.graph.output))  # fmt: skip
        print(json.dumps({"file": str(args.onnx), "bytes": size, "weights_file": beside and str(beside),
                          "inputs": inputs, "outputs": outputs}))  # fmt: skip
        return 0
    print(f"{args.onnx}: {counted(size, 'byte')}" + (f", weights in {beside}" if beside else ""))
    return 0


def _features(args: argparse.Namespace) -> int:
    from pipeline.images import Preparation
    from pipeline.nets.features import FeatureNet, finite
    from pipeline.nets.loading import default_blob
    from pipeline.records import Failure

    if args.weights and not args.net.endswith(".prototxt"):  # nothing but a .prototxt takes weights
        args.weights, args.images = None, [args.weights, *args.images]
    if len(args.blob) > 1:
        raise ConfigError("a feature is one blob", f"{len(args.blob)} are given", "--blob NAME")
    blob = args.blob[0] if args.blob else default_blob(args.net, args.weights)
    net = FeatureNet(_feature_set(args, blob), threads=args.threads)
    prepare = Preparation(net.preprocess, net.input_size, net.mean, net.channels)
    print(f"preprocess {net.preprocessing}", file=sys.stderr)
    failed = 0
    for path in args.images:
        try:
            image = prepare(Path(path).read_bytes())
        except OSError as error:
            image = Failure.of("bad_ref", f"the file cannot be read: {error.strerror or error}")
        row = None if isinstance(image, Failure) else net.forward(image[None])
        failure = image if isinstance(image, Failure) else None
        if row is not None and not finite(row)[0]:
            failure = Failure.of("not_finite")
        failed += failure is not None
        if args.json:
            values = [] if row is None or failure else row[0].tolist()
            print(json.dumps({"image": path, "ok": failure is None, "features": values,
                              "reason": failure and failure.reason, "detail": failure and failure.detail}))  # fmt: skip
        elif failure is not None:
            print(f"{path}\t{failure.reason}: {failure.detail}", file=sys.stderr)
        else:
            assert row is not None
            print(path, *(f"{value:.6g}" for value in row[0].tolist()), sep="\t")
    return 1 if failed else 0


def _feature_set(args: argparse.Namespace, blob: str) -> FeatureSet:
    """What the options say of a feature set with this blob."""
    settings = {"engine": args.engine, "precision": args.precision, "batch_size": 1, **set_options.values(args)}
    return given_set.feature_set(Given(args.net, args.weights, blob, tuple(args.set), settings), args.config)
