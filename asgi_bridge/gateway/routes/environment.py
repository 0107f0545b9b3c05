"""Environment variables in route files: ``${{NAME}}``, or ``${{NAME:=default}}``."""

import os
import re
from typing import Any

from ...errors import ConfigurationError
from .places import Misplaced, Place, replace_scalars, shown

__all__ = ["MissingVariables", "replace_in_text", "replace_in_values"]

# what var_sub of apisix/cli/file.lua takes for a variable: a name, then anything; the shortest match
_VARIABLE = re.compile(r"\$\{\{[ \t\n\v\f\r]*([A-Za-z0-9_]+[:=]?.*?)[ \t\n\v\f\r]*\}\}", re.DOTALL)


class MissingVariables(ConfigurationError):
    """Environment variables of a file are not set and have no default.

    Args:
        errors: One error for each.
    """

    def __init__(self, errors: list[Misplaced]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def replace_in_text(text: str, file: str) -> tuple[str, list[int]]:
    """Replace the environment variables in the text of a file.

    Args:
        text: Of the file.
        file: Name of the file, for messages.

    Returns:
        The new text, and for each of its lines the line of the file that it comes from.

    Raises:
        MissingVariables: A variable is not set and has no default. The message names all of these with their lines.
    """
    parts: list[str] = []
    origin: list[int] = []
    missing: list[Misplaced] = []
    line, end = 1, 0
    for match in _VARIABLE.finditer(text):
        before = text[end : match.start()]
        origin += range(line, line + before.count("\n"))
        line += before.count("\n")
        value = _value(match, Place(file, line=line), missing)
        origin += [line] * value.count("\n")
        parts += before, value
        line += match[0].count("\n")
        end = match.end()
    parts.append(text[end:])
    origin += range(line, line + text.count("\n", end) + 1)
    _raise_for(missing)
    return "".join(parts), origin


def replace_in_values(value: Any, file: str) -> Any:
    """Replace the environment variables in the keys and values of a file in JSON.

    APISIX does that after it has read the JSON. A value with a variable that then looks like a number, true or false
    becomes one.

    Args:
        value: Of the file.
        file: Name of the file, for messages.

    Raises:
        MissingVariables: A variable is not set and has no default. The message names all of these with their lines.
    """
    missing: list[Misplaced] = []

    def replaced(text: str, place: Place) -> tuple[str, int]:
        return _VARIABLE.subn(lambda match: _value(match, Place(file, line=place.line), missing), text)

    def key(name: Any, place: Place) -> Any:
        return replaced(name, place)[0] if isinstance(name, str) else name

    def scalar(each: Any, place: Place) -> Any:
        if not isinstance(each, str):
            return each
        text, times = replaced(each, place)
        if not times:
            return each
        if text in ("true", "false"):
            return text == "true"
        try:
            number = float(text)
        except ValueError:
            return text
        return int(number) if number.is_integer() else number

    result = replace_scalars(value, Place(file), scalar, key)
    _raise_for(missing)
    return result


def _value(match: re.Match[str], place: Place, missing: list[Misplaced]) -> str:
    """Return the value of a variable, or an empty text. A message about a missing one goes to `missing`."""
    # trap: a blank in front of := belongs to the name, so that variable is never found and the default counts
    name, found, default = match[1].partition(":=")
    value = os.environ.get(name, default.strip(" \t\n\v\f\r") if found else None)
    if value is not None:
        return value
    text = (
        f"the environment variable {name} is not set; APISIX then does not read the file. Set it, or give a default: "
        f"${{{{{name}:=default}}}}"
    )
    if not re.fullmatch(r"\w+", name):
        wanted = "a variable is written ${{NAME}} or ${{NAME:=default}}"
        text = f"there is no environment variable {shown(name)}; {wanted}"
    missing.append(place.wrong(text))
    return ""


def _raise_for(missing: list[Misplaced]) -> None:
    if missing:
        raise MissingVariables(missing)
