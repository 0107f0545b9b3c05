"""The runner's process: all that knows uvicorn's configuration, server and reloader.

uvicorn serves with our protocol class, on a socket of ours, and has to end within the second that APISIX leaves. Beside
this module, `protocol` knows what uvicorn expects of a protocol class, and `output` knows its logging configuration.
"""

import asyncio
import contextlib
import functools
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import uvicorn

from ..compiled import core_in_use
from ..errors import BridgeError
from ..streams import flush, prompt_output
from ..succession.early import Watch
from ..tracebacks import shorten
from .accept import Acceptor
from .handover import Handover
from .output import configure_loggers, last_words
from .protocol import RunnerProtocol, runner_of
from .reloader import watching_reloader
from .runner import Runner
from .state import RunnerState

__all__ = ["GRACEFUL_SECONDS", "RunnerServer", "run_reloading", "runner_config"]

logger = logging.getLogger("asgi_bridge.server")

GRACEFUL_SECONDS = 0.3
"""Seconds that running calls get to finish after SIGTERM."""
WATCHDOG_SECONDS = 0.45
"""Hard exit this many seconds after the grace period, even if a thread blocks. With GRACEFUL_SECONDS it makes 0.75 s;
APISIX sends SIGKILL after one second."""
LAST_WORDS_SECONDS = 0.03
"""Seconds that the watchdog spends at most on its log line and on buffered output before the hard exit."""


def runner_config(app: Callable[[], Runner] | str = "", *, log_config: Any = None, **options: Any) -> uvicorn.Config:
    """Make uvicorn's configuration for a runner.

    Args:
        app: Function that makes the runner, called in the process that serves. Whoever leaves it out sets
            ``config.app`` before the server starts.
        log_config: As uvicorn takes it; None: the logging of the process stays as it is.
        options: Further ones of ``uvicorn.Config``, such as ``loop``, ``reload`` and ``timeout_graceful_shutdown``.

    Raises:
        Exception: uvicorn cannot work with the options.
    """
    return uvicorn.Config(
        app,
        factory=True,
        http=RunnerProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        workers=1,
        log_config=log_config,
        **options,
    )


class RunnerServer(uvicorn.Server):
    """uvicorn's server, with acceptors of our own and a bound on how long stopping takes.

    Args:
        config: What `runner_config` makes.
        path: Of the socket, for the log.
        finally_: Called once nothing runs any more, or right before the hard exit.
        seconds: Hard exit this many seconds after a signal, whatever blocks the process; None: WATCHDOG_SECONDS after
            the grace period of `config`.
        master: What `open_master` returns: the server stops when it becomes readable.
        watch: Where the sockets come from and go to; None: :meth:`run` gets the socket, and keeps it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        path: str,
        *,
        finally_: Callable[[], None] = lambda: None,
        seconds: float | None = None,
        master: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(config)
        self.server_state = RunnerState()
        self._master = master
        self.handover = None if watch is None else Handover(watch, self)
        self._finally = finally_
        self._seconds = _hard_exit_seconds(config) if seconds is None else seconds
        self._path = path
        # A signal handler wakes the watchdog through this queue. Only SimpleQueue.put() is safe there: starting a
        # thread in a signal handler could wait for ever for a lock that the interrupted code holds.
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._capturing = False

    def run(self, sockets: Any = None) -> None:
        """Serve until a signal, or ``should_exit``, ends it.

        A KeyboardInterrupt or SystemExit in any task or callback stops an event loop. Plugins may start tasks, but no
        plugin may end the runner. So the loop is started again, unless the exception comes out of uvicorn's own task.
        While uvicorn captures signals, these raise nothing.

        Args:
            sockets: A list of the listening sockets.
        """
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        runner = asyncio.Runner(loop_factory=self.config.get_loop_factory())
        try:
            loop = runner.get_loop()
            serving = loop.create_task(self.serve(sockets))
            while not serving.done():
                try:
                    loop.run_until_complete(serving)
                except (KeyboardInterrupt, SystemExit) as exc:
                    if serving.done() or not self._capturing:
                        raise
                    logger.error("A task or callback of a plugin raised %r; the runner goes on", exc, exc_info=exc)
        finally:
            with contextlib.suppress(KeyboardInterrupt, SystemExit):  # raised by a task that close() cancels
                runner.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals as uvicorn does, and write what the process buffers before it raises a signal again."""
        if threading.current_thread() is threading.main_thread():
            # uvicorn raises the signal again after it has restored the handlers: not ours of the start, then
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with super().capture_signals():
            self._capturing = True
            try:
                yield
            finally:
                self._capturing = False
                # uvicorn raises the signal again now. SIGTERM then ends the process, and Python would drop what it
                # still buffers.
                flush()

    def release(self) -> None:
        """End the watchdog's thread. Call it where the process goes on after the server."""
        self._signals.put(None)

    async def startup(self, sockets: Any = None) -> None:
        """Start as uvicorn does, but accept connections with our `Acceptor`."""
        await super().startup(sockets=[])
        if self.handover is not None:
            await self.handover.obtain(runner_of(self.config))
            self._log_path()
        else:
            self.accept(sockets)
        if self._master is not None:
            asyncio.get_running_loop().add_reader(self._master, self._lose_master)

    def accept(self, sockets: Any) -> None:
        """Accept connections from now on.

        Args:
            sockets: A list of the listening sockets.
        """
        for sock in sockets:
            self.make_acceptor(sock)
        self._log_path()

    def _log_path(self) -> None:
        logger.info("Core: %s", core_in_use())
        logger.info("Runner listens on unix socket %s (Press CTRL+C to quit)", self._path)

    def _lose_master(self) -> None:
        assert self._master is not None
        asyncio.get_running_loop().remove_reader(self._master)
        logger.warning("The gateway's process that started this runner has gone: the runner ends")
        self.handle_exit(signal.SIGTERM, None)

    def _protocol(self) -> RunnerProtocol:
        config = self.config
        protocol = RunnerProtocol
        if runner_of(config).recording is not None:
            from .recording_protocol import RecordingProtocol as protocol  # few runners record anything
        return protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None)

    def make_acceptor(self, sock: socket.socket) -> Acceptor:
        """Accept connections on a listening socket, until the server stops."""
        acceptor = Acceptor(sock, self._protocol)
        self.servers.append(acceptor)  # type: ignore[arg-type]
        return acceptor

    def connections(self) -> list[RunnerProtocol]:
        """Return the connections that are served."""
        return list(self.server_state.connections)  # type: ignore[arg-type]

    def is_ending(self) -> bool:
        """Whether the server shuts down, or is about to."""
        return self.should_exit

    def end(self, sig: int | None, frame: FrameType | None, graceful: float | None) -> None:
        """Shut down.

        Args:
            sig: The signal that wants it; None: there is nothing left to do.
            frame: As signal handlers get it.
            graceful: Maximum grace period, in seconds; None: that of the configuration.
        """
        if graceful is not None:
            self.config.timeout_graceful_shutdown = min(graceful, self.config.timeout_graceful_shutdown or 0)  # type: ignore[assignment]
        if sig is None:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop as uvicorn does, and tell the runner and the owner of the socket."""
        if self.handover is not None:
            self.handover.leave()
        runner_of(self.config).stopping = True
        await super().shutdown(sockets)
        if self.handover is not None:
            await self.handover.finish()
        self._finally()  # here, because uvicorn raises the signal again afterwards: no later line may be reached

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal as uvicorn does, and start the watchdog's clock."""
        self._signals.put(sig)
        if self.handover is None or not self.handover.defer(sig, frame):
            super().handle_exit(sig, frame)

    def _watch(self) -> None:
        """The watchdog's thread. It works where the event loop is blocked, or the interpreter waits for threads."""
        sig = self._signals.get()
        seconds = self._seconds
        if self.handover is not None and sig == signal.SIGTERM:
            seconds = self.handover.hard_exit_seconds(seconds)
        end = time.monotonic() + seconds
        while sig is not None:
            try:
                if self._signals.get(timeout=max(0.0, end - time.monotonic())) is None:
                    return
            except queue.Empty:
                self._give_up(sig)

    def _give_up(self, sig: int) -> None:
        if self.handover is not None:
            self.handover.leave_at_once()
        last_words(LAST_WORDS_SECONDS)
        self._finally()
        os._exit(128 + sig)


def _hard_exit_seconds(config: uvicorn.Config) -> float:
    return (config.timeout_graceful_shutdown or 0.0) + WATCHDOG_SECONDS


def run_reloading(config: uvicorn.Config, path: str, sock: socket.socket) -> None:
    """Serve in a child process, with a new one for each change of a Python file, until a signal ends this process.

    The caller owns the socket's path and the private folder. A child touches neither.

    Args:
        config: What `runner_config` makes, with ``reload=True``.
        path: Of the socket, for the log.
        sock: The listening socket.
    """
    target = functools.partial(_serve_reloaded, config, path, _hard_exit_seconds(config))
    watching_reloader(config, target, [sock]).run()


def _serve_reloaded(config: uvicorn.Config, path: str, seconds: float, sockets: Any) -> None:
    """Serve in the child process. If the plugins cannot be loaded, refuse calls until the reloader ends the child."""
    prompt_output()
    configure_loggers(config.log_config, config.log_level)
    server = RunnerServer(config, path, seconds=seconds)
    try:
        server.run(sockets=sockets)
    except BridgeError as exc:
        logger.error("%s", exc, exc_info=shorten(exc.__cause__))
    except Exception:
        logger.exception("The plugins cannot be loaded")
    except SystemExit:
        pass  # uvicorn has logged why
    if not server.started:
        logger.error("Calls are refused until the next change")
        _refuse(sockets[0])


def _refuse(sock: socket.socket) -> None:
    """Close each new connection at once, until a signal ends the process.

    APISIX then gets an error at once. Left in the backlog, a call would wait for a minute.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while selector.select():
            with contextlib.suppress(OSError):
                sock.accept()[0].close()
