"""A runner for tests: real frames over a real socket, answers from a function."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from asgi_bridge.wire import Role, decode, encode
from asgi_bridge.wire.messages import (
    ExtraInfoReq,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
)

__all__ = ["RunnerDouble", "running"]

Ask = Callable[[Info], bytes | None]
Answer = Callable[[Message, Ask], Any]


def unchanged(message: Message, ask: Ask) -> Message:
    """Do nothing to any request or response."""
    match message:
        case PrepareConfReq():
            return PrepareConfResp(7)
        case HTTPReqCallReq(number):
            return HTTPReqCallResp(number)
        case HTTPRespCallReq(number):
            return HTTPRespCallResp(number)
    raise AssertionError(message)


class RunnerDouble:
    """Answers with what `answer` gives: a message, bytes to be sent as they are, or None to hang up."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answer: Answer = unchanged
        self.got: list[Message] = []
        self.accepted = 0
        self.connections: list[socket.socket] = []
        self.closed = threading.Semaphore(0)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def calls(self, answer: Callable[..., Any]) -> None:
        """Answer only calls with a function; prepare as usual."""
        self.answer = lambda message, ask: (
            unchanged(message, ask) if isinstance(message, PrepareConfReq) else answer(message, ask)
        )

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")

        def read() -> Message | None:
            head = stream.read(4)
            if len(head) < 4:
                return None
            size: int = struct.unpack(">I", head)[0]
            return decode(size >> 24, stream.read(size & 0xFFFFFF), Role.RUNNER)

        def ask(info: Info) -> bytes | None:
            connection.sendall(encode(ExtraInfoReq(info)))
            answer = read()
            if answer is None:
                raise ConnectionError
            return answer.result  # type: ignore[union-attr]

        with contextlib.suppress(OSError):
            while (message := read()) is not None:
                self.got.append(message)
                answer = self.answer(message, ask)
                if answer is None:
                    break
                connection.sendall(answer if isinstance(answer, bytes) else encode(answer))
        stream.close()
        connection.close()
        self.closed.release()


@contextlib.contextmanager
def running(path: str) -> Iterator[RunnerDouble]:
    double = RunnerDouble(path)
    try:
        yield double
    finally:
        double.stop()
