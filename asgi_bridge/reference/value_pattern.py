r"""A regular expression for the text of a configuration, made of its JSON Schema.

To APISIX a configuration is a string. JSON Schema can say that the string holds JSON, and what that JSON has to be
(``contentMediaType``, ``contentSchema``), but validators do not check it, and editors do not read it. All of them check
a ``pattern``. So the names of fields, the types and the values of enumerations become a pattern; bounds of numbers and
of lengths do not. The pattern rejects no text that the schema accepts, unless the text is nested absurdly deeply.

The pattern is in the common part of the regular expressions of ECMAScript (with and without its flag ``u``) and Python.
At each point the next character decides which branch can match, so no text makes a search run away.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .fields import resolved

__all__ = ["pattern_of"]

MAX_LENGTH = 20_000
"""Maximum length of a pattern, in characters. What would be longer is made with less depth."""
DEPTHS = (6, 4, 3, 2, 1)
"""Levels of objects and lists that a pattern looks into: the first with which it is short enough."""
NESTED = 8
"""Levels of objects and lists in a value of any type."""

_BLANKS = r"[ \t\r\n]*"
_STRING = r'"(?:[^"\\]|\\[\s\S])*"'
_PLAIN = r'"[^"\\]*"'
"""A string without an escape."""
_ESCAPED = r'"[^"\\]*\\[\s\S](?:[^"\\]|\\[\s\S])*"'
"""A string with an escape. It may be any other string, written in another way."""
_REFERENCE = r"\$(?:[eE][nN][vV]|[sS][eE][cC][rR][eE][tT])://[\s\S]*"
"""A reference of APISIX, which puts the text itself in its place."""


def _bracketed(opening: str, closing: str, levels: int = NESTED) -> str:
    inner = rf'[^"\[\]\{{\}}]|{_STRING}'
    nested = ""
    for _ in range(levels):
        nested = rf"|[\[\{{](?:{inner}{nested})*[\]\}}]"
    return rf"{opening}(?:{inner}{nested})*{closing}"


_OF_TYPE = {
    "string": _STRING,
    "number": "-?[0-9][0-9.eE+-]*",
    "boolean": "true|false",
    "null": "null",
    "array": _bracketed(r"\[", r"\]"),
    "object": _bracketed(r"\{", r"\}"),
}
"""Type of JSON → pattern of any value of this type. The first character tells the type."""
_ANY = "|".join(_OF_TYPE.values())


def pattern_of(schema: Mapping[str, Any]) -> str | None:
    """Return a pattern of all texts that are JSON which a schema accepts; None: it accepts more than objects.

    Args:
        schema: JSON Schema of a configuration.
    """
    if schema.get("type") != "object":
        return None
    defs = schema.get("$defs", {})
    for depth in DEPTHS:
        body = "".join(_requires(name) for name in schema.get("required", ())) + _object(schema, defs, depth)
        if len(body) <= MAX_LENGTH:
            break
    else:
        body = _OF_TYPE["object"]
    blank = "" if schema.get("required") else f"|{_BLANKS}"
    return f"^(?:{_BLANKS}{body}{_BLANKS}|{_REFERENCE}{blank})$"


def _requires(name: str) -> str:
    """Match, without moving on, in front of a text that has a field. It may be written with escapes."""
    return rf"(?=[\s\S]*(?:{_literal(name)}{_BLANKS}:|\\u))"


def _literal(text: str) -> str:
    """Return the pattern of a JSON string with this content, written without needless escapes."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(f"\\{each}" if each in r"^$\.*+?()[]{}|/" else each for each in written)


def _value(schema: Any, defs: Mapping[str, Any], depth: int) -> str:
    """Return the pattern of a value, in which the first character decides about the branch."""
    by_type: dict[str, list[Any]] = {}
    for kind, each in _flat(schema, defs, depth):
        by_type.setdefault(kind, []).append(each)
    if "any" in by_type:
        return f"(?:{_ANY})"
    return f"(?:{'|'.join(_one_type(kind, found, defs, depth) for kind, found in by_type.items())})"


def _one_type(kind: str, schemas: list[Any], defs: Mapping[str, Any], depth: int) -> str:
    """Return the pattern of the values of one type that any of the schemas accepts."""
    if kind == "string" and all("enum" in each for each in schemas):
        known = dict.fromkeys(_literal(text) for each in schemas for text in each["enum"])
        return "|".join([*known, _ESCAPED])
    if len(schemas) == 1 and depth:
        (schema,) = schemas
        if kind == "array" and isinstance(schema.get("items"), dict) and "prefixItems" not in schema:
            return _listed(r"\[", [_value(schema["items"], defs, depth - 1)], r"\]")
        if kind == "object" and schema.get("properties"):
            return _object(schema, defs, depth)
    return _OF_TYPE[kind]


def _flat(schema: Any, defs: Mapping[str, Any], depth: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return the types that a schema accepts, each with a schema for it; the type ``any`` stands for all."""
    schema = resolved(schema, defs) if isinstance(schema, dict) else {}
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return [(_type_of(value), {"enum": [value]} if isinstance(value, str) else {}) for value in values]
    if choices and depth > 0:
        return [found for each in choices for found in _flat(each, defs, depth - 1)]
    kinds = schema.get("type", "any")
    names = {"integer": "number"}
    return [(names.get(kind, kind), schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)]


def _type_of(value: Any) -> str:
    for kind, types in (("boolean", bool), ("string", str), ("number", (int, float)), ("array", list)):
        if isinstance(value, types):  # a bool is an int too
            return kind
    return "null" if value is None else "object"


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    properties = schema.get("properties", {})
    pairs = [f"{_literal(name)}{_BLANKS}:{_BLANKS}{_value(each, defs, depth - 1)}" for name, each in properties.items()]
    if schema.get("additionalProperties") is not False or "patternProperties" in schema:
        others = schema.get("additionalProperties") if "patternProperties" not in schema else {}
        known = "|".join(map(_literal, properties))
        other = f"(?!(?:{known}){_BLANKS}:)" if known else ""
        pairs.append(f"{other}{_PLAIN}{_BLANKS}:{_BLANKS}{_value(others, defs, depth - 1)}")
    pairs.append(f"{_ESCAPED}{_BLANKS}:{_BLANKS}(?:{_ANY})")
    return _listed(r"\{", pairs, r"\}")


def _listed(opening: str, entries: Iterable[str], closing: str) -> str:
    """Return the pattern of entries between brackets, with a comma between two of them."""
    after = rf"{_BLANKS}(?:,{_BLANKS}(?![ \t\r\n{closing}])|(?={closing}))"
    return f"{opening}{_BLANKS}(?:(?:{'|'.join(entries)}){after})*{closing}"
