"""The output of a runner process: stdout, stderr and loggers, those of its plugins included.

APISIX reads the output from a pipe, and ends the runner with a signal. Python buffers what a process writes into a
pipe, and loses the buffer when a signal ends the process.
"""

import copy
import logging
import threading
import time
from typing import Any

from uvicorn.config import LOGGING_CONFIG

from ..logs import GUARD, guard
from ..streams import flush

__all__ = [
    "JSON_LOG_CONFIG",
    "LOG_CONFIG",
    "configure_loggers",
    "last_words",
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
