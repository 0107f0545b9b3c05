"""Both sides of the fidelity suite, with real sockets everywhere.

One side is uvicorn with a middleware around the upstream. The other is the gateway, with the same middleware in a
runner.
"""

import contextlib
import gzip
import http.client
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.gateway import GatewayApp, read_routes

from ...doubles.http_servers import listening, port_of, uvicorn_thread
from ...doubles.runner_thread import ThreadRunner
from ..compare import Answer, Request
from .subjects import Subject

__all__ = ["Side", "standing"]

TLS = b"x-listener-tls"
"""Header that makes the listeners of both sides say that the request came over TLS."""


@dataclass(frozen=True)
class Side:
    """One side of a subject: a server, by its port."""

    port: int

    def ask(self, request: Request) -> Answer:
        """Send `request` over a connection of its own, and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            names = {name.lower() for name, _ in request.headers}
            if "host" not in names:
                connection.putheader("Host", "a.test")
            for name, value in request.headers:
                connection.putheader(name, value)
            if request.body:
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.getheader("content-encoding") == "gzip" and body:
            body = gzip.decompress(body)
        return Answer.of(request, response.status, response.getheaders(), body)


def _listener(app: ASGIApp) -> ASGIApp:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == TLS for name, _ in scope["headers"]):
            scope["scheme"] = "https"
            scope["headers"] = [header for header in scope["headers"] if header[0] != TLS]
        await app(scope, receive, send)

    return listening


def _gateway(subject: Subject, uds: str, upstream_port: int) -> GatewayApp:
    lists = {**subject.others, **dict.fromkeys(subject.phases, subject.plugins)}
    route = {
        "id": subject.name,
        "uri": "/*",
        "plugins": {
            phase: {"conf": [{"name": name, "value": json.dumps(conf)} for name, conf in plugins]}
            for phase, plugins in lists.items()
        },
        "upstream": {"type": "roundrobin", "nodes": {f"127.0.0.1:{upstream_port}": 1}},
    }
    return GatewayApp(read_routes({"routes": [route]}), uds)


@contextlib.contextmanager
def standing(
    upstream: ASGIApp, bridge: Bridge, subjects: Sequence[Subject], folder: Path
) -> Iterator[dict[str, tuple[Side, Side]]]:
    """Run everything.

    Yields:
        By the name of a subject, uvicorn's side and the gateway's.
    """
    uds = str(folder / "r.sock")
    sockets = [listening() for _ in range(2 * len(subjects) + 1)]
    ports = [port_of(sock) for sock in sockets]
    apps: list[Any] = [upstream]
    for subject in subjects:
        apps += [_listener(subject.direct(upstream)), _listener(_gateway(subject, uds, ports[0]))]
    configs = [uvicorn.Config(app, log_config=None, access_log=False, ws="none", proxy_headers=False) for app in apps]
    runner = ThreadRunner(uds, "asyncio", bridge)
    try:
        with uvicorn_thread(list(zip(configs, sockets, strict=True))):
            yield {
                subject.name: (Side(ports[2 * number + 1]), Side(ports[2 * number + 2]))
                for number, subject in enumerate(subjects)
            }
    finally:
        runner.stop()
