"""Redaction: what looks like a secret is replaced by a placeholder of the same length.

A name decides what is a secret: of a header, an argument, a cookie, a variable, a field of a configuration or of a
body. A secret that was found by its name is replaced wherever else it stands in the same call, if it is long enough to
be told from ordinary text.

The placeholder is a keyed hash. The same secret has the same placeholder in all calls of a runner, so that a plugin
which counts by an API key counts as it did. Nobody can try secrets against it without the key, which is never written.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..hiding import is_secret_name, is_secret_text, looks_secret
from ..wire import TextEntry

__all__ = ["MASK", "Redactor", "is_secret_header", "is_secret_variable", "redacted_conf"]

MIN_REPLACED = 8
"""Minimum length, in bytes, of a secret that is replaced where its name does not stand. A shorter one may be a word."""
MARK = b"redacted-"
"""The placeholder of a secret of 12 bytes or more begins with this."""
MASK = b"redacted"
"""Stands for every secret in two actions that are compared."""

_EMBEDDED = re.compile(rb"(?<![\w.\-\[\]])([\w.\-\[\]]{1,64})=([^&;\s\"'#,]+)")
"""An argument in a text: in a URL, a form, or a query."""
_MEMBER = re.compile(rb'"((?:[^"\\]|\\.){1,64})"(\s{0,8}:\s{0,8}")((?:[^"\\]|\\.)*)"')
"""A member of a JSON object whose value is a string."""
_PART = re.compile(rb'name="([^"]{1,64})"\r\n\r\n([^\r\n]*)')
"""A field of a multipart form."""
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(?:([^/?#@]*)@)?([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HASH = re.compile(r"(\$[a-z0-9-]+\$(?:v=\d+\$)?(?:[a-z]+=\d+(?:,[a-z]+=\d+)*\$)?)(.+)")
"""A hash of a password as crypt and Argon2 write it: the parameters, and the rest."""


def _is_secret(name: bytes) -> bool:
    return is_secret_name(name.decode("latin-1"))


def is_secret_header(name: bytes) -> bool:
    """Return whether the values of this header are secrets."""
    return _is_secret(name)


def is_secret_variable(name: bytes) -> bool:
    """Return whether the value of this variable of nginx is a secret."""
    return _is_secret(name.partition(b"_")[2] if name.startswith((b"http_", b"arg_")) else name)


class Redactor:
    """Replaces the secrets of one call.

    Args:
        key: Of the placeholders' hash; None: each secret becomes MASK.
        known: Secrets that are known already, and what stands for each.

    Attributes:
        known: The secrets that are replaced wherever they stand, and what stands for each.
        found: What was replaced: ``header authorization``, ``argument token``. In order, each once.
    """

    def __init__(self, key: bytes | None, known: Mapping[bytes, bytes] | None = None) -> None:
        self._key = key
        self.known: dict[bytes, bytes] = dict(known or {})
        self.found: dict[str, None] = {}

    def replaced(self, value: bytes, about: str) -> bytes:
        """Return what stands for a secret.

        Args:
            value: The secret.
            about: Where it stands.
        """
        if not value:
            return value
        self.found[about] = None
        placeholder = self._placeholder(value)
        if len(value) >= MIN_REPLACED:
            self.known[value] = placeholder
        return placeholder

    def _placeholder(self, value: bytes) -> bytes:
        if self._key is None:
            return MASK
        length = len(value)
        digest = hashlib.blake2b(value, key=self._key, digest_size=32).hexdigest().encode()
        return ((MARK + digest) if length >= 12 else digest)[:length].ljust(length, b"x")

    def header(self, name: bytes, value: bytes) -> bytes:
        """Return the value of a header, without secrets. A scheme, and the names of cookies, stay."""
        lower = name.lower()
        about = f"header {lower.decode('latin-1')}"
        if lower in (b"authorization", b"proxy-authorization"):
            scheme, blank, rest = value.partition(b" ")
            if not blank:
                return self.replaced(value, about)
            if scheme.lower() == b"basic":
                self._know_password(rest)
            return scheme + blank + self.replaced(rest, about)
        if lower == b"cookie":
            return b";".join([self._pair(part, about) for part in value.split(b";")])
        if lower == b"set-cookie":
            pair, semicolon, attributes = value.partition(b";")
            return self._pair(pair, about) + semicolon + attributes
        if _is_secret(lower):
            return self.replaced(value, about)
        return self._embedded(value, about) if b"=" in value else value

    def headers(self, entries: Sequence[TextEntry] | None) -> list[TextEntry] | None:
        """Return headers without secrets."""
        if entries is None:
            return None
        return [(name, value if name is None or not value else self.header(name, value)) for name, value in entries]

    def args(self, entries: Sequence[TextEntry] | None) -> list[TextEntry] | None:
        """Return arguments of a query without secrets."""
        if entries is None:
            return None
        return [
            (name, self.replaced(value, f"argument {name.decode('latin-1')}"))
            if name is not None and value and _is_secret(name)
            else (name, value)
            for name, value in entries
        ]

    def variable(self, name: bytes, value: bytes) -> bytes:
        """Return the value of a variable of nginx without secrets."""
        about = f"variable {name.decode('latin-1')}"
        if name.startswith(b"http_"):
            return self.header(name[5:].replace(b"_", b"-"), value)
        if is_secret_variable(name):
            return self.replaced(value, about)
        return self._embedded(value, about) if b"=" in value else value

    def body(self, content: bytes, about: str) -> bytes:
        """Return a body without the secrets in fields of JSON and of forms.

        Args:
            content: The body.
            about: Of what it is the body.
        """

        def member(match: re.Match[bytes]) -> bytes:
            name, between, value = match.groups()
            if not _is_secret(name):
                return match[0]
            return b'"%b"%b%b"' % (name, between, self.replaced(value, about))

        def part(match: re.Match[bytes]) -> bytes:
            name, value = match.groups()
            return match[0] if not _is_secret(name) else b'name="%b"\r\n\r\n%b' % (name, self.replaced(value, about))

        start = content[:64].lstrip()
        if start.startswith((b"{", b"[")):
            return _MEMBER.sub(member, content)
        if start.startswith(b"--"):
            return _PART.sub(part, content)
        return self._embedded(content, about)

    def rest(self, value: bytes) -> bytes:
        """Return `value` without the secrets that were found by their names elsewhere."""
        for secret, placeholder in self.known.items():
            if secret in value:
                value = value.replace(secret, placeholder)
        return value

    def _pair(self, pair: bytes, about: str) -> bytes:
        name, equals, value = pair.partition(b"=")
        return name + equals + self.replaced(value, about) if equals else pair

    def _embedded(self, text: bytes, about: str) -> bytes:
        def argument(match: re.Match[bytes]) -> bytes:
            name, value = match.groups()
            return match[0] if not _is_secret(name) else name + b"=" + self.replaced(value, about)

        return _EMBEDDED.sub(argument, text)

    def _know_password(self, credentials: bytes) -> None:
        """Note the password of Basic credentials: a plugin may hand it on."""
        try:
            password = base64.b64decode(credentials, validate=True).partition(b":")[2]
        except binascii.Error:
            return
        if len(password) >= MIN_REPLACED:
            self.known[password] = self._placeholder(password)


def redacted_conf(redactor: Redactor, value: bytes, fields: Iterable[str]) -> bytes:
    """Return a plugin's configuration without secrets.

    Args:
        redactor: Replaces them, and notes the paths of their fields.
        value: The configuration, JSON.
        fields: Names of the fields that are secrets, beside those that look like it.
    """
    try:
        conf = json.loads(value)
    except ValueError:
        return value
    known = frozenset(fields)

    def without(part: Any, path: str, secret: bool) -> Any:
        if isinstance(part, dict):
            return {
                name: without(
                    each,
                    f"{path}.{name}" if path else name,
                    secret or name in known or looks_secret(name, each),
                )
                for name, each in part.items()
            }
        if isinstance(part, list):
            return [without(each, path, secret) for each in part]
        return _redacted_text(redactor, part, path, secret) if isinstance(part, str) else part

    redacted = without(conf, "", False)
    if not redactor.found:
        return value
    return json.dumps(redacted, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _redacted_text(redactor: Redactor, text: str, path: str, secret: bool) -> str:
    """Return a text of a configuration without secrets. A URL and a hash stay such, where only a part is secret."""

    def replaced(part: str) -> str:
        return redactor.replaced(part.encode("utf-8", "surrogatepass"), path).decode("latin-1")

    url = _URL.fullmatch(text)
    if url is not None:
        scheme, user, host, rest = url.groups()
        before = "" if user is None else replaced(user) + "@"
        if secret and len(rest) > 1 and scheme.lower() in ("http", "https"):
            rest = rest[0] + replaced(rest[1:])
        return f"{scheme}://{before}{host}{rest}"
    if not secret:
        return replaced(text) if is_secret_text(text) else text
    hashed = _HASH.fullmatch(text)
    if hashed is not None:
        redactor.found[path] = None
        return hashed[1] + re.sub(r"[A-Za-z0-9+/]", "A", hashed[2])
    return replaced(text)
