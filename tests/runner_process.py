"""A real runner: ``asgi-bridge run`` in a process of its own, on a unix socket, with what it says on stderr."""

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2

from asgi_bridge.gateway import GatewayApp, read_routes

__all__ = ["RunnerProcess", "client_of", "routes_of", "runner_process"]

SECONDS = 60.0
UPSTREAM = {"type": "roundrobin", "nodes": {"upstream.test:80": 1}}


class RunnerProcess:
    """The process, its socket and its log.

    Attributes:
        socket: the path of the socket.
        lines: what the runner has logged so far.
    """

    def __init__(self, folder: Path, source: str, *options: str) -> None:
        (folder / "plugins_of_test.py").write_text(source)
        self.socket = str(folder / "runner.sock")
        self.lines: list[str] = []
        command = "from asgi_bridge.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "run", "plugins_of_test:bridge", "--uds", self.socket,
             "--app-dir", str(folder), *options],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def line_with(self, text: str) -> str:
        """The next line of the log that has `text` in it; waits for it."""
        while (line := self._arriving.get(timeout=SECONDS)) is not None:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"the runner ended without {text!r}:\n" + "\n".join(self.lines))

    def lines_so_far(self) -> list[str]:
        """All lines that have arrived."""
        with contextlib.suppress(queue.Empty):
            while (line := self._arriving.get_nowait()) is not None:
                self.lines.append(line)
        return self.lines

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)


@contextlib.contextmanager
def runner_process(folder: Path, source: str, *options: str) -> Iterator[RunnerProcess]:
    """Runs the ``bridge`` of the module whose text is `source`."""
    runner = RunnerProcess(folder, source, *options)
    try:
        runner.line_with("Runner listens on")
        yield runner
    finally:
        runner.stop()


def routes_of(*routes: dict[str, Any]) -> Any:
    """Routes of the gateway, all with one upstream."""
    return read_routes({"routes": [{**route, "upstream": UPSTREAM} for route in routes]})


@contextlib.asynccontextmanager
async def client_of(gateway: GatewayApp) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of `gateway`, which keeps its connections to the runner meanwhile."""
    gateway.pool.start()
    try:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=gateway), base_url="http://gateway.test"
        ) as client:
            yield client
    finally:
        await gateway.pool.stop()
