"""Cookies that only this plugin can read and write: encrypted, authenticated, and with an end."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .headers import Headers

__all__ = ["MAX_COOKIE", "Cookie", "Sealed", "cookies_of", "set_cookie", "without_cookies"]

MAX_COOKIE = 3800
"""Maximum length of the value of a cookie. Browsers drop a cookie of more than 4096 bytes with name and attributes."""


class Sealed:
    """Seals and opens values. What is sealed for one purpose does not open for another.

    Args:
        secrets: Secrets of the operator. The first one seals, each of them opens.
        purpose: What the values are for.
    """

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        self._fernet = MultiFernet([Fernet(_key(secret, purpose)) for secret in secrets])

    def seal(self, values: Mapping[str, Any], end: float) -> str:
        """Return values in a form for a cookie.

        Args:
            values: Values that JSON has.
            end: The second since 1970 from which on they do not open any more.
        """
        return self._fernet.encrypt(json.dumps([end, values], separators=(",", ":")).encode()).decode("ascii")

    def open(self, text: bytes, now: float) -> dict[str, Any] | None:
        """Return what was sealed; None: somebody else made it, or it has ended."""
        if len(text) > MAX_COOKIE:
            return None
        try:
            end, values = json.loads(self._fernet.decrypt(text))
        except (InvalidToken, binascii.Error, ValueError):
            return None
        return values if now < end else None


def _key(secret: str, purpose: str) -> bytes:
    key = HKDF(SHA256(), 32, None, b"asgi_bridge " + purpose.encode()).derive(secret.encode())
    return base64.urlsafe_b64encode(key)


Cookie = tuple[str, bytes]
"""Name and value."""


def _is_of(cookie: bytes, name: bytes) -> bool:
    """Return whether a cookie has this name, or one that begins with it and a dot."""
    return cookie.startswith((name + b"=", name + b"."))


def cookies_of(headers: Headers, name: str) -> list[Cookie]:
    """Return the cookies of a request that have a name, or one that begins with it and a dot.

    All others are passed over, unread.
    """
    own = name.encode("ascii")
    cookies = (
        each.strip() for key, value in headers if key == b"cookie" and own in value for each in value.split(b";")
    )
    found = []
    for each in cookies:
        if _is_of(each, own):
            key, _, content = each.partition(b"=")
            found.append((key.decode("latin-1"), content))
    return found


def without_cookies(headers: Headers, name: str) -> Headers:
    """Return the headers of a request without the cookies that `cookies_of` returns."""
    own = name.encode("ascii")
    kept: Headers = []
    for key, value in headers:
        if key == b"cookie" and own in value:
            value = b";".join(each for each in value.split(b";") if not _is_of(each.strip(), own)).strip()
            if not value:
                continue
        kept.append((key, value))
    return kept


def set_cookie(name: str, value: str, seconds: int, secure: bool) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie for the whole host.

    Args:
        name: Its name.
        value: Its value; may be empty.
        seconds: Its age; 0 deletes it.
        secure: Whether the browser sends it over HTTPS alone.
    """
    text = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
    return b"set-cookie", text.encode("ascii")
