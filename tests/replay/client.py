"""The client of the recorded cases: it writes requests as they were recorded, byte for byte."""

import base64
import contextlib
import socket
from typing import Any

__all__ = ["Client", "Response"]


class Response:
    """What the client got. The status is None where the gateway closed the connection without a byte."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[tuple[str, bytes]] = []
        self.body = b""
        self.interim: list[int] = []
        self.incomplete = False


class Client:
    """Writes requests as they were recorded, and reads the responses."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection: socket.socket | None = None
        self.buffer = b""

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(self, request: dict[str, Any], *, same: bool = False) -> Response:
        if not same or self.connection is None:
            self.close()
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = b""
        head, body = _request_bytes(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if request.get("waits_for_100"):
                self.connection.sendall(head)
                response = self._read(request["method"])
                if response.status != 100:
                    return response
                self.connection.sendall(body)
                final = self._read(request["method"])
                final.interim = [100]
                return final
            self.connection.sendall(head + body)
        response = self._read(request.get("method", "GET"))
        while response.status == 100:
            response = self._read(request["method"])
            response.interim = [100]
        return response

    def at_end(self) -> bool:
        """Return whether the gateway has closed the connection, and sent nothing more."""
        assert self.connection is not None and not self.buffer
        return self.connection.recv(1) == b""

    def _more(self) -> bool:
        assert self.connection is not None
        try:
            data = self.connection.recv(1 << 18)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def _read(self, method: str) -> Response:
        response = Response()
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return response
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        response.status = int(status_line.split(b" ")[1])
        for line in lines:
            name, _, value = line.partition(b":")
            response.headers.append((name.decode("latin-1"), value.strip(b" \t")))
        values = {name.lower(): value for name, value in response.headers}
        if method == "HEAD" or response.status in (100, 204, 304):
            return response
        if values.get("transfer-encoding") == b"chunked":
            while True:
                while b"\r\n" not in self.buffer:
                    if not self._more():
                        response.incomplete = True
                        return response
                size_text, _, self.buffer = self.buffer.partition(b"\r\n")
                size = int(size_text, 16)
                parts = [self.buffer]
                have = len(self.buffer)
                while have < size + 2:
                    self.buffer = b""
                    if not self._more():
                        response.incomplete = True
                        return response
                    parts.append(self.buffer)
                    have += len(self.buffer)
                data = b"".join(parts)
                response.body += data[:size]
                self.buffer = data[size + 2 :]
                if size == 0:
                    return response
        length = int(values["content-length"]) if "content-length" in values else None
        while length is None or len(self.buffer) < length:
            if not self._more():
                response.incomplete = length is not None
                break
        end = len(self.buffer) if length is None else length
        response.body, self.buffer = self.buffer[:end], self.buffer[end:]
        return response


def _request_bytes(request: dict[str, Any]) -> tuple[bytes, bytes]:
    if request.get("raw_b64"):
        return base64.b64decode(request["raw_b64"]), b""
    lines = [f"{request['method']} {request['target']} HTTP/{request['http_version']}"]
    lines += [f"{name}: {value}" for name, value in request["headers"]]
    head = "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1")
    generated = request.get("body_gen")
    if generated and "repeat" in generated:
        body = generated["repeat"].encode() * generated["n"]
    else:
        body = base64.b64decode(request.get("body_b64") or "")
    if "chunks" in request:
        chunks = b""
        for size in request["chunks"]:
            chunks += b"%x\r\n%s\r\n" % (size, body[:size])
            body = body[size:]
        body = chunks + b"0\r\n\r\n"
    return head, body
