"""What the docstring below each setting says, read out of the source when somebody asks.

Pydantic can collect these itself (`use_attribute_docstrings`), but does so at each import of the settings: a fifth of a
second of processor time for each program that Hathi starts, and hardly one of them prints the words.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def words_of(model: type[BaseModel]) -> dict[str, str]:
    """The words of each setting of a table, by its name; a table has those of the table it extends, too."""
    told: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if part is not BaseModel and issubclass(part, BaseModel):
            told |= _own_words(part)
    return told


def _own_words(model: type[BaseModel]) -> dict[str, str]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    told = {}
    for setting, below in pairwise(body.body):
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name) and isinstance(below, ast.Expr):
            words = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(words, str):
                told[setting.target.id] = inspect.cleandoc(words)
    return told
