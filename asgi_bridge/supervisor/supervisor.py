"""The supervisor: it owns the listening socket, accepts, and hands each connection to the worker that has fewest.

It keeps a descriptor of each connection. So a connection outlives its worker, unless the worker was busy with a call of
it. Workers are new processes, which import the plugins themselves: this one imports next to nothing.

uvicorn's own supervisor does not serve here. Its workers all accept on one socket: the gateway keeps its connections,
so the worker that accepts first keeps most of the work. It sees a process that hangs, but not an event loop that does.
And it loads all of uvicorn before it listens.
"""

import contextlib
import logging
import os
import select
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping
from types import FrameType
from typing import Any

from ..environment import load_environment
from ..errors import ConfigurationError
from ..streams import flush, open_streams, prompt_output
from ..succession.control import Handed
from ..succession.early import begin_without_thread
from ..succession.gateway_master import open_master
from ..succession.packets import CONNECTIONS, DONE
from ..succession.sockets import BACKLOG, DEFAULT_PERMISSIONS, RunnerSocket
from ..succession.succession import Succession
from ..succession.times import END_SECONDS, HANDOVER_SECONDS, SUCCESSOR_SECONDS, TICK_SECONDS
from .channel import Word
from .handle import State, WorkerHandle

__all__ = ["supervise"]

logger = logging.getLogger("asgi_bridge.server")

LOOK_SECONDS = 0.5
"""Seconds between two looks at the workers."""
HANG_LOOKS = 20
"""A worker is replaced if its event loop stands still for this many looks in a row (10 s)."""
SLOW_LOOKS = 2
"""A worker gets no new connections, while others do, if its event loop stands still for this many looks in a row."""
TURN_ACCEPTS = 32
"""Maximum number of connections accepted before the workers' messages are read again."""
RETIRE_SECONDS = 60.0
"""Seconds that a retiring worker gets for the calls that it has. Then it ends as at a SIGTERM."""
STOP_SECONDS = 0.55
"""The supervisor kills what still runs this many seconds after the grace period. With that of 0.3 s it makes 0.85 s:
APISIX sends SIGKILL after one second, and a worker's own watchdog acts after 0.75 s."""
KILL_SECONDS = END_SECONDS - 0.04
"""The same after SIGTERM where APISIX has started the runner, in seconds after the signal. A successor may come."""
KILL_ALONE_SECONDS = END_SECONDS - 0.1
"""The same where no successor has come."""
RETRY_SECONDS = (1.0, 30.0)
"""Seconds between two attempts to replace a worker whose plugins do not load: those after the first, and the maximum.
Each attempt doubles them."""
QUIET_SECONDS = 10.0
"""Seconds between two log lines about connections that cannot be accepted, at least."""
EXIT_CODE = 3
"""Exit code of a runner whose first worker ends without an error of its own before it serves."""


def supervise(
    payload: Mapping[str, Any],
    *,
    workers: int,
    uds: str | None,
    uds_permissions: int = DEFAULT_PERMISSIONS,
    timeout_graceful_shutdown: float,
    log_level: str | None = None,
    log_config: str | None = None,
    env_file: str | None = None,
) -> int:
    """Serve the gateway in worker processes, until a signal ends this process.

    Args:
        payload: What each worker is told, plain data. The private folder is added as ``"folder"``.
        workers: Number of workers.
        uds: Path of the unix socket; None: ``APISIX_LISTEN_ADDRESS``.
        uds_permissions: Mode of the socket file.
        timeout_graceful_shutdown: Seconds that running calls get to finish after a signal.
        log_level: Of this process's own lines; None: that of `log_config`.
        log_config: Path of a file, as uvicorn takes it; None: the runner's own format.
        env_file: Path of a file that is read into the environment first.

    Returns:
        The exit code. After SIGTERM the process ends by that signal instead.

    Raises:
        ConfigurationError: The socket cannot be taken, or an option's value cannot work.
    """
    open_streams()
    prompt_output()
    if env_file is not None:
        load_environment(env_file)
    _configure_logger(log_level)
    # before anything heavy is imported: a predecessor that APISIX ends waits for a sign of its successor
    succession = begin_without_thread(uds, uds_permissions)
    if log_config is not None:
        _configure_as_uvicorn(log_config, log_level)
    try:
        if succession.private.path is None:
            raise ConfigurationError(
                "workers share their tokens in a file, and no folder for it can be created: give the runner's user the "
                f"right to create {succession.path}.d, or run without --workers"
            )
        supervisor = Supervisor(succession, workers, timeout_graceful_shutdown, spawned=uds is None)
        code = supervisor.run({**payload, "folder": succession.private.path})
    finally:
        succession.close()
    flush()
    if code == -signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return max(0, code)


def _configure_logger(log_level: str | None) -> None:
    """Set up the logger of this process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(prefix)s%(message)s"))
    ours = logging.getLogger("asgi_bridge")
    ours.addHandler(handler)
    ours.propagate = False
    ours.setLevel((log_level or "info").upper())


def _configure_as_uvicorn(log_config: str, log_level: str | None) -> None:
    """Set up all loggers with a logging configuration of the operator's own. Only that needs uvicorn."""
    from ..server.process import runner_config

    ours = logging.getLogger("asgi_bridge")
    ours.handlers.clear()
    ours.propagate = True
    try:
        runner_config(log_config=log_config, log_level=log_level)
    except Exception as exc:
        raise ConfigurationError(f"logging cannot be set up with log_config {log_config!r}: {exc}") from None
    ours.disabled = logger.disabled = False


class _Formatter(logging.Formatter):
    """Lines as uvicorn's formatter makes them where the output is no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        record.prefix = f"{record.levelname}:".ljust(10)
        return super().format(record)


class Supervisor:
    """The workers and the socket.

    Args:
        succession: Our place among those that have the socket path. It has begun.
        workers: Number of workers.
        graceful: Seconds that running calls get to finish after a signal.
        spawned: True: the gateway may have started this process, and then it ends with the gateway's master.
    """

    def __init__(self, succession: Succession, workers: int, graceful: float, *, spawned: bool) -> None:
        self._succession = succession
        self._path = succession.path
        self._spawned = spawned
        self._watched: dict[int, int] = {}
        self._giving = False
        self._announced = False
        self._wanted = workers
        self._stop_seconds = graceful + STOP_SECONDS
        self._message: Mapping[str, Any] = {}
        # Both begin with a secret: see plugins/shared_numbers.py.
        self._shared = [os.memfd_create(f"asgi_bridge-{name}", 0) for name in ("numbers", "parked")]
        for memory in self._shared:
            os.write(memory, os.urandom(16))
        self._selector = selectors.DefaultSelector()
        self._workers: list[WorkerHandle] = []
        self._listening: RunnerSocket | None = None
        self._master: int | None = None
        self._accepting = False
        self._waiting: deque[tuple[socket.socket, bytes, int]] = deque()
        self._served = False
        self._code = 0
        # A replacement in progress: the old worker retires once the new one is ready. One at a time.
        self._worn: deque[WorkerHandle] = deque()
        self._old: WorkerHandle | None = None
        self._new: WorkerHandle | None = None
        self._retry_at, self._retry_seconds = 0.0, RETRY_SECONDS[0]
        self._signals: deque[int] = deque()
        self._stop_signal: int | None = None
        self._quiet_until = float("-inf")

    def run(self, message: Mapping[str, Any]) -> int:
        """Serve until a signal or a successor ends it, or the first worker fails.

        Args:
            message: What each worker is told.

        Returns:
            The exit code, or ``-signal.SIGTERM``.
        """
        self._message = message
        self._succession.closing = self._forget
        self._succession.callers.back = self._take_back
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            stack.enter_context(self._signals_wake())
            self._master = master = open_master(self._path) if self._spawned else None
            if master is not None:
                stack.callback(os.close, master)
                self._selector.register(master, selectors.EVENT_READ, self._lose_master)
            self._start()  # the others follow once it is ready: an error of the plugins is logged once
            next_look = time.monotonic() + LOOK_SECONDS
            while self._workers or self._owes():
                for key, _ in self._selector.select(TICK_SECONDS):
                    key.data()
                while self._signals:
                    self._handle(self._signals.popleft())
                self._turn()
                if time.monotonic() >= next_look:
                    self._look()
                    next_look = time.monotonic() + LOOK_SECONDS
        return self._code

    # signals

    @contextlib.contextmanager
    def _signals_wake(self) -> Any:
        """Collect signals, and let each wake the selector."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD)
        for sig in signals:
            signal.signal(sig, lambda sig, frame: self._signals.append(sig))
        signal.signal(signal.SIGALRM, self._give_up)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(4096))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.set_wakeup_fd(-1)
            self._selector.unregister(reader)
            reader.close()
            writer.close()

    def _handle(self, sig: int) -> None:
        match sig:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM if self._may_wait():
                self._succession.signalled = time.monotonic()
                self._code = -sig
                of_apisix = self._succession.of_apisix
                signal.setitimer(
                    signal.ITIMER_REAL, KILL_SECONDS if of_apisix else self._stop_seconds + HANDOVER_SECONDS
                )
            case signal.SIGTERM | signal.SIGINT:
                self._stop(sig)
            case signal.SIGHUP:
                logger.info("SIGHUP: the workers are replaced, one after the other")
                self._worn.extend(each for each in self._workers if each not in self._worn)
                self._replace()
            case signal.SIGTTIN:
                self._wanted += 1
                logger.info("SIGTTIN: %d workers", self._wanted)
                self._fill()
            case signal.SIGTTOU if self._wanted > 1:
                self._wanted -= 1
                logger.info("SIGTTOU: %d workers", self._wanted)
                ready = [each for each in self._workers if each.state is State.READY and each is not self._old]
                if len(ready) > self._wanted:
                    self._retire(ready[-1])

    def _give_up(self, sig: int, frame: FrameType | None) -> None:
        """Kill the workers that still run, and end. A signal calls this, also while this process waits in a write."""
        for worker in self._workers:
            worker.kill(signal.SIGKILL)
        for worker in self._workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
        self._succession.pass_on()
        self._succession.remove_path()
        self._succession.private.close()
        os._exit(128 + (self._stop_signal or signal.SIGTERM))

    def _lose_master(self) -> None:
        """Stop, because the gateway's master that has started this process has gone."""
        if self._stop_signal is None and self._master is not None:
            logger.warning("The gateway's process that started this runner has gone: the runner ends")
            self._selector.unregister(self._master)
            self._stop(signal.SIGTERM)

    def _stop(self, sig: int) -> None:
        """Stop accepting, and end the workers. A second SIGINT does not wait for calls."""
        if self._stop_signal is not None:
            if sig == signal.SIGINT:
                for worker in self._workers:
                    worker.tell(Word.HURRY)
            return
        self._stop_signal = sig
        self._code = -sig if sig == signal.SIGTERM else 0
        since = self._succession.signalled
        if since is None:
            signal.setitimer(signal.ITIMER_REAL, self._stop_seconds)
        elif self._succession.of_apisix and not self._giving:
            left = since + KILL_ALONE_SECONDS - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left))
        if not self._giving:
            self._take_backlog()
        for worker in self._workers:
            if self._succession.signalled is not None and self._succession.of_apisix:
                worker.tell(Word.SHORTEN)
            worker.kill(signal.SIGTERM)

    def _take_backlog(self) -> None:
        """Hand the connections of the backlog to the workers: the end of the process would cut them off."""
        self._succession.remove_path()
        if self._listening is not None:
            self._accept(BACKLOG + 1)
            self._pause()
            self._listening.sock.close()
        self._adopt()
        self._hand_out_waiting()
        while self._waiting:
            self._waiting.popleft()[0].close()

    def _close(self) -> None:
        if self._listening is not None:
            self._listening.sock.close()
        while self._waiting:
            self._waiting.popleft()[0].close()
        for descriptor in list(self._watched):
            self._forget(descriptor)
        self._selector.close()
        for memory in self._shared:
            os.close(memory)

    # predecessor and successor

    def _turn(self) -> None:
        """Do what predecessor and successor wait for."""
        succession = self._succession
        succession.step()
        serves = self._served and self._stop_signal is None and not self._giving
        if serves and succession.listening is None:
            succession.replace_silent()
        wanted = succession.wanted()
        for descriptor in [each for each in self._watched if each not in wanted]:
            self._forget(descriptor)
        for descriptor, events in wanted.items():
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if events & select.POLLOUT else 0)
            if descriptor not in self._watched:
                self._selector.register(descriptor, mask, lambda: None)
            elif self._watched[descriptor] != mask:
                self._selector.modify(descriptor, mask, lambda: None)
            self._watched[descriptor] = mask
        if self._stop_signal is None and not self._giving:
            self._listen()
        self._adopt()
        self._decide(time.monotonic())

    def _forget(self, descriptor: int) -> None:
        """Watch a descriptor no more, because it is about to be closed."""
        if self._watched.pop(descriptor, 0):
            self._selector.unregister(descriptor)

    def _listen(self) -> None:
        """Accept on the socket of the path. It is another one if somebody has removed the first."""
        listening = self._succession.listening
        if listening is not self._listening:
            self._pause()
            if self._listening is not None:
                self._listening.sock.close()
            self._listening = listening
        self._resume()
        if listening is not None and self._served and not self._announced:
            self._announced = True
            logger.info(
                "Runner listens on unix socket %s, with %d workers (Press CTRL+C to quit). What plugins keep in "
                "memory, each worker has for itself; limit-req counts for all together",
                self._path,
                self._wanted,
            )

    def _adopt(self) -> None:
        """Serve the connections that have come from the predecessor."""
        if self._giving or self._ready():
            connections, self._succession.connections = self._succession.connections, []
            for descriptor, unread in connections:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                self._hand_out(sock, unread)

    def _may_wait(self) -> bool:
        """Whether a successor is there or expected, so that SIGTERM does not end the workers at once."""
        succession = self._succession
        is_first = self._stop_signal is None and succession.signalled is None
        return is_first and (succession.successor is not None or succession.of_apisix)

    def _decide(self, now: float) -> None:
        """Hand over or end, if it is time for that."""
        succession = self._succession
        since = succession.signalled
        if self._stop_signal is not None or (since is None and not succession.is_wanted):
            return
        is_time = since is not None and now >= since + HANDOVER_SECONDS
        if self._giving:
            if is_time:
                self._stop(signal.SIGTERM)
        elif self._listening is None or not self._served:
            if since is not None:
                succession.end_early()  # it ends the process, and with it the workers
        elif succession.successor is not None:
            if succession.is_wanted or is_time:
                self._give()
        elif since is not None and now >= since + (SUCCESSOR_SECONDS if succession.of_apisix else 0.0):
            self._stop(signal.SIGTERM)

    def _give(self) -> None:
        """Hand over to the successor: the listening socket, and each connection when its worker gives it back."""
        self._giving = self._succession.is_over = True
        logger.info("The successor takes over %s", self._path)
        self._pause()
        self._succession.send_listener()
        self._old = self._new = None
        self._worn.clear()
        for worker in self._workers:
            if worker.state is State.READY:
                self._retire(worker)
            elif worker.state is State.LOADING:
                worker.kill(signal.SIGTERM)
        self._hand_out_waiting()

    def _take_back(self, handed: list[Handed]) -> None:
        """Go on with what a dead successor has not acknowledged, in new workers."""
        if not self._giving:
            return
        self._giving = self._succession.is_over = False
        for descriptor, unread in handed:
            self._waiting.append((socket.socket(fileno=descriptor), unread, 0))
        self._fill()

    def _owes(self) -> bool:
        """Whether the successor has not got all yet. At the end it is told that there is no more."""
        successor = self._succession.successor
        if not self._giving or successor is None or successor.ended:
            return False
        if not successor.settled:
            return True
        successor.send(DONE)
        return False

    # connections

    def _accept_some(self) -> None:
        self._accept(TURN_ACCEPTS)

    def _accept(self, most: int) -> None:
        if self._listening is None:
            return
        for _ in range(most):
            try:
                sock, _ = self._listening.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._pause()  # until the next look
                if time.monotonic() >= self._quiet_until:
                    self._quiet_until = time.monotonic() + QUIET_SECONDS
                    logger.error(
                        "No more connections can be accepted (%s); they wait. Is the limit of open files (ulimit -n) "
                        "too low?",
                        exc.strerror,
                    )
                return
            sock.setblocking(False)
            self._hand_out(sock)

    def _resume(self) -> None:
        """Accept, if a worker is ready. Until then connections wait in the backlog."""
        if self._listening is None or self._accepting or self._giving or self._stop_signal is not None:
            return
        if not self._ready():
            return
        self._selector.register(self._listening.sock, selectors.EVENT_READ, self._accept_some)
        self._accepting = True

    def _pause(self) -> None:
        if self._accepting and self._listening is not None:
            self._selector.unregister(self._listening.sock)
            self._accepting = False

    def _ready(self) -> list[WorkerHandle]:
        return [each for each in self._workers if each.state is State.READY]

    def _hand_out(self, sock: socket.socket, call: bytes = b"", process: int = 0) -> None:
        """Hand a connection to the worker that has fewest. If none can take it, it waits.

        Args:
            sock: The connection.
            call: The call that it is in; empty: it is in none.
            process: The worker that the call is for, if it still runs; 0: any.
        """
        wanted = [each for each in self._workers if each.pid == process and each.state is not State.LOADING]
        successor = self._succession.successor
        if self._giving and successor is not None and not wanted:
            successor.send(CONNECTIONS, b"", [Handed(sock.detach(), call)])
            return
        ready = sorted(self._ready(), key=lambda each: (each.stalled >= SLOW_LOOKS, len(each.connections)))
        for worker in wanted or ready:
            if worker.take(sock, call):
                return
        self._waiting.append((sock, call, process))

    def _hand_out_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            self._hand_out(*self._waiting.popleft())

    def _balance(self, slack: float) -> None:
        """Let each worker that has more connections than its share, by `slack` of it, give the excess back."""
        ready = self._ready()
        if len(ready) < 2 or self._giving or self._stop_signal is not None:
            return
        share = -(-sum(len(each.connections) for each in ready) // len(ready))
        for worker in ready:
            excess = len(worker.connections) - len(worker.recalled) - share
            if excess > slack * share:
                worker.recall(excess)

    # workers

    def _start(self) -> WorkerHandle:
        worker = WorkerHandle(self._message, self._shared)
        self._workers.append(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, lambda: self._read(worker))
        return worker

    def _fill(self) -> None:
        """Start the workers that are missing."""
        if not self._served or self._stop_signal is not None or self._giving or time.monotonic() < self._retry_at:
            return
        active = sum(each.state is not State.RETIRING for each in self._workers)
        if self._old is not None and self._new is not None:
            active -= 1  # the new one takes the place of the old one
        for _ in range(self._wanted - active):
            self._start()

    def _read(self, worker: WorkerHandle) -> None:
        """Handle all messages of a worker."""
        while (message := worker.next_message()) is not None:
            word, slot, data = message
            if word is Word.READY:
                self._greet(worker)
            elif word is Word.WORN:
                if worker not in self._worn:
                    self._worn.append(worker)
                self._replace()
            elif slot in worker.connections:
                asked = worker.state is State.RETIRING or slot in worker.recalled
                sock = worker.give_up(slot)
                if word is Word.MOVED:
                    self._hand_out(sock, data[4:], int.from_bytes(data[:4], "little"))
                elif word is Word.CLOSED or (self._stop_signal is not None and not self._giving):
                    sock.close()
                elif asked:
                    self._hand_out(sock)
                else:  # it has no descriptor free
                    self._waiting.append((sock, b"", 0))

    def _greet(self, worker: WorkerHandle) -> None:
        """Give a worker that is ready its share."""
        if self._stop_signal is not None or self._giving:
            return
        worker.state = State.READY
        worker.look()
        self._retry_at, self._retry_seconds = 0.0, RETRY_SECONDS[0]
        logger.info("Worker %d takes calls", worker.pid)
        if not self._served:
            self._served = True
            self._succession.say_ready()
        self._listen()
        if worker is self._new:
            old, self._new = self._old, None
            if old is not None:
                self._retire(old)
        self._replace()
        self._fill()
        self._hand_out_waiting()
        self._balance(0.0)

    def _replace(self) -> None:
        """Replace the next worker that is to be replaced, unless one is being replaced."""
        while not (self._old or self._new or self._giving) and self._worn and self._stop_signal is None:
            worker = self._worn.popleft()
            if worker in self._workers and worker.state is State.READY:
                self._old, self._new = worker, self._start()

    def _retire(self, worker: WorkerHandle) -> None:
        """Let a worker give its connections back, and end."""
        worker.state = State.RETIRING
        worker.retire_by = time.monotonic() + RETIRE_SECONDS
        if not worker.tell(Word.RETIRE):
            worker.retire_by = 0.0

    def _reap(self) -> None:
        for worker in list(self._workers):
            code = worker.ended()
            if code is not None:
                self._bury(worker, code)

    def _bury(self, worker: WorkerHandle, code: int) -> None:
        """Hand out the connections that a dead worker was not busy with, close the others, and replace the worker."""
        self._read(worker)  # what it said last
        self._selector.unregister(worker.channel)
        worker.channel.close()
        self._workers.remove(worker)
        idle, busy = [], 0
        for slot in list(worker.connections):
            is_busy = worker.is_busy(slot)
            sock = worker.give_up(slot)
            if is_busy or (self._stop_signal is not None and not self._giving):
                busy += 1
                sock.close()
            else:
                idle.append(sock)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if not self._ready():
            self._pause()
        for sock in idle:
            self._hand_out(sock)
        if self._stop_signal is not None or (self._giving and worker.state is State.LOADING):
            return
        if worker.state is State.LOADING:
            self._mourn_loading(worker, code, how)
        elif worker.state is State.READY:
            logger.error("Worker %d ended %s, with %d calls in flight; it is replaced", worker.pid, how, busy)
        elif busy:
            logger.error("Worker %d retired %s, and cut %d calls off", worker.pid, how, busy)
        if worker is self._old:
            self._old = None
            self._replace()
        self._fill()

    def _mourn_loading(self, worker: WorkerHandle, code: int, how: str) -> None:
        """Say what becomes of the runner if a worker's plugins do not load."""
        if not self._served:
            self._code = code if code > 0 else EXIT_CODE
            logger.error("The first worker ended %s before it served; the runner ends", how)
        elif worker is self._new:
            self._old = self._new = None
            self._worn.clear()
            logger.error("The new worker %d ended %s before it served; the present workers stay", worker.pid, how)
        else:
            self._retry_at = time.monotonic() + self._retry_seconds
            logger.error(
                "Worker %d ended %s before it served; the next attempt is in %g s", worker.pid, how, self._retry_seconds
            )
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS[1])

    def _look(self) -> None:
        """Replace workers that hang, and do what could not be done at once."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.state is State.LOADING:
                continue
            worker.look()
            if worker.stalled >= HANG_LOOKS:
                logger.error(
                    "Worker %d: its event loop has not turned for %g s; it is replaced",
                    worker.pid,
                    worker.stalled * LOOK_SECONDS,
                )
                worker.kill(signal.SIGKILL)
            elif now >= worker.retire_by:
                worker.retire_by = float("inf")
                worker.kill(signal.SIGTERM)
        self._reap()
        self._resume()
        self._hand_out_waiting()
        self._fill()
        self._balance(0.25)
