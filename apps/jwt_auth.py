"""``jwt-auth``: a bearer token (RFC 6750) that verifies, or 401.

PyJWT verifies. What is decided here: a token is checked only with keys that are made for its algorithm, and only if the
route names that algorithm; ``kid`` picks among the keys that are there and is nothing else; keys that a token brings
along (``jwk``, ``jku``, ``x5c``, ``x5u``) are ignored. Keys stand in the route, or in a JSON Web Key Set in a file or
behind a URL, which is read again when it is old or a token names a key that is not in it. When it cannot be read the
keys of the last time count for ``jwks_stale`` seconds more; then every request is answered 503, whatever the mount's
``on_error`` says: nobody passes without being checked.
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import jwt
from pydantic import AfterValidator, Field, SecretStr, model_validator
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from .conf import Conf
from .credentials import HideCredentials, IdentityName, Realm, Refused, admit, as_value, credentials, unauthorized
from .headers import Headers, encoded
from .jwks import KeySet, KeysUnavailable, VerificationKey, key_of_pem, key_of_secret, reader_of, select

__all__ = ["JwtAuthConf", "JwtKey", "jwt_auth"]

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip

_REASONS: list[tuple[type[jwt.PyJWTError], str]] = [
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim that is required"),
]


class JwtKey(Conf):
    """One key of a route."""

    kid: str | None = Field(None, min_length=1, max_length=256, description="Its id. Left out: it is tried for any.")
    secret: SecretStr | None = Field(None, description="Of HS256, HS384 or HS512: 32, 48 or 64 bytes, or more.")
    public_key: str | None = Field(None, description="PEM text of a public key: RSA, EC or Ed25519.")

    def key(self) -> VerificationKey:
        """As it verifies. Raises ValueError for what cannot."""
        if self.secret is not None:
            return key_of_secret(self.kid, self.secret.get_secret_value().encode())
        assert self.public_key is not None
        return key_of_pem(self.kid, self.public_key)

    @model_validator(mode="after")
    def _one(self) -> "JwtKey":
        if (self.secret is None) == (self.public_key is None):
            raise ValueError("a key has one of secret and public_key")
        self.key()
        return self


def _distinct(headers: dict[str, str]) -> dict[str, str]:
    if len({name.lower().replace("_", "-") for name in headers.values()}) < len(headers):
        raise ValueError("two claims cannot go into one header")
    return headers


class JwtAuthConf(Conf):
    """What ``jwt-auth`` takes."""

    algorithms: list[Algorithm] = Field(
        min_length=1, description="Algorithms that tokens may have; there is no default, and none is never one."
    )
    keys: list[JwtKey] | None = Field(
        None, min_length=1, max_length=100, description="Keys. A route has one of keys, jwks_file and jwks_url."
    )
    jwks_file: str | None = Field(None, pattern="^/", description="Absolute path of a JSON Web Key Set.")
    jwks_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+[^\s#]*$",
        description="URL of a JSON Web Key Set. Over http, whoever is on the way can put in keys of their own.",
    )
    jwks_refresh: float = Field(
        300, ge=1, le=86400, description="Seconds after which the set is read again: so long may a removed key count."
    )
    jwks_stale: float = Field(
        3600, ge=0, le=604800, description="Seconds more that its keys count while it cannot be read; then 503."
    )
    jwks_cooldown: float = Field(
        10, ge=1, le=3600, description="Seconds between two attempts to read it, however many unknown keys are named."
    )
    issuer: str | list[str] | None = Field(None, min_length=1, description="Issuers (iss) of which a token has one.")
    audience: str | list[str] | None = Field(
        None,
        min_length=1,
        description="Audiences (aud) of which a token has one. Left out: a token that names an audience is refused.",
    )
    required_claims: list[str] = Field(["exp"], description="Claims that a token must have.")
    clock_skew: float = Field(0, ge=0, le=600, description="Seconds that exp, nbf and iat may be off.")
    claims_to_headers: Annotated[dict[str, IdentityName], AfterValidator(_distinct)] = Field(
        {},
        description="Claim, and the header that the upstream gets it in: text in UTF-8, anything else as JSON. The "
        "client's own headers of these names are always removed, also those written with _ for -.",
    )
    hide_credentials: HideCredentials = False
    max_length: int = Field(8192, ge=64, le=65536, description="Characters that a token may have.")
    realm: Realm = "apisix"

    @model_validator(mode="after")
    def _one_source(self) -> "JwtAuthConf":
        if sum(source is not None for source in (self.keys, self.jwks_file, self.jwks_url)) != 1:
            raise ValueError("a route has one of keys, jwks_file and jwks_url")
        for key in self.keys or ():
            if not key.key().algorithms & frozenset(self.algorithms):
                raise ValueError("there is a key that is for none of the algorithms, or a secret too short for them")
        return self


Find = Callable[[str | None, str], Awaitable[list[VerificationKey]]]


def jwt_auth(conf: JwtAuthConf, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Lets requests with a good token pass.

    Args:
        conf: the route's configuration.
        clock: monotonic seconds, of the key set's age.
    """
    find = _finder(conf, clock)
    algorithms = frozenset(conf.algorithms)
    told = encoded(conf.claims_to_headers.values())
    unavailable = PlainTextResponse("No keys to check the token with\n", 503, {"retry-after": "10"})

    async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        app: ASGIApp = upstream
        try:
            token = credentials(scope, b"bearer")
            if token is None:
                app = unauthorized(f'Bearer realm="{conf.realm}"', "a bearer token is required")
            else:
                kid, algorithm = _header(token, algorithms, conf.max_length)
                claims = _verify(token, await find(kid, algorithm), algorithm, conf)
                admit(scope, _identity(claims, conf.claims_to_headers), told, conf.hide_credentials)
        except Refused as exc:
            challenge = f'Bearer realm="{conf.realm}", error="{exc.error}", error_description="{exc}"'
            app = unauthorized(challenge, str(exc))
        except KeysUnavailable:
            app = unavailable
        await app(scope, receive, send)

    return authenticate


def _finder(conf: JwtAuthConf, clock: Callable[[], float]) -> Find:
    if conf.keys is None:
        read, name = reader_of(conf.jwks_file, conf.jwks_url)
        return KeySet(
            read, name, refresh=conf.jwks_refresh, stale=conf.jwks_stale, cooldown=conf.jwks_cooldown, clock=clock
        ).find
    keys = [key.key() for key in conf.keys]

    async def find(kid: str | None, algorithm: str) -> list[VerificationKey]:
        return select(keys, kid, algorithm)

    return find


def _header(token: bytes, algorithms: frozenset[str], max_length: int) -> tuple[str | None, str]:
    """``kid`` and ``alg`` of a token that may be looked at."""
    if len(token) > max_length:
        raise Refused("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise Refused("the token is malformed") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise Refused("the token's algorithm is not allowed")
    return header.get("kid"), algorithm


def _verify(token: bytes, keys: list[VerificationKey], algorithm: str, conf: JwtAuthConf) -> dict[str, Any]:
    """The claims of a good token."""
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=conf.issuer,
                audience=conf.audience,
                leeway=conf.clock_skew,
                options={"require": conf.required_claims, "enforce_minimum_key_length": True},
            )
        except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
            continue
        except jwt.PyJWTError as exc:
            reasons = [reason for kind, reason in _REASONS if isinstance(exc, kind)]
            raise Refused(reasons[0] if reasons else "the token is malformed") from None
        return claims
    raise Refused("no key verifies the token's signature")


def _identity(claims: dict[str, Any], names: dict[str, str]) -> Headers:
    """The headers that tell the upstream of `claims`; an empty claim, or none, gives no header."""
    identity: Headers = []
    for claim, name in names.items():
        content = claims.get(claim)
        if content is None or content == "":
            continue
        text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
        value = as_value(text)
        if value is None:
            raise Refused("a claim of the token cannot be a header")
        identity.append((name.lower().encode("ascii"), value))
    return identity
