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

The key comes first: what is signed under an unknown one is not looked at. Ids of keys are no secret; they are sent in
clear. Nothing is listed twice, so the work is bounded by the size of the request.

``clock_skew`` bounds how long a recorded request can be sent again; within it nothing keeps it from being repeated.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope

from ._shared.conf import Conf, HeaderName, few, most
from ._shared.guard import HideCredentials, IdentityName, Realm, Refused, credentials, guard
from ._shared.headers import Headers, dashed, encoded
from ._shared.whole import WholeBody

__all__ = ["HmacAuthConf", "hmac_auth", "signing_string"]

TARGET = "@request-target"
MAX_LENGTH = 8192
"""Bytes of the Authorization header."""
MAX_SIGNED = 64
"""Headers that a signature may cover."""
MAX_KEYS = 1000
IN_A_THREAD = 256 * 1024
"""Bytes from which a body is hashed in a thread."""

_HASHES = {"hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha512": "sha512"}
_parameter = re.compile(r'[ \t]*([A-Za-z]+)="([^"]*)"[ \t]*(,|\Z)')
_date = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")

KeyId = Annotated[str, Field(pattern=r"^[\x21\x23-\x7e]([\x20\x21\x23-\x7e]{0,126}[\x21\x23-\x7e])?$")]
Secret = Annotated[SecretStr, Field(min_length=8, max_length=1024)]


class HmacAuthConf(Conf):
    """What ``hmac-auth`` takes."""

    keys: Annotated[dict[KeyId, Secret], *most(MAX_KEYS)] = Field(
        min_length=1, description="Ids of keys, and the secrets."
    )
    allowed_algorithms: Annotated[list[Literal["hmac-sha1", "hmac-sha256", "hmac-sha512"]], *few(3)] = Field(
        default=["hmac-sha256", "hmac-sha512"], min_length=1, description="Algorithms that a client may sign with."
    )
    clock_skew: int = Field(
        default=300,
        ge=1,
        le=86400,
        description="Seconds that the Date header may be off: so long a request can be replayed.",
    )
    signed_headers: Annotated[list[HeaderName], *few(MAX_SIGNED - 3)] = Field(
        default=[], description="Headers that have to be signed, besides @request-target and date."
    )
    validate_request_body: bool = Field(
        default=False, description="True: the Digest header has to be signed, and be the SHA-256 of the body."
    )
    user_header: IdentityName | None = Field(
        default=None,
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
    required = [TARGET, "date", *(name.lower() for name in conf.signed_headers)]
    if conf.validate_request_body:
        required.append("digest")
    required = list(dict.fromkeys(required))
    challenge = f'Signature realm="{conf.realm}", headers="{" ".join(required)}"'
    told = encoded(() if conf.user_header is None else [conf.user_header])

    async def check(scope: Scope, receive: Receive) -> tuple[Headers, Receive]:
        given = _parameters(credentials(scope, b"signature"))
        key = keys.get(given["keyId"])
        if key is None:
            raise Refused("the signature does not match")
        names = given["headers"].split(" ")
        if given["algorithm"] not in conf.allowed_algorithms:
            raise Refused("the algorithm is not allowed")
        if len(names) > MAX_SIGNED or len({name.lower().replace("_", "-") for name in names}) < len(names):
            raise Refused(f"a header is signed twice, or more than {MAX_SIGNED} are")
        if not set(required) <= {name.lower() for name in names}:
            raise Refused(f"what has to be signed is not: {' '.join(required)}")
        values = _values(scope, names)
        _check_date(values["date"], clock(), conf.clock_skew)
        signed = signing_string(given["keyId"], names, scope, values)
        expected = hmac.digest(key, signed, _HASHES[given["algorithm"]])
        try:
            signature = base64.b64decode(given["signature"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the signature is malformed") from None
        if not hmac.compare_digest(expected, signature):
            raise Refused("the signature does not match")
        if conf.validate_request_body:
            receive = await _check_body(values["digest"], receive)
        return [(name, given["keyId"].encode("ascii")) for name in told], receive

    return guard(check, challenge=lambda refused: challenge, told=told, hide_credentials=conf.hide_credentials)


def signing_string(key_id: str, names: Sequence[str], scope: Scope, values: Mapping[str, bytes]) -> bytes:
    """What the client signs.

    Args:
        key_id: of the key.
        names: what is signed, in the client's order and case.
        scope: the request.
        values: of the signed headers, by their names in lower case.
    """
    lines = [key_id.encode("latin-1")]
    for name in names:
        if name.lower() == TARGET:
            target: bytes = scope.get("raw_path") or scope["path"].encode()
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            lines.append(scope["method"].encode("ascii") + b" " + target)
        else:
            lines.append(name.encode("latin-1") + b": " + values[name.lower()])
    return b"\n".join(lines) + b"\n"


def _values(scope: Scope, names: Sequence[str]) -> dict[str, bytes]:
    """The values of the headers in `names`, by their names in lower case: all lines that are of a name, or that CGI and
    WSGI take for it. One that somebody put beside the signed one would count upstream too.

    Raises:
        Refused: one is not there.
    """
    lines: dict[bytes, list[bytes]] = {}
    for given, value in scope["headers"]:
        lines.setdefault(dashed(given.lower()), []).append(value.strip())
    values = {}
    for name in map(str.lower, names):
        if name != TARGET:
            found = lines.get(dashed(name.encode("latin-1")))
            if found is None:
                raise Refused("a header that is signed is not there")
            values[name] = b", ".join(found)
    return values


def _parameters(given: bytes | None) -> dict[str, str]:
    """The parameters of an Authorization header."""
    if given is None:
        raise Refused("a signature is required")
    if len(given) > MAX_LENGTH:
        raise Refused("the Authorization header is too long")
    parameters: dict[str, str] = {}
    text, position, after = given.decode("latin-1"), 0, ","
    while after:  # a value may hold a comma
        found = _parameter.match(text, position)
        if found is None or found[1] in parameters:
            raise Refused("the Authorization header is malformed")
        parameters[found[1]] = found[2]
        position, after = found.end(), found[3]
    if not parameters.keys() >= {"keyId", "algorithm", "headers", "signature"}:
        raise Refused("the Authorization header is malformed")
    return parameters


def _check_date(value: bytes, now: float, skew: int) -> None:
    text = value.decode("latin-1")
    try:
        if not _date.fullmatch(text):
            raise ValueError
        sent = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        raise Refused("the Date header is malformed") from None
    if abs(now - sent) > skew:
        raise Refused("the Date header is too far from now")


async def _check_body(signed: bytes, receive: Receive) -> Receive:
    """Compares the body with its `signed` digest, and gives what hands it on."""
    whole = WholeBody()
    complete = False
    while not complete:
        message = await receive()
        if message["type"] != "http.request":
            raise OSError("the client went away")
        complete = await whole.add(message)
    body = whole.content
    digest = await asyncio.to_thread(_sha256, body) if len(body) >= IN_A_THREAD else _sha256(body)
    if not hmac.compare_digest(b"SHA-256=" + base64.b64encode(digest), signed):
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
