"""What applications and parts of a call cost without a server, in this process.

``python -m benchmarks.bare LOOP`` reads lines ``SECONDS NAME``, and answers each with a line of JSON: CPU microseconds
of one call, and how many calls there were. The scope is made beforehand. Each call gets a copy, since applications
write into it.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, Rewrite, Role, Stop, decode, encode

from .apps import Tagging, cors, fastapi, flask, router
from .plugins import NoOp

__all__ = ["APPLICATIONS", "NAMES", "measure", "receive", "send"]

AT_ONCE = 32
"""Number of tasks that are started in one turn of the loop, as when 32 connections have a call."""

FRAME = (Path(__file__).parent / "frames" / "req_forwarded.bin").read_bytes()
_message = decode(FRAME[0], FRAME[4:], Role.RUNNER)
assert isinstance(_message, HTTPReqCallReq)
HEADERS = [(name or b"", value or b"") for name, value in _message.headers or ()]

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "path": "/catalog/shoes/items",
    "raw_path": b"/catalog/shoes/items",
    "query_string": b"page=3&sort=price-asc&q=running%20shoes",
    "root_path": "",
    "headers": HEADERS,
    "client": ("127.0.0.1", 0),
    "server": ("shop.example.com", 443),
    "extensions": {},
    "state": {},
}
ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/catalog/shoes/items",
    "QUERY_STRING": "page=3&sort=price-asc&q=running%20shoes",
    "SERVER_NAME": "shop.example.com",
    "SERVER_PORT": "443",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "https",
    "wsgi.input": None,
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in HEADERS},
}


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an empty 200, as the innermost application of a chain does."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Drop a message."""


def awaiting(app: ASGIApp, scope: Scope) -> Callable[[], Awaitable[None]]:
    """Return a function that awaits the application 32 times."""

    async def calls() -> None:
        for _ in range(AT_ONCE):
            await app({**scope}, receive, send)

    return calls


def in_task(app: ASGIApp) -> Callable[[], Awaitable[None]]:
    """Return a function that runs the application in 32 tasks. It must not wait for anything."""

    async def call() -> None:
        await app({**SCOPE}, receive, send)

    async def calls() -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(call()) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)

    return calls


def in_thread(app: Callable[..., Any]) -> Callable[[], Awaitable[None]]:
    """Return a function that calls the WSGI application 32 times in a thread, from the loop."""
    pool = ThreadPoolExecutor(1)

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        return lambda data: None

    def call() -> bytes:
        body = app({**ENVIRON}, start_response)
        try:
            return b"".join(body)
        finally:
            body.close()

    async def calls() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            await loop.run_in_executor(pool, call)

    return calls


def codec(answer: HTTPReqCallResp) -> Callable[[], Awaitable[None]]:
    """Return a function that decodes the request and encodes an answer, 32 times."""
    payload = FRAME[4:]

    async def calls() -> None:
        for _ in range(AT_ONCE):
            decode(2, payload, Role.RUNNER)
            encode(answer)

    return calls


STOP = Stop(200, [(b"content-type", b"text/plain; charset=utf-8")], b"hello")
CORS_SCOPE = {**SCOPE, "headers": [*HEADERS, (b"origin", b"https://shop.example.com")]}

APPLICATIONS: dict[str, tuple[ASGIApp, Scope]] = {
    "cors": (cors(inner), CORS_SCOPE),
    "base": (Tagging(inner), SCOPE),
    "router": (router, SCOPE),
    "fastapi": (fastapi, SCOPE),
    "noop": (NoOp(nothing, 1), SCOPE),
}
"""Name → an application, and the scope that it gets."""

NAMES: dict[str, Callable[[], Callable[[], Awaitable[None]]]] = {
    **{name: partial(awaiting, *each) for name, each in APPLICATIONS.items()},
    "flask": lambda: in_thread(flask),
    "task": lambda: in_task(NoOp(nothing, 1)),
    "codec stop": lambda: codec(HTTPReqCallResp(7, STOP)),
    "codec rewrite": lambda: codec(HTTPReqCallResp(7, Rewrite(b"/rewritten", [(b"x-bench", b"1")]))),
    "codec no-op": lambda: codec(HTTPReqCallResp(7)),
}
"""Name → a function that makes what is run: 32 calls."""


async def measure(calls: Callable[[], Awaitable[None]], seconds: float) -> dict[str, float]:
    """Run calls for some seconds. Returns CPU microseconds of one, and their number."""
    await calls()
    number = 0
    end = time.monotonic() + seconds
    start = time.process_time()
    while time.monotonic() < end:
        await calls()
        number += AT_ONCE
    return {"cpu_us_req": (time.process_time() - start) * 1e6 / max(number, 1), "n": number}


async def main() -> None:
    loop = asyncio.get_running_loop()
    made: dict[str, Callable[[], Awaitable[None]]] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        seconds, name = line.strip().split(" ", 1)
        if name not in made:
            made[name] = NAMES[name]()
        print(json.dumps(await measure(made[name], float(seconds))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
