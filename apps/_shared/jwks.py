"""Keys that verify tokens: what each may be used for, JSON Web Key Sets (RFC 7517), and where these are read.

A key says by itself which algorithms it is for. A public key is never a secret, whatever a token's header says.
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
"""A call has 30 by default, and others may wait for the same keys."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_TRIED = 4
"""Keys that one token is tried with. Verifying with the slowest ones takes a millisecond each."""
MAX_READS = 8
"""Sets that are read at once, in threads."""

_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The length that a secret has at least (RFC 7518, 3.2)."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_BITS = range(2048, 8193)
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key.

    Attributes:
        kid: its id; None: it has none, and is tried for any.
        algorithms: what it may verify.
        key: as PyJWT takes it.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class TooManyKeys(Exception):
    """So many keys could have signed a token that trying them all would take too long."""


class KeysUnavailable(Exception):
    """There are no keys to check with: neither new ones, nor old ones that are still good."""


def _algorithms(key: object) -> frozenset[str]:
    """What `key` may verify; nothing: it is none of the public keys and secrets that we know."""
    if isinstance(key, bytes):
        return frozenset(name for name, length in _HMAC.items() if len(key) >= length)
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size in _RSA_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset(name for curve, name in _CURVES.items() if curve == key.curve.name)
    return frozenset(("EdDSA",)) if isinstance(key, Ed25519PublicKey) else frozenset()


def key_of_secret(kid: str | None, secret: bytes) -> VerificationKey:
    """A secret.

    Raises:
        ValueError: it is the text of a key, or too short.
    """
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-", b"ecdsa-sha2-", b"{")):
        raise ValueError("a secret is no PEM, SSH or JSON text: a public key stands in public_key")
    algorithms = _algorithms(secret)
    if not algorithms:
        raise ValueError("a secret has 32 bytes or more, 48 for HS384 and 64 for HS512 (RFC 7518, 3.2)")
    return VerificationKey(kid, algorithms, secret)


def key_of_pem(kid: str | None, pem: str) -> VerificationKey:
    """A public key.

    Raises:
        ValueError: it is none, or none that is safe.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):  # its text may hold the key's
        raise ValueError('a public key is PEM text that begins with "-----BEGIN PUBLIC KEY-----"') from None
    algorithms = _algorithms(key)
    if not algorithms:
        raise ValueError(
            "a public key is RSA of 2048 bits or more (8192 at most), EC on P-256, P-384 or P-521, or Ed25519"
        )
    return VerificationKey(kid, algorithms, key)


def keys_of_set(text: bytes) -> list[VerificationKey]:
    """The keys of a JSON Web Key Set that can verify; the others are passed over (RFC 7517, 5).

    Raises:
        ValueError: it is no set, or there is no such key in it.
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
    except Exception:  # foreign data: whatever may come out, the key is not used
        return None
    algorithms = _algorithms(key.key)
    if "alg" in jwk:
        algorithms &= {jwk["alg"]}
    return VerificationKey(kid, algorithms, key.key) if algorithms else None


def select(keys: Sequence[VerificationKey], kid: str | None, algorithm: str) -> list[VerificationKey]:
    """Those of `keys` that a token of this header can be verified with.

    Raises:
        TooManyKeys: they are more than :data:`MAX_TRIED`.
    """
    found = [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid in (None, kid))]
    if len(found) > MAX_TRIED:
        raise TooManyKeys
    return found


_turns = Turns("jwks", MAX_READS, 1)
"""Threads of their own: a disk or a name server that hangs holds one of them, for its own set."""


async def _in_thread(work: Callable[[], Any], owner: object) -> Any:
    """What `work` gives, in a thread. Raises OSError where the last one of this owner still hangs."""
    try:
        return await asyncio.wrap_future(_turns.submit(owner, work))
    except Full:
        raise OSError(errno.EBUSY, "the last attempt still hangs") from None


def reader_of(file: str | None, url: str | None) -> tuple[Callable[[], Awaitable[bytes]], str]:
    """What reads a set, and its name for the log.

    Raises:
        ConfigurationError: the URL is none. What it says never holds the URL: there may be a password in it.
    """
    if url is not None:
        try:
            parts = urlsplit(url)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            raise ConfigurationError("field 'jwks_url': no URL") from None
        owner = object()
        # without user, password and query
        return lambda: _fetch(url, owner), f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
    assert file is not None
    owner = object()
    return lambda: _in_thread(partial(_read, file), owner), file


def _read(path: str) -> bytes:
    # a pipe that nobody writes to would hold the thread for good, in open() already
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        text = stream.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return text


async def _fetch(url: str, owner: object) -> bytes:
    # in a thread, since making a client reads the certificates
    make = partial(httpx2.AsyncClient, timeout=READ_SECONDS, headers={"accept-encoding": "identity"})
    client = await _in_thread(make, owner)
    async with client, client.stream("GET", url) as response:
        if response.status_code != 200:  # redirects are not followed: they could lead anywhere
            raise ValueError(f"status {response.status_code}")
        text = b""
        async for part in response.aiter_bytes():
            text += part
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
    return text


class KeySet:
    """A key set that is read when it is first needed, again when it is old, and when a token names an unknown key.

    While reading fails the old keys go on counting, for `stale` seconds; then nothing is verified any more. Whoever
    comes while it is being read waits for the same attempt.

    Args:
        read: gives the text of a set.
        name: of the set, for the log.
        refresh: seconds after which it is read again.
        stale: seconds, after those, that keys still count when reading fails.
        cooldown: seconds between two attempts, whatever tokens name.
        clock: monotonic seconds.
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
        self._name = name
        self._refresh = refresh
        self._stale = stale
        self._cooldown = cooldown
        self._clock = clock
        self._keys: list[VerificationKey] = []
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys that a token of this header can be verified with.

        Raises:
            KeysUnavailable: the set cannot be read, and has not been for too long.
            TooManyKeys: the token names none of the keys, and there are too many to try them all.
        """
        if self._clock() - self._read_at >= self._refresh:
            await self._again()
        found = select(self._keys, kid, algorithm)
        if not found and kid is not None:
            await self._again()
            found = select(self._keys, kid, algorithm)
        if self._clock() - self._read_at >= self._refresh + self._stale:
            raise KeysUnavailable
        return found

    async def _again(self) -> None:
        """Reads the set, unless that was tried a moment ago."""
        if self._reading is None or self._reading.done():
            now = self._clock()
            if now - self._tried_at < self._cooldown:
                return
            self._tried_at = now
            self._reading = asyncio.get_running_loop().create_task(self._attempt())
        # shielded: others wait for it too
        await asyncio.shield(self._reading)

    async def _attempt(self) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._keys = keys_of_set(await self._read())
            self._read_at = started
        except Exception as exc:  # of files, connections, TLS, HTTP or JSON
            # no more of it than its kind: its text may hold the set's, or the URL's password
            left = self._read_at + self._refresh + self._stale - self._clock()
            then = f"the old ones count for {left:.0f} s" if left > 0 else "no token can be verified"
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            logger.error("jwt-auth: the keys of %s cannot be read (%s): %s", self._name, reason, then)
