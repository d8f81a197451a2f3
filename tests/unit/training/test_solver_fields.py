"""docs/training.md has each field of a solver, with its default, and says what is refused of it: no more, no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.training import solver
from pipeline.training.rates import POLICIES
from pipeline.training.updates import SOLVERS

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
FIELDS: list[Any] = list(caffe_pb2.SolverParameter.DESCRIPTOR.fields)
PLAIN = {"net": '"net.prototxt"', "base_lr": "0.1", "lr_policy": '"fixed"'}
NET = 'name: "n" layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } }'
REFUSED: dict[str, list[dict[str, str]]] = {
    "net": [{"net": "", "test_iter": "1"}, {"train_net": '"net.prototxt"'}],
    "net_param": [{"net_param": "{ }"}],
    "train_net": [{"train_net": '"net.prototxt"'}],
    "train_net_param": [{"train_net_param": "{ }"}],
    "test_net": [{"test_net": '"net.prototxt"', "test_interval": "1"}],
    "test_net_param": [{"test_net_param": "{ }", "test_interval": "1"}],
    "test_iter": [{"test_iter": "-1", "test_interval": "1"}],
    "test_interval": [{"test_interval": "-1"}, {"test_iter": "1"}],
    "test_state": [{"test_state": "{ }"}],
    "type": [{"type": '"AdamW"'}],
    "solver_type": [{"solver_type": "ADAM", "type": '"Adam"'}],
    "base_lr": [{"base_lr": "-1"}],
    "lr_policy": [{"lr_policy": '"stairs"'}, {"lr_policy": ""}],
    "gamma": [{"gamma": "-1"}],
    "stepsize": [{"stepsize": "-1"}, {"lr_policy": '"step"'}, {"lr_policy": '"sigmoid"'}],
    "max_iter": [{"max_iter": "-1"}],
    "iter_size": [{"iter_size": "0"}],
    "momentum": [{"type": '"AdaGrad"', "momentum": "0.9"}, {"type": '"RMSProp"', "momentum": "0.9"}],
    "rms_decay": [{"type": '"RMSProp"', "rms_decay": "1"}, {"type": '"RMSProp"', "rms_decay": "-0.5"}],
    "regularization_type": [{"regularization_type": '"L3"'}],
    "display": [{"display": "-1"}],
    "average_loss": [{"average_loss": "0"}],
    "snapshot": [{"snapshot": "-1"}],
}
"""Of each field, solvers that are refused because of it: what they say beside, or in place of, a plain one."""


def rows() -> dict[str, tuple[str, str]]:
    """(default, what it says) of each field in the table."""
    section = PAGE.partition("\n## The fields of a solver\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"
    ]
    assert all(len(row) == 3 for row in cells)
    assert len({row[0] for row in cells}) == len(cells)
    return {row[0].strip("`"): (row[1], row[2]) for row in cells}


def default(field: Any) -> str:
    """As a person writes it; nothing where the schema has none."""
    if not field.has_default_value:
        return ""
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[field.default_value].name)
    value = field.default_value
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def read(tmp_path: Path, more: dict[str, str]) -> solver.Solver:
    text = "\n".join(
        f"{name}{'' if value[:1] == '{' else ':'} {value}" for name, value in {**PLAIN, **more}.items() if value
    )
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(text)
    return solver.read(tmp_path / "solver.prototxt")


def test_the_table_has_each_field_of_the_schema_and_its_default() -> None:
    table = rows()
    assert sorted(table) == sorted(field.name for field in FIELDS)
    assert {field.name: table[field.name][0] for field in FIELDS} == {field.name: default(field) for field in FIELDS}


def test_the_table_names_each_solver_each_policy_and_each_form() -> None:
    table = rows()
    assert re.findall(r"`(\w+)`", table["type"][1]) == list(SOLVERS)
    assert sorted(re.findall(r"`(\w+)`", table["lr_policy"][1])) == sorted(POLICIES)
    forms = caffe_pb2.SolverParameter.SnapshotFormat.keys()
    assert sorted(re.findall(r"`(\w+)`", table["snapshot_format"][1])) == sorted(forms)


def test_the_table_says_of_which_fields_something_is_refused() -> None:
    assert sorted(name for name, (_, says) in rows().items() if "refused" in says) == sorted(REFUSED)


@pytest.mark.parametrize(("field", "more"), [(name, one) for name, cases in REFUSED.items() for one in cases])
def test_what_the_table_calls_refused_is_refused(
    field: str, more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read(tmp_path, {})
    with pytest.raises(SolverError) as refused:
        read(tmp_path, more)
    said = f"{refused.value.message} {refused.value.detail}"
    assert re.search(rf"\b{field}\b|solver type|{field.removesuffix('_param')} nets?\b", said), said


@pytest.mark.parametrize(
    "field", [one.name for one in FIELDS if one.cpp_type in (one.CPPTYPE_FLOAT, one.CPPTYPE_DOUBLE)]
)
def test_numbers_that_are_not_finite_are_refused(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(SolverError, match=field):
            read(tmp_path, {field: value})
