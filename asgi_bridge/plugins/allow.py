"""Files and servers that a route may name: only those that the operator's mount allows.

Whoever edits a route is not always who runs the gateway. If a route could name any file or address, the runner would
read files and call servers for the route's editor. So a plugin marks such fields with :class:`Allowed`, and the mount
says what routes may name::

    bridge.plugin("jwt-auth", allow=["https://idp.example.com/", "/etc/apisix/keys/"])(jwt_auth)

Values that the operator sets as ``defaults``, or in Python, are trusted and not checked.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from .rules import Rules, rules_of, strings_in

__all__ = ["Allowed", "allow_entry", "may_call"]

_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443", "redis": "6379", "rediss": "6379"}
"""Scheme of a URL → its default port."""
_WEB = ("http", "https", "ws", "wss")
"""Schemes whose URLs may have a query, and no password."""


class _Url(NamedTuple):
    """The parts of a URL, as they are written; None: the URL does not have the part."""

    scheme: str
    user: str | None
    host: str
    port: str | None
    path: str
    query: str | None


_URL = re.compile(
    r"([a-z][a-z0-9+.-]*)://(?:([!-~]*)@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
    r"(/[!-~]*?)?(?:\?([!-~]*))?"
)


def _split(text: str) -> _Url | None:
    """Return the parts of a URL in plain ASCII; None: it is no URL, or parsers of URLs could disagree about it."""
    found = _URL.fullmatch(text)
    if found is None or "#" in text or re.search(r"[/?#@\[\]]", found[2] or ""):
        return None
    scheme, user, host, port, path, query = found.groups()
    return _Url(scheme, user, host, port, path or "", query)


def allow_entry(text: str) -> str:
    """Check an entry of ``allow``, and return it.

    Raises:
        ValueError: No file or server can ever match it.
    """
    parts = _split(text)
    if text.startswith("/") and "\0" not in text:
        return text
    if parts is None or parts.user is not None or (parts.port is not None and int(parts.port) > 65535):
        raise ValueError(
            "an entry is the absolute path of a file or folder, or SCHEME://HOST[:PORT][/PATH]; a unix socket, or a "
            "URL with a password, is given as a default"
        )
    return text


class Allowed:
    """Marks a string, path or URL of a configuration that names a file or a server. Of a list it marks each entry.

    A route may name only what the mount's ``allow`` lists.

    * A file is an absolute path. Links are followed: the place where the file really is has to be allowed too.
    * A URL of ``http``, ``https``, ``ws`` or ``wss`` has no user and password; it may have a query.
    * A URL of another scheme may have user and password. It has no query, because drivers read options from it.
    * No URL has a fragment, blanks, control characters, backslashes, or ``.`` or ``..`` as a part of its path, nor any
      of these escaped with ``%``. A route cannot name a unix socket.

    Example::

        class Conf(BaseModel):
            url: Annotated[str, Allowed("https")]
            certificate: Annotated[str, Allowed("file")]

    Args:
        schemes: Allowed schemes of the URL, in lower case; ``"file"``: the string is the path of a file.
    """

    def __init__(self, *schemes: str) -> None:
        self._schemes = schemes

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        marked = schema["schema"] if schema["type"] == "nullable" else schema
        # a type such as FilePath checks that the file exists
        looks = "file" in self._schemes and marked["type"] != "str"
        return core_schema.with_info_wrap_validator_function(partial(self._check, looks), schema)

    def _check(
        self, looks: bool, value: Any, handler: pydantic.ValidatorFunctionWrapHandler, info: pydantic.ValidationInfo
    ) -> Any:
        rules = rules_of(info)
        texts = strings_in(value)
        if rules is None or (texts and set(texts) <= rules.own):
            return handler(value)
        if looks and isinstance(value, str):
            self._check_text(value, rules)
        checked = handler(value)
        for each in checked if isinstance(checked, list | tuple | set | frozenset) else [checked]:
            if each is not None:
                self._check_text(_text(each), rules)
        return checked

    def _check_text(self, text: str, rules: Rules) -> None:
        if text not in rules.own and not (self._file if "file" in self._schemes else self._url)(text, rules):
            raise PydanticCustomError(
                "not_allowed",
                "a route may not name this; the operator can allow it where the plugin is mounted: "
                'allow=["{example}"], or --allow',
                {"example": "/FOLDER/" if "file" in self._schemes else f"{self._schemes[0]}://HOST/"},
            )

    def _file(self, text: str, rules: Rules) -> bool:
        if not text.startswith("/") or _has_control(text):
            return False
        # first by name alone: then a route cannot make the runner look at any other file
        return any(
            _beneath(os.path.normpath(text), os.path.normpath(entry))
            and _beneath(os.path.realpath(text), os.path.realpath(entry))
            for entry in rules.allow
            if entry.startswith("/")
        )

    def _url(self, text: str, rules: Rules) -> bool:
        parts = _split(text)
        if parts is None or parts.scheme not in self._schemes:
            forms = " or ".join(f"{scheme}://" for scheme in self._schemes)
            raise PydanticCustomError(
                "no_url", "a route gives a URL that begins with {forms} and is plain ASCII", {"forms": forms}
            )
        if parts.scheme in _WEB:
            if parts.user is not None:
                raise PydanticCustomError("url_user", "a route gives this URL without user and password")
        elif parts.query is not None:
            raise PydanticCustomError("url_query", "a route gives this URL without ? and options behind it")
        decoded = unquote(parts.path, "latin-1")
        if (
            decoded.count("/") != parts.path.count("/")
            or "\\" in decoded
            or {".", ".."} & set(decoded.split("/"))
            or _has_control(unquote(text, "latin-1"))
        ):
            raise PydanticCustomError(
                "url_path", "a route gives a URL without control characters, backslashes, . and .. in it"
            )
        for entry in rules.allow:
            allowed = _split(entry)
            if (
                allowed is not None
                and _place(allowed.scheme, allowed.host, allowed.port) == _place(parts.scheme, parts.host, parts.port)
                and (
                    _beneath(parts.path or "/", allowed.path or "/")
                    if allowed.query is None
                    else (parts.path, parts.query) == (allowed.path, allowed.query)
                )
            ):
                return True
        return False


def may_call(info: pydantic.ValidationInfo, url: str) -> Callable[[str], bool]:
    """Return a function that says whether a plugin may call a URL which it learns from the server at `url`.

    It may call what its route may name. If the operator gave `url`, it may call everything at the same scheme, host and
    port, too. A model that is checked without a mount may call every URL.

    Args:
        info: Of a validator of the plugin's configuration.
        url: A URL in this configuration, which was checked as :class:`Allowed`.

    Example::

        class Conf(BaseModel):
            url: Annotated[str, Allowed("https")]

            @model_validator(mode="after")
            def _rules(self, info: ValidationInfo) -> "Conf":
                self._may_call = may_call(info, self.url)
                return self
    """
    rules = rules_of(info)
    if rules is None:
        return lambda other: True
    first = _split(url)

    def may(other: str) -> bool:
        parts = _split(other)
        if first is None or parts is None:
            return False
        if url in rules.own and _place(*_at(first)) == _place(*_at(parts)):
            return True
        try:
            Allowed(first.scheme)._check_text(other, rules)
        except PydanticCustomError:
            return False
        return True

    return may


def _at(parts: _Url) -> tuple[str, str, str | None]:
    return parts.scheme, parts.host, parts.port


def _text(value: Any) -> str:
    """Return what a validated value names, as text."""
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _place(scheme: str, host: str, port: str | None) -> tuple[str, str, int]:
    return scheme, host.lower(), int(port or _PORTS.get(scheme, "0"))


def _beneath(path: str, allowed: str) -> bool:
    """Return whether `path` is `allowed` or lies in it. Only whole components count."""
    return path == allowed or path.startswith(allowed if allowed.endswith("/") else allowed + "/")


def _has_control(text: str) -> bool:
    return any(character < " " or "\x7f" <= character <= "\x9f" for character in text)
