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


def cookies_of(headers: Headers, prefix: str) -> list[Cookie]:
    """Return the cookies of a request whose names begin with `prefix`. All others are passed over, unread."""
    found = []
    start = prefix.encode("ascii")
    for name, value in headers:
        if name == b"cookie" and start in value:
            for each in value.split(b";"):
                key, _, content = each.strip().partition(b"=")
                if key.startswith(start):
                    found.append((key.decode("latin-1"), content.strip()))
    return found


def without_cookies(headers: Headers, prefix: str) -> Headers:
    """Return the headers of a request without the cookies whose names begin with `prefix`."""
    start = prefix.encode("ascii")
    kept: Headers = []
    for name, value in headers:
        if name == b"cookie" and start in value:
            left = [each for each in value.split(b";") if not each.strip().startswith(start)]
            value = b";".join(left).strip()
            if not value:
                continue
        kept.append((name, value))
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
