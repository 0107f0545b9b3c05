"""``response-rewrite``: another status, headers and body (the Go runner's example, with its configuration)."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .conf import Conf, EndToEndName, HeaderValue, Status

__all__ = ["Filter", "ResponseRewriteConf", "response_rewrite"]

_OF_THE_BODY = ("content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest")
"""They describe the body that was there before."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern.encode())
    except re.error as exc:
        raise ValueError(f"no regular expression: {exc}") from None
    return pattern


class Filter(Conf):
    """One replacement in the upstream's body."""

    regex: Annotated[str, AfterValidator(_compiles)] = Field(
        min_length=1, description="What to look for: the text of its first match is what is replaced."
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
    filters = [(re.compile(each.regex.encode()), each.scope == "once", each.replace.encode()) for each in conf.filters]
    replacement = b"" if filters else conf.body.encode()

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
                has_body = message["status"] not in (204, 304)
                # an encoded body holds no text to find
                buffering = has_body and bool(replacement or (filters and "content-encoding" not in headers))
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
            after = replacement or filtered(body)
            if scope["method"] == "HEAD" or after != body:
                headers = MutableHeaders(scope=start)
                for name in _OF_THE_BODY:
                    del headers[name]
                if replacement:
                    del headers["content-encoding"]
                if replacement or scope["method"] != "HEAD":
                    headers["content-length"] = str(len(after))
            await send(start)
            await send({"type": "http.response.body", "body": after, "more_body": False})

        await app(scope, receive, rewriting)

    return rewrite
