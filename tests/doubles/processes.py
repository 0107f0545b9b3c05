"""Runners in processes of their own."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .connection import Connection
from .waiting import SECONDS, until

__all__ = ["BIN", "Runner"]

PATIENT = "import asgi_bridge.server.process as s; s.WATCHDOG_SECONDS = {}; from asgi_bridge.cli import main; main()"
BIN = str(Path(sys.executable).with_name("asgi-bridge"))


class Runner:
    """``asgi-bridge run`` of a bridge.

    Args:
        path: of the socket, None: not given on the command line.
        arguments: further ones.
        target: what to run.
        command: in place of ``asgi-bridge run`` and all arguments.
        watchdog: seconds that its watchdog waits after the grace period, in place of its own: on a busy machine those
            may be over before the runner has done what it would have had time for.
        kwargs: subprocess.Popen's.
    """

    def __init__(
        self,
        path: str | None,
        *arguments: str,
        target: str | None = None,
        app_dir: str = ".",
        command: Sequence[str] | None = None,
        watchdog: float | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.path = path
        if command is None:
            started = [BIN] if watchdog is None else [sys.executable, "-c", PATIENT.format(watchdog)]
            command = [*started, "run", *([target] if target else []), "--app-dir", app_dir]
            command += ["--uds", path] if path else []
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115  # open as long as the process runs
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
            **{"stderr": self._log, **kwargs},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    def logged(self, text: str) -> None:
        """Waits until the log holds `text`."""

        def found() -> bool:
            return text in self.log or self.process.poll() is not None

        until(found)
        assert text in self.log, self.log

    def connect(self) -> Connection:
        """A connection, as soon as there is somebody to take it."""
        assert self.path is not None
        until(lambda: os.path.exists(self.path or "") or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return Connection(self.path, patient=True)

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Sends `sig`, and waits for the process's end."""
        self.process.send_signal(sig)
        self.wait()

    def rss(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def left(self) -> bool:
        """Whether a process of its session is left."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        """Kills what is left; the test's last deed."""
        if self.left():
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
