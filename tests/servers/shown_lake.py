"""A lake with something of everything that a page about the pipeline shows, made by the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sample import random_features
from tests.integration.conftest import picture, row
from tests.servers.promoting import ROOT, Lake

SET = 'model = "hats"\nblob = "features"\nroot = "features"'
GOOD = 6


def shown_lake(folder: Path, failing: Sequence[str]) -> Lake:
    """Delivered features and failures, a promotion in use, its back-fill and a new snapshot that are still open.

    failing: ids of items, and URLs, that give no feature.
    """
    lake = Lake(folder / "shown", folder / "shown-bucket")
    lake.write({}, {"demo": SET})
    weights = folder / "shown" / "hats.caffemodel"
    random_features.write(weights)
    refs = folder / "shown" / "lake" / "refs"
    refs.mkdir(parents=True)
    lines = [row(f"sku-{number}", picture(number)) for number in range(GOOD)]
    lines += [json.dumps({"partner_id": 8, "external_id": one, "url": one}) for one in failing]
    (refs / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    net = str(ROOT / "sample" / "random_features.prototxt")
    lake.hathi("promote", "demo", "--net", net, "--weights", str(weights), "--why", failing[0])
    lake.hathi("run")
    random_features.write(weights, seed=2)
    lake.hathi("promote", "demo", "--net", net, "--weights", str(weights), "--why", "better hats")
    lake.hathi("backfill", "demo")
    (refs / "b.jsonl").write_text(row("new", picture(99), partner=9), encoding="utf-8")
    lake.hathi("run", "ship")
    return lake
