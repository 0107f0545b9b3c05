"""``asgi-bridge dev``: runner, gateway and an echo upstream in one command, with reload, saying what each call did.

The runner is a process of its own, as it is in production; gateway and upstream are uvicorn servers in this one.
"""

import asyncio
import contextlib
import logging
import logging.config
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import uvicorn
import watchfiles

from .errors import ConfigurationError
from .gateway import Call, GatewayApp, Routes, echo, load_routes, read_routes
from .gateway.server import http_protocol
from .plugins import Plugin
from .server.serve import LOG_CONFIG, Source
from .wire import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop, TextEntry

__all__ = ["develop", "explain", "invitations"]

logger = logging.getLogger("asgi_bridge.dev")

ECHO_PORT = 1980
"""Where APISIX's own examples expect an upstream."""
STOP_SECONDS = 3.0
DEFAULT_ROUTES = Path("apisix.yaml")
_COMMANDS = ("curl ", "for ")


def develop(source: Source, routes: Path, host: str, port: int, log_level: str | None) -> None:
    """Runs until a signal ends it.

    Args:
        source: where the runner finds its bridge.
        routes: APISIX's standalone route file; without it each plugin has a route ``/NAME``.
        host: address of the gateway.
        port: its port; 0: any.
        log_level: of the runner and of the servers.

    Raises:
        ConfigurationError: the routes cannot be read, the plugins not loaded, or a port is taken.
    """
    logging.config.dictConfig(LOG_CONFIG)
    source.load()  # what cannot work is said before anything starts
    file = _RouteFile(routes, source)
    found = file.load()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asgi-bridge-"))
        uds = os.path.join(folder, "runner.sock")
        app = GatewayApp(found, uds, observe=_print)
        servers = [(_server(app, log_level), listener)]
        upstream = _echo_socket()
        if upstream is None:
            click.echo(f"Something listens on port {ECHO_PORT} already: it is taken for the upstream.")
        else:
            servers.append((_server(echo, log_level), upstream))
        stack.enter_context(_runner(source, uds, log_level))
        asyncio.run(_serve(app, servers, _url(host, listener.getsockname()[1]), file))


class _RouteFile:
    """Where the routes come from.

    Args:
        path: APISIX's route file.
        source: the plugins, for routes where there is no file.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path.absolute()
        self._source = source
        if not path.exists() and path != DEFAULT_ROUTES:
            raise ConfigurationError(f"no route file {path}; --routes names APISIX's standalone apisix.yaml")

    def load(self) -> Routes:
        """The routes. Raises ConfigurationError where they cannot be read."""
        if self.path.exists():
            return load_routes(self.path)
        click.echo(f"There is no {self.path.name} here: each plugin has a route /NAME with an empty configuration.")
        return read_routes({"routes": [_route(plugin) for plugin in self._source.load().plugins.values()]})

    def reload(self, old: Routes) -> Routes:
        """The routes after a change, or the old ones where the new cannot be read."""
        try:
            routes = self.load()
        except ConfigurationError as exc:
            click.secho(f"Routes not reloaded, the old ones stay: {exc}", fg="red", err=True)
            return old
        click.secho(f"Routes reloaded from {self.path.name}", fg="green")
        return routes


def _route(plugin: Plugin) -> dict[str, object]:
    """A route to try a plugin on."""
    listed = {"conf": [{"name": plugin.name, "value": "{}"}]}
    places = []
    if plugin.options.phase != "response":
        places.append("ext-plugin-pre-req")
    if plugin.options.phase in ("response", "both"):
        places.append("ext-plugin-post-resp")
    return {
        "id": plugin.name,
        "uri": f"/{plugin.name}*",
        "plugins": {place: listed for place in places},
        "upstream": {"type": "roundrobin", "nodes": {f"127.0.0.1:{ECHO_PORT}": 1}},
    }


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            raise ConfigurationError(f"cannot listen on {host}:{port}: {exc.strerror}; give another --port") from None
        yield sock


def _echo_socket() -> socket.socket | None:
    """The echo upstream's socket; None: something listens there already, and is taken for the upstream."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", ECHO_PORT))
    except OSError:
        sock.close()
        return None
    return sock


@contextlib.contextmanager
def _runner(source: Source, uds: str, log_level: str | None) -> Iterator[None]:
    """The runner's process, which watches its code by itself."""
    command = [sys.executable, "-m", "asgi_bridge", "run", "--uds", uds, "--reload"]
    command += [source.target] if source.target is not None else []
    command += [part for name, target in source.mounts.items() for part in ("--mount", f"{name}={target}")]
    command += ["--app-dir", source.app_dir, "--reload-dir", source.app_dir] if source.app_dir is not None else []
    command += ["--log-level", log_level or "warning"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
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
    if call.error is not None:
        what = click.style("failed", fg="red") + f": {call.error}" + (
            ", the request goes on without the plugins" if call.degraded else ", the client gets 503"
        )  # fmt: skip
        details: list[str] = []
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
