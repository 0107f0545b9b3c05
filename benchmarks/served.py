"""The floor with an application: each call awaits it on a scope that is there already, and gets the canned answer.

What an application costs here, above the floor and above itself in a loop, is what any server costs it: between two of
its calls the processor's caches are used for something else. It must not wait for anything.

``python -m benchmarks.served SOCKET [asyncio|uvloop]``
"""

import sys

from asgi_bridge.wire import PrepareConfReq, Role, decode

from .bare import APPLICATIONS, receive, send
from .floor import PREPARED, STOPPED, Buffered, Canned, Plain, run

PREFIX = "bench-"
"""What the plugins' names begin with. The rest is the name of an application."""

_served = APPLICATIONS["noop"]


class Serving(Canned):
    """Base class: the connection that prepares a chain says which application all connections serve from then on."""

    def take(self, data: bytes) -> None:
        data = self.rest + data
        start = 0
        while len(data) - start >= 4:
            end = start + 4 + int.from_bytes(data[start + 1 : start + 4], "big")
            if end > len(data):
                break
            if data[start] == 1:
                prepare(data[start + 4 : end])
                self.transport.write(PREPARED)
            else:
                app, scope = _served
                call = app({**scope}, receive, send).__await__()
                for _ in call:
                    sys.exit("the application waits")
                self.transport.write(STOPPED)
            start = end
        self.rest = data[start:]


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
