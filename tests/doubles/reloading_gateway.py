"""A gateway that starts its runner, reloads, and calls without a pause, as APISIX 3.18 does.

At a reload (HUP) APISIX starts the new runner, and sends SIGTERM to the old one at the same moment. One second later it
sends SIGKILL. The new nginx workers connect afresh. Between reloads a worker takes a pooled connection without looking
whether the runner has closed it. The client gets a 503 if that fails, and also if connecting fails.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from asgi_bridge.wire import ErrResp

from .connection import NOT_FOUND, Connection, body_of
from .runner_process import RunnerProcess, serving_alone
from .waiting import until

__all__ = ["KILL_SECONDS", "ReloadingGateway"]

KILL_SECONDS = 1.0
"""Seconds between SIGTERM and SIGKILL."""
TRIES = 3
"""How often APISIX calls when the runner does not know its token."""

SLOWLY = """
import asgi_bridge.succession.times as times
for name in ("SUCCESSOR_SECONDS", "HANDOVER_SECONDS", "END_SECONDS"):
    setattr(times, name, getattr(times, name) * {0})
from asgi_bridge.__main__ import main
main()
"""
"""The command as Python code, on a machine that is so many times slower."""


class ReloadingGateway:
    """Starts runners, and calls them on threads. Leave its context to end all of it.

    Args:
        path: path of the socket.
        target: what to run, as ``module:attribute``. Its plugin ``pid`` responds with the number of its process.
        app_dir: folder of that module.
        callers: number of threads that call.
        pause: seconds between two calls of a thread.
        slowness: multiplies the times of the gateway, and those that the runner has because of them.
        options: further options of the runners.
        alone: the runners serve by themselves, without a supervisor.

    Attributes:
        runner: the present runner.
        calls: number of calls that were answered.
        lost: what clients would have got a 503 for.
        longest: longest time of a call, in seconds.
        answered_by: number of calls that each process has answered.
    """

    def __init__(
        self,
        path: str,
        target: str,
        app_dir: str,
        *,
        callers: int = 8,
        pause: float = 0.001,
        slowness: float = 1.0,
        options: Sequence[str] = (),
        alone: bool = False,
    ) -> None:
        self.path = path
        self.calls = 0
        self.lost: list[str] = []
        self.longest = 0.0
        self.answered_by: Counter[int] = Counter()
        self._target = target
        self._app_dir = app_dir
        self._slowness = slowness
        self._options = options
        self._code = SLOWLY.format(slowness)
        if alone:  # what serves alone begins by itself
            self._code = serving_alone(self._code)
        self._pause = pause
        self._pools = 0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._runners: list[RunnerProcess] = []
        self._killers: list[threading.Timer] = []
        self._threads = [threading.Thread(target=self._call_on) for _ in range(callers)]
        self.runner = self.start()

    def __enter__(self) -> "ReloadingGateway":
        self.runner.connect().close()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        for killer in self._killers:
            killer.cancel()
        for runner in self._runners:
            runner.end()

    def start(self, target: str | None = None) -> RunnerProcess:
        """Start a runner, as APISIX does."""
        runner = RunnerProcess(
            self.path,
            target or self._target,
            "--app-dir",
            self._app_dir,
            *self._options,
            command=[sys.executable, "-c", self._code, "run"],
            env={"PATH": os.environ["PATH"], "APISIX_LISTEN_ADDRESS": f"unix:{self.path}"},
        )
        self._runners.append(runner)
        return runner

    def reload(self, target: str | None = None) -> RunnerProcess:
        """Reload. Returns the old runner; it is killed if it does not end."""
        old, self.runner = self.runner, self.start(target)
        self.end(old)
        self._pools += 1
        return old

    def end(self, runner: RunnerProcess) -> None:
        """Send SIGTERM to a runner, and SIGKILL later."""
        with contextlib.suppress(ProcessLookupError):
            runner.process.send_signal(signal.SIGTERM)
        killer = threading.Timer(KILL_SECONDS * self._slowness, runner.process.kill)
        killer.daemon = True
        killer.start()
        self._killers.append(killer)

    def take_over(self) -> RunnerProcess:
        """Start a second runner on the path of the first. Returns the first, when it has ended."""
        old, self.runner = self.runner, self.start()
        assert old.wait() == 0, old.log
        return old

    def await_calls(self, number: int, runner: RunnerProcess | None = None) -> None:
        """Wait for so many more calls, answered by one runner, or by any."""

        def count() -> int:
            return self.calls if runner is None else self.answered_by[runner.pid]

        end = count() + number
        until(lambda: count() >= end)

    def logs(self) -> str:
        """Return what all runners have logged, for a test that fails."""
        return "\n".join(f"--- {each.pid}, {each.process.poll()}\n{each.log}" for each in self._runners)

    def _call_on(self) -> None:
        connection: Connection | None = None
        token, pool = 0, self._pools
        while not self._done.is_set():
            if pool != self._pools and connection is not None:  # another worker has the place of this one
                connection.close()
                connection = None
            pool = self._pools
            begin = time.monotonic()
            try:
                if connection is None:
                    connection = Connection(self.path)
                for _ in range(TRIES):
                    token = token or connection.token("pid")
                    answer = connection.call(token)
                    if answer != NOT_FOUND:
                        break
                    token = 0
                if answer is None or isinstance(answer, ErrResp):
                    raise ConnectionError(f"{answer}")
            except (OSError, AssertionError) as exc:
                self.lost.append(f"{exc!r}")
                if connection is not None:
                    connection.close()
                connection = None
            else:
                with self._lock:
                    self.calls += 1
                    self.longest = max(self.longest, time.monotonic() - begin)
                    self.answered_by[int(body_of(answer))] += 1
            time.sleep(self._pause)
        if connection is not None:
            connection.close()
