"""Make one current table of each partner's deltas: for each item the feature of the greatest shipment.

It stands beside the deltas, under `_current/<partner>` of the set's root, and the index names it.  Only what was
delivered since the last time is merged into it.  `deliver.compact = true` lets the gateway do it once a day.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from pipeline.amounts import counted
from pipeline.app.contexts import contexts
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import silent_progress
from pipeline.process import logs
from pipeline.process.lock import estop_since, refuse_estop
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi compact`."""
    parser.add_argument("--partner", type=int, metavar="N", help="only this partner")
    parser.add_argument("--lake", help="only this lake")
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each table")


def run(args: argparse.Namespace) -> int:
    """0; 1 when a partner could not be compacted."""
    from pipeline.stages.compact.running import Trouble
    from pipeline.stages.compact.running import run as compact

    settings = load(place_of(args), os.environ)
    if args.lake is not None and args.lake not in settings.lakes:
        raise ConfigError(f"no lake {args.lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    state = Path(settings.state)
    refuse_estop(state)
    written = troubles = 0
    with shown() if sys.stderr.isatty() else nullcontext(silent_progress) as show:
        for context in contexts(settings, ["deliver"], lambda: estop_since(state) is not None, "compact", show):
            if args.lake not in (None, context.lake_name):
                continue
            for one in compact(context, args.partner):
                if isinstance(one, Trouble):
                    troubles += 1
                    print(logs.escape(logs.redact(f"{context.lake_name}: {one.what}: {one.error}")), file=sys.stderr)
                    continue
                written += 1
                body = one.current.body
                if args.json:
                    told = {"lake": context.lake_name, "folder": one.current.folder, "partner": body.partner_id,
                            "features": body.features, "rows_read": one.rows_read, "shipments": len(body.covers),
                            "won": one.won, "fingerprints": body.fingerprints}  # fmt: skip
                    print(json.dumps(told, sort_keys=True))
                else:
                    by = "" if one.won else "; another gateway wrote it"
                    shipments = counted(len(body.covers), "shipment")
                    others = body.features - max(body.fingerprints.values(), default=0)
                    older = f", {others} of them of another net" if others else ""
                    where = settings.shown(context.lake_name, one.current.folder)
                    print(f"{where}: {counted(body.features, 'feature')} of {shipments}{older}{by}")
    if not written and not troubles and not args.json:
        print("nothing to compact")
    return 1 if troubles else 0
