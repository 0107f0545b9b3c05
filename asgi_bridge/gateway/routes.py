"""Routes: what a request is matched against, and what its plugins and its upstream are.

`asgi_bridge.gateway.route_file` reads them from APISIX's ``apisix.yaml``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgi_bridge.gateway.uri import raw
from asgi_bridge.wire.messages import TextEntry

__all__ = ["PHASES", "Consumer", "ExtPlugin", "Node", "Plugins", "Route", "Routes", "Upstream"]

PHASES = ("ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp")
"""The three places where a route names a runner's plugins."""

# ``/x/*`` is matched by the regular expression ``\/x\/((.|\n)*)`` (lua-resty-radixtree), whose PCRE2 JIT stack of
# 200 KiB (apisix/init.lua) ends after so many bytes at the star. ``/x*`` needs none.
_LONGEST_REST = 6398


@dataclass(frozen=True, slots=True)
class ExtPlugin:
    """One ``ext-plugin-*`` of a route.

    Attributes:
        conf: plugin names and configurations in order of execution; None: no ``conf`` at all.
        allow_degradation: go on without the plugins when the runner fails.
        priority: of ``_meta``; None: the plugin's own. Of those before the proxying it moves only pre-req: no other
            plugin has a part in the phases of the two others.
        error_response: of ``_meta``; the body of whatever the plugin answers with a status of 400 or more, a text or a
            mapping that becomes JSON. None: the plugin's own.
    """

    conf: list[TextEntry] | None = None
    allow_degradation: bool = False
    priority: int | None = None
    error_response: str | Mapping[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The plugins' names."""
        return [name.decode(errors="replace") for name, _ in self.conf or () if name is not None]


@dataclass(frozen=True, slots=True)
class Plugins:
    """All plugins of a route (or of a service, a consumer).

    Attributes:
        ext: the runner's, by `PHASES`.
        builtin: those of APISIX itself that the stand-in emulates, by name.
        disabled: names of those that ``_meta.disable`` switches off. Trap: they still take the place of a plugin of the
            same name that comes from farther away, so that neither runs.
    """

    ext: Mapping[str, ExtPlugin] = field(default_factory=dict)
    builtin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        """There is a plugin of this name, be it a disabled one."""
        return name in self.ext or name in self.builtin or name in self.disabled

    def over(self, base: "Plugins") -> "Plugins":
        """Put these over others: by name, never into each other. A disabled one counts as one that is there."""
        return Plugins(
            {**{name: plugin for name, plugin in base.ext.items() if name not in self}, **self.ext},
            {**{name: conf for name, conf in base.builtin.items() if name not in self}, **self.builtin},
            self.disabled | {name for name in base.disabled if name not in self},
        )


@dataclass(frozen=True, slots=True)
class Node:
    """A server of an upstream."""

    host: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a route's requests go.

    Attributes:
        nodes: the servers; the stand-in goes to the one with the most weight, the first of equals.
        scheme: ``http`` or ``https``.
        pass_host: ``pass`` (the client's Host), ``node`` or ``rewrite`` (`upstream_host`).
        upstream_host: for ``rewrite``.
        connect, send, read: timeouts in seconds.
    """

    nodes: tuple[Node, ...] = ()
    scheme: str = "http"
    pass_host: str = "pass"
    upstream_host: str = ""
    connect: float = 6.0
    send: float = 60.0
    read: float = 60.0

    @property
    def node(self) -> Node | None:
        """The server that is asked."""
        return max(self.nodes, key=lambda node: node.weight, default=None)

    def authority(self, node: Node) -> bytes:
        """A server as the Host header names it: with its port, unless that is the scheme's own (balancer.lua)."""
        standard = 443 if self.scheme == "https" else 80
        return (node.host if node.port == standard else f"{node.host}:{node.port}").encode()


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who key-auth may find, and what plugins come with them."""

    username: str
    key: str
    plugins: Plugins = field(default_factory=Plugins)


@dataclass(frozen=True, slots=True)
class Route:
    """One route, with what its service and its plugin config give it already put together.

    Attributes:
        id: as configured.
        uris: exact paths, or prefixes that end with ``*``.
        hosts: lower case, exact or ``*.example.org``; empty: any.
        methods: empty: any.
        desc: what it is for, in the operator's words.
        service_id, plugin_config_id: part of the key under which a runner prepares.
    """

    id: str
    uris: tuple[str, ...] = ("/*",)
    hosts: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    priority: int = 0
    name: str | None = None
    desc: str | None = None
    plugins: Plugins = field(default_factory=Plugins)
    upstream: Upstream | None = None
    service_id: str | None = None
    service_name: str | None = None
    plugin_config_id: str | None = None

    def rank(self, method: str, host: str, path: str) -> tuple[int, int, int, int] | None:
        """How well the route fits a request, greater is better; None: it does not.

        Args:
            method: of the request.
            host: lower case, one character a byte.
            path: decoded and normalised, one character a byte.
        """
        if self.methods and method not in self.methods:
            return None
        best_host = -1 if self.hosts else 0
        for pattern in self.hosts:
            if pattern == host:
                best_host = max(best_host, 1 << 20)
            elif pattern.startswith("*") and host.endswith(pattern[1:]):
                best_host = max(best_host, len(pattern))
        best_uri = (-1, 0)
        for pattern in map(_on_the_wire, self.uris):
            if pattern == path:
                best_uri = max(best_uri, (1, len(pattern)))
            elif pattern.endswith("*") and path.startswith(pattern[:-1]):
                if pattern.endswith("/*") and len(path) - len(pattern[:-1]) > _LONGEST_REST:
                    continue
                best_uri = max(best_uri, (0, len(pattern)))
        if best_host < 0 or best_uri[0] < 0:
            return None
        return best_host, *best_uri, self.priority


def _on_the_wire(text: str) -> str:
    """One character a byte: APISIX compares the UTF-8 of the route file with the bytes of the path."""
    return text if text.isascii() else raw(text).decode("latin-1")


class Routes:
    """All routes, the consumers that key-auth knows, and the plugins of all routes.

    Args:
        routes: in the file's order.
        consumers: who may call.
        global_rules: the plugins of all global rules together; None: there are none.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        consumers: Iterable[Consumer] = (),
        global_rules: Plugins | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.global_rules = Plugins() if global_rules is None else global_rules
        self.consumers = {consumer.key: consumer for consumer in consumers}

    def match(self, method: str, host: bytes, path: bytes) -> Route | None:
        """Find the route of a request: the host counts first, then the path, then the priority.

        Args:
            method: the request's method.
            host: lower case, without port.
            path: decoded and normalised.
        """
        wanted = method, host.decode("latin-1"), path.decode("latin-1")
        ranked = [(rank, route) for route in self.routes if (rank := route.rank(*wanted)) is not None]
        return max(ranked, key=lambda found: found[0])[1] if ranked else None
