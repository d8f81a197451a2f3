"""A body with very many errors is told as one: each that is told costs the server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.servers.databases import needs_the_extra

needs_the_extra()

from pipeline.service.http.classifiers import ClassifierGiven  # noqa: E402
from pipeline.service.http.documents import MOST_ERRORS, MOST_FIELDS, Given  # noqa: E402
from pipeline.service.http.training_jobs import JobGiven  # noqa: E402

JOB = {"name": "n", "solver_id": "so_00000000000000000000000000"}


def _errors(model: type[Given], body: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as found:
        model.model_validate(body)
    return [one["msg"] for one in found.value.errors(include_url=False)]


def test_a_body_of_very_many_errors_has_one_and_a_few_are_each_told() -> None:
    unknown = {f"f{n}": n for n in range(100_000)}
    said = f"Value error, an object has 100000 fields; the most is {MOST_FIELDS}"
    assert _errors(JobGiven, unknown) == [said]
    assert _errors(JobGiven, {**JOB, "inputs": unknown}) == [said]
    (labels,) = _errors(ClassifierGiven, {"name": "n", "labels": [1] * 100_000})
    assert labels == "Value error, 100000 things in it are not as the document has them"
    few = _errors(JobGiven, {**JOB, **{f"f{n}": n for n in range(MOST_ERRORS)}})
    assert few == ["Extra inputs are not permitted"] * MOST_ERRORS
