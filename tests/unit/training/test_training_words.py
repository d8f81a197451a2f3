"""What a training says and hears: lines, metrics, hints, signals."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.cli.output import training
from pipeline.errors import SolverError
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.training import log
from pipeline.training.divergence import Hints, unmoved
from pipeline.training.engine.starting import start
from pipeline.training.log import Log
from pipeline.training.metrics import Metrics, values_of
from pipeline.training.network import LearnedBlob, Output
from pipeline.training.rates import Policy, rate_of, step_of, zero_from
from pipeline.training.requests import Action, Requests
from pipeline.training.surroundings import Shown

F = np.float32


def test_an_output_prints_20_elements_and_counts_the_rest() -> None:
    outputs = [Output("a", (25,), 0.0), Output("b", (), 0.5)]
    values = {"a": np.arange(25, dtype=F), "b": np.array(3.0, F)}
    lines = list(log.outputs("Test", outputs, values))
    assert len(lines) == 22
    assert lines[19] == "    Test net output #19: a = 19"
    assert lines[20] == "    Test net output: a has 5 more elements"
    assert lines[21] == "    Test net output #25: b = 3 (* 0.5 = 1.5 loss)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1e-5, "1e-05"), (1234567.0, "1.23457e+06"), (1e5, "100000"), (float("nan"), "nan"), (-0.0, "-0")],
)
def test_numbers_are_printed_as_cpp_prints_floats(value: float, text: str) -> None:
    assert log.number(value) == text


def test_a_line_has_glogs_prefix_from_which_parse_log_reads_month_day_and_time() -> None:
    lines: list[str] = []
    Log(lines.append, lambda: 1795954642.25)("solver.cpp:239", "Iteration 1")
    date, clock, _, rest = lines[0].split(maxsplit=3)
    assert (int(date[1:3]), int(date[3:])) == (11, 29)
    assert clock.endswith(".250000")
    assert rest == "solver.cpp:239] Iteration 1\n"


def test_metrics_that_a_resumed_training_writes_anew_are_dropped_and_a_torn_row_too(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    metrics = Metrics(path)
    metrics.begin(0)
    for step in (0, 10, 20):
        metrics.add(step, 1.0, "train", {"train/loss": float("inf") if step == 10 else 0.5})
    with path.open("a") as file:
        file.write('{"step": 25, "ti')
    metrics.begin(20)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["values"]["train/loss"]) for row in rows] == [(0, 0.5), (10, "inf")]
    metrics.begin(0)
    assert path.read_text() == ""


def test_values_of_a_vector_are_numbered_and_20_at_most() -> None:
    got = values_of("test", [Output("p", (30,), 0), Output("l", (1,), 1)], {"p": np.ones(30, F), "l": np.ones(1, F)})
    assert len(got) == 21
    assert got["test/p/19"] == got["test/l"] == 1.0


def test_a_signal_counts_once_sighup_before_sigint_and_sigterm_before_all(tmp_path: Path) -> None:
    requests = Requests(Action.STOP, Action.SNAPSHOT, tmp_path, lambda: 0.0)
    requests.hear(signal.SIGINT)
    requests.hear(signal.SIGHUP)
    assert [requests.next() for _ in range(3)] == [Action.SNAPSHOT, Action.STOP, Action.NONE]
    requests.hear(signal.SIGINT)
    requests.hear(signal.SIGTERM)
    assert requests.next() is Action.LEAVE
    assert requests.why == "SIGTERM"


def test_estop_in_the_state_folder_asks_for_the_end_and_is_looked_for_once_a_second(tmp_path: Path) -> None:
    now = [0.0]
    requests = Requests(Action.STOP, Action.SNAPSHOT, tmp_path, lambda: now[0])
    assert requests.next() is Action.NONE
    (tmp_path / "ESTOP").touch()
    assert requests.next() is Action.NONE
    now[0] = 1.5
    assert (requests.next(), requests.why) == (Action.LEAVE, "ESTOP")


def chance_graph(tmp_path: Path) -> CaffeGraph:
    text = (
        'layer { name: "i" type: "Input" top: "x" top: "l" input_param { shape { dim: 4 dim: 10 } shape { dim: 4 } } } '
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "loss" }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    state = rules.state_of("TRAIN", 0, [])
    return caffe_graph.read(tmp_path / "net.prototxt", None, state, None, lambda says: None)


def test_a_loss_that_stays_at_chance_or_is_87_gets_its_hint_once(tmp_path: Path) -> None:
    graph = chance_graph(tmp_path)
    hints = Hints(graph)
    said = [hint for at in range(10) for hint in hints.of(at, 2.3026)]
    assert len(said) == 1
    assert said[0].startswith("Iteration 4: the loss stays at ln(10) = 2.3026")
    assert [hint[:14] for at in (10, 11) for hint in hints.of(at, 87.3365)] == ["Iteration 10: "]
    assert list(Hints(graph).of(0, 1.0)) == []


@pytest.mark.parametrize(
    ("displays", "trained", "last", "hinted"),
    [((2.3026, 2.3026), 20, 2.3026, True), ((), 10, 2.3, True), ((2.5, 2.31), 20, 2.3026, True),
     ((2.3026, 1.9), 20, 2.3026, False), ((2.3026,), 20, 1.9, False), ((2.3026,), 9, 2.3026, False)],
)  # fmt: skip
def test_a_short_training_gets_its_hint_at_its_end(
    displays: tuple[float, ...], trained: int, last: float, hinted: bool, tmp_path: Path
) -> None:
    hints = Hints(chance_graph(tmp_path))
    assert [hint for at, loss in enumerate(displays) for hint in hints.of(at, loss)] == []
    said = list(hints.ended(trained, trained, last))
    assert [one[: one.index(" = ")] for one in said] == (
        [f"Iteration {trained}: the loss stays at ln(10)"] if hinted else []
    )
    assert list(hints.ended(trained, trained, last)) == [], "once"


def learned(lr_mult: float) -> LearnedBlob:
    return LearnedBlob("ip", Slot(0, 0), (2, 2), lr_mult, 1.0)


@pytest.mark.parametrize(
    ("policy", "lr_mult", "says"),
    [
        (Policy("fixed", 0.0, max_iter=9), 1.0, "base_lr is 0: no weight will change"),
        (Policy("poly", 0.0, power=1.0, max_iter=9), 1.0, "base_lr is 0"),
        (Policy("step", 0.1, stepsize=5, max_iter=9), 1.0, "gamma is 0: the rate is 0 from iteration 5 on"),
        (Policy("multistep", 0.1, stepvalues=(3, 6), max_iter=9), 1.0, "the rate is 0 from iteration 3 on"),
        (Policy("exp", 0.1, max_iter=9), 1.0, "the rate is 0 from iteration 1 on"),
        (Policy("fixed", 0.0, max_iter=9), 0.0, ""),
        (Policy("step", 0.1, stepsize=9, max_iter=9), 1.0, ""),
        (Policy("inv", 0.1, max_iter=9), 1.0, ""),
        (Policy("fixed", 0.1, max_iter=9), 1.0, ""),
    ],
)
def test_a_rate_that_is_0_is_said_before_the_first_iteration(policy: Policy, lr_mult: float, says: str) -> None:
    said = list(unmoved(policy, [learned(lr_mult)]))
    assert len(said) == bool(says)
    assert all(says in one for one in said)
    if (begin := zero_from(policy)) is not None:
        step = 0
        rates = []
        for at in range(policy.max_iter):
            step = step_of(policy, at, step)
            rates.append(rate_of(policy, at, step))
        assert all(rates[:begin])
        assert not any(rates[begin:])


def test_a_bar_has_the_parts_that_fit_the_first_ones_first() -> None:
    parts = ["loss 0.5", "lr 0.01", "", "waiting for data 5 %", "test: accuracy 0.5"]
    assert training.fitted(parts, 100) == "loss 0.5  lr 0.01  waiting for data 5 %  test: accuracy 0.5"
    assert training.fitted(parts, 38) == "loss 0.5  lr 0.01  test: accuracy 0.5"
    assert training.fitted(parts, 8) == "loss 0.5"
    assert training.fitted(parts, 7) == "lr 0.01"


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["net.prototxt"], "net.prototxt:1:1: syntax error", "it is the text of a net: give the solver"),
        (["test", "s.prototxt", "w"], "s.prototxt:1:1: syntax error", "it is the text of a solver: give the net"),
        (["time", "nope"], "nope cannot be read", "give the path of a solver's .prototxt, or of a net's"),
        (["test", "nope", "w"], "the net nope cannot be read", "a net with a data layer for phase TEST"),
    ],
)
def test_a_net_for_a_solver_and_a_file_that_is_not_there_are_named(
    words: list[str], says: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text('name: "a net"')
    Path("s.prototxt").write_text('net: "net.prototxt"')
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert hint in said


def test_a_terminal_shows_lines_and_a_bar_with_loss_speed_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    speed = training._Speed(0.0)
    said = [speed.said(Shown(at, 0.5, 0.01, at * 64, 0.1), at / 2) for at in range(1, 5)]
    assert said[-1] == ("loss 0.5", "lr 0.01", "128 images/s", "waiting for data 5 %")
    assert speed.said(Shown(5, 0.5, 0.01, 320, 0.1), 2.1) == ()
    with training.shown(live=False) as (write, show):
        write("a line\n")
        show(None, Shown(1, 0.5, 0.01, 64, 0.0))  # type: ignore[arg-type]
    assert capsys.readouterr().err == "a line\n"


def test_the_last_test_is_said_by_its_outputs_and_of_another_iteration_with_its_number() -> None:
    tested = training.Tested()
    assert tested.said() == tested.said(0) == ""
    tested.take({"step": 250, "kind": "train", "values": {"train/loss": 1.0}})
    assert tested.said() == ""
    tested.take({"step": 250, "kind": "test", "values": {"test/accuracy": 0.5, "test/prob/0": 0.1, "test/loss": 1.25}})
    tested.take({"step": 250, "kind": "test", "values": {"test1/loss": "nan"}})
    assert tested.said() == tested.said(250) == "test: accuracy 0.5, loss 1.25, test1/loss nan"
    tested.take({"step": 500, "kind": "test", "values": {"test/accuracy": 0.98371}})
    assert tested.said(600) == "test at iteration 500: accuracy 0.9837"


def test_a_missing_torch_names_the_script_that_installs_all_that_a_training_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SolverError, match="needs torch") as refused:
        start(1)
    assert refused.value.hint == "scripts/training.sh"


@pytest.mark.parametrize(
    ("words", "takes"),
    [
        ("test", "a net and its weights"),
        ("test net.prototxt", "a net and its weights"),
        ("time", "a solver or a net"),
        ("time a b", "a solver or a net"),
    ],
)
def test_a_command_of_two_words_says_what_it_lacks(words: str, takes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words.split()]) == 2
    said = capsys.readouterr().err
    assert f"hathi train {words.split()[0]} takes {takes}" in said


@pytest.mark.parametrize(("columns", "told"), [(100, False), (150, True)])
def test_the_bar_says_the_last_test_where_a_terminal_has_room_for_it(
    columns: int, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    tested = training.Tested()
    tested.take({"step": 1, "kind": "test", "values": {"test/accuracy": 0.5, "test/loss": 1.25}})
    solver = SimpleNamespace(max_iter=1000)
    with training.shown(True, tested) as (write, show):
        write("a line\n")
        show(solver, Shown(1000, 0.5, 0.01, 64, 0.0))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "a line" in said
    assert "1,000/1,000" in said, "the count stays"
    assert ("test: accuracy 0.5, loss 1.25" in said) is told
