"""The fields of a plugin's configuration, in words: read from its JSON Schema."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..plugins import Plugin

__all__ = ["Field", "fields_of", "resolved", "summary_of"]

MAX_DEPTH = 4
"""Objects in objects are described so deeply. A type may contain itself."""
_NUMBERS = ("integer", "number")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a configuration.

    Attributes:
        name: Its name; of a field in an object as ``keys[].secret``.
        type: What it takes, as ``integer, 1 to 100``.
        required: Whether each configuration has it.
        default: What it is where it is left out, as JSON; None: it has no default.
        description: What its author says of it; may be empty.
    """

    name: str
    type: str
    required: bool
    default: str | None
    description: str


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a configuration, those of objects in it behind the field that holds them.

    Args:
        schema: The JSON Schema of the configuration (`Plugin.describe`).
    """
    return list(_fields(schema, schema.get("$defs", {}), "", MAX_DEPTH))


def _fields(schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Field]:
    required = set(schema.get("required", ()))
    for name, each in schema.get("properties", {}).items():
        default = None if name in required or "default" not in each else each["default"]
        yield Field(
            prefix + name,
            _type(each, defs),
            name in required,
            None if default is None else json.dumps(default, ensure_ascii=False),
            " ".join(resolved(each, defs).get("description", "").split()) if "description" not in each
            else " ".join(each["description"].split()),
        )  # fmt: skip
        if depth > 1:
            for suffix, inner in _objects(each, defs):
                yield from _fields(inner, defs, f"{prefix}{name}{suffix}.", depth - 1)


def _objects(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the objects with fields that a value holds, each with what stands between its name and theirs."""
    schema = resolved(schema, defs)
    if schema.get("properties"):
        yield "", schema
    for each in _choices(schema):
        yield from _objects(each, defs)
    if isinstance(schema.get("items"), dict):
        for suffix, inner in _objects(schema["items"], defs):
            yield f"[]{suffix}", inner


def resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema, or that in `defs` that it refers to."""
    reference = schema.get("$ref")
    return defs.get(reference.rpartition("/")[2], {}) if isinstance(reference, str) else schema


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _type(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """Say what a value may be."""
    schema = resolved(schema, defs)
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " or ".join(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
    choices = [each for each in _choices(schema) if each != {"type": "null"} or "default" not in schema]
    if choices:
        return " or ".join(dict.fromkeys(_type(each, defs) for each in choices))
    kind = schema.get("type")
    if kind in _NUMBERS:
        return f"{kind}{_range(schema)}"
    if kind == "string":
        return "secret text" if schema.get("format") == "password" else "text"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        items = schema.get("items")
        return f"list of {_type(items, defs)}" if isinstance(items, dict) and items else "list"
    if kind == "object":
        return _object(schema, defs)
    return "null" if kind == "null" else "anything"


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if schema.get("properties"):
        return "object"
    values = [schema["additionalProperties"]] if isinstance(schema.get("additionalProperties"), dict) else []
    values += schema.get("patternProperties", {}).values()
    kinds = list(dict.fromkeys(_type(each, defs) for each in values))
    return f"object, name → {' or '.join(kinds)}" if kinds else "object"


def _range(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = []
    if least is not None and most is not None:
        return f", {least} to {most}"
    for word, bound in (("from", least), ("above", above), ("to", most), ("below", below)):
        words += [] if bound is None else [f"{word} {bound}"]
    return ", " + " ".join(words) if words else ""


def summary_of(plugin: Plugin) -> str:
    """Return the first paragraph of what its author says of a plugin, on one line; may be empty.

    That is the docstring of the mounted function or class; an inherited one does not count.
    """
    found = plugin.found
    while isinstance(found, partial):
        found = found.func
    named = inspect.isclass(found) or inspect.isroutine(found)
    text = found.__doc__ if named else None
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split()) if text else ""
