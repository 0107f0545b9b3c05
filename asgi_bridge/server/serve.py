"""The process: uvicorn with our protocol class, its socket, and an end inside the second that APISIX leaves."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from types import FrameType
from typing import Any, Protocol, TypeAlias

import uvicorn
from uvicorn.supervisors import ChangeReload

from ..errors import BridgeError, ConfigurationError
from ..extras import install
from ..plugins import MAX_CONFIGURATION_BYTES, Plugin
from ..tracebacks import shorten
from .accept import Acceptor
from .output import LOG_CONFIG, configure_loggers, flush, last_words, open_streams, prompt_output, show_plugin_logs
from .private import PrivateFolder
from .protocol import RunnerProtocol
from .runner import Runner, RunnerOptions, conf_expire_of_environment, runner_of
from .sockets import DEFAULT_PERMISSIONS, bind, has_owner, socket_path

__all__ = ["LOG_CONFIG", "RunnerServer", "Source", "load_environment", "serve"]

logger = logging.getLogger("asgi_bridge.server")

GRACEFUL_SECONDS = 0.3
"""What calls in flight have to end by themselves after SIGTERM."""
WATCHDOG_SECONDS = 0.45
"""The process ends so long after SIGTERM and the time of the calls, 0.75 s in all, blocked threads or not: APISIX sends
SIGKILL after one second."""
LAST_WORDS_SECONDS = 0.03
"""What the watchdog has for its log line, and for what the process still holds back."""


Plugins: TypeAlias = Mapping[str, Plugin]


class Source(Protocol):
    """Where a process finds its plugins; plain data, so that it can be handed to a reloaded process."""

    @property
    def app_dir(self) -> str | None:
        """The folder to import from."""

    def load(self) -> Plugins:
        """The plugins by name. Raises ConfigurationError, or what the modules raise."""


def _load_runner(source: Source | Plugins, options: RunnerOptions) -> Runner:
    """In the process that serves, which with reload is not the one that was started."""
    try:
        plugins = source if isinstance(source, Mapping) else source.load()
    except TypeError as exc:
        # uvicorn takes it for one of calling this function, and drops the traceback
        raise ImportError(f"{type(exc).__name__}: {exc}") from exc
    except (KeyboardInterrupt, SystemExit) as exc:
        # no signal's: uvicorn's handlers only note those
        raise ConfigurationError(f"a module of the plugins raised {exc!r} when it was imported") from exc
    show_plugin_logs()
    return Runner(plugins, options)


class RunnerServer(uvicorn.Server):
    """uvicorn's server, with acceptors of our own and a bound on how long stopping takes.

    Args:
        config: uvicorn's.
        ended: called when no new connections are wanted any more.
        seconds: the process ends so long after a signal, whatever blocks it.
        path: of the socket, for the log.
        finally_: called when nothing runs any more, or before the process ends although something blocks it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ended: Callable[[], None],
        seconds: float,
        path: str,
        finally_: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._ended = ended
        self._finally = finally_
        self._seconds = seconds
        self._path = path
        # a SimpleQueue, since its put() is the only way to wake a thread that is safe in a signal handler: starting
        # the thread there could wait for ever for a lock that the interrupted code holds
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._capturing = False

    def run(self, sockets: Any = None) -> None:
        """Serves until a signal, or ``should_exit``, ends it.

        Event loops stop at a KeyboardInterrupt or SystemExit out of any task or callback. Tasks are plugins' to make,
        and no plugin may end the runner, so the loop is started again. Signals raise nothing while uvicorn captures
        them; its own exceptions come out of its own task.
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
            with contextlib.suppress(KeyboardInterrupt, SystemExit):  # of a task that is cancelled now
                runner.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            self._capturing = True
            try:
                yield
            finally:
                self._capturing = False
                # the signal is raised again now, and SIGTERM ends the process without another word
                flush()

    def release(self) -> None:
        """The process goes on after the server: sends the watchdog away."""
        self._signals.put(None)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=[])
        self.servers.extend(Acceptor(sock, self._protocol) for sock in sockets)  # type: ignore[misc]
        logger.info("Runner listens on unix socket %s (Press CTRL+C to quit)", self._path)

    def _protocol(self) -> RunnerProtocol:
        config = self.config
        return RunnerProtocol(config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None)

    async def shutdown(self, sockets: Any = None) -> None:
        self._ended()
        runner_of(self.config).stopping = True
        await super().shutdown(sockets)
        self._finally()  # uvicorn raises the signal again, so nothing behind it is reached

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals.put(sig)
        super().handle_exit(sig, frame)

    def _watch(self) -> None:
        """The watchdog's thread: the event loop may be blocked, or the interpreter waiting for threads."""
        sig = self._signals.get()
        end = time.monotonic() + self._seconds
        while sig is not None:
            try:
                if self._signals.get(timeout=max(0.0, end - time.monotonic())) is None:
                    return
            except queue.Empty:
                self._give_up(sig)

    def _give_up(self, sig: int) -> None:
        self._ended()
        last_words(LAST_WORDS_SECONDS)
        self._finally()
        os._exit(128 + sig)


def serve(
    source: Source | Plugins,
    *,
    uds: str | os.PathLike[str] | None = None,
    uds_permissions: int = DEFAULT_PERMISSIONS,
    reload: bool = False,
    reload_dirs: list[str] | None = None,
    limit_concurrency: int | None = None,
    limit_configuration_size: int = MAX_CONFIGURATION_BYTES,
    timeout_graceful_shutdown: float = GRACEFUL_SECONDS,
    access_log: bool = False,
    forwarded_headers: str = "trust",
    log_level: str | int | None = None,
    log_config: dict[str, Any] | str | None = None,
    env_file: str | None = None,
) -> None:
    """Serves the gateway until a signal ends it.

    Args:
        source: the plugins by name, or where they are to be found (reload needs the latter).
        uds: path of the unix socket; ``APISIX_LISTEN_ADDRESS`` without it.
        uds_permissions: mode of the socket file.
        reload: starts anew when a Python file changes.
        reload_dirs: folders to watch; that of the source without them.
        limit_concurrency: calls at once; further ones are refused.
        limit_configuration_size: bytes that a route's configuration of one plugin may have.
        timeout_graceful_shutdown: seconds that calls in flight have to end by themselves after a signal.
        access_log: one line for each call.
        forwarded_headers: ``"trust"`` the x-forwarded-* headers for scheme and server, or ``"ask"`` the gateway.
        log_level: as uvicorn has it.
        log_config: as uvicorn has it.
        env_file: read into the environment first.

    Raises:
        ConfigurationError: the socket cannot be taken, or the options cannot work.
    """
    if reload and isinstance(source, Mapping):
        raise ConfigurationError('reload imports the plugins anew, so it needs their "module:attr": use the command')
    if forwarded_headers not in ("trust", "ask"):
        raise ConfigurationError(f'forwarded_headers is "trust" or "ask", not {forwarded_headers!r}')
    if limit_concurrency is not None and not (type(limit_concurrency) is int and limit_concurrency > 0):
        raise ConfigurationError(f"limit_concurrency is a number of calls, 1 or more, not {limit_concurrency!r}")
    if not (type(limit_configuration_size) is int and limit_configuration_size > 0):
        raise ConfigurationError(
            f"limit_configuration_size is a number of bytes, 1 or more, not {limit_configuration_size!r}"
        )
    if not (type(uds_permissions) is int and 0 <= uds_permissions <= 0o777):
        raise ConfigurationError(f"uds_permissions is a mode such as 0o660, not {uds_permissions!r}")
    if not 0 <= timeout_graceful_shutdown < threading.TIMEOUT_MAX:
        raise ConfigurationError(f"timeout_graceful_shutdown is a number of seconds, not {timeout_graceful_shutdown}")
    open_streams()
    if env_file is not None:
        load_environment(env_file)
    path = socket_path(None if uds is None else os.fspath(uds))
    options = RunnerOptions(
        limit_concurrency=limit_concurrency,
        access_log=access_log,
        ask_origin=forwarded_headers == "ask",
        conf_expire=conf_expire_of_environment(),
        limit_configuration_size=limit_configuration_size,
    )
    library = isinstance(source, Mapping)
    source_folder = None if isinstance(source, Mapping) else source.app_dir
    try:
        config = uvicorn.Config(
            "",
            factory=True,
            http=RunnerProtocol,
            ws="none",
            interface="asgi3",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            workers=1,
            timeout_graceful_shutdown=timeout_graceful_shutdown,  # type: ignore[arg-type]
            reload=reload,
            reload_dirs=reload_dirs or ([source_folder] if reload and source_folder else None),
            log_level=log_level,
            log_config=LOG_CONFIG if log_config is None else log_config,
        )
    except Exception as exc:
        if log_level is None and log_config is None:
            raise
        reason = " ".join(f"{exc.__cause__ or exc}".split())
        raise ConfigurationError(
            f"logging cannot be set up with log_level {log_level!r} and log_config {log_config!r}: "
            f"{type(exc).__name__}: {reason}"
        ) from None
    prompt_output()
    configure_loggers(config.log_config, config.log_level)
    if not reload and not isinstance(source, Mapping) and has_owner(path) is not False:
        # before its socket is taken, so that it is left alone if there is nothing to follow it
        source = source.load()
    listening = bind(path, uds_permissions)
    private = PrivateFolder(path)
    config.app = functools.partial(_load_runner, source, dataclasses.replace(options, folder=private.path))
    owner = os.getpid()
    seconds = timeout_graceful_shutdown + WATCHDOG_SECONDS

    def ended() -> None:
        if os.getpid() == owner:
            listening.unlink()

    server = RunnerServer(config, ended, seconds, path, private.close)
    try:
        if reload:
            target = functools.partial(_serve_reloaded, config, seconds, path)
            ChangeReload(config, target=target, sockets=[listening.sock]).run()
        else:
            server.run(sockets=[listening.sock])
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again after a clean stop
    finally:
        ended()
        listening.sock.close()
        private.close()
        if library:
            server.release()


def load_environment(path: str) -> None:
    """Read a file of ``NAME=value`` lines into the environment. What is set there already stays.

    Raises:
        ConfigurationError: it cannot be read, or python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigurationError(f"an environment file needs python-dotenv: {install('dev')}") from None
    try:
        with open(path, encoding="utf-8") as lines:
            load_dotenv(stream=lines)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the environment file {path} cannot be read: {exc}") from None


def _serve_reloaded(config: uvicorn.Config, seconds: float, path: str, sockets: Any) -> None:
    prompt_output()
    configure_loggers(config.log_config, config.log_level)
    server = RunnerServer(config, _nothing, seconds, path)
    try:
        server.run(sockets=sockets)
    except BridgeError as exc:
        logger.error("%s", exc, exc_info=shorten(exc.__cause__))
    except Exception:
        logger.exception("The plugins cannot be loaded")
    except SystemExit:
        pass  # uvicorn has said why
    if not server.started:
        logger.error("Calls are refused until the next change")
        _refuse(sockets[0])


def _refuse(sock: socket.socket) -> None:
    """Hangs up on whoever calls, until a signal ends the process: in the backlog a call would wait for a minute."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while selector.select():
            with contextlib.suppress(OSError):
                sock.accept()[0].close()


def _nothing() -> None:
    """The supervisor owns the socket's path and the private folder."""
