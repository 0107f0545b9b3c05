"""An upstream in memory, which notes what it gets."""

from starlette.types import Receive, Scope, Send

__all__ = ["Upstream"]


class Upstream:
    """Answers every request with 200 and a text.

    Args:
        text: what it answers. None: the path of the request.

    Attributes:
        requests: method, target, headers and body of the requests that came.
    """

    def __init__(self, text: str | None = None) -> None:
        self.requests: list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("it has none")
        body = (await receive())["body"]
        target = scope["raw_path"] + b"?" + scope["query_string"]
        self.requests.append((scope["method"], target, list(scope["headers"]), body))
        headers = [(b"content-type", b"text/plain"), (b"x-upstream", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        text = scope["path"] if self._text is None else self._text
        await send({"type": "http.response.body", "body": text.encode()})
