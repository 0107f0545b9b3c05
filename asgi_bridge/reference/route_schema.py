"""One JSON Schema for ``apisix.yaml`` that knows the mounted plugins, for editors and validators.

It is in draft 7, which the YAML language server and the common validators read. It says nothing about APISIX's own
plugins: `asgi-bridge check` and APISIX do.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from ..apisix_constants import LISTS, PHASE_OF
from ..plugins import Plugin
from .example import example_of
from .fields import fields_of, summary_of
from .value_pattern import pattern_of

__all__ = ["route_schema"]

_HOLDERS = ("routes", "services", "plugin_configs", "global_rules", "consumers", "consumer_groups")
"""Lists of ``apisix.yaml`` whose entries have plugins."""
_OF_A_ROUTE = {
    "uri": {"type": "string", "description": "Path, or a pattern with * at its end."},
    "uris": {"type": "array", "items": {"type": "string"}},
    "host": {"type": "string"},
    "hosts": {"type": "array", "items": {"type": "string"}},
    "methods": {"type": "array", "items": {"type": "string"}},
    "upstream": {"type": "object"},
}


def route_schema(plugins: Mapping[str, Plugin]) -> dict[str, Any]:
    """Return a JSON Schema (draft 7) of ``apisix.yaml``.

    Each entry of an ``ext-plugin-*`` list has to name one of the plugins that may stand there. Its ``value`` has to be
    text with JSON: a ``pattern`` checks the names, types and enumerated values of its fields. ``contentSchema`` holds
    the whole schema of the configuration, for programs that read it.

    Args:
        plugins: The mounted plugins, by name.
    """
    definitions: dict[str, Any] = {}
    for place in LISTS:
        fitting = [plugin for plugin in plugins.values() if PHASE_OF[place] in plugin.phases]
        definitions[place] = _list(place, fitting)
    for name, plugin in plugins.items():
        definitions |= _definitions(name, plugin)
    lists = {place: {"$ref": f"#/definitions/{place}"} for place in LISTS}
    definitions["plugins"] = {
        "type": "object",
        "description": "Plugins of APISIX. ext-plugin-* list plugins of the runner.",
        "properties": lists,
    }
    holder = {"type": "object", "properties": {"plugins": {"$ref": "#/definitions/plugins"}}}
    properties: dict[str, Any] = {name: {"type": "array", "items": holder} for name in _HOLDERS}
    route = {"type": "object", "properties": {**_OF_A_ROUTE, **holder["properties"]}}  # type: ignore[dict-item]
    properties["routes"] = {"type": "array", "items": route}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Routes of APISIX with plugins of asgi_bridge",
        "type": "object",
        "properties": properties,
        "definitions": definitions,
    }


def _list(place: str, plugins: list[Plugin]) -> dict[str, Any]:
    """Return the schema of one ``ext-plugin-*``."""
    entry: dict[str, Any] = {
        "type": "object",
        "required": ["name", "value"],
        "properties": {
            "name": {"type": "string", "enum": [plugin.name for plugin in plugins]},
            "value": {"type": "string", "description": "The plugin's configuration: JSON in a text."},
        },
        "allOf": [
            {
                "if": {"properties": {"name": {"const": plugin.name}}, "required": ["name"]},
                "then": {"properties": {"value": {"$ref": f"#/definitions/{_key(plugin.name)}"}}},
            }
            for plugin in plugins
        ],
        # of the YAML language server: it offers these as whole entries
        "defaultSnippets": [_snippet(plugin) for plugin in plugins],
    }
    return {
        "type": "object",
        "description": f"Plugins of the runner in the {PHASE_OF[place]} phase.",
        "properties": {
            "conf": {"type": "array", "items": entry},
            "allow_degradation": {
                "type": "boolean",
                "description": "True: requests pass without the plugins when these fail. They get 503 otherwise.",
            },
        },
        "required": ["conf"],
    }


def _snippet(plugin: Plugin) -> dict[str, Any]:
    example = example_of(plugin)
    value = example.value.replace("\\", "\\\\").replace("$", "\\$")  # to editors $ begins a place to fill in
    return {
        "label": plugin.name,
        "description": summary_of(plugin),
        "body": {"name": plugin.name, "value": f"'{value.replace(chr(39), chr(39) * 2)}'"},
    }


def _key(name: str) -> str:
    """Return the key of a plugin's configuration among the definitions."""
    return f"conf of {name}".replace(" ", ".")


def _definitions(name: str, plugin: Plugin) -> dict[str, Any]:
    """Return the schema of a plugin's ``value``, and those that its ``contentSchema`` refers to."""
    schema = copy.deepcopy(plugin.configuration.schema())
    defs = schema.pop("$defs", {})
    example = example_of(plugin)
    value: dict[str, Any] = {
        "type": "string",
        "title": name,
        "description": _description(plugin),
        "contentMediaType": "application/json",
        "contentSchema": _moved(schema, name),
    }
    pattern = pattern_of({**schema, "$defs": defs})
    if pattern is not None:
        value["pattern"] = pattern
        value["patternErrorMessage"] = _advice(plugin)  # of the YAML language server
    if example.complete:
        value["examples"] = [example.value]
    return {_key(name): value} | {f"{_key(name)}.{each}": _moved(found, name) for each, found in defs.items()}


def _moved(schema: Any, name: str) -> Any:
    """Return a schema whose references lead to the definitions of the plugin `name`."""
    if isinstance(schema, list):
        return [_moved(each, name) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(each, name) for key, each in schema.items()}
    if isinstance(moved.get("$ref"), str):
        moved["$ref"] = moved["$ref"].replace("#/$defs/", f"#/definitions/{_key(name)}.")
    return moved


def _description(plugin: Plugin) -> str:
    """Return what an editor shows about a configuration."""
    lines = [summary_of(plugin)] if summary_of(plugin) else []
    for each in fields_of(plugin.configuration.schema()):
        default = "required" if each.required else f"default {each.default}" if each.default else "optional"
        lines.append(f"{each.name} ({each.type}; {default})" + (f": {each.description}" if each.description else ""))
    return "\n\n".join(lines)


def _advice(plugin: Plugin) -> str:
    """Return what an editor says about a text that the pattern rejects."""
    schema = plugin.configuration.schema()
    names = [json.dumps(each, ensure_ascii=False) for each in schema.get("properties", {})]
    required = [json.dumps(each, ensure_ascii=False) for each in schema.get("required", ())]
    text = f"Not a configuration of {plugin.name}: it takes JSON with {', '.join(names) if names else 'no fields'}"
    return text + (f"; required: {', '.join(required)}" if required else "")
