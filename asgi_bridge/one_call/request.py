"""The request of the call, and all that the gateway tells about it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote_to_bytes

from ..adapter.scope import parse_query
from ..errors import ConfigurationError
from ..wire import METHODS, HTTPReqCallReq, HTTPRespCallReq, Info, ReqBody, RespBody, TextEntry, Var

__all__ = ["Request"]

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """What a client asks for, and in the response phase what the upstream has answered.

    Attributes:
        plugins: Names and configurations of the plugins, outermost first.
        phase: The phase that the plugins are called in.
        method: HTTP method.
        path: Path, percent-encoded as in a URL, without a query.
        query: Query, likewise; None: there is none.
        headers: Names and values. A host, what APISIX adds, and the length of the body are added.
        body: The request body.
        status: Status of the upstream's response.
        response_headers: Its headers, likewise.
        response_body: Its body.
        variables: Variables of nginx and APISIX by name. They take precedence over those that follow from the rest.

    Raises:
        ConfigurationError: The protocol cannot express the method.
    """

    plugins: Sequence[tuple[str, str]]
    phase: Literal["request", "response"] = "request"
    method: str = "GET"
    path: str = "/"
    query: str | None = None
    headers: Headers = ()
    body: bytes = b""
    status: int = 200
    response_headers: Headers = ()
    response_body: bytes = b""
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigurationError(f"APISIX hands over no {self.method} requests, but only {', '.join(METHODS)}")
        object.__setattr__(self, "_all_variables", self._variables())

    @property
    def conf(self) -> list[TextEntry]:
        """The list of plugins, as APISIX sends it."""
        return [(name.encode(), conf.encode()) for name, conf in self.plugins]

    @property
    def entries(self) -> list[tuple[bytes, bytes]]:
        """The headers, as APISIX sends them."""
        given = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        names = {name for name, _ in given}
        host = dict(given).get(b"host", b"localhost")
        added = [
            (b"host", host),
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", host),
            (b"x-forwarded-port", host.rpartition(b":")[2] if b":" in host else b"80"),
        ]
        if self.body:
            added.append((b"content-length", b"%d" % len(self.body)))
        return [entry for entry in added if entry[0] not in names] + given

    @property
    def response_entries(self) -> list[tuple[bytes, bytes]]:
        """The headers of the upstream's response, with a length of its body."""
        entries = [(name.lower().encode(), value.encode()) for name, value in self.response_headers]
        if self.response_body and all(name != b"content-length" for name, _ in entries):
            entries.append((b"content-length", b"%d" % len(self.response_body)))
        return entries

    def message(self, number: int, token: int) -> HTTPReqCallReq | HTTPRespCallReq:
        """Return the message that makes the call.

        Args:
            number: Of the call.
            token: Of the list of plugins.
        """
        if self.phase == "response":
            return HTTPRespCallReq(number, self.status, list(self.response_entries), token)
        args = parse_query((self.query or "").encode())
        path = unquote_to_bytes(self.path)
        return HTTPReqCallReq(number, b"\x7f\0\0\1", self.method, path, list(args), list(self.entries), token)

    def answer(self, info: Info) -> bytes | None:
        """Answer what a runner asks in the middle of the call.

        Args:
            info: What it asks for.

        Returns:
            None: the gateway has no such thing.
        """
        match info:
            case Var(name):
                known: Mapping[str, bytes | None] = vars(self)["_all_variables"]
                return known.get((name or b"").decode("latin-1"))
            case ReqBody():
                return self.body or None
            case RespBody():
                return self.response_body or None
        return None

    def _variables(self) -> dict[str, bytes | None]:
        """Return the variables that follow from the request, and those that the user gives."""
        query = None if self.query is None else self.query.encode()
        target = self.path.encode() + (b"" if query is None else b"?" + query)
        found: dict[str, bytes | None] = {
            "args": query,
            "query_string": query,
            "uri": unquote_to_bytes(self.path),
            "request_uri": target,
            "real_request_uri": target,
            "request": b"%s %s HTTP/1.1" % (self.method.encode(), target),
            "request_method": self.method.encode(),
            "request_id": os.urandom(16).hex().encode(),
            "scheme": b"http",
            "server_protocol": b"HTTP/1.1",
            "server_addr": b"127.0.0.1",
            "server_port": b"80",
            "remote_addr": b"127.0.0.1",
            "remote_port": b"40000",
            "status": b"%d" % self.status if self.phase == "response" else None,
        }
        for name, value in self.entries:
            found["http_" + name.decode().replace("-", "_")] = value
        found["host"] = (found["http_host"] or b"").partition(b":")[0]
        found["content_type"], found["content_length"] = (
            found.get("http_content_type"),
            found.get("http_content_length"),
        )
        for name, argument in parse_query(query or b""):
            found.setdefault("arg_" + name.decode("utf-8", "replace"), argument)
        for part in (found.get("http_cookie") or b"").split(b";"):
            cookie, equals, text = part.strip().partition(b"=")
            if equals:
                found.setdefault("cookie_" + cookie.decode("utf-8", "replace"), text)
        found.update((name, text.encode()) for name, text in self.variables.items())
        return found
