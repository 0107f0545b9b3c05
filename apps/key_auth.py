"""``key-auth``: checks the API key of the client, and answers 401 if it is missing or unknown.

The options are named as those of APISIX's own plugin of this name. There the keys belong to consumers; here they stand
in the route, as plain text or as SHA-256. The plugin differs from APISIX's in this:

- It reads no key from the query unless the route names a parameter. Queries end up in logs and histories.
- A client that sends two keys is refused. APISIX takes the first, and the upstream might take the other.
- ``anonymous_consumer`` is for requests without a key. A wrong key is refused; APISIX lets it pass as anonymous.

A key is compared by its SHA-256, so the time of an answer tells nothing about the keys of others. A key is long and
random, so SHA-256 protects it. A password is neither: use ``basic-auth`` for passwords.

``python -c "import secrets; print(secrets.token_urlsafe(32))"`` makes a key, and
``printf %s "$KEY" | sha256sum`` its SHA-256.
"""

import hashlib
import re
from typing import Annotated
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, Field, SecretStr, model_validator
from starlette.types import ASGIApp, Receive, Scope

from ._shared.conf import Conf, HeaderName, few, most
from ._shared.guard import IdentityName, Realm, Refused, guard
from ._shared.headers import Headers, dashed, encoded

__all__ = ["KeyAuthConf", "key_auth"]

MAX_CONSUMERS = 1000
"""Maximum number of consumers of one route."""
MAX_KEYS = 8
"""Maximum number of keys of one consumer."""
MAX_LENGTH = 1024
"""Maximum length of a key that a client sends, in bytes."""
MIN_LENGTH = 16
"""Minimum length of a key in a route, in characters."""

_HASHED = "sha256:"
"""What the SHA-256 of a key begins with in a route."""


def _checked(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith(_HASHED):
        if not re.fullmatch("[0-9a-f]{64}", text.removeprefix(_HASHED)):
            raise ValueError('after "sha256:" come the 64 lowercase hex digits of the SHA-256 of a key')
    elif not re.fullmatch(f"[!-~]{{{MIN_LENGTH},{MAX_LENGTH}}}", text):
        raise ValueError(f"a key has {MIN_LENGTH} to {MAX_LENGTH} characters of printable ASCII, and no blanks")
    return value


def _no_other_meaning(name: str) -> str:
    if name.lower().replace("_", "-") in ("cookie", "host"):
        raise ValueError(f"{name.lower()} has another meaning: it cannot carry a key")
    return name


ConsumerName = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,126}[!-~])?$", max_length=128)]
Key = Annotated[SecretStr, Field(max_length=MAX_LENGTH), AfterValidator(_checked)]


class KeyAuthConf(Conf):
    """What ``key-auth`` takes."""

    keys: Annotated[dict[ConsumerName, Annotated[list[Key], *few(MAX_KEYS)]], *most(MAX_CONSUMERS)] = Field(
        min_length=1,
        description="Names of consumers, and the keys of each: as they are, or sha256: and the hex digits of their "
        "SHA-256.",
        examples=[{"ada": ["an-example-to-change"]}],
    )
    header: Annotated[HeaderName, AfterValidator(_no_other_meaning)] = Field(
        default="apikey", description="Header that the client sends its key in."
    )
    query: Annotated[str, Field(pattern=r"^[!-%'-*,-:<>-~]+$", max_length=256)] | None = Field(
        default=None, description="Parameter of the query that may hold the key too. Left out: none may."
    )
    consumer_header: IdentityName | None = Field(
        default=None,
        examples=["X-Consumer"],
        description="Header that the upstream gets the consumer's name in. The client's own of this name is always "
        "removed, also one written with _ for -.",
    )
    anonymous_consumer: ConsumerName | None = Field(
        default=None, description="Consumer that a request without a key belongs to. Left out: it is refused."
    )
    hide_credentials: bool = Field(default=False, description="True: the upstream does not get the key.")
    realm: Realm = "apisix"

    @model_validator(mode="after")
    def _distinct(self) -> "KeyAuthConf":
        digests = [_digest_of(key) for keys in self.keys.values() for key in keys]
        if len(set(digests)) < len(digests):
            raise ValueError("a key is listed twice: it could be of either consumer")
        if self.consumer_header and _same(self.consumer_header, self.header):
            raise ValueError("consumer_header and header have to be different")
        return self


def _digest_of(key: SecretStr) -> bytes:
    text = key.get_secret_value()
    if text.startswith(_HASHED):
        return bytes.fromhex(text.removeprefix(_HASHED))
    return hashlib.sha256(text.encode("ascii")).digest()


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")


def key_auth(conf: KeyAuthConf) -> ASGIApp:
    """Let requests with a known key pass.

    Args:
        conf: The route's configuration.
    """
    consumers = {_digest_of(key): name for name, keys in conf.keys.items() for key in keys}
    header = dashed(conf.header.lower().encode("ascii"))
    parameter = None if conf.query is None else conf.query.encode("ascii")
    identity_names = encoded(() if conf.consumer_header is None else [conf.consumer_header])
    challenge = f'ApiKey realm="{conf.realm}"'

    async def check(scope: Scope, receive: Receive) -> tuple[Headers, Receive]:
        keys = [value.strip() for name, value in scope["headers"] if dashed(name.lower()) == header]
        if parameter is not None:
            inside, kept = _parameters(scope["query_string"], parameter)
            keys += inside
            if inside and conf.hide_credentials:
                scope["query_string"] = kept
        consumer = _consumer(keys)
        return [(name, consumer.encode("ascii")) for name in identity_names], receive

    def _consumer(keys: list[bytes]) -> str:
        if len(keys) > 1:
            raise Refused("more than one API key")
        if not keys:
            if conf.anonymous_consumer is None:
                raise Refused("an API key is required")
            return conf.anonymous_consumer
        found = consumers.get(hashlib.sha256(keys[0]).digest()) if len(keys[0]) <= MAX_LENGTH else None
        if found is None:
            raise Refused("unknown API key")
        return found

    return guard(
        check,
        challenge=lambda refused: challenge,
        identity_names=identity_names | {header} if conf.hide_credentials else identity_names,
        hide_credentials=False,
    )


def _parameters(query: bytes, name: bytes) -> tuple[list[bytes], bytes]:
    """Return the values of a parameter, and the query without it. Everything else in the query stays as it is."""
    values, kept = [], []
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if unquote_to_bytes(key.replace(b"+", b" ")) == name:
            values.append(unquote_to_bytes(value.replace(b"+", b" ")))
        else:
            kept.append(part)
    return values, b"&".join(kept)
