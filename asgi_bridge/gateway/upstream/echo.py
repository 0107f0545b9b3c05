"""The built-in upstream: an ASGI application that answers with what it got."""

from starlette.types import Receive, Scope, Send

from ...echo import echo_request
from ..nginx.request import target_of
from ..nginx.uri import split_authority

__all__ = ["echo"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with JSON of method, raw target, path, query, headers and body, as `echo_request` does."""
    await echo_request(scope, receive, send, _target)


def _target(scope: Scope) -> bytes:
    return split_authority(target_of(scope))[1]
