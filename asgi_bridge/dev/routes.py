"""The routes of ``asgi-bridge dev``: read, checked, and sent to the echo upstream."""

import contextlib
import copy
import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

from ..apisix_constants import POST_RESP, PRE_REQ
from ..check import check_routes
from ..errors import ConfigurationError
from ..gateway import Node, Route, Routes, load_routes, read_routes
from ..loading import Source
from ..plugins import Plugin
from .opening import changed_routes
from .screen import say

__all__ = ["ECHO_HOSTS", "ECHO_PORT", "RouteFile"]

ECHO_HOSTS = ("127.0.0.1", "localhost")
"""Hosts that stand for the echo upstream in a route's nodes, together with ECHO_PORT."""
ECHO_PORT = 1980
"""Port at which APISIX's own examples expect an upstream. Nodes with it go to the echo upstream, whatever its port."""
DEFAULT_ROUTES = Path("apisix.yaml")
"""The one route file that need not exist."""


class RouteFile:
    """The routes of the gateway: APISIX's route file, or one route for each plugin where there is no file.

    Args:
        path: Of the route file.
        source: Where the plugins come from.
        echo_port: Port of the echo upstream. Nodes 127.0.0.1:1980 of the routes get this port.

    Attributes:
        path: Of the route file.
        made: The routes that were made because there is no file; empty: there is one.

    Raises:
        ConfigurationError: There is no such file, and `path` is not DEFAULT_ROUTES.
    """

    def __init__(self, path: Path, source: Source, echo_port: int) -> None:
        self.path = path.absolute()
        self.made: list[dict[str, object]] = []
        self._source = source
        self._echo_port = echo_port
        self._folder = Path(source.app_dir or ".").absolute()
        self._started = time.time()
        if not path.exists() and path != DEFAULT_ROUTES:
            raise ConfigurationError(f"no route file {path}; --routes names APISIX's standalone apisix.yaml")

    def load(self) -> Routes:
        """Read the routes, and print what is strange about them.

        Raises:
            ConfigurationError: They cannot be read, or the plugins not be loaded.
        """
        if self.path.exists():
            return _to_echo(self._checked(load_routes(self.path, strict=False)), self._echo_port)
        plugins = list(self._source.load().values())
        uris = ["/*"] if len(plugins) == 1 else [f"/{plugin.name}*" for plugin in plugins]
        each = "the plugin has a route /*" if len(plugins) == 1 else "each plugin has a route /NAME"
        click.echo(f"There is no {self.path.name} here: {each} with an empty configuration.")
        self.made = [_route(plugin, uri) for plugin, uri in zip(plugins, uris, strict=True)]
        return _to_echo(read_routes({"routes": self.made}), self._echo_port)

    def _checked(self, routes: Routes) -> Routes:
        """Print the findings about `routes`, and return `routes`."""
        findings = list(routes.findings)
        # without the plugins the routes alone are checked: a runner that runs already may have plugins of its own
        with contextlib.suppress(ConfigurationError, OSError):
            findings += check_routes(routes, self._plugins())
        for finding in findings:
            click.secho(str(finding), fg="red" if finding.severity == "error" else "yellow", err=True)
        return routes

    def _plugins(self) -> Mapping[str, Plugin]:
        """Return the plugins as this process has imported them.

        Raises:
            ConfigurationError: They cannot be loaded, or a file of the user's has changed since it was imported.
        """
        plugins = self._source.load()
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if path is not None and self._folder in Path(path).parents and os.stat(path).st_mtime > self._started:
                raise ConfigurationError(f"{path} has changed since it was imported")
        return plugins

    def reload(self, old: Routes) -> Routes:
        """Read the routes after a change, and print whether that worked.

        Args:
            old: The routes until now.

        Returns:
            The new routes; `old` if they cannot be read.
        """
        try:
            routes = self.load()
        except ConfigurationError as exc:
            click.secho(f"Routes not reloaded, the old ones stay: {exc}", fg="red", err=True)
            return old
        what = changed_routes(old, routes) or "no route has changed"
        say([click.style(f"Routes reloaded from {self.path.name}: {what}", fg="green")])
        return routes


def _route(plugin: Plugin, uri: str) -> dict[str, object]:
    """Make a route to try a plugin on: it stands in each phase that the plugin is for."""
    listed = {"conf": [{"name": plugin.name, "value": "{}"}]}
    places = []
    if plugin.options.phase != "response":
        places.append(PRE_REQ)
    if plugin.options.phase in ("response", "both"):
        places.append(POST_RESP)
    return {
        "id": plugin.name,
        "uri": uri,
        "plugins": dict.fromkeys(places, listed),
        "upstream": {"type": "roundrobin", "nodes": {f"{ECHO_HOSTS[0]}:{ECHO_PORT}": 1}},
    }


def _to_echo(routes: Routes, port: int) -> Routes:
    """Copy `routes`, with the echo upstream's own port in place of 1980."""
    if port == ECHO_PORT:
        return routes
    changed = copy.copy(routes)
    changed.routes = tuple(_route_to_echo(route, port) for route in routes.routes)
    return changed


def _route_to_echo(route: Route, port: int) -> Route:
    if route.upstream is None:
        return route
    nodes = tuple(_node_to_echo(node, port) for node in route.upstream.nodes)
    return dataclasses.replace(route, upstream=dataclasses.replace(route.upstream, nodes=nodes))


def _node_to_echo(node: Node, port: int) -> Node:
    return dataclasses.replace(node, port=port) if node.host in ECHO_HOSTS and node.port == ECHO_PORT else node
