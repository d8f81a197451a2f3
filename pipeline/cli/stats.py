"""Describe features, and measure how far two runs differ.

FEATURES is a delivered root, a shipment's folder, a glob of Parquet files (in quotes) or a text file: on this machine,
or with --lake a path on a configured lake.  One pass; memory does not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.process.logs import escape

if TYPE_CHECKING:
    from pipeline.analysis.stats.collecting import Stats
    from pipeline.analysis.stats.drift import Drift
    from pipeline.stores.store import Lake

DRIFTED_EXIT = 1
SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
_NAMED = 12
_BARS = 16
_WIDEST = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi stats`."""
    parser.add_argument("path", metavar="FEATURES", help="the features to describe")
    parser.add_argument("other", nargs="?", metavar="OTHER", help="a later run to compare with them")
    parser.add_argument("--partner", type=int, metavar="N", help="only this partner's rows")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="DIR",
        help=("write PNG charts of values, dimensions and norms into this folder"),
    )
    parser.add_argument("--max-drift", type=float, metavar="X",
                        help="exit code 1 if a measure of drift is greater than X (0.25 is much)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--lake", help="the paths are on this lake")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0; 1 when --max-drift is exceeded."""
    from pipeline.analysis.stats.collecting import collect
    from pipeline.analysis.stats.drift import drift
    from pipeline.analysis.stats.finding import files_of

    if args.max_drift is not None and args.other is None:
        raise ConfigError("--max-drift compares two runs", "one is given", "hathi stats FEATURES OTHER --max-drift X")
    lake = _lake(args)
    names = [args.path] if args.other is None else [args.path, args.other]
    paths = names if args.lake else [os.path.abspath(name).lstrip("/") for name in names]
    runs = [collect(lake, files_of(lake, path, args.partner), args.partner) for path in paths]
    apart = drift(*runs) if len(runs) == 2 else None
    pictures = []
    if args.plot is not None:
        from pipeline.analysis.stats.plots import plot

        labels = ["before", "after"] if apart else [names[0]]
        pictures = [str(path) for path in plot(args.plot, list(zip(labels, runs, strict=True)))]
    if args.json:
        print(json.dumps(_object(names, runs, apart, pictures), sort_keys=True))
    else:
        print("\n".join(map(escape, _lines(names, runs, apart, pictures))))
    if apart is not None and args.max_drift is not None and not apart.greatest <= args.max_drift:
        if not args.json:
            print(f"drift {apart.greatest:.4g} is more than {args.max_drift:g}")
        return DRIFTED_EXIT
    return 0


def _lake(args: argparse.Namespace) -> Lake:
    from pipeline.stores.local import LocalStore

    if args.lake is None:
        return LocalStore(Path("/"))  # only read from
    from pipeline.settings import load
    from pipeline.stores.opening import open_lake

    settings = load(place_of(args), os.environ)
    if args.lake not in settings.lakes:
        raise ConfigError(f"no lake {args.lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    return open_lake(settings, args.lake)


def _object(
    names: Sequence[str], runs: Sequence[Stats], apart: Drift | None, pictures: Sequence[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "runs": [_facts(name, stats) for name, stats in zip(names, runs, strict=True)],
        "pictures": list(pictures),
    }
    if apart is not None:
        found["drift"] = {
            "greatest": apart.greatest,
            "psi": apart.psi,
            "jensen_shannon": apart.jensen_shannon,
            "shift": apart.shift,
            "shifts": apart.shifts.tolist(),
            "mean_apart": apart.apart,
            "common_items": apart.common,
            "common_moved": apart.moved,
            "common_moved_most": apart.moved_most,
        }
    return found


def _facts(name: str, stats: Stats) -> dict[str, Any]:
    edges = _edges(stats)
    quantiles = stats.buckets.quantiles(SHARES).tolist()
    return {
        "path": name,
        "files": stats.files,
        "rows": stats.rows,
        "not_finite": stats.not_finite,
        "dim": stats.dim,
        "fingerprints": stats.fingerprints,
        "nonzero_share": stats.nonzero_share,
        "percentiles": {f"{share * 100:g}": value for share, value in zip(SHARES, quantiles, strict=True)},
        "histogram": {"edges": edges, "counts": _counts(stats, edges)},
        "always_zero": stats.always_zero,
        "constant": stats.constant,
        "norm": {
            "least": stats.norms.least,
            "mean": stats.norms.mean,
            "greatest": stats.norms.greatest,
            "not_one": stats.norms.not_one,
            "zero": stats.norms.zero,
            "normalised": stats.norms.normalised,
        },
        "equal_items": {"rows": stats.equal_items.rows, "exact": stats.equal_items.exact},
        "equal_vectors": {"rows": stats.equal_vectors.rows, "exact": stats.equal_vectors.exact},
        "means": stats.mean.tolist(),
        "deviations": stats.deviation.tolist(),
        "nonzero_shares": (stats.nonzero / max(1, stats.finite)).tolist(),
    }


def _edges(stats: Stats) -> list[float]:
    import numpy as np

    low, high = stats.buckets.quantiles([0.001, 0.999]).tolist()
    edges: list[float] = np.linspace(low, high if high > low else low + 1.0, _BARS + 1).tolist()
    return edges


def _counts(stats: Stats, edges: Sequence[float]) -> list[int]:
    import numpy as np

    open_ends = np.array([-np.inf, *edges[1:-1], np.inf])
    counts: list[int] = stats.buckets.histogram(open_ends).tolist()
    return counts


def _lines(names: Sequence[str], runs: Sequence[Stats], apart: Drift | None, pictures: Sequence[str]) -> Iterator[str]:
    for name, stats in zip(names, runs, strict=True):
        yield name
        yield from _about(stats)
        yield ""
    if apart is not None:
        yield from _drift(apart)
        prints = [{text for text in stats.fingerprints if text} for stats in runs]
        if all(prints) and not prints[0] & prints[1]:
            yield "  different nets or preprocessing made the two: the drift measures these, not the images"
    for picture in pictures:
        yield f"drawn: {picture}"


def _about(stats: Stats) -> Iterator[str]:
    bad = f", {stats.not_finite:,} with NaN or infinity (left out below)" if stats.not_finite else ""
    files = counted(stats.files, "file")
    yield f"  rows           {stats.rows:,} of {counted(stats.dim, 'value')} in {files}{bad}"
    prints = [f"{text[:12]} ({counted(rows, 'row')})" for text, rows in stats.fingerprints.items() if text]
    if prints:
        odd = f"; {counted(len(prints), 'net')}: their rows are not comparable" if len(prints) > 1 else ""
        yield f"  fingerprint    {', '.join(prints)}{odd}"
    yield f"  not zero       {stats.nonzero_share * 100:.2f}% of the values"
    yield f"  dead           {_named(stats.always_zero)} always zero; {_named(stats.constant)} constant"
    norms = stats.norms
    odd = f"; {norms.not_one:,} are not 1" if norms.normalised and norms.not_one else ""
    zero = f"; all values are zero in {counted(norms.zero, 'row')}" if norms.zero else ""
    yield f"  norm           least {norms.least:.6g}, mean {norms.mean:.6g}, greatest {norms.greatest:.6g}{odd}{zero}"
    for what, again in (("equal items", stats.equal_items), ("equal vectors", stats.equal_vectors)):
        about = "" if again.exact else "about "
        yield f"  {what:<14} {about}an earlier row is repeated in {counted(again.rows, 'row')}"
    yield "  percentiles    " + "  ".join(f"{share * 100:g}%".rjust(8) for share in SHARES)
    yield "  (within 0.4%)  " + "  ".join(f"{value:8.4g}" for value in stats.buckets.quantiles(SHARES).tolist())
    edges = _edges(stats)
    counts = _counts(stats, edges)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "#" * round(count / max(1, *counts) * _WIDEST)
        yield f"  {low:10.4g} to {high:10.4g} {bar:<{_WIDEST}} {count:,}"


def _named(dimensions: Sequence[int]) -> str:
    if not dimensions:
        return "none"
    more = ", ..." if len(dimensions) > _NAMED else ""
    return f"{len(dimensions):,} ({', '.join(map(str, dimensions[:_NAMED]))}{more})"


def _drift(apart: Drift) -> Iterator[str]:
    worst = abs(apart.shifts).argsort()[::-1][:5].tolist()
    most = ", ".join(f"{number}: {apart.shifts[number]:+.3g}" for number in worst)
    yield "drift (0: none; more than 0.25: much)"
    yield f"  values         {apart.psi:.4g} population stability index, {apart.jensen_shannon:.4g} Jensen-Shannon"
    yield f"  means          {apart.shift:.4g} standard deviations (root mean square); most at {most}"
    yield f"  mean vectors   {apart.apart:.4g} = 1 - cosine"
    if apart.common:
        yield (f"  common items   {apart.moved:.4g} = 1 - mean cosine of {counted(apart.common, 'item')}; "
               f"1% of them more than {apart.moved_most:.4g}")  # fmt: skip
    else:
        yield "  common items   none in the two samples"
    yield f"  greatest       {apart.greatest:.4g}"
