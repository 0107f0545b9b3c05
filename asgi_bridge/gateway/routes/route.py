"""Routes: what a request is matched against, and what its plugins and its upstream are.

`asgi_bridge.gateway.routes.reader` reads them from APISIX's ``apisix.yaml``.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ...wire.messages import TextEntry
from ..nginx.uri import raw
from .expressions import Expression, Lookup
from .places import Finding

__all__ = ["PHASES", "Consumer", "ExtPlugin", "Network", "Node", "Plugins", "Route", "Routes", "Upstream"]

PHASES = ("ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp")
"""The three places where a route names a runner's plugins."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

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
        where: file and line of the plugin; empty: unknown.
        places: file and line of each entry of `conf`.
    """

    conf: list[TextEntry] | None = None
    allow_degradation: bool = False
    priority: int | None = None
    error_response: str | Mapping[str, Any] | None = None
    where: str = field(default="", compare=False, repr=False)
    places: tuple[str, ...] = field(default=(), compare=False, repr=False)

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
        filters: ``_meta.filter`` by the plugin's name: where it does not hold, the plugin does not run.
    """

    ext: Mapping[str, ExtPlugin] = field(default_factory=dict)
    builtin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    filters: Mapping[str, Expression] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """There is a plugin of this name, be it a disabled one."""
        return name in self.ext or name in self.builtin or name in self.disabled

    def over(self, base: "Plugins") -> "Plugins":
        """Put these over others: by name, never into each other. A disabled one counts as one that is there."""
        return Plugins(
            {**{name: plugin for name, plugin in base.ext.items() if name not in self}, **self.ext},
            {**{name: conf for name, conf in base.builtin.items() if name not in self}, **self.builtin},
            self.disabled | {name for name in base.disabled if name not in self},
            {**{name: each for name, each in base.filters.items() if name not in self}, **self.filters},
        )

    def without(self, name: str) -> "Plugins":
        """Leave one plugin out."""
        return replace(
            self,
            ext={each: plugin for each, plugin in self.ext.items() if each != name},
            builtin={each: conf for each, conf in self.builtin.items() if each != name},
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
        client_cert, client_key: what a server under ``https`` is shown, in PEM; empty: nothing.
    """

    nodes: tuple[Node, ...] = ()
    scheme: str = "http"
    pass_host: str = "pass"
    upstream_host: str = ""
    connect: float = 6.0
    send: float = 60.0
    read: float = 60.0
    client_cert: str = field(default="", repr=False)
    client_key: str = field(default="", repr=False)

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
        uris: exact paths, or patterns with ``*``.
        hosts: lower case, exact or ``*.example.org``; empty: any.
        methods: empty: any.
        desc: what it is for, in the operator's words.
        service_id, plugin_config_id: part of the key under which a runner prepares.
        remote_addrs: of clients; empty: any.
        vars: what has to hold of the request's variables.
        where: file and line of the route; empty: unknown.
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
    remote_addrs: tuple[Network, ...] = ()
    vars: Expression | None = None
    where: str = field(default="", compare=False, repr=False)

    def rank(self, method: str, host: str, path: str) -> tuple[int, int, int, int, int] | None:
        """How well the route fits a request, greater is better; None: it does not.

        As lua-resty-radixtree goes through its tree: the host counts first, then an exact path before a pattern, then
        the length of what stands before a pattern's first star, then the priority, then the pattern's whole length.

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
        best_uri = (-1, 0, 0, 0)
        for pattern in map(_on_the_wire, self.uris):
            prefix, star, _ = pattern.partition("*")
            if not star and pattern == path:
                best_uri = max(best_uri, (1, len(pattern), self.priority, len(pattern)))
            elif star and path.startswith(prefix) and _matches(pattern, prefix, path):
                best_uri = max(best_uri, (0, len(prefix), self.priority, len(pattern)))
        if best_host < 0 or best_uri[0] < 0:
            return None
        return best_host, *best_uri

    async def fits(self, remote_address: str, lookup: Lookup) -> bool:
        """Whether the client and the variables of a request are those that the route is for.

        Args:
            remote_address: the client's.
            lookup: gives the variables.
        """
        if self.remote_addrs:
            address = ipaddress.ip_address(remote_address)
            if not any(address in network for network in self.remote_addrs):
                return False
        return self.vars is None or await self.vars.holds(lookup)


def _matches(pattern: str, prefix: str, path: str) -> bool:
    """Whether a path that has the prefix matches the whole pattern."""
    compiled = _compiled(pattern)
    if compiled is None:
        return True
    if len(path) - len(prefix) > _LONGEST_REST:
        return False
    # the first match counts, and it has to be the whole path
    found = compiled.search(path)
    return found is not None and found[0] == path


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The regular expression that lua-resty-radixtree makes of a pattern (``fetch_pat``); None: the prefix will do.

    Traps: a star matches slashes too. One that does not begin a segment counts for the prefix only, and what else
    stands in a segment is taken for a regular expression.
    """
    segments = pattern.split("/")
    while segments and not segments[-1]:
        segments.pop()
    parts = ["([^/]+)" if part[:1] == ":" else r"([\s\S]*)" if part[:1] == "*" else part for part in segments]
    if parts == segments:
        return None
    try:
        return re.compile("/".join(parts) + ("/" if pattern.endswith("/") else ""), re.ASCII)
    except (re.error, OverflowError, RecursionError):
        # nor does nginx's find anything with such a one
        return _NOTHING


_NOTHING = re.compile(r"(?!)")


def _on_the_wire(text: str) -> str:
    """One character a byte: APISIX compares the UTF-8 of the route file with the bytes of the path."""
    return text if text.isascii() else raw(text).decode("latin-1")


class Routes:
    """All routes, the consumers that key-auth knows, and the plugins of all routes.

    Args:
        routes: in the file's order.
        consumers: who may call.
        global_rules: the plugins of all global rules together; None: there are none.
        findings: what the reader of the routes has to say.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        consumers: Iterable[Consumer] = (),
        global_rules: Plugins | None = None,
        findings: Sequence[Finding] = (),
    ) -> None:
        self.routes = tuple(routes)
        self.global_rules = Plugins() if global_rules is None else global_rules
        self.consumers = {consumer.key: consumer for consumer in consumers}
        self.findings = tuple(findings)

    def match(self, method: str, host: bytes, path: bytes) -> Route | None:
        """Find the route of a request by method, host and path alone; see `candidates`."""
        return next(iter(self.candidates(method, host, path)), None)

    def candidates(self, method: str, host: bytes, path: bytes) -> list[Route]:
        """Find the routes that may be a request's, the best first: the first that `Route.fits` is the one.

        Args:
            method: the request's method.
            host: lower case, without port.
            path: decoded and normalised.
        """
        wanted = method, host.decode("latin-1"), path.decode("latin-1")
        ranked = [(rank, route) for route in self.routes if (rank := route.rank(*wanted)) is not None]
        ranked.sort(key=lambda found: found[0], reverse=True)
        return [route for _, route in ranked]
