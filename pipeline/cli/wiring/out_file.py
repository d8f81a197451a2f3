"""`--out FILE`: all features of an own list as one plain file, at the end of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.amounts import counted
from pipeline.app import own_folder
from pipeline.app.newest_features import newest_features, place_at
from pipeline.cli.wiring import own_list
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.made import note_made
from pipeline.settings import Hdfs, Settings
from pipeline.stages.compact import one_file


def out_of(args: argparse.Namespace) -> Path | None:
    """Where --out asks for one file.  Raises ConfigError where none can be written."""
    if args.out is None:
        return None
    if not own_list.given(args):
        raise ConfigError("--out is for a list of your own", "", "add --refs --features --net --blob")
    return one_file.checked(args.out)


def write_out(settings: Settings, path: Path) -> str:
    """Write what is delivered of the list as one file, and say so.  Raises PermanentError where there is no feature."""
    root = Path(settings.sets[own_folder.SET].root)
    if own_folder.made_with(root) is None:
        raise PermanentError(f"{path} was not written", "there is no feature yet", "the lines above say why")
    lake, place = place_at(str(root), Hdfs())
    note_made(lake, place, "file", path)
    rows = one_file.write(newest_features(lake, place, str(root)), path)
    note_made(
        lake, place, "file", path, anew=False
    )  # who was forgotten before the file was there took it for an old one
    beside = f"; who they are: {one_file.ids_beside(path)}" if path.suffix == ".npy" else ""
    return f"out: {path}: {counted(rows, 'feature')}{beside}"
