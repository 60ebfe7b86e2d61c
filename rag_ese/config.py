"""Strict configuration: one model per command is the only place where an option is defined.

The command line's flags, the YAML keys, the defaults, the help texts and the checks all come from the same fields.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from rag_ese.errors import ConfigError

Model = TypeVar("Model", bound="StrictModel")

POSITIONAL: dict[str, Any] = {"positional": True}
"""As a field's `json_schema_extra`: the field is given by its place on the command line, not by a flag."""


class StrictModel(BaseModel):
    """A configuration whose unknown keys are errors. Every field carries a description: it becomes the help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def add_arguments(parser: argparse.ArgumentParser, model: type[StrictModel]) -> None:
    """Adds one flag per field of `model` (`top_k` becomes `--top-k`), and `--config` for a YAML file of the keys."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML file with these options as keys")
    for name, field in _by_key(model).items():
        default = "" if field.is_required() or field.default in (None, "") else f" (default: {field.default})"
        text = f"{field.description}{default}".replace("%", "%%")
        if field.json_schema_extra == POSITIONAL:
            parser.add_argument(name, metavar=name.upper(), help=text)
            continue
        arguments: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        if field.annotation is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["metavar"] = name.split("_")[-1].upper()
        parser.add_argument("--" + name.replace("_", "-"), **arguments)


def from_arguments(model: type[Model], arguments: argparse.Namespace) -> Model:
    """The configuration of a parsed command line: the file's keys, overridden by the flags that were given."""
    given = {name: value for name, value in vars(arguments).items() if name in _by_key(model)}
    return load(model, arguments.config, given)


def load(model: type[Model], path: Path | None = None, overrides: dict[str, Any] | None = None) -> Model:
    """Reads and checks a configuration. Raises ConfigError with one sentence that names the key and its remedy."""
    values = {**(read_yaml(path) if path else {}), **(overrides or {})}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(model, error, path, overrides or {})) from error


def _by_key(model: type[StrictModel]) -> dict[str, FieldInfo]:
    """The fields under the names that users write."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a configuration file, unchecked. Raises ConfigError for what is no YAML file of keys."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8, or a date that there is not
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, not a list of key: value lines")
    return content


def _sentence(model: type[StrictModel], error: ValidationError, path: Path | None, overrides: dict[str, Any]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or model.__name__
    where = f" in {path}" if path and set(first["loc"][:1]).isdisjoint(overrides) else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{where}: the keys are {', '.join(_by_key(model))}"
    if first["type"] == "missing":
        field = _by_key(model).get(key)  # None for a key inside of another
        return f"{key}{where} is not given{f': {field.description}' if field else ''}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{key}{where}: {message[:1].lower()}{message[1:]}{shown}"
