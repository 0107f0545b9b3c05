"""The gateway's side of a connection, without an event loop: what a test says to a runner."""

import contextlib
import json
import socket
import time
from collections.abc import Callable
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

__all__ = ["BAD_REQUEST", "HEADERS", "NOT_FOUND", "UNAVAILABLE", "Connection", "body_of", "until"]

SECONDS = 60.0
"""Nothing takes that long; slow machines pass, and what hangs fails."""

BAD_REQUEST = ErrResp(ErrCode.BAD_REQUEST)
UNAVAILABLE = ErrResp(ErrCode.SERVICE_UNAVAILABLE)
NOT_FOUND = ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND)

HEADERS: list[TextEntry] = [
    (b"host", b"a.test"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"a.test"),
    (b"x-forwarded-port", b"80"),
]


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Waits for `condition` to hold, and gives what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return found


class Connection:
    """One connection to a runner."""

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
        """The next message; None: the runner has closed."""
        while (message := self.session.next_message()) is None:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self.sock.recv(1 << 16)
            if not data:
                return None
            self.session.receive_data(data)
        return message

    def say(self, message: Message) -> Message | None:
        self.send(message)
        return self.receive()

    def prepare(self, *plugins: tuple[str, Any], key: str = "route#1#ext-plugin-pre-req#1") -> Message | None:
        conf = [(name.encode(), json.dumps(value).encode()) for name, value in plugins]
        return self.say(PrepareConfReq(conf, key.encode()))

    def token(self, plugin: str, conf: Any = None, **kwargs: Any) -> int:
        answer = self.prepare((plugin, conf), **kwargs)
        assert isinstance(answer, PrepareConfResp), answer
        return answer.conf_token

    def begin(self, token: int, **fields: Any) -> None:
        self.send(request(token, **fields))

    def call(self, token: int, **fields: Any) -> Message | None:
        return self.say(request(token, **fields))


def request(token: int, **fields: Any) -> HTTPReqCallReq:
    defaults: dict[str, Any] = {
        "id": 1,
        "src_ip": b"\x7f\0\0\1",
        "path": b"/",
        "headers": HEADERS,
    }
    return HTTPReqCallReq(conf_token=token, **{**defaults, **fields})


def body_of(answer: Message | None) -> bytes:
    """The body of a Stop."""
    assert isinstance(answer, HTTPReqCallResp), answer
    assert isinstance(answer.action, Stop), answer
    return answer.action.body or b""
