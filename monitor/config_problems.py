"""Say what is wrong with a config file: where, why, and what to write instead.

Validation is pydantic's; this module turns its errors into one :class:`Problem` per mistake, with the dotted key as it is written
in the file, the line, and a hint: the key that was probably meant, the section it belongs to, or the allowed range with its unit.
Values are repeated in a message only where they cannot be a secret.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import msgspec
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from monitor.toml_lines import TomlPath, line_of

PROBLEMS_MAX = 200
"""More than a screenful helps nobody: a file of 1 MiB can hold some 200,000 wrong keys."""

_SUBJECT = re.compile(r"\b(?:Input|String|Value) should\b")
"""How messages of pydantic begin; ours have the key in front."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_KEY = re.compile(r"password|secret|token|credential|authorization|header|api_?key|user|url|uri", re.IGNORECASE)
_UNITS = {
    "ms": "milliseconds",
    "s": "seconds",
    "ns": "nanoseconds",
    "bytes": "bytes",
    "usd": "US dollars",
    "ratio": "a fraction: 0.01 is 1 %",
    "share": "a fraction: 0.01 is 1 %",
    "bps": "basis points: 1 is 0.01 %",
}


class Problem(msgspec.Struct, frozen=True):
    """One mistake; ``line`` is ``None`` when it belongs to no line (the file is missing, or lacks a whole section)."""

    line: int | None
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        what = f"{self.key}: {self.message}" if self.key else self.message
        return f"{where}{what}" + (f" ({self.hint})" if self.hint else "")


def dotted(path: TomlPath) -> str:
    """Write ``path`` as an operator would, e.g. ``venues[0].symbols[2]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = step if _BARE_KEY.fullmatch(step) else '"' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{key}" if text else key
    return text


def problems_from(
    errors: Sequence[ErrorDetails], root: type[BaseModel], document: Mapping[str, Any], lines: dict[TomlPath, int]
) -> list[Problem]:
    """Translate pydantic's ``errors`` about ``document``, which was validated as ``root``."""
    paths = [_path(error, document) for error in errors]
    # A market's rules inherit the general ones, and with them their mistakes; those are told once, where they are written.
    written = {
        (error["type"], error["msg"]) for error, path in zip(errors, paths, strict=True) if path and error["loc"][-1] == path[-1]
    }
    problems = []
    for error, path in zip(errors, paths, strict=True):
        if error["type"] == "too_short" and error["input"]:
            continue  # items were there, but each of them was wrong, which is told elsewhere
        if path and error["loc"][-1] != path[-1] and (error["type"], error["msg"]) in written:
            continue
        field = field_at(root, path, document)
        models = models_at(root, path[:-1], document)
        hint = _hint(error, path, root, models, field)
        problems.append(Problem(line_of(lines, path), dotted(path), _message(error, path, field), hint))
    return problems


def document_path(location: tuple[str | int, ...], document: object, *, missing: bool = False) -> TomlPath:
    """Drop from pydantic's ``location`` what is not in the document: names of union members and of validators.

    The last step of a ``missing`` key is kept although the document lacks it.
    """
    path: TomlPath = ()
    value = document
    for position, step in enumerate(location):
        if isinstance(value, Mapping) and step in value:
            value = value[str(step)]
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        elif not (missing and position == len(location) - 1):
            continue
        path = (*path, step)
    return path


def _path(error: ErrorDetails, document: object) -> TomlPath:
    path = document_path(error["loc"], document, missing=error["type"] == "missing")
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path = (*path, str(error["ctx"]["discriminator"]).strip("'"))
    return path


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models inside of unions, tuples, lists and other wrappers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models_in(argument)


def models_at(root: type[BaseModel], path: TomlPath, document: object) -> list[type[BaseModel]]:
    """List the models that the table at ``path`` may be validated as: several for a union whose ``type`` is not given."""
    models = [root]
    value = document
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else _item(value, step)
        if isinstance(step, str):
            named = [model.model_fields[step].annotation for model in models if step in model.model_fields]
            # In a table of tables with free names, the name in between is no field: the models stay those of the values.
            models = [inner for annotation in named for inner in _models_in(annotation)] or models
        if isinstance(value, Mapping) and "type" in value:
            models = [model for model in models if value["type"] in _tags([model])] or models
    return models


def _item(value: object, step: str | int) -> object:
    is_item = isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)
    return value[step] if is_item else None  # type: ignore[index]


def field_at(root: type[BaseModel], path: TomlPath, document: object) -> FieldInfo | None:
    """Return the field that ``path``, or an item of it, is a value of."""
    names = [position for position, step in enumerate(path) if isinstance(step, str)]
    if not names:
        return None
    name = str(path[names[-1]])
    for model in models_at(root, path[: names[-1]], document):
        if name in model.model_fields:
            return model.model_fields[name]
    return None


def _message(error: ErrorDetails, path: TomlPath, field: FieldInfo | None) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "required, but missing"
        case "model_type" | "dict_type" | "model_attributes_type":
            text = "must be a table"
        case "finite_number":
            text = "must be a finite number"
        case "tuple_type" | "list_type":
            text = "must be a list"
        case "union_tag_not_found":
            return "required, but missing"
        case "union_tag_invalid":
            return f"must be one of {error['ctx']['expected_tags']}, not {error['ctx']['tag']!r}"
        case "too_short":
            return "must not be empty"
        case "too_long":
            return f"holds {error['ctx']['actual_length']} items, more than {error['ctx']['max_length']}"
        case _:
            text = _SUBJECT.sub("must", error["msg"].removeprefix("Value error, "))
    return text + _shown(error["input"], path, field)


def _shown(value: object, path: TomlPath, field: FieldInfo | None) -> str:
    """Repeat a short plain value, unless its name or type says that it may hold a secret."""
    secret = any(isinstance(step, str) and _SECRET_KEY.search(step) for step in path) or "Secret" in repr(
        field.annotation if field else ""
    )
    if secret or not isinstance(value, str | int | float):
        return ""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return f", not {text if len(text) <= 60 else text[:57] + '...'}"


def _hint(
    error: ErrorDetails, path: TomlPath, root: type[BaseModel], models: Sequence[type[BaseModel]], field: FieldInfo | None
) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_key_hint(root, models, str(path[-1]))
    if error["type"] in {"tuple_type", "list_type"} and isinstance(error["input"], Mapping):
        return f"write [[{dotted(path)}]], with double brackets"
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"write [{dotted(path)}] on a line of its own, and its keys below"
    if error["type"] == "value_error":
        return ""  # raised by our own checks, which say it all
    context = error.get("ctx", {})
    expected = str(context.get("expected", context.get("expected_tags", "")))
    if error["type"] == "union_tag_not_found":
        return f"one of {', '.join(sorted(_tags(models)))}"
    close = _closest(str(context.get("tag", error["input"])), re.findall(r"'([^']+)'", expected))
    return f"did you mean {close}?" if close else describe_field(str(path[-1]) if path else "", field)


def _unknown_key_hint(root: type[BaseModel], models: Sequence[type[BaseModel]], name: str) -> str:
    """Guess what an unknown key was meant to be: a neighbour of a similar name, or a key of another section."""
    known = sorted({field for model in models for field in model.model_fields})
    close = _closest(name, known)
    homes = [
        section
        for section, fields in _sections(root).items()
        if name in fields and not any(model.model_fields is fields for model in models)
    ]
    # A name that one other section has was put into the wrong place; one that several have does not say where it belongs.
    if close and len(homes) != 1:
        return f"did you mean {close}?"
    if homes:
        return f"it belongs in {homes[0]}" if homes[0] else "it belongs at the top of the file, before the first section"
    return f"known here: {', '.join(known)}"


def _tags(models: Sequence[type[BaseModel]]) -> set[str]:
    """Return what ``type`` may say in these models: each has a literal there."""
    return {tag for model in models if "type" in model.model_fields for tag in get_args(model.model_fields["type"].annotation)}


def _closest(name: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return matches[0] if matches else ""


def _sections(root: type[BaseModel], prefix: str = "") -> dict[str, dict[str, FieldInfo]]:
    """Map the header of each section to its fields; sections that are lists are written with double brackets."""
    sections = {f"[{prefix}]" if prefix else "": root.model_fields}
    for name, field in root.model_fields.items():
        inner = f"{prefix}.{name}" if prefix else name
        is_model = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for model in _models_in(field.annotation):
            if is_model:
                sections.update(_sections(model, inner))
            else:
                sections.setdefault(f"[[{inner}]]", model.model_fields)
    return sections


def describe_field(key: str, field: FieldInfo | None) -> str:
    """Describe what ``key`` takes: the field's own description, or its bounds and unit, and its default."""
    if field is None:
        return ""
    description = (field.description or "").replace("``", "").removesuffix(".")
    parts = [description] if description else [_bounds(field), _UNITS.get(key.rpartition("_")[2], "")]
    default = field.default
    if isinstance(default, int | float | str) and default != "" and not (isinstance(default, float) and math.isinf(default)):
        parts.append(f"default {str(default).lower() if isinstance(default, bool) else default}")
    return "; ".join(part for part in parts if part)


def _bounds(field: FieldInfo) -> str:
    found = {name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{words[name]} {found[name]}" for name in words if name in found)


def most_important(problems: Sequence[Problem]) -> list[Problem]:
    """Sort by line, drop repetitions, and cut the list where it stops being read."""
    unique = dict.fromkeys(sorted(problems, key=lambda problem: problem.line or 0))
    listed = list(unique)
    if len(listed) <= PROBLEMS_MAX:
        return listed
    rest = Problem(None, "", f"and {len(listed) - PROBLEMS_MAX} more problems")
    return [*listed[:PROBLEMS_MAX], rest]
