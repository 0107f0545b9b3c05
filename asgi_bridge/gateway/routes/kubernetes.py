"""Resources of the ingress controller: ``ApisixRoute`` and its kin, as the controller translates them."""

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from .places import LinedMapping, Part, Place, Report, shown
from .upstreams import CLUSTER

__all__ = ["is_kubernetes", "read_kubernetes"]

_APISIX = re.compile(r"apisix\.apache\.org/")
_KINDS = ("ApisixRoute", "ApisixPluginConfig", "PluginConfig", "ApisixGlobalRule", "ApisixConsumer")
_ROUTES_OF_OTHERS = ("Ingress", "HTTPRoute", "GRPCRoute")
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|us|ns|s)")
_LONGEST = 2.0**63 / 1e9
"""Seconds of Go's longest duration, which is a number of nanoseconds in 64 bits."""
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_OPERATORS = {
    "Equal": ["=="], "NotEqual": ["~="], "GreaterThan": [">"], "GreaterThanEqual": [">="], "LessThan": ["<"],
    "LessThanEqual": ["<="], "In": ["in"], "NotIn": ["!", "in"], "RegexMatch": ["~~"], "RegexNotMatch": ["!", "~~"],
    "RegexMatchCaseInsensitive": ["~*"], "RegexNotMatchCaseInsensitive": ["!", "~*"],
}  # fmt: skip
_PREFIXES = {"Query": "arg_", "Cookie": "cookie_", "Variable": "", "Body": "post_arg."}
"""Maps the scope of an expression's subject to the prefix of APISIX's variable."""
_AUTHENTICATIONS = {
    "keyAuth": "key-auth", "basicAuth": "basic-auth", "wolfRBAC": "wolf-rbac", "jwtAuth": "jwt-auth",
    "hmacAuth": "hmac-auth", "ldapAuth": "ldap-auth",
}  # fmt: skip
_UPSTREAM = {"type": "roundrobin", "nodes": {CLUSTER: 1}}


def is_kubernetes(document: Any) -> bool:
    """Return whether a document of a file is a resource of Kubernetes."""
    return isinstance(document, Mapping) and "apiVersion" in document and "kind" in document


def read_kubernetes(documents: list[Part], report: Report) -> LinedMapping:
    """Turn resources of Kubernetes into the sections of an ``apisix.yaml``.

    Args:
        documents: The resources, or lists of them, of one or several files. Others are ignored.
        report: Takes what is found.

    Raises:
        Misplaced: Something is not as the ingress controller has it, or none of the resources is APISIX's.
    """
    kinds: dict[str, list[Part]] = {}
    for document in documents:
        for resource in _resources(document.value):
            what = f"{resource.get('kind')} {_identity(resource)[1]!r}"
            place = Place(document.place.file, what, "", getattr(resource, "line", None))
            kinds.setdefault(str(resource.get("kind")), []).append(Part(resource, place))
    if not any(kind in _KINDS or any(map(_is_apisix, found)) for kind, found in kinds.items()):
        raise documents[0].place.wrong(
            f"none of these Kubernetes resources is APISIX's: {', '.join(sorted(kinds))}; the stand-in reads "
            f"{', '.join(_KINDS)}"
        )
    return _Resources(kinds, report).sections


def _resources(document: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(document, Mapping) and isinstance(document.get("items"), list):
        for entry in document["items"]:
            yield from _resources(entry)
    elif isinstance(document, Mapping):
        yield document


def _identity(resource: Mapping[Any, Any]) -> tuple[str, str]:
    """Return namespace and name of a resource."""
    metadata = resource.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return str(metadata.get("namespace", "default")), str(metadata.get("name", ""))


def _is_apisix(resource: Part) -> bool:
    return _APISIX.match(str(resource.get("apiVersion"))) is not None


class _Resources:
    """Translates the resources of one file.

    Args:
        kinds: Resources by their kind.
        report: Takes what is found.

    Attributes:
        sections: What they are in an ``apisix.yaml``.
    """

    def __init__(self, kinds: Mapping[str, list[Part]], report: Report) -> None:
        self.report = report
        self.sections = LinedMapping()
        configs = [*kinds.get("ApisixPluginConfig", ()), *kinds.get("PluginConfig", ())]
        self.configs = {_identity(config.value): config for config in configs}
        self.used: set[tuple[str, str]] = set()
        routes = kinds.get("ApisixRoute", [])
        for resource in routes:
            self.route(resource)
        for identity, config in self.configs.items():
            if identity not in self.used:
                self.lone(config, only=not routes and len(self.configs) == 1)
        for resource in kinds.get("ApisixGlobalRule", ()):
            rule = _entry(resource, "id", _identity(resource.value)[1])
            rule.put("plugins", self.plugins(_spec(resource)), _spec(resource).place)
            self.sections.append("global_rules", rule, resource.place)
        for resource in kinds.get("ApisixConsumer", ()):
            self.consumer(resource)
        for kind, found in kinds.items():
            if kind not in _KINDS and (_is_apisix(found[0]) or kind in _ROUTES_OF_OTHERS):
                report.lacking(found[0].place, f"the stand-in does not read resources of kind {kind}")

    def plugins(self, holder: Part) -> LinedMapping:
        """Turn the list of a resource's plugins into a mapping, without those that have ``enable: false``."""
        here = holder.at("plugins")
        made = LinedMapping(here.place.line)
        for entry in here.entries():
            plugin = entry.mapping()
            if plugin.get("enable", True) is False:
                continue
            if not isinstance(plugin.get("name"), str):
                raise plugin.place.wrong("a plugin needs a name")
            if plugin.get("secretRef"):
                self.report.lacking(plugin.at("secretRef").place, "the stand-in cannot read Secrets of the cluster")
            made.put(plugin.get("name"), plugin.get("config") or {}, plugin.at("name").place)
        return made

    def lone(self, resource: Part, *, only: bool) -> None:
        """Make a route for a plugin configuration that no route here names, so that it can be tried."""
        name = _identity(resource.value)[1]
        uri = "/*" if only else f"/{name}*"
        self.report.remark(
            resource.place,
            f"no ApisixRoute here names it, so it is on a route {uri}, which goes to {CLUSTER}",
            stand_in=True,
        )
        entry = _entry(resource, "id", name).put("uri", uri, resource.at("metadata").place)
        entry.put("plugins", self.plugins(_spec(resource)), _spec(resource).place)
        self.sections.append("routes", entry.put("upstream", _UPSTREAM, resource.place), resource.place)

    def route(self, resource: Part) -> None:
        """Make a route of each rule of an ``ApisixRoute``."""
        namespace, name = _identity(resource.value)
        spec = _spec(resource)
        if spec.get("stream"):
            self.report.lacking(spec.at("stream").place, "the stand-in does HTTP only")
        for each in spec.at("http").entries():
            rule = each.mapping()
            full = f"{namespace}_{name}_{rule.get('name')}"
            entry = rule.taken({"priority": "priority", "enable_websocket": "websocket"})
            entry.put("id", f"{zlib.crc32(full.encode('utf-8', 'surrogatepass')):x}", rule.at("name").place)
            entry.put("name", full, rule.at("name").place)
            match = rule.at("match").mapping()
            names = {"uris": "paths", "remote_addrs": "remoteAddrs"}
            entry.merge(match.taken({**names, **{key: key for key in ("hosts", "methods", "filter_func")}}))
            if match.get("exprs"):
                entry.put("vars", _expressions(match.at("exprs")), match.at("exprs").place)
            if rule.get("timeout"):
                entry.put("timeout", _timeout(rule.at("timeout").mapping()), rule.at("timeout").place)
            entry.put("plugins", self.of_rule(rule, namespace), rule.at("plugins").place)
            backends = [each for each in rule.at("backends").entries() if isinstance(each.value, Mapping)]
            upstreams = [each for each in rule.at("upstreams").entries() if isinstance(each.value, Mapping)]
            services = [f"{each.get('serviceName')}:{each.get('servicePort')}" for each in backends]
            services += [str(each.get("name")) for each in upstreams]
            if services:
                here = rule.at("backends" if "backends" in rule else "upstreams").place
                text = f"{', '.join(services)} are in the cluster: requests go to {CLUSTER}"
                self.report.remark(here, text, stand_in=True)
                entry.put("upstream", _UPSTREAM, here)
            self.sections.append("routes", entry, rule.place)

    def of_rule(self, rule: Part, namespace: str) -> LinedMapping:
        """Return the plugins of a rule: those of its plugin configuration, its own ones, and its authentication."""
        made = LinedMapping(rule.place.line)
        name = rule.get("plugin_config_name")
        if name:
            identity = str(rule.get("plugin_config_namespace") or namespace), str(name)
            if identity in self.configs:
                self.used.add(identity)
                made.merge(self.plugins(_spec(self.configs[identity])))
            else:
                text = f"there is no ApisixPluginConfig {name!r} in this file"
                self.report.remark(rule.at("plugin_config_name").place, text)
        made.merge(self.plugins(rule))
        authentication = rule.at("authentication").mapping()
        if authentication.get("enable"):
            kind = str(authentication.get("type"))
            plugin = _AUTHENTICATIONS.get(kind, "basic-auth")
            made.put(plugin, authentication.get(kind) or {}, authentication.place)
        return made

    def consumer(self, resource: Part) -> None:
        """Make a consumer of an ``ApisixConsumer`` whose key is in the file."""
        spec = _spec(resource)
        value = spec.at("authParameter").mapping().at("keyAuth").mapping().get("value")
        if not isinstance(value, Mapping):
            self.report.lacking(spec.place, "the stand-in knows consumers by the value of a keyAuth only")
            self.report.unused.append(Part(self.plugins(spec), spec.place))
            return
        # as the controller names it: a username has no dots and dashes there
        username = re.sub(r"[^a-zA-Z0-9_]", "_", "_".join(_identity(resource.value)))
        plugins = self.plugins(spec)
        plugins["key-auth"] = value
        entry = _entry(resource, "username", username).put("plugins", plugins, spec.place)
        self.sections.append("consumers", entry, resource.place)


def _spec(resource: Part) -> Part:
    return resource.at("spec").mapping()


def _entry(resource: Part, key: str, name: str) -> LinedMapping:
    """Return a new entry for `resource`, with its name under `key`."""
    return LinedMapping(resource.place.line).put(key, name, resource.at("metadata").place)


def _expressions(part: Part) -> list[Any]:
    """Turn ``exprs`` into ``vars`` of a route.

    Raises:
        Misplaced: A scope or an operator is none of the controller's, or a field is missing.
    """
    made: list[Any] = []
    for each in part.entries():
        expression = each.mapping()
        subject = expression.at("subject").mapping()
        scope, name = str(subject.get("scope")), str(subject.get("name", ""))
        variables = {key: prefix + name for key, prefix in _PREFIXES.items()}
        variables |= {"Header": "http_" + name.lower().replace("-", "_"), "Path": "uri"}
        operator = _OPERATORS.get(str(expression.get("op")))
        if scope not in variables or operator is None:
            raise expression.place.wrong(
                f"scope is Query, Header, Cookie, Path, Variable or Body, and op is one of {', '.join(_OPERATORS)}"
            )
        field = "set" if operator[-1] == "in" else "value"
        if expression.get(field) is None:
            raise expression.place.wrong(f"it has no {field}")
        made.append([variables[scope], *operator, expression.get(field)])
    return made


def _timeout(part: Part) -> dict[str, int]:
    """Turn Go's durations, like ``1m30s``, into seconds.

    Raises:
        Misplaced: One is no duration.
    """
    seconds = {}
    for name in ("connect", "send", "read"):
        text = str(part.get(name, "60s"))
        parts = _DURATION.findall(text)
        whole = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if not parts or "".join(number + unit for number, unit in parts) != text or whole > _LONGEST:
            raise part.at(name).place.wrong(f"{shown(text)} is not a duration like 5s or 1m30s")
        # the controller rounds down to whole seconds, and takes 60 for less than one
        seconds[name] = int(whole) or 60
    return seconds
