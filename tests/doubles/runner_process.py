"""A real runner: ``asgi-bridge run`` in a process of its own, on a unix socket, with what it logs."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .connection import Connection
from .waiting import SECONDS, until

__all__ = ["BIN", "RunnerProcess", "runner_process", "serving_alone"]

BIN = str(Path(sys.executable).with_name("asgi-bridge"))
"""Path of the command."""

PATIENT = """
import asgi_bridge.supervisor.handle as handle, asgi_bridge.supervisor.supervisor as supervisor
import asgi_bridge.server.process
asgi_bridge.server.process.WATCHDOG_SECONDS = {0}
supervisor.STOP_SECONDS = {0} + 0.1
handle.ENTRY = "import asgi_bridge.server.process as s; s.WATCHDOG_SECONDS = {0}; " + handle.ENTRY
from asgi_bridge.cli import main
main()
"""
"""The command as Python code, with other seconds of the watchdog, in the worker too."""


ALONE = """
import asgi_bridge.supervisor.run

def alone(said, **options):
    from asgi_bridge.loading import make_source
    from asgi_bridge.server.serve import serve
    serve(make_source(**said["source"]), **said["options"])

asgi_bridge.supervisor.run.supervise = alone
"""


def serving_alone(code: str = "from asgi_bridge.cli import main\nmain()\n") -> str:
    """Let a command serve in its own process, as `Bridge.run` does.

    Args:
        code: Python code that changes what it likes, and then imports and runs the command.
    """
    changes, _, command = code.replace("asgi_bridge.__main__", "asgi_bridge.cli").rpartition("from asgi_bridge.cli ")
    return f"{changes}{ALONE}from asgi_bridge.cli {command}"


class RunnerProcess:
    """A process of ``asgi-bridge run``, in a session of its own.

    Args:
        path: path of the socket. None: the command line names no socket.
        arguments: further arguments of the command line.
        target: the bridge to run, as ``module:attribute``. None: the command line names no bridge.
        app_dir: folder of that module.
        command: a whole command, in place of ``asgi-bridge run`` with target, folder and socket.
        watchdog: seconds that the watchdog waits after the grace period. On a busy machine its own seconds may be over
            before the runner has done what it would have had time for.
        alone: the process serves by itself, without a supervisor.
        env: all environment variables. None: those of this process.
        kwargs: further arguments of `subprocess.Popen`.
    """

    def __init__(
        self,
        path: str | None,
        *arguments: str,
        target: str | None = None,
        app_dir: str = ".",
        command: Sequence[str] | None = None,
        watchdog: float | None = None,
        alone: bool = False,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._path = path
        if command is None:
            code = None if watchdog is None else PATIENT.format(watchdog)
            if alone:
                code = serving_alone(code) if code else serving_alone()
            started = [BIN] if code is None else [sys.executable, "-c", code]
            command = [*started, "run", *([target] if target else []), "--app-dir", app_dir]
            command += ["--uds", path] if path else []
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115  # open as long as the process runs
        self._awaited = 0
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
            **{"stderr": self._log, **kwargs},
        )

    @property
    def path(self) -> str:
        """Path of the socket."""
        assert self._path is not None, "the command line names no socket"
        return self._path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that the process has written to stderr so far."""
        return Path(self._log.name).read_text()

    def logged(self, text: str) -> None:
        """Wait until the log holds `text`.

        Raises:
            AssertionError: the process has ended without it, or nothing came in time.
        """
        until(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def line_with(self, text: str) -> str:
        """Wait for the next line of the log that holds `text`: one behind the line that the last call returned.

        Raises:
            AssertionError: the process has ended without it, or nothing came in time.
        """
        while True:
            ended = self.process.poll() is not None
            lines = self.log.split("\n")[:-1]
            for number, line in enumerate(lines[self._awaited :], self._awaited + 1):
                if text in line:
                    self._awaited = number
                    return line
            assert not ended, f"the runner ended without {text!r}:\n{self.log}"
            known = len(lines)
            until(lambda known=known: self.log.count("\n") > known or self.process.poll() is not None)  # type: ignore[misc]

    def connect(self) -> Connection:
        """Connect as soon as the process listens."""
        until(lambda: os.path.exists(self.path) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return Connection(self.path, patient=True)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        return self.process.wait(SECONDS)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Send the signal `sig`, and wait for the end of the process."""
        self.process.send_signal(sig)
        self.wait()

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def worker(self) -> int:
        """Process id of its only worker."""
        (worker,) = self.workers
        return worker

    def rss(self) -> int:
        """Return the resident memory of its only worker, in bytes."""
        return int(Path(f"/proc/{self.worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def descriptors(self) -> int:
        """Return the number of open files of its supervisor and its workers."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (self.pid, *self.workers))

    def left(self) -> bool:
        """Return whether a process of its session still runs."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        """Kill what still runs, and close the log. Nothing of this object works afterwards."""
        if self.left():
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def runner_process(folder: Path, source: str, *options: str) -> Iterator[RunnerProcess]:
    """Run the ``bridge`` of a module that is written for it, and stop the process afterwards.

    Args:
        folder: where module and socket are put.
        source: text of the module.
        options: further arguments of the command line.
    """
    (folder / "plugins_of_test.py").write_text(source)
    runner = RunnerProcess(str(folder / "runner.sock"), *options, target="plugins_of_test:bridge", app_dir=str(folder))
    try:
        runner.line_with("Runner listens on")
        yield runner
        runner.stop()
    finally:
        runner.end()
