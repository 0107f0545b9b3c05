"""``hmac-auth``: checks that the client has signed the request with a shared secret, and answers 401 otherwise.

A request is signed as for APISIX's own plugin of this name, which follows draft-cavage-http-signatures-12::

    Date: Fri, 06 Sep 2024 06:41:29 GMT
    Authorization: Signature keyId="ada",algorithm="hmac-sha256",headers="@request-target date",signature="…"

The client signs a text of lines, each with a newline at its end. The first line is the key's id. Then comes one line
for each name in ``headers``, in that order: ``METHOD target`` for ``@request-target``, and ``name: value`` for a
header. The values of a repeated header are joined by ``, ``.

The plugin is stricter than APISIX's:

- ``@request-target`` and ``date`` have to be signed, and each name in ``headers`` has to be in the request.
- With ``validate_request_body`` the ``digest`` has to be signed. APISIX accepts an unsigned one, so whoever changes the
  body can change the digest too.
- SHA-1 is off unless a route allows it.

The target is signed byte for byte as the client sent it, so the plugin is mounted with ``exact=True``.

The key is looked up first, and a request with an unknown key costs nothing more. This reveals which ids exist. They are
no secret: clients send them in plain text. A name may not be listed twice, so the size of the request bounds the work.

A recorded request can be sent again within ``clock_skew`` seconds; the plugin does not prevent that.
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
"""Name that stands for the method and the target of the request."""
MAX_LENGTH = 8192
"""Maximum length of the Authorization header, in bytes."""
MAX_SIGNED = 64
"""Maximum number of names that a signature may cover."""
MAX_KEYS = 1000
"""Maximum number of keys of one route."""
IN_A_THREAD = 256 * 1024
"""A body of this length or more is hashed in a thread, in bytes."""

_HASHES = {"hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha512": "sha512"}
_parameter = re.compile(r'[ \t]*([A-Za-z]+)="([^"]*)"[ \t]*(,|\Z)')
_date = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")

KeyId = Annotated[str, Field(pattern=r"^[\x21\x23-\x7e]([\x20\x21\x23-\x7e]{0,126}[\x21\x23-\x7e])?$")]
Secret = Annotated[SecretStr, Field(min_length=8, max_length=1024)]


class HmacAuthConf(Conf):
    """What ``hmac-auth`` takes."""

    keys: Annotated[dict[KeyId, Secret], *most(MAX_KEYS)] = Field(
        min_length=1, description="Ids of keys, and the secrets.", examples=[{"ada": "an-example-to-change"}]
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
    """Let signed requests pass.

    Args:
        conf: The route's configuration.
        clock: Returns seconds since 1970.
    """
    keys = {key: secret.get_secret_value().encode() for key, secret in conf.keys.items()}
    required = [TARGET, "date", *(name.lower() for name in conf.signed_headers)]
    if conf.validate_request_body:
        required.append("digest")
    required = list(dict.fromkeys(required))
    challenge = f'Signature realm="{conf.realm}", headers="{" ".join(required)}"'
    identity_names = encoded(() if conf.user_header is None else [conf.user_header])

    async def check(scope: Scope, receive: Receive) -> tuple[Headers, Receive]:
        parameters = _parameters(credentials(scope, b"signature"))
        key = keys.get(parameters["keyId"])
        if key is None:
            raise Refused("the signature does not match")
        names = parameters["headers"].split(" ")
        if parameters["algorithm"] not in conf.allowed_algorithms:
            raise Refused("the algorithm is not allowed")
        if len(names) > MAX_SIGNED or len({name.lower().replace("_", "-") for name in names}) < len(names):
            raise Refused(f"a header is signed twice, or more than {MAX_SIGNED} are")
        if not set(required) <= {name.lower() for name in names}:
            raise Refused(f"what has to be signed is not: {' '.join(required)}")
        values = _values(scope, names)
        _check_date(values["date"], clock(), conf.clock_skew)
        signed = signing_string(parameters["keyId"], names, scope, values)
        expected = hmac.digest(key, signed, _HASHES[parameters["algorithm"]])
        try:
            signature = base64.b64decode(parameters["signature"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the signature is malformed") from None
        if not hmac.compare_digest(expected, signature):
            raise Refused("the signature does not match")
        if conf.validate_request_body:
            receive = await _check_body(values["digest"], receive)
        return [(name, parameters["keyId"].encode("ascii")) for name in identity_names], receive

    return guard(
        check,
        challenge=lambda refused: challenge,
        identity_names=identity_names,
        hide_credentials=conf.hide_credentials,
    )


def signing_string(key_id: str, names: Sequence[str], scope: Scope, values: Mapping[str, bytes]) -> bytes:
    """Return the text that the client signs.

    Args:
        key_id: The key's id.
        names: The names that are signed, in the client's order and case.
        scope: The request.
        values: Name of a signed header, in lower case → its value.
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
    """Return the value of each header in `names`, under its name in lower case.

    The value includes headers with ``_`` for ``-``, which CGI and WSGI take for the same header. So nobody can add one
    that is not signed.

    Raises:
        Refused: A header is missing.
    """
    lines: dict[bytes, list[bytes]] = {}
    for name_sent, value in scope["headers"]:
        lines.setdefault(dashed(name_sent.lower()), []).append(value.strip())
    values = {}
    for name in map(str.lower, names):
        if name != TARGET:
            found = lines.get(dashed(name.encode("latin-1")))
            if found is None:
                raise Refused("a header that is signed is not there")
            values[name] = b", ".join(found)
    return values


def _parameters(value: bytes | None) -> dict[str, str]:
    """Return the parameters in the value of an Authorization header. Raises Refused."""
    if value is None:
        raise Refused("a signature is required")
    if len(value) > MAX_LENGTH:
        raise Refused("the Authorization header is too long")
    parameters: dict[str, str] = {}
    text, position, after = value.decode("latin-1"), 0, ","
    while after:  # not split at commas: a value may contain one
        found = _parameter.match(text, position)
        if found is None or found[1] in parameters:
            raise Refused("the Authorization header is malformed")
        parameters[found[1]] = found[2]
        position, after = found.end(), found[3]
    if not parameters.keys() >= {"keyId", "algorithm", "headers", "signature"}:
        raise Refused("the Authorization header is malformed")
    return parameters


def _check_date(value: bytes, now: float, skew: int) -> None:
    """Raise Refused if the Date header is more than `skew` seconds away from `now`."""
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
    """Compare the body with its signed digest, and return a callable that receives it again. Raises Refused."""
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
    received = False

    async def again() -> Message:
        nonlocal received
        if received:
            return await receive()
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
