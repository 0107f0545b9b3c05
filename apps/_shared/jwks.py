"""Keys that verify tokens: their algorithms, JSON Web Key Sets (RFC 7517), and how a set is read and kept fresh.

The type of a key decides its algorithms. A public key is never used as a secret, whatever the header of a token says.
"""

import asyncio
import errno
import json
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from asgi_bridge import ConfigurationError

from .turns import Full, Turns

__all__ = [
    "MAX_TRIED", "KeySet", "KeysUnavailable", "TooManyKeys", "VerificationKey", "key_of_pem", "key_of_secret",
    "reader_of", "select",
]  # fmt: skip

logger = logging.getLogger("asgi_bridge.apps")

READ_SECONDS = 3.0
"""Timeout for reading a set, in seconds. A call has 30 by default, and several may wait for the same set."""
MAX_BYTES = 256 * 1024
"""Maximum length of a set, in bytes."""
MAX_KEYS = 100
"""Number of keys of a set that are read. Further ones are ignored."""
MAX_TRIED = 4
"""Maximum number of keys that one token is tried with. With the slowest keys, each attempt takes a millisecond."""
MAX_READS = 8
"""Number of sets that are read at the same time, each in a thread."""

_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithm → minimum length of a secret, in bytes (RFC 7518, 3.2)."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""Elliptic curve → its algorithm."""
_RSA_BITS = range(2048, 8193)
"""Lengths of RSA keys that are accepted, in bits."""
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that verifies tokens.

    Attributes:
        kid: The id of the key. A key without an id (None) is tried for every token.
        algorithms: The algorithms that it may be used with.
        key: The key for PyJWT.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class TooManyKeys(Exception):
    """More than :data:`MAX_TRIED` keys could have signed a token, too many to try them all."""


class KeysUnavailable(Exception):
    """A key set cannot be read, and the keys from before are too old."""


def _algorithms(key: object) -> frozenset[str]:
    """Return the algorithms that `key` may be used with; none for an unsupported key."""
    if isinstance(key, bytes):
        return frozenset(name for name, length in _HMAC.items() if len(key) >= length)
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size in _RSA_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset(name for curve, name in _CURVES.items() if curve == key.curve.name)
    return frozenset(("EdDSA",)) if isinstance(key, Ed25519PublicKey) else frozenset()


def key_of_secret(kid: str | None, secret: bytes) -> VerificationKey:
    """Make a key of a secret.

    Args:
        kid: The id of the key, or None.
        secret: The shared secret.

    Raises:
        ValueError: The secret is the text of a public key, or too short.
    """
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-", b"ecdsa-sha2-", b"{")):
        raise ValueError("this secret is the text of a key (PEM, SSH or JSON): put a public key into public_key")
    algorithms = _algorithms(secret)
    if not algorithms:
        raise ValueError("a secret needs 32 bytes or more, 48 for HS384 and 64 for HS512 (RFC 7518, 3.2)")
    return VerificationKey(kid, algorithms, secret)


def key_of_pem(kid: str | None, pem: str) -> VerificationKey:
    """Make a key of the PEM text of a public key.

    Args:
        kid: The id of the key, or None.
        pem: Begins with ``-----BEGIN PUBLIC KEY-----``.

    Raises:
        ValueError: The text is malformed, or the key is unsupported or unsafe.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):  # its text may contain the key
        raise ValueError('a public key has to be PEM text that begins with "-----BEGIN PUBLIC KEY-----"') from None
    algorithms = _algorithms(key)
    if not algorithms:
        raise ValueError("a public key has to be RSA of 2048 to 8192 bits, EC on P-256, P-384 or P-521, or Ed25519")
    return VerificationKey(kid, algorithms, key)


def keys_of_set(text: bytes) -> list[VerificationKey]:
    """Return those keys of a JSON Web Key Set that can verify tokens. The others are ignored (RFC 7517, 5).

    Raises:
        ValueError: `text` is no key set, or has no such key.
    """
    parsed = json.loads(text)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JSON Web Key Set")
    keys = [key for key in map(_key_of_jwk, listed[:MAX_KEYS]) if key is not None]
    if not keys:
        raise ValueError("no key that can verify")
    return keys


def _key_of_jwk(jwk: object) -> VerificationKey | None:
    if not isinstance(jwk, dict):
        return None
    kid, operations = jwk.get("kid"), jwk.get("key_ops")
    if not isinstance(kid, str | None) or jwk.get("use", "sig") != "sig":
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    try:
        key = jwt.PyJWK(jwk)
    except Exception:  # the data is foreign: on any error the key is ignored
        return None
    algorithms = _algorithms(key.key)
    if "alg" in jwk:
        algorithms &= {jwk["alg"]}
    return VerificationKey(kid, algorithms, key.key) if algorithms else None


def select(keys: Sequence[VerificationKey], kid: str | None, algorithm: str) -> list[VerificationKey]:
    """Return those of `keys` that could have signed a token.

    Args:
        keys: The keys to choose from.
        kid: The key's id in the header of the token; None if it names none.
        algorithm: The algorithm in the header of the token.

    Raises:
        TooManyKeys: More than :data:`MAX_TRIED` keys fit.
    """
    found = [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid in (None, kid))]
    if len(found) > MAX_TRIED:
        raise TooManyKeys
    return found


_turns = Turns("jwks", MAX_READS, 1)
"""Threads for nothing else. A disk or a name server that hangs blocks one of them, and delays its own set only."""


async def _in_thread(work: Callable[[], Any], owner: object) -> Any:
    """Call `work` in a thread and return its result. Raises OSError while the owner's last attempt still hangs."""
    try:
        return await asyncio.wrap_future(_turns.submit(owner, work))
    except Full:
        raise OSError(errno.EBUSY, "the last attempt still hangs") from None


def reader_of(file: str | None, url: str | None) -> tuple[Callable[[], Awaitable[bytes]], str]:
    """Return a function that reads a key set, and the name of the set for the log.

    Args:
        file: Absolute path of the set.
        url: URL of the set; exactly one of the two is given.

    Raises:
        ConfigurationError: The URL is malformed. The message never contains it, because it may contain a password.
    """
    if url is not None:
        try:
            parts = urlsplit(url)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            raise ConfigurationError("field 'jwks_url': this is not a URL") from None
        owner = object()
        # without user, password and query
        return lambda: _fetch(url, owner), f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
    assert file is not None
    owner = object()
    return lambda: _in_thread(partial(_read, file), owner), file


def _read(path: str) -> bytes:
    # without O_NONBLOCK, open() blocks for ever on a pipe that nobody writes to
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        text = stream.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return text


async def _fetch(url: str, owner: object) -> bytes:
    # in a thread, because making a client reads the certificates from disk
    make = partial(httpx2.AsyncClient, timeout=READ_SECONDS, headers={"accept-encoding": "identity"})
    client = await _in_thread(make, owner)
    async with client, client.stream("GET", url) as response:
        if response.status_code != 200:  # redirects are not followed: they could lead to other servers
            raise ValueError(f"status {response.status_code}")
        text = b""
        async for part in response.aiter_bytes():
            text += part
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
    return text


class KeySet:
    """A key set that is read when it is first needed, when it is old, and when a token names an unknown key.

    When reading fails, the old keys remain valid for `stale` seconds. After that no token can be verified. Requests
    that arrive while the set is being read wait for the same attempt.

    Args:
        read: Returns the text of the set.
        name: Names the plugin and the set in the log, as ``jwt-auth: the keys of /keys.json``.
        refresh: Read the set again after this time, in seconds.
        stale: Further seconds for which old keys remain valid while reading fails.
        cooldown: Minimum time between two attempts, in seconds, even if tokens name unknown keys.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        name: str,
        *,
        refresh: float,
        stale: float,
        cooldown: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self.name = name
        self._refresh = refresh
        self._stale = stale
        self._cooldown = cooldown
        self._clock = clock
        self._keys: list[VerificationKey] = []
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        """Return the keys that could have signed a token with this header, as :func:`select` does.

        Raises:
            KeysUnavailable: The set cannot be read, and the keys from before are too old.
            TooManyKeys: The token names none of the keys, and there are too many to try them all.
        """
        if self._clock() - self._read_at >= self._refresh:
            await self._read_again()
        found = select(self._keys, kid, algorithm)
        if not found and kid is not None:
            await self._read_again()
            found = select(self._keys, kid, algorithm)
        if self._clock() - self._read_at >= self._refresh + self._stale:
            raise KeysUnavailable
        return found

    async def _read_again(self) -> None:
        """Read the set, unless the last attempt was less than `cooldown` seconds ago."""
        if self._reading is None or self._reading.done():
            now = self._clock()
            if now - self._tried_at < self._cooldown:
                return
            self._tried_at = now
            self._reading = asyncio.get_running_loop().create_task(self._attempt())
        # shielded, because other requests wait for the same attempt
        await asyncio.shield(self._reading)

    async def _attempt(self) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._keys = keys_of_set(await self._read())
            self._read_at = started
        except Exception as exc:  # of files, connections, TLS, HTTP or JSON
            # only its kind is logged: its text may contain the set, or the password of the URL
            left = self._read_at + self._refresh + self._stale - self._clock()
            then = f"the old keys remain valid for {left:.0f} s" if left > 0 else "no token can be verified"
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            logger.error("%s cannot be read (%s): %s", self.name, reason, then)
