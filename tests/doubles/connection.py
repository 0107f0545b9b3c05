"""The gateway's end of a connection, for tests that speak with a runner. It needs no event loop."""

import contextlib
import json
import socket
import time
from typing import Any

from asgi_bridge.wire import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Session,
    Stop,
    TextEntry,
)

from .waiting import SECONDS

__all__ = ["BAD_REQUEST", "HEADERS", "NOT_FOUND", "UNAVAILABLE", "Connection", "body_of", "request"]

BAD_REQUEST = ErrResp(ErrCode.BAD_REQUEST)
UNAVAILABLE = ErrResp(ErrCode.SERVICE_UNAVAILABLE)
NOT_FOUND = ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND)

HEADERS: list[TextEntry] = [
    (b"host", b"a.test"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"a.test"),
    (b"x-forwarded-port", b"80"),
]
"""Headers of each call: those that APISIX adds to a request without any."""


class Connection:
    """One connection to a runner.

    Args:
        path: path of the runner's socket.
        patient: try again until the runner listens.
    """

    def __init__(self, path: str, *, patient: bool = False) -> None:
        self.session = Session(Role.GATEWAY)
        end = time.monotonic() + SECONDS
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(SECONDS)
            try:
                self.sock.connect(path)
            except OSError:
                self.sock.close()
                if not patient or time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, message: Message) -> None:
        self.sock.sendall(self.session.send(message))

    def receive(self) -> Message | None:
        """Return the next message. None: the runner has closed the connection."""
        while (message := self.session.next_message()) is None:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self.sock.recv(1 << 16)
            if not data:
                return None
            self.session.receive_data(data)
        return message

    def say(self, message: Message) -> Message | None:
        """Send `message`, and return the next message of the runner."""
        self.send(message)
        return self.receive()

    def prepare(self, *plugins: tuple[str, Any], key: str = "route#1#ext-plugin-pre-req#1") -> Message | None:
        """Prepare a list of plugins.

        Args:
            plugins: name and configuration of each; the configuration is sent as JSON.
            key: the list's key.

        Returns:
            The runner's answer.
        """
        conf: list[TextEntry] = [(name.encode(), json.dumps(value).encode()) for name, value in plugins]
        return self.say(PrepareConfReq(conf, key.encode()))

    def token(self, plugin: str, conf: Any = None, **kwargs: Any) -> int:
        """Prepare one plugin, and return its token."""
        answer = self.prepare((plugin, conf), **kwargs)
        assert isinstance(answer, PrepareConfResp), answer
        return answer.conf_token

    def begin(self, token: int, **fields: Any) -> None:
        """Send the call that `request` returns, and do not wait for the answer."""
        self.send(request(token, **fields))

    def call(self, token: int, **fields: Any) -> Message | None:
        """Send the call that `request` returns, and return the runner's answer."""
        return self.say(request(token, **fields))


def request(token: int, **fields: Any) -> HTTPReqCallReq:
    """Return a call of the request phase: a GET of / from 127.0.0.1.

    Args:
        token: token of the plugin list.
        fields: other fields of the message, or other values of these.
    """
    defaults: dict[str, Any] = {
        "id": 1,
        "src_ip": b"\x7f\0\0\1",
        "path": b"/",
        "headers": HEADERS,
    }
    return HTTPReqCallReq(conf_token=token, **{**defaults, **fields})


def body_of(answer: Message | None) -> bytes:
    """Return the body of `answer`, which has to be a Stop."""
    assert isinstance(answer, HTTPReqCallResp), answer
    assert isinstance(answer.action, Stop), answer
    return answer.action.body or b""
