"""``serve``: checks the options, takes the socket, and serves the gateway until a signal ends it."""

import dataclasses
import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import uvicorn

from ..environment import load_environment
from ..errors import ConfigurationError
from ..plugins import MAX_CONFIGURATION_BYTES, Plugin
from ..recording import DEFAULT_SIZE, RecordOptions, check_file
from ..streams import open_streams, prompt_output
from ..succession.early import Watch
from ..succession.gateway_master import open_master
from ..succession.sockets import DEFAULT_PERMISSIONS, socket_path
from ..succession.succession import Succession
from ..tracing import check_api
from .admin import admin_address
from .output import JSON_LOG_CONFIG, LOG_CONFIG, configure_loggers, show_plugin_logs
from .process import GRACEFUL_SECONDS, RunnerServer, run_reloading, runner_config
from .runner import Runner, RunnerOptions, conf_expire_of_environment
from .worker import WorkerEnds, WorkerServer

__all__ = ["Source", "log_as_uvicorn", "serve"]

Plugins: TypeAlias = Mapping[str, Plugin]
"""The mounted plugins, by name."""
_LOG_CONFIGS = {"text": LOG_CONFIG, "json": JSON_LOG_CONFIG}


class Source(Protocol):
    """Where a process finds its plugins. It is plain data, so that it can be sent to a process that reloads."""

    @property
    def app_dir(self) -> str | None:
        """The folder to import from."""

    def load(self) -> Plugins:
        """Import the plugins. Raises ConfigurationError, or what the modules raise."""


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
    log_format: str = "text",
    env_file: str | None = None,
    record: str | os.PathLike[str] | None = None,
    record_size: int = DEFAULT_SIZE,
    record_secrets: bool = False,
    admin: str | None = None,
    admin_public: bool = False,
    otel: bool | None = None,
    ends: WorkerEnds | None = None,
    make_runner: Callable[[Plugins, RunnerOptions], Runner] = Runner,
) -> None:
    """Serve the gateway until a signal ends the process.

    Args:
        source: The plugins by name, or where to find them. `reload` needs the latter.
        uds: Path of the unix socket; None: ``APISIX_LISTEN_ADDRESS``.
        uds_permissions: Mode of the socket file.
        reload: True: start again when a Python file changes.
        reload_dirs: Folders to watch; None: the one that the source imports from.
        limit_concurrency: Maximum number of calls that run at once. Further ones are refused. None: no limit.
        limit_configuration_size: Maximum size of a route's configuration of one plugin, in bytes.
        timeout_graceful_shutdown: Seconds that running calls get to finish after a signal.
        access_log: True: log a line for each call.
        forwarded_headers: Where the scheme and the server of a request come from: ``"trust"`` takes them from the
            x-forwarded-* headers, ``"ask"`` asks the gateway.
        log_level: A name such as ``"debug"``, or a number, as uvicorn takes it; None: that of `log_config`.
        log_config: Dict or path of a file, as uvicorn takes it; None: LOG_CONFIG.
        log_format: ``"text"``, or ``"json"``: each log line is a JSON object. It cannot be set beside `log_config`.
        env_file: Path of a file that is read into the environment first.
        record: Path of a file that the calls are recorded in, for ``asgi-bridge replay``; None: they are not.
        record_size: Size of that file in bytes at which the recording ends.
        record_secrets: True: the recording holds secrets as they are.
        admin: Where the admin application listens: ``"127.0.0.1:9092"`` or ``"unix:PATH"``; None: nowhere.
        admin_public: True: `admin` may be an address that other machines reach.
        otel: Whether OpenTelemetry gets spans; None: if a TracerProvider is set once the plugins are loaded.
        ends: What a worker has of its supervisor, which owns the socket; None: this process is no worker.
        make_runner: Makes the runner of its plugins and options, in the process that serves. It is plain data where
            that is another process.

    Raises:
        ConfigurationError: The socket cannot be taken, an option's value cannot work, or the plugins cannot be loaded.
    """
    if reload and isinstance(source, Mapping):
        raise ConfigurationError(
            'reload imports the plugins again, so it needs their "module:attr": use asgi-bridge run --reload'
        )
    _check_options(
        uds_permissions, limit_concurrency, limit_configuration_size, timeout_graceful_shutdown, forwarded_headers
    )
    if log_format not in _LOG_CONFIGS:
        raise ConfigurationError(f'log_format must be "text" or "json", not {log_format!r}')
    if log_format == "json" and log_config is not None:
        raise ConfigurationError(
            "log_format and log_config exclude each other: name asgi_bridge.server.formats.JsonFormatter as the "
            "formatter of the configuration"
        )
    if otel:
        check_api()
    open_streams()
    if env_file is not None:
        load_environment(env_file)
    path = socket_path(None if uds is None else os.fspath(uds))
    if record is not None:
        record = os.path.abspath(record)
        check_file(record, record_size)
    options = RunnerOptions(
        limit_concurrency=limit_concurrency,
        access_log=access_log,
        ask_origin=forwarded_headers == "ask",
        conf_expire=conf_expire_of_environment(),
        limit_configuration_size=limit_configuration_size,
        record=None if record is None else _record_options(record, record_size, record_secrets, ends),
        admin=None if admin is None else admin_address(admin, admin_public),
        otel=otel,
    )
    library = isinstance(source, Mapping)
    source_folder = None if isinstance(source, Mapping) else source.app_dir
    config = _uvicorn_config(
        log_level,
        log_config if log_config is not None else _LOG_CONFIGS[log_format],
        timeout_graceful_shutdown=timeout_graceful_shutdown,
        reload=reload,
        reload_dirs=reload_dirs or ([source_folder] if reload and source_folder else None),
    )
    prompt_output()
    configure_loggers(config.log_config, config.log_level)
    if ends is not None:
        worker = WorkerServer(config, path, ends)
        config.app = functools.partial(
            _load_runner, source, dataclasses.replace(options, folder=ends.folder), worker.adopt
        )
        worker.run(sockets=[])
        return
    master = open_master(path) if uds is None else None
    watch = Watch(Succession(path, uds_permissions))
    succession = watch.succession
    options = dataclasses.replace(options, folder=succession.private.path)
    config.app = functools.partial(_load_runner, source, options, make_runner=make_runner)
    try:
        if reload:
            listening = succession.take_now()
            options = dataclasses.replace(options, socket=listening.name)
            config.app = functools.partial(_load_runner, source, options, make_runner=make_runner)
            run_reloading(config, path, listening.sock)
            return
        watch.begin()
        if succession.listening is None and not isinstance(source, Mapping):
            source = source.load()  # a start that fails is told in one line
            config.app = functools.partial(_load_runner, source, options, make_runner=make_runner)
        server = RunnerServer(config, path, finally_=watch.close, master=master, watch=watch)
        try:
            server.run()
        finally:
            if library:
                server.release()
    except KeyboardInterrupt:
        pass  # a SIGINT that uvicorn raises again after a clean stop
    finally:
        watch.close()
        if master is not None:
            os.close(master)


def _record_options(path: str, size: int, secrets: bool, ends: WorkerEnds | None) -> RecordOptions:
    if ends is None:
        return RecordOptions(path, size, secrets)
    return RecordOptions(path, size, secrets, bytes.fromhex(ends.record_key))


def log_as_uvicorn(log_config: dict[str, Any] | str, log_level: str | int | None) -> None:
    """Set up the loggers of this process, and nothing else.

    Args:
        log_config: As :func:`serve` takes it.
        log_level: As :func:`serve` takes it.

    Raises:
        ConfigurationError: One of them cannot work.
    """
    for handler in logging.getLogger("asgi_bridge").handlers[:]:
        logging.getLogger("asgi_bridge").removeHandler(handler)
    logging.getLogger("asgi_bridge").propagate = True
    configure_loggers(_uvicorn_config(log_level, log_config).log_config, log_level)


def _uvicorn_config(log_level: str | int | None, log_config: dict[str, Any] | str, **options: Any) -> uvicorn.Config:
    """Make uvicorn's configuration. This sets up logging. Raises ConfigurationError where that fails."""
    try:
        return runner_config(log_level=log_level, log_config=log_config, **options)
    except Exception as exc:
        if log_level is None and isinstance(log_config, dict) and log_config in _LOG_CONFIGS.values():
            raise
        reason = " ".join(f"{exc.__cause__ or exc}".split())
        given = [] if log_level is None else [f"log_level {log_level!r}"]
        if log_config not in _LOG_CONFIGS.values():
            given.append(f"log_config {log_config!r:.200}")
        raise ConfigurationError(
            f"logging cannot be set up with {' and '.join(given)}: {type(exc).__name__}: {reason}"
        ) from None


def _check_options(
    uds_permissions: int,
    limit_concurrency: int | None,
    limit_configuration_size: int,
    timeout_graceful_shutdown: float,
    forwarded_headers: str,
) -> None:
    """Raise ConfigurationError for a value that cannot work. The command line checks types and ranges before."""
    if forwarded_headers not in ("trust", "ask"):
        raise ConfigurationError(f'forwarded_headers must be "trust" or "ask", not {forwarded_headers!r}')
    if limit_concurrency is not None and not (type(limit_concurrency) is int and limit_concurrency > 0):
        raise ConfigurationError(f"limit_concurrency must be a number of calls, 1 or more, not {limit_concurrency!r}")
    if not (type(limit_configuration_size) is int and limit_configuration_size > 0):
        raise ConfigurationError(
            f"limit_configuration_size must be a number of bytes, 1 or more, not {limit_configuration_size!r}"
        )
    if not (type(uds_permissions) is int and 0 <= uds_permissions <= 0o777):
        raise ConfigurationError(f"uds_permissions must be a mode such as 0o660, not {uds_permissions!r}")
    if not 0 <= timeout_graceful_shutdown < threading.TIMEOUT_MAX:
        raise ConfigurationError(
            f"timeout_graceful_shutdown must be a number of seconds, not {timeout_graceful_shutdown}"
        )


def _load_runner(
    source: Source | Plugins,
    options: RunnerOptions,
    adopt: Callable[[Runner, Plugins], None] = lambda runner, plugins: None,
    make_runner: Callable[[Plugins, RunnerOptions], Runner] = Runner,
) -> Runner:
    """Make the runner, in the process that serves. With reload that is a child of the one that was started."""
    try:
        plugins = source if isinstance(source, Mapping) else source.load()
    except TypeError as exc:
        # uvicorn would take a TypeError for a wrong call of this function, and drop the traceback
        raise ImportError(f"{type(exc).__name__}: {exc}") from exc
    except (KeyboardInterrupt, SystemExit) as exc:
        # a module raised it: a signal raises nothing here, since uvicorn's handlers only note it
        raise ConfigurationError(f"a module of the plugins raised {exc!r} when it was imported") from exc
    show_plugin_logs()
    runner = make_runner(plugins, options)
    adopt(runner, plugins)
    return runner
