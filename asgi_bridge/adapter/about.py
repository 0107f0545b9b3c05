"""What a log line says of a call, beside its message. It is put together when a line is written, and not before."""

from time import monotonic
from typing import Any

from ..plugins import ChainCall
from ..plugins.reasons import shortened

__all__ = ["MAX_PATH", "about_call"]

MAX_PATH = 512
"""Maximum length of a request's path in a log line, in characters."""


def about_call(
    call: ChainCall, plugin: str | None, method: str | None, path: str | None, started: float | None
) -> dict[str, Any]:
    """Return what a log line says of `call`. What is not known is left out.

    Args:
        call: The call.
        plugin: Name of the plugin that the line is about; None: all plugins of the chain.
        method: The request's method; None: it is not known yet.
        path: The request's path; None: it is not known yet.
        started: When the call had come, in monotonic seconds; None: nobody has looked at the clock, so the time counts
            from the first plugin that it entered.
    """
    if started is None:
        started = min((since for since, _ in call.entered().values()), default=None)
    found = {
        "method": method,
        "path": None if path is None else shortened(path, MAX_PATH),
        "route": call.chain.route_id,
        "plugin": plugin or call.chain.names,
        "phase": call.phase,
        "request_id": call.request_id,
        "milliseconds": None if started is None else round((monotonic() - started) * 1000, 1),
    }
    return {key: value for key, value in found.items() if value is not None}
