"""``etag``: adds an entity tag, made of the upstream's body, and answers 304 if the client already has that body."""

import hashlib

from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._shared.conf import Conf
from ._shared.whole import WholeBody

__all__ = ["EtagConf", "etag"]

_OF_A_304 = frozenset((b"etag", b"cache-control", b"content-location", b"date", b"expires", b"vary", b"set-cookie"))
"""Headers that a 304 keeps: those of RFC 9110, 15.4.5, and cookies."""


class EtagConf(Conf):
    """What ``etag`` takes."""

    weak: bool = Field(
        default=False, description="A weak tag: for responses that another plugin, listed before this one, compresses."
    )


def etag(app: ASGIApp, conf: EtagConf) -> ASGIApp:
    """Add a tag to 200 responses to GET that have none, unless they say ``no-store``.

    Args:
        app: The next layer.
        conf: The route's configuration.
    """
    mark = "W/" if conf.weak else ""

    async def tag(scope: Scope, receive: Receive, send: Send) -> None:
        # a response to HEAD has no body to make a tag of
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
    """Compare weakly (RFC 9110, 8.8.3.2), as If-None-Match requires."""
    # A tag contains no quotes, so our tag with its quotes matches only a whole tag. The list need not be parsed.
    return any(header.strip() == "*" or value.removeprefix("W/") in header for header in wanted)
