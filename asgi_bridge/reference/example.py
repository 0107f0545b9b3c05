"""An example of a plugin's configuration, and the route that lists it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..apisix_constants import LISTS, POST_RESP, PRE_REQ
from ..errors import ConfigurationError
from ..plugins import Plugin
from .fields import MAX_DEPTH, resolved

__all__ = ["Example", "example_of"]

UPSTREAM = {"type": "roundrobin", "nodes": [{"host": "127.0.0.1", "port": 1980, "weight": 1}]}
"""Upstream of an example: the one that ``asgi-bridge dev`` starts."""
TO_FILL_IN = "…"
"""Stands for a text that only the reader knows."""


@dataclass(frozen=True, slots=True)
class Example:
    """An example of a plugin in a route.

    Attributes:
        name: Name of the plugin.
        conf: Its configuration.
        lists: The lists of the route that it stands in.
        complete: Whether the plugin accepts the configuration as it is; False: a reader has to fill something in.
    """

    name: str
    conf: Any
    lists: tuple[str, ...]
    complete: bool

    @property
    def value(self) -> str:
        """The configuration as a route has it: JSON in a text."""
        return json.dumps(self.conf, ensure_ascii=False)

    @property
    def route(self) -> dict[str, Any]:
        """The route, as APISIX's standalone file has it."""
        listed = {"conf": [{"name": self.name, "value": self.value}]}
        return {"uri": "/*", "plugins": dict.fromkeys(self.lists, listed), "upstream": UPSTREAM}

    @property
    def text(self) -> str:
        """A whole ``apisix.yaml`` with the route."""
        from ..generate.yaml_text import yaml_of  # loads PyYAML, which a list of plugins does not need

        return f"{yaml_of({'routes': [self.route]})}#END\n"


def example_of(plugin: Plugin) -> Example:
    """Return an example of a plugin in a route.

    The example has the fields that are required, and those for which the author of the plugin gives ``examples``, as
    ``pydantic.Field(examples=[...])``. Other required fields get a value of their type.
    """
    schema = plugin.configuration.schema()
    conf = _value(schema, schema.get("$defs", {}), MAX_DEPTH)
    conf = conf if isinstance(conf, dict) else {}
    try:
        plugin.configuration.check(json.dumps(conf))
        complete = TO_FILL_IN not in json.dumps(conf, ensure_ascii=False)
    except ConfigurationError:
        complete = False
    return Example(plugin.name, conf, _lists(plugin), complete)


def _lists(plugin: Plugin) -> tuple[str, ...]:
    """Return the lists in which the plugin stands, in APISIX's order."""
    of_phase = {"response": {POST_RESP}, "both": {PRE_REQ, POST_RESP}}
    chosen = of_phase.get(plugin.options.phase, {PRE_REQ})
    return tuple(each for each in LISTS if each in chosen)


def _value(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> Any:
    """Return a value that a schema accepts as far as its keywords tell."""
    if schema.get("examples"):
        return schema["examples"][0]
    schema = resolved(schema, defs)
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices and depth:
        return _value(choices[0], defs, depth - 1)
    kind = schema.get("type")
    if kind == "object" and depth:
        required = schema.get("required", ())
        return {
            name: _value(each, defs, depth - 1)
            for name, each in schema.get("properties", {}).items()
            if name in required or each.get("examples")
        }
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
        return max(least, 1) if schema.get("maximum", 1) >= 1 else least
    if kind == "array" and depth:
        items = schema.get("items")
        return [_value(items, defs, depth - 1)] if schema.get("minItems") and isinstance(items, dict) else []
    return {"boolean": True, "object": {}, "array": [], "null": None}.get(str(kind), TO_FILL_IN)
