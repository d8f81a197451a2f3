"""Every setting with its words and its default, as a configuration file: `config/reference.toml`.

The models are the source: a field's docstring says what it is, why one would change it, and the unit; `examples` give a
value where the default is none.  Nothing here knows a setting by name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.settings import Settings
from pipeline.settings.words import words_of
from pipeline.settings.written import toml_key, toml_value

HEAD = """\
# This file explains every setting. `hathi config reference` prints it; the texts are in pipeline/settings.
#
# A line that is commented out shows the default of a setting, or an example if there is no default. You must set a
# line that is not commented out. Your own file sets only what differs: see local.toml, gateway.toml and compute.toml.
# `hathi config show --config FILE` prints each value and where it comes from; `hathi config check --config FILE` says
# what would not work on this host.
#
# Paths are relative to the folder of the file. Each setting is also an environment variable, which wins over the file:
# HATHI_ and the key with double underscores, for example HATHI_FETCH__SHARE=0.5. Write lists and tables as JSON there.
"""
WIDTH = 118
_MEBI = 2**20


def reference() -> str:
    """The text of `config/reference.toml`."""
    return "\n".join([HEAD.rstrip("\n"), *_table(Settings, "", {})]) + "\n"


def _table(model: type[BaseModel], name: str, told: dict[type[BaseModel], str]) -> Iterator[str]:
    """A table's settings, then the tables in it.  told: models that stand above already, and where."""
    for key, field in model.model_fields.items():
        if _model_in(field) is None:
            yield ""
            yield from _entry(key, field, words_of(model).get(key, ""))
    for key, field in model.model_fields.items():
        below = _model_in(field)
        if below is None:
            continue
        inner = f"{name}.{key}" if name else key
        off = ""
        if _is(field, dict):
            name_of_one = _example(field)
            inner = f"{inner}.{toml_key(name_of_one)}"
            if not any(one.is_required() for one in below.model_fields.values()):
                off = "# "  # a table that sets nothing would still be one
        title = off + (f"[[{inner}]]" if _is(field, list) else f"[{inner}]")
        yield ""
        yield ""
        yield from _comment(words_of(model).get(key) or _told(below))
        yield title
        if below in told:
            yield f"# The settings of [{told[below]}]."
        else:
            told[below] = inner
            yield from _table(below, inner, told)


def _entry(key: str, field: FieldInfo, told: str) -> Iterator[str]:
    words = " ".join(told.split())
    if field.is_required():
        yield from _comment(words)
        yield f"{key} = {toml_value(_example(field))}"
    elif field.default is None:
        yield from _comment(f"{words} Default: none.")
        yield f"# {key} = {toml_value(_example(field))}"
    else:
        size = f" Default: {field.default // _MEBI:,} MiB." if key.endswith("_bytes") and field.default >= _MEBI else ""
        yield from _comment(f"{words}{size}")
        yield f"# {key} = {toml_value(field.default)}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _told(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip()


def _example(field: FieldInfo) -> Any:
    if not field.examples:
        raise ValueError(f"a setting without a default needs an example: {field!r}")
    return field.examples[0]


def _is(field: FieldInfo, kind: type) -> bool:
    return getattr(field.annotation, "__origin__", None) is kind


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a setting that is a table, a list of tables, or tables by name."""
    for part in (field.annotation, *get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
