"""The answers of calls in words, for ``asgi-bridge dev`` and ``asgi-bridge call``."""

import click

from .logs import one_line
from .wire import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop, TextEntry

__all__ = ["describe"]


def describe(answer: HTTPReqCallResp | HTTPRespCallResp | None) -> tuple[str, list[str]]:
    """Describe an answer.

    Args:
        answer: The answer; None: that of a request call, without an action.

    Returns:
        The answer in a word or two, and a line for each part of it, with colours for a terminal.
    """
    if isinstance(answer, HTTPRespCallResp):
        return click.style(f"response {answer.status}", fg="green"), _response(answer)
    return _action(answer)


def _action(answer: HTTPReqCallResp | None) -> tuple[str, list[str]]:
    action = None if answer is None else answer.action
    if isinstance(action, Stop):
        details = _entries("header", action.headers)
        if action.body and action.body != b" ":
            details.append(_body("body", action.body))
        return click.style(f"stop {action.status}", fg="yellow"), details
    if isinstance(action, Rewrite):
        details = [] if action.path is None else [f"path    {_text(action.path)}"]
        details += _entries("header", action.headers)
        details += _entries("arg", action.args)
        if action.body:
            details.append(_body("body", action.body))
        details += _entries("response header", action.resp_headers)
        return click.style("rewrite", fg="green"), details
    return click.style("pass", fg="green"), []


def _response(answer: HTTPRespCallResp) -> list[str]:
    details = _entries("header", answer.headers)
    if answer.body and answer.body != b" ":
        details.append(_body("body", answer.body))
    return details


def _entries(kind: str, entries: list[TextEntry] | None) -> list[str]:
    lines = []
    for name, value in entries or ():
        shown = _text(name or b"")
        if value:
            lines.append(f"{kind:<7} {shown}: {_text(value)}")
        elif kind != "header" or shown != "content-type":  # an empty one only keeps APISIX from adding its own
            lines.append(f"{kind:<7} {shown} deleted" if value is None or kind == "header" else f"{kind:<7} {shown}:")
    return lines


def _body(kind: str, body: bytes) -> str:
    return f"{kind:<7} {len(body)} bytes: {_text(body[:60])}{'…' if len(body) > 60 else ''}"


def _text(data: bytes) -> str:
    """Return bytes as one line of text: a terminal must not take them for commands."""
    return one_line(data.decode("utf-8", "replace"))
