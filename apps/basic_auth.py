"""``basic-auth``: checks user name and password (RFC 7617) against Argon2 hashes, and answers 401 otherwise.

Verifying a password takes tens of milliseconds and megabytes, by design. So it runs in a few threads, which serve the
routes in turn. The number of passwords of one route that run or wait is limited, and a further request gets 503. So a
flood of wrong passwords affects its own route only. Good credentials are remembered for a while, as a digest whose key
only this process has. For an unknown user the same work is done, so that the time does not reveal who exists.

The package that checks a hash also makes one::

    python -c 'import argon2, getpass; print(argon2.PasswordHasher().hash(getpass.getpass()))'
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Annotated

import argon2
from pydantic import AfterValidator, Field, SecretStr
from starlette.types import ASGIApp, Receive, Scope

from asgi_bridge.plugins.memory import remembered

from ._shared.conf import Conf, most
from ._shared.guard import HideCredentials, IdentityName, Realm, Refused, Unavailable, credentials, guard
from ._shared.headers import Headers, encoded
from ._shared.turns import Full, Turns

__all__ = ["BasicAuthConf", "basic_auth"]

THREADS = max(1, min(4, (os.cpu_count() or 1) - 1))
"""Number of threads that verify passwords. One processor is left to the event loop."""
MAX_WAITING = 32
"""Maximum number of passwords of one route, in one process, that are being verified or wait."""
EXAMPLE = "$argon2id$v=19$m=19456,t=2,p=1$pC4VRUaeazBGMl2rRSq3Cw$YOOb570JtSLnLZ+fx4roZrxh13y+IIAWjGR5HbOkbq8"
"""Hash of the password "correct horse", for the documents."""
MAX_USERS = 1000
"""Maximum number of users of one route."""
MAX_REMEMBERED = 1024
"""Maximum number of good credentials of one route that are remembered."""
MAX_LENGTH = 1024
"""Maximum length of the credentials, in characters of base64."""
MAX_MEMORY = 2**20
"""Maximum memory of a hash (Argon2's ``m``), in KiB."""
MAX_WORK = 2**20
"""Maximum work of a hash, in KiB: ``m`` times ``t``, about a second. The defaults of argon2-cffi make 196,608."""
MAX_LANES = 16
"""Maximum parallelism of a hash (Argon2's ``p``)."""

_turns = Turns("basic-auth", THREADS, MAX_WAITING)
_hasher = argon2.PasswordHasher()
_format = re.compile(r"\$argon2id?\$v=19\$m=\d{1,9},t=\d{1,4},p=\d{1,3}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}")


def _checked(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not _format.fullmatch(text):
        raise ValueError('give the Argon2 hash of the password, which begins with "$argon2id$v=19$"')
    parameters = argon2.extract_parameters(text)
    if parameters.memory_cost > MAX_MEMORY:
        raise ValueError("an Argon2 hash may need 1 GiB of memory at most (m up to 1048576)")
    if _cost(text) > MAX_WORK or parameters.parallelism > MAX_LANES:
        raise ValueError("an Argon2 hash with m times t above 1048576, or p above 16, takes too long to verify")
    return value


UserName = Annotated[str, Field(pattern=r"^[^:\x00-\x20\x7f]([^:\x00-\x1f\x7f]{0,126}[^:\x00-\x20\x7f])?$")]
Hash = Annotated[SecretStr, Field(max_length=512), AfterValidator(_checked)]


class BasicAuthConf(Conf):
    """What ``basic-auth`` takes."""

    users: Annotated[dict[UserName, Hash], *most(MAX_USERS)] = Field(
        min_length=1, description="User names, and the Argon2 hashes of their passwords.", examples=[{"ada": EXAMPLE}]
    )
    user_header: IdentityName | None = Field(
        default=None,
        description="Header that the upstream gets the user's name in. The client's own of this name is always "
        "removed, also one written with _ for -.",
    )
    remember: float = Field(default=60, ge=0, le=3600, description="Seconds that good credentials are remembered.")
    hide_credentials: HideCredentials = False
    realm: Realm = "apisix"


class _Passwords:
    """The users of one route, and the good credentials that are remembered."""

    def __init__(self, hashes: dict[str, str], remember: float, clock: Callable[[], float]) -> None:
        self._hashes = hashes
        self._stand_in = max(hashes.values(), key=_cost)
        self._remember = remember
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, Future[bool]] = {}

    async def match(self, user: str, password: bytes) -> bool:
        """Return whether `password` is the user's.

        Raises:
            Unavailable: Too many other passwords of this route are waiting.
        """
        digest = hashlib.blake2b(user.encode() + b"\0" + password, key=self._key, digest_size=32).digest()
        # in this order, because a job is remembered before it stops running
        verdict = self._running.get(digest)
        if verdict is None:
            if self._clock() < self._good.get(digest, float("-inf")):
                return True
            # requests with the same credentials share one job: a browser sends many at once
            verdict = self._start(digest, user, password)
        return await asyncio.shield(asyncio.wrap_future(verdict))

    def _start(self, digest: bytes, user: str, password: bytes) -> Future[bool]:
        try:
            verdict = _turns.submit(self, partial(self._verify, user, password))
        except Full:
            raise Unavailable("Too many passwords to check", 1) from None
        self._running[digest] = verdict

        def done(verdict: Future[bool]) -> None:
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
    """Return the work of verifying against a hash, in KiB: Argon2's ``m`` times ``t``."""
    parameters = argon2.extract_parameters(encoded)
    return parameters.memory_cost * parameters.time_cost


def basic_auth(conf: BasicAuthConf, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Let requests of known users pass.

    Args:
        conf: The route's configuration.
        clock: Returns monotonic seconds.
    """
    hashes = {user: value.get_secret_value() for user, value in conf.users.items()}
    passwords = remembered(lambda: _Passwords(hashes, conf.remember, clock))
    identity_names = encoded(() if conf.user_header is None else [conf.user_header])
    challenge = f'Basic realm="{conf.realm}", charset="UTF-8"'

    async def check(scope: Scope, receive: Receive) -> tuple[Headers, Receive]:
        user, password = _pair(credentials(scope, b"basic"))
        if not await passwords.match(user, password):
            raise Refused("wrong user name or password")
        return [(name, user.encode()) for name in identity_names], receive

    return guard(
        check,
        challenge=lambda refused: challenge,
        identity_names=identity_names,
        hide_credentials=conf.hide_credentials,
    )


def _pair(text: bytes | None) -> tuple[str, bytes]:
    """Return user name and password. Raises Refused."""
    if text is None:
        raise Refused("user name and password are required")
    if len(text) > MAX_LENGTH:
        raise Refused("the credentials are too long")
    try:
        user, colon, password = base64.b64decode(text, validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused("the credentials are malformed") from None
    if not colon:
        raise Refused("the credentials are malformed")
    return name, password
