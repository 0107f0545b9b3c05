"""Regular expressions in routes. Python's can take forever on a short text, so a route gives none by default.

A route may give one where the mount has ``allow_patterns=True``, or where the field is marked with
:class:`SafePattern`.
"""

import functools
import re
from typing import Any

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from .rules import Rules, rules_of, strings_in

__all__ = ["NO_SCHEMA", "PATTERN_REFUSED", "SafePattern", "guard_patterns", "may_compile"]

PATTERN_REFUSED = (
    "a route may not give a regular expression, since Python's can take forever; the operator can allow it where the "
    "plugin is mounted: allow_patterns=True"
)
"""Why a route's regular expression is refused."""


class SafePattern:
    """Marks a string that is a regular expression for an engine whose time is bounded, such as RE2.

    Example::

        regex: Annotated[str, AfterValidator(re2.compile), SafePattern()]
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        metadata = {_SAFE: True}
        return core_schema.no_info_after_validator_function(_unchanged, handler(source), metadata=metadata)


_SAFE = "asgi_bridge_safe_pattern"
"""Key of a core schema's metadata that marks a safe pattern."""
_NAME = re.compile(r"regex|regexp|pattern", re.IGNORECASE)
NO_SCHEMA = frozenset(("config", "default", "expected", "members", "metadata", "serialization"))
"""Keys of a core schema whose values are no schemas."""


def _unchanged(value: Any) -> Any:
    return value


@functools.cache
def _compilers() -> list[Any]:
    """Return the functions that compile patterns in pydantic's core schemas."""
    found: list[Any] = [re.compile]
    for kind in (re.Pattern, re.Pattern[str], re.Pattern[bytes]):
        schema: Any = pydantic.TypeAdapter(kind).core_schema
        found.append(schema["function"]["function"])
    return found


def may_compile(name: str, value: Any, rules: Rules) -> bool:
    """Return whether a route may set a keyword argument that could become a regular expression for Python's `re`.

    Args:
        name: The keyword.
        value: The route's value.
        rules: The rules of the mount.
    """
    return not _NAME.search(name) or rules.allow_patterns or set(strings_in(value)) <= rules.own


def guard_patterns(schema: Any) -> Any:
    """Return a pydantic core schema that refuses a route's regular expressions, unless the mount allows them.

    A field counts as a regular expression if its type is ``re.Pattern``, or if its name contains "regex", "regexp" or
    "pattern" and its value contains text.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(map(guard_patterns, schema))
    if not isinstance(schema, dict):
        return schema
    kept = NO_SCHEMA if isinstance(schema.get("type"), str) else ()
    found = {key: value if key in kept else guard_patterns(value) for key, value in schema.items()}
    if found.get("type") in ("model-fields", "typed-dict"):
        found["fields"] = {name: _guarded(name, field) for name, field in found["fields"].items()}
    elif found.get("type") == "dataclass-args":
        found["fields"] = [_guarded(field["name"], field) for field in found["fields"]]
    function = found.get("function")
    if isinstance(function, dict) and any(function.get("function") is each for each in _compilers()):
        return _refusing(found)
    return found


def _guarded(name: str, field: dict[str, Any]) -> dict[str, Any]:
    names = [name, *strings_in(field.get("validation_alias"))]
    if not any(map(_NAME.search, names)) or _is_safe(field["schema"]):
        return field
    return {**field, "schema": _refusing(field["schema"])}


def _is_safe(schema: Any) -> bool:
    if isinstance(schema, dict):
        metadata = schema.get("metadata")
        return (isinstance(metadata, dict) and _SAFE in metadata) or any(map(_is_safe, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_is_safe, schema))


def _refusing(schema: Any) -> Any:
    if schema["type"] == "default":  # the check goes inside, so that the field keeps its default
        return {**schema, "schema": _refusing(schema["schema"])}
    return core_schema.with_info_before_validator_function(_refuse_pattern, schema)


def _refuse_pattern(value: Any, info: pydantic.ValidationInfo) -> Any:
    rules = rules_of(info)
    if rules is not None and not rules.allow_patterns and not set(strings_in(value)) <= rules.own:
        raise PydanticCustomError("pattern_not_allowed", PATTERN_REFUSED)
    return value
