"""The output of a runner process: stdout, stderr and loggers, those of its plugins included.

APISIX reads the output from a pipe, and ends the runner with a signal. Python buffers what a process writes into a
pipe, and loses the buffer when a signal ends the process.
"""

import contextlib
import copy
import logging
import os
import sys
import threading
import time
from typing import Any, TextIO

from uvicorn.config import LOGGING_CONFIG

from ..logs import GUARD, guard

__all__ = [
    "JSON_LOG_CONFIG",
    "LOG_CONFIG",
    "configure_loggers",
    "flush",
    "last_words",
    "open_streams",
    "prompt_output",
    "show_plugin_logs",
]

logger = logging.getLogger("asgi_bridge.server")


def _log_config() -> dict[str, Any]:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["asgi_bridge"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config["formatters"]["default"]["()"] = "asgi_bridge.server.formats.TextFormatter"
    return config


def _json_log_config() -> dict[str, Any]:
    config = _log_config()
    config["formatters"] = {name: {"()": "asgi_bridge.server.formats.JsonFormatter"} for name in config["formatters"]}
    return config


LOG_CONFIG = _log_config()
"""uvicorn's logging configuration with our loggers. All write to stderr, which APISIX copies to its error log."""
JSON_LOG_CONFIG = _json_log_config()
"""The same, each line a JSON object."""


def open_streams() -> None:
    """Open /dev/null in place of stdin, stdout and stderr, where the process was started without them.

    Otherwise the next file or socket would get the number of one of them, and no handler could write to it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        file: str | int = os.devnull  # if something else has the number already
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
            file = number
        if getattr(sys, name) is None:
            setattr(sys, name, open(file, mode, closefd=file is not number))  # noqa: SIM115  # for the whole process


def prompt_output() -> None:
    """Make every printed line leave the process at once. Call it before plugins are imported."""
    for stream in _streams():
        reconfigure = getattr(stream, "reconfigure", None)  # not there on what replaces a stream in tests
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def configure_loggers(log_config: Any, log_level: Any) -> None:
    """Set up all loggers but uvicorn's own. Call it after uvicorn has set those up, and before plugins are imported.

    With LOG_CONFIG or JSON_LOG_CONFIG, the root logger gets the runner's level, and the log lines of plugins that are
    being imported have our format. The root logger stays as it is if it has handlers already, and so it does with any
    other configuration.

    Args:
        log_config: As uvicorn takes it.
        log_level: As uvicorn takes it; None: that of the configuration.
    """
    level = logging.getLogger("uvicorn.error").level
    if log_level is not None:
        logging.getLogger("asgi_bridge").setLevel(level)
    for name, ours in logging.root.manager.loggerDict.items():
        if name.startswith("asgi_bridge.") and isinstance(ours, logging.Logger):
            ours.disabled = False  # a logging configuration that does not name a logger disables it
    guard(["asyncio"])  # asyncio logs the exceptions of plugins' tasks
    GUARD.counts = True
    if log_config in (LOG_CONFIG, JSON_LOG_CONFIG) and not logging.root.handlers:
        logging.root.setLevel(level)
        # no handler of the root logger yet: if it had one, logging.basicConfig() in a plugin's module would do nothing
        logging.lastResort = _handler()


def show_plugin_logs() -> None:
    """Show the log lines of plugins, unless a plugin has set up the root logger. Call it after the plugins' import.

    The root logger gets a handler now, because ``logging.info()`` would set up another one where there is none.
    """
    handler = _handler()
    if handler is not None and handler is logging.lastResort and not logging.root.handlers:
        logging.root.addHandler(handler)


def _handler() -> logging.Handler | None:
    handlers = logging.getLogger("asgi_bridge").handlers
    return handlers[0] if handlers else None


def flush() -> None:
    """Write what the process still buffers for stdout and stderr."""
    for stream in _streams():
        with contextlib.suppress(OSError, ValueError):  # closed by the other side, or by a plugin
            stream.flush()


def last_words(seconds: float) -> None:
    """Log that the process ends now, and write what it still buffers.

    Args:
        seconds: Maximum time for both. A thread that blocks in writing may hold the lock that they need.
    """
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=action, daemon=True) for action in (_log_hard_exit, flush)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _log_hard_exit() -> None:
    logger.error("Not stopped in time, because something blocks a thread. The process ends now")
    for handler in (handler for name in ("uvicorn", "asgi_bridge") for handler in logging.getLogger(name).handlers):
        handler.flush()


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
