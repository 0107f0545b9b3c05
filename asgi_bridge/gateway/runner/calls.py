"""The calls of one request: what ``ext-plugin-*`` asks the runner, and what its answers do to the request."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...wire.messages import (
    METHODS,
    ExtraInfoReq,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    ReqBody,
    Rewrite,
    Stop,
    TextEntry,
    Var,
)
from ..builtin import Refusal
from ..exchange import ClientGone, Exchange
from ..nginx.headers import LuaError
from ..nginx.uri import escape_uri
from ..nginx.variables import variable
from ..routes.route import ExtPlugin
from .client import MAX_TRIES, RunnerClient
from .connection import RunnerError, TokenNotFound

__all__ = ["Call", "Observer", "RunnerFailed", "call_runner", "configuration_key"]

logger = logging.getLogger("asgi_bridge.gateway")

# APISIX drops these of Rewrite.resp_headers, and post-resp does not copy them from the upstream's response
_DROPPED = frozenset(
    b"connection content-length transfer-encoding location server www-authenticate content-encoding content-type "
    b"content-location content-language".split()
)


@dataclass(frozen=True, slots=True)
class Call:
    """One try of a call of the runner, as an observer sees it.

    Attributes:
        route_id: Of the route; ``?`` where a global rule runs for a request without one.
        phase: ``ext-plugin-pre-req``, ``ext-plugin-post-req`` or ``ext-plugin-post-resp``.
        plugins: The names in the route's list.
        request_line: Method and target of the client's request.
        answer: What the runner answered; None: nothing that could be read.
        milliseconds: How long it took, preparation included.
        error: Why it failed; None: it did not.
        degraded: It failed, and the request goes on without the plugins.
        tries: Which try it was.
        again: It failed because the runner does not know the token. The gateway prepares again and repeats the call.
        status: What the client gets because it failed, 503 or 500; 0: this failure alone gives it no response.
    """

    route_id: str
    phase: str
    plugins: tuple[str, ...]
    request_line: str
    answer: HTTPReqCallResp | HTTPRespCallResp | None
    milliseconds: float
    error: str | None = None
    degraded: bool = False
    tries: int = 1
    again: bool = False
    status: int = 0


Observer = Callable[[Call], None]


class RunnerFailed(Exception):
    """The call failed, and the route does not allow to go on without it: 503."""


def configuration_key(exchange: Exchange, phase: str, version: int, *, of_global_rules: bool) -> str:
    """Give the key of a configuration (``plugin_ctx_id`` of core/lrucache.lua) after plugin.lua has merged the route.

    plugin.lua also merges all global rules into one, whose id is always 1 (``merge_global_rules``).
    """
    if of_global_rules:
        return f"global_rule#1#{phase}#{version}"
    route = exchange.route
    assert route is not None
    kinds, ids, versions = ["route"], [route.id], [str(version)]
    if route.plugin_config_id is not None:
        versions[0] += f"#{version}"
    consumer = None if exchange.consumer is None else exchange.consumer.username
    for kind, name in (("service", route.service_id), ("consumer", consumer)):
        if name is not None:
            kinds.append(kind)
            ids.append(name)
            versions.append(str(version))
    return f"{'&'.join(kinds)}#{'&'.join(ids)}#{phase}#{'&'.join(versions)}"


def _request_call(exchange: Exchange, number: int, token: int) -> HTTPReqCallReq:
    outgoing = exchange.outgoing
    path, question, query = outgoing.uri.partition(b"?") if outgoing.uri else (exchange.path, b"", b"")
    if question:
        # another plugin has rewritten the URI, and put the query into it
        outgoing.set_args(query)
    # APISIX reads the method as a variable, so it stays as in the first call, even if proxy-rewrite changes it
    method = exchange.variables.setdefault("method", outgoing.method.encode()).decode()
    if method not in METHODS:
        raise LuaError(f"method {method} has no number: attempt to compare nil with number")
    args: list[TextEntry] = [(name, value) for name, values in outgoing.uri_args().items() for value in values]
    headers: list[TextEntry] = [
        (name, outgoing.host if name == b"host" else value)
        for name, values in exchange.headers.table.items()
        for value in values
    ]
    return HTTPReqCallReq(number, exchange.client_address, method, path, args, headers, token)


def _response_call(exchange: Exchange, number: int, token: int) -> HTTPRespCallReq:
    fetched = exchange.fetched
    assert fetched is not None
    return HTTPRespCallReq(number, fetched.status, [*fetched.headers], token)


async def _extra_info(exchange: Exchange, asked: ExtraInfoReq) -> bytes | None:
    match asked.info:
        case Var(name):
            if name is None:
                raise LuaError("invalid argument, expect string value")
            return await variable(exchange, name)
        case ReqBody():
            return await exchange.body.read() or None
    if exchange.fetched is None:
        logger.error("failed to read response body: there is none in this phase")
        return None
    return await exchange.fetched.ask()


async def _apply(exchange: Exchange, answer: HTTPReqCallResp | HTTPRespCallResp) -> Refusal | None:
    if isinstance(answer, HTTPRespCallResp):
        assert exchange.fetched is not None
        if answer.headers:
            # trap: a single header of the runner replaces all of the upstream's
            exchange.response.take_entries(answer.headers)
        else:
            exchange.response.take_entries(exchange.fetched.headers, drop=_DROPPED, lower=False)
        return Refusal(answer.status, answer.body or None)
    match answer.action:
        case Stop(status, headers, body):
            exchange.response.take_entries(headers or ())
            return Refusal(status or 200, body or None)
        case Rewrite():
            await _rewrite(exchange, answer.action)
    # no action, or one of a later version of the protocol: the request goes on
    return None


async def _rewrite(exchange: Exchange, action: Rewrite) -> None:
    # APISIX's order matters: it has done what stands before an entry that raises
    outgoing = exchange.outgoing
    for name, value in action.headers or ():
        if name is None:
            raise LuaError('invalid header name "nil": got nil, expected string')
        exchange.set_header(name, value)
        if name.lower() == b"host":
            outgoing.host = value or b""
    if action.body:
        await exchange.replace_body(action.body)
    exchange.response.take_entries(action.resp_headers or (), drop=_DROPPED)
    if action.args:
        args = outgoing.uri_args()
        changed: set[bytes] = set()
        for name, value in action.args:
            if name is None:
                raise LuaError("table index is nil")
            if value is None:
                args.pop(name, None)
            elif name in changed:
                args.setdefault(name, []).append(value)
            else:
                args[name] = [value]
                changed.add(name)
        outgoing.set_args(args)
    if action.path is not None:
        outgoing.uri = escape_uri(action.path)
        # trap: an empty path counts (it is true in Lua), so only the query is left
        if outgoing.args:
            outgoing.uri += b"?" + outgoing.args


async def call_runner(
    runner: RunnerClient, exchange: Exchange, phase: str, plugin: ExtPlugin, key: str, observe: Observer | None
) -> Refusal | None:
    """Call the runner for one ``ext-plugin-*`` (``communicate`` in ext-plugin/init.lua).

    Args:
        runner: The way to the runner.
        exchange: The request.
        phase: Name of the ``ext-plugin-*``.
        plugin: Its configuration.
        key: That of `configuration_key`.
        observe: Called after each try.

    Returns:
        What ends the request. In the response phase: status (0: the upstream's) and body (None: the upstream's).
        None: the request goes on, be it because the runner failed and the route allows that.

    Raises:
        RunnerFailed: 503.
        LuaError: 500.
    """
    build = _response_call if phase == "ext-plugin-post-resp" else _request_call
    for tries in range(1, MAX_TRIES + 1):
        answer: HTTPReqCallResp | HTTPRespCallResp | None = None
        again = degraded = False
        error: str | None = None
        status = 0
        started = time.perf_counter()
        try:
            async with runner.call(key, plugin.conf) as (connection, number, token):
                answer = await connection.ask(build(exchange, number, token), partial(_extra_info, exchange))
                return await _apply(exchange, answer)
        except RunnerError as exc:
            error = str(exc)
            if isinstance(exc, TokenNotFound):
                runner.flush_tokens()
                logger.warning("%s: the runner lost its token: %s", exchange, exc)
                again = tries < MAX_TRIES
            degraded = plugin.allow_degradation and not again
            status = 0 if again or degraded else 503
        except LuaError as exc:
            error, status = str(exc), 500
            logger.error("%s: lua entry thread aborted: %s", exchange, exc)
            raise
        except BaseException as exc:
            error = "the client went away" if isinstance(exc, ClientGone) else f"{type(exc).__name__}: {exc}"
            raise
        finally:
            if observe is not None:
                milliseconds = (time.perf_counter() - started) * 1000
                names = tuple(plugin.names)
                observe(
                    Call(
                        exchange.route_id, phase, names, exchange.request.line, answer,
                        milliseconds, error, degraded, tries, again, status,
                    )
                )  # fmt: skip
        if not again:
            break
    logger.error("%s: %s", exchange, error)
    if not degraded:
        raise RunnerFailed(error)
    logger.warning("%s: the plugin runner is wrong, allow degradation", exchange.request.line)
    return None
