"""Measures what asking the gateway costs the runner, in process: the response phase, both phases, and variables.

A call goes from the bytes of its frame to the bytes of its answer. Whatever the runner asks is answered at once, all in
one read, so the figures have no system calls in them, and none of the gateway's work. Each kind of call is measured in
turns with the others; the ratio is to a call that asks nothing.

``python -m benchmarks.asks`` prints a table. ``--only KIND --calls N`` runs one kind of call alone, for callgrind.
"""

import argparse
import asyncio
import functools
import statistics
import time
from types import SimpleNamespace
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import Runner
from asgi_bridge.wire import ExtraInfoResp, HTTPReqCallReq, HTTPRespCallReq, Role, Session, Var, decode, encode

VALUES = {
    "request_id": b"8f14e45fceea467f9d3b6f4f3a2b1c0d", "request": b"GET /catalog/shoes?page=2 HTTP/1.1",
    "request_method": b"GET", "real_request_uri": b"/catalog/shoes?page=2", "server_protocol": b"HTTP/1.1",
    "uri": b"/catalog/shoes", "scheme": b"https", "remote_addr": b"192.0.2.7", "remote_port": b"50123",
    "server_addr": b"10.0.0.1", "server_port": b"443", "http_host": b"shop.example.com",
    "http_user_agent": b"Mozilla/5.0 (X11; Linux x86_64) Chrome/126.0.0.0", "http_accept_encoding": b"gzip, br",
    "http_accept": b"text/html,*/*;q=0.8", "http_cookie": b"session=eyJ1aWQiOjQyfQ; theme=dark",
}  # fmt: skip
"""Variables of the request. The gateway has no others."""
HEADERS: Any = [
    (b"host", b"shop.example.com"), (b"accept", b"text/html,*/*;q=0.8"), (b"user-agent", b"Mozilla/5.0"),
    (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"shop.example.com"), (b"x-forwarded-port", b"443"),
]  # fmt: skip
ANSWERED: Any = [(b"content-type", b"text/html"), (b"content-length", b"4096"), (b"etag", b'"1"')]
NAMES = ("request_id", "remote_addr", "scheme", "uri")


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass the request on as it is."""
    await upstream(scope, receive, send)


def asking(number: int) -> Any:
    """Return a plugin that asks for some variables, and passes the request on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apisix(scope).var(*NAMES[:number])
        await upstream(scope, receive, send)

    return app


class _Gateway(asyncio.Transport):
    """The gateway's side: it answers what is asked, all in one read.

    Attributes:
        protocol: The runner's side.
        asks: Number of variables and bodies that it was asked for.
        answers: Number of calls that were answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.asks = self.answers = 0

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        if data[0] != 3:
            self.answers += 1
            return
        count, told = _told(bytes(data))
        self.asks += count
        asyncio.get_running_loop().call_soon(self.protocol.data_received, told)


@functools.cache
def _told(data: bytes) -> tuple[int, bytes]:
    """Return how many ExtraInfo requests there are in `data`, and the answers to them."""
    found = []
    while data:
        size = int.from_bytes(data[1:4], "big")
        info: Any = decode(3, data[4 : 4 + size], Role.GATEWAY).info  # type: ignore[union-attr]
        assert isinstance(info, Var) and info.name is not None
        found.append(encode(ExtraInfoResp(VALUES.get(info.name.decode()))))
        data = data[4 + size :]
    return len(found), b"".join(found)


class _Kind:
    """A kind of call.

    Args:
        name: Its name in the table.
        plugin: The plugin that it runs.
        frames: The frames of one request, in order, but for their tokens.
        options: Of the mount.
    """

    def __init__(self, name: str, plugin: Any, *frames: Any, **options: Any) -> None:
        self.name = name
        self.plugin, self.frames, self.options = plugin, frames, options
        self.seconds: list[float] = []
        self.asks = 0.0

    async def start(self) -> None:
        """Prepare the configuration."""
        bridge = Bridge()
        bridge.mount("p", self.plugin, **self.options)
        self.runner = Runner(bridge.plugins)
        await self.runner.start()
        keys = {HTTPReqCallReq: "ext-plugin-pre-req", HTTPRespCallReq: "ext-plugin-post-resp"}
        self.data = []
        for message in self.frames:
            key = f"route#1#{keys[type(message)]}#1".encode()
            message.conf_token = await self.runner.store.prepare(key, [(b"p", b"{}")])
            self.data.append(Session(Role.GATEWAY).send(message))
        self.gateway = _Gateway()
        self.protocol = self.gateway.protocol = RunnerProtocol(
            SimpleNamespace(loaded_app=self.runner),  # type: ignore[arg-type]
            ServerState(),
        )
        self.protocol.connection_made(self.gateway)

    async def run(self, calls: int) -> None:
        """Run some requests, and note what one cost."""
        gateway, protocol = self.gateway, self.protocol
        gateway.asks = gateway.answers = 0
        started = time.process_time()
        for _ in range(calls):
            for data in self.data:
                wanted = gateway.answers + 1
                protocol.data_received(data)
                while gateway.answers < wanted:  # noqa: ASYNC110 as the loop would
                    await asyncio.sleep(0)
        self.seconds.append((time.process_time() - started) / calls)
        self.asks = gateway.asks / calls


def _kinds() -> list[_Kind]:
    def request() -> HTTPReqCallReq:
        return HTTPReqCallReq(1, b"\xc0\0\2\7", "GET", b"/catalog/shoes", [(b"page", b"2")], HEADERS)

    def response() -> HTTPRespCallReq:
        return HTTPRespCallReq(1, 200, ANSWERED)

    return [
        _Kind("no-op", passing, request()),
        _Kind("1 variable", asking(1), request()),
        _Kind("4 variables", asking(4), request()),
        _Kind("response", passing, response(), phase="response"),
        _Kind("response, one header", passing, response(), phase="response", request_headers=["accept-encoding"]),
        _Kind("both", passing, request(), response(), phase="both"),
    ]


async def _measure(kinds: list[_Kind], calls: int, rounds: int) -> None:
    for kind in kinds:
        await kind.start()
    for kind in kinds * rounds:
        await kind.run(calls)
    print(f"{'':22}{'asks':>6}{'µs':>8}{'ratio':>8}")
    for kind in kinds:
        median = statistics.median(kind.seconds)
        ratio = median / statistics.median(kinds[0].seconds)
        print(f"{kind.name:22}{kind.asks:6g}{median * 1e6:8.1f}{ratio:8.2f}")
    for kind in kinds:
        await kind.runner.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="requests of each kind in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", metavar="KIND", help="measure this kind alone")
    options = parser.parse_args()
    kinds = [kind for kind in _kinds() if options.only in (None, kind.name)]
    if not kinds:
        parser.error(f"kinds are: {', '.join(kind.name for kind in _kinds())}")
    asyncio.run(_measure(kinds, options.calls, options.rounds))


if __name__ == "__main__":
    main()
