"""The runner of the recorded cases: it answers as the probing runner did, byte for byte."""

import hashlib
import socket
import threading
import time
from typing import Any

from asgi_bridge.wire import Role, decode, encode
from asgi_bridge.wire.messages import ExtraInfoResp, HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop

from ..doubles.runner_double import RunnerDouble, read_frame
from .cases import latin1, unbase64, unhex

__all__ = ["RecordedRunner"]


class RecordedRunner(RunnerDouble):
    """Gives the recorded answers of one case, and keeps what it got."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.told = threading.Condition(self.lock)
        self.rpcs: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []
        self.generation = 0

    def prepare(self, rpcs: list[dict[str, Any]]) -> None:
        """Get ready for a case.

        The runner closes the connections of the case before. The numbers of connections count within a case.
        """
        self.hang_up()
        with self.lock:
            self.generation += 1
            self.rpcs = list(rpcs)
            self.entries = []
            self.connections = []

    def all_got(self, at_least: int = 0) -> list[dict[str, Any]]:
        """Return what the runner got, once it has read all answers to its asks that were recorded.

        When it sends an ask together with its own answer, the gateway's answer may come after the client has its
        response. So may whole calls.

        Args:
            at_least: number of calls to wait for.
        """

        def settled() -> bool:
            return len(self.entries) >= at_least and all(
                len(entry["extra"]) >= sum(frame["way"] == "in" for frame in rpc.get("frames_extra_hex", ()))
                for entry, rpc in zip(self.entries, self.rpcs, strict=False)
            )

        with self.told:
            self.told.wait_for(settled, timeout=2)
            return list(self.entries)

    def serve(self, connection: socket.socket, number: int) -> None:
        with self.lock:
            generation = self.generation
        while self._one(connection, number, generation):
            pass

    def _one(self, connection: socket.socket, number: int, generation: int) -> bool:
        frame_type, payload = read_frame(connection)
        with self.lock:
            if generation != self.generation:
                return False
            entry: dict[str, Any] = {"conn": number, "message": decode(frame_type, payload, Role.RUNNER), "extra": []}
            at = len(self.entries)
            self.entries.append(entry)
            self.told.notify_all()
            if at >= len(self.rpcs):
                return False
            rpc = self.rpcs[at]
        return self._play(connection, rpc, entry)

    def _play(self, connection: socket.socket, rpc: dict[str, Any], entry: dict[str, Any]) -> bool:
        answer = rpc["answer"] or {}
        write = answer.get("write")
        out = _frame_out(rpc)
        together = isinstance(write, str)
        waiting = b""
        for frame in rpc["frames_extra_hex"]:
            if frame["way"] == "out":
                waiting += unhex(frame["hex"]) or b""
                continue
            if waiting:
                connection.sendall(waiting + (out or b"" if together else b""))
                waiting = b""
            frame_type, payload = read_frame(connection)
            message = decode(frame_type, payload, Role.RUNNER)
            assert isinstance(message, ExtraInfoResp)
            with self.told:
                entry["extra"].append(message.result)
                self.told.notify_all()
        if waiting:
            # the gateway never answered: it closed the connection
            connection.sendall(waiting)
            connection.recv(1)
            return False
        if together:
            return True
        action = answer.get("action")
        if out is None:
            if action in ("hang", "none sent"):
                connection.recv(1)
            return False
        options = write or {}
        if "split" in options:
            for at in range(0, len(out), options["split"]):
                connection.sendall(out[at : at + options["split"]])
                time.sleep(options.get("delay_ms", 0) / 1000)
        elif "twice" in options:
            if options["twice"]:
                connection.sendall(out)
                time.sleep(options["twice"] / 1000)
                connection.sendall(out)
            else:
                connection.sendall(out + out)
        elif "trail" in options:
            connection.sendall(out + bytes.fromhex(options["trail"]))
        else:
            connection.sendall(out)
        return not ("cut" in options or options.get("close"))


def _long_body(value: Any) -> bytes | None:
    if isinstance(value, dict):
        body: bytes = b"x" * value["len"]
        assert hashlib.sha256(body).hexdigest() == value["sha256"]
        return body
    return unbase64(value)


def _frame_out(rpc: dict[str, Any]) -> bytes | None:
    out = rpc["frame_out_hex"]
    if not isinstance(out, dict):
        return unhex(out)
    # a long frame is cut in the recording, so it is built anew
    answer = rpc["answer"]
    headers = [(latin1(name), latin1(value)) for name, value in answer.get("headers", ())]
    body = _long_body(answer.get("body_b64"))
    path = answer.get("path")
    match answer["action"]:
        case "stop":
            action: Any = Stop(answer.get("status", 0), headers or None, body)
        case "rewrite":
            action = Rewrite(latin1(path), headers or None, None, None, body)
        case "resp":
            return encode(HTTPRespCallResp(answer.get("id", 0), answer.get("status", 0), headers or None, body))
        case other:
            raise AssertionError(other)
    return encode(HTTPReqCallResp(answer.get("id", 0), action))
