"""``etag``: an entity tag over the body that the upstream really sent, and 304 for a client that has it already."""

import hashlib

from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._shared.conf import Conf
from ._shared.whole import WholeBody

__all__ = ["EtagConf", "etag"]

_OF_A_304 = frozenset((b"etag", b"cache-control", b"content-location", b"date", b"expires", b"vary", b"set-cookie"))
"""RFC 9110, 15.4.5: what a 304 tells of the response that it stands for; and cookies, which are for the client."""


class EtagConf(Conf):
    """What ``etag`` takes."""

    weak: bool = Field(
        default=False, description="A weak tag: for responses that another plugin, listed before this one, compresses."
    )


def etag(app: ASGIApp, conf: EtagConf) -> ASGIApp:
    """Tags responses of 200 to GET that the upstream has not tagged, and does not forbid to store."""
    mark = "W/" if conf.weak else ""

    async def tag(scope: Scope, receive: Receive, send: Send) -> None:
        # a response to HEAD has no body that could be looked at
        if scope["type"] != "http" or scope["method"] != "GET":
            await app(scope, receive, send)
            return
        wanted = Headers(scope=scope).getlist("if-none-match")
        start: Message | None = None
        body = WholeBody()

        async def tagging(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _taggable(message):
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            elif await body.add(message):
                await finish(start, body.content)

        async def finish(start: Message, body: bytes) -> None:
            value = f'{mark}"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
            headers = MutableHeaders(raw=list(start.get("headers", ())))
            headers["etag"] = value
            start["headers"] = headers.raw
            if _matches(wanted, value):
                start["status"] = 304
                start["headers"] = [header for header in headers.raw if header[0].lower() in _OF_A_304]
                body = b""
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})

        await app(scope, receive, tagging)

    return tag


def _taggable(start: Message) -> bool:
    headers = Headers(raw=list(start.get("headers", ())))
    return (
        start["status"] == 200 and "etag" not in headers and "no-store" not in headers.get("cache-control", "").lower()
    )


def _matches(wanted: list[str], value: str) -> bool:
    """The weak comparison (RFC 9110, 8.8.3.2), which is the one for If-None-Match."""
    # A tag has no quote in it, so ours with its quotes is nothing but a tag: a long list need not be taken apart.
    return any(header.strip() == "*" or value.removeprefix("W/") in header for header in wanted)
