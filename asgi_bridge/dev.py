"""``asgi-bridge dev``: runner, gateway and an echo upstream in one command, with reload, saying what each call did.

The runner is a process of its own, as it is in production, on this one's terminal: ``breakpoint()`` works in a plugin.
Gateway and upstream are uvicorn servers in this process.
"""

import asyncio
import contextlib
import copy
import dataclasses
import errno
import logging
import logging.config
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import uvicorn
import watchfiles

from .check import check_routes
from .errors import ConfigurationError
from .gateway import Call, GatewayApp, Node, Route, Routes, echo, load_routes, read_routes
from .gateway.server import http_protocol
from .plugins import Plugin
from .server.serve import LOG_CONFIG, Source
from .server.sockets import has_owner
from .wire import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop, TextEntry

__all__ = ["develop", "explain", "invitations"]

logger = logging.getLogger("asgi_bridge.dev")

ECHO_HOSTS = ("127.0.0.1", "localhost")
ECHO_PORT = 1980
"""Where APISIX's own examples expect an upstream. Routes with this port go to the echo upstream, whatever its port."""
BACKLOG = 2048
STOP_SECONDS = 3.0
DEFAULT_ROUTES = Path("apisix.yaml")
_COMMANDS = ("curl ", "for ")


def develop(
    source: Source,
    routes: Path,
    host: str,
    port: int,
    log_level: str | None,
    *,
    upstream_port: int | None = ECHO_PORT,
    uds: str | None = None,
) -> None:
    """Runs until a signal ends it.

    Args:
        source: where the runner finds its bridge.
        routes: APISIX's standalone route file; without it each plugin has a route.
        host: address of the gateway.
        port: its port; 0: any.
        log_level: of the runner and of the servers.
        upstream_port: port of the echo upstream, to which routes to 127.0.0.1:1980 go; 0: any; None: no echo
            upstream is started.
        uds: socket of a runner that somebody else has started; None: start one.

    Raises:
        ConfigurationError: the routes cannot be read, the plugins not loaded, a port is taken, or nobody listens on
            `uds`.
    """
    logging.config.dictConfig(LOG_CONFIG)
    if uds is None:
        source.load()  # what cannot work is said before anything starts
    elif not has_owner(uds):
        raise ConfigurationError(f"no runner listens on {uds}: start it first, with asgi-bridge run --uds {uds}")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port, "--port"))
        upstream = None
        if upstream_port is not None:
            instead = "--upstream-port (0: any), or --no-upstream if your own upstream listens there"
            upstream = stack.enter_context(_listen(ECHO_HOSTS[0], upstream_port, instead))
        file = _RouteFile(routes, source, ECHO_PORT if upstream is None else upstream.getsockname()[1])
        found = file.load()
        if uds is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asgi-bridge-"))
            uds = os.path.join(folder, "runner.sock")
            stack.enter_context(_runner(source, uds, log_level))
        app = GatewayApp(found, uds, observe=_print)
        servers = [(_server(app, log_level), listener)]
        if upstream is not None:
            servers.append((_server(echo, log_level), upstream))
        asyncio.run(_serve(app, servers, _url(host, listener.getsockname()[1]), file))


class _RouteFile:
    """Where the routes come from.

    Args:
        path: APISIX's route file.
        source: the plugins, for routes where there is no file.
        echo_port: of the echo upstream, to which routes to 127.0.0.1:1980 go.
    """

    def __init__(self, path: Path, source: Source, echo_port: int) -> None:
        self.path = path.absolute()
        self._source = source
        self._echo_port = echo_port
        self._folder = Path(source.app_dir or ".").absolute()
        self._started = time.time()
        if not path.exists() and path != DEFAULT_ROUTES:
            raise ConfigurationError(f"no route file {path}; --routes names APISIX's standalone apisix.yaml")

    def load(self) -> Routes:
        """The routes. Raises ConfigurationError where they cannot be read."""
        if self.path.exists():
            return _to_echo(self._explained(load_routes(self.path, strict=False)), self._echo_port)
        plugins = list(self._source.load().plugins.values())
        uris = ["/*"] if len(plugins) == 1 else [f"/{plugin.name}*" for plugin in plugins]
        each = "the plugin has a route /*" if len(plugins) == 1 else "each plugin has a route /NAME"
        click.echo(f"There is no {self.path.name} here: {each} with an empty configuration.")
        routes = [_route(plugin, uri) for plugin, uri in zip(plugins, uris, strict=True)]
        return _to_echo(read_routes({"routes": routes}), self._echo_port)

    def _explained(self, routes: Routes) -> Routes:
        """`routes`, once what is found about them is printed."""
        findings = list(routes.findings)
        with contextlib.suppress(
            ConfigurationError, OSError
        ):  # with a runner of somebody else's the plugins are not known here
            findings += check_routes(routes, self._plugins())
        for finding in findings:
            click.secho(str(finding), fg="red" if finding.severity == "error" else "yellow", err=True)
        return routes

    def _plugins(self) -> Mapping[str, Plugin]:
        """The plugins, as this process has imported them. Raises ConfigurationError where it has not, or not lately."""
        plugins = self._source.load().plugins
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if path is not None and self._folder in Path(path).parents and os.stat(path).st_mtime > self._started:
                raise ConfigurationError(f"{path} has changed since it was imported")
        return plugins

    def reload(self, old: Routes) -> Routes:
        """The routes after a change, or the old ones where the new cannot be read."""
        try:
            routes = self.load()
        except ConfigurationError as exc:
            click.secho(f"Routes not reloaded, the old ones stay: {exc}", fg="red", err=True)
            return old
        click.secho(f"Routes reloaded from {self.path.name}", fg="green")
        return routes


def _route(plugin: Plugin, uri: str) -> dict[str, object]:
    """A route to try a plugin on."""
    listed = {"conf": [{"name": plugin.name, "value": "{}"}]}
    places = []
    if plugin.options.phase != "response":
        places.append("ext-plugin-pre-req")
    if plugin.options.phase in ("response", "both"):
        places.append("ext-plugin-post-resp")
    return {
        "id": plugin.name,
        "uri": uri,
        "plugins": dict.fromkeys(places, listed),
        "upstream": {"type": "roundrobin", "nodes": {f"{ECHO_HOSTS[0]}:{ECHO_PORT}": 1}},
    }


def _to_echo(routes: Routes, port: int) -> Routes:
    """`routes` with the echo upstream's own port in place of 1980."""
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


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _listen(host: str, port: int, instead: str) -> Iterator[socket.socket]:
    """A listening socket. Raises ConfigurationError; `instead` is what to give where the port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except (socket.gaierror, UnicodeError):
            raise ConfigurationError(f"there is no host {host!r}; --host is an address of this machine") from None
        except OSError as exc:
            what = {
                errno.EADDRNOTAVAIL: "--host has to be an address of this machine",
                errno.EACCES: "ports below 1024 are for root; give another --port",
            }.get(exc.errno or 0, f"give another {instead}")
            raise ConfigurationError(f"cannot listen on {host}:{port}: {exc.strerror}; {what}") from None
        yield sock


@contextlib.contextmanager
def _runner(source: Source, uds: str, log_level: str | None) -> Iterator[None]:
    """The runner's process, which watches its code by itself. It keeps the terminal's stdin, for ``breakpoint()``."""
    command = [sys.executable, "-m", "asgi_bridge", "run", "--uds", uds, "--reload"]
    command += [source.target] if source.target is not None else []
    command += [part for name, target in source.mounts.items() for part in ("--mount", f"{name}={target}")]
    command += [part for entry in source.allow for part in ("--allow", entry)]
    command += ["--app-dir", source.app_dir, "--reload-dir", source.app_dir] if source.app_dir is not None else []
    command += ["--log-level", log_level or "warning"]
    process = subprocess.Popen(command)
    try:
        while not os.path.exists(uds):
            if process.poll() is not None:
                raise ConfigurationError("the runner did not start; what it said stands above")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Server(uvicorn.Server):
    """Without signal handlers of its own: one for both servers ends everything."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, log_level: str | None) -> _Server:
    config = uvicorn.Config(
        app, log_config=None, log_level=log_level or "warning", access_log=False, ws="none", interface="asgi3",
        http=http_protocol(), proxy_headers=False, server_header=False, date_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return _Server(config)


async def _serve(app: GatewayApp, servers: list[tuple[_Server, socket.socket]], url: str, routes: "_RouteFile") -> None:
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sig, stop)
    async with asyncio.TaskGroup() as group:
        for server, sock in servers:
            group.create_task(server.serve(sockets=[sock]))
        while not all(server.started or server.should_exit for server, _ in servers):  # noqa: ASYNC110 no event tells
            await asyncio.sleep(0.01)
        click.echo("".join(f"{line}\n" for line in invitations(app.routes, url)))
        async for _ in _changes(routes.path, stopping):
            app.routes = routes.reload(app.routes)


async def _changes(path: Path, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Each time that the file at `path` has changed."""
    async for changes in watchfiles.awatch(path.parent, stop_event=stopping, recursive=False, debounce=100):
        if any(Path(name).name == path.name for change, name in changes if change is not watchfiles.Change.deleted):
            yield


def invitations(routes: Routes, url: str) -> Iterator[str]:
    """What to try: for each route its description's command lines, or one for its uri.

    Args:
        url: of the gateway, in place of ``$GATEWAY``.
    """
    yield click.style(f"The gateway listens on {url} (Press CTRL+C to quit). Try:", bold=True)
    for route in routes.routes:
        yield ""
        text = (route.desc or f"Route {route.id}").strip().splitlines()
        if not any(line.startswith(_COMMANDS) for line in text):
            text.append(f"curl -i '$GATEWAY{route.uris[0].removesuffix('*')}'")
        for line in text:
            if line.startswith(_COMMANDS):
                yield click.style(line.replace("$GATEWAY", url), fg="cyan")
            else:
                yield f"# {line}"


def _print(call: Call) -> None:
    click.echo("\n".join(explain(call)))


def explain(call: Call) -> Iterator[str]:
    """What a call did, for a person: one line, and one for each difference."""
    phase = call.phase.removeprefix("ext-plugin-")
    answer = call.answer
    if call.again:
        what = click.style("prepared again", fg="yellow") + f": {call.error}; the gateway repeats the call"
        details: list[str] = []
    elif call.error is not None:
        what = click.style("failed", fg="red") + f": {call.error}"
        if call.degraded:
            what += ", the request goes on without the plugins"
        elif call.status:
            what += f", the client gets {call.status}"
        details = []
    elif isinstance(answer, HTTPRespCallResp):
        what, details = click.style(f"response {answer.status}", fg="green"), _response(answer)
    else:
        what, details = _action(answer)
    yield (
        f"{call.request_line}  {click.style(phase, dim=True)} {click.style(', '.join(call.plugins), bold=True)}: {what}"
        + click.style(f"  {call.milliseconds:.1f} ms", dim=True)
    )
    for detail in details:
        yield f"    {detail}"


def _action(answer: HTTPReqCallResp | None) -> tuple[str, list[str]]:
    action = None if answer is None else answer.action
    if isinstance(action, Stop):
        details = _entries("header", action.headers)
        if action.body and action.body != b" ":
            details.append(_body("body", action.body))
        return click.style(f"stop {action.status}", fg="yellow"), details
    if isinstance(action, Rewrite):
        details = [] if action.path is None else [f"path    {action.path.decode('utf-8', 'replace')}"]
        details += _entries("header", action.headers)
        details += _entries("arg", action.args)
        if action.body:
            details.append(_body("body", action.body))
        details += _entries("response header", action.resp_headers)
        return click.style("rewrite", fg="green"), details
    return click.style("pass", fg="green"), []


def _response(answer: HTTPRespCallResp) -> list[str]:
    details = _entries("header", answer.headers)
    if answer.body and answer.body != b" ":
        details.append(_body("body", answer.body))
    return details


def _entries(kind: str, entries: list[TextEntry] | None) -> list[str]:
    lines = []
    for name, value in entries or ():
        shown = (name or b"").decode("utf-8", "replace")
        if value:
            lines.append(f"{kind:<7} {shown}: {value.decode('utf-8', 'replace')}")
        elif kind != "header" or shown != "content-type":  # an empty one only keeps APISIX from inventing one
            lines.append(f"{kind:<7} {shown} deleted" if value is None or kind == "header" else f"{kind:<7} {shown}:")
    return lines


def _body(kind: str, body: bytes) -> str:
    text = body[:60].decode("utf-8", "replace").replace("\n", "\\n")
    return f"{kind:<7} {len(body)} bytes: {text}{'…' if len(body) > 60 else ''}"
