"""Values of a recording that stand for a secret, and whether a plugin has looked at them."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..recording.redact import MARK, is_secret_header, is_secret_variable
from ..wire import TextEntry

__all__ = ["Watch"]


class Watch:
    """Notes whether a plugin has looked at a redacted value of a call.

    Args:
        redacted: What was redacted of the call and its configuration, as the recording says.

    Attributes:
        looked_at: True: a plugin did, or may have.
    """

    def __init__(self, redacted: list[str]) -> None:
        self._redacted = bool(redacted)
        self._in_query = any(each.startswith("argument ") for each in redacted)
        self.looked_at = False

    def headers(self, entries: list[TextEntry] | None) -> list[TextEntry] | None:
        """Return headers, the redacted ones with values that are watched."""
        if entries is None or not self._redacted:
            return entries
        return [(name, self._watched(value, is_secret_header(name or b""))) for name, value in entries]

    def query(self, query: bytes) -> bytes:
        """Return a query string, watched if one of its arguments is redacted."""
        return self._watched(query, self._in_query) or b""

    def answer(self, ask: str, value: bytes | None) -> bytes | None:
        """Return an answer of the gateway, watched if it is redacted.

        Args:
            ask: What the gateway was asked for.
            value: Its answer.
        """
        if value is None or not self._redacted:
            return value
        if not ask.startswith("$"):  # a body is handed on in one piece
            self.looked_at = self.looked_at or MARK in value
            return value
        return self._watched(value, is_secret_variable(ask[1:].encode("latin-1")))

    def _watched(self, value: bytes | None, secret: bool) -> bytes | None:
        if value is None or not (secret or MARK in value):
            return value
        watched = _Watched(value)
        watched.watch = self
        return watched


class _Watched(bytes):
    """A value that notes it when Python code reads it. C code that reads its memory goes unnoticed.

    ``!=`` is not noted: the runner itself compares so.
    """

    watch: Watch


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def noting(self: _Watched, *args: Any, **kwargs: Any) -> Any:
        self.watch.looked_at = True
        return method(self, *args, **kwargs)

    return noting


for _name in (
    "__contains__", "__eq__", "__getitem__", "__iter__", "decode", "endswith", "find", "hex", "index",
    "lower", "lstrip", "partition", "removeprefix", "replace", "rpartition", "rsplit", "rstrip", "split", "startswith",
    "strip", "title", "translate", "upper",
):  # fmt: skip
    setattr(_Watched, _name, _noting(getattr(bytes, _name)))
_Watched.__hash__ = bytes.__hash__  # type: ignore[method-assign]
