"""``basic-auth``: user name and password (RFC 7617) against Argon2 hashes, or 401.

Verifying a password costs tens of milliseconds and megabytes on purpose, so it runs in a few threads, and only so many
wait for one; the rest is answered 503. Credentials that were good are remembered for a while, as a digest under a key
that only this process has. For a user who does not exist just as much is computed.

A hash is made with the package that checks it::

    python -c 'import argon2, getpass; print(argon2.PasswordHasher().hash(getpass.getpass()))'
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated

import argon2
from pydantic import AfterValidator, Field, SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from .conf import Conf
from .credentials import HideCredentials, IdentityName, Realm, Refused, admit, credentials, unauthorized
from .headers import encoded

__all__ = ["BasicAuthConf", "basic_auth"]

THREADS = min(4, os.cpu_count() or 1)
MAX_WAITING = 64
"""Passwords that are being verified or wait for it, in this process."""
MAX_REMEMBERED = 1024
MAX_LENGTH = 1024
"""Characters of the credentials, in base64."""
MAX_MEMORY = 2**20
"""KiB that a hash may take."""

_pool = ThreadPoolExecutor(THREADS, "basic-auth")
_places = threading.BoundedSemaphore(MAX_WAITING)
_hasher = argon2.PasswordHasher()
_format = re.compile(r"\$argon2id?\$v=19\$m=\d{1,9},t=\d{1,4},p=\d{1,3}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}")


def _checked(given: SecretStr) -> SecretStr:
    text = given.get_secret_value()
    if not _format.fullmatch(text):
        raise ValueError('a password stands here as its Argon2 hash, which begins with "$argon2id$v=19$"')
    if argon2.extract_parameters(text).memory_cost > MAX_MEMORY:
        raise ValueError("an Argon2 hash of more than 1 GiB")
    return given


UserName = Annotated[str, Field(pattern=r"^[^:\x00-\x20\x7f]([^:\x00-\x1f\x7f]{0,126}[^:\x00-\x20\x7f])?$")]


class BasicAuthConf(Conf):
    """What ``basic-auth`` takes."""

    users: dict[UserName, Annotated[SecretStr, AfterValidator(_checked)]] = Field(
        min_length=1, description="User names, and the Argon2 hashes of their passwords."
    )
    user_header: IdentityName | None = Field(
        None,
        description="Header that the upstream gets the user's name in. The client's own of this name is always "
        "removed, also one written with _ for -.",
    )
    remember: float = Field(60, ge=0, le=3600, description="Seconds that good credentials are remembered.")
    hide_credentials: HideCredentials = False
    realm: Realm = "apisix"


class _Busy(Exception):
    """Too many passwords are waiting."""


class _Passwords:
    """The users of one route."""

    def __init__(self, hashes: dict[str, str], remember: float, clock: Callable[[], float]) -> None:
        self._hashes = hashes
        self._stand_in = max(hashes.values(), key=_cost)
        self._remember = remember
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, Future[bool]] = {}

    async def match(self, user: str, password: bytes) -> bool:
        """Whether this is the user's password.

        Raises:
            _Busy: there is no telling now.
        """
        digest = hashlib.blake2b(user.encode() + b"\0" + password, key=self._key, digest_size=32).digest()
        # in this order: what is not running any more has been remembered already
        verdict = self._running.get(digest)
        if verdict is None:
            if self._clock() < self._good.get(digest, float("-inf")):
                return True
            # one for all requests with the same credentials: a page has many parts
            verdict = self._start(digest, user, password)
        return await asyncio.shield(asyncio.wrap_future(verdict))

    def _start(self, digest: bytes, user: str, password: bytes) -> Future[bool]:
        if not _places.acquire(blocking=False):
            raise _Busy
        verdict = _pool.submit(self._verify, user, password)
        self._running[digest] = verdict

        def done(verdict: Future[bool]) -> None:
            _places.release()
            if self._remember and not verdict.cancelled() and verdict.exception() is None and verdict.result():
                self._good[digest] = self._clock() + self._remember
                while len(self._good) > MAX_REMEMBERED:
                    self._good.popitem(last=False)
            self._running.pop(digest, None)

        verdict.add_done_callback(done)
        return verdict

    def _verify(self, user: str, password: bytes) -> bool:
        known = self._hashes.get(user)
        try:
            _hasher.verify(known or self._stand_in, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return known is not None


def _cost(encoded: str) -> int:
    """What verifying against a hash takes, as far as its parameters tell."""
    parameters = argon2.extract_parameters(encoded)
    return parameters.memory_cost * parameters.time_cost


def basic_auth(conf: BasicAuthConf, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Lets requests of known users pass.

    Args:
        conf: the route's configuration.
        clock: monotonic seconds.
    """
    hashes = {user: given.get_secret_value() for user, given in conf.users.items()}
    passwords = _Passwords(hashes, conf.remember, clock)
    told = encoded(() if conf.user_header is None else [conf.user_header])
    challenge = f'Basic realm="{conf.realm}", charset="UTF-8"'
    busy = PlainTextResponse("Too many passwords to check\n", 503, {"retry-after": "1"})

    async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        app: ASGIApp = upstream
        try:
            user, password = _pair(credentials(scope, b"basic"))
            if not await passwords.match(user, password):
                raise Refused("wrong user name or password")
            admit(scope, [(name, user.encode()) for name in told], told, conf.hide_credentials)
        except Refused as exc:
            app = unauthorized(challenge, str(exc))
        except _Busy:
            app = busy
        await app(scope, receive, send)

    return authenticate


def _pair(given: bytes | None) -> tuple[str, bytes]:
    """User name and password."""
    if given is None:
        raise Refused("user name and password are required")
    if len(given) > MAX_LENGTH:
        raise Refused("the credentials are too long")
    try:
        user, colon, password = base64.b64decode(given, validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused("the credentials are malformed") from None
    if not colon:
        raise Refused("the credentials are malformed")
    return name, password
