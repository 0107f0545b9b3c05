"""Both sides of the fidelity suite: uvicorn with a middleware around the upstream, and the gateway with the same
middleware in a runner before the upstream. Everything goes over real sockets."""

import contextlib
import gzip
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.gateway import GatewayApp, read_routes
from tests.doubles.http_servers import listening, port_of, uvicorn_thread
from tests.doubles.runner_thread import ThreadRunner

__all__ = ["Answer", "Request", "Side", "Subject", "standing"]

TLS = b"x-listener-tls"
"""A request with this header came over TLS, say both sides' listeners."""

APART = frozenset((
    "server", "date",
    # of the connection
    "connection", "keep-alive", "transfer-encoding", "content-length",
))  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request of a client."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __str__(self) -> str:
        headers = " ".join(f"{name}:{value}" for name, value in self.headers if not value.startswith("session="))
        return f"{self.method} {self.target} {headers}".strip().replace("[", "(").replace("]", ")")[:110]


@dataclass(frozen=True)
class Answer:
    """What the client got, of what has to be alike.

    Attributes:
        headers: by name, repeats in order.
        length: the content-length, on HEAD only: elsewhere it is how the body is framed.
        body: decoded, since a gzip stream has more than one spelling.
    """

    status: int
    headers: Mapping[str, Sequence[str]]
    length: str | None
    body: bytes


@dataclass(frozen=True)
class Subject:
    """A middleware on both sides.

    Args:
        direct: makes the application of an upstream, as it would stand under uvicorn.
        plugins: names and configurations, outermost first.
        phases: where the route lists them.
    """

    name: str
    direct: Any
    plugins: Sequence[tuple[str, Any]]
    phases: Sequence[str]


@dataclass(frozen=True)
class Side:
    """A server."""

    port: int

    def ask(self, request: Request) -> Answer:
        """Sends `request` over a connection of its own."""
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
            headers: dict[str, list[str]] = {}
            for name, value in response.getheaders():
                headers.setdefault(name.lower(), []).append(value)
        finally:
            connection.close()
        length = headers.get("content-length", [None])[0] if request.method == "HEAD" else None
        if headers.get("content-encoding") == ["gzip"] and body:
            body = gzip.decompress(body)
        kept = {name: values for name, values in headers.items() if name not in APART}
        return Answer(response.status, kept, length, body)


def _listener(app: ASGIApp) -> ASGIApp:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == TLS for name, _ in scope["headers"]):
            scope["scheme"] = "https"
            scope["headers"] = [header for header in scope["headers"] if header[0] != TLS]
        await app(scope, receive, send)

    return listening


def _gateway(subject: Subject, uds: str, upstream_port: int) -> GatewayApp:
    listed = {"conf": [{"name": name, "value": json.dumps(conf)} for name, conf in subject.plugins]}
    route = {
        "id": subject.name,
        "uri": "/*",
        "plugins": dict.fromkeys(subject.phases, listed),
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
