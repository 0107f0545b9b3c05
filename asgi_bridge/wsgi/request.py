"""What WSGI code asks of its request while it runs: the body, and the gateway's variables."""

import io
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from ..plugins import Apisix

__all__ = ["Input", "WSGIApisix"]


class WSGIApisix(Mapping[str, Any]):
    """``environ["asgi_bridge.apisix"]``: the entries of :class:`asgi_bridge.Apisix`, and ``var`` for a thread."""

    __slots__ = ("_ask", "_extension")

    def __init__(self, extension: Apisix, ask: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._extension = extension
        self._ask = ask

    def __getitem__(self, key: str) -> Any:
        return self.var if key == "var" else self._extension[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._extension)

    def __len__(self) -> int:
        return len(self._extension)

    @property
    def plugin(self) -> str:
        return self._extension.plugin

    @property
    def phase(self) -> str:
        return self._extension.phase

    @property
    def conf(self) -> Any:
        return self._extension.conf

    @property
    def route_id(self) -> str | None:
        return self._extension.route_id

    @property
    def request_id(self) -> str | None:
        return self._extension.request_id

    def var(self, *names: str) -> Any:
        """Asks the gateway: ``var("consumer_name")`` is ``bytes | None``; several names: a dict, in one round trip."""
        extension: Any = self._extension

        async def ask() -> Any:
            return await extension.var(*names)

        return self._ask(ask)


class Input:
    """``wsgi.input``: the request body, asked for when somebody reads it."""

    __slots__ = ("_body", "_file", "_fetch")

    def __init__(self, fetch: Callable[[], bytes]) -> None:
        self._fetch = fetch
        self._file: io.BytesIO | None = None
        self._body = b""

    @property
    def body(self) -> bytes | None:
        """All of it; None: nobody has read of it."""
        return None if self._file is None else self._body

    def read_ahead(self) -> int:
        """Fetches the body; gives its length in bytes."""
        self._opened()
        return len(self._body)

    def drop(self) -> None:
        """Forgets what has been read already."""
        if self._file is not None:
            self._file = io.BytesIO(self._file.read())
            self._body = b""

    def _opened(self) -> io.BytesIO:
        if self._file is None:
            self._body = self._fetch()
            self._file = io.BytesIO(self._body)
        return self._file

    def read(self, size: int | None = -1) -> bytes:
        return self._opened().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._opened().readline(size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return self._opened().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._opened())
