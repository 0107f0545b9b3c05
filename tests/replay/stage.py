"""What the recorded cases are played on: the gateway, served by uvicorn, between client, runner and upstream.

Everything goes over real sockets.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
import yaml

from asgi_bridge.gateway import GatewayApp, Limits, parse_routes
from asgi_bridge.gateway.runner.client import RunnerClient
from asgi_bridge.gateway.server import http_protocol

from ..doubles.http_servers import listening, port_of, uvicorn_thread
from ..gateway.props import props
from .cases import UPSTREAM_SCRIPT
from .client import Client, Response
from .runner import RecordedRunner

__all__ = ["PARSERS", "Stage", "stage"]

PARSERS = ["h11", "httptools"] if importlib.util.find_spec("httptools") is not None else ["h11"]
"""uvicorn's parsers that are installed. The last one lets more requests through."""

QUICK = Limits(lock=0.3, lock_held=1.0, exchange=2.0)
"""Seconds of the gateway in the tests. Those of a real APISIX go up to 60."""


class LogLines(logging.Handler):
    """Keeps what the gateway logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Stage:
    """The gateway between client, runner and upstream. It plays one case after the other."""

    def __init__(self, cases: list[dict[str, Any]], directory: str) -> None:
        spec = importlib.util.spec_from_file_location("apisix_cases_upstream", UPSTREAM_SCRIPT)
        assert spec is not None and spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # this byte names the operating system; not every Python sets it as the one that recorded did
        module.GZ = module.GZ[:9] + b"\x03" + module.GZ[10:]
        self.seen = threading.Condition()

        class Upstream(module.Upstream):  # type: ignore[misc]
            def add(upstream, entry: dict[str, Any]) -> None:
                super().add(entry)
                with self.seen:
                    self.seen.notify_all()

        self.upstream = Upstream(0)
        self.upstream_port: int = self.upstream.s.getsockname()[1]
        self.runner = RecordedRunner(f"{directory}/runner.sock")
        self.runner.up()
        self.app = GatewayApp(parse_routes(self._route_file(cases)), self.runner.path, limits=QUICK)
        self.log = LogLines()
        self.ports: dict[str, int] = {}
        self._serving = contextlib.ExitStack()
        self._loop = self._serving.enter_context(uvicorn_thread([self._server(http) for http in PARSERS]))
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

    def _server(self, http: str) -> tuple[uvicorn.Config, socket.socket]:
        """Return what serves the gateway with one of uvicorn's parsers: each refuses requests that the other takes."""
        listener = listening()
        self.ports[http] = port_of(listener)
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
        return config, listener

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        self._serving.close()
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
        """Load the routes again, as after an edit of the route file."""
        self._loop.call_soon_threadsafe(setattr, self.app, "routes", self.app.routes)

    def play(
        self, case: dict[str, Any], http: str, *, keep_tokens: bool = False
    ) -> tuple[list[Response], list[dict[str, Any]], list[dict[str, Any]]]:
        """Play a case.

        Args:
            case: as recorded.
            http: the parser that reads its requests.
            keep_tokens: the case was recorded after others, and the gateway still had their tokens. Calls may come
                after the client has its response.

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
                # the upstream sees what follows a request when the connection ends, after the client has its response
                self.seen.wait_for(lambda: len(self.upstream.saw) >= len(case["upstream_saw"]), timeout=5)
        got = self.runner.all_got(len(case["rpcs"]) if keep_tokens else 0)
        return responses, got, self.upstream.take()

    def ports_here(self, http: str) -> dict[bytes, bytes]:
        """Return port in the recording → port here, for gateway and upstream."""
        return {b"9080": b"%d" % self.ports[http], b"1981": b"%d" % self.upstream_port}

    def warm_up(self) -> None:
        """Leave an idle connection to the upstream, as earlier cases did when this one was recorded."""
        headers = [["Host", "noplugin-multi.test"]]
        self.clients["h11"].request({"method": "GET", "target": "/json", "http_version": "1.1", "headers": headers})


@contextlib.contextmanager
def stage(cases: list[dict[str, Any]], directory: str) -> Iterator[Stage]:
    """Give a stage for some cases."""
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
