"""A runner in name only: real frames on a real socket, with answers that a function or a recording gives."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from asgi_bridge.wire import Role, decode, encode
from asgi_bridge.wire.messages import (
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
)

__all__ = ["Ask", "RunnerDouble", "read_frame", "running"]

Ask = Callable[[Info], bytes | None]
"""Asks the gateway, and returns its answer."""

Answer = Callable[[Message, Ask], Any]


def unchanged(message: Message, ask: Ask) -> Message:
    """Answer that nothing changes, and give each plugin list the token 7."""
    match message:
        case PrepareConfReq():
            return PrepareConfResp(7)
        case HTTPReqCallReq(number):
            return HTTPReqCallResp(number)
        case HTTPRespCallReq(number):
            return HTTPRespCallResp(number)
    raise AssertionError(message)


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """Read one frame.

    Returns:
        Its type and its payload.

    Raises:
        EOFError: the connection has ended before the frame has.
    """
    head: int = struct.unpack(">I", _read_exactly(connection, 4))[0]
    return head >> 24, _read_exactly(connection, head & 0xFFFFFF)


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class RunnerDouble:
    """Listens on a unix socket, and serves each connection on a thread of its own.

    Args:
        path: path of the socket.

    Attributes:
        answer: what answers a message. It returns a message, bytes to be sent as they are, or None to hang up.
        got: the messages that came.
        accepted: number of connections that were accepted.
        connections: these connections.
        closed: is released for each connection that has ended.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.answer: Answer = unchanged
        self.got: list[Message] = []
        self.accepted = 0
        self.connections: list[socket.socket] = []
        self.closed = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.listener: socket.socket | None = None

    def calls(self, answer: Callable[..., Any]) -> None:
        """Answer calls with `answer`, and plugin lists with a token as before."""
        self.answer = lambda message, ask: (
            unchanged(message, ask) if isinstance(message, PrepareConfReq) else answer(message, ask)
        )

    def up(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        self.listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Stop to listen, remove the socket, and hang up."""
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.hang_up()

    def hang_up(self) -> None:
        """Close all connections."""
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                number = len(self.connections)
                self.connections.append(connection)
                self.accepted += 1
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.serve(connection, number)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        self.closed.release()

    def serve(self, connection: socket.socket, number: int) -> None:
        """Serve one connection until it has to be closed.

        Args:
            connection: the connection.
            number: its place in `connections`.
        """

        def read() -> Message:
            return decode(*read_frame(connection), Role.RUNNER)

        def ask(info: Info) -> bytes | None:
            connection.sendall(encode(ExtraInfoReq(info)))
            answer = read()
            assert isinstance(answer, ExtraInfoResp)
            return answer.result

        while True:
            message = read()
            self.got.append(message)
            answer = self.answer(message, ask)
            if answer is None:
                return
            connection.sendall(answer if isinstance(answer, bytes) else encode(answer))


@contextlib.contextmanager
def running(path: str) -> Iterator[RunnerDouble]:
    """Give a double that listens on `path`."""
    double = RunnerDouble(path)
    double.up()
    try:
        yield double
    finally:
        double.down()
