"""The other forms in which people keep APISIX's routes, turned into that of ``apisix.yaml``.

Told apart by what is in the file: the Admin API's JSON, ADC's YAML, and the resources of the ingress controller.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from .places import LinedList, LinedMapping, Place, Report, named, shown
from .text import Text

__all__ = ["SECTIONS", "Form", "standalone"]

SECTIONS = (
    "routes", "upstreams", "services", "plugin_configs", "consumers", "global_rules",
    "ssls", "stream_routes", "plugin_metadata", "protos", "consumer_groups", "secrets", "plugins", "credentials",
)  # fmt: skip
"""The lists that APISIX reads from ``apisix.yaml``."""

_KEY = re.compile(r"/(\w+)/([^/]+)(?:/credentials/[^/]+)?$")
_KUBERNETES = re.compile(r"apisix\.apache\.org/")
_KINDS = ("ApisixRoute", "ApisixPluginConfig", "PluginConfig", "ApisixGlobalRule", "ApisixConsumer")
_ROUTES_OF_OTHERS = ("Ingress", "HTTPRoute", "GRPCRoute")
_REFERENCE = re.compile(r"(\\?)\$\{([A-Za-z0-9_]+)\}")


class Form:
    """Routes in the form of ``apisix.yaml``.

    Attributes:
        data: the mapping of its sections.
        name: how the form is called; empty: it is ``apisix.yaml`` itself.
    """

    def __init__(self, data: Any, name: str) -> None:
        self.data = data
        self.name = name


def standalone(text: Text, top: Place, report: Report, cluster: str) -> Form:
    """Turn what a file holds into the form of ``apisix.yaml``.

    Args:
        text: the file.
        top: its place.
        report: takes what is to be said.
        cluster: host and port in place of those of a Kubernetes cluster.

    Raises:
        Misplaced: something is not as its form wants it.
    """
    documents = [each for each in text.documents if each is not None]
    if any(isinstance(each, Mapping) and "apiVersion" in each and "kind" in each for each in documents):
        return Form(_Kubernetes(documents, top, report, cluster).data, "Kubernetes resources")
    if len(documents) > 1:
        report.remark(top, "the file has several YAML documents, and APISIX reads the first one only")
    data = documents[0] if documents else {}
    if _is_adc(data):
        return Form(_Adc(data, top, report).data, "ADC's YAML")
    if not _is_standalone(data):
        sections = _Sections()
        for place, section, entry in _admin(data, top):
            sections.add(section, entry, place.line)
        if sections.data:
            return Form(sections.data, "the Admin API's JSON")
    if isinstance(data, Mapping) and "openapi" in data:
        raise top.wrong("this is an OpenAPI document; import it into a gateway, and take the routes from its Admin API")
    return Form(data, "")


def _is_standalone(data: Any) -> bool:
    return isinstance(data, Mapping) and any(isinstance(data.get(name), list) for name in SECTIONS)


def _entries(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if value is None:
        return
    if not isinstance(value, list):
        raise place.wrong(f"this has to be a list, not {named(value)}")
    for number, entry in enumerate(value):
        yield place.at(value, number), entry


def _mapping(value: Any, place: Place) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise place.wrong(f"this has to be a mapping, not {named(value)}")
    return value


class _Sections:
    """The mapping of an ``apisix.yaml`` in the making."""

    def __init__(self) -> None:
        self.data = LinedMapping()

    def add(self, section: str, entry: Any, line: int | None) -> None:
        entries = self.data.setdefault(section, LinedList())
        entries.append(entry)
        entries.lines.append(line)
        if line is not None:
            self.data.lines.setdefault(section, line)


class _Entry:
    """A mapping in the making, from parts of another that keep their lines."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.made = LinedMapping()
        self.made.line = getattr(source, "line", None)

    def take(self, **names: str) -> "_Entry":
        """Take fields over under new names: ``uris="paths"`` takes ``paths`` as ``uris``."""
        for new, old in names.items():
            if old in self.source:
                self.put(new, self.source[old], old)
        return self

    def put(self, name: str, value: Any, near: str | None = None) -> "_Entry":
        """Put a field; `near` is the field of the source on whose line it counts as standing."""
        self.made[name] = value
        line = getattr(self.source, "lines", {}).get(near or name, self.made.line)
        if line is not None:
            self.made.lines[name] = line
        return self


# --- Admin API ------------------------------------------------------------------------------------------------------


def _admin(value: Any, place: Place) -> Iterator[tuple[Place, str, Any]]:
    """Place, section and body of each entry: one body, what a GET of one or of a list gives, or a list of these."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _admin(entry, place.at(value, number))
        return
    if not isinstance(value, Mapping):
        return
    for envelope in ("list", "node", "nodes", "data", "rows"):
        # version 3 has list, version 2 node and nodes, the dashboard data and rows
        if isinstance(value.get(envelope), list | Mapping) and "uri" not in value:
            yield from _admin(value[envelope], place.at(value, envelope))
            return
    body = value.get("value")
    key = value.get("key")
    if isinstance(body, Mapping) and isinstance(key, str):
        found = _KEY.search(key)
        section = found[1] if found is not None else ""
        if found is None or section not in SECTIONS:
            raise place.at(value, "key").wrong(f"{key!r} is no key of APISIX's, like /apisix/routes/1")
        if "id" not in body and "username" not in body:
            entry = _Entry(body)
            for name in body:
                entry.put(name, body[name])
            body = entry.put("id", found[2]).made
        yield place.at(value, "value"), section, body
    elif "uri" in value or "uris" in value:
        yield place, "routes", value
    elif "username" in value:
        yield place, "consumers", value


# --- ADC ------------------------------------------------------------------------------------------------------------


def _is_adc(data: Any) -> bool:
    if not isinstance(data, Mapping) or "routes" in data or "upstreams" in data:
        return False
    services, consumers = data.get("services"), data.get("consumers")
    nested = [each for each in services or () if isinstance(each, Mapping)] if isinstance(services, list | None) else []
    named_only = bool(nested) and all("id" not in each for each in nested)
    holders = (
        [each for each in consumers or () if isinstance(each, Mapping)] if isinstance(consumers, list | None) else []
    )
    return (
        named_only
        or any("routes" in each or "stream_routes" in each for each in nested)
        or any("credentials" in each for each in holders)
        or isinstance(data.get("global_rules"), Mapping)
        or isinstance(data.get("plugin_metadata"), Mapping)
    )


def _hashed(name: str) -> str:
    # ADC makes its ids so
    return hashlib.sha1(name.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


class _Adc:
    """ADC's declarative file (``adc sync``)."""

    def __init__(self, data: Mapping[Any, Any], top: Place, report: Report) -> None:
        self.report = report
        self.sections = _Sections()
        data = self.replaced(data, top)
        for place, service in _entries(data.get("services"), top.at(data, "services")):
            self.service(_mapping(service, place), place)
        for place, consumer in _entries(data.get("consumers"), top.at(data, "consumers")):
            self.consumer(_mapping(consumer, place), place)
        for place, group in _entries(data.get("consumer_groups"), top.at(data, "consumer_groups")):
            group = _mapping(group, place)
            self.report.lacking(place, "the stand-in has no consumer groups: the plugins of this one do not run")
            for spot, consumer in _entries(group.get("consumers"), place.at(group, "consumers")):
                self.consumer(_mapping(consumer, spot), spot)
        here = top.at(data, "global_rules")
        rules = _mapping(data.get("global_rules"), here)
        for name in rules:
            plugins = _Entry(rules).put(name, rules[name]).made
            rule = _Entry(rules).put("id", str(name), name).put("plugins", plugins, name).made
            self.sections.add("global_rules", rule, here.at(rules, name).line)
        for name in data:
            if name not in ("services", "consumers", "consumer_groups", "global_rules"):
                entries = _Entry(data).put(name, data[name]).made
                self.sections.data[name] = entries[name]
                self.sections.data.lines.update(entries.lines)
        self.data = self.sections.data

    def replaced(self, value: Any, place: Place) -> Any:
        """``${NAME}`` in each string, which ADC replaces; a backslash in front keeps it."""
        if isinstance(value, str):

            def one(match: re.Match[str]) -> str:
                if match[1]:
                    return match[0][1:]
                if match[2] not in os.environ:
                    self.report.remark(
                        place, f"the environment variable {match[2]} is not set: ADC puts an empty text there"
                    )
                return os.environ.get(match[2], "")

            return _REFERENCE.sub(one, value)
        if isinstance(value, LinedList):
            entries = LinedList()
            entries.lines = value.lines
            entries += [self.replaced(each, place.at(value, number)) for number, each in enumerate(value)]
            return entries
        if isinstance(value, LinedMapping):
            mapping = LinedMapping()
            mapping.line, mapping.lines, mapping.alias = value.line, value.lines, value.alias
            for key, each in value.items():
                mapping[key] = self.replaced(each, place.at(value, key))
            return mapping
        return value

    def common(self, source: Mapping[Any, Any], *handled: str) -> _Entry:
        entry = _Entry(source)
        for name in source:
            if name == "description":
                entry.put("desc", source[name], name)
            elif name == "labels" and isinstance(source[name], Mapping):
                labels = _Entry(source[name])
                for label, text in source[name].items():
                    labels.put(label, json.dumps(text, separators=(",", ":")) if isinstance(text, list) else text)
                entry.put("labels", labels.made)
            elif name not in handled:
                entry.put(name, source[name])
        return entry

    def service(self, service: Mapping[Any, Any], place: Place) -> None:
        name = service.get("name")
        if not isinstance(name, str):
            raise place.wrong("a service of ADC's has a name; its routes are known by it")
        identity = service.get("id", _hashed(name))
        for field, why in (
            ("path_prefix", "the stand-in puts no prefix before the uris"),
            ("stream_routes", "the stand-in does HTTP only"),
            ("upstreams", "the stand-in splits no traffic: all goes to upstream"),
        ):
            if field in service:
                self.report.lacking(place.at(service, field), why)
        handled = ("routes", "stream_routes", "upstreams", "path_prefix", "strip_path_prefix")
        entry = self.common(service, *handled).put("id", identity, "name").made
        self.sections.add("services", entry, place.line)
        for spot, route in _entries(service.get("routes"), place.at(service, "routes")):
            route = _mapping(route, spot)
            label = route.get("name")
            if not isinstance(label, str):
                raise spot.wrong("a route of ADC's has a name")
            made = self.common(route).put("id", route.get("id", _hashed(f"{name}.{label}")), "name")
            self.sections.add("routes", made.put("service_id", identity, "name").made, spot.line)

    def consumer(self, consumer: Mapping[Any, Any], place: Place) -> None:
        credentials = list(_entries(consumer.get("credentials"), place.at(consumer, "credentials")))
        entry = self.common(consumer, "credentials").made
        keys = 0
        for spot, credential in credentials:
            credential = _mapping(credential, spot)
            kind = credential.get("type")
            if kind != "key-auth":
                self.report.lacking(spot, f"the stand-in knows consumers by key-auth only, not by {kind}")
                continue
            held = _mapping(entry.get("plugins"), place.at(consumer, "plugins"))
            plugins = _Entry(held)
            for name, conf in held.items():
                plugins.put(name, conf)
            plugins.put("key-auth", credential.get("config"))
            again = _Entry(entry)
            for name, value in entry.items():
                again.put(name, value)
            self.sections.add("consumers", again.put("plugins", plugins.made).made, spot.line)
            keys += 1
        if not credentials:
            self.sections.add("consumers", entry, place.line)


# --- Kubernetes -----------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|us|ns|s)")
_LONGEST = 2.0**63 / 1e9
"""Seconds: a duration of Go's is a number of nanoseconds in 64 bits."""
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_OPERATORS = {
    "Equal": ["=="], "NotEqual": ["~="], "GreaterThan": [">"], "GreaterThanEqual": [">="], "LessThan": ["<"],
    "LessThanEqual": ["<="], "In": ["in"], "NotIn": ["!", "in"], "RegexMatch": ["~~"], "RegexNotMatch": ["!", "~~"],
    "RegexMatchCaseInsensitive": ["~*"], "RegexNotMatchCaseInsensitive": ["!", "~*"],
}  # fmt: skip
_AUTHENTICATIONS = {
    "keyAuth": "key-auth", "basicAuth": "basic-auth", "wolfRBAC": "wolf-rbac", "jwtAuth": "jwt-auth",
    "hmacAuth": "hmac-auth", "ldapAuth": "ldap-auth",
}  # fmt: skip


def _subject(scope: str, name: str) -> str | None:
    """The variable of a match expression's subject; None: there is no such scope."""
    if scope == "Header":
        return "http_" + name.lower().replace("-", "_")
    prefixes = {"Query": "arg_", "Cookie": "cookie_", "Variable": "", "Body": "post_arg."}
    return "uri" if scope == "Path" else prefixes[scope] + name if scope in prefixes else None


class _Kubernetes:
    """``ApisixRoute``, ``ApisixPluginConfig`` and their kin, as the ingress controller translates them."""

    def __init__(self, documents: list[Any], top: Place, report: Report, cluster: str) -> None:
        self.report = report
        self.cluster = cluster
        self.sections = _Sections()
        self.configs: dict[tuple[str, str], tuple[Mapping[Any, Any], Place]] = {}
        self.used: set[tuple[str, str]] = set()
        kinds: dict[str, list[tuple[Mapping[Any, Any], Place]]] = {}
        for document in documents:
            for resource in self.resources(document):
                place = Place(top.file, self.title(resource), "", getattr(resource, "line", None))
                kinds.setdefault(str(resource.get("kind")), []).append((resource, place))
        self.refuse_foreign(kinds, top)
        for resource, place in [*kinds.pop("ApisixPluginConfig", []), *kinds.pop("PluginConfig", [])]:
            self.configs[self.identity(resource)] = resource, place
        routes = kinds.pop("ApisixRoute", [])
        for resource, place in routes:
            self.route(resource, place)
        for identity, (resource, place) in self.configs.items():
            if identity not in self.used:
                self.lone(identity[1], resource, place, only=not routes and len(self.configs) == 1)
        for resource, place in kinds.pop("ApisixGlobalRule", []):
            spec = _mapping(resource.get("spec"), place)
            rule = _Entry(resource).put("id", self.identity(resource)[1], "metadata")
            rule.put("plugins", self.plugins(spec, place.at(resource, "spec")), "spec")
            self.sections.add("global_rules", rule.made, place.line)
        for resource, place in kinds.pop("ApisixConsumer", []):
            self.consumer(resource, place)
        for kind, found in kinds.items():
            if _KUBERNETES.match(str(found[0][0].get("apiVersion"))) or kind in _ROUTES_OF_OTHERS:
                report.lacking(found[0][1], f"the stand-in does not read resources of kind {kind}")
        self.data = self.sections.data

    def refuse_foreign(self, kinds: Mapping[str, list[tuple[Mapping[Any, Any], Place]]], top: Place) -> None:
        """Refuse a file in which no resource is APISIX's."""
        resources = [resource for found in kinds.values() for resource, _ in found]
        named_so = any(_KUBERNETES.match(str(resource.get("apiVersion"))) for resource in resources)
        if not named_so and not any(kind in _KINDS for kind in kinds):
            raise top.wrong(
                f"none of these Kubernetes resources is APISIX's: {', '.join(sorted(kinds))}; the stand-in reads "
                f"{', '.join(_KINDS)}"
            )

    def resources(self, document: Any) -> Iterator[Mapping[Any, Any]]:
        if isinstance(document, Mapping) and isinstance(document.get("items"), list):
            for entry in document["items"]:
                yield from self.resources(entry)
        elif isinstance(document, Mapping):
            yield document

    def title(self, resource: Mapping[Any, Any]) -> str:
        return f"{resource.get('kind')} {self.identity(resource)[1]!r}"

    def identity(self, resource: Mapping[Any, Any]) -> tuple[str, str]:
        metadata = resource.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        return str(metadata.get("namespace", "default")), str(metadata.get("name", ""))

    def plugins(self, holder: Mapping[Any, Any], place: Place) -> LinedMapping:
        """``plugins`` of a resource, a list, as the mapping of a route. Those with ``enable: false`` are left out."""
        made = _Entry({})
        for spot, plugin in _entries(holder.get("plugins"), place.at(holder, "plugins")):
            plugin = _mapping(plugin, spot)
            if plugin.get("enable", True) is False:
                continue
            if not isinstance(plugin.get("name"), str):
                raise spot.wrong("a plugin has a name")
            if plugin.get("secretRef"):
                self.report.lacking(spot.at(plugin, "secretRef"), "the stand-in has no Secrets of the cluster")
            made.put(plugin["name"], plugin.get("config") or {})
            line = getattr(plugin, "lines", {}).get("name", spot.line)
            if line is not None:
                made.made.lines[plugin["name"]] = line
        return made.made

    def upstream(self, source: Any) -> dict[str, Any]:
        return {"type": "roundrobin", "nodes": {self.cluster: 1}}

    def lone(self, name: str, resource: Mapping[Any, Any], place: Place, *, only: bool) -> None:
        """A plugin configuration that no route here names: on a route of its own, to be tried."""
        uri = "/*" if only else f"/{name}*"
        self.report.remark(
            place, f"no ApisixRoute here names it, so it is on a route {uri}, which goes to {self.cluster}"
        )
        spec = _mapping(resource.get("spec"), place.at(resource, "spec"))
        entry = _Entry(resource).put("id", name, "metadata").put("uri", uri, "metadata")
        entry.put("plugins", self.plugins(spec, place.at(resource, "spec")), "spec")
        self.sections.add("routes", entry.put("upstream", self.upstream(resource)).made, place.line)

    def route(self, resource: Mapping[Any, Any], place: Place) -> None:
        namespace, name = self.identity(resource)
        spec = _mapping(resource.get("spec"), place.at(resource, "spec"))
        here = place.at(resource, "spec")
        if spec.get("stream"):
            self.report.lacking(here.at(spec, "stream"), "the stand-in does HTTP only")
        for spot, rule in _entries(spec.get("http"), here.at(spec, "http")):
            rule = _mapping(rule, spot)
            full = f"{namespace}_{name}_{rule.get('name')}"
            match = _mapping(rule.get("match"), spot.at(rule, "match"))
            entry = (
                _Entry(rule)
                .put("id", f"{zlib.crc32(full.encode('utf-8', 'surrogatepass')):x}", "name")
                .put("name", full)
            )
            entry.take(priority="priority", enable_websocket="websocket")
            matched = _Entry(match).take(
                uris="paths", hosts="hosts", methods="methods", remote_addrs="remoteAddrs", filter_func="filter_func"
            )
            if match.get("exprs"):
                matched.put(
                    "vars", self.expressions(match["exprs"], spot.at(rule, "match").at(match, "exprs")), "exprs"
                )
            for field, value in matched.made.items():
                entry.made[field] = value
                if field in matched.made.lines:
                    entry.made.lines[field] = matched.made.lines[field]
            if rule.get("timeout"):
                entry.put("timeout", self.timeout(rule["timeout"], spot.at(rule, "timeout")))
            entry.put("plugins", self.of_rule(rule, namespace, spot))
            services = [
                f"{each.get('serviceName')}:{each.get('servicePort')}"
                for _, each in _entries(rule.get("backends"), spot.at(rule, "backends"))
                if isinstance(each, Mapping)
            ]
            services += [
                str(each.get("name"))
                for _, each in _entries(rule.get("upstreams"), spot.at(rule, "upstreams"))
                if isinstance(each, Mapping)
            ]
            if services:
                near = "backends" if "backends" in rule else "upstreams"
                self.report.remark(
                    spot.at(rule, near), f"{', '.join(services)} stand in the cluster: requests go to {self.cluster}"
                )
                entry.put("upstream", self.upstream(rule), near)
            self.sections.add("routes", entry.made, spot.line)

    def of_rule(self, rule: Mapping[Any, Any], namespace: str, place: Place) -> LinedMapping:
        made = LinedMapping()
        config = rule.get("plugin_config_name")
        if config:
            identity = str(rule.get("plugin_config_namespace") or namespace), str(config)
            if identity in self.configs:
                self.used.add(identity)
                resource, there = self.configs[identity]
                spec = _mapping(resource.get("spec"), there.at(resource, "spec"))
                self.merge(made, self.plugins(spec, there.at(resource, "spec")))
            else:
                self.report.remark(
                    place.at(rule, "plugin_config_name"), f"there is no ApisixPluginConfig {config!r} in this file"
                )
        self.merge(made, self.plugins(rule, place))
        authentication = _mapping(rule.get("authentication"), place.at(rule, "authentication"))
        if authentication.get("enable"):
            kind = str(authentication.get("type"))
            source = _Entry(rule).put(
                _AUTHENTICATIONS.get(kind, "basic-auth"), authentication.get(kind) or {}, "authentication"
            )
            self.merge(made, source.made)
        return made

    def merge(self, made: LinedMapping, more: LinedMapping) -> None:
        made.update(more)
        made.lines.update(more.lines)

    def expressions(self, exprs: Any, place: Place) -> list[Any]:
        made: list[Any] = []
        for spot, each in _entries(exprs, place):
            expression = _mapping(each, spot)
            subject = _mapping(expression.get("subject"), spot.at(expression, "subject"))
            variable = _subject(str(subject.get("scope")), str(subject.get("name", "")))
            operator = _OPERATORS.get(str(expression.get("op")))
            if variable is None or operator is None:
                raise spot.wrong(
                    f"scope is Query, Header, Cookie, Path, Variable or Body, and op is one of {', '.join(_OPERATORS)}"
                )
            field = "set" if operator[-1] == "in" else "value"
            if expression.get(field) is None:
                raise spot.wrong(f"it has no {field}")
            made.append([variable, *operator, expression[field]])
        return made

    def timeout(self, value: Any, place: Place) -> dict[str, Any]:
        given = _mapping(value, place)
        seconds = {}
        for name in ("connect", "send", "read"):
            text = str(given.get(name, "60s"))
            parts = _DURATION.findall(text)
            whole = sum(float(number) * _SECONDS[unit] for number, unit in parts)
            if not parts or "".join(number + unit for number, unit in parts) != text or whole > _LONGEST:
                raise place.at(given, name).wrong(f"{shown(text)} is no duration, like 5s or 1m30s")
            # the controller takes whole seconds, and 60 for less than one
            seconds[name] = int(whole) or 60
        return seconds

    def consumer(self, resource: Mapping[Any, Any], place: Place) -> None:
        spec = _mapping(resource.get("spec"), place.at(resource, "spec"))
        here = place.at(resource, "spec")
        parameter = _mapping(spec.get("authParameter"), here.at(spec, "authParameter"))
        key_auth = _mapping(parameter.get("keyAuth"), here.at(spec, "authParameter").at(parameter, "keyAuth"))
        if not isinstance(key_auth.get("value"), Mapping):
            self.report.lacking(here, "the stand-in knows consumers by the value of a keyAuth only")
            return
        namespace, name = self.identity(resource)
        plugins = self.plugins(spec, here)
        plugins["key-auth"] = key_auth["value"]
        # as the controller names it: a username has no dots and dashes there
        username = re.sub(r"[^a-zA-Z0-9_]", "_", f"{namespace}_{name}")
        entry = _Entry(resource).put("username", username, "metadata").put("plugins", plugins, "spec")
        self.sections.add("consumers", entry.made, place.line)
