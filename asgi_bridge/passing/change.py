"""What a plugin changes about a request that it lets go on, and about the response to it."""

from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

from ..errors import PluginError
from ..plugins.extension import layer_of

__all__ = ["Change", "Values"]

Values: TypeAlias = Mapping[str, str | list[str] | tuple[str, ...] | None]
"""Names and their new values: a text, several texts, or None, which removes the name."""

Headers: TypeAlias = list[tuple[bytes, bytes]]

_FRAMING = (b"content-length", b"transfer-encoding")


class Change:
    """What a plugin changes about a request that it lets go on, and about the response to it.

    Args:
        headers: Request headers to set, by name; None as a value removes the header. A header replaces all lines that
            the client sent under this name, also those with ``_`` for ``-``: CGI and WSGI upstreams take both for the
            same header.
        path: The new path, decoded. It begins with a slash.
        query: A text replaces the query; it is percent-encoded, without ``?``. A mapping sets the arguments of these
            names, and leaves the others.
        body: The new request body. A text is sent as UTF-8.
        response_headers: Response headers to set, by name; None as a value removes the header. ``set-cookie`` is added
            to the cookies that the response has.

    Attributes:
        body: The new request body; None: it stays.
        response_headers: Name of a response header, in lower case → its new values. None of them remove the header.

    Raises:
        PluginError: A value has the wrong type, or is nothing that HTTP can send.
    """

    def __init__(
        self,
        headers: Values | None = None,
        path: str | None = None,
        query: str | Values | None = None,
        body: str | bytes | None = None,
        response_headers: Values | None = None,
    ) -> None:
        self._headers = _lines("headers", headers)
        self._path = _checked_path(path)
        self._query = query.encode() if isinstance(query, str) else None
        self._arguments = _texts("query", {} if query is None or isinstance(query, str) else query)
        if self._query is not None and (not self._query.isascii() or self._query.startswith(b"?")):
            raise PluginError(
                f"query={query!r:.200}: a query is percent-encoded and has no leading '?'; a dict of arguments is "
                "encoded for you"
            )
        if not isinstance(body, str | bytes | None):
            raise PluginError(f"body is {type(body).__name__}; it has to be bytes or str")
        self.body = body.encode() if isinstance(body, str) else body
        self.response_headers = _lines("response_headers", response_headers)

    def request(self, scope: Scope) -> Scope:
        """Return `scope` with the changes of the request; `scope` itself if there are none.

        Args:
            scope: Of a plugin, or one that was made from it.

        Raises:
            PluginError: There is a new body, and the plugin is mounted with ``request_body=False``.
        """
        changed: dict[str, Any] = {}
        layer = layer_of(scope)
        if self._path is not None:
            changed["path"] = self._path if layer is None else layer.root + self._path
            changed["raw_path"] = None
        if self._query is not None:
            changed["query_string"] = self._query
        elif self._arguments:
            changed["query_string"] = self._with_arguments(scope["query_string"])
        headers = dict(self._headers)
        if self.body is not None:
            if layer is not None and not layer.options.request_body:
                raise PluginError(
                    "body= changes the request body, but the plugin is mounted with request_body=False: leave one of "
                    "the two out"
                )
            headers = {name: [] for name in _FRAMING} | {_FRAMING[0]: [b"%d" % len(self.body)]} | headers
        if headers:
            changed["headers"] = _merged(scope["headers"], headers)
        return {**scope, **changed} if changed else scope

    def _with_arguments(self, query: bytes) -> bytes:
        """Return `query` with the arguments of `query=` in place of those of the same names."""
        kept = [part for part in query.split(b"&") if part and _name_of(part) not in self._arguments]
        new = [
            f"{quote(name, safe='')}={quote(value, safe='')}".encode()
            for name, values in self._arguments.items()
            for value in values
        ]
        return b"&".join([*kept, *new])

    def response(self, headers: Headers) -> Headers:
        """Return the headers of a response with those of `response_headers` in place of those of the same names."""
        changes = self.response_headers
        kept = [(name, value) for name, value in headers if name.lower() not in changes or _is_added(name, changes)]
        return [*kept, *((name, value) for name, values in changes.items() for value in values)]


def _is_added(name: bytes, changes: Mapping[bytes, list[bytes]]) -> bool:
    name = name.lower()
    return name == b"set-cookie" and bool(changes[name])


def _merged(headers: Headers, changes: Mapping[bytes, list[bytes]]) -> Headers:
    """Return request headers with others in place of those of the same names, with ``_`` for ``-`` too."""
    replaced = {name.replace(b"_", b"-") for name in changes}
    kept = [(name, value) for name, value in headers if name.replace(b"_", b"-") not in replaced]
    return [*kept, *((name, value) for name, values in changes.items() for value in values)]


def _name_of(part: bytes) -> str:
    return unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")).decode("utf-8", "surrogateescape")


def _checked_path(path: str | None) -> str | None:
    if path is None or (isinstance(path, str) and path.startswith("/")):
        return path
    raise PluginError(f'path={path!r:.200}: a path is a str that begins with "/"')


def _texts(what: str, values: Values | None) -> dict[str, list[str]]:
    """Return each value as a list of texts.

    Raises:
        PluginError: A name or value is no text.
    """
    if values is not None and not isinstance(values, Mapping):
        raise PluginError(f"{what} is {type(values).__name__}; it has to be a dict, name → text")
    found: dict[str, list[str]] = {}
    for name, value in (values or {}).items():
        texts = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
        if not isinstance(name, str) or not all(isinstance(text, str) for text in texts):
            raise PluginError(
                f"{what}[{name!r:.200}] is {value!r:.200}; names and values are text, None removes a name"
            )
        found[name] = texts
    return found


def _lines(what: str, values: Values | None) -> dict[bytes, list[bytes]]:
    """Return headers as bytes, their names in lower case.

    Raises:
        PluginError: A name or value is no text, or not latin-1.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, texts in _texts(what, values).items():
        try:
            found[name.lower().encode("latin-1")] = [text.encode("latin-1") for text in texts]
        except UnicodeEncodeError:
            raise PluginError(
                f"{what}[{name!r:.200}] is not latin-1, which headers are; urllib.parse.quote makes ASCII of any text"
            ) from None
    return found
