"""The upstream of both sides. It gives the same answers as ASGI and as WSGI, and notes what it gets."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import brotli
from starlette.types import Receive, Scope, Send

from ..compare import Seen

__all__ = ["Upstream"]

Headers = list[tuple[str, str]]


@dataclass
class Upstream:
    """Answers as the path says, and notes its requests in `seen`."""

    seen: list[Seen] = field(default_factory=list)

    def _answer(
        self, method: str, path: str, query: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> tuple[int, Headers, list[bytes]]:
        # a server of WSGI may give an empty content-type where the request has none
        kept = tuple((name, value) for name, value in headers if (name, value) != ("content-type", ""))
        self.seen.append(Seen(method, path, query, kept, body))
        size = int(parse_qs(query).get("size", ("0",))[0])
        status, answer, parts = _page(method, path, size, body)
        if status not in (204, 304) and not path.startswith("/stream"):
            answer.append(("content-length", str(sum(map(len, parts)))))
        return status, answer, [] if method == "HEAD" else parts

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The upstream as an ASGI application."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        given = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        status, headers, parts = self._answer(
            scope["method"], scope["path"], scope["query_string"].decode("latin-1"), given, body
        )
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1] if parts else b""})

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """The upstream as a WSGI application."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        given = [
            (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
        ]
        if environ.get("CONTENT_TYPE"):
            given.append(("content-type", environ["CONTENT_TYPE"]))
        status, headers, parts = self._answer(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"].encode("latin-1").decode(),
            environ.get("QUERY_STRING", ""),
            given,
            body,
        )
        start_response(f"{status} Status", headers)
        return iter(parts)


_TEXT = ("content-type", "text/plain; charset=utf-8")
_OWN = [
    ("access-control-allow-origin", "https://own.test"),
    ("cache-control", "max-age=60"),
    ("content-security-policy", "default-src own.test"),
    ("etag", '"own"'),
    ("request-id", "own"),
    ("vary", "accept"),
    ("x-frame-options", "DENY"),
    ("x-request-id", "own"),
]
"""Headers that middleware sets too."""


def _page(method: str, path: str, size: int, body: bytes) -> tuple[int, Headers, list[bytes]]:
    kind, _, rest = path.strip("/").partition("/")
    match kind:
        case "text":
            return 200, [_TEXT], [b"All work and no play. " * (size // 22 + 1)]
        case "json":
            rows = [{"number": number, "name": "a name"} for number in range(size or 3)]
            return 200, [("content-type", "application/json")], [json.dumps(rows).encode()]
        case "page":
            headers = [("content-type", "text/html; charset=utf-8"), ("vary", "accept"), ("x-upstream", "1")]
            return 200, headers, [b"<h1>page</h1>" * 100]
        case "own":
            return 200, [_TEXT, *_OWN], [b"with headers of its own"]
        case "stream":
            return (
                200,
                [_TEXT],
                [b"part %d of a stream\n" % number for number in range(30)],
            )
        case "image":
            return 200, [("content-type", "image/png")], [b"\x89PNG" * 300]
        case "encoded":
            return (
                200,
                [("content-type", "text/css; charset=utf-8"), ("content-encoding", "br")],
                [brotli.compress(b"p { color: red } " * 80)],
            )
        case "cookies":
            headers = [_TEXT]
            return 200, headers + [("set-cookie", f"{name}=1; Path=/") for name in ("first", "second")], [b"cookies"]
        case "redirect":
            return 302, [("location", "/elsewhere?a=b"), _TEXT], [b"elsewhere"]
        case "status" if rest in ("204", "304"):
            return int(rest), [("x-upstream", "1")], []
        case "status":
            return (
                int(rest),
                [_TEXT, ("x-upstream", "1")],
                [f"status {rest}\n".encode()],
            )
        case _:
            echo = {"method": method, "path": path, "body": body.decode("latin-1")}
            return 200, [("content-type", "application/json")], [json.dumps(echo).encode()]
