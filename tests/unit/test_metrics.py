"""Figures for Prometheus, scraped over HTTP and read from the text file by its own parser."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
import requests
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from pipeline import __version__
from pipeline.clock import Clock
from pipeline.errors import TemporaryError
from pipeline.ledger.row_counts import RowCounts
from pipeline.operations.health.facts import Backlog, Disk, Facts, Freshness, LakeFacts, StoreFacts
from pipeline.operations.health.judge import Finding, Level
from pipeline.operations.metrics import COUNTERS, Metrics, answering, port_of, writing
from tests.simulation.folders import url, world_of

NOW = 1_700_000_000.0
ROOT = Path(__file__).parents[2]
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Figures:
    """Value by name and labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures[name, frozenset(labels.items())]


def scraped(port: int | None) -> Figures:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain")
    return parsed(answer.text)


def clock_at(seconds: float) -> Clock:
    return Clock(now=lambda: seconds, monotonic=lambda: seconds)


def test_what_the_stages_do_is_counted_and_scraped_over_http(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('gone')}", f"7,c,{url('down')}", "no,row")
    turns = world.turns()
    metrics = Metrics(world.hand.clock())
    said: list[str] = []
    with answering(metrics, "127.0.0.1", 0, said.append) as port:
        for stage in ("ship", "compute", "aggregate", "deliver"):
            with metrics.turn("shop", stage) as tally:
                turns.take(stage, tally=tally)
        figures = scraped(port)
    assert said == []
    for stage in ("ship", "compute", "aggregate"):
        assert figure(figures, "hathi_refs_total", lake="shop", stage=stage) == 3
    assert figure(figures, "hathi_rejected_rows_total", lake="shop") == 1
    assert figure(figures, "hathi_features_total", lake="shop", stage="deliver") == 1
    assert figure(figures, "hathi_failures_total", lake="shop", reason="http_4xx") == 1
    assert figure(figures, "hathi_failures_total", lake="shop", reason="http_5xx") == 1
    assert figure(figures, "hathi_bytes_total", lake="shop", stage="deliver") > 0
    assert figure(figures, "hathi_tasks_total", lake="shop", stage="deliver") == 1
    assert figure(figures, "hathi_problems_total", lake="shop", stage="ship") == 0
    assert figure(figures, "hathi_last_success_timestamp_seconds", lake="shop", stage="ship") == world.hand.at
    assert [value for (name, labels), value in figures.items()
            if name == "hathi_build_info" and ("version", __version__) in labels] == [1]  # fmt: skip


def test_a_turn_is_counted_while_it_lasts_and_never_goes_back() -> None:
    from prometheus_client import generate_latest

    metrics = Metrics(clock_at(NOW))
    seen = []

    def refs() -> float:
        return parsed(generate_latest(metrics.registry).decode()).get(
            ("hathi_refs_total", frozenset({("lake", "shop"), ("stage", "compute")})), 0.0
        )

    with metrics.turn("shop", "compute") as tally:
        for _ in range(3):
            seen.append(refs())
            tally.counts += RowCounts(refs=5)
        seen.append(refs())
    seen.append(refs())
    assert seen == [0, 5, 10, 15, 15]


def test_a_turn_that_fails_is_a_problem_and_no_success() -> None:
    from prometheus_client import generate_latest

    metrics = Metrics(clock_at(NOW))
    with pytest.raises(TemporaryError), metrics.turn("shop", "ship"):
        raise TemporaryError("no answer")
    figures = parsed(generate_latest(metrics.registry).decode())
    assert figure(figures, "hathi_problems_total", lake="shop", stage="ship") == 1
    assert not any(name == "hathi_last_success_timestamp_seconds" for name, _ in figures)


def some_facts() -> Facts:
    fresh = (Freshness("7", "demo", "20231114T000000Z", "20231113T000000Z", 86400.0), Freshness("8", "demo"))
    lake = LakeFacts(
        "shop",
        NOW,
        sees_lake=True,
        backlog=(Backlog("compute", 2, 3, 7, NOW - 60), Backlog("deliver")),
        sent=NOW - 5,
        retries=4,
        next_due=NOW + 9,
        held=("S.0",),
        missing=("f",),
        freshness=fresh,
    )
    stores = (StoreFacts("bucket", skew=2.5), StoreFacts("lake shop", trouble="away"))
    return Facts(NOW, "gate", (lake,), stores, (Disk("/state", 42.0, 1),), estop=NOW, programs={"ship": "pid 7"})


def test_what_health_has_looked_at_is_shown() -> None:
    metrics = Metrics(clock_at(NOW))
    metrics.show(some_facts(), [Finding(Level.ALERT, "k", "t"), Finding(Level.WARNING, "l", "t")])
    with answering(metrics, "127.0.0.1", 0, print) as port:
        figures = scraped(port)
    shop = {"lake": "shop"}
    compute = {**shop, "stage": "compute"}
    seven = {**shop, "set": "demo", "partner": "7"}
    assert figure(figures, "hathi_backlog_shipments", **compute) == 2
    assert figure(figures, "hathi_backlog_batches", **compute) == 3
    assert figure(figures, "hathi_backlog_refs", **compute) == 7
    assert figure(figures, "hathi_backlog_oldest_timestamp_seconds", **compute) == NOW - 60
    assert figure(figures, "hathi_held_batches", **shop) == 1
    assert figure(figures, "hathi_retries_waiting", **shop) == 4
    assert figure(figures, "hathi_retry_next_due_timestamp_seconds", **shop) == NOW + 9
    assert figure(figures, "hathi_last_delivery_timestamp_seconds", **shop) == NOW - 5
    assert figure(figures, "hathi_missing_files", **shop) == 1
    assert figure(figures, "hathi_partner_lag_seconds", **seven) == 86400
    assert figure(figures, "hathi_partner_source_timestamp_seconds", **seven) == 1_699_920_000
    assert figure(figures, "hathi_partner_delivered_timestamp_seconds", **seven) == 1_699_833_600
    assert figure(figures, "hathi_store_up", store="bucket") == 1
    assert figure(figures, "hathi_store_up", store="lake shop") == 0
    assert figure(figures, "hathi_clock_skew_seconds", store="bucket") == 2.5
    assert figure(figures, "hathi_disk_used_ratio", folder="/state") == pytest.approx(0.42)
    assert figure(figures, "hathi_program_running", program="ship") == 1
    assert figure(figures, "hathi_program_running", program="deliver") == 0
    assert figure(figures, "hathi_estop") == 1
    assert figure(figures, "hathi_health_level") == 2
    assert figure(figures, "hathi_health_findings", level="alert") == 1
    assert figure(figures, "hathi_health_look_timestamp_seconds") == NOW


def test_nothing_of_ours_is_in_the_global_registry() -> None:
    Metrics(clock_at(NOW)).show(some_facts(), [])
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("hathi")]


def test_the_daemons_of_a_host_have_ports_side_by_side() -> None:
    assert [port_of(9464, [stage]) for stage in ("ship", "deliver")] == [9464, 9465]
    assert port_of(9464, ["ship", "deliver"]) == 9464
    assert len({port_of(9464, [stage]) for stage in ("ship", "deliver", "compute", "aggregate")}) == 4


def test_a_port_that_is_in_use_is_one_line_and_not_the_end() -> None:
    said: list[str] = []
    metrics = Metrics(clock_at(NOW))
    with answering(metrics, "127.0.0.1", 0, said.append) as port:
        assert port is not None
        with answering(Metrics(clock_at(NOW)), "127.0.0.1", port, said.append):
            pass
        with answering(Metrics(clock_at(NOW)), "127.0.0.1", 70_000, said.append):
            pass
        assert scraped(port)
    assert len(said) == 2
    assert all(re.match(r"no metrics on 127\.0\.0\.1:\d+: .*; set metrics\.port", line) for line in said)


def test_a_run_writes_its_file_at_once_in_one_instant_and_the_next_run_counts_on(tmp_path: Path) -> None:
    path = tmp_path / "made" / "hathi.prom"
    for run in (1, 2, 3):
        metrics = Metrics(clock_at(NOW + run))
        with writing(metrics, path, pytest.fail), metrics.turn("shop", "compute") as tally:
            tally.counts, tally.reasons = RowCounts(refs=5), {"dns": 2}
        figures = parsed(path.read_text())
        assert figure(figures, "hathi_refs_total", lake="shop", stage="compute") == 5 * run
        assert figure(figures, "hathi_failures_total", lake="shop", reason="dns") == 2 * run
    with writing(Metrics(clock_at(NOW)), path, pytest.fail):
        pass
    figures = parsed(path.read_text())
    when = figure(figures, "hathi_last_success_timestamp_seconds", lake="shop", stage="compute")
    assert when == NOW + 3, "a run without work hides no success"
    assert [one.name for one in path.parent.iterdir()] == ["hathi.prom"]


def test_a_file_is_written_during_a_run_too(tmp_path: Path) -> None:
    path = tmp_path / "hathi.prom"
    metrics = Metrics(clock_at(NOW))
    written = threading.Event()
    with writing(metrics, path, pytest.fail, seconds=0.01), metrics.turn("shop", "compute") as tally:
        tally.counts = RowCounts(refs=5)
        while not written.wait(0.01):
            found = parsed(path.read_text()) if path.exists() else {}
            if found.get(("hathi_refs_total", frozenset({("lake", "shop"), ("stage", "compute")}))) == 5:
                written.set()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not metrics {", b'hathi_refs_total{lake="x"} 5\n'])
def test_a_file_that_is_damaged_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hathi.prom"
    path.write_bytes(content)
    metrics = Metrics(clock_at(NOW))
    with writing(metrics, path, pytest.fail), metrics.turn("shop", "compute") as tally:
        tally.counts = RowCounts(refs=5)
    assert figure(parsed(path.read_text()), "hathi_refs_total", lake="shop", stage="compute") == 5


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    with writing(Metrics(clock_at(NOW)), tmp_path / "file" / "hathi.prom", said.append, seconds=0.001):
        ended = threading.Event()
        while not said:
            ended.wait(0.001)
    assert len(said) == 1
    assert "look at metrics.file" in said[0]


def test_every_figure_is_documented_and_follows_the_conventions() -> None:
    metrics = Metrics(clock_at(NOW))
    metrics.show(some_facts(), [])
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`(hathi_\w+)(?:\{[^}]*\})?`", page))
    shown = {f"{family.name}_total" if family.type == "counter" else family.name for family in metrics.collect()}
    assert documented == shown
    for name in shown:
        assert re.fullmatch(r"hathi_[a-z_]+", name)
        assert not re.search(r"_(ms|minutes|hours|mb|percent)(_|$)", name), "base units"
    assert all(not name.endswith("_total") for name in COUNTERS)
