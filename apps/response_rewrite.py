"""``response-rewrite``: changes status, headers and body of the response. Configured as the example of the Go runner.

Filters are regular expressions of RE2, as in Go. A search takes time in proportion to the body, whatever the upstream
sends. A search that may still take long runs in a thread; the threads serve the routes in turn.
"""

import asyncio
import logging
import zlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import PluginError
from asgi_bridge.plugins.memory import remembered

from ._shared.conf import MAX_HEADERS, Conf, EndToEndName, HeaderValue, Status, Text, few, most
from ._shared.patterns import Pattern
from ._shared.turns import Full, Turns
from ._shared.whole import WholeBody

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Filter", "ResponseRewriteConf", "response_rewrite"]

_OF_THE_BODY = ("content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest")
"""Headers that describe the upstream's body."""

MAX_BODY = 2**24
"""Maximum length of a body, before and after, in bytes. The protocol allows no longer one."""
_MAX_RATIO = 1100
"""Maximum length of a text, in multiples of its length in deflate (RFC 1951)."""
MAX_FILTERS = 16
"""Maximum number of filters of one route."""
MAX_WARNED = 100
"""Maximum number of warnings for one route, one for each content-encoding."""
THREADS = 2
"""Number of threads that search bodies."""
MAX_WAITING = 16
"""Maximum number of bodies of one route that are being searched or wait."""
SHORT = 1_000_000
"""Maximum number of steps of a search on the event loop. A step takes 10 nanoseconds at most."""

logger = logging.getLogger("asgi_bridge.apps")

_turns = Turns("response-rewrite", THREADS, MAX_WAITING)


def _decoded(body: bytes, encoding: str) -> bytes | None:
    """Return the text of a compressed body; None if we cannot decode it completely."""
    if encoding in ("gzip", "x-gzip", "deflate"):
        for bits in (
            zlib.MAX_WBITS | 32,
            -zlib.MAX_WBITS,
        ):  # with a gzip or zlib header, or without any, as some servers send it
            decoder = zlib.decompressobj(bits)
            try:
                text = decoder.decompress(body, MAX_BODY)
            except zlib.error:
                continue
            # unused data is a second part, which a client would decode too
            return text if decoder.eof and not decoder.unused_data else None
    return None


def _encoding(lines: list[str]) -> str:
    """Return the encodings in the values of content-encoding headers, in lower case; empty if there are none."""
    names = [name.strip().lower() for line in lines for name in line.split(",")]
    return ", ".join(name for name in names if name not in ("", "identity"))


class Filter(Conf):
    """One replacement in the upstream's body."""

    regex: Pattern = Field(
        description="What to look for, a regular expression of RE2: the text of its first match is what is replaced.",
    )
    scope: Literal["once", "global"] = Field(
        default="once", description="Whether the first or every occurrence of that text is replaced."
    )
    replace: Text = Field(default="", description="What stands there instead, literally.")


class ResponseRewriteConf(Conf):
    """What ``response-rewrite`` takes."""

    status: Literal[0] | Status = Field(default=0, description="The new status. 0: the upstream's.")
    headers: Annotated[dict[EndToEndName, HeaderValue], *most(MAX_HEADERS)] = Field(
        default={}, description="Headers to set, over those of the upstream.", examples=[{"X-Served-By": "gateway"}]
    )
    body: Text = Field(default="", description="The new body. Empty: the upstream's. With filters it does not count.")
    filters: Annotated[list[Filter], *few(MAX_FILTERS)] = Field(
        default=[], description="Replacements in the upstream's body, one after the other."
    )


class _Route:
    """What is remembered of one route.

    Attributes:
        warned: Content-encodings that the log has a warning about.
    """

    def __init__(self) -> None:
        self.warned: set[str] = set()


class _Filters:
    """The replacements of one route."""

    def __init__(self, filters: list[Filter]) -> None:
        # the configuration has compiled the patterns
        self._filters: list[tuple[Any, int, bytes]] = [
            (each.regex, 1 if each.scope == "once" else -1, each.replace.encode()) for each in filters
        ]
        self._steps: int = sum(regex.programsize for regex, _, _ in self._filters)

    def __bool__(self) -> bool:
        return bool(self._filters)

    def short(self, body: bytes, encoding: str) -> bool:
        """Return whether the filters can search `body` on the event loop."""
        length = min(len(body) * _MAX_RATIO, MAX_BODY) if encoding else len(body)
        return self._steps * length <= SHORT

    def apply(self, body: bytes, encoding: str) -> bytes | None:
        """Return the new body; None if we cannot decode the body.

        Raises:
            PluginError: The new body would be too long.
        """
        text = _decoded(body, encoding) if encoding else body
        if text is None:
            return None
        after = text
        for regex, count, replacement in self._filters:
            match = regex.search(after)
            if match is not None and match[0]:
                after = _replaced(after, match[0], replacement, count)
        return body if after == text else after  # without a match, the upstream's own bytes


def _replaced(body: bytes, old: bytes, new: bytes, count: int) -> bytes:
    """Do ``body.replace``. Raises PluginError if the result would be too long, before it is made."""
    times = body.count(old) if count < 0 else count
    length = len(body) + times * (len(new) - len(old))
    if length > MAX_BODY:
        raise PluginError(f"the filters make a body of {length} bytes; the protocol allows {MAX_BODY}")
    return body.replace(old, new, count)


def response_rewrite(app: ASGIApp, conf: ResponseRewriteConf) -> ASGIApp:
    """Change what is configured. The body is collected only if it may change.

    Args:
        app: The next layer.
        conf: The route's configuration.
    """
    filters = _Filters(conf.filters)
    replacement = b"" if filters else conf.body.encode()
    route = remembered(_Route)

    async def filtered(body: bytes, encoding: str) -> bytes | None:
        if filters.short(body, encoding):
            return filters.apply(body, encoding)
        try:
            work: Future[bytes | None] = _turns.submit(route, partial(filters.apply, body, encoding))
        except Full:
            raise PluginError("too many bodies of this route are being searched") from None
        return await asyncio.wrap_future(work)

    async def rewrite(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start: Message = {}
        whole = WholeBody()
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
            elif await whole.add(message):
                await finish(whole.content)

        async def finish(body: bytes) -> None:
            headers = MutableHeaders(scope=start)
            encoding = _encoding(headers.getlist("content-encoding"))
            after: bytes | None = replacement
            if not replacement:
                after = body if scope["method"] == "HEAD" else await filtered(body, encoding)
            if after is None:
                after = body
                if encoding not in route.warned and len(route.warned) < MAX_WARNED:
                    route.warned.add(encoding)
                    logger.warning(
                        "response-rewrite: filters cannot search a body of content-encoding %r: let the rewrite "
                        "plugin delete Accept-Encoding in the request phase",
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
