"""Checks the objects of a route file against their models, and says what is wrong in the words of the file."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pydantic
from pydantic_core import ErrorDetails, PydanticCustomError

from .places import Misplaced, Part, named, shown

__all__ = ["checked", "wrong"]

_Model = TypeVar("_Model", bound=pydantic.BaseModel)
_NO_MAPPING = "this has to be a mapping, not {named}"
_TEXTS: Mapping[str, str | Callable[[Mapping[str, Any], Any], str]] = {
    "string_type": "this has to be a string, not {named}; put it in quotes",
    "int_type": "this has to be a whole number, not {named}",
    "float_type": "this has to be a number, not {named}",
    "bool_type": "this has to be true or false, not {named}",
    "list_type": "this has to be a list, not {named}",
    "dict_type": _NO_MAPPING,
    "model_type": _NO_MAPPING,
    "too_short": "this list is empty; give it an entry, or take it out",
    "literal_error": lambda ctx, _: f"this has to be {ctx['expected'].replace(chr(39), '')}, not {{shown}}",
    "greater_than_equal": lambda ctx, _: f"this has to be a number from {ctx['ge']:g}, not {{shown}}",
    "less_than_equal": lambda ctx, _: f"this has to be a number up to {ctx['le']:g}, not {{shown}}",
    "string_too_short": lambda ctx, text: _length(text, ctx["min_length"], "least"),
    "string_too_long": lambda ctx, text: _length(text, ctx["max_length"], "most"),
}
"""Maps the types of pydantic's errors to texts, or to functions of the error's context and the value."""
_HINTS = {
    "plugins": "; name them, or take the entry out",
    "value": "; give the plugin's configuration, '{}' where there is none",
}
"""Maps some fields to what to do if they are missing."""


def _length(text: str, limit: int, which: str) -> str:
    there = f"has {len(text)} characters" if text else "is empty"
    return f"this {there}; APISIX accepts {limit if limit > 1 else 'one character'} at {which}"


def checked(model: type[_Model], part: Part) -> _Model:
    """Check an object of a route file.

    Args:
        model: What it has to be.
        part: The object and its place.

    Raises:
        Misplaced: It breaks a limit. The error has the place of the wrong field.
    """
    try:
        return model.model_validate(part.value)
    except pydantic.ValidationError as exc:
        raise _misplaced(part, exc.errors(include_url=False, include_input=False)) from None


def _misplaced(part: Part, errors: list[ErrorDetails]) -> Misplaced:
    """Turn pydantic's errors into one of the file: the first, or what is missing if nothing else is wrong."""
    first = next((each for each in errors if each["type"] != "missing"), errors[0])
    kind, keys, context = first["type"], first["loc"], first.get("ctx", {})
    if kind == "missing":
        keys = keys[:-1]
        missing = [str(each["loc"][-1]) for each in errors if each["type"] == kind and each["loc"][:-1] == keys]
        hint = "".join(_HINTS.get(name, "") for name in missing)
        return _inside(part, keys).place.wrong(f"APISIX requires {' and '.join(missing)} here{hint}")
    wrong = _inside(part, keys if context.get("at") is None else (*keys, context["at"]))
    text = _TEXTS.get(kind, first["msg"])
    if not isinstance(text, str):
        text = text(context, wrong.value)
    values = {"{named}": named(wrong.value), "{shown}": shown(wrong.value)}
    return wrong.place.wrong(re.sub(r"\{(?:named|shown)\}", lambda found: values[found[0]], text))


def _inside(part: Part, keys: tuple[Any, ...]) -> Part:
    """Follow the keys of a pydantic error into a value. Skips keys that the value does not have: tags of unions."""
    for key in keys:
        if isinstance(part.value, Mapping):
            there = key in part.value
        else:
            there = isinstance(key, int) and isinstance(part.value, list | tuple)
        if there:
            part = Part(part.value[key], part.place.at(part.value, key))
    return part


def wrong(text: str, at: Any = None) -> PydanticCustomError:
    """Make an error.

    Args:
        text: What is wrong, with ``{named}`` or ``{shown}`` for the value.
        at: Key or index, in the value, of what is wrong; None: the value itself is.
    """
    return PydanticCustomError("route_file", text, {"at": at})
