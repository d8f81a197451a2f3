"""Current tables on an HDFS: folders moved in one step, Parquet read and written over WebHDFS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import hathi
from pipeline.analysis.similar.catalogue import Catalogue, sources_of
from pipeline.analysis.similar.nearest import Query, exact
from pipeline.analysis.stats.collecting import collect
from pipeline.analysis.stats.finding import files_of
from pipeline.stages.compact import running
from pipeline.stages.compact.compacting import Compacted
from pipeline.stages.compact.standing import tables
from pipeline.stages.index import read_index
from tests.servers.hdfs import HdfsServer
from tests.simulation.folders import world_of
from tests.unit.deltas import ROOT, F, deliver, name_of


def test_a_table_is_made_found_and_looked_at(hdfs_server: HdfsServer, tmp_path: Path) -> None:
    world = world_of(tmp_path)
    lake = hdfs_server.store()
    vectors = {day: {item: np.array([day, item, 1.0]) for item in range(day, day + 20)} for day in (1, 2, 3)}
    for day, mine in vectors.items():
        deliver(world.top / "lake", name_of(day), mine, group=20)
    for path in sorted((world.top / "lake/features").rglob("*")):
        if path.is_file():
            lake.put(path.relative_to(world.top / "lake").as_posix(), path)
    context = replace(world.context(), lake=lake)
    (done,) = running.run(context)
    assert isinstance(done, Compacted)
    assert (done.won, done.rows_read, done.current.body.features) == (True, 60, 22)
    assert read_index(lake, ROOT).current["7"].folder == "_current/7/0000000001"
    assert list(running.run(context)) == []
    assert tables(lake, ROOT) == {7: [1]}
    catalogue = Catalogue(lake, sources_of(lake, ROOT, 7))
    found = exact(catalogue, Query(np.array([3, 10, 1], np.float32), F, "l2", 3, 10))
    assert [one.item_id for one in found.nearest] == [9, 11, 8]
    assert collect(lake, files_of(lake, "features")).rows == 60
    assert collect(lake, files_of(lake, "features/2026*2T*/7")).rows == 20
    assert collect(lake, files_of(lake, done.current.folder)).rows == 22
    deliver(world.top / "later", name_of(4), {3: np.array([4, 3, 1.0])})
    for path in sorted((world.top / "later/features").rglob("*")):
        if path.is_file():
            lake.put(path.relative_to(world.top / "later").as_posix(), path)
    table = hathi.read_features(f"{lake.url}/features", hdfs=hdfs_server.settings().model_dump())
    newest = dict(zip(table["item_id"].to_pylist(), [row[0] for row in table["features"].to_pylist()], strict=True))
    assert newest == {1: 1.0, 2: 2.0, **dict.fromkeys(range(3, 23), 3.0), 3: 4.0}, "the table and the delta beside it"
