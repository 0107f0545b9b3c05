"""Tokens (JWT): verified with the keys that fit, and their claims as headers for the upstream."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jwt
from pydantic import AfterValidator, Field

from .conf import most
from .guard import IdentityName, Refused, as_value
from .headers import Headers
from .jwks import VerificationKey

__all__ = ["Algorithm", "ClaimsToHeaders", "Name", "claims_of", "header_of", "identity_of"]

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
"""PyJWT's error → what the client is told."""


def _distinct(headers: dict[str, str]) -> dict[str, str]:
    if len({name.lower().replace("_", "-") for name in headers.values()}) < len(headers):
        raise ValueError("two claims cannot go into one header")
    return headers


Name = Annotated[str, Field(max_length=1024)]


ClaimsToHeaders = Annotated[
    dict[Name, IdentityName],
    *most(32),
    AfterValidator(_distinct),
    Field(
        description="Claim, and the header that the upstream gets it in: text in UTF-8, anything else as JSON. The "
        "client's own headers of these names are always removed, also those written with _ for -.",
    ),
]
"""Claim → the header that the upstream gets it in."""


def header_of(token: bytes, algorithms: Sequence[str] | frozenset[str], max_length: int) -> tuple[str | None, str]:
    """Return ``kid`` and ``alg`` of a token. Raises Refused if it is too long, malformed, or of another algorithm."""
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


def claims_of(
    token: bytes,
    keys: Sequence[VerificationKey],
    algorithm: str,
    *,
    issuer: str | Sequence[str] | None,
    audience: str | Sequence[str] | None,
    required: Sequence[str],
    clock_skew: float,
) -> dict[str, Any]:
    """Return the claims of a token. Raises Refused if it is invalid.

    Args:
        token: The token.
        keys: The keys that could have signed it.
        algorithm: Its algorithm (`header_of`).
        issuer: Issuers of which it has one; None: any.
        audience: Audiences of which it has one; None: it has none.
        required: Claims that it must have.
        clock_skew: Seconds that ``exp``, ``nbf`` and ``iat`` may be off.
    """
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=issuer,
                audience=audience,
                leeway=clock_skew,
                options={"require": list(required), "enforce_minimum_key_length": True},
            )
        except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
            continue
        except jwt.PyJWTError as exc:
            reasons = [reason for kind, reason in _REASONS if isinstance(exc, kind)]
            raise Refused(reasons[0] if reasons else "the token is malformed") from None
        return claims
    raise Refused("no key verifies the token's signature")


def identity_of(claims: Mapping[str, Any], names: Mapping[str, str]) -> Headers:
    """Return the headers that carry `claims` to the upstream. A missing or empty claim has no header."""
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
