"""What ``asgi-bridge dev`` prints about each call of the runner."""

from collections.abc import Iterator

import click

from ..gateway import Call
from ..wire import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop, TextEntry

__all__ = ["explain", "print_call"]


def print_call(call: Call) -> None:
    """Print what a call did.

    Args:
        call: One call of the runner, as the gateway saw it.
    """
    click.echo("\n".join(explain(call)))


def explain(call: Call) -> Iterator[str]:
    """Write what a call did: a line for the call, and an indented one for each change that it made.

    Args:
        call: One call of the runner, as the gateway saw it.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    phase = call.phase.removeprefix("ext-plugin-")
    answer = call.answer
    if call.again:
        what = click.style("prepared again", fg="yellow") + f": {call.error}; the gateway repeats the call"
        details: list[str] = []
    elif call.error is not None:
        what = click.style("failed", fg="red") + f": {call.error}"
        if call.degraded:
            what += ", the request goes on without the plugins"
        elif call.status:
            what += f", the client gets {call.status}"
        details = []
    elif isinstance(answer, HTTPRespCallResp):
        what, details = click.style(f"response {answer.status}", fg="green"), _response(answer)
    else:
        what, details = _action(answer)
    yield (
        f"{call.request_line}  {click.style(phase, dim=True)} {click.style(', '.join(call.plugins), bold=True)}: {what}"
        + click.style(f"  {call.milliseconds:.1f} ms", dim=True)
    )
    for detail in details:
        yield f"    {detail}"


def _action(answer: HTTPReqCallResp | None) -> tuple[str, list[str]]:
    action = None if answer is None else answer.action
    if isinstance(action, Stop):
        details = _entries("header", action.headers)
        if action.body and action.body != b" ":
            details.append(_body("body", action.body))
        return click.style(f"stop {action.status}", fg="yellow"), details
    if isinstance(action, Rewrite):
        details = [] if action.path is None else [f"path    {action.path.decode('utf-8', 'replace')}"]
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
        shown = (name or b"").decode("utf-8", "replace")
        if value:
            lines.append(f"{kind:<7} {shown}: {value.decode('utf-8', 'replace')}")
        elif kind != "header" or shown != "content-type":  # an empty one only keeps APISIX from adding its own
            lines.append(f"{kind:<7} {shown} deleted" if value is None or kind == "header" else f"{kind:<7} {shown}:")
    return lines


def _body(kind: str, body: bytes) -> str:
    text = body[:60].decode("utf-8", "replace").replace("\n", "\\n")
    return f"{kind:<7} {len(body)} bytes: {text}{'…' if len(body) > 60 else ''}"
