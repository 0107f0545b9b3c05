"""The built-in upstream: an ASGI application that answers with what it got."""

from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from asgi_bridge.echo import echo_request
from asgi_bridge.gateway.exchange import target_of
from asgi_bridge.gateway.uri import split_authority

__all__ = ["echo"]


def _target(scope: Any) -> bytes:
    return split_authority(target_of(scope))[1]


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer with JSON of method, raw target, path, query, headers (a list of pairs) and body.

    A body that is not UTF-8 comes as ``{"base64": ...}``. Bytes of headers and targets are shown as latin-1.
    """
    await echo_request(cast("Any", scope), cast("Any", receive), cast("Any", send), _target)
