"""What a route may say only where the operator's mount allows it: files, servers, and regular expressions.

Whoever edits a route is not always who runs the gateway. A route that could name any file or address would make the
runner read and call for its editor. So a plugin marks such fields with :class:`Allowed`, and the mount says what
routes may name::

    bridge.plugin("jwt-auth", allow=["https://idp.example.com/", "/etc/apisix/keys/"])(jwt_auth)

What the operator gives as ``defaults``, or builds in Python, is trusted and not looked at.

Python's regular expressions can take forever on a short text. A route gives one only where the mount has
``allow_patterns=True``, or where the field is marked with :class:`SafePattern`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = ["Allowed", "Rules", "SafePattern", "allow_entry", "guard_patterns", "may_compile"]

_CONTEXT = "asgi_bridge"
_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443", "redis": "6379", "rediss": "6379"}
_WEB = ("http", "https", "ws", "wss")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the mount of a plugin lets its routes say.

    Attributes:
        allow: files and servers that a route may name, as the option of this name has them.
        allow_patterns: whether a route may give regular expressions of Python's.
        own: strings that are the operator's own defaults, and are nowhere in what the route says.
    """

    allow: Sequence[str]
    allow_patterns: bool
    own: frozenset[str] = frozenset()

    def with_defaults(self, defaults: Mapping[str, Any], given: Any) -> "Rules":
        """The rules for `defaults` with a route's object over them."""
        if not defaults:
            return self
        chosen = {key: value for key, value in given.items() if key not in defaults or defaults[key] != value}
        kept = [value for key, value in defaults.items() if key not in chosen]
        return Rules(self.allow, self.allow_patterns, frozenset(_strings(kept)) - frozenset(_strings(chosen)))

    @property
    def context(self) -> dict[str, Any]:
        """As pydantic hands it to validators."""
        return {_CONTEXT: self}


def _strings(value: Any) -> list[str]:
    """All strings in a JSON value, but for the keys of objects."""
    found: list[str] = []
    left = [value]
    while left:  # no recursion: a route may nest deeply
        each = left.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
    return found


def _text(value: Any) -> str:
    """What a checked value names, as text."""
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _rules(info: pydantic.ValidationInfo) -> Rules | None:
    """The rules that a value is checked under; None: it is the operator's."""
    found = info.context.get(_CONTEXT) if isinstance(info.context, Mapping) else None
    return found if isinstance(found, Rules) else None


# --- files and servers ------------------------------------------------------------------------------------------------


class _Url(NamedTuple):
    """The parts of a URL, as they are written; None: not there."""

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
    """The parts of a URL that is plain ASCII; None: it is none, or one that readers of URLs could disagree about."""
    found = _URL.fullmatch(text)
    if found is None or "#" in text or re.search(r"[/?#@\[\]]", found[2] or ""):
        return None
    scheme, user, host, port, path, query = found.groups()
    return _Url(scheme, user, host, port, path or "", query)


def allow_entry(text: str) -> str:
    """One entry of ``allow``. Raises ValueError for what can never match."""
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
    """Marks a string, path or URL of a configuration that names a file or a server; of a list, each of its entries.

    A route may name one that the mount's ``allow`` lists, and no other.

    * A file is an absolute path. Links are followed: where the file really is has to be allowed.
    * A URL of ``http``, ``https``, ``ws`` or ``wss`` has no user and password; it may have a query.
    * A URL of another scheme may have user and password, and no query: drivers read options there.
    * A URL never has a fragment, blanks, control characters, backslashes, ``.`` or ``..`` as part of its path, nor any
      of these written with ``%``. A unix socket is no server that a route can name.

    Example::

        class Conf(BaseModel):
            url: Annotated[str, Allowed("https")]
            certificate: Annotated[str, Allowed("file")]

    Args:
        schemes: of the URL, in lower case; ``"file"``: the string is the path of a file.
    """

    def __init__(self, *schemes: str) -> None:
        self._schemes = schemes

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        marked = schema["schema"] if schema["type"] == "nullable" else schema
        # a type such as FilePath looks whether the file is there
        looks = "file" in self._schemes and marked["type"] != "str"
        return core_schema.with_info_wrap_validator_function(partial(self._check, looks), schema)

    def _check(
        self, looks: bool, given: Any, handler: pydantic.ValidatorFunctionWrapHandler, info: pydantic.ValidationInfo
    ) -> Any:
        rules = _rules(info)
        texts = _strings(given)
        if rules is None or (texts and set(texts) <= rules.own):
            return handler(given)
        if looks and isinstance(given, str):
            self._check_text(given, rules)
        checked = handler(given)
        for value in checked if isinstance(checked, list | tuple | set | frozenset) else [checked]:
            if value is not None:
                self._check_text(_text(value), rules)
        return checked

    def _check_text(self, text: str, rules: Rules) -> None:
        if text not in rules.own and not (self._file if "file" in self._schemes else self._url)(text, rules):
            raise PydanticCustomError(
                "not_allowed",
                'a route may not name this; who mounts the plugin can allow it: allow=["{example}"], or --allow',
                {"example": "/FOLDER/" if "file" in self._schemes else f"{self._schemes[0]}://HOST/"},
            )

    def _file(self, text: str, rules: Rules) -> bool:
        if not text.startswith("/") or _has_control(text):
            return False
        # first by name alone: a route cannot make the runner look at anything outside
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


def _place(scheme: str, host: str, port: str | None) -> tuple[str, str, int]:
    return scheme, host.lower(), int(port or _PORTS.get(scheme, "0"))


def _beneath(path: str, allowed: str) -> bool:
    """Whether `path` is `allowed` or something in it, by whole components."""
    return path == allowed or path.startswith(allowed if allowed.endswith("/") else allowed + "/")


def _has_control(text: str) -> bool:
    return any(character < " " or "\x7f" <= character <= "\x9f" for character in text)


# --- regular expressions ----------------------------------------------------------------------------------------------


class SafePattern:
    """Marks a string of a configuration that is a regular expression of an engine that cannot run away, such as RE2.

    Example::

        regex: Annotated[str, AfterValidator(re2.compile), SafePattern()]
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        metadata = {_SAFE: True}
        return core_schema.no_info_after_validator_function(_unchanged, handler(source), metadata=metadata)


_SAFE = "asgi_bridge_safe_pattern"
_NAME = re.compile(r"regex|regexp|pattern", re.IGNORECASE)
_NO_SCHEMA = ("config", "default", "expected", "members", "metadata", "serialization")


def _unchanged(value: Any) -> Any:
    return value


def _compilers() -> list[Any]:
    """Functions in a core schema that make a pattern of a string."""
    found: list[Any] = [re.compile]
    for kind in (re.Pattern, re.Pattern[str], re.Pattern[bytes]):
        schema: Any = pydantic.TypeAdapter(kind).core_schema
        found.append(schema["function"]["function"])
    return found


_COMPILERS = _compilers()


def may_compile(name: str, value: Any, rules: Rules) -> bool:
    """Whether a route's `value` for a keyword argument `name` may become a regular expression of Python's."""
    return not _NAME.search(name) or rules.allow_patterns or set(_strings(value)) <= rules.own


def guard_patterns(schema: Any) -> Any:
    """`schema` with a refusal before each regular expression that a route gives, unless its mount allows it.

    Such a field has the type ``re.Pattern``, or its name speaks of a regex or pattern and its value has text in it.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(map(guard_patterns, schema))
    if not isinstance(schema, dict):
        return schema
    kept = _NO_SCHEMA if isinstance(schema.get("type"), str) else ()
    found = {key: value if key in kept else guard_patterns(value) for key, value in schema.items()}
    if found.get("type") in ("model-fields", "typed-dict"):
        found["fields"] = {name: _guarded(name, field) for name, field in found["fields"].items()}
    elif found.get("type") == "dataclass-args":
        found["fields"] = [_guarded(field["name"], field) for field in found["fields"]]
    function = found.get("function")
    if isinstance(function, dict) and any(function.get("function") is each for each in _COMPILERS):
        return _refusing(found)
    return found


def _guarded(name: str, field: dict[str, Any]) -> dict[str, Any]:
    names = [name, *_strings(field.get("validation_alias"))]
    if not any(map(_NAME.search, names)) or _is_safe(field["schema"]):
        return field
    return {**field, "schema": _refusing(field["schema"])}


def _is_safe(schema: Any) -> bool:
    if isinstance(schema, dict):
        metadata = schema.get("metadata")
        return (isinstance(metadata, dict) and _SAFE in metadata) or any(map(_is_safe, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_is_safe, schema))


def _refusing(schema: Any) -> Any:
    if schema["type"] == "default":  # outside of it the field would have no default any more
        return {**schema, "schema": _refusing(schema["schema"])}
    return core_schema.with_info_before_validator_function(_refuse_pattern, schema)


def _refuse_pattern(value: Any, info: pydantic.ValidationInfo) -> Any:
    rules = _rules(info)
    if rules is not None and not rules.allow_patterns and not set(_strings(value)) <= rules.own:
        raise PydanticCustomError("pattern_not_allowed", PATTERN_REFUSED)
    return value


PATTERN_REFUSED = (
    "a route may not give a regular expression, since Python's can take forever; who mounts the plugin can allow it: "
    "allow_patterns=True"
)
