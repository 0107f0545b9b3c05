"""What a runner does while it imports its plugins: a thread receives, passes on and heeds SIGTERM.

At a reload the owner has got SIGTERM, and waits for a sign of its successor. So a runner that APISIX has started begins
before it even reads its command line.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType

from ..errors import BridgeError, ConfigurationError
from ..streams import open_streams
from .sockets import DEFAULT_PERMISSIONS, socket_path
from .succession import Succession
from .times import TICK_SECONDS

__all__ = ["Watch", "begin_at_once", "begin_without_thread", "show_early_lines"]

logger = logging.getLogger("asgi_bridge.server")

_SLOW_OPTIONS = {"--uds", "--uds-permissions", "--reload", "--help", "-h"}
"""Options of ``run`` that are read before anything begins. APISIX's ``ext-plugin.cmd`` has none of them."""
_SLOW_VARIABLES = ("ASGI_BRIDGE_RUN_UDS", "ASGI_BRIDGE_RUN_UDS_PERMISSIONS", "ASGI_BRIDGE_RUN_RELOAD")
"""Environment variables that click takes for these options."""


class Watch:
    """The thread.

    Args:
        succession: The runner's place in the line. It is the thread's until :meth:`stop`.
    """

    def __init__(self, succession: Succession) -> None:
        self.succession = succession
        self._thread: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._is_stopped = False

    def begin(self) -> None:
        """Handle SIGTERM, say HELLO to the owner of the path or listen, and start the thread.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        self.begin_without_thread()
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="succession", daemon=True)
        self._thread.start()

    def begin_without_thread(self) -> None:
        """Do the same without the thread, in a process that soon sees to all of it itself."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)  # connections may wait for this process from now on
        self.succession.begin()

    def stop(self) -> None:
        """End the thread. If SIGTERM has come, this does not return: the thread ends the process."""
        if self._thread is None:
            return
        self._is_stopped = self.succession.signalled is None
        self.wake()
        self._thread.join()
        self._thread = None
        wake, self._wake = self._wake, None
        for each in wake or ():
            each.close()

    def wake(self) -> None:
        """Let the thread look whether there is something to do."""
        if self._wake is not None:
            self._wake[0].send(b"\0")

    def close(self) -> None:
        """End the thread and the succession: see :meth:`.succession.Succession.close`."""
        self.stop()
        self.succession.close()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        if self.succession.note_signal():
            self.wake()
        else:
            # nobody will come: end as a process without a handler does
            self.close()
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    def _run(self) -> None:
        assert self._wake is not None
        succession, woken = self.succession, self._wake[1]
        while not self._is_stopped:
            poller = select.poll()
            poller.register(woken, select.POLLIN)
            for descriptor, events in succession.wanted().items():
                poller.register(descriptor, events)
            found = poller.poll(TICK_SECONDS * 1000)
            if any(descriptor == woken.fileno() for descriptor, _ in found):
                woken.recv(100)
            try:
                succession.step()
            except ConfigurationError as exc:
                logger.error("%s", exc)
                os._exit(2)
            if succession.signalled is not None:
                succession.end_early()


class _EarlyLines(logging.Handler):
    """Keeps log lines until logging is set up."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def __enter__(self) -> None:
        logger.addHandler(self)
        logger.propagate, self._before = False, (logger.level, logger.propagate)
        logger.setLevel(logging.DEBUG)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        logger.removeHandler(self)
        level, logger.propagate = self._before
        logger.setLevel(level)
        if exc is not None:
            self._records = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def show(self) -> None:
        records, self._records = self._records, []
        for record in records:
            if logger.isEnabledFor(record.levelno):
                logger.callHandlers(record)  # its filters have seen it already


_EARLY = _EarlyLines()


def show_early_lines() -> None:
    """Log what was kept. Call it when logging is set up."""
    _EARLY.show()


_begun: Watch | None = None
"""What :func:`begin_at_once` has begun."""


def begin_at_once(arguments: Sequence[str]) -> Watch | None:
    """Begin before the command line is read, if APISIX has started this process as a runner.

    Log lines are kept until logging is set up: see :func:`show_early_lines`.

    Args:
        arguments: The command line, without the command's own name.

    Returns:
        What has begun; None: it has to begin later, or it cannot: then it fails again, and the command line says why.
    """
    global _begun
    given = {each.partition("=")[0] for each in arguments}
    if (
        arguments[:1] == ["run"]
        and not given & _SLOW_OPTIONS
        and not any(map(os.environ.get, _SLOW_VARIABLES))
        and os.environ.get("APISIX_LISTEN_ADDRESS")
    ):
        open_streams()  # before anything else is opened
        with contextlib.suppress(BridgeError), _EARLY:
            watch = Watch(Succession(socket_path(None), DEFAULT_PERMISSIONS))
            watch.begin_without_thread()
            _begun = watch
    return _begun


def begin_without_thread(uds: str | None, permissions: int) -> Succession:
    """Begin in a process that sees to the succession itself at once. Logging is set up.

    Args:
        uds: Path of the socket, as the user gives it; None: that of the environment.
        permissions: Mode of the socket file.

    Raises:
        ConfigurationError: The path cannot be taken.
    """
    if _begun is not None:
        show_early_lines()
        return _begun.succession
    watch = Watch(Succession(socket_path(uds), permissions))
    watch.begin_without_thread()
    return watch.succession
