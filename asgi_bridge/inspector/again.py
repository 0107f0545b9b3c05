"""Requests that are sent again, as they were or edited."""

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from ..dev_runner.story import text
from ..gateway.nginx.request import TARGET
from ..gateway.nginx.uri import split_target
from .capture import AGAIN, Again
from .record import Headers, Record

__all__ = ["MAX_SENT", "Refused", "send_again"]

MAX_SENT = 16 * 1024 * 1024
"""Maximum size of what the page may ask for, in bytes."""

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_IN_TARGET = re.compile(rb"[\x00-\x20\x7f]")


class Refused(Exception):
    """The request cannot be sent. Its text says why."""


async def send_again(app: ASGIApp, record: Record, edited: Mapping[str, Any], server: Any) -> int:
    """Send a request to the gateway, in this process.

    Args:
        app: The gateway, which makes a record of the request.
        record: The request that is repeated.
        edited: What is different: ``method``, ``target``, ``headers`` (a list of pairs), ``body`` (a text) or
            ``base64``. What is not there is as it was.
        server: Address and port of the gateway.

    Returns:
        The number of the new record.

    Raises:
        Refused: Something cannot be sent.
    """
    scope, body = _request_of(record, edited, server)
    again = scope["extensions"][AGAIN] = Again(record.number, asyncio.get_running_loop().create_future())
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    gone = asyncio.Event()

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Drop it: the record has it."""

    async def run() -> None:
        await app(scope, receive, send)

    task = asyncio.get_running_loop().create_task(run())
    _running.add(task)
    task.add_done_callback(_ended)
    return await again.made


_running: set[asyncio.Task[None]] = set()
"""The requests that are on their way: the event loop alone would not keep them."""


def _ended(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # the record says it


def _request_of(record: Record, edited: Mapping[str, Any], server: Any) -> tuple[Scope, bytes]:
    client = record.client
    method = edited.get("method", client.method)
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise Refused("the method has to be a word such as GET")
    target = _target(edited["target"], client.target) if "target" in edited else client.target
    if not target.startswith(b"/") or _IN_TARGET.search(target):
        raise Refused("path and query have to begin with a slash, and have no blanks: write %20")
    body = _body(record, edited)
    headers = _headers(edited["headers"], client.headers) if "headers" in edited else list(client.headers)
    for name, value in headers:
        if not _NAME.fullmatch(name) or _IN_VALUE.search(value):
            raise Refused(f"no header can be {text(name)!r:.80}: {text(value)!r:.80}")
    headers = _with_length(headers, body, client.body.size)
    path, query = split_target(target)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": text(path),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in headers],
        "client": ("127.0.0.1", 0),
        "server": server,
        "extensions": {TARGET: target},
    }
    return scope, body


def _target(given: Any, before: bytes) -> bytes:
    if not isinstance(given, str):
        raise Refused("path and query have to be a text")
    return before if given == text(before) else given.encode()


def _headers(given: Any, before: Headers) -> list[tuple[bytes, bytes]]:
    """Read edited headers. One that is as it was keeps bytes that no text shows."""
    known = {(text(name), text(value)): (name, value) for name, value in before}
    found = []
    for entry in given if isinstance(given, list) else ():
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            raise Refused("headers have to be pairs of name and value")
        name, value = entry[0].strip(), entry[1].strip()
        found.append(known.get((name, value), (name.encode(), value.encode())))
    return found


def _body(record: Record, edited: Mapping[str, Any]) -> bytes:
    given = edited.get("body")
    if given is not None:
        if not isinstance(given, str):
            raise Refused("the body has to be a text")
        return given.encode()
    if edited.get("base64") is not None:
        try:
            return base64.b64decode(str(edited["base64"]), validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the body is no base64") from None
    body = record.client.body
    if body.cut:
        raise Refused(
            f"the body has {body.size:,} bytes, and only the first {len(body.kept):,} are kept: give another body"
        )
    return body.kept


def _with_length(headers: list[tuple[bytes, bytes]], body: bytes, before: int) -> list[tuple[bytes, bytes]]:
    """Set Content-Length, where the body has another length than it had, or the headers say nothing of one."""
    names = {name.lower(): value for name, value in headers}
    if b"transfer-encoding" in names:
        return headers
    known = names.get(b"content-length")
    if len(body) == before and (known is not None or not body):
        return headers
    if known is not None and known != b"%d" % before:
        return headers  # somebody wants to see what a wrong length does
    kept = [item for item in headers if item[0].lower() != b"content-length"]
    return [*kept, (b"content-length", b"%d" % len(body))] if body or known is not None else kept
