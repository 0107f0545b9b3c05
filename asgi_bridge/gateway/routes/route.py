"""Routes: which requests each of them is for, and what their plugins and their upstream are."""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ...wire.messages import TextEntry
from ..nginx.uri import raw
from .expressions import Expression, Lookup
from .places import Finding, Part

__all__ = [
    "PHASES", "TWO_LISTS", "Consumer", "ExtPlugin", "Network", "Node", "Plugins", "Route", "Routes", "Unused",
    "Upstream",
]  # fmt: skip

PHASES = ("ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp")
"""APISIX's plugins in which a route lists the plugins of the runner."""

TWO_LISTS = (
    "route %s and a global rule both have ext-plugin-post-resp: APISIX then calls the upstream twice and cuts the "
    "client's response off, or passes over the route's list; keep one of the two"
)
"""What is wrong about `Routes.clashing`, with ``%s`` for the route's id."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST_REST = 6398
"""Bytes that the star of ``/x/*`` matches at most. lua-resty-radixtree makes ``\\/x\\/((.|\\n)*)`` of it, which needs
the PCRE2 JIT stack of 200 KiB (apisix/init.lua). ``/x*`` needs no regular expression."""


@dataclass(frozen=True, slots=True)
class ExtPlugin:
    """One ``ext-plugin-*`` of a route.

    Attributes:
        conf: Names and configurations of the runner's plugins, in order of execution; None: there is no ``conf``.
        allow_degradation: Go on without the plugins when the runner fails.
        priority: ``_meta.priority``; None: APISIX's own. It matters for pre-req only, as no other plugin runs in the
            phases of post-req and post-resp.
        error_response: ``_meta.error_response``: body of the plugin's answers with a status of 400 or more, a text or
            a mapping that becomes JSON. None: the plugin's own body.
        where: File and line of the plugin; empty: unknown.
        entries: The entries of `conf` as they stand in the file; empty: unknown.
    """

    conf: list[TextEntry] | None = None
    allow_degradation: bool = False
    priority: int | None = None
    error_response: str | Mapping[str, Any] | None = None
    where: str = field(default="", compare=False, repr=False)
    entries: tuple[Part, ...] = field(default=(), compare=False, repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the runner's plugins."""
        return [name.decode(errors="replace") for name, _ in self.conf or () if name is not None]


@dataclass(frozen=True, slots=True)
class Plugins:
    """All plugins of a route, a service, or a consumer.

    Attributes:
        ext: The ``ext-plugin-*``, by name (`PHASES`).
        builtin: Configurations of APISIX's own plugins that the stand-in emulates, by name.
        disabled: Names of the plugins that ``_meta.disable`` switches off. Trap: such a plugin still replaces one of
            the same name, as that of the route's service, so neither of them runs.
        filters: ``_meta.filter`` by the plugin's name: the plugin runs only where it holds.
    """

    ext: Mapping[str, ExtPlugin] = field(default_factory=dict)
    builtin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    filters: Mapping[str, Expression] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a plugin of this name, disabled or not."""
        return name in self.ext or name in self.builtin or name in self.disabled

    def over(self, base: "Plugins") -> "Plugins":
        """Return these plugins, and those of `base` that have other names."""
        return Plugins(
            {**{name: plugin for name, plugin in base.ext.items() if name not in self}, **self.ext},
            {**{name: conf for name, conf in base.builtin.items() if name not in self}, **self.builtin},
            self.disabled | {name for name in base.disabled if name not in self},
            {**{name: each for name, each in base.filters.items() if name not in self}, **self.filters},
        )

    def without(self, name: str) -> "Plugins":
        """Return these plugins but one."""
        return replace(
            self,
            ext={each: plugin for each, plugin in self.ext.items() if each != name},
            builtin={each: conf for each, conf in self.builtin.items() if each != name},
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One server of an upstream."""

    host: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a route's requests go.

    Attributes:
        nodes: The servers. The stand-in uses only the one with the greatest weight, the first of equals.
        scheme: ``http`` or ``https``.
        pass_host: The Host that the server gets: ``pass`` (the client's), ``node`` or ``rewrite`` (`upstream_host`).
        upstream_host: Host for ``rewrite``.
        connect, send, read: Timeouts in seconds.
        client_cert, client_key: Certificate and key that a server under ``https`` gets, in PEM; empty: none.
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
        """The server that gets the requests; None: there is none."""
        return max(self.nodes, key=lambda node: node.weight, default=None)

    def authority(self, node: Node) -> bytes:
        """Return the Host header for a server: with its port, unless that is the scheme's own (balancer.lua)."""
        standard = 443 if self.scheme == "https" else 80
        return (node.host if node.port == standard else f"{node.host}:{node.port}").encode()


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer that key-auth finds by its key, with the plugins that it brings."""

    username: str
    key: str
    plugins: Plugins = field(default_factory=Plugins)


@dataclass(frozen=True, slots=True)
class Unused:
    """An entry with plugins that no request of the stand-in can reach.

    Attributes:
        what: The entry, as ``service 'x'``.
        plugins: Its plugins.
    """

    what: str
    plugins: Plugins


@dataclass(frozen=True, slots=True)
class Route:
    """One route, together with what it gets from its service and its plugin config.

    Attributes:
        id: As configured, or ``arr_1`` for a first route without one.
        uris: Exact paths, or patterns with ``*``.
        hosts: In lower case, exact or as ``*.example.org``; empty: any.
        methods: In upper case; empty: any.
        priority: Decides between routes that fit a request equally well: the greater one counts.
        desc: What the route is for, in the operator's words.
        service_id, plugin_config_id: Parts of the key under which the runner prepares.
        remote_addrs: Networks of clients; empty: any.
        vars: Has to hold of the request's variables; None: nothing has to.
        where: File and line of the route; empty: unknown.
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
        """Return how well the route fits a request: a greater value fits better. None: it does not fit.

        The order is that of lua-resty-radixtree: the host counts first, then an exact path before a pattern, then the
        length of what stands before a pattern's first star, then the priority, then the pattern's whole length.

        Args:
            method: Of the request.
            host: In lower case, one character for each byte.
            path: Decoded and normalised, one character for each byte.
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
        """Return whether the route is for a request with this client and these variables.

        Args:
            remote_address: IP address of the client.
            lookup: Gives the variables.
        """
        if self.remote_addrs:
            address = ipaddress.ip_address(remote_address)
            if not any(address in network for network in self.remote_addrs):
                return False
        return self.vars is None or await self.vars.holds(lookup)


def _matches(pattern: str, prefix: str, path: str) -> bool:
    """Return whether a path that begins with the prefix matches the whole pattern."""
    compiled = _compiled(pattern)
    if compiled is None:
        return True
    if len(path) - len(prefix) > _LONGEST_REST:
        return False
    # only the first match counts, and it has to be the whole path
    found = compiled.search(path)
    return found is not None and found[0] == path


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return the regular expression that lua-resty-radixtree makes of a pattern (``fetch_pat``).

    Traps: a star matches slashes too. A star inside a segment only ends the prefix. All other characters of a segment
    are part of the regular expression.

    Returns:
        None: it makes none, and every path that begins with the prefix matches.
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
        # nginx finds nothing with such a pattern either
        return _NOTHING


_NOTHING = re.compile(r"(?!)")


def _on_the_wire(text: str) -> str:
    """Return one character for each byte: APISIX compares the UTF-8 of the route file with the bytes of the path."""
    return text if text.isascii() else raw(text).decode("latin-1")


class Routes:
    """All routes, consumers and global rules of a gateway.

    Args:
        routes: In the order of the file.
        consumers: That key-auth may find.
        global_rules: Plugins of all global rules together; None: there are none.
        findings: What the reader of the route file has found.
        unused: Services and plugin configurations that no route names, and entries that the stand-in does not have.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        consumers: Iterable[Consumer] = (),
        global_rules: Plugins | None = None,
        findings: Sequence[Finding] = (),
        unused: Sequence[Unused] = (),
    ) -> None:
        self.routes = tuple(routes)
        self.global_rules = Plugins() if global_rules is None else global_rules
        self.consumers = {consumer.key: consumer for consumer in consumers}
        self.findings = tuple(findings)
        self.unused = tuple(unused)

    @property
    def clashing(self) -> list[Route]:
        """The routes that list plugins of the response phase, as a global rule does too."""
        if "ext-plugin-post-resp" not in self.global_rules.ext:
            return []
        return [route for route in self.routes if "ext-plugin-post-resp" in route.plugins.ext]

    def candidates(self, method: str, host: bytes, path: bytes) -> list[Route]:
        """Find the routes that fit a request, the best first. The first of them that `Route.fits` is the request's.

        Args:
            method: Of the request.
            host: In lower case, without port.
            path: Decoded and normalised.
        """
        wanted = method, host.decode("latin-1"), path.decode("latin-1")
        ranked = [(rank, route) for route in self.routes if (rank := route.rank(*wanted)) is not None]
        ranked.sort(key=lambda found: found[0], reverse=True)
        return [route for _, route in ranked]
