"""What ``asgi-bridge run`` does first: it takes its place on the socket path, and supervises workers."""

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..environment import load_environment
from ..errors import ConfigurationError
from ..streams import flush, open_streams, prompt_output
from ..succession.early import begin_without_thread
from ..succession.sockets import DEFAULT_PERMISSIONS
from .files import raise_limit
from .supervisor import Supervisor

__all__ = ["supervise"]


def supervise(
    payload: Mapping[str, Any],
    *,
    workers: int,
    uds: str | None,
    uds_permissions: int = DEFAULT_PERMISSIONS,
    timeout_graceful_shutdown: float,
    log_level: str | None = None,
    log_format: str = "text",
    env_file: str | None = None,
    configure: Callable[[], None] | None = None,
) -> int:
    """Serve the gateway in worker processes, until a signal ends this process.

    Args:
        payload: What each worker is told, plain data. The private folder is added as ``"folder"``.
        workers: Number of workers.
        uds: Path of the unix socket; None: ``APISIX_LISTEN_ADDRESS``.
        uds_permissions: Mode of the socket file.
        timeout_graceful_shutdown: Seconds that running calls get to finish after a signal.
        log_level: Of this process's own lines; None: info.
        log_format: ``"text"`` or ``"json"``.
        env_file: Path of a file that is read into the environment first.
        configure: Sets up logging in another way, once a predecessor knows of this process; None: nothing does.

    Returns:
        The exit code. After SIGTERM the process ends by that signal instead.

    Raises:
        ConfigurationError: The socket cannot be taken, or an option's value cannot work.
    """
    open_streams()
    prompt_output()
    raise_limit()
    if env_file is not None:
        load_environment(env_file)
    _configure_logger(log_level, log_format)
    # before anything heavy is imported: a predecessor that APISIX ends waits for a sign of its successor
    succession = begin_without_thread(uds, uds_permissions)
    try:
        if configure is not None:
            configure()
        if succession.private.path is None and workers > 1:
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


def _configure_logger(log_level: str | None, log_format: str) -> None:
    """Set up the logger of this process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter("%(prefix)s%(message)s"))
    ours = logging.getLogger("asgi_bridge")
    ours.addHandler(handler)
    ours.propagate = False
    ours.setLevel((log_level or "info").upper())


class _TextFormatter(logging.Formatter):
    """Lines as uvicorn's formatter makes them where the output is no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        record.prefix = f"{record.levelname}:".ljust(10)
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    """Lines as the workers' own formatter makes them. That one imports much."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry, ensure_ascii=False)
