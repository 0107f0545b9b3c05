"""The floor with an application: each call awaits it on a scope that is there already, and gets the canned answer.

What an application costs here, above the floor and above itself in a loop, is what any server costs it: between two of
its calls the processor's caches are used for something else. It must not wait for anything.

``python -m benchmarks.served SOCKET [asyncio|uvloop]``
"""

import asyncio
import sys
from typing import cast

from asgi_bridge.wire import PrepareConfReq, Role, decode

from .bare import APPLICATIONS, receive, send
from .floor import STOPPED, Buffered, Canned, Plain, run

PREFIX = "bench-"
"""What the plugins' names begin with. The rest is the name of an application."""

_served = APPLICATIONS["noop"]


class Calling(asyncio.BaseTransport):
    """A transport on which an application is awaited before each answer to a call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.write_at_once = transport.write

    def write(self, answer: bytes) -> None:
        if answer is STOPPED:
            app, scope = _served
            for _ in app({**scope}, receive, send).__await__():
                sys.exit("the application waits")
        self.write_at_once(answer)


class Serving(Canned):
    """Base class: the connection that prepares a chain says which application all connections serve from then on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(Calling(cast("asyncio.Transport", transport)))

    def take(self, data: bytes) -> None:
        if data[0] == 1:  # it is short, so one read brings it whole
            prepare(data[4:])
        super().take(data)


class ServingPlain(Serving, Plain):
    """Protocol that is faster on uvloop."""


class ServingBuffered(Serving, Buffered):
    """Protocol that is faster on asyncio."""


def prepare(payload: bytes) -> None:
    """Serve the application of the chain's only plugin."""
    global _served
    message = decode(1, payload, Role.RUNNER)
    assert isinstance(message, PrepareConfReq) and message.conf
    name = message.conf[0][0] or b""
    _served = APPLICATIONS[name.decode().removeprefix(PREFIX)]


if __name__ == "__main__":
    run(ServingPlain, ServingBuffered)
