"""``hmac-auth``: a request that the client signed with a shared secret, or 401.

The wire format is that of APISIX's own plugin of this name, which follows draft-cavage-http-signatures-12::

    Date: Fri, 06 Sep 2024 06:41:29 GMT
    Authorization: Signature keyId="ada",algorithm="hmac-sha256",headers="@request-target date",signature="…"

What is signed are lines, each with a newline at its end: the key's id; then, as ``headers`` lists them,
``METHOD target`` for ``@request-target`` and ``name: value`` for a header, repeated ones joined by ``, ``.

It is stricter than APISIX's where that would leave a hole: ``@request-target`` and ``date`` are always signed, every
header that is listed is there, and with ``validate_request_body`` the ``digest`` is signed too (APISIX takes one that
is not, so whoever can change the body can change it as well); SHA-1 is off unless a route asks for it. The target is
what the client sent, byte for byte, so the plugin is mounted with ``exact=True``.

``clock_skew`` bounds how long a recorded request can be sent again; within it nothing keeps it from being repeated.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import upstream

from .conf import Conf, HeaderName
from .credentials import HideCredentials, IdentityName, Realm, Refused, admit, credentials, unauthorized
from .headers import dashed, encoded

__all__ = ["HmacAuthConf", "hmac_auth", "signing_string"]

TARGET = "@request-target"
IN_A_THREAD = 256 * 1024
"""Bytes from which a body is hashed in a thread."""

_HASHES = {"hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha512": "sha512"}
_parameter = re.compile(r'([A-Za-z]+)="([^"]*)"')
_date = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")

KeyId = Annotated[str, Field(pattern=r"^[\x21\x23-\x7e]([\x20\x21\x23-\x7e]{0,126}[\x21\x23-\x7e])?$")]
Secret = Annotated[SecretStr, Field(min_length=8)]


class HmacAuthConf(Conf):
    """What ``hmac-auth`` takes."""

    keys: dict[KeyId, Secret] = Field(min_length=1, description="Ids of keys, and the secrets.")
    allowed_algorithms: list[Literal["hmac-sha1", "hmac-sha256", "hmac-sha512"]] = Field(
        ["hmac-sha256", "hmac-sha512"], min_length=1, description="Algorithms that a client may sign with."
    )
    clock_skew: int = Field(
        300, ge=1, le=86400, description="Seconds that the Date header may be off: so long a request can be replayed."
    )
    signed_headers: list[HeaderName] = Field(
        [], description="Headers that have to be signed, besides @request-target and date."
    )
    validate_request_body: bool = Field(
        False, description="True: the Digest header has to be signed, and be the SHA-256 of the body."
    )
    user_header: IdentityName | None = Field(
        None,
        description="Header that the upstream gets the key's id in. The client's own of this name is always removed, "
        "also one written with _ for -.",
    )
    hide_credentials: HideCredentials = False
    realm: Realm = "apisix"


def hmac_auth(conf: HmacAuthConf, clock: Callable[[], float] = time.time) -> ASGIApp:
    """Lets signed requests pass.

    Args:
        conf: the route's configuration.
        clock: seconds since 1970.
    """
    keys = {key: secret.get_secret_value().encode() for key, secret in conf.keys.items()}
    # for a key that does not exist just as much is computed
    stand_in = secrets.token_bytes(32)
    required = [TARGET, "date", *(name.lower() for name in conf.signed_headers)]
    if conf.validate_request_body:
        required.append("digest")
    required = list(dict.fromkeys(required))
    challenge = f'Signature realm="{conf.realm}", headers="{" ".join(required)}"'
    told = encoded(() if conf.user_header is None else [conf.user_header])

    def verify(scope: Scope) -> str:
        """The id of the key that signed the request."""
        given = _parameters(credentials(scope, b"signature"))
        names = given["headers"].split(" ")
        if given["algorithm"] not in conf.allowed_algorithms:
            raise Refused("the algorithm is not allowed")
        if not set(required) <= {name.lower() for name in names}:
            raise Refused(f"what has to be signed is not: {' '.join(required)}")
        _check_date(scope, clock(), conf.clock_skew)
        signed = signing_string(given["keyId"], names, scope)
        key = keys.get(given["keyId"])
        expected = hmac.digest(key or stand_in, signed, _HASHES[given["algorithm"]])
        try:
            signature = base64.b64decode(given["signature"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the signature is malformed") from None
        if not hmac.compare_digest(expected, signature) or key is None:
            raise Refused("the signature does not match")
        return given["keyId"]

    async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        app: ASGIApp = upstream
        try:
            key = verify(scope)
            if conf.validate_request_body:
                receive = await _check_body(scope, receive)
            admit(scope, [(name, key.encode("ascii")) for name in told], told, conf.hide_credentials)
        except Refused as exc:
            app = unauthorized(challenge, str(exc))
        await app(scope, receive, send)

    return authenticate


def signing_string(key_id: str, names: list[str], scope: Scope) -> bytes:
    """What the client signs.

    Raises:
        Refused: a header of `names` is not there.
    """
    lines = [key_id.encode("latin-1")]
    for name in names:
        if name.lower() == TARGET:
            target: bytes = scope.get("raw_path") or scope["path"].encode()
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            lines.append(scope["method"].encode("ascii") + b" " + target)
        else:
            lines.append(name.encode("latin-1") + b": " + _value(scope, name.lower()))
    return b"\n".join(lines) + b"\n"


def _value(scope: Scope, name: str) -> bytes:
    """The value of a signed header: all that are of this name, or that CGI and WSGI take for it. One that somebody put
    beside the signed one would count upstream too."""
    wanted = dashed(name.encode("latin-1"))
    values = [value.strip() for given, value in scope["headers"] if dashed(given.lower()) == wanted]
    if not values:
        raise Refused("a header that is signed is not there")
    return b", ".join(values)


def _parameters(given: bytes | None) -> dict[str, str]:
    """The parameters of an Authorization header."""
    if given is None:
        raise Refused("a signature is required")
    parameters: dict[str, str] = {}
    for part in given.decode("latin-1").split(","):
        found = _parameter.fullmatch(part.strip(" \t"))
        if found is None or found[1] in parameters:
            raise Refused("the Authorization header is malformed")
        parameters[found[1]] = found[2]
    if not parameters.keys() >= {"keyId", "algorithm", "headers", "signature"}:
        raise Refused("the Authorization header is malformed")
    return parameters


def _check_date(scope: Scope, now: float, skew: int) -> None:
    text = _value(scope, "date").decode("latin-1")
    try:
        if not _date.fullmatch(text):
            raise ValueError
        sent = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        raise Refused("the Date header is malformed") from None
    if abs(now - sent) > skew:
        raise Refused("the Date header is too far from now")


async def _check_body(scope: Scope, receive: Receive) -> Receive:
    """Compares the body with its signed digest, and gives what hands it on."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise OSError("the client went away")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    digest = await asyncio.to_thread(_sha256, body) if len(body) >= IN_A_THREAD else _sha256(body)
    if not hmac.compare_digest(b"SHA-256=" + base64.b64encode(digest), _value(scope, "digest")):
        raise Refused("the body does not match the Digest header")
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
