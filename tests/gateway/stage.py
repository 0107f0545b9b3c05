"""Replays the recorded cases on real sockets.

A runner gives the recorded answers, a client writes raw bytes, the upstream is that of the recordings, and uvicorn
serves the gateway.
"""

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
import yaml

from asgi_bridge.gateway import GatewayApp, Limits, parse_routes
from asgi_bridge.gateway.runner.client import RunnerClient
from asgi_bridge.gateway.server import http_protocol
from asgi_bridge.wire import Role, decode, encode
from asgi_bridge.wire.messages import (
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    Rewrite,
    Stop,
)
from tests.cases import UPSTREAM_SCRIPT
from tests.gateway.props import props

__all__ = ["PARSERS", "Client", "Response", "Stage", "stage"]

PARSERS = ["h11", "httptools"] if importlib.util.find_spec("httptools") is not None else ["h11"]
"""uvicorn's parsers that are installed. The last one accepts more requests."""

QUICK = Limits(lock=0.3, lock_held=1.0, exchange=2.0)
"""Seconds for the tests. A real APISIX waits up to 60 s."""

RECORDED_PORTS = {b"9080": "gateway", b"1981": "upstream"}


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError(data)
        data += part
    return data


def _read_frame(connection: socket.socket) -> tuple[int, bytes]:
    head: int = struct.unpack(">I", _read_exactly(connection, 4))[0]
    parts = []
    left = head & 0xFFFFFF
    while left:
        part = connection.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return head >> 24, b"".join(parts)


class Runner:
    """A runner that gives the recorded answers of one case, and keeps what it gets."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.listener: socket.socket | None = None
        self.connections: list[socket.socket] = []
        self.rpcs: list[dict[str, Any]] = []
        self.got: list[dict[str, Any]] = []
        self.generation = 0

    def prepare(self, rpcs: list[dict[str, Any]]) -> None:
        """Get ready for a case: close the connections of the one before."""
        with self.lock:
            self.generation += 1
            self.rpcs = list(rpcs)
            self.got = []
        self.hang_up()

    def all_got(self, at_least: int = 0) -> list[dict[str, Any]]:
        """Give what the runner got, once it has all answers to ExtraInfo that the recording has.

        Such an answer may come after the client has its response, and so may whole calls.

        Args:
            at_least: number of messages to wait for.
        """

        def settled() -> bool:
            return len(self.got) >= at_least and all(
                len(entry["extra"]) >= sum(frame["way"] == "in" for frame in rpc.get("frames_extra_hex", ()))
                for entry, rpc in zip(self.got, self.rpcs, strict=False)
            )

        with self.changed:
            self.changed.wait_for(settled, timeout=2)
            return list(self.got)

    def hang_up(self) -> None:
        with self.lock:
            connections, self.connections = self.connections, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def up(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        self.listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with self.lock:
            # numbers of connections go on: they count within the case
            alive = [connection for connection in self.connections if connection.fileno() >= 0]
        for connection in alive:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                number = len(self.connections)
                self.connections.append(connection)
                generation = self.generation
            threading.Thread(target=self._serve, args=(connection, number, generation), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int, generation: int) -> None:
        try:
            while self._one(connection, number, generation):
                pass
        except (OSError, EOFError):
            pass
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _one(self, connection: socket.socket, number: int, generation: int) -> bool:
        frame_type, payload = _read_frame(connection)
        with self.lock:
            if generation != self.generation:
                return False
            entry: dict[str, Any] = {"conn": number, "message": decode(frame_type, payload, Role.RUNNER), "extra": []}
            at = len(self.got)
            self.got.append(entry)
            self.changed.notify_all()
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
                waiting += bytes.fromhex(frame["hex"]) if isinstance(frame["hex"], str) else b""
                continue
            if waiting:
                connection.sendall(waiting + (out or b"" if together else b""))
                waiting = b""
            frame_type, payload = _read_frame(connection)
            message = decode(frame_type, payload, Role.RUNNER)
            assert isinstance(message, ExtraInfoResp)
            with self.changed:
                entry["extra"].append(message.result)
                self.changed.notify_all()
        if waiting:
            # asked, and never answered: the gateway closes
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
    return None if value is None else base64.b64decode(str(value))


def _frame_out(rpc: dict[str, Any]) -> bytes | None:
    out = rpc["frame_out_hex"]
    if not isinstance(out, dict):
        return None if out is None else bytes.fromhex(out)
    # cut because it is long: built anew from what it says
    answer = rpc["answer"]
    headers = [
        (n if n is None else n.encode("latin-1"), v if v is None else v.encode("latin-1"))
        for n, v in answer.get("headers", ())
    ]
    body = _long_body(answer.get("body_b64"))
    path = answer.get("path")
    match answer["action"]:
        case "stop":
            action: Any = Stop(answer.get("status", 0), headers or None, body)
        case "rewrite":
            action = Rewrite(path and path.encode("latin-1"), headers or None, None, None, body)
        case "resp":
            return encode(HTTPRespCallResp(answer.get("id", 0), answer.get("status", 0), headers or None, body))
        case other:
            raise AssertionError(other)
    return encode(HTTPReqCallResp(answer.get("id", 0), action))


class Response:
    """What the client got. A status of None: the gateway closed the connection without a byte."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[tuple[str, bytes]] = []
        self.body = b""
        self.interim: list[int] = []
        self.incomplete = False


class Client:
    """Writes requests as they were recorded, byte for byte."""

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
        """Whether the gateway has closed the connection, and sent nothing more."""
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


class LogLines(logging.Handler):
    """Keeps what the gateway logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Stage:
    """The gateway with its runner, client and upstream. It plays one case after the other."""

    def __init__(self, cases: list[dict[str, Any]], directory: str) -> None:
        spec = importlib.util.spec_from_file_location("apisix_cases_upstream", UPSTREAM_SCRIPT)
        assert spec is not None and spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # the byte that names the operating system, which not every Python sets as the recording one did
        module.GZ = module.GZ[:9] + b"\x03" + module.GZ[10:]
        self.seen = threading.Condition()

        class Upstream(module.Upstream):  # type: ignore[misc]
            def add(upstream, entry: dict[str, Any]) -> None:
                super().add(entry)
                with self.seen:
                    self.seen.notify_all()

        self.upstream = Upstream(0)
        self.upstream_port: int = self.upstream.s.getsockname()[1]
        self.runner = Runner(f"{directory}/runner.sock")
        self.runner.up()
        routes = parse_routes(self._route_file(cases))
        self.app = GatewayApp(routes, self.runner.path, limits=QUICK)
        self.log = LogLines()
        self.ports: dict[str, int] = {}
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(60)
        self.clients = {http: Client(port) for http, port in self.ports.items()}

    def _route_file(self, cases: list[dict[str, Any]]) -> str:
        config: dict[str, list[Any]] = {"routes": []}
        for case in cases:
            config["routes"] += case.get("routes") or [case["route"]]
            for section, entries in case.get("extra_config", {}).items():
                known = config.setdefault(section, [])
                known += [entry for entry in entries if entry not in known]
        text = json.dumps(config).replace("127.0.0.1:1981", f"127.0.0.1:{self.upstream_port}")
        loader = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        return yaml.dump(json.loads(text), Dumper=loader, allow_unicode=True) + "#END\n"

    def _serve(self) -> None:
        asyncio.run(self._serve_all())

    async def _serve_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = []
        # Both of uvicorn's parsers: each refuses requests that the other lets through.
        for http in PARSERS:
            listener = socket.create_server(("127.0.0.1", 0))
            self.ports[http] = listener.getsockname()[1]
            config = uvicorn.Config(
                self.app,
                http=http_protocol(http),
                lifespan="on" if http == "h11" else "off",
                ws="none",
                interface="asgi3",
                server_header=False,
                date_header=False,
                access_log=False,
                proxy_headers=False,
                log_level="critical",
            )
            server = uvicorn.Server(config)
            self._servers.append(server)
            serving.append(asyncio.create_task(server.serve(sockets=[listener])))
        while not all(server.started for server in self._servers):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        self._started.set()
        await asyncio.gather(*serving)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        for server in self._servers:
            server.should_exit = True
        self._thread.join(60)
        self.runner.down()
        self.upstream.s.close()

    def _reset(self, first_id: int, keep_tokens: bool) -> None:
        async def reset() -> None:
            old = self.app.runner
            self.app.runner = RunnerClient(self.runner.path, QUICK, self.app.pool)
            if keep_tokens:
                self.app.runner._tokens = old._tokens
            self.app.runner.next_id = first_id

        asyncio.run_coroutine_threadsafe(reset(), self._loop).result(60)

    def reload(self) -> None:
        """Give the gateway new routes, as after an edit of the route file."""
        self._loop.call_soon_threadsafe(setattr, self.app, "routes", self.app.routes)

    def play(
        self, case: dict[str, Any], http: str, *, keep_tokens: bool = False
    ) -> tuple[list[Response], list[dict[str, Any]], list[dict[str, Any]]]:
        """Play a case.

        Args:
            case: as recorded.
            http: the parser that reads its requests.
            keep_tokens: it was recorded behind others, whose tokens the gateway still had; and calls may come when the
                client has had its response.

        Returns:
            The client's responses, what the runner got, what the upstream saw.
        """
        client = self.clients[http]
        client.close()
        self.runner.prepare(case["rpcs"])
        first = next((rpc["id"] for rpc in case["rpcs"] if rpc["type"] != 1), 0)
        self._reset(first, keep_tokens)
        self.upstream.take()
        self.log.lines.clear()
        if case.get("before") == "down":
            self.runner.down()
        responses = [client.request(case["request"])]
        for step in case.get("next", ()):
            match step.get("do"):
                case "sleep":
                    time.sleep(min(step["ms"], 1200) / 1000)
                case "down":
                    self.runner.down()
                case "up":
                    self.runner.up()
                case "forget":
                    pass
                case "reload":
                    self.reload()
                case None:
                    responses.append(client.request(step["request"], same=step["connection"] == "same"))
                case other:
                    raise AssertionError(other)
        if case.get("before") == "down":
            self.runner.up()
        if any("raw_b64" in saw for saw in case["upstream_saw"]):
            with self.seen:
                # what comes behind a request is seen when the connection ends, after the client has its response
                self.seen.wait_for(lambda: len(self.upstream.saw) >= len(case["upstream_saw"]), timeout=5)
        got = self.runner.all_got(len(case["rpcs"]) if keep_tokens else 0)
        return responses, got, self.upstream.take()

    def warm_up(self) -> None:
        """Make an idle connection to the upstream, as there was one in the recording."""
        headers = [["Host", "noplugin-multi.test"]]
        self.clients["h11"].request({"method": "GET", "target": "/json", "http_version": "1.1", "headers": headers})


@contextlib.contextmanager
def stage(cases: list[dict[str, Any]], directory: str) -> Iterator[Stage]:
    """Set everything up for some cases."""
    with props():
        yield from _standing(cases, directory)


def _standing(cases: list[dict[str, Any]], directory: str) -> Iterator[Stage]:
    standing = Stage(cases, directory)
    logger = logging.getLogger("asgi_bridge.gateway")
    logger.addHandler(standing.log)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield standing
    finally:
        logger.removeHandler(standing.log)
        logger.propagate = propagate
        standing.close()


# --- comparing ------------------------------------------------------------------------------------------------------

_VERSIONS = re.compile(rb"\d{10,}")
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _sorted(headers: Any) -> list[tuple[bytes, bytes | None]]:
    return sorted(((bytes(n), v) for n, v in headers), key=lambda item: item[0])


def _latin(value: str | None) -> bytes | None:
    return None if value is None else value.encode("latin-1")


class Compare:
    """Puts a recorded case, and what happened in this run, into the same form."""

    def __init__(self, standing: Stage, http: str, case: dict[str, Any]) -> None:
        # the order of a query that Lua has put together, which the recording does not always mark
        self.args_order_varies = any((rpc["answer"] or {}).get("args") for rpc in case["rpcs"])
        self.ports = {b"9080": b"%d" % standing.ports[http], b"1981": b"%d" % standing.upstream_port}

    def value(self, value: bytes | None) -> bytes | None:
        """Give a recorded value with the ports of this run."""
        if value is None:
            return None
        if value in self.ports:
            return self.ports[value]
        return value.replace(b"127.0.0.1:1981", b"127.0.0.1:" + self.ports[b"1981"])

    def marked(self, value: bytes | None) -> bytes | None:
        """Give a value of this run without what is random."""
        return None if value is None else _UUID.sub(b"<uuid#1>", value)

    def pairs(self, entries: Any) -> list[tuple[bytes, bytes | None]]:
        return _sorted((n.encode("latin-1"), self.value(_latin(v))) for n, v in entries)

    def rpc_recorded(self, rpc: dict[str, Any]) -> dict[str, Any]:
        if rpc["type"] == 1:
            conf = rpc["conf"] and [(n.encode("latin-1"), v.encode("latin-1")) for n, v in rpc["conf"]]
            # one case has an empty list where its frame has no vector
            return {"conn": rpc["conn"], "key": rpc["key"].encode("latin-1"), "conf": conf or None}
        common = {
            "conn": rpc["conn"],
            "id": rpc["id"],
            "headers": self.pairs(rpc["headers"]),
            "conf_token": rpc["conf_token"],
            "extra": [
                _digest(self.value(base64.b64decode(e["result_b64"])))
                if isinstance(e["result_b64"], str) and not e.get("volatile")
                else ("present" if e.get("volatile") else _cut(e["result_b64"]))
                for e in rpc["extra"]
                if not e.get("no_reply")
            ],
        }
        for at, asked in enumerate(rpc["extra"]):
            if asked.get("args_order_varies"):
                common["extra"][at] = _sorted_args(base64.b64decode(asked["result_b64"]))
        if rpc["type"] == 2:
            common |= {
                "method": rpc["method"],
                "path": base64.b64decode(rpc["path_b64"]),
                "src_ip": rpc["src_ip"],
                "args": self.pairs(rpc["args"]),
            }
        else:
            common["status"] = rpc["status"]
        return common

    def rpc_here(self, got: dict[str, Any], rpc: dict[str, Any]) -> dict[str, Any]:
        message = got["message"]
        if isinstance(message, PrepareConfReq):
            return {
                "conn": got["conn"],
                "key": _VERSIONS.sub(b"<version>", message.key or b""),
                "conf": message.conf,
            }
        assert isinstance(message, HTTPReqCallReq | HTTPRespCallReq)
        extra: list[Any] = []
        for asked, result in zip(rpc.get("extra", ()), got["extra"], strict=False):
            if asked.get("volatile"):
                extra.append("present" if result else None)
            elif asked.get("args_order_varies"):
                extra.append(_sorted_args(result))
            else:
                extra.append(_digest(self.marked(result)))
        here = {
            "conn": got["conn"],
            "id": message.id,
            "headers": _sorted((n, self.marked(v)) for n, v in message.headers or ()),
            "conf_token": message.conf_token,
            "extra": extra,
        }
        if isinstance(message, HTTPReqCallReq):
            here |= {
                "method": message.method,
                "path": message.path,
                "src_ip": socket.inet_ntoa(message.src_ip or b""),
                "args": _sorted(message.args or ()),
            }
        else:
            here["status"] = message.status
        return here

    def upstream_recorded(self, saw: dict[str, Any]) -> dict[str, Any]:
        if "raw_b64" in saw:
            return {"raw": base64.b64decode(saw["raw_b64"])}
        uri = saw["uri"].encode("latin-1")
        return {
            "method": saw["method"].encode(),
            "uri": _sorted_target(uri) if self.args_order_varies or saw.get("args_order_varies") else uri,
            "headers": _sorted((n.lower().encode("latin-1"), self.value(_latin(v))) for n, v in saw["headers"]),
            "framing": saw["framing"],
            "body": _cut(saw.get("body_b64") or ""),
        }

    def upstream_here(self, saw: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
        if "raw" in saw:
            return {"raw": saw["raw"]}
        uri = saw["uri"]
        return {
            "method": saw["method"],
            "uri": _sorted_target(uri) if self.args_order_varies or recorded.get("args_order_varies") else uri,
            "headers": _sorted((n.lower(), self.marked(v)) for n, v in saw["headers"]),
            "framing": saw["framing"],
            "body": _digest(saw["body"]),
        }

    def client_recorded(self, got: dict[str, Any]) -> dict[str, Any]:
        if got.get("closed"):
            return {"status": None}
        return {
            "status": got["status"],
            "headers": _sorted((n.lower().encode("latin-1"), _latin(v)) for n, v in got["headers"]),
            "body": _cut(got.get("body_b64") or ""),
            "incomplete": got.get("incomplete", False),
            "dated": not got.get("no_date", False),
        }

    def client_here(self, response: Response) -> dict[str, Any]:
        if response.status is None:
            return {"status": None}
        headers = [(n.lower().encode("latin-1"), v) for n, v in response.headers]
        # Date is volatile, unless it is the one of the cases
        kept = [(n, self.marked(v)) for n, v in headers if n != b"date" or b" 1970 " in v]
        return {
            "status": response.status,
            "headers": _sorted(kept),
            "body": _digest(response.body),
            "incomplete": response.incomplete,
            "dated": any(n == b"date" for n, _ in headers),
        }


def _digest(body: bytes | None) -> Any:
    if body is None or len(body) <= 16000:
        return body
    return len(body), hashlib.sha256(body).hexdigest()


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return value["len"], value["sha256"]
    return None if value is None else _digest(base64.b64decode(value))


def _sorted_args(query: bytes) -> bytes:
    path, question, rest = query.rpartition(b"?")
    return path + question + b"&".join(sorted(rest.split(b"&")))


def _sorted_target(target: bytes) -> bytes:
    return _sorted_args(target) if b"?" in target else target
