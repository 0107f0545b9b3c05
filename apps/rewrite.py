"""``rewrite``: changes path, headers and arguments of the request for the upstream.

The official Python runner has an example of this name. It has no configuration, and always makes the same changes. An
empty configuration makes them here. If any field is set, only what is set is changed.
"""

from typing import Annotated, Self
from urllib.parse import quote, unquote_to_bytes, urlencode

from pydantic import Field, model_validator
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from ._shared.conf import MAX_HEADERS, Conf, EndToEndName, HeaderValue, HeaderValues, few, most

__all__ = ["RewriteConf", "rewrite"]


Argument = Annotated[str, Field(max_length=8192)]


class RewriteConf(Conf):
    """What ``rewrite`` takes."""

    path: str | None = Field(
        default=None,
        pattern="^/",
        max_length=8192,
        description="The new path, decoded, without a query.",
        examples=["/new"],
    )
    headers: Annotated[dict[EndToEndName, HeaderValue | HeaderValues | None], *most(MAX_HEADERS)] = Field(
        default={},
        description="Headers to set, all of a name at once; null deletes them.",
        examples=[{"X-Env": "test", "Cookie": None}],
    )
    args: Annotated[dict[Argument, Argument | Annotated[list[Argument], *few(100)] | None], *most(100)] = Field(
        default={}, description="Arguments of the query to set, decoded, all of a name at once; null deletes them."
    )

    @model_validator(mode="after")
    def _host_stays(self) -> Self:
        if any(name.lower() == "host" and not values for name, values in self.headers.items()):
            raise ValueError("headers: host cannot be deleted, because every request has one")
        return self


EXAMPLE = RewriteConf(path="/a6/python/runner", headers={"X-Resp-A6-Runner": "Python"}, args={"a6_runner": "Python"})
"""Changes that the example of the official Python runner makes."""


def rewrite(conf: RewriteConf) -> ASGIApp:
    """Change what is configured, and pass the request on.

    Args:
        conf: The route's configuration.
    """
    if not conf.model_fields_set:
        conf = EXAMPLE
    path = conf.path
    names = {name.lower().encode("latin-1") for name in conf.headers}
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, values in conf.headers.items()
        for value in _listed(values)
    ]
    args = urlencode([(name, value) for name, values in conf.args.items() for value in _listed(values)])

    async def change(scope: Scope, receive: Receive, send: Send) -> None:
        if path is not None:
            scope["path"] = path
            scope["raw_path"] = quote(path, safe="/:@!$&'()*+,;=~").encode("ascii")
        if names:
            scope["headers"] = [header for header in scope["headers"] if header[0] not in names] + headers
        if conf.args:
            scope["query_string"] = _changed(scope["query_string"])
        await upstream(scope, receive, send)

    def _changed(query: bytes) -> bytes:
        parts = [part for part in query.split(b"&") if part and _name(part) not in conf.args]
        return b"&".join([*parts, args.encode("ascii")] if args else parts)

    return change


def _listed(values: str | list[str] | None) -> list[str]:
    return values if isinstance(values, list) else [] if values is None else [values]


def _name(part: bytes) -> str:
    """Return the decoded name of a ``name=value`` in a query."""
    # from bytes, because a plugin mounted with exact=True may leave unescaped bytes of the client
    return unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")).decode(errors="replace")
