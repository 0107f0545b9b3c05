"""``jwt-auth``: verifies a bearer token (RFC 6750), and answers 401 if it is missing or invalid.

PyJWT verifies the token. This plugin chooses the keys:

- A token is verified only if the route names its algorithm, and only with keys that are made for that algorithm.
- ``kid`` chooses among the keys of the route, and has no other meaning. Keys that a token brings along (``jwk``,
  ``jku``, ``x5c``, ``x5u``) are ignored.
- A token is tried with 4 keys at most. If more could have signed it, it has to name its key.

Keys stand in the route, or in a JSON Web Key Set: a regular file, or behind a URL. The operator says which files and
URLs a route may name (``allow``). The set is read again when it is old, and when a token names a key that is not in it.
If it cannot be read, the old keys remain valid for ``jwks_stale`` more seconds. After that every request gets 503, even
with ``on_error="open"``: no request passes unchecked.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Annotated

from pydantic import Field, SecretStr, model_validator
from starlette.types import ASGIApp, Receive, Scope

from asgi_bridge.plugins import Allowed
from asgi_bridge.plugins.memory import remembered

from ._shared.conf import Conf, few
from ._shared.guard import HideCredentials, Realm, Refused, Unavailable, credentials, guard
from ._shared.headers import Headers, encoded
from ._shared.jwks import (
    MAX_TRIED,
    KeySet,
    KeysUnavailable,
    TooManyKeys,
    VerificationKey,
    key_of_pem,
    key_of_secret,
    reader_of,
    select,
)
from ._shared.tokens import Algorithm, ClaimsToHeaders, Name, claims_of, header_of, identity_of

__all__ = ["JwtAuthConf", "JwtKey", "jwt_auth"]


class JwtKey(Conf):
    """One key of a route."""

    kid: str | None = Field(
        default=None, min_length=1, max_length=256, description="Its id. Left out: it is tried for any."
    )
    secret: SecretStr | None = Field(
        default=None, max_length=4096, description="Of HS256, HS384 or HS512: 32, 48 or 64 bytes, or more."
    )
    public_key: str | None = Field(
        default=None, max_length=8192, description="PEM text of a public key: RSA, EC or Ed25519."
    )

    @cached_property
    def key(self) -> VerificationKey:
        """The key for verifying. Raises ValueError if it is unusable."""
        if self.secret is not None:
            return key_of_secret(self.kid, self.secret.get_secret_value().encode())
        assert self.public_key is not None
        return key_of_pem(self.kid, self.public_key)

    @model_validator(mode="after")
    def _one_of_two(self) -> "JwtKey":
        if (self.secret is None) == (self.public_key is None):
            raise ValueError("give exactly one of secret and public_key")
        self.key  # noqa: B018  # raises if the key is unusable
        return self


class JwtAuthConf(Conf):
    """What ``jwt-auth`` takes."""

    algorithms: Annotated[list[Algorithm], *few(13)] = Field(
        min_length=1,
        description="Required. Algorithms that a token may be signed with. `none` is never accepted.",
        examples=[["HS256"]],
    )
    keys: Annotated[list[JwtKey], *few(100)] | None = Field(
        default=None,
        min_length=1,
        description="Keys. A route has one of keys, jwks_file and jwks_url.",
        examples=[[{"secret": "an example of 32 bytes or more, change it"}]],
    )
    jwks_file: Annotated[str, Field(pattern="^/", max_length=4096), Allowed("file")] | None = Field(
        default=None, description="Absolute path of a JSON Web Key Set, a regular file that the operator allows."
    )
    jwks_url: (
        Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s#]*$", max_length=4096), Allowed("https", "http")] | None
    ) = Field(
        default=None,
        description="URL of a JSON Web Key Set that the operator allows. Over http, whoever is on the way can put in "
        "keys of their own.",
    )
    jwks_refresh: float = Field(
        default=300,
        ge=1,
        le=86400,
        description="Seconds after which the set is read again: so long may a removed key count.",
    )
    jwks_stale: float = Field(
        default=3600, ge=0, le=604800, description="Seconds more that its keys count while it cannot be read; then 503."
    )
    jwks_cooldown: float = Field(
        default=10,
        ge=1,
        le=3600,
        description="Seconds between two attempts to read it, however many unknown keys are named.",
    )
    issuer: Name | Annotated[list[Name], *few(100)] | None = Field(
        default=None, min_length=1, description="Issuers (iss) of which a token has one."
    )
    audience: Name | Annotated[list[Name], *few(100)] | None = Field(
        default=None,
        min_length=1,
        description="Audiences (aud) of which a token has one. Left out: a token that names an audience is refused.",
    )
    required_claims: Annotated[list[Name], *few(100)] = Field(
        default=["exp"], description="Claims that a token must have."
    )
    clock_skew: float = Field(default=0, ge=0, le=600, description="Seconds that exp, nbf and iat may be off.")
    claims_to_headers: ClaimsToHeaders = Field(default={}, examples=[{"sub": "X-User"}])
    hide_credentials: HideCredentials = False
    max_length: int = Field(default=8192, ge=64, le=65536, description="Characters that a token may have.")
    realm: Realm = "apisix"

    @model_validator(mode="after")
    def _one_source(self) -> "JwtAuthConf":
        if sum(source is not None for source in (self.keys, self.jwks_file, self.jwks_url)) != 1:
            raise ValueError("give exactly one of keys, jwks_file and jwks_url")
        nameless: Counter[str] = Counter()
        for each in self.keys or ():
            key = each.key
            if not key.algorithms & frozenset(self.algorithms):
                raise ValueError("a key fits none of the algorithms, or is a secret that is too short for them")
            nameless.update(key.algorithms if key.kid is None else ())
        if any(count > MAX_TRIED for count in nameless.values()):
            raise ValueError(f"at most {MAX_TRIED} keys without kid may fit one algorithm")
        return self


Find = Callable[[str | None, str], Awaitable[list[VerificationKey]]]
"""Returns the keys for a token with this ``kid`` and this ``alg``."""


def jwt_auth(conf: JwtAuthConf, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Let requests with a valid token pass.

    Args:
        conf: The route's configuration.
        clock: Returns monotonic seconds, for the age of the key set.
    """
    find = _finder(conf, clock)
    algorithms = frozenset(conf.algorithms)
    identity_names = encoded(conf.claims_to_headers.values())

    async def check(scope: Scope, receive: Receive) -> tuple[Headers, Receive]:
        token = credentials(scope, b"bearer")
        if token is None:
            raise Refused("a bearer token is required", None)
        kid, algorithm = header_of(token, algorithms, conf.max_length)
        try:
            keys = await find(kid, algorithm)
        except KeysUnavailable:
            raise Unavailable("No keys to check the token with", 10) from None
        except TooManyKeys:
            raise Refused("the token has to name its key (kid): too many could have signed it") from None
        claims = claims_of(
            token,
            keys,
            algorithm,
            issuer=conf.issuer,
            audience=conf.audience,
            required=conf.required_claims,
            clock_skew=conf.clock_skew,
        )
        return identity_of(claims, conf.claims_to_headers), receive

    def challenge(refused: Refused) -> str:
        text = f'Bearer realm="{conf.realm}"'
        return f'{text}, error="{refused.error}", error_description="{refused}"' if refused.error else text

    return guard(check, challenge=challenge, identity_names=identity_names, hide_credentials=conf.hide_credentials)


def _finder(conf: JwtAuthConf, clock: Callable[[], float]) -> Find:
    if conf.keys is None:
        return remembered(lambda: _key_set(conf, clock)).find
    keys = [key.key for key in conf.keys]

    async def find(kid: str | None, algorithm: str) -> list[VerificationKey]:
        return select(keys, kid, algorithm)

    return find


def _key_set(conf: JwtAuthConf, clock: Callable[[], float]) -> KeySet:
    read, name = reader_of(conf.jwks_file, conf.jwks_url)
    return KeySet(
        read,
        f"jwt-auth: the keys of {name}",
        refresh=conf.jwks_refresh,
        stale=conf.jwks_stale,
        cooldown=conf.jwks_cooldown,
        clock=clock,
    )
