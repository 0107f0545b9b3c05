"""Reads routes from APISIX's standalone ``apisix.yaml``, and says what is wrong with one.

What the stand-in does not do is refused and never passed over: a plugin that is silently missing here would be a
surprise on the real gateway.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway.builtin import BUILTIN, check_builtin, check_meta
from asgi_bridge.gateway.routes import PHASES, Consumer, ExtPlugin, Node, Plugins, Route, Routes, Upstream
from asgi_bridge.spelling import did_you_mean
from asgi_bridge.wire.messages import METHODS, TextEntry

__all__ = ["load_routes", "parse_routes", "read_routes"]

logger = logging.getLogger("asgi_bridge.gateway")

_COMMENTARY = {"name", "desc", "labels", "create_time", "update_time"}
_TOP = {"routes", "upstreams", "services", "plugin_configs", "consumers", "global_rules"}
_ROUTE = _COMMENTARY | {
    "id", "uri", "uris", "host", "hosts", "methods", "priority", "plugins", "upstream", "upstream_id", "service_id",
    "plugin_config_id", "status", "timeout", "enable_websocket",
}  # fmt: skip
_SERVICE = _COMMENTARY | {"id", "plugins", "upstream", "upstream_id", "hosts", "enable_websocket"}
_GLOBAL_RULE = {"id", "plugins", "create_time", "update_time"}
_PLUGIN_CONFIG = _COMMENTARY | {"id", "plugins"}
_CONSUMER = _COMMENTARY | {"username", "plugins", "group_id"}
_UPSTREAM = _COMMENTARY | {
    "id", "type", "nodes", "scheme", "pass_host", "upstream_host", "timeout", "retries", "retry_timeout", "checks",
    "hash_on", "key", "keepalive_pool",
}  # fmt: skip
_MARK = "#END"


class _Mapping(dict[Any, Any]):
    """A mapping of the file that knows on which line each of its keys stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, int] = {}
        self.line: int | None = None


class _Loader(yaml.SafeLoader):
    def mapping(self, node: yaml.MappingNode) -> _Mapping:
        self.flatten_mapping(node)
        result = _Mapping()
        result.line = node.start_mark.line + 1
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int):
                raise ConfigurationError(f"line {line}: a key has to be a string")
            if key in result:
                raise ConfigurationError(f"line {line}: {key!r} stands twice; the first is on line {result.lines[key]}")
            result[key] = self.construct_object(value_node, deep=True)
            result.lines[key] = line
        return result


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)


@dataclass(frozen=True)
class _Place:
    """Where in the file something stands: for messages."""

    file: str
    what: str
    path: str = ""
    line: int | None = None

    def at(self, mapping: Any, key: Any) -> "_Place":
        line = getattr(mapping, "lines", {}).get(key, self.line)
        if isinstance(key, int) and not isinstance(mapping, Mapping):
            path, line = f"{self.path}[{key}]", getattr(mapping[key], "line", self.line)
        else:
            path = f"{self.path}.{key}" if self.path else str(key)
        return _Place(self.file, self.what, path, line)

    def wrong(self, text: str) -> ConfigurationError:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [part for part in (self.what, self.path) if part]
        return ConfigurationError(f"{where}: {': '.join(parts)}{': ' if parts else ''}{text}")


def load_routes(path: str | Path) -> Routes:
    """Read a route file.

    Raises:
        ConfigurationError: it cannot be read, or something in it is wrong.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: the route file cannot be read: {exc}") from exc
    return parse_routes(text, str(path))


def parse_routes(text: str, file: str = "apisix.yaml") -> Routes:
    """Read routes from the text of a route file.

    Args:
        text: YAML that ends with ``#END``.
        file: the file's name, for messages.

    Raises:
        ConfigurationError: something in it is wrong; the message says what, where, and what to do.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[-1] != _MARK:
        raise ConfigurationError(
            f"{file}: the last line has to be {_MARK}; APISIX does not read a file without it (it may be half written)"
        )
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"{file}:{mark.line + 1}" if mark is not None else file
        raise ConfigurationError(f"{where}: this is no YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        raise ConfigurationError(f"{file}: this is no YAML: {exc}") from exc
    except ConfigurationError as exc:
        raise ConfigurationError(f"{file}: {exc}") from exc
    return read_routes(data if data is not None else {}, file)


def read_routes(data: Any, file: str = "routes") -> Routes:
    """Read routes from a mapping as the file would give it.

    Raises:
        ConfigurationError: something in it is wrong.
    """
    return _Reader(data, file).read()


class _Reader:
    def __init__(self, data: Any, file: str) -> None:
        self.top = _Place(file, "")
        self.file = file
        self.data = self.mapping(data, self.top)
        self.known(self.data, _TOP, self.top)
        self.upstreams = self.section("upstreams", _UPSTREAM, self.upstream)
        self.plugin_configs = self.section("plugin_configs", _PLUGIN_CONFIG, self.plugins)
        self.services = self.section("services", _SERVICE, lambda value, place: (value, place))

    def read(self) -> Routes:
        routes: dict[str, Route] = {}
        for number, entry in enumerate(self.entries("routes")):
            route = self.route(entry, number)
            if route is None:
                continue
            if route.id in routes:
                raise self.place("route", entry, number).wrong("there is another route with this id; ids are unique")
            routes[route.id] = route
        consumers = [self.consumer(entry, number) for number, entry in enumerate(self.entries("consumers"))]
        known = [consumer for consumer in consumers if consumer is not None]
        return Routes(routes.values(), known, self.global_rules())

    # --- shapes -----------------------------------------------------------------------------------------------------

    def entries(self, section: str) -> list[Any]:
        value = self.data.get(section)
        return [] if value is None else self.list(value, self.top.at(self.data, section))

    def place(self, kind: str, entry: Any, number: int) -> _Place:
        named = entry.get("id", entry.get("username")) if isinstance(entry, Mapping) else None
        what = f"{kind} number {number + 1}" if named is None else f"{kind} {str(named)!r}"
        return _Place(self.file, what, "", getattr(entry, "line", None))

    def section(self, name: str, known: set[str], read: Callable[[Any, _Place], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        kind = name.removesuffix("s").replace("_", " ")
        for number, entry in enumerate(self.entries(name)):
            place = self.place(kind, entry, number)
            value = self.mapping(entry, place)
            self.known(value, known, place)
            identity = self.identity(value, place)
            if identity is None:
                raise place.wrong("it has no id; routes refer to it by that")
            found[identity] = read(value.get("plugins", {}) if known is _PLUGIN_CONFIG else value, place)
        return found

    def mapping(self, value: Any, place: _Place) -> Mapping[Any, Any]:
        if not isinstance(value, Mapping):
            raise place.wrong(f"this has to be a mapping, not {_named(value)}")
        return value

    def list(self, value: Any, place: _Place) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise place.wrong(f"this has to be a list, not {_named(value)}")
        return list(value)

    def string(self, mapping: Mapping[Any, Any], key: str, place: _Place) -> str:
        value = mapping.get(key)
        if not isinstance(value, str):
            raise place.at(mapping, key).wrong(f"this has to be a string, not {_named(value)}; put it in quotes")
        return value

    def text(self, mapping: Mapping[Any, Any], key: str, place: _Place) -> str | None:
        return self.string(mapping, key, place) if mapping.get(key) is not None else None

    def strings(self, value: Any, place: _Place) -> tuple[str, ...]:
        entries = self.list(value, place)
        if not entries or not all(isinstance(entry, str) for entry in entries):
            raise place.wrong("this has to be a list of strings, with one at least")
        return tuple(entries)

    def known(self, mapping: Mapping[Any, Any], names: set[str], place: _Place) -> None:
        for key in mapping:
            if key not in names:
                raise place.at(mapping, key).wrong(
                    f"the stand-in does not know this field; take it out. It knows {', '.join(sorted(names))}"
                    + did_you_mean(str(key), names)
                )

    def identity(self, mapping: Mapping[Any, Any], place: _Place) -> str | None:
        value = mapping.get("id")
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise place.at(mapping, "id").wrong(f"an id is a string or a number, not {_named(value)}")
        return None if value is None else str(value)

    def refer(self, mapping: Mapping[Any, Any], key: str, among: dict[str, Any], place: _Place) -> Any:
        if key not in mapping:
            return None
        wanted = str(mapping[key])
        if wanted not in among:
            known = ", ".join(sorted(among)) or "none"
            raise place.at(mapping, key).wrong(f"there is no {key.removesuffix('_id')} {wanted!r}; there are: {known}")
        return among[wanted]

    # --- entries ----------------------------------------------------------------------------------------------------

    def route(self, entry: Any, number: int) -> Route | None:
        place = self.place("route", entry, number)
        route = self.mapping(entry, place)
        self.known(route, _ROUTE, place)
        status = route.get("status", 1)
        if isinstance(status, bool) or status not in (0, 1):
            what = f"this has to be 1, or 0 to switch the route off, not {_named(status)}"
            raise place.at(route, "status").wrong(what)
        if status == 0:
            return None
        if route.get("enable_websocket"):
            raise place.at(route, "enable_websocket").wrong("the stand-in does not proxy WebSockets; take it out")
        plugins = self.plugins(route.get("plugins", {}), place.at(route, "plugins"))
        plugin_config = self.refer(route, "plugin_config_id", self.plugin_configs, place)
        if plugin_config is not None:
            plugins = plugins.over(plugin_config)
        upstream = self.own_upstream(route, place)
        service_name = None
        hosts = self.hosts(route, place)
        service = self.refer(route, "service_id", self.services, place)
        if service is not None:
            value, service_place = service
            service_name = self.text(value, "name", service_place)
            upstream = upstream or self.own_upstream(value, service_place)
            hosts = hosts or self.hosts(value, service_place)
            plugins = plugins.over(self.plugins(value.get("plugins", {}), service_place.at(value, "plugins")))
        if upstream is not None and "timeout" in route:
            upstream = self.timed(upstream, route, place)
        priority = route.get("priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise place.at(route, "priority").wrong(f"this has to be a number, not {_named(priority)}")
        return Route(
            self.identity(route, place) or f"arr_{number + 1}",
            self.uris(route, place),
            hosts,
            self.methods(route, place),
            priority,
            self.text(route, "name", place),
            self.text(route, "desc", place),
            plugins,
            upstream,
            str(route["service_id"]) if service is not None else None,
            service_name,
            str(route["plugin_config_id"]) if plugin_config is not None else None,
        )

    def uris(self, route: Mapping[Any, Any], place: _Place) -> tuple[str, ...]:
        if ("uri" in route) == ("uris" in route):
            raise place.wrong("it needs either uri or uris, and not both")
        key = "uri" if "uri" in route else "uris"
        uris = (self.string(route, key, place),) if key == "uri" else self.strings(route[key], place.at(route, key))
        for uri in uris:
            if not uri.startswith("/"):
                raise place.at(route, key).wrong(f"{uri!r} has to begin with a slash")
            if "*" in uri[:-1]:
                raise place.at(route, key).wrong(f"in {uri!r} the * has to be the last character")
        return uris

    def hosts(self, mapping: Mapping[Any, Any], place: _Place) -> tuple[str, ...]:
        if "host" in mapping and "hosts" in mapping:
            raise place.at(mapping, "hosts").wrong("it has host as well; keep one of them")
        if "host" in mapping:
            hosts: tuple[str, ...] = (self.string(mapping, "host", place),)
        elif "hosts" in mapping:
            hosts = self.strings(mapping["hosts"], place.at(mapping, "hosts"))
        else:
            return ()
        for host in hosts:
            if ":" in host or "*" in host[1:] or not host:
                key = "host" if "host" in mapping else "hosts"
                raise place.at(mapping, key).wrong(f"{host!r} has to be a name without a port, * only at its beginning")
        return tuple(host.lower() for host in hosts)

    def methods(self, route: Mapping[Any, Any], place: _Place) -> frozenset[str]:
        if "methods" not in route:
            return frozenset()
        methods = frozenset(self.strings(route["methods"], place.at(route, "methods")))
        unknown = methods - {*METHODS, "CONNECT", "PURGE"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise place.at(route, "methods").wrong(f"APISIX does not know {names}; methods are upper case")
        return methods

    def consumer(self, entry: Any, number: int) -> Consumer | None:
        place = self.place("consumer", entry, number)
        consumer = self.mapping(entry, place)
        self.known(consumer, _CONSUMER, place)
        username = self.string(consumer, "username", place)
        plugins = dict(self.mapping(consumer.get("plugins", {}), place.at(consumer, "plugins")))
        auth_place = place.at(consumer, "plugins")
        if "key-auth" not in plugins:
            raise auth_place.wrong("without key-auth no request finds this consumer; give it a key-auth with a key")
        auth = self.mapping(plugins.pop("key-auth"), auth_place.at(consumer.get("plugins"), "key-auth"))
        key = self.string(auth, "key", auth_place.at(consumer.get("plugins"), "key-auth"))
        return Consumer(username, key, self.plugins(plugins, auth_place))

    def global_rules(self) -> Plugins:
        merged = Plugins()
        seen: dict[str, str] = {}
        for number, entry in enumerate(self.entries("global_rules")):
            place = self.place("global rule", entry, number)
            rule = self.mapping(entry, place)
            self.known(rule, _GLOBAL_RULE, place)
            self.identity(rule, place)
            here = place.at(rule, "plugins")
            if "plugins" not in rule:
                raise place.wrong("it has no plugins; name them, or take the rule out")
            for name in self.mapping(rule["plugins"], here):
                if name in seen:
                    raise here.at(rule["plugins"], name).wrong(
                        f"{seen[name]} has this plugin as well, and APISIX then runs neither; keep one of them"
                    )
                seen[name] = place.what
            merged = merged.over(self.plugins(rule["plugins"], here))
        return merged

    def plugins(self, value: Any, place: _Place) -> Plugins:
        ext: dict[str, ExtPlugin] = {}
        builtin: dict[str, Mapping[str, Any]] = {}
        for name, conf in self.mapping(value, place).items():
            here = place.at(value, name)
            conf = self.mapping(conf, here)
            meta = self.mapping(conf.get("_meta", {}), here.at(conf, "_meta"))
            if meta.get("disable") is True:
                continue
            if name in PHASES:
                self.known(conf, {"conf", "allow_degradation", "_meta"}, here)
                self.checked(check_meta, here, conf)
                ext[name] = self.ext_plugin(conf, here)
            elif name in BUILTIN:
                self.checked(check_builtin, here, name, conf)
                builtin[name] = conf
            else:
                raise here.wrong(
                    "the stand-in does not have this plugin of APISIX; take it out for the stand-in, or try the route "
                    f"on a real APISIX. It has {', '.join((*PHASES, *sorted(BUILTIN)))}"
                )
        return Plugins(ext, builtin)

    def checked(self, check: Callable[..., None], place: _Place, *arguments: Any) -> None:
        try:
            check(*arguments)
        except ValueError as exc:
            raise place.wrong(f"{exc}") from exc

    def ext_plugin(self, conf: Mapping[Any, Any], place: _Place) -> ExtPlugin:
        degradation = conf.get("allow_degradation", False)
        if not isinstance(degradation, bool):
            here = place.at(conf, "allow_degradation")
            raise here.wrong(f"this has to be true or false, not {_named(degradation)}")
        priority = conf.get("_meta", {}).get("priority")
        if "conf" not in conf:
            return ExtPlugin(None, degradation, priority)
        here = place.at(conf, "conf")
        entries = self.list(conf["conf"], here)
        if not entries:
            raise here.wrong("the list is empty; name a plugin, or take conf out")
        texts: list[TextEntry] = []
        for number, entry in enumerate(entries):
            spot = here.at(entries, number)
            pair = self.mapping(entry, spot)
            self.known(pair, {"name", "value"}, spot)
            name = self.string(pair, "name", spot)
            if not 1 <= len(name) <= 128:
                raise spot.at(pair, "name").wrong("a plugin's name has 1 to 128 characters")
            if "value" in pair and isinstance(pair["value"], Mapping | list):
                raise spot.at(pair, "value").wrong(
                    "this has to be a string that holds JSON, so put the JSON in single quotes"
                )
            texts.append((name.encode(), self.string(pair, "value", spot).encode()))
        return ExtPlugin(texts, degradation, priority)

    def own_upstream(self, mapping: Mapping[Any, Any], place: _Place) -> Upstream | None:
        if "upstream" in mapping and "upstream_id" in mapping:
            raise place.at(mapping, "upstream_id").wrong("it has an upstream as well; keep one of them")
        if "upstream" not in mapping:
            referred: Upstream | None = self.refer(mapping, "upstream_id", self.upstreams, place)
            return referred
        here = place.at(mapping, "upstream")
        self.known(self.mapping(mapping["upstream"], here), _UPSTREAM, here)
        return self.upstream(mapping["upstream"], here)

    def upstream(self, value: Mapping[Any, Any], place: _Place) -> Upstream:
        scheme = value.get("scheme", "http")
        if scheme not in ("http", "https"):
            raise place.at(value, "scheme").wrong(f"the stand-in speaks http and https, not {scheme!r}")
        pass_host = value.get("pass_host", "pass")
        if pass_host not in ("pass", "node", "rewrite"):
            raise place.at(value, "pass_host").wrong(f"this is pass, node or rewrite, not {pass_host!r}")
        host = value.get("upstream_host", "")
        if pass_host == "rewrite" and not (isinstance(host, str) and host):
            raise place.wrong("pass_host is rewrite, so it needs an upstream_host")
        if "nodes" not in value:
            raise place.wrong('it needs nodes, as {"127.0.0.1:8000": 1} or [{host: 127.0.0.1, port: 8000, weight: 1}]')
        nodes = self.nodes(value["nodes"], place.at(value, "nodes"), 443 if scheme == "https" else 80)
        upstream = Upstream(nodes, scheme, pass_host, host)
        return self.timed(upstream, value, place) if "timeout" in value else upstream

    def timed(self, upstream: Upstream, mapping: Mapping[Any, Any], place: _Place) -> Upstream:
        here = place.at(mapping, "timeout")
        timeout = self.mapping(mapping["timeout"], here)
        self.known(timeout, {"connect", "send", "read"}, here)
        seconds = {name: timeout.get(name, getattr(upstream, name)) for name in ("connect", "send", "read")}
        for name, value in seconds.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise here.at(timeout, name).wrong(f"this has to be a number of seconds, not {_named(value)}")
        return Upstream(upstream.nodes, upstream.scheme, upstream.pass_host, upstream.upstream_host, **seconds)

    def nodes(self, value: Any, place: _Place, default_port: int) -> tuple[Node, ...]:
        found: list[Node] = []
        if isinstance(value, Mapping):
            for name, weight in value.items():
                host, colon, port = str(name).rpartition(":")
                if not colon or not port.isdigit() or (str(name).startswith("[") and not host.endswith("]")):
                    host, port = str(name), str(default_port)
                host = host.removeprefix("[").removesuffix("]")
                found.append(self.node(host, int(port), weight, place.at(value, name)))
        else:
            for number, entry in enumerate(self.list(value, place)):
                here = place.at(value, number)
                node = self.mapping(entry, here)
                self.known(node, {"host", "port", "weight", "priority", "metadata"}, here)
                host = self.string(node, "host", here)
                found.append(self.node(host, node.get("port", default_port), node.get("weight", 1), here))
        if not found:
            raise place.wrong("there is no node; give one at least")
        return tuple(found)

    def node(self, host: str, port: Any, weight: Any, place: _Place) -> Node:
        if not host or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise place.wrong(f"a node has a host and a port from 1 to 65535, not {host!r} and {port!r}")
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            raise place.wrong(f"a weight is a number from 0, not {weight!r}")
        return Node(host, port, weight)


def _named(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value!r:.40} ({type(value).__name__.removeprefix('_').lower()})"
