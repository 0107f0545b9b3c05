"""What APISIX has, no user of the stand-in wants, and the recorded cases need: a plugin and some variables."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from asgi_bridge.gateway.builtin import BUILTIN, Builtin, Unsupported
from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.uri import raw
from asgi_bridge.gateway.nginx.variables import VARIABLES

__all__ = ["props"]

_VARIABLES = {
    "request_completion": b"",
    "bytes_sent": b"0",
    "body_bytes_sent": b"0",
    "limit_rate": b"0",
    "connection_requests": b"1",
    "pipe": b".",
    "tcpinfo_rtt": b"30",
    "tcpinfo_rttvar": b"15",
    "tcpinfo_snd_cwnd": b"10",
    "tcpinfo_rcv_space": b"43690",
    "_ctx": b"table: 0x7f0000000010",
    "_cache": b"table: 0x7f0000000020",
    "_request": b"cdata<void *>: 0x7f0000000030",
}

# No Lua here: the one form of function that is understood.
_SET_HEADER = re.compile(
    r"return function\(conf, ctx\) require\(['\"]apisix\.core['\"]\)\.request\.set_header"
    r"\(ctx, ['\"]([^'\"]+)['\"], ['\"]([^'\"]*)['\"]\) end"
)


def _check(conf: Any) -> None:
    functions = conf.get("functions")
    if not isinstance(functions, list) or not functions or conf.get("phase") != "rewrite":
        raise ValueError("the stand-in understands only phase: rewrite with a list of functions")
    if not all(isinstance(text, str) and _SET_HEADER.fullmatch(text) for text in functions):
        raise Unsupported("the stand-in runs no Lua")


def _rewrite(exchange: Exchange, conf: Any, consumers: Any) -> None:
    for text in conf["functions"]:
        match = _SET_HEADER.fullmatch(text)
        assert match is not None
        exchange.set_header(raw(match[1]), raw(match[2]))


@contextlib.contextmanager
def props() -> Iterator[None]:
    """Let the stand-in have serverless-pre-function, as far as the recorded cases use it, and further variables."""
    plugin = Builtin(10000, "phase functions", check=_check, rewrite=_rewrite)
    variables = {name: lambda exchange, value=value: value for name, value in _VARIABLES.items()}
    with patch.dict(BUILTIN, {"serverless-pre-function": plugin}), patch.dict(VARIABLES, variables):
        yield
