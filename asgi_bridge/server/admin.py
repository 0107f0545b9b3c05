"""``--admin``: the address, and the HTTP server of the admin application.

It runs in the event loop of the runner, so an answer of ``/livez`` means that the loop turns. uvicorn's HTTP protocol
serves it; uvicorn's server would handle signals, and there is one already.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from ..errors import ConfigurationError
from ..succession.sockets import MAX_PATH, RunnerSocket, bind, has_owner

__all__ = ["AdminAddress", "AdminServer", "admin_address"]

logger = logging.getLogger("asgi_bridge.server")

RETRY_SECONDS = 0.5
"""Seconds until an address that is taken is tried again. A runner that ends leaves it soon."""
MAX_CONNECTIONS = 100
"""Maximum number of connections and requests at once. Further ones get a 503."""
PERMISSIONS = 0o600
"""Mode of a unix socket: the runner's own user and root."""


class AdminAddress(NamedTuple):
    """Where the admin application listens.

    Attributes:
        host: IP address; None: it is a unix socket.
        port: Port; 0: any that is free.
        path: Absolute path of the unix socket; empty: there is none.
        public: True: the operator allows an address that other machines reach.
    """

    host: str | None
    port: int
    path: str
    public: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"unix:{self.path}" if self.host is None else f"http://{host}:{self.port}"


def admin_address(text: str, public: bool = False) -> AdminAddress:
    """Read the value of ``--admin``.

    Args:
        text: ``HOST:PORT``, ``[HOST]:PORT`` or ``unix:PATH``. HOST is an IP address or ``localhost``.
        public: True: an address that other machines reach is allowed.

    Raises:
        ConfigurationError: It is none of these, or an address that is not allowed.
    """
    if text.startswith("unix:"):
        path = os.path.abspath(text.removeprefix("unix:"))
        if text == "unix:" or len(os.fsencode(path)) > MAX_PATH:
            raise ConfigurationError(f"--admin {text}: a path of 1 to {MAX_PATH} bytes follows unix:")
        return AdminAddress(None, 0, path, public)
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host.lower() == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ConfigurationError(
            f"--admin {text}: it is HOST:PORT or unix:PATH, and HOST is an IP address or localhost, as in "
            "127.0.0.1:9092"
        )
    if not address.is_loopback and not public:
        raise ConfigurationError(
            f"--admin {text}: other machines reach this address, and nothing there asks for a password: take "
            f"127.0.0.1:{number} or a unix socket, or add --admin-public if you want that"
        )
    return AdminAddress(host, number, "", public)


class AdminServer:
    """Serves the admin application in the running event loop, from :meth:`start` to :meth:`stop`.

    If the address is taken, it is tried again until it is free. The runner works without it meanwhile.

    Args:
        app: The application.
        address: Where to listen.

    Attributes:
        url: Where it listens, with the real port; None: not yet.
        is_quiet: True: no log line if the address is taken.
    """

    def __init__(self, app: ASGIApp, address: AdminAddress) -> None:
        self.url: str | None = None
        self.is_quiet = False
        self._address = address
        from uvicorn.protocols.http.h11_impl import H11Protocol  # only who has an admin address loads h11

        self._http = H11Protocol
        self._config = uvicorn.Config(
            app,
            http=H11Protocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=MAX_CONNECTIONS,
        )
        self._state = ServerState()
        self._listening: asyncio.Server | None = None
        self._socket: RunnerSocket | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. If the address is taken, go on trying, and return."""
        self._config.load()
        await self._listen(first=True)
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Leave the address to others, and close all connections."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
        if self._socket is not None:
            self._socket.unlink()
        if self._listening is not None:
            self._listening.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await asyncio.sleep(0)

    async def _keep(self) -> None:
        """Listen as soon as the address is free, and again if somebody has replaced the unix socket."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if self._listening is not None and self._socket is not None and not self._socket.name.is_there():
                self._listening.close()
                self._listening = None
            if self._listening is None:
                await self._listen()

    async def _listen(self, *, first: bool = False) -> None:
        """Try to listen."""
        loop = asyncio.get_running_loop()
        try:
            sock = self._bound()
            self._listening = await loop.create_server(self._protocol, sock=sock)
        except (OSError, ConfigurationError) as exc:
            if first and not self.is_quiet:
                logger.warning("Admin: %s cannot be had yet, and is tried again: %s", self._address, exc)
            return
        if self._address.host is None:
            self.url = str(self._address)
        else:
            host, port = sock.getsockname()[:2]
            self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("Admin listens on %s", self.url)

    def _bound(self) -> socket.socket:
        address = self._address
        if address.host is None:
            if has_owner(address.path):
                raise OSError(errno.EADDRINUSE, "another process listens there")
            self._socket = bind(address.path, PERMISSIONS)
            return self._socket.sock
        sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def _protocol(self) -> asyncio.Protocol:
        return self._http(config=self._config, server_state=self._state, app_state={})
