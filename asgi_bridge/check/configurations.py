"""The configurations of plugins in routes: which fields a plugin refuses, and on which line each stands."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..gateway.routes.places import LinedText
from ..gateway.routes.schema import is_reference
from ..plugins import Plugin
from ..plugins.build import BUILD_SECONDS
from ..plugins.reasons import reason_of, text_of
from ..plugins.refused import RefusedConfiguration

__all__ = ["Configurations", "WrongPart", "index_of", "line_of"]


@dataclass(frozen=True, slots=True)
class WrongPart:
    """What a plugin refuses of a configuration.

    Attributes:
        field: The field, as ``rate.per``; None: the configuration as a whole.
        reason: What is wrong, without the value.
        index: Index of the character of the configuration where it stands.
    """

    field: str | None
    reason: str
    index: int = 0


class Configurations:
    """The configurations of one check. Each is checked once, however many routes have it."""

    def __init__(self) -> None:
        self._checked: dict[tuple[str, bytes], list[WrongPart]] = {}

    def check(self, plugin: Plugin, text: bytes) -> list[WrongPart]:
        """Return what a plugin refuses of a configuration.

        A reference of APISIX (``$env://``, ``$secret://``) whose value is not known here counts as right.
        """
        key = plugin.name, text
        if key not in self._checked:
            self._checked[key] = _check(plugin, text)
        return self._checked[key]


def _check(plugin: Plugin, raw: bytes) -> list[WrongPart]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return [WrongPart(None, "it must be UTF-8")]
    if is_reference(text):
        return []
    error = _error(plugin, text)
    if error is None:
        return []
    if not isinstance(error, RefusedConfiguration):
        return [WrongPart(None, text_of(error) if isinstance(error, TimeoutError) else reason_of(error))]
    if not error.fields:
        return [WrongPart(None, text_of(error).replace("the configuration", "it", 1), error.index or 0)]
    return [WrongPart(each.name or None, each.reason, index_of(text, each.path)) for each in error.fields]


def _error(plugin: Plugin, text: str) -> BaseException | None:
    """Return the error of a configuration; None: the plugin accepts it."""
    caught: list[BaseException] = []

    def check() -> None:
        try:
            plugin.configuration.check(text)
        except BaseException as exc:  # code of the plugin's author may raise anything
            caught.append(exc)

    if plugin.configuration.runs_code:
        # a daemon thread, so that the process can end without waiting for it
        thread = threading.Thread(target=check, name=f"check of {plugin.name}", daemon=True)
        thread.start()
        thread.join(BUILD_SECONDS)
        if thread.is_alive():
            return TimeoutError(f"checking it takes more than {BUILD_SECONDS:g} s")
    else:
        check()
    return caught[0] if caught else None


def line_of(value: object, wrong: WrongPart) -> int | None:
    """Return the line of a wrong part; None: that on which the configuration stands.

    Args:
        value: The configuration as it was read from a file.
        wrong: The wrong part.
    """
    return value.line_at(wrong.index) if isinstance(value, LinedText) else None


_BLANKS = " \t\r\n"
_decoder = json.JSONDecoder(strict=False)


def index_of(text: str, path: Sequence[str | int]) -> int:
    """Return the index of a field in a JSON text: of its key, or of its value in a list.

    Args:
        text: JSON.
        path: Keys and indices that lead to the field. Those that the text does not have are passed over: a field that
            is missing, or the tag of a union.
    """
    try:
        here = start = _after_blanks(text, 0)
        for step in path:
            found = _step(text, start, step)
            if found is not None:
                here, start = found
    except (ValueError, IndexError):  # no JSON, or blank
        return 0
    return here


def _step(text: str, start: int, step: str | int) -> tuple[int, int] | None:
    """Find one key of the object, or one entry of the list, that begins at `start`.

    Returns:
        Where it stands and where its value begins; None: there is no such key or entry.
    """
    if text[start] not in "{[":
        return None
    is_object = text[start] == "{"
    at = _after_blanks(text, start + 1)
    number = 0
    while text[at] not in "}]":
        begin = value = at
        key: str | int = number
        if is_object:
            key, at = _decoder.raw_decode(text, at)
            value = _after_blanks(text, _after_blanks(text, at) + 1)
        if key == step:
            return begin, value
        at = _after_blanks(text, _decoder.raw_decode(text, value)[1])
        if text[at] == ",":
            at = _after_blanks(text, at + 1)
        number += 1
    return None


def _after_blanks(text: str, index: int) -> int:
    while text[index] in _BLANKS:
        index += 1
    return index
