"""Reads routes from APISIX's standalone ``apisix.yaml``, and from the other forms in which people keep them.

What is wrong is said with the line of the file. Strictly, as in tests, that is an error; otherwise, as in ``asgi-bridge
dev``, it is a finding: a route that APISIX would drop is dropped here too, and what the stand-in does not do is passed
over.
"""

import contextlib
import dataclasses
import ipaddress
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ...spelling import did_you_mean
from ..builtin import BUILTIN, Unsupported, check_builtin
from ..nginx.uri import raw
from ..upstream.tls import client_context
from . import schema as limits
from .expressions import Expression, parse_expression
from .forms import SECTIONS, Form, standalone
from .places import LinedList, LinedMapping, Misplaced, Place, Report, named, shown
from .plugin_names import PLUGINS
from .route import PHASES, Consumer, ExtPlugin, Node, Plugins, Route, Routes, Upstream
from .text import ALIAS, END, read_text, replace_in_values

if TYPE_CHECKING:
    from ...wire.messages import TextEntry

__all__ = ["CLUSTER", "load_routes", "parse_routes", "read_routes"]

CLUSTER = "127.0.0.1:1980"
"""Where requests go whose upstream only a cluster or a service registry knows: to the upstream that
``asgi-bridge dev`` starts."""

_READ = ("routes", "upstreams", "services", "plugin_configs", "consumers", "global_rules")
_NOT_DONE = {
    "filter_func": "the stand-in runs no Lua, so it asks no filter_func",
    "script": "the stand-in does not know this field: it runs no Lua",
    "script_id": "the stand-in does not know this field: it runs no Lua",
    "group_id": "the stand-in has no consumer groups, so their plugins do not run",
}
_WITHOUT_EFFECT = ("checks", "retries", "retry_timeout", "keepalive_pool")
_REFERENCE = re.compile(r"\$env://([^/]+)(?:/(.+))?", re.IGNORECASE)


def load_routes(path: str | Path, *, strict: bool = True) -> Routes:
    """Read a route file.

    Args:
        path: the file: an ``apisix.yaml`` or ``apisix.json``, JSON of the Admin API, ADC's YAML, or resources of the
            ingress controller for Kubernetes. Told apart by what is in it.
        strict: True: what APISIX refuses, and what the stand-in cannot do, is an error. False: it is kept in
            `Routes.findings`; routes that APISIX drops are not there, the rest is passed over.

    Raises:
        ConfigurationError: it cannot be read, or something in it is wrong.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: the route file cannot be read: {exc}") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: the route file cannot be read: it is no UTF-8; save it as that"
        ) from None
    return parse_routes(text, str(path), strict=strict)


def parse_routes(text: str, file: str = "apisix.yaml", *, strict: bool = True) -> Routes:
    """Read routes from the text of a route file.

    Args:
        text: YAML that ends with ``#END``, or another form; see `load_routes`.
        file: the file's name, for messages.
        strict: as `load_routes` has them.

    Raises:
        ConfigurationError: something in it is wrong; the message says what, where, and what to do.
    """
    if not text.strip():
        raise ConfigurationError(f"{file}: the file is empty; one without routes has at least the line {END}")
    found = read_text(text, file)
    report = Report(strict)
    top = Place(file)
    form = standalone(found, top, report, CLUSTER)
    if not form.name and not found.ended:
        if not found.json:
            raise ConfigurationError(
                f"{file}: the last line has to be {END}; APISIX does not read a file without it "
                "(it may be half written)"
            )
        # an apisix.json
        form = Form(replace_in_values(form.data, file), "")
    for line, key, first in found.twice:
        if strict:
            raise ConfigurationError(f"{file}:{line}: {key!r} stands twice; the first is on line {first}")
        report.remark(Place(file, line=line), f"{key!r} stands twice; APISIX takes this one, not that on line {first}")
    return _Reader(form.data, top, report, nothing_is_table=not found.json).read()


def read_routes(data: Any, file: str = "routes", *, strict: bool = True) -> Routes:
    """Read routes from a mapping as the file would give it.

    Args:
        data: a mapping with the sections of an ``apisix.yaml``.
        file: a name for messages.
        strict: as `load_routes` has it.

    Raises:
        ConfigurationError: something in it is wrong.
    """
    return _Reader(data, Place(file), Report(strict)).read()


class _Reader:
    """Reads the sections of an ``apisix.yaml``.

    Args:
        data: the mapping of the sections.
        top: the place of the file.
        report: takes what is to be said.
        nothing_is_table: a null is an empty table in Lua, as lyaml makes it; from JSON it is nil.
    """

    def __init__(self, data: Any, top: Place, report: Report, *, nothing_is_table: bool = False) -> None:
        self.top = top
        self.report = report
        self.nothing_is_table = nothing_is_table
        self.not_here: dict[str, list[Place]] = {}
        self.data = self.mapping(data, top)
        for key in self.data:
            self.known_section(key)
        self.certificates = self.client_certificates()
        self.upstreams = self.section("upstreams", self.upstream)
        self.plugin_configs = self.section("plugin_configs", self.plugin_config)
        self.services = self.section("services", self.service)

    def read(self) -> Routes:
        routes: dict[str, Route] = {}
        for number, entry in enumerate(self.entries("routes")):
            place = self.place("routes", entry, number)
            with self.entry(place, "; APISIX drops the route, so its requests get 404"):
                route = self.route(entry, place, number)
                if route is None:
                    continue
                if route.id in routes:
                    text = "there is another route with this id"
                    self.report.doubtful(place, f"{text}; ids are unique", f"{text}, and APISIX takes the last one")
                routes[route.id] = route
        consumers: list[Consumer] = []
        for number, entry in enumerate(self.entries("consumers")):
            place = self.place("consumers", entry, number)
            with self.entry(place, "; APISIX drops the consumer"):
                consumers += self.consumer(entry, place)
        rules = self.global_rules()
        for name, places in self.not_here.items():
            lines = [str(place.line) for place in places[1:9] if place.line is not None]
            also = f" (here and on line {', '.join(lines)})" if lines else ""
            self.report.lacking(places[0], self.absence(name) + also, plugin=name)
        return Routes(routes.values(), consumers, rules, self.report.findings)

    # --- shapes -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def entry(self, place: Place, loss: str) -> Iterator[None]:
        """Read one entry; what is wrong with it leaves the others alone, as in APISIX."""
        try:
            yield
        except Misplaced as exc:
            here = dataclasses.replace(exc.place, route=place.route)
            self.report.wrong(Misplaced(here, exc.text, exc.plugin), loss)

    def entries(self, section: str) -> list[Any]:
        return self.listed(self.data.get(section), self.top.at(self.data, section))

    def place(self, section: str, entry: Any, number: int) -> Place:
        kind = section.removesuffix("s").replace("_", " ")
        fields = entry if isinstance(entry, Mapping) else {}
        identity, label = fields.get("id", fields.get("username")), fields.get("name")
        what = f"{kind} number {number + 1}" if identity is None else f"{kind} {str(identity)!r:.80}"
        if isinstance(label, str) and label not in ("", identity):
            what += f" ({label:.80})"
        lines = getattr(self.data.get(section), "lines", None)
        line = getattr(entry, "line", None) or (lines[number] if lines is not None else None)
        route = None
        if kind == "route":
            route = f"arr_{number + 1}" if identity is None else str(identity)
        return Place(self.top.file, what, "", line, route)

    def section(self, name: str, read: Callable[[Mapping[Any, Any], Place], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, entry in enumerate(self.entries(name)):
            place = self.place(name, entry, number)
            with self.entry(place, f"; APISIX drops the {place.what.split()[0]}, and what refers to it fails"):
                value = self.whole(entry, place)
                if value.get("id") is None:
                    raise place.wrong("it has no id; routes refer to it by that")
                found[self.identity(value, place)] = read(value, place)
        return found

    def whole(self, entry: Any, place: Place) -> Mapping[Any, Any]:
        """An entry, in which nothing stands that stands elsewhere too."""
        self.refuse_aliases(entry, place)
        return self.mapping(entry, place)

    def refuse_aliases(self, value: Any, place: Place) -> None:
        if isinstance(value, LinedMapping):
            if value.alias is not None:
                raise dataclasses.replace(place, line=value.alias).wrong(ALIAS)
            for key, each in value.items():
                self.refuse_aliases(each, place.at(value, key))
        elif isinstance(value, LinedList):
            for number, each in enumerate(value):
                self.refuse_aliases(each, place.at(value, number))

    def mapping(self, value: Any, place: Place) -> Mapping[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise place.wrong(f"this has to be a mapping, not {named(value)}")
        return value

    def listed(self, value: Any, place: Place) -> list[Any]:
        if value is None:
            return []
        if isinstance(value, LinedMapping) and value.alias is not None:
            raise place.wrong(ALIAS)
        if not isinstance(value, list | tuple):
            raise place.wrong(f"this has to be a list, not {named(value)}")
        return list(value)

    def known_section(self, key: Any) -> None:
        here = self.top.at(self.data, key)
        if key not in SECTIONS:
            text, hint = "the stand-in does not know this field", did_you_mean(str(key), SECTIONS)
            names = ", ".join(sorted(_READ))
            strict = f"{text}; take it out. It knows {names}{hint}"
            self.report.doubtful(here, strict, f"{text}, and APISIX neither; it is passed over{hint}")
        elif key not in _READ and self.data[key] and not (key == "ssls" and self.only_client_certificates()):
            self.report.lacking(here, "the stand-in does not read this section", "take it out")

    def known(
        self, mapping: Mapping[Any, Any], table: Mapping[str, Any], place: Place, more: Sequence[str] = ()
    ) -> None:
        """Refuse fields that APISIX does not have, and name those that the stand-in does nothing with."""
        for key in mapping:
            here = place.at(mapping, key)
            if key not in table and key not in more:
                names = sorted({*table, *more} - set(_NOT_DONE))
                raise here.wrong(
                    "the stand-in does not know this field, and APISIX neither, so it drops what has it; take it out. "
                    f"There are {', '.join(names)}{did_you_mean(str(key), names)}"
                )
            if key in _NOT_DONE:
                self.report.lacking(here, _NOT_DONE[key], "take it out")

    def identity(self, mapping: Mapping[Any, Any], place: Place) -> str:
        limits.check_fields(mapping, {"id": limits.ROUTE["id"]}, place)
        return str(mapping["id"])

    def refer(self, mapping: Mapping[Any, Any], key: str, among: Mapping[str, Any], place: Place) -> Any:
        if key not in mapping:
            return None
        wanted = str(mapping[key])
        if wanted not in among:
            known = ", ".join(sorted(among)) or "none"
            raise place.at(mapping, key).wrong(f"there is no {key.removesuffix('_id')} {wanted!r}; there are: {known}")
        return among[wanted]

    # --- entries ----------------------------------------------------------------------------------------------------

    def route(self, entry: Any, place: Place, number: int) -> Route | None:
        route = self.whole(entry, place)
        self.known(route, limits.ROUTE, place, ("upstream",))
        if ("uri" in route) == ("uris" in route):
            raise place.wrong("it needs either uri or uris, and not both")
        for one, more in (("host", "hosts"), ("remote_addr", "remote_addrs")):
            if one in route and more in route:
                raise place.at(route, more).wrong(f"it has {one} as well; keep one of them")
        limits.check_fields(route, limits.ROUTE, place)
        if not any(field in route for field in limits.REQUIRED):
            raise place.wrong("it needs plugins, an upstream, an upstream_id or a service_id; {} will do for plugins")
        plugins = self.plugins(route.get("plugins"), place.at(route, "plugins"))
        upstream = self.own_upstream(route, place)
        if route.get("status", 1) == 0:
            return None
        if route.get("enable_websocket"):
            here = place.at(route, "enable_websocket")
            self.report.lacking(here, "the stand-in does not proxy WebSockets", "take it out")
        plugin_config = self.refer(route, "plugin_config_id", self.plugin_configs, place)
        if plugin_config is not None:
            plugins = plugins.over(plugin_config)
        hosts, service_name = self.hosts(route, place), None
        service: _Service | None = self.refer(route, "service_id", self.services, place)
        if service is not None:
            service_name = service.name
            upstream = upstream or service.upstream
            hosts = hosts or service.hosts
            plugins = plugins.over(service.plugins)
        if upstream is not None and "timeout" in route:
            upstream = dataclasses.replace(upstream, **route["timeout"])
        addresses = [route["remote_addr"]] if "remote_addr" in route else route.get("remote_addrs") or []
        return Route(
            f"arr_{number + 1}" if route.get("id") is None else self.identity(route, place),
            self.uris(route, place),
            hosts,
            frozenset(route.get("methods") or ()),
            int(route.get("priority", 0)),
            route.get("name"),
            route.get("desc"),
            plugins,
            upstream,
            str(route["service_id"]) if service is not None else None,
            service_name,
            str(route["plugin_config_id"]) if plugin_config is not None else None,
            tuple(ipaddress.ip_network(address, strict=False) for address in addresses),
            self.expression(route, "vars", place),
            place.where,
        )

    def uris(self, route: Mapping[Any, Any], place: Place) -> tuple[str, ...]:
        key = "uri" if "uri" in route else "uris"
        uris = (route["uri"],) if key == "uri" else tuple(route["uris"])
        for uri in uris:
            if not uri.startswith("/"):
                raise place.at(route, key).wrong(f"{uri!r} has to begin with a slash; no request's path is without")
        return uris

    def hosts(self, mapping: Mapping[Any, Any], place: Place) -> tuple[str, ...]:
        key = "host" if "host" in mapping else "hosts"
        hosts = (mapping["host"],) if "host" in mapping else tuple(mapping.get("hosts") or ())
        for host in hosts:
            if not host or (":" in host and not host.startswith("[")):
                raise place.at(mapping, key).wrong(
                    f"{host!r} has to be a name without a port; APISIX compares it with the host without its port"
                )
        return tuple(host.lower() for host in hosts)

    def expression(self, mapping: Mapping[Any, Any], key: str, place: Place) -> Expression | None:
        rule = mapping.get(key)
        if rule is None:
            return None
        here = place.at(mapping, key)
        try:
            return parse_expression(_with_tables(rule) if self.nothing_is_table else rule)
        except NotImplementedError as exc:
            self.report.lacking(here, str(exc))
            return None
        except ValueError as exc:
            raise here.wrong(str(exc)) from None

    def service(self, service: Mapping[Any, Any], place: Place) -> "_Service":
        self.known(service, limits.SERVICE, place, ("upstream",))
        limits.check_fields(service, limits.SERVICE, place)
        if service.get("enable_websocket"):
            here = place.at(service, "enable_websocket")
            self.report.lacking(here, "the stand-in does not proxy WebSockets", "take it out")
        return _Service(
            service.get("name"),
            self.plugins(service.get("plugins"), place.at(service, "plugins")),
            self.own_upstream(service, place),
            self.hosts(service, place),
        )

    def plugin_config(self, config: Mapping[Any, Any], place: Place) -> Plugins:
        self.known(config, limits.PLUGIN_CONFIG, place)
        limits.check_fields(config, limits.PLUGIN_CONFIG, place)
        if "plugins" not in config:
            raise place.wrong("it has no plugins; name them, or take it out")
        return self.plugins(config["plugins"], place.at(config, "plugins"))

    def consumer(self, entry: Any, place: Place) -> list[Consumer]:
        consumer = self.whole(entry, place)
        self.known(consumer, limits.CONSUMER, place)
        if "username" not in consumer:
            raise place.wrong("it has no username, which APISIX wants")
        limits.check_fields(consumer, limits.CONSUMER, place)
        here = place.at(consumer, "plugins")
        plugins = self.mapping(consumer.get("plugins"), here)
        if "key-auth" not in plugins:
            text = "without key-auth no request finds this consumer"
            self.report.lacking(here, text, "give it a key-auth with a key")
            return []
        spot = here.at(plugins, "key-auth")
        auth = self.resolved(self.mapping(plugins["key-auth"], spot), spot)
        if "key" not in auth:
            raise spot.wrong("it has no key, which APISIX wants")
        limits.check_fields(auth, {"key": limits.TEXT}, spot)
        rest = LinedMapping()
        rest.update({name: conf for name, conf in plugins.items() if name != "key-auth"})
        rest.lines = getattr(plugins, "lines", {})
        return [Consumer(consumer["username"], auth["key"], self.plugins(rest, here))]

    def global_rules(self) -> Plugins:
        merged = Plugins()
        seen: dict[str, str] = {}
        for number, entry in enumerate(self.entries("global_rules")):
            place = self.place("global_rules", entry, number)
            with self.entry(place, "; APISIX drops the rule"):
                rule = self.whole(entry, place)
                self.known(rule, limits.GLOBAL_RULE, place)
                if "plugins" not in rule:
                    raise place.wrong("it has no plugins; name them, or take the rule out")
                here = place.at(rule, "plugins")
                plugins = self.plugins(rule["plugins"], here)
                if "id" not in rule:
                    raise place.wrong("it has no id, which APISIX wants")
                limits.check_fields(rule, limits.GLOBAL_RULE, place)
                for name in self.mapping(rule["plugins"], here):
                    if name in seen:
                        text = f"{seen[name]} has this plugin as well, and APISIX then runs neither"
                        spot = here.at(rule["plugins"], name)
                        self.report.doubtful(spot, f"{text}; keep one of them", text, str(name))
                merged = merged.over(plugins)
                for name in self.mapping(rule["plugins"], here):
                    if name in seen:
                        merged = merged.without(name)
                    seen.setdefault(str(name), place.what)
        return merged

    # --- plugins ----------------------------------------------------------------------------------------------------

    def plugins(self, value: Any, place: Place) -> Plugins:
        ext: dict[str, ExtPlugin] = {}
        builtin: dict[str, Mapping[str, Any]] = {}
        disabled: set[str] = set()
        filters: dict[str, Expression] = {}
        plugins = self.mapping(value, place)
        for name in plugins:
            here = place.at(plugins, name)
            try:
                conf = self.mapping(plugins[name], here)
                meta = self.mapping(conf.get("_meta"), here.at(conf, "_meta"))
                if name not in PHASES and name not in BUILTIN:
                    self.other_plugin(str(name), meta, here)
                    continue
                if meta.get("disable") is True:
                    # what else is wrong with it does not matter, but its filter is read (plugin.lua, 3.18)
                    if isinstance(meta.get("filter"), list):
                        self.expression(meta, "filter", here.at(conf, "_meta"))
                    disabled.add(str(name))
                    continue
                self.meta(meta, here.at(conf, "_meta"))
                if conf.get("disable") is True:
                    self.report.remark(
                        here.at(conf, "disable"),
                        "disable: true does nothing, and the plugin runs; "
                        "what switches it off is _meta: {disable: true}",
                        name,
                    )
                conf = self.resolved(conf, here)
                if name in PHASES:
                    limits.check_fields(conf, limits.EXT_PLUGIN, here)
                    ext[name] = self.ext_plugin(conf, here)
                else:
                    check_builtin(name, conf)
                    builtin[name] = conf
                expression = self.expression(meta, "filter", here.at(conf, "_meta"))
            except Misplaced as exc:
                raise Misplaced(exc.place, exc.text, str(name)) from None
            except Unsupported as exc:
                self.report.lacking(here, str(exc), plugin=name)
                continue
            except ValueError as exc:
                raise Misplaced(here, str(exc), name) from None
            if expression is not None:
                filters[name] = expression
        return Plugins(ext, builtin, frozenset(disabled), filters)

    def absence(self, name: str) -> str:
        if name in PLUGINS:
            return "the stand-in does not have this plugin of APISIX"
        return (
            "the stand-in does not have this plugin, and APISIX 3.18 neither: unless your gateway has one of its own "
            f"of this name, it drops the route{did_you_mean(name, PLUGINS, 0.75)}"
        )

    def other_plugin(self, name: str, meta: Mapping[Any, Any], place: Place) -> None:
        hint = did_you_mean(name, PHASES if name.startswith("ext") else PLUGINS, 0.75)
        if name not in PLUGINS and (name.startswith("ext-plugin") or any(phase in hint for phase in PHASES)):
            text = (
                f"APISIX has no plugin of this name, and drops what has it{hint or '; there are ' + ', '.join(PHASES)}"
            )
            raise place.wrong(text)
        if self.report.strict:
            raise place.wrong(
                f"{self.absence(name)}; take it out for the stand-in, or try the route on a real APISIX. "
                f"It has {', '.join((*PHASES, *sorted(BUILTIN)))}"
            )
        if meta.get("disable") is not True:
            self.not_here.setdefault(name, []).append(place)

    def meta(self, meta: Mapping[Any, Any], place: Place) -> None:
        for key in meta:
            if key not in limits.META:
                raise place.at(meta, key).wrong(
                    f"APISIX does not know this; there are {', '.join(sorted(limits.META))}"
                )
        limits.check_fields(meta, limits.META, place)
        if "pre_function" in meta:
            self.report.lacking(place.at(meta, "pre_function"), "the stand-in runs no Lua", "take it out")

    def resolved(self, value: Any, place: Place) -> Any:
        """A plugin's configuration with the values of ``$env://NAME``, which APISIX puts in when a request comes."""
        if isinstance(value, Mapping):
            mapping = LinedMapping()
            mapping.line, mapping.lines = getattr(value, "line", None), getattr(value, "lines", {})
            mapping.update({key: self.resolved(each, place.at(value, key)) for key, each in value.items()})
            return mapping
        if isinstance(value, list):
            entries = LinedList()
            entries += [self.resolved(each, place.at(value, number)) for number, each in enumerate(value)]
            entries.lines = getattr(value, "lines", [place.line] * len(value))
            return entries
        if not limits.is_reference(value):
            return value
        match = _REFERENCE.fullmatch(value)
        if match is None:
            self.report.remark(place, f"the stand-in reaches no secret manager: {shown(value)} stays as it is")
            return value
        found: Any = os.environ.get(match[1])
        if found is not None and match[2] is not None:
            try:
                found = json.loads(found).get(match[2])
            except (ValueError, AttributeError):
                found = None
        if found is None:
            self.report.remark(place, f"the environment has no {match[1]}: APISIX takes {shown(value)} itself for it")
            return value
        return found

    def ext_plugin(self, conf: Mapping[Any, Any], place: Place) -> ExtPlugin:
        meta = self.mapping(conf.get("_meta"), place)
        further = conf.get("allow_degradation", False), meta.get("priority"), meta.get("error_response")
        if "conf" not in conf:
            return ExtPlugin(None, *further, where=place.where)
        here = place.at(conf, "conf")
        texts: list[TextEntry] = []
        places: list[str] = []
        for number, entry in enumerate(conf["conf"]):
            texts.append((raw(entry["name"]), raw(entry["value"])))
            spot = here.at(conf["conf"], number)
            places.append(spot.at(entry, "name").where)
        return ExtPlugin(texts, *further, where=place.where, places=tuple(places))

    # --- upstreams --------------------------------------------------------------------------------------------------

    def own_upstream(self, mapping: Mapping[Any, Any], place: Place) -> Upstream | None:
        own = None
        if "upstream" in mapping:
            here = place.at(mapping, "upstream")
            if "upstream_id" in mapping:
                text = "it has an upstream as well"
                spot = place.at(mapping, "upstream_id")
                self.report.doubtful(spot, f"{text}; keep one of them", f"{text}, and APISIX takes this one")
            own = self.upstream(self.mapping(mapping["upstream"], here), here)
        referred: Upstream | None = self.refer(mapping, "upstream_id", self.upstreams, place)
        return referred or own

    def upstream(self, value: Mapping[Any, Any], place: Place) -> Upstream:
        self.known(value, limits.UPSTREAM, place)
        limits.check_fields(value, limits.UPSTREAM, place)
        pass_host, host = value.get("pass_host", "pass"), value.get("upstream_host", "")
        if pass_host == "rewrite" and not host:
            raise place.wrong("pass_host is rewrite, so it needs an upstream_host")
        idle = [field for field in _WITHOUT_EFFECT if field in value]
        if value.get("type", "roundrobin") != "roundrobin":
            idle.append("type")
        if idle:
            self.report.remark(
                place.at(value, idle[0]),
                f"the stand-in asks the heaviest node, once, and checks no health: {', '.join(idle)} "
                f"{'is' if len(idle) == 1 else 'are'} passed over",
            )
        scheme = value.get("scheme", "http")
        if scheme not in ("http", "https"):
            text = f"the stand-in speaks http and https, not {scheme!r}"
            self.report.doubtful(place.at(value, "scheme"), text, f"{text}: requests get 503")
            return Upstream()
        nodes = self.upstream_nodes(value, place, 443 if scheme == "https" else 80)
        certificate, key = self.certificate(value, place)
        return Upstream(
            nodes, scheme, pass_host, host, client_cert=certificate, client_key=key, **(value.get("timeout") or {})
        )

    def upstream_nodes(self, value: Mapping[Any, Any], place: Place, default_port: int) -> tuple[Node, ...]:
        if "nodes" in value:
            return self.nodes(value["nodes"], place.at(value, "nodes"), default_port)
        if "service_name" in value and "discovery_type" in value:
            self.report.doubtful(
                place.at(value, "service_name"),
                "the stand-in asks no service registry; give it nodes",
                f"the stand-in asks no service registry for {value['service_name']}: requests go to {CLUSTER}",
            )
            host, _, port = CLUSTER.rpartition(":")
            return (Node(host, int(port)),)
        raise place.wrong('it needs nodes, as {"127.0.0.1:8000": 1} or [{host: 127.0.0.1, port: 8000, weight: 1}]')

    def nodes(self, value: Any, place: Place, default_port: int) -> tuple[Node, ...]:
        found: list[Node] = []
        if isinstance(value, Mapping):
            for name, weight in value.items():
                host, colon, digits = str(name).rpartition(":")
                if (
                    not colon
                    or not (digits.isascii() and digits.isdigit())
                    or (str(name).startswith("[") and not host.endswith("]"))
                ):
                    host, digits = str(name), str(default_port)
                host = host.removeprefix("[").removesuffix("]")
                found.append(self.node(host, int(digits), weight, place.at(value, name)))
        else:
            for number, node in enumerate(value or ()):
                host = node["host"].removeprefix("[").removesuffix("]")
                port = int(node.get("port", default_port))
                found.append(self.node(host, port, node["weight"], place.at(value, number)))
        if not found:
            text = "there is no node"
            self.report.doubtful(place, f"{text}; give one at least", f"{text}: requests get 503")
        return tuple(found)

    def node(self, host: str, port: int, weight: Any, place: Place) -> Node:
        if not host or not 0 < port < 65536:
            raise place.wrong(f"a node has a host and a port from 1 to 65535, not {host!r} and {port!r}")
        return Node(host, port, int(weight))

    def certificate(self, value: Mapping[Any, Any], place: Place) -> tuple[str, str]:
        """Certificate and key that the upstream is shown, in PEM; empty: none."""
        here = place.at(value, "tls")
        tls = self.mapping(value.get("tls"), here)
        if tls.get("verify"):
            self.report.remark(
                here.at(tls, "verify"), "APISIX verifies certificates of kafka only; verify does nothing"
            )
        if "client_cert_id" in tls:
            found: tuple[str, str] = self.refer(tls, "client_cert_id", self.certificates, here)
            return found
        if "client_cert" not in tls:
            return "", ""
        return self.checked_pair(tls["client_cert"], tls["client_key"], here)

    def checked_pair(self, certificate: str, key: str, place: Place) -> tuple[str, str]:
        certificate, key = self.resolved(certificate, place), self.resolved(key, place)
        try:
            client_context(certificate, key)
        except (OSError, ValueError) as exc:
            raise place.wrong(f"certificate and key cannot be used: {exc}") from None
        return certificate, key

    def only_client_certificates(self) -> bool:
        return all(isinstance(entry, Mapping) and entry.get("type") == "client" for entry in self.entries("ssls"))

    def client_certificates(self) -> dict[str, tuple[str, str]]:
        """The certificates of section ``ssls`` that upstreams may refer to, by id."""
        found: dict[str, tuple[str, str]] = {}
        for number, entry in enumerate(self.entries("ssls")):
            place = self.place("ssls", entry, number)
            with self.entry(place, "; APISIX drops the certificate"):
                if isinstance(entry, Mapping) and entry.get("type") == "client" and "id" in entry:
                    limits.check_fields(entry, {"cert": limits.CERTIFICATE, "key": limits.KEY}, place)
                    if "cert" not in entry or "key" not in entry:
                        raise place.wrong("a client certificate has cert and key")
                    found[self.identity(entry, place)] = self.checked_pair(entry["cert"], entry["key"], place)
        return found


@dataclasses.dataclass(frozen=True)
class _Service:
    name: str | None
    plugins: Plugins
    upstream: Upstream | None
    hosts: tuple[str, ...]


def _with_tables(value: Any) -> Any:
    """An expression whose nulls are the empty tables that APISIX's YAML reader makes of them: equal to nothing."""
    if value is None:
        return {}
    return [_with_tables(each) for each in value] if isinstance(value, list) else value
