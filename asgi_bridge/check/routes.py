"""The plugins that routes list, compared with those that the runner has."""

import json
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from ..apisix_constants import PHASE_OF, POST_RESP, REQUEST_LISTS
from ..errors import ConfigurationError
from ..gateway.routes.places import Finding, Place
from ..gateway.routes.route import ExtPlugin, Plugins, Routes
from ..plugins import Plugin
from ..plugins.build import MAX_CONFIGURATION_BYTES, check_sizes
from ..plugins.guards import unguarded
from ..plugins.needs import default_headers, known_headers, named_headers
from ..spelling import did_you_mean
from .configurations import Configurations, line_of

__all__ = ["check_routes"]

_LISTS = {"request": REQUEST_LISTS, "response": POST_RESP}
"""Phase → the lists for its plugins, as messages name them."""


def check_routes(
    routes: Routes, plugins: Mapping[str, Plugin], *, limit: int = MAX_CONFIGURATION_BYTES
) -> list[Finding]:
    """Find the plugins in routes that the runner cannot run as the routes say.

    These are plugins that are not mounted or do not accept their configuration, plugins in the list of a phase that
    they are not for, and plugins of ``phase="both"`` that stand in the lists of one phase only. `Routes.findings` has
    what is wrong about the routes alone.

    The check of a configuration may run code of the plugin's author, as when APISIX prepares the route. It builds no
    plugin.

    Args:
        routes: The routes.
        plugins: The mounted plugins, by name (`Bridge.plugins`).
        limit: Maximum size of one plugin's configuration in bytes (``--limit-configuration-size``).

    Returns:
        The findings, each once, in the order of the routes. With an ``"error"`` requests get 503; with
        ``allow_degradation`` they go on without the plugins.

    Example::

        for finding in check_routes(load_routes("apisix.yaml"), bridge.plugins):
            print(finding)
    """
    return _Check(plugins, limit).run(routes)


class _Holder(NamedTuple):
    """An entry of a route file with plugins.

    Attributes:
        what: The entry, as ``route 'x'``.
        route: Id of the route; None: it is no route.
        plugins: Its plugins.
        beside: Plugins of other entries that may run in the same request.
    """

    what: str
    route: str | None
    plugins: Plugins
    beside: list[Plugins]


class _Entry(NamedTuple):
    """An entry of a list of plugins.

    Attributes:
        holder: What has the list.
        listed: The list.
        path: The entry, as ``ext-plugin-pre-req.conf[0]``.
        name: Name of the plugin.
        text: Its configuration.
        place: Where its name stands.
        written: Where its configuration stands.
        value: The configuration as it was read, with its lines; None: it was not read from a file.
    """

    holder: _Holder
    listed: ExtPlugin
    path: str
    name: str
    text: bytes
    place: Place
    written: Place
    value: object = None

    def finding(
        self,
        severity: Literal["error", "warning", "note"],
        text: str,
        *,
        place: Place | None = None,
        field: str | None = None,
    ) -> Finding:
        """Make a finding about this entry; `place` is where, without it that of the plugin's name."""
        place = place or self.place
        message = f"{self.holder.what}: {self.path}: {text}"
        return Finding(severity, self.holder.route, self.name, place.where, message, place.line, field)


class _Check:
    """One check.

    Args:
        plugins: The mounted plugins, by name.
        limit: Maximum size of one plugin's configuration in bytes.
    """

    def __init__(self, plugins: Mapping[str, Plugin], limit: int) -> None:
        self._plugins = plugins
        self._limit = limit
        self._configurations = Configurations()
        self._used: dict[str, _Entry] = {}
        self._of_responses: dict[str, _Entry] = {}
        self._found: dict[object, Finding] = {}

    def run(self, routes: Routes) -> list[Finding]:
        for holder in _holders(routes):
            for place, listed in holder.plugins.ext.items():
                self._list(holder, place, listed)
        for name, entry in self._used.items():
            text = unguarded(self._plugins[name].found)
            if text:
                self._add(entry.finding("warning", f"plugin {name}: {text}"))
        for name, entry in self._of_responses.items():
            text = _lacking(self._plugins[name])
            if text:
                self._add(entry.finding("note", f"plugin {name}: {text}"))
        return list(self._found.values())

    def _add(self, finding: Finding, key: object = None) -> None:
        """Keep a finding, unless there is one with the same key. The key is where and what, unless one is given."""
        self._found.setdefault(key or (finding.where, finding.message), finding)

    def _list(self, holder: _Holder, place: str, listed: ExtPlugin) -> None:
        entries = list(_entries(holder, place, listed))
        too_large = False
        for entry in entries:
            plugin = self._plugins.get(entry.name)
            if plugin is None:
                mounted = ", ".join(sorted(self._plugins)) or "none"
                text = f"plugin {entry.name} is not mounted{_consequence(listed)}; mounted are: {mounted}"
                self._add(entry.finding("error", text + did_you_mean(entry.name, self._plugins)))
                continue
            self._used.setdefault(entry.name, entry)
            if place == POST_RESP and plugin.options.phase != "both":
                self._of_responses.setdefault(entry.name, entry)
            self._phase(entry, plugin, PHASE_OF[place])
            problem = _size_problem([entry], self._limit)
            if problem:
                too_large = True
                self._add(entry.finding("error", problem + _consequence(listed), place=entry.written))
            else:
                self._configuration(entry, plugin)
        problem = "" if too_large else _size_problem(entries, self._limit)
        if problem:
            first = entries[0]._replace(path=place)
            self._add(first.finding("error", problem + _consequence(listed)))

    def _phase(self, entry: _Entry, plugin: Plugin, phase: str) -> None:
        name, consequence = entry.name, _consequence(entry.listed)
        if phase not in plugin.phases:
            own = plugin.phases[0]
            text = f"plugin {name} is for the {own} phase{consequence}; list it under {_LISTS[own]}"
            self._add(entry.finding("error", text))
        elif plugin.options.phase == "both":
            other = "response" if phase == "request" else "request"
            holder = entry.holder
            if any(name in _names_in(plugins, other) for plugins in (holder.plugins, *holder.beside)):
                return
            text = (
                f'plugin {name} has phase="both" and stands in the request phase only, so it sees no responses; '
                f"list it under {POST_RESP} too"
                if phase == "request"
                else f'plugin {name} has phase="both" and stands in {POST_RESP} only: it has no request half, so '
                f"{_without_request(plugin)}; list it under {REQUEST_LISTS} too"
            )
            self._add(entry.finding("warning", text))

    def _configuration(self, entry: _Entry, plugin: Plugin) -> None:
        for wrong in self._configurations.check(plugin, entry.text):
            what = "its configuration" if wrong.field is None else f"field {wrong.field!r}"
            text = f"plugin {entry.name} refuses {what}{_consequence(entry.listed)}: {wrong.reason}"
            place = entry.written.on_line(line_of(entry.value, wrong))
            # several routes may have it from one service or plugin configuration
            holder = entry.holder.what if place.line is None else ""
            key = (holder, place.where, entry.name, wrong.field, wrong.reason)
            self._add(entry.finding("error", text, place=place, field=wrong.field), key)


def _holders(routes: Routes) -> Iterator[_Holder]:
    yield _Holder("the global rules", None, routes.global_rules, [])
    for route in routes.routes:
        yield _Holder(f"route {route.id!r}", route.id, route.plugins, [])
    # a route may list the plugin in the other phase
    everywhere = [routes.global_rules, *(route.plugins for route in routes.routes)]
    for consumer in routes.consumers.values():
        yield _Holder(f"consumer {consumer.username!r}", None, consumer.plugins, everywhere)
    everywhere += [each.plugins for each in routes.unused]
    for unused in routes.unused:
        yield _Holder(unused.what, None, unused.plugins, everywhere)


def _entries(holder: _Holder, place: str, listed: ExtPlugin) -> Iterator[_Entry]:
    for number, (name, text) in enumerate(listed.conf or ()):
        path = f"{place}.conf[{number}]"
        where = value = None
        here = written = Place(listed.where)
        if number < len(listed.entries):
            where = listed.entries[number]
            here, written, value = where.at("name").place, where.at("value").place, where.get("value")
        yield _Entry(holder, listed, path, (name or b"").decode(errors="replace"), text or b"", here, written, value)


def _size_problem(entries: list[_Entry], limit: int) -> str:
    """Return what is too large about entries of a list; empty: nothing is."""
    try:
        check_sizes(None, [(entry.name.encode(), entry.text) for entry in entries], limit)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def _names_in(held: Plugins, phase: str) -> set[str]:
    return {name for place, listed in held.ext.items() if PHASE_OF[place] == phase for name in listed.names}


def _consequence(listed: ExtPlugin) -> str:
    if listed.allow_degradation:
        return ", so requests go on without the plugins of this list (allow_degradation)"
    return ", so requests get 503"


def _lacking(plugin: Plugin) -> str:
    """Return what a plugin of the response phase may look for, and does not get; empty: nothing is known."""
    asked = plugin.options.request_headers
    if known_headers(plugin.found) is not None or asked != default_headers(plugin.source, plugin.found):
        return ""  # somebody has said what it needs
    lacking = [name for name in named_headers(plugin.found) if name not in asked]
    if not lacking:
        return ""
    return (
        f"in {POST_RESP} it gets only these headers of the request: {', '.join(asked)}; its code names "
        f"{', '.join(lacking)}: if it reads "
        f"{'that header' if len(lacking) == 1 else 'those headers'} there, mount it with "
        f"request_headers={json.dumps([*asked, *lacking])}"
    )


def _without_request(plugin: Plugin) -> str:
    if plugin.options.on_missing == "refuse":
        return "each request is refused"
    return "it runs in the form of the response phase, and cannot change what goes upstream"
