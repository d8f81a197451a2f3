"""What schemathesis looks for beside its own checks, as it loads it (SCHEMATHESIS_HOOKS)."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, Response

UNFIT = "the request does not fit the document"
"""Of what FastAPI's own validation refused; any other 422 is of what is there, or of texts."""


@schemathesis.check
def what_the_document_allows_fits_it(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """So that a 422 for what is not there, which no document can say, hides no 422 of a document that is wrong."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or response.status_code != 422:
        return
    named = {f"#/{name}" for name in case.path_parameters or {}}  # it tries ids of one kind where another's stand
    said = response.json()
    assert said["detail"] != UNFIT or all(one["pointer"] in named for one in said["errors"]), response.text


@schemathesis.check
def nothing_of_the_service_is_told(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """No path, no trace, no table, no key of the bucket."""
    for word in ("Traceback", "site-packages", ".py", "bare_", "sqlite", "asyncpg", '"s/te_'):
        assert word not in response.text, (word, response.text[:500])
