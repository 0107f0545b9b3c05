"""Reads the sections of an ``apisix.yaml``: routes, and all that routes refer to."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pydantic

from ...spelling import did_you_mean
from . import schema
from .checking import checked
from .places import LinedList, LinedMapping, Misplaced, Part, Place, Report
from .plugins import PluginReader, resolved
from .route import Consumer, Plugins, Route, Routes, Unused, Upstream
from .upstreams import UpstreamReader, referred

__all__ = ["Reader"]

_ALIAS = (
    "this YAML alias stands for a mapping that is elsewhere in the file. APISIX then has one table for both places, "
    "writes into it, and drops the routes after the first; write it out, or refer to it (upstream_id, "
    "plugin_config_id, service_id)"
)


_Model = TypeVar("_Model", bound=pydantic.BaseModel)


@dataclasses.dataclass(frozen=True)
class _Service:
    name: str | None
    plugins: Plugins
    upstream: Upstream | None
    hosts: tuple[str, ...]


class Reader:
    """Reads the sections of one ``apisix.yaml``.

    Args:
        data: The mapping of the sections.
        top: Place of the file.
        report: Takes what is found.
        null_is_table: See `PluginReader`.

    Raises:
        Misplaced: `data` is no mapping.
    """

    def __init__(self, data: Any, top: Place, report: Report, *, null_is_table: bool = False) -> None:
        self._data = Part(data, top).mapping()
        self._report = report
        self._plugins = PluginReader(report, null_is_table=null_is_table)
        self._upstreams = UpstreamReader(report)
        self._plugin_configs: dict[str, Plugins] = {}
        self._services: dict[str, _Service] = {}
        self._routes: dict[str, Route] = {}
        self._consumers: list[Consumer] = []
        self._global_rules = Plugins()
        self._rule_of: dict[str, str] = {}
        self._unnamed: dict[tuple[str, str], Unused] = {}

    def read(self) -> Routes:
        """Read all sections.

        Raises:
            Misplaced: Something is wrong and the report is strict, or a section is no list.
        """
        for key in self._data.value:
            self._known_section(key)
        self._each("ssls", "APISIX drops the certificate", self._certificate)
        for section, read in (
            ("upstreams", self._upstream),
            ("plugin_configs", self._plugin_config),
            ("services", self._service),
        ):
            kind = section.partition("_")[0].removesuffix("s")
            self._each(section, f"APISIX drops the {kind}, and what refers to it fails", read)
        self._each("routes", "APISIX drops the route, so its requests get 404", self._route)
        self._each("consumers", "APISIX drops the consumer", self._consumer)
        self._each("global_rules", "APISIX drops the rule", self._global_rule)
        self._plugins.report_absent()
        unused = [*self._unnamed.values(), *self._unused()]
        return Routes(self._routes.values(), self._consumers, self._global_rules, self._report.findings, unused)

    def _unused(self) -> Iterator[Unused]:
        """Read the plugins of entries that the stand-in does not have."""
        for part in self._report.unused:
            try:
                yield Unused(part.place.what or part.place.path, self._plugins.read(part))
            except Misplaced as exc:
                self._report.wrong(exc)

    def _each(self, section: str, loss: str, read: Callable[[Part], None]) -> None:
        """Read each entry of a section. An error in one leaves the others alone, as in APISIX."""
        here = self._data.at(section)
        if isinstance(here.value, LinedMapping) and here.value.alias is not None:
            raise here.place.wrong(_ALIAS)
        for number, entry in enumerate(here.entries()):
            place = _place(section, number, entry)
            try:
                read(Part(entry.value, place))
            except Misplaced as exc:
                wrong = dataclasses.replace(exc.place, route=place.route)
                self._report.wrong(
                    Misplaced(wrong, exc.text, exc.plugin), f"{'' if exc.text.endswith('?') else ';'} {loss}"
                )

    def _known_section(self, key: Any) -> None:
        here = self._data.at(key)
        if key not in schema.SECTIONS:
            hint = did_you_mean(str(key), schema.SECTIONS)
            self._report.lacking(
                here.place,
                "neither the stand-in nor APISIX knows this field",
                f"take it out. The stand-in knows {', '.join(schema.READ)}{hint}",
                outcome=f"it is passed over{hint}",
                stand_in=False,
            )
        elif key not in schema.READ and here.value:
            if key == "consumer_groups":
                for number, entry in enumerate(here.entries()):
                    place = _place(key, number, entry)
                    self._report.unused.append(Part(entry.value, place).at("plugins"))
            if key == "ssls" and all(entry.get("type") == "client" for entry in here.entries()):
                return
            self._report.lacking(here.place, "the stand-in does not read this section", "take it out")

    def _checked(self, model: type[_Model], part: Part) -> tuple[Part, _Model]:
        """Check an entry, and report those of its fields that the stand-in ignores."""
        _refuse_aliases(part)
        part = part.mapping()
        for key in part.value:
            if key in schema.NOT_DONE:
                self._report.lacking(part.at(key).place, schema.NOT_DONE[key], "take it out")
        return part, checked(model, part)

    def _no_websocket(self, part: Part) -> None:
        if part.get("enable_websocket"):
            place = part.at("enable_websocket").place
            self._report.lacking(place, "the stand-in does not proxy WebSockets", "take it out")

    def _certificate(self, part: Part) -> None:
        if part.get("type") == "client" and "id" in part:
            entry = checked(schema.Certificate, part)
            self._upstreams.certificates[entry.id] = self._upstreams.pair(entry.cert, entry.key, part.place)

    def _upstream(self, part: Part) -> None:
        part, entry = self._checked(schema.Upstream, part)
        self._upstreams.upstreams[_id(entry.id, part)] = self._upstreams.read(part, entry)

    def _plugin_config(self, part: Part) -> None:
        part, entry = self._checked(schema.PluginConfig, part)
        identity, plugins = _id(entry.id, part), self._plugins.read(part.at("plugins"))
        self._plugin_configs[identity] = plugins
        self._unnamed["plugin_config_id", identity] = Unused(part.place.what, plugins)

    def _service(self, part: Part) -> None:
        part, entry = self._checked(schema.Service, part)
        self._no_websocket(part)
        identity, plugins = _id(entry.id, part), self._plugins.read(part.at("plugins"))
        self._unnamed["service_id", identity] = Unused(part.place.what, plugins)
        self._services[identity] = _Service(
            entry.name,
            plugins,
            self._upstreams.of(part, entry.upstream),
            _lower(entry.hosts),
        )

    def _route(self, part: Part) -> None:
        part, entry = self._checked(schema.Route, part)
        plugins = self._plugins.read(part.at("plugins"))
        upstream = self._upstreams.of(part, entry.upstream)
        if entry.status == 0:
            self._unnamed["route", str(part.place.route)] = Unused(part.place.what, plugins)
            return
        self._no_websocket(part)
        plugin_config = referred(part, "plugin_config_id", self._plugin_configs, self._report)
        if plugin_config is not None:
            plugins = plugins.over(plugin_config)
        hosts = _lower(entry.hosts if entry.host is None else [entry.host])
        service = referred(part, "service_id", self._services, self._report)
        if service is not None:
            upstream = upstream or service.upstream
            hosts = hosts or service.hosts
            plugins = plugins.over(service.plugins)
        for key in ("plugin_config_id", "service_id"):
            self._unnamed.pop((key, str(part.get(key))), None)
        if upstream is not None and entry.timeout is not None:
            upstream = dataclasses.replace(upstream, **entry.timeout)
        addresses = entry.remote_addrs or [] if entry.remote_addr is None else [entry.remote_addr]
        route = Route(
            entry.id or str(part.place.route),
            tuple(entry.uris or [] if entry.uri is None else [entry.uri]),
            hosts,
            frozenset(entry.methods or ()),
            entry.priority,
            entry.name,
            entry.desc,
            plugins,
            upstream,
            entry.service_id,
            None if service is None else service.name,
            entry.plugin_config_id,
            tuple(addresses),
            self._plugins.expression(part.at("vars")),
            part.place.where,
        )
        if route.id in self._routes:
            text = "there is another route with this id"
            outcome = "APISIX takes the last one"
            self._report.lacking(part.place, text, "ids are unique", outcome=outcome, stand_in=False)
        self._routes[route.id] = route

    def _consumer(self, part: Part) -> None:
        part, entry = self._checked(schema.Consumer, part)
        plugins = part.at("plugins").mapping()
        if "key-auth" not in plugins:
            text = "without key-auth no request finds this consumer"
            self._report.lacking(plugins.place, text, "give it a key-auth with a key")
            self._report.unused.append(plugins)
            return
        auth = checked(schema.KeyAuth, resolved(plugins.at("key-auth").mapping(), self._report))
        others = self._plugins.read(Part(plugins.copied("key-auth"), plugins.place))
        self._consumers.append(Consumer(entry.username, auth.key, others))

    def _global_rule(self, part: Part) -> None:
        part, entry = self._checked(schema.GlobalRule, part)
        here = part.at("plugins").mapping()
        plugins = self._plugins.read(here)
        twice = [name for name in entry.plugins if name in self._rule_of]
        for name in twice:
            text = f"{self._rule_of[name]} has this plugin as well, and APISIX then runs neither"
            place = here.at(name).place
            self._report.lacking(place, text, "keep one of them", outcome="", plugin=str(name), stand_in=False)
        self._global_rules = self._global_rules.over(plugins)
        for name in twice:
            self._global_rules = self._global_rules.without(name)
        for name in entry.plugins:
            self._rule_of.setdefault(name, part.place.what)


def _place(section: str, number: int, entry: Part) -> Place:
    """Return the place of an entry. Messages call the entry ``route 'x'``, or ``route number 1``."""
    kind = section.removesuffix("s").replace("_", " ")
    identity, label = entry.get("id", entry.get("username")), entry.get("name")
    what = f"{kind} number {number + 1}" if identity is None else f"{kind} {str(identity)!r:.80}"
    if isinstance(label, str) and label not in ("", identity):
        what += f" ({label:.80})"
    line = getattr(entry.value, "line", None) or entry.place.line
    route = None
    if section == "routes":
        route = f"arr_{number + 1}" if identity is None else str(identity)
    return Place(entry.place.file, what, "", line, route)


def _refuse_aliases(part: Part) -> None:
    """Refuse an entry with a YAML alias of a mapping.

    Raises:
        Misplaced: There is one; the place is that of the alias.
    """
    value = part.value
    if isinstance(value, LinedMapping):
        if value.alias is not None:
            raise dataclasses.replace(part.place, line=value.alias).wrong(_ALIAS)
        for key in value:
            _refuse_aliases(part.at(key))
    elif isinstance(value, LinedList):
        for each in part.entries():
            _refuse_aliases(each)


def _id(identity: str | None, part: Part) -> str:
    if identity is None:
        raise part.place.wrong("it has no id; routes refer to it by that")
    return identity


def _lower(hosts: list[str] | None) -> tuple[str, ...]:
    return tuple(host.lower() for host in hosts or ())
