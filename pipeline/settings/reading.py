"""Reads settings from a TOML file, the environment and options, and says where each value came from.

It knows no setting by name: the models in `settings` say what there is and which values are paths.
"""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.errors import ConfigError
from pipeline.settings.words import words_of

PREFIX = "HATHI_"
DELIMITER = "__"
SYSTEM_NAME = "hathi"
"""The folder under /var/lib of a configuration whose own folder has no name to give."""
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Located:
    """Marks a setting that is a path: it is made absolute when it is read; a URL is left as it is."""


FilePath = Annotated[str, Located()]


@dataclass(frozen=True, slots=True)
class Effective:
    """What is valid: values as a tree ready for validation, and for each dotted key where it came from."""

    values: dict[str, Any]
    origins: dict[str, str]
    place: str
    """What to name when a value is missing: the file, or `settings` when there is none."""

    def origin(self, key: str) -> str:
        """The file, variable or option that set a key or a table around it; `default` when none did."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return "default"


def read(
    model: type[BaseModel], path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> Effective:
    """The file, over it the environment, over that the overrides (nested, or with dotted keys); not validated yet.

    Paths become absolute: those of the file, and all defaults, relative to the file's folder; those of the
    environment and of overrides relative to the current folder.  Defaults of a file among those of the system lie where
    the system keeps data.  Raises ConfigError: no such file, invalid TOML.
    """
    here = Path.cwd()
    home = path.resolve().parent if path else here / "config"
    own = _home_of_defaults(home, environ)
    from_file = _locate(model, _parse(path), home) if path else {}
    from_environ = _locate(model, _environment(model, environ), here)
    from_options = _locate(model, _nested(overrides), here)
    origins = dict.fromkeys(_keys(from_file), str(path))
    origins |= {key: _variable(key, environ) for key in _keys(from_environ)}
    origins |= dict.fromkeys(_keys(from_options), "option")
    values = _locate(model, _default_paths(model), own)
    for layer in (from_file, from_environ, from_options):
        values = _merge(values, layer)
    return Effective(values, origins, str(path) if path else "settings")


def _home_of_defaults(home: Path, environ: Mapping[str, str]) -> Path:
    """The folder to which default paths, such as `../state`, are relative.

    That of the file; but `..` of a file under /etc, in a folder at the top of the file system or in a person's
    ~/.config is no place for what a program writes.  home: the file's folder, absolute.
    """
    person = Path(environ.get("HOME") or Path.home())
    settings = Path(environ.get("XDG_CONFIG_HOME") or person / ".config")
    data = Path("/var/lib")
    for top in (Path("/etc"), settings):
        if home.is_relative_to(top):
            parts = home.relative_to(top).parts
            if top == settings:
                data = Path(environ.get("XDG_STATE_HOME") or person / ".local" / "state")
            return data / (parts[0] if parts else SYSTEM_NAME) / "config"
    return data / SYSTEM_NAME / "config" if home.parent == Path("/") else home


def validate(model: type[Model], effective: Effective, section: str = "") -> Model:
    """The values as a model; `section` names the table that the model is.  Raises ConfigError for each wrong key."""
    values = effective.values.get(section, {}) if section else effective.values
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, effective, section, values, error) from None


def secret(annotation: object) -> bool:
    """Whether a setting of this type is, or holds, one that nobody prints."""
    parts = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        parts = tuple(field.annotation for field in annotation.model_fields.values())
    return annotation is SecretStr or any(secret(part) for part in parts)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="name a configuration that exists: --config FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read", str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: not valid TOML",
            str(error),
            "text values need quotes; config/reference.toml has an example of every setting",
        ) from error


def _environment(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    for name in sorted(environ):
        first, nested, _ = name.removeprefix(PREFIX).lower().partition(DELIMITER)
        if name.startswith(PREFIX) and nested and first not in model.model_fields:
            guess = _nearest(first, list(model.model_fields))
            raise ConfigError(
                f"environment variable {name}: unknown section {first}",
                f"sections: {', '.join(model.model_fields)}",
                f"did you mean {PREFIX}{guess.upper()}{DELIMITER}...?" if guess else "unset it",
            )
    if not any(name.upper().startswith(PREFIX) for name in environ):
        return {}
    from pipeline.settings.environment import values_of  # an eighth of a second to import, for a few hosts

    return values_of(model, environ)


def _variable(key: str, environ: Mapping[str, str]) -> str:
    """The name of the variable that set a key: its own, or that of a table around it, given as JSON."""
    names = {name.upper(): name for name in environ}
    parts = key.upper().split(".")
    for length in range(len(parts), 0, -1):
        if (name := PREFIX + DELIMITER.join(parts[:length])) in names:
            return names[name]
    return "environment"


def _nested(overrides: Mapping[str, object]) -> dict[str, Any]:
    """Overrides as a tree: `{"fetch.share": 0.5}` and `{"fetch": {"share": 0.5}}` say the same."""
    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = _merge(tree, value)  # type: ignore[arg-type]
    return tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all leaves; an empty table is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _default_paths(model: type[BaseModel]) -> dict[str, Any]:
    """Defaults that are paths, as a tree."""
    tree: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            if below := _default_paths(type(field.default)):
                tree[name] = below
        elif isinstance(field.default, str) and _is_path(field.annotation, field.metadata):
            tree[name] = field.default
    return tree


def _is_path(annotation: object, metadata: list[Any]) -> bool:
    parts = [*metadata, *(part for member in _members(annotation) for part in getattr(member, "__metadata__", ()))]
    return any(isinstance(part, Located) for part in parts)


def _members(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _locate(annotation: object, value: Any, base: Path, metadata: list[Any] | None = None) -> Any:
    """The value with each path in it made absolute; what does not fit its type is left for validation."""
    if isinstance(value, str):
        if not _is_path(annotation, metadata or []) or "://" in value or not value:
            return value
        return os.path.abspath(base / Path(value).expanduser())
    for member in _members(annotation):
        if isinstance(value, Mapping) and isinstance(member, type) and issubclass(member, BaseModel):
            fields = member.model_fields
            return {
                key: _locate(fields[key].annotation, below, base, fields[key].metadata) if key in fields else below
                for key, below in value.items()
            }
        if isinstance(value, Mapping) and get_origin(member) is dict:
            return {key: _locate(get_args(member)[1], below, base) for key, below in value.items()}
    return value


def _explain(
    model: type[BaseModel], effective: Effective, section: str, values: Mapping[str, Any], error: ValidationError
) -> ConfigError:
    """The first wrong setting as the message, with what is allowed; the others follow in the detail."""
    findings = [_finding(model, effective, section, values, dict(one)) for one in error.errors(include_url=False)]
    message, allowed, hint = findings[0]
    others = "".join(f"; also {other}: {why}" for other, why, _ in findings[1:])
    return ConfigError(message, allowed + others, hint)


def _finding(
    model: type[BaseModel], effective: Effective, section: str, values: Mapping[str, Any], error: dict[str, Any]
) -> tuple[str, str, str]:
    """(what and where, what is allowed, hint) of one error of validation."""
    parts = _existing(values, error["loc"], missing=error["type"] == "missing")
    if pointed := (error.get("ctx") or {}).get("parts"):  # a rule over several settings says which one is wrong
        parts = list(pointed)
        error["input"] = functools.reduce(lambda tree, part: tree[part], parts, values)
    key = ".".join(map(str, [section, *parts] if section else parts))
    place = effective.origin(key)
    if place == "default":
        place = effective.place
    owner = _model_at(model, parts[:-1])
    if error["type"] == "extra_forbidden" and owner is not None:
        known = list(owner.model_fields)
        before = key.rpartition(".")[0]
        guess = _nearest(str(parts[-1]), known)
        full = _elsewhere(model, str(parts[-1])) or (f"{before}.{guess}" if before and guess else guess)
        return (
            f"{place}: unknown key {key}",
            f"allowed{f' in {before}' if before else ''}: {', '.join(known)}",
            f"did you mean {full}?" if full else "remove it",
        )
    if error["type"] == "missing":
        return f"{place}: {key} is missing", _meaning(owner, parts), "set it in the file, or as a variable"
    if error["loc"] and error["loc"][-1] == "[key]":
        return (
            f"{place}: {key} is not an allowed name",
            "allowed: a to z, 0 to 9, - and _, at most 63, no - or _ first",
            "rename it",
        )
    hint = (
        "write lists and tables as JSON in variables, for example [80, 443]"
        if place.startswith(PREFIX) and "list" in error["type"]
        else ""
    )
    return f"{place}: {key}{_shown(owner, parts, error)}", error["msg"], hint


def _shown(owner: type[BaseModel] | None, parts: list[Any], error: dict[str, Any]) -> str:
    """` = value`, unless the value may be or hold a secret."""
    field = owner.model_fields.get(str(parts[-1])) if owner and parts else None
    table = error["type"] in ("model_type", "dict_type", "model_attributes_type")
    if table or (field is None and owner is not None) or (field is not None and secret(field.annotation)):
        return " is wrong"
    text = repr(error["input"])
    return f" = {text if len(text) <= 100 else text[:100] + '...'} is wrong"


def _existing(values: Any, loc: tuple[int | str, ...], missing: bool) -> list[Any]:
    """The part of an error's place that is in the values: without the names of a union's branches."""
    parts: list[Any] = []
    for part in loc:
        within = isinstance(values, Mapping) and part in values
        if within or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            values = values[part]
        elif not (missing and part == loc[-1]):
            continue
        parts.append(part)
    return parts


def _model_at(model: type[BaseModel], parts: list[Any]) -> type[BaseModel] | None:
    """The model whose fields are allowed under a key, or None under a list of plain values."""
    annotation: object = model
    for part in parts:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            annotation = get_args(annotation)[-1] if get_args(annotation) else None
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _meaning(owner: type[BaseModel] | None, parts: list[Any]) -> str:
    return words_of(owner).get(str(parts[-1]), "").replace("\n", " ") if owner and parts else ""


def _nearest(word: str, known: list[str]) -> str:
    return next(iter(difflib.get_close_matches(word, known, 1, 0.6)), "")


def _elsewhere(model: type[BaseModel], name: str) -> str:
    """A key of this name in another section, dotted."""
    for section, field in model.model_fields.items():
        if isinstance(field.default, BaseModel) and name in type(field.default).model_fields:
            return f"{section}.{name}"
    return ""
