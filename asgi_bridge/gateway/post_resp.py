"""The response phase: ext-plugin-post-resp fetches the upstream's response itself, asks the runner, and answers."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from .builtin import Refusal, with_error_response
from .exchange import ActivePlugins, Breaks, CutOff, Exchange
from .nginx.answer import exit_with, send_generated, send_page
from .nginx.headers import LuaError, ResponseHeaders
from .runner.calls import RunnerFailed
from .upstream import Request, Response, UpstreamError
from .upstream.requests import fetch_request

__all__ = ["POST_RESP", "ResponsePhase"]

logger = logging.getLogger("asgi_bridge.gateway")

POST_RESP = "ext-plugin-post-resp"
"""The plugin of APISIX that lists a runner's plugins for the response phase."""


@dataclass(frozen=True, slots=True)
class ResponsePhase:
    """Runs the lists of ext-plugin-post-resp.

    Attributes:
        send: Sends a request upstream.
        call: Calls the runner for the list of some plugins.
    """

    send: Callable[[Request], contextlib.AbstractAsyncContextManager[Response]]
    call: Callable[[Exchange, str, ActivePlugins], Awaitable[Refusal | None]]

    async def answer(self, exchange: Exchange, lists: list[ActivePlugins]) -> bool:
        """Fetch the upstream's response, ask the runner and answer.

        Args:
            exchange: The request.
            lists: The plugins that have such a list: those of global rules, those of the route.

        Returns:
            False: nothing was sent, so nginx proxies the request after all. Trap: that is a second request upstream,
            and happens whenever there is nothing to send: HEAD, 204, 304, a chunked body without a chunk, a body that
            was asked for and cannot be read.
        """
        for number, plugins in enumerate(lists, 1):
            try:
                async with self._fetched(exchange) as fetched:
                    sent = await self._respond(exchange, fetched, plugins, lists[number:])
            except UpstreamError as exc:
                logger.error("%s: failed to request: %s", exchange.request.line, exc)
                refusal = with_error_response(Refusal(502), plugins.plugins.ext[POST_RESP].error_response)
                await exit_with(exchange, refusal.status, refusal.body)
                return True
            if sent:
                return True
        return False

    @contextlib.asynccontextmanager
    async def _fetched(self, exchange: Exchange) -> AsyncIterator[Response]:
        """Fetch the response.

        Raises:
            Breaks: The upstream would wait for ever.
            UpstreamError: There is none.
        """
        assert exchange.upstream is not None
        exchange.node = exchange.upstream.node
        _check_fetch(exchange, await exchange.body.read())
        async with self.send(fetch_request(exchange)) as response:
            exchange.fetched = response
            yield exchange.fetched

    async def _respond(
        self,
        exchange: Exchange,
        fetched: Response,
        plugins: ActivePlugins,
        further: list[ActivePlugins],
    ) -> bool:
        """Ask the runner what to do with a fetched response, and do it. Returns what `answer` does."""
        after = self._after_response(exchange, further) if further else None
        try:
            answer = await self.call(exchange, POST_RESP, plugins) or Refusal(0)
        except RunnerFailed:
            # the client gets 503, but with the upstream's body
            answer = Refusal(503)
        except LuaError:
            await send_page(exchange, 500)
            return True
        status = answer.status or fetched.status
        if answer.body is not None:
            refusal = with_error_response(Refusal(status, answer.body), plugins.plugins.ext[POST_RESP].error_response)
            await exit_with(exchange, status, refusal.body)
            return True
        names = {name.lower() for name, _ in fetched.headers}
        chunked = b"transfer-encoding" in names
        if exchange.outgoing.method == "HEAD" or fetched.status in (204, 304):
            return False
        if not fetched.asked and not chunked and b"content-length" in names and await fetched.ask() is None:
            # lua-resty-http reads a body of known length in one piece, and gives nothing of one that is cut short
            await send_page(exchange, 502)
            return True
        if fetched.asked:
            if fetched.body is None or (chunked and not fetched.body):
                return False
            await send_generated(exchange, status, fetched.body, after=after)
            return True
        # `answer` sends 502 for an error before the first chunk
        first = await anext(fetched.chunks, None)
        if first is None and chunked:
            # for an empty body lua-resty-http gives one empty string, but nothing for a chunked one
            return False
        await send_generated(exchange, status, first or b"", _rest(exchange, fetched.chunks), after)
        return True

    async def _after_response(self, exchange: Exchange, lists: list[ActivePlugins]) -> AsyncIterator[bytes]:
        """Run further lists although the client has its response already.

        Trap: APISIX calls the upstream once more for each, and breaks the client's connection, because Lua cannot set
        headers any more.

        Raises:
            CutOff: Always, unless the call fails or there is no header to set.
        """
        length = exchange.response.content_length
        exchange.response = ResponseHeaders(sent=True)
        for plugins in lists:
            try:
                async with self._fetched(exchange) as fetched:
                    answer = await self.call(exchange, POST_RESP, plugins) or Refusal(0)
                    if length is not None:
                        raise CutOff(f"more bytes than Content-Length: {length}")
                    if answer.body is not None:
                        yield answer.body
                        return
                    async for chunk in _rest(exchange, fetched.chunks):
                        yield chunk
            except RunnerFailed:
                return
            except LuaError as exc:
                raise CutOff(f"{exc}: ext-plugin-post-resp is in a global rule and on the route") from exc
            except Breaks as exc:
                raise CutOff(f"APISIX would have {exc}") from exc
            except UpstreamError as exc:
                logger.error("%s: failed to request: %s", exchange.request.line, exc)
                return


async def _rest(exchange: Exchange, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give the chunks after the first one. A body that breaks off here ends as if it were whole, as in APISIX."""
    try:
        async for chunk in chunks:
            yield chunk
    except UpstreamError as exc:
        logger.error("%s: read response failed: %s", exchange.request.line, exc)


def _check_fetch(exchange: Exchange, body: bytes) -> None:
    """Check whether the upstream can read the request of post-resp, which has the headers of the Lua table.

    Raises:
        Breaks: The upstream would wait for ever.
    """
    if exchange.body.unread:
        raise Breaks(exchange.body.what_becomes_of_the_rest)
    table = exchange.headers.table
    if b"transfer-encoding" in table:
        raise Breaks("left the upstream waiting: Transfer-Encoding: chunked, but the body is sent as it is")
    declared = table.get(b"content-length", [b"%d" % len(body)])[-1]
    if not declared.isdigit() or int(declared) > len(body):
        raise Breaks(f"left the upstream waiting: Content-Length: {declared.decode('latin-1')} for {len(body)} bytes")
    if int(declared) < len(body):
        logger.warning(
            "%s: a plugin has changed the body: ext-plugin-post-resp sends %d bytes under the old "
            "Content-Length: %d, and the upstream takes the rest for another request",
            exchange,
            len(body),
            int(declared),
        )
