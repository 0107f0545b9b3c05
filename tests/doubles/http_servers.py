"""HTTP servers: uvicorn on a thread of the test's process."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn

from .waiting import SECONDS, until

__all__ = ["listening", "port_of", "serving", "uvicorn_thread"]


def listening() -> socket.socket:
    """Return a socket that listens on a free port of 127.0.0.1."""
    return socket.create_server(("127.0.0.1", 0))


def port_of(sock: socket.socket) -> int:
    """Return the port of a socket that listens."""
    port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def uvicorn_thread(
    served: Sequence[tuple[uvicorn.Config, socket.socket]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve applications, all of them in one event loop on one thread.

    Args:
        served: uvicorn's configuration and a listening socket, for each application. uvicorn closes the socket.
        loop_factory: makes the event loop.

    Yields:
        The event loop, once all servers have started.
    """
    servers = [uvicorn.Server(config) for config, _ in served]
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            for server, (_, sock) in zip(servers, served, strict=True):
                group.create_task(server.serve(sockets=[sock]))

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: all(server.started for server in servers) or not thread.is_alive())
        assert thread.is_alive(), "a server did not start"
        yield loops[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def serving(
    app: Any, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop, **options: Any
) -> Iterator[int]:
    """Serve one application on a free port.

    Args:
        app: ASGI application.
        loop_factory: makes the event loop.
        options: further options of `uvicorn.Config`.

    Yields:
        The port.
    """
    config = uvicorn.Config(app, **{"ws": "none", "access_log": False, "log_config": None, **options})
    sock = listening()
    with uvicorn_thread([(config, sock)], loop_factory):
        yield port_of(sock)
