"""ADC's declarative file (``adc sync``): services with routes in them, consumers, and global rules."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from .places import LinedMapping, Part, Place, Report, replace_scalars

__all__ = ["is_adc", "read_adc"]

_REFERENCE = re.compile(r"(\\?)\$\{([A-Za-z0-9_]+)\}")
_NOT_DONE = {
    "path_prefix": "the stand-in puts no prefix before the uris",
    "stream_routes": "the stand-in does HTTP only",
    "upstreams": "the stand-in splits no traffic: all goes to upstream",
}
"""Fields of services that the stand-in ignores, and why."""


def is_adc(data: Any) -> bool:
    """Return whether the value of a file is ADC's."""
    if not isinstance(data, Mapping) or "routes" in data or "upstreams" in data:
        return False
    services, consumers = _mappings(data.get("services")), _mappings(data.get("consumers"))
    return (
        (bool(services) and all("id" not in each for each in services))
        or any("routes" in each or "stream_routes" in each for each in services)
        or any("credentials" in each for each in consumers)
        or isinstance(data.get("global_rules"), Mapping)
        or isinstance(data.get("plugin_metadata"), Mapping)
    )


def _mappings(value: Any) -> list[Mapping[Any, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def read_adc(part: Part, report: Report) -> LinedMapping:
    """Turn ADC's file into the sections of an ``apisix.yaml``.

    Args:
        part: The file.
        report: Takes what is found.

    Raises:
        Misplaced: Something is not as ADC has it.
    """
    part = Part(
        replace_scalars(part.value, part.place, lambda value, place: _replaced(value, place, report)), part.place
    )
    sections = LinedMapping()
    for service in part.at("services").entries():
        _service(service.mapping(), sections, report)
    for consumer in part.at("consumers").entries():
        _consumer(consumer.mapping(), sections, report)
    for group in part.at("consumer_groups").entries():
        text = "the stand-in has no consumer groups: the plugins of this one do not run"
        report.lacking(group.mapping().place, text)
        report.unused.append(group.mapping().at("plugins"))
        for consumer in group.mapping().at("consumers").entries():
            _consumer(consumer.mapping(), sections, report)
    rules = part.at("global_rules").mapping()
    for name in rules.value:
        place = rules.at(name).place
        rule = LinedMapping(rules.place.line).put("id", str(name), place)
        sections.append("global_rules", rule.put("plugins", rules.taken({name: name}), place), place)
    for name in part.value:
        if name not in ("services", "consumers", "consumer_groups", "global_rules"):
            sections.put(name, part.value[name], part.at(name).place)
    return sections


def _replaced(value: Any, place: Place, report: Report) -> Any:
    """Replace each ``${NAME}`` in a string with the environment variable, as ADC does. A backslash prevents that."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if match[2] not in os.environ:
            text = f"the environment variable {match[2]} is not set: ADC puts an empty text there"
            report.remark(place, text)
        return os.environ.get(match[2], "")

    return _REFERENCE.sub(one, value) if isinstance(value, str) else value


def _common(part: Part, *without: str) -> LinedMapping:
    """Copy an object without some of its fields. ``description`` and ``labels`` become what APISIX has for them."""
    made = part.copied("description", *without)
    if "description" in part:
        made.put("desc", part.value["description"], part.at("description").place)
    if isinstance(part.get("labels"), Mapping):
        labels = made["labels"] = part.at("labels").copied()
        for label, text in labels.items():
            if isinstance(text, list):
                labels[label] = json.dumps(text, separators=(",", ":"))
    return made


def _hashed(name: str) -> str:
    # as ADC makes its ids
    return hashlib.sha1(name.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _service(part: Part, sections: LinedMapping, report: Report) -> None:
    name, place = part.get("name"), part.at("name").place
    if not isinstance(name, str):
        raise part.place.wrong("a service in ADC's file needs a name; the ids of its routes are made of it")
    identity = part.get("id", _hashed(name))
    for field, why in _NOT_DONE.items():
        if field in part:
            report.lacking(part.at(field).place, why)
    made = _common(part, "routes", "stream_routes", "upstreams", "path_prefix", "strip_path_prefix")
    sections.append("services", made.put("id", identity, place), part.place)
    for entry in part.at("routes").entries():
        route = entry.mapping()
        label, place = route.get("name"), route.at("name").place
        if not isinstance(label, str):
            raise route.place.wrong("a route in ADC's file needs a name")
        made = _common(route).put("id", route.get("id", _hashed(f"{name}.{label}")), place)
        sections.append("routes", made.put("service_id", identity, place), route.place)


def _consumer(part: Part, sections: LinedMapping, report: Report) -> None:
    """Make one consumer for each credential, because a consumer of APISIX has only one key."""
    entry = Part(_common(part, "credentials"), part.place)
    credentials = list(part.at("credentials").entries())
    for each in credentials:
        credential = each.mapping()
        kind = credential.get("type")
        if kind != "key-auth":
            report.lacking(credential.place, f"the stand-in knows consumers by key-auth only, not by {kind}")
            continue
        plugins = entry.at("plugins").mapping().copied()
        plugins.put("key-auth", credential.get("config"), credential.at("config").place)
        made = entry.copied().put("plugins", plugins, entry.at("plugins").place)
        sections.append("consumers", made, credential.place)
    if not credentials:
        sections.append("consumers", entry.value, part.place)
    elif not any(each.get("type") == "key-auth" for each in credentials):
        report.unused.append(entry.at("plugins"))
