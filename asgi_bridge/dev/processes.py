"""The processes of ``asgi-bridge dev``.

The runner is a process of its own, as it is in production. It shares the terminal of this one, so ``breakpoint()``
works in a plugin. Gateway and echo upstream are uvicorn servers in this process.
"""

import asyncio
import contextlib
import errno
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

from ..errors import ConfigurationError
from ..gateway import GatewayApp, echo
from ..gateway.server import http_protocol
from ..inspector import Capture, GatewayLines, Listener, Records, Stage, inspector_app, observe
from ..loading import Source
from ..server.output import LOG_CONFIG
from ..succession.sockets import has_owner
from .commands import invitations
from .opening import Loaded, opening
from .project import project_of
from .routes import ECHO_HOSTS, ECHO_PORT, RouteFile
from .screen import Screen, say

__all__ = ["develop"]

BACKLOG = 2048
"""Connections that wait to be accepted."""
INSPECTOR_HOST = "127.0.0.1"
"""The inspector shows what clients send, and nothing there asks for a password: no other machine reaches it."""
INSPECTOR_PORT = 9081
"""Port of the inspector, where it is free."""
LOAD_SECONDS = 20.0
"""Seconds that the runner gets to load its plugins before the first request is invited."""
STOP_SECONDS = 3.0
"""Seconds that the runner gets to stop before it is killed."""


def develop(
    source: Source,
    routes: Path,
    host: str,
    port: int,
    log_level: str | None,
    *,
    upstream_port: int | None = ECHO_PORT,
    uds: str | None = None,
    inspector_port: int | None = INSPECTOR_PORT,
    any_inspector_port: bool = True,
) -> None:
    """Start runner, gateway, echo upstream and inspector, and serve until a signal ends the process.

    Args:
        source: Where the runner finds its plugins.
        routes: Path of APISIX's standalone route file. Without an ``apisix.yaml`` each plugin gets a route.
        host: Address of the gateway.
        port: Port of the gateway; 0: any.
        log_level: That of the runner and of the servers; None: ``"warning"``.
        upstream_port: Port of the echo upstream, which gets the requests of routes to 127.0.0.1:1980; 0: any; None:
            start no echo upstream.
        uds: Path of the socket of a runner that runs already; None: start one.
        inspector_port: Port of the inspector, on 127.0.0.1; 0: any; None: there is none.
        any_inspector_port: True: any port will do for the inspector if `inspector_port` is taken.

    Raises:
        ConfigurationError: The routes cannot be read, the plugins cannot be loaded, a port is taken, or nobody listens
            on `uds`.
    """
    logging.config.dictConfig(LOG_CONFIG)
    if uds is None:
        source.load()  # an error ends the command before anything starts
    elif not has_owner(uds):
        raise ConfigurationError(f"no runner listens on {uds}: start it first, with asgi-bridge run --uds {uds}")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port, "--port"))
        upstream = None
        if upstream_port is not None:
            instead = "--upstream-port (0: any), or --no-upstream if your own upstream listens there"
            upstream = stack.enter_context(_listen(ECHO_HOSTS[0], upstream_port, instead))
        page = None
        if inspector_port is not None:
            page = stack.enter_context(_listen_for_inspector(inspector_port, any_inspector_port))
        file = RouteFile(routes, source, ECHO_PORT if upstream is None else upstream.getsockname()[1])
        found = file.load()
        records, loaded = Records(), Loaded()
        own_runner, ear = uds is None, None
        if uds is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asgi-bridge-"))
            uds = os.path.join(folder, "runner.sock")
            ear = stack.enter_context(_ear(os.path.join(folder, "dev.sock")))
            stack.enter_context(_runner(source, uds, ear.getsockname(), log_level))
        app = GatewayApp(found, uds, observe=observe)
        url = _url(host, listener.getsockname()[1])
        stage = Stage(
            records, Capture(app, records), listener.getsockname()[:2], url, lambda: app.routes,
            lambda: project_of(source, file), own_runner,
        )  # fmt: skip
        records.on_change.append(Screen(own_runner).changed)
        servers = [(_server(stage.gateway, log_level), listener)]
        if upstream is not None:
            servers.append((_server(echo, log_level), upstream))
        if page is not None:
            servers.append((_server(inspector_app(stage), log_level), page))
        names = _names(source)
        watched = (source.app_dir or os.getcwd()) if own_runner else None
        inspector = None if page is None else _url(*page.getsockname()[:2])
        say(opening(names, found, file.path, inspector, watched))
        GatewayLines(records).start()
        link = None if ear is None else Listener(ear, records, lambda news: _tell_reload(loaded, news))
        asyncio.run(_serve(app, servers, url, file, stage, link, loaded.first if own_runner else None))


def _names(source: Source) -> list[str]:
    """Return the names of the plugins; none if they cannot be loaded here, but in somebody else's runner."""
    with contextlib.suppress(Exception):
        return list(source.load())
    return []


def _tell_reload(loaded: Loaded, news: dict[str, Any]) -> None:
    changed = loaded.reloaded(news)
    if changed is not None:
        say([click.style(f"Code reloaded: {changed}", fg="green")])


def _listen_for_inspector(port: int, any_port: bool) -> contextlib.AbstractContextManager[socket.socket]:
    """Open the socket of the inspector: at another port if `port` is taken, and `any_port` will do."""
    if any_port and port:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((INSPECTOR_HOST, port))
            except OSError:
                port = 0
    return _listen(INSPECTOR_HOST, port, "--inspector-port (0: any), or --no-inspector")


@contextlib.contextmanager
def _ear(path: str) -> Iterator[socket.socket]:
    """Open the socket that the runner tells what its plugins do. It connects as soon as it starts."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        yield sock


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _listen(host: str, port: int, instead: str) -> Iterator[socket.socket]:
    """Open a listening socket. Raises ConfigurationError; `instead` says which option to give if the port is taken."""
    # asyncio sends at once, without Nagle's wait of 40 ms, only on sockets whose protocol is named
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except (socket.gaierror, UnicodeError):
            raise ConfigurationError(f"there is no host {host!r}; --host must be an address of this machine") from None
        except OSError as exc:
            what = {
                errno.EADDRNOTAVAIL: "--host must be an address of this machine",
                errno.EACCES: "ports below 1024 are for root; give another --port",
            }.get(exc.errno or 0, f"give another {instead}")
            raise ConfigurationError(f"cannot listen on {host}:{port}: {exc.strerror}; {what}") from None
        yield sock


@contextlib.contextmanager
def _runner(source: Source, uds: str, ear: str, log_level: str | None) -> Iterator[None]:
    """Start the runner's process, and stop it at the end. It reloads by itself, and has the terminal's stdin.

    Args:
        source: Where it finds its plugins.
        uds: Path of its socket.
        ear: Path of the socket that it tells what its plugins do.
        log_level: Of the runner.
    """
    command = [sys.executable, "-m", "asgi_bridge.cli.dev_runner", ear, source.app_dir or os.getcwd()]
    command += ["run", "--uds", uds, "--reload"]
    command += [source.target] if source.target is not None else []
    command += [part for name, target in source.mounts.items() for part in ("--mount", f"{name}={target}")]
    command += [part for entry in source.allow for part in ("--allow", entry)]
    command += ["--app-dir", source.app_dir, "--reload-dir", source.app_dir] if source.app_dir is not None else []
    command += ["--log-level", log_level or "warning"]
    process = subprocess.Popen(command)
    try:
        while not os.path.exists(uds):
            if process.poll() is not None:
                raise ConfigurationError("the runner did not start; its output above says why")
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
    """A server without signal handlers of its own: `_serve` handles signals for both servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, log_level: str | None) -> _Server:
    config = uvicorn.Config(
        app, log_config=None, log_level=log_level or "warning", access_log=False, ws="none", interface="asgi3",
        http=http_protocol(), proxy_headers=False, server_header=False, date_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return _Server(config)


async def _serve(
    app: GatewayApp, servers: list[tuple[_Server, socket.socket]], url: str, routes: RouteFile, stage: Stage,
    link: Listener | None, loaded: asyncio.Event | None,
) -> None:  # fmt: skip
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        stage.records.close()
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sig, stop)
    if link is not None:
        await link.start()
    async with asyncio.TaskGroup() as group:
        for server, sock in servers:
            group.create_task(server.serve(sockets=[sock]))
        while not all(server.started or server.should_exit for server, _ in servers):  # noqa: ASYNC110 uvicorn has no event for it
            await asyncio.sleep(0.01)
        if loaded is not None:
            with contextlib.suppress(TimeoutError):  # its own output says why it does not start
                async with asyncio.timeout(LOAD_SECONDS):
                    await loaded.wait()
        say([*invitations(app.routes, url), ""])
        async for _ in _changes(routes.path, stopping):
            app.routes = routes.reload(app.routes)
    if link is not None:
        link.stop()


async def _changes(path: Path, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Yield each time that the file at `path` has changed, until `stopping` is set."""
    async for changes in watchfiles.awatch(path.parent, stop_event=stopping, recursive=False, debounce=100):
        if any(Path(name).name == path.name for change, name in changes if change is not watchfiles.Change.deleted):
            yield
