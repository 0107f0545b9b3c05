"""What a runner process says: on stdout, on stderr, and through loggers, its plugins' own among them.

APISIX gives the runner a pipe, and ends it with a signal. Python holds back what goes into a pipe, and drops it when a
signal ends the process.
"""

import contextlib
import copy
import logging
import sys
import threading
import time
from typing import Any, TextIO

from uvicorn.config import LOGGING_CONFIG

from ..logs import GUARD, guard

__all__ = ["LOG_CONFIG", "configure_loggers", "flush", "last_words", "prompt_output", "show_plugin_logs"]

logger = logging.getLogger("asgi_bridge.server")


def _log_config() -> dict[str, Any]:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["asgi_bridge"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config


LOG_CONFIG = _log_config()
"""uvicorn's, with our loggers beside its own, all to stderr: APISIX puts that into its error log."""


def prompt_output() -> None:
    """Lets every printed line leave the process at once. Call it before plugins are imported."""
    for stream in _streams():
        reconfigure = getattr(stream, "reconfigure", None)  # not there on what replaces a stream in tests
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def configure_loggers(log_config: Any, log_level: Any) -> None:
    """Sets up all loggers but uvicorn's, after uvicorn has set up its own. Call it before plugins are imported.

    With our own logging configuration, the root logger gets the runner's level, and what plugins log while they are
    imported is shown in our format. A root logger that has handlers already is its owner's affair, as is any other
    configuration.

    Args:
        log_config: as uvicorn has it; LOG_CONFIG is ours.
        log_level: as uvicorn has it; None: that of the configuration.
    """
    level = logging.getLogger("uvicorn.error").level
    if log_level is not None:
        logging.getLogger("asgi_bridge").setLevel(level)
    for name, ours in logging.root.manager.loggerDict.items():
        if name.startswith("asgi_bridge.") and isinstance(ours, logging.Logger):
            ours.disabled = False  # by a logging configuration that does not mention it
    guard(["asyncio"])  # it logs what plugins' tasks raise
    GUARD.counts = True
    if log_config == LOG_CONFIG and not logging.root.handlers:
        logging.root.setLevel(level)
        # not a handler of the root logger yet: with one, logging.basicConfig() in a plugin's module would do nothing
        logging.lastResort = _handler()


def show_plugin_logs() -> None:
    """Shows what plugins log, unless they have set up the root logger themselves. Call it after their import.

    From now on it has a handler, since ``logging.info()`` sets up one of its own where there is none.
    """
    handler = _handler()
    if handler is not None and handler is logging.lastResort and not logging.root.handlers:
        logging.root.addHandler(handler)


def _handler() -> logging.Handler | None:
    handlers = logging.getLogger("asgi_bridge").handlers
    return handlers[0] if handlers else None


def flush() -> None:
    """Writes what the process still holds back on stdout and stderr."""
    for stream in _streams():
        with contextlib.suppress(OSError, ValueError):  # closed by the other side, or by a plugin
            stream.flush()


def last_words(seconds: float) -> None:
    """Says that the process ends now, and writes what it still holds back.

    Args:
        seconds: for all of it. A thread may be blocked in writing, and hold the lock.
    """
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=deed, daemon=True) for deed in (_say_it, flush)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _say_it() -> None:
    logger.error("Not stopped in time; something blocks a thread: the process ends now")
    for handler in (handler for name in ("uvicorn", "asgi_bridge") for handler in logging.getLogger(name).handlers):
        handler.flush()


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
