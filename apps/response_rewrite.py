"""``response-rewrite``: another status, headers and body (the Go runner's example, with its configuration).

Filters are RE2's regular expressions, as in Go: what they take grows with the body, and no body of an upstream can make
one hold up the runner.
"""

import logging
import zlib
from typing import Annotated, Literal

import re2  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .conf import Conf, EndToEndName, HeaderValue, Status

__all__ = ["Filter", "ResponseRewriteConf", "response_rewrite"]

_OF_THE_BODY = ("content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest")
"""They describe the body that was there before."""


_MAX_BODY = 2**24
"""No longer body can be handed over in any case."""

logger = logging.getLogger("asgi_bridge.apps")

_quiet = re2.Options()
_quiet.log_errors = False


def _compiles(pattern: str) -> str:
    try:
        re2.compile(pattern.encode(), _quiet)
    except re2.error as exc:
        raise ValueError(f"no regular expression of RE2: {_reason(exc)}") from None
    return pattern


def _reason(exc: Exception) -> str:
    (reason,) = exc.args
    return reason.decode() if isinstance(reason, bytes) else str(reason)


def _decoded(body: bytes, encoding: str) -> bytes | None:
    """The text of a compressed body; None: it cannot be had."""
    if encoding in ("gzip", "x-gzip", "deflate"):
        for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # with a header of gzip or zlib, or, of some servers, none
            decoder = zlib.decompressobj(bits)
            try:
                text = decoder.decompress(body, _MAX_BODY)
            except zlib.error:
                continue
            return text if decoder.eof else None
    return None


class Filter(Conf):
    """One replacement in the upstream's body."""

    regex: Annotated[str, AfterValidator(_compiles)] = Field(
        min_length=1,
        description="What to look for, a regular expression of RE2: the text of its first match is what is replaced.",
    )
    scope: Literal["once", "global"] = Field(
        "once", description="Whether the first or every occurrence of that text is replaced."
    )
    replace: str = Field("", description="What stands there instead, literally.")


class ResponseRewriteConf(Conf):
    """What ``response-rewrite`` takes."""

    status: Literal[0] | Status = Field(0, description="The new status. 0: the upstream's.")
    headers: dict[EndToEndName, HeaderValue] = Field({}, description="Headers to set, over those of the upstream.")
    body: str = Field("", description="The new body. Empty: the upstream's. With filters it does not count.")
    filters: list[Filter] = Field([], description="Replacements in the upstream's body, one after the other.")


def response_rewrite(app: ASGIApp, conf: ResponseRewriteConf) -> ASGIApp:
    """Changes what is configured; the body is buffered where it may change."""
    filters = [
        (re2.compile(each.regex.encode(), _quiet), each.scope == "once", each.replace.encode()) for each in conf.filters
    ]
    replacement = b"" if filters else conf.body.encode()
    warned: set[str] = set()

    def filtered(body: bytes) -> bytes:
        for regex, once, replace in filters:
            match = regex.search(body)
            if match is not None and match[0]:
                body = body.replace(match[0], replace, 1 if once else -1)
        return body

    async def rewrite(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []
        buffering = False

        async def rewriting(message: Message) -> None:
            nonlocal start, buffering
            if message["type"] == "http.response.start":
                message["status"] = conf.status or message["status"]
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                for name, value in {"X-Resp-A6-Runner": "Python", **conf.headers}.items():
                    headers[name] = value
                message["headers"] = headers.raw
                buffering = message["status"] not in (204, 304) and bool(replacement or filters)
                start = message
                if not buffering:
                    await send(message)
            elif not buffering or message["type"] != "http.response.body":
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await finish(b"".join(parts))

        async def finish(body: bytes) -> None:
            headers = MutableHeaders(scope=start)
            encoding = headers.get("content-encoding", "").lower()
            text = body if replacement or not encoding or scope["method"] == "HEAD" else _decoded(body, encoding)
            after = body
            if text is not None:
                after = replacement or filtered(text)
                if after == text:
                    after = body  # where nothing was found, the upstream's own bytes
            elif encoding not in warned:
                warned.add(encoding)
                logger.warning(
                    "response-rewrite: filters find nothing in a body of content-encoding %r: have the rewrite plugin "
                    "delete Accept-Encoding in the request phase",
                    encoding,
                )
            if scope["method"] == "HEAD" or after != body:
                for name in _OF_THE_BODY:
                    del headers[name]
                if after != body:
                    del headers["content-encoding"]
                if replacement or scope["method"] != "HEAD":
                    headers["content-length"] = str(len(after))
            await send(start)
            await send({"type": "http.response.body", "body": after, "more_body": False})

        await app(scope, receive, rewriting)

    return rewrite
