"""The calls of one request: what ``ext-plugin-*`` asks the runner, and what its answers do to the request."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from asgi_bridge.gateway.builtin import Refusal
from asgi_bridge.gateway.exchange import ClientGone, Exchange
from asgi_bridge.gateway.nginx.headers import LuaError
from asgi_bridge.gateway.nginx.uri import escape_uri
from asgi_bridge.gateway.nginx.variables import variable
from asgi_bridge.gateway.routes.route import ExtPlugin
from asgi_bridge.gateway.runner.client import MAX_TRIES, RunnerClient
from asgi_bridge.gateway.runner.connection import RunnerError, TokenNotFound
from asgi_bridge.wire.messages import (
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

__all__ = ["Call", "Observer", "RunnerFailed", "call_runner", "configuration_key"]

logger = logging.getLogger("asgi_bridge.gateway")

# Rewrite.resp_headers are dropped when they are named here; post-resp copies all but these from the upstream
NOT_FROM_RUNNER = frozenset(
    b"connection content-length transfer-encoding location server www-authenticate content-encoding content-type "
    b"content-location content-language".split()
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the runner, for whoever watches.

    Attributes:
        route_id: of the route; ``?`` where a global rule runs for a request without one.
        phase: ``ext-plugin-pre-req``, ``ext-plugin-post-req`` or ``ext-plugin-post-resp``.
        plugins: the names in the route's list.
        request_line: method and target of the client's request.
        answer: what the runner answered; None: nothing that could be read.
        milliseconds: how long it took, preparation included.
        error: why it failed; None: it did not.
        degraded: it failed, and the request goes on without the plugins.
        tries: which try it was.
        again: it failed since the runner does not know the token; the gateway prepares again and repeats the call.
        status: what the client gets because it failed, 503 or 500; 0: this failure alone gives it no response.
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
    """The call failed and nothing allows to go on: 503."""


def configuration_key(exchange: Exchange, phase: str, version: int, *, of_global_rules: bool) -> str:
    """``plugin_ctx_id`` of core/lrucache.lua, over what plugin.lua has merged into the route.

    Global rules are merged too, into one whose id is always 1 (``merge_global_rules``).
    """
    if of_global_rules:
        return f"global_rule#1#{phase}#{version}"
    route = exchange.route
    assert route is not None
    kinds, ids, versions = ["route"], [route.id], [str(version)]
    if route.plugin_config_id is not None:
        versions[0] += f"#{version}"
    if route.service_id is not None:
        kinds.append("service")
        ids.append(route.service_id)
        versions.append(str(version))
    if exchange.consumer is not None:
        kinds.append("consumer")
        ids.append(exchange.consumer.username)
        versions.append(str(version))
    return f"{'&'.join(kinds)}#{'&'.join(ids)}#{phase}#{'&'.join(versions)}"


def _request_call(exchange: Exchange) -> Callable[[int, int], HTTPReqCallReq]:
    path, question, query = exchange.upstream_uri.partition(b"?")
    if not exchange.upstream_uri:
        path = exchange.path
    elif question:
        # another plugin has rewritten the URI, and put the query into it
        exchange.set_args(query)

    def build(number: int, token: int) -> HTTPReqCallReq:
        # a variable too, so it stays as the first call had it, whatever proxy-rewrite makes of the method
        method = exchange.variables.setdefault("method", exchange.method.encode()).decode()
        if method not in METHODS:
            raise LuaError(f"method {method} has no number: attempt to compare nil with number")
        args: list[TextEntry] = [(name, value) for name, values in exchange.uri_args().items() for value in values]
        headers: list[TextEntry] = [
            (name, exchange.upstream_host if name == b"host" else value)
            for name, values in exchange.headers.table.items()
            for value in values
        ]
        return HTTPReqCallReq(number, exchange.src_ip, method, path, args, headers, token)

    return build


def _response_call(exchange: Exchange) -> Callable[[int, int], HTTPRespCallReq]:
    source = exchange.source
    assert source is not None
    headers: list[TextEntry] = list(source.headers)
    return lambda number, token: HTTPRespCallReq(number, source.status, headers, token)


async def _tell(exchange: Exchange, asked: ExtraInfoReq) -> bytes | None:
    match asked.info:
        case Var(name):
            if name is None:
                raise LuaError("invalid argument, expect string value")
            return await variable(exchange, name)
        case ReqBody():
            return await exchange.read_body() or None
    if exchange.source is None:
        logger.error("failed to read response body: there is none in this phase")
        return None
    return await exchange.source.ask()


async def _apply_request(exchange: Exchange, answer: HTTPReqCallResp | HTTPRespCallResp) -> Refusal | None:
    assert isinstance(answer, HTTPReqCallResp)
    match answer.action:
        case Stop(status, headers, body):
            exchange.response.take_entries(headers or ())
            return Refusal(status or 200, body or None)
        case Rewrite():
            await _rewrite(exchange, answer.action)
    # no action, or one of a later version of the protocol: the request goes on
    return None


async def _rewrite(exchange: Exchange, action: Rewrite) -> None:
    # in APISIX's order: what stands before an entry that raises has been done
    for name, value in action.headers or ():
        if name is None:
            raise LuaError('invalid header name "nil": got nil, expected string')
        exchange.set_header(name, value)
        if name.lower() == b"host":
            exchange.upstream_host = value or b""
    if action.body:
        await exchange.replace_body(action.body)
    exchange.response.take_entries(action.resp_headers or (), drop=NOT_FROM_RUNNER)
    if action.args:
        args = exchange.uri_args()
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
        exchange.set_args(args)
    if action.path is not None:
        exchange.upstream_uri = escape_uri(action.path)
        # trap: an empty path counts as one (it is true in Lua), so that only the query is left
        if exchange.args:
            exchange.upstream_uri += b"?" + exchange.args


async def _apply_response(exchange: Exchange, answer: HTTPReqCallResp | HTTPRespCallResp) -> Refusal | None:
    assert isinstance(answer, HTTPRespCallResp) and exchange.source is not None
    if answer.headers:
        # trap: one header of the runner's, and none of the upstream's is left
        exchange.response.take_entries(answer.headers)
    else:
        exchange.response.take_entries(exchange.source.headers, drop=NOT_FROM_RUNNER, lower=False)
    return Refusal(answer.status, answer.body or None)


async def call_runner(
    runner: RunnerClient, exchange: Exchange, phase: str, plugin: ExtPlugin, key: str, observe: Observer | None
) -> Refusal | None:
    """Call the runner for one ``ext-plugin-*`` (``communicate`` in ext-plugin/init.lua).

    Returns:
        What ends the request. In the response phase: status (0: the upstream's) and body (None: the upstream's).
        None: the request goes on, be it because the runner failed and the route allows that.

    Raises:
        RunnerFailed: 503.
        LuaError: 500.
    """
    if phase == "ext-plugin-post-resp":
        build: Callable[[int, int], HTTPReqCallReq | HTTPRespCallReq] = _response_call(exchange)
        apply = _apply_response
    else:
        build = _request_call(exchange)
        apply = _apply_request
    answer: HTTPReqCallResp | HTTPRespCallResp | None = None

    async def applied(message: HTTPReqCallResp | HTTPRespCallResp) -> Refusal | None:
        nonlocal answer
        answer = message
        return await apply(exchange, message)

    tries = 0
    while True:
        tries += 1
        again = degraded = False
        error: str | None = None
        status = 0
        started = time.perf_counter()
        try:
            return await runner.call(key, plugin.conf, build, lambda asked: _tell(exchange, asked), applied)
        except TokenNotFound as exc:
            error = str(exc)
            runner.flush_tokens()
            logger.warning(
                "%s (route %s): the runner lost its token: %s", exchange.request_line, exchange.route_id, exc
            )
            again = tries < MAX_TRIES
            degraded = plugin.allow_degradation and not again
            status = 0 if again or degraded else 503
        except RunnerError as exc:
            error = str(exc)
            degraded = plugin.allow_degradation
            status = 0 if degraded else 503
        except LuaError as exc:
            error = str(exc)
            status = 500
            logger.error("%s (route %s): lua entry thread aborted: %s", exchange.request_line, exchange.route_id, exc)
            raise
        except BaseException as exc:
            error = "the client went away" if isinstance(exc, ClientGone) else f"{type(exc).__name__}: {exc}"
            raise
        finally:
            if observe is not None:
                call = Call(
                    exchange.route_id, phase, tuple(plugin.names), exchange.request_line, answer,
                    (time.perf_counter() - started) * 1000, error, degraded, tries, again, status,
                )  # fmt: skip
                observe(call)
        if again:
            continue
        logger.error("%s (route %s): %s", exchange.request_line, exchange.route_id, error)
        if not degraded:
            raise RunnerFailed(error)
        logger.warning("%s: the plugin runner is wrong, allow degradation", exchange.request_line)
        return None
