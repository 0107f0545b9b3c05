"""What is noted of each call: a line of the access log, and the counts, as far as the operator wants them."""

import logging
from time import monotonic
from typing import Any

from ..adapter import MAX_PATH, Call
from ..plugins import Chain
from ..plugins.reasons import shortened
from ..wire import HTTPReqCallReq, HTTPRespCallReq
from .runner import Runner

__all__ = ["note_answered", "note_refused"]

logger = logging.getLogger("asgi_bridge.access")


def note_answered(runner: Runner, call: Call, outcome: str) -> None:
    """Log and count the end of a call.

    Args:
        runner: The runner.
        call: The call.
        outcome: The answer in a word or two.
    """
    if runner.options.access_log:
        _log(call.about(), outcome)
    if runner.observer is not None:
        runner.observer.answered(call, outcome)


def note_refused(
    runner: Runner,
    message: HTTPReqCallReq | HTTPRespCallReq,
    chain: Chain | None,
    outcome: str,
    started: float | None = None,
) -> None:
    """Do the same for a call that did not run.

    Args:
        runner: The runner.
        message: What the gateway sent.
        chain: Its plugins; None: the token is unknown.
        outcome: The answer in a word or two.
        started: When the message had come, in monotonic seconds; None: now.
    """
    phase = "request" if type(message) is HTTPReqCallReq else "response"
    if runner.options.access_log:
        about: dict[str, Any] = {"plugin": "?" if chain is None else chain.names, "phase": phase}
        if type(message) is HTTPReqCallReq:
            about["method"] = message.method
            about["path"] = shortened((message.path or b"/").decode("utf-8", "replace"), MAX_PATH)
        if chain is not None and chain.route_id is not None:
            about["route"] = chain.route_id
        about["milliseconds"] = 0.0 if started is None else round((monotonic() - started) * 1000, 1)
        _log(about, outcome)
    if runner.observer is not None:
        runner.observer.refused(phase, chain, outcome)


def _log(about: dict[str, Any], outcome: str) -> None:
    """Log a line about a call.

    Args:
        about: As of :meth:`Call.about`.
        outcome: How it ended, in a word or two.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    action, _, status = outcome.partition(" ")
    call = {**about, "outcome": outcome, "action": action.rstrip(",")}
    if status.isdigit():
        call["status"] = int(status)
    logger.info(
        "%s - route %s - %s - %.1f ms - %s %s - request %s",
        about["plugin"], about.get("route", "?"), outcome, about["milliseconds"], about.get("method", "?"),
        about.get("path", "?"), about.get("request_id", "?"), extra={"call": call},
    )  # fmt: skip
