"""`similar` finds what all distances at once say, of each item's newest feature, and shows the images."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.analysis.similar.catalogue import Catalogue, sources_of
from pipeline.analysis.similar.images import feature_of
from pipeline.analysis.similar.indexed import approximate
from pipeline.analysis.similar.measures import METRICS, Metric, distances
from pipeline.analysis.similar.nearest import Query, exact
from pipeline.cli import main as command_line
from pipeline.errors import FormatError
from pipeline.records import item_id_of
from pipeline.settings import load
from pipeline.stages.compact import running
from pipeline.stores.local import LocalStore
from tests.simulation.folders import world_of
from tests.unit.deltas import ROOT, F, deliver, name_of

OTHER = "e" * 64


def chance(rows: int, dim: int = 16, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def catalogue_of(folder: Path, partner: int = 7) -> Catalogue:
    lake = LocalStore(folder)
    return Catalogue(lake, sources_of(lake, ROOT, partner))


def plainly(metric: Metric, query: np.ndarray, rows: dict[int, np.ndarray], count: int) -> list[int]:
    one = query.astype(np.float64)
    far = {}
    for item, row in rows.items():
        other = row.astype(np.float64)
        if metric == "l1":
            far[item] = np.abs(one - other).sum()
        elif metric == "l2":
            far[item] = np.linalg.norm(one - other)
        else:
            far[item] = 1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return sorted(far, key=lambda item: (round(float(far[item]), 9), item))[:count]


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_are_those_of_all_distances_at_once(tmp_path: Path, metric: Metric) -> None:
    rows = dict(zip([5, 2**63, 2**64 - 1, *range(100, 300)], chance(203), strict=True))
    deliver(tmp_path, name_of(1), rows)
    catalogue = catalogue_of(tmp_path)
    row = catalogue.row_of(2**64 - 1)
    assert row is not None
    vectors, prints = catalogue.features([row])
    found = exact(catalogue, Query(vectors[0], prints[0], metric, 10, 2**64 - 1))
    others = {item: vector for item, vector in rows.items() if item != 2**64 - 1}
    assert [one.item_id for one in found.nearest] == plainly(metric, rows[2**64 - 1], others, 10)
    assert found.compared == 202
    about = catalogue.about([one.row for one in found.nearest])
    assert [one.external_id for one in about] == [f"SKU-{one.item_id}" for one in found.nearest]


def test_features_of_float16_and_of_float32_are_compared(tmp_path: Path) -> None:
    rows = {item: np.float16(vector).astype(np.float32) for item, vector in enumerate(chance(90))}
    deliver(tmp_path, name_of(1), {item: rows[item] for item in range(50)}, numbers="float16")
    deliver(tmp_path, name_of(2), {item: rows[item] for item in range(50, 90)})
    catalogue = catalogue_of(tmp_path)
    found = exact(catalogue, Query(rows.pop(77), F, "l2", 5, 77))  # type: ignore[arg-type]
    assert [one.item_id for one in found.nearest] == plainly("l2", chance(90)[77].astype(np.float16), rows, 5)  # type: ignore[arg-type]


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 9), st.integers(0, 3)),
        st.dictionaries(st.integers(0, 15), st.integers(-50, 50), min_size=1, max_size=8),
        min_size=1, max_size=5,
    ),
    st.integers(0, 5),
)  # fmt: skip
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_newest_feature_of_an_item_counts_also_beside_a_compacted_table(
    tmp_path_factory: pytest.TempPathFactory, deltas: dict[tuple[int, int], dict[int, int]], compacted_after: int
) -> None:
    folder = tmp_path_factory.mktemp("deltas")
    world = world_of(folder)
    lake = world.top / "lake"
    newest: dict[str, dict[int, np.ndarray]] = {}
    for at, (when, items) in enumerate(deltas.items()):
        name = name_of(*when)
        newest[str(name)] = {item: np.array([value, 1], np.float32) for item, value in items.items()}
        deliver(lake, name, newest[str(name)])
        if at == compacted_after:
            list(running.run(world.context()))
    wanted: dict[int, np.ndarray] = {}
    for text in sorted(newest):
        wanted |= newest[text]
    catalogue = catalogue_of(lake)
    assert len(catalogue) == len(wanted)
    query = np.array([3, 1], np.float32)
    found = exact(catalogue, Query(query, F, "l2", 4))
    assert [one.item_id for one in found.nearest] == plainly("l2", query, wanted, 4)
    assert found.compared == len(wanted)


def test_features_of_another_net_and_rows_of_zeros_are_no_neighbours_by_chance(tmp_path: Path) -> None:
    rows = chance(20)
    rows[3] = 0
    deliver(tmp_path, name_of(1), dict(enumerate(rows)))
    deliver(tmp_path, name_of(2), {0: rows[1], 50: rows[1]}, fingerprint=OTHER)
    found = exact(catalogue_of(tmp_path), Query(rows[1], F, "cosine", 30, 1))
    assert (found.compared, found.left_out) == (18, 2)
    assert {one.item_id: one.distance for one in found.nearest}[3] == 1.0
    assert not {0, 50} & {one.item_id for one in found.nearest}
    assert distances("l2", rows[1], np.full((1, 16), np.nan, np.float32)).tolist() == [np.inf]


@pytest.mark.parametrize("form", ["text", "libsvm"])
def test_text_is_read_where_there_is_no_parquet(tmp_path: Path, form: str) -> None:
    rows = dict(enumerate(chance(90)))
    deliver(tmp_path, name_of(1), rows, text=form)
    catalogue = catalogue_of(tmp_path)
    row = catalogue.row_of(77)
    assert row is not None
    vectors, prints = catalogue.features([row])
    found = exact(catalogue, Query(vectors[0], prints[0], "l2", 5, 77))
    del rows[77]
    assert [one.item_id for one in found.nearest] == plainly("l2", vectors[0], rows, 5)
    assert catalogue.about([row])[0].url == ""


def test_an_index_finds_what_every_distance_does_and_is_built_anew_for_other_files(tmp_path: Path) -> None:
    centres = chance(30, 32)
    rows = np.repeat(centres, 20, axis=0) + chance(600, 32, seed=2) * 0.1
    deliver(tmp_path, name_of(1), dict(enumerate(rows)))
    for metric in ("l2", "cosine"):
        query = Query(rows[44].astype(np.float32), F, metric, 10, 44)  # type: ignore[arg-type]
        catalogue = catalogue_of(tmp_path)
        told = [approximate(catalogue, query, tmp_path / "kept").nearest for _ in range(2)]
        assert told[0] == told[1]
        assert [one.item_id for one in told[0]] == [one.item_id for one in exact(catalogue, query).nearest]
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(kept) == 2
    deliver(tmp_path, name_of(2), {900: rows[44]})
    query = Query(rows[44].astype(np.float32), F, "l2", 10, 44)
    assert approximate(catalogue_of(tmp_path), query, tmp_path / "kept").nearest[0].item_id == 900
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    deliver(tmp_path, name_of(1), dict(enumerate(chance(50))))
    path = next(tmp_path.glob("features/*/7/features/part-00000.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"part-00000\.parquet"):
        catalogue_of(tmp_path)


# --- the command, with images on a server and a net ---

COLOURS = {f"{name}{n}": (hue + 4 * n) for name, hue in (("red", 0), ("green", 60)) for n in range(4)}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """A shop with images of stripes, a quarter to all of each: the reds upright, the greens across."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, hue in COLOURS.items():
        stripes = np.tile((np.arange(96) // 6 % 2 * 200).astype(np.uint8), (96, 1))
        stripes[24 * (1 + int(name[-1])) :] = 100
        value = stripes if name.startswith("red") else stripes.T
        picture = np.dstack([np.full((96, 96), hue, np.uint8), np.full((96, 96), 200, np.uint8), value])
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_HSV2BGR))
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path, shop: str) -> Path:
    path = tmp_path / "hathi.toml"
    path.write_text(
        f'state = "state"\nbucket.url = "bucket"\nlogs.folder = "logs"\n[lakes.shop]\nurl = "{tmp_path}/lake"\n'
        '[sets.demo]\nnet = "hog"\nblob = "hog"\nroot = "features"\npreprocess = {mean = [0.0, 0.0, 0.0]}\n'
    )
    settings = load(path, {})
    vectors, urls, externals, fingerprint = {}, {}, {}, ""
    for name in COLOURS:
        content = (tmp_path / "shop" / f"{name}.png").read_bytes()
        item = item_id_of(name)
        vectors[item], fingerprint = feature_of(settings, "demo", content, name)
        urls[item], externals[item] = f"{shop}/{name}.png", name
    urls[item_id_of("red3")] = f"{shop}/gone.png"
    deliver(tmp_path / "lake", name_of(1), vectors, fingerprint=fingerprint, urls=urls, externals=externals)
    return path


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = command_line.main(["similar", *map(str, words)])
    got = capsys.readouterr()
    return code, got.out, got.err


def test_an_item_by_its_external_id_has_its_like_around_it_on_the_sheet(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    code, text, _ = told(capsys, 7, "red1", "--count", 7, "--config", config, "--out", sheet, "--allow-private")
    assert code == 0
    names = [line.split()[3] for line in text.splitlines()[1:8]]
    assert {name[:3] for name in names[:3]} == {"red"}
    assert {name[:5] for name in names[3:]} == {"green"}
    picture = np.asarray(Image.open(sheet)).astype(int)
    cells = [picture[44 + n // 6 * 283 :, 18 + n % 6 * 218 :][:200, :200] for n in range(8)]
    strongest = [int(cell.reshape(-1, 3).mean(0).argmax()) for cell in cells]
    missing = 1 + names.index("red3")
    assert [hue for n, hue in enumerate(strongest) if n != missing] == [0] * 3 + [1] * 4
    assert len(np.unique(cells[missing].reshape(-1, 3), axis=0)) > 2, "a box, and the reason in words"


def test_the_command_asks_an_index_where_it_may(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, asked = (
        json.loads(told(capsys, 7, "red0", "--config", config, "--json", "--metric", "cosine", "--count", 4, *more)[1])
        for more in ((), ("--approximate",))
    )
    assert asked == plain
    assert plain["compared"] == len(COLOURS) - 1


def test_addresses_within_the_network_are_refused_unless_they_are_allowed(
    config: Path, shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, problem = told(capsys, 7, "--url", f"{shop}/red0.png", "--config", config)
    assert code == 2
    assert "blocked" in problem
    code, text, _ = told(capsys, 7, "--url", f"{shop}/red0.png", "--config", config, "--allow-private", "--json")
    assert code == 0
    near = json.loads(text)["nearest"]
    assert (near[0]["external_id"], near[0]["distance"]) == ("red0", 0.0)
    sheet = tmp_path / "blocked.png"
    assert told(capsys, 7, "red0", "--config", config, "--out", sheet)[0] == 0
    assert sheet.exists(), "a sheet of boxes with reasons"


def test_a_file_of_ones_own_is_compared_by_the_sets_net(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "shop" / "green2.png"
    code, text, _ = told(capsys, 7, "--image", image, "--config", config, "--json", "--metric", "cosine", "--count", 3)
    body = json.loads(text)
    assert code == 0
    assert body["compared"] == len(COLOURS)
    assert [one["external_id"][:5] for one in body["nearest"]] == ["green"] * 3
    assert body["nearest"][0]["external_id"] == "green2"
    code, _, problem = told(capsys, 7, "--image", config, "--config", config)
    assert (code, "not_image" in problem) == (2, True)


def test_what_cannot_be_answered_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        ((7, "nobody"), 1, "hathi why 7 nobody"),
        ((8, "red1"), 2, "no features of partner 8"),
        ((7,), 2, "hathi similar needs an item or an image"),
        ((7, "red1", "--approximate", "--metric", "l1"), 2, "leave --approximate out"),
        ((7, "red1", "--set", "other"), 2, "--set: demo"),
    ):
        got, _, problem = told(capsys, *words, "--config", config)
        assert (got, said in problem) == (code, True), problem
