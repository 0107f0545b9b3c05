"""The outcome of a call for people, and for programs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from ..answers import describe
from ..logs import one_line
from ..wire import HTTPReqCallResp, HTTPRespCallResp, Info, ReqBody, RespBody, Rewrite, Stop, TextEntry, Var
from .outcome import Headers, Outcome, Response
from .request import Request

__all__ = ["as_json", "as_text"]

SHOWN = 60
"""Maximum number of characters of a body that the text shows."""


@dataclass
class _Step:
    """What one plugin did.

    Attributes:
        name: Of the plugin.
        what: It in a few words.
        request: What it changed of the request.
        response: What it changed of the response.
    """

    name: str
    what: str
    request: list[str] = field(default_factory=list)
    response: list[str] = field(default_factory=list)


def as_text(request: Request, outcome: Outcome) -> Iterator[str]:
    """Write the request, what each plugin did, and the answer.

    Args:
        request: The request of the call.
        outcome: What came of it.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    scope = _scope_in(request, outcome)
    phase = click.style(f"{request.phase} phase", dim=True)
    yield f"{click.style(one_line(scope['method']), bold=True)} {one_line(scope['target'])}  {phase}"
    yield from (one_line(f"    {name}: {value}") for name, value in scope["headers"])
    if request.phase == "response":
        yield f"upstream {request.status}"
        yield from (one_line(f"    {name}: {value}") for name, value in _texts(request.response_entries))
    if outcome.asked:
        yield one_line(f"asked for {', '.join(map(_asked, outcome.asked))}")
    for step in _steps(request, outcome):
        yield f"{click.style(step.name, bold=True)}: {one_line(step.what)}"
        yield from (one_line(f"    {line}") for line in (*step.request, *step.response))
    if outcome.error is not None:
        what = click.style("refused", fg="red") + f": {one_line(outcome.error)}"
        details: list[str] = []
    else:
        what, details = describe(outcome.answer)
    yield f"→ {what}" + click.style(f"  {outcome.milliseconds:.1f} ms", dim=True)
    yield from (f"    {line}" for line in details)


def as_json(request: Request, outcome: Outcome) -> dict[str, Any]:
    """Return the request, what each plugin did, and the answer as values that JSON has.

    Args:
        request: The request of the call.
        outcome: What came of it.
    """
    return {
        "phase": request.phase,
        "request": _scope_in(request, outcome),
        "asked": [_asked(info) for info in outcome.asked],
        "plugins": [vars(step) for step in _steps(request, outcome)],
        "answer": None if outcome.answer is None else _answer(outcome.answer),
        "error": outcome.error,
        "milliseconds": round(outcome.milliseconds, 3),
    }


def _scope_in(request: Request, outcome: Outcome) -> dict[str, Any]:
    """Return the request as the outermost plugin gets it; in another process, as it is sent."""
    scope = outcome.watches[0].scope if outcome.watches else None
    if scope is None:
        query = "" if request.query is None else f"?{request.query}"
        headers: Headers = request.entries if request.phase == "request" else []
        return {"method": request.method, "target": request.path + query, "headers": _texts(headers)}
    return {
        "method": scope["method"],
        "target": _target(scope),
        "headers": _texts(scope["headers"]),
        "scheme": scope["scheme"],
        "http_version": scope["http_version"],
        "client": scope["client"],
        "server": scope["server"],
    }


def _target(scope: Any) -> str:
    query = _text(scope["query_string"])
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _asked(info: Info) -> str:
    match info:
        case Var(name):
            return f"${_text(name or b'')}"
        case ReqBody():
            return "request body"
        case RespBody():
            return "response body"
    return "something unknown"


def _steps(request: Request, outcome: Outcome) -> Iterator[_Step]:
    of_request = request.phase == "request"
    passing = "passes the request on" if of_request else "takes the upstream's response"
    # the response that each plugin got from inside; behind the innermost one, that of the upstream
    inside = Response() if of_request else Response(request.status, request.response_entries, request.response_body)
    got = []
    for watch in reversed(outcome.watches):
        got.append(inside)
        inside = watch.sent or inside
    for number, (watch, response) in enumerate(zip(outcome.watches, reversed(got), strict=True)):
        inner = outcome.watches[number + 1] if number + 1 < len(outcome.watches) else None
        passed = outcome.passed_on if inner is None else inner.scope
        step = _Step(watch.name, passing)
        if watch.scope is None:
            step.what = "is not reached"
        elif watch.fault is not None and (inner is None or inner.fault != watch.fault):
            step.what = f"fails: {watch.fault}"
        elif passed is None:
            step.what = "gives no answer" if watch.sent is None else f"answers {watch.sent.status}"
        elif outcome.parked:
            step.what = f"{passing}, and waits for the response"
        if passed is not None:
            body = outcome.passed_body if inner is None else inner.body
            step.request = list(_request_changes(watch.scope, passed, watch.body, body))
        if watch.sent is not None:
            before = Response(watch.sent.status) if passed is None else response
            step.response = list(_response_changes(before, watch.sent))
        yield step


def _request_changes(before: Any, after: Any, body: bytes | None, new_body: bytes | None) -> Iterator[str]:
    for name in ("method", "path"):
        if after[name] != before[name]:
            yield f"request {name} {before[name]} → {after[name]}"
    if after["query_string"] != before["query_string"]:
        yield f"request query {_text(before['query_string'])} → {_text(after['query_string'])}"
    yield from _header_changes("request header", before["headers"], after["headers"])
    if new_body is not None and body is not None and new_body != body:
        yield f"request body {len(body)} → {_body(new_body)}"


def _response_changes(before: Response, after: Response) -> Iterator[str]:
    if after.status != before.status:
        yield f"response status {before.status} → {after.status}"
    yield from _header_changes("response header", before.headers, after.headers)
    if after.body != before.body:
        yield f"response body {len(before.body)} → {_body(after.body)}"


def _header_changes(kind: str, before: Headers, after: Headers) -> Iterator[str]:
    """Write which headers are gone, and which have come."""
    known, new = Counter(map(tuple, before)), Counter(map(tuple, after))
    for sign, entries in (("-", known - new), ("+", new - known)):
        for name, value in entries.elements():
            yield f"{kind} {sign} {_text(name)}: {_text(value)}"


def _answer(answer: HTTPReqCallResp | HTTPRespCallResp) -> dict[str, Any]:
    if isinstance(answer, HTTPRespCallResp):
        return {
            "action": "response", "status": answer.status, "headers": _entries(answer.headers),
            "body": None if answer.body is None else _text(answer.body),
        }  # fmt: skip
    match answer.action:
        case Stop(status, headers, body):
            return {"action": "stop", "status": status, "headers": _entries(headers), "body": _text(body or b"")}
        case Rewrite(path, headers, args, resp_headers, body):
            return {
                "action": "rewrite", "path": None if path is None else _text(path), "headers": _entries(headers),
                "args": _entries(args), "response_headers": _entries(resp_headers),
                "body": None if body is None else _text(body),
            }  # fmt: skip
    return {"action": "pass"}


def _entries(entries: list[TextEntry] | None) -> list[list[str | None]]:
    return [[None if part is None else _text(part) for part in entry] for entry in entries or ()]


def _texts(headers: Headers) -> list[tuple[str, str]]:
    return [(_text(name), _text(value)) for name, value in headers]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _body(body: bytes) -> str:
    return f"{len(body)} bytes: {_text(body[:SHOWN])}{'…' if len(body) > SHOWN else ''}"
