"""A real Redis for a test: a process with its own unix socket and folder, which ends with the test."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["RedisServer", "needs_redis", "redis_server"]

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="there is no redis-server on this machine (apt-get install redis-server; .ci/run installs it)",
)


class RedisServer:
    """A process of redis-server.

    Attributes:
        url: URL of its unix socket.
        port: Its port at 127.0.0.1; 0 if it has only the unix socket.
    """

    def __init__(self, folder: Path, password: str, port: int = 0) -> None:
        self.port = port
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[str] | None = None
        self.url = f"unix://{folder}/redis.sock" + (f"?password={password}" if password else "")

    def start(self) -> None:
        """Start an empty Redis, and wait until it accepts connections."""
        process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
             "--unixsocket", f"{self._folder}/redis.sock", "--dir", str(self._folder),
             "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "",
             "--loglevel", "notice", "--requirepass", self._password],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            output.append(line)
            if "eady to accept connections" in line:
                return
        raise AssertionError("redis-server ended:\n" + "".join(output))

    def stop(self) -> None:
        """End the process. Its data is lost."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdout is not None
            process.terminate()
            process.stdout.read()
            process.stdout.close()
            process.wait(20)


@contextmanager
def redis_server(password: str = "", tcp: bool = False) -> Iterator[RedisServer]:
    """Run a Redis.

    Args:
        password: Its password, or empty.
        tcp: Whether it listens at a port, too.
    """
    # in /tmp, because the path of a socket has to be short
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1] if tcp else 0
        server = RedisServer(Path(folder), password, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()
