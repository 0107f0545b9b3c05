"""Plugins and their fields in aligned columns, wrapped to the width of the terminal."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ..plugins import Plugin
from .example import Example, example_of
from .fields import Field, fields_of, summary_of

__all__ = ["columns", "list_of", "page_of"]

NARROW = 60
"""Terminals with fewer columns get a field's description below its name."""
_PHASES = {
    "auto": "request or response: as the route lists it",
    "request": "request",
    "response": "response",
    "both": "both: list it in ext-plugin-pre-req and ext-plugin-post-resp",
}


def columns(rows: Sequence[Sequence[str]], width: int, widest: Sequence[int]) -> Iterator[str]:
    """Return lines with the cells of rows in aligned columns. The last column takes the room that is left.

    Args:
        rows: The cells of each row.
        width: Number of columns of the terminal.
        widest: Maximum width of each column but the last. Longer cells are wrapped.
    """
    wide = [min(max(len(row[place]) for row in rows), most) for place, most in enumerate(widest)]
    wide.append(max(width - sum(wide) - 2 * len(wide), 16))
    for row in rows:
        cells = [_wrapped(cell, room) for cell, room in zip(row, wide, strict=True)]
        for number in range(max(map(len, cells))):
            line = (cell[number] if number < len(cell) else "" for cell in cells)
            yield "  ".join(f"{text:<{room}}" for text, room in zip(line, wide, strict=True)).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def list_of(plugins: Mapping[str, Plugin], width: int) -> Iterator[str]:
    """Return lines that list plugins: name, kind, phase, and the fields; those in brackets may be left out.

    Args:
        plugins: The plugins by name.
        width: Number of columns of the terminal.
    """
    rows = []
    for name, plugin in plugins.items():
        schema = plugin.configuration.schema()
        required = set(schema.get("required", ()))
        fields = [each if each in required else f"[{each}]" for each in schema.get("properties", {})]
        rows.append((name, plugin.kind, plugin.options.phase, " ".join(fields)))
    return columns(rows, width, (32, 11, 8))


def page_of(plugin: Plugin, width: int) -> Iterator[str]:
    """Return lines about one plugin: what it does, its fields, and a route to paste.

    Args:
        plugin: The plugin.
        width: Number of columns of the terminal.
    """
    yield from _wrapped(": ".join(filter(None, (plugin.name, summary_of(plugin)))), width)
    yield f"kind: {plugin.kind}"
    yield from _wrapped(f"phase: {_PHASES[plugin.options.phase]}", width)
    yield ""
    fields = fields_of(plugin.configuration.schema())
    if fields:
        yield from (_stacked if width < NARROW else _table)(fields, width)
    elif plugin.kind == "application":
        yield from _wrapped("It takes any JSON as its configuration.", width)
    else:
        yield "It has nothing to configure."
    yield ""
    yield from _route(example_of(plugin))


def _table(fields: Sequence[Field], width: int) -> Iterator[str]:
    rows = [("FIELD", "TYPE", "DEFAULT", "DESCRIPTION")]
    rows += [(each.name, each.type, _default(each), each.description) for each in fields]
    return columns(rows, width, (width // 4, width // 4, width // 6))


def _stacked(fields: Sequence[Field], width: int) -> Iterator[str]:
    for each in fields:
        default = _default(each)
        yield from _wrapped(f"{each.name}  {each.type}{f', {default}' if default else ''}", width)
        yield from textwrap.wrap(each.description, width, initial_indent="    ", subsequent_indent="    ")


def _default(field: Field) -> str:
    return "required" if field.required else field.default or ""


def _route(example: Example) -> Iterator[str]:
    if example.complete:
        yield "A route that lists it (apisix.yaml):"
    else:
        yield "A route that lists it (apisix.yaml). Fill its configuration in:"
    yield ""
    yield from example.text.splitlines()  # as they are, so that they can be pasted
