"""An OpenID provider, as a client sees it: what it says of itself, its keys, and tokens for codes.

Everything that the runner calls is allowed by the operator: the issuer, and what its metadata name.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from .guard import Refused, Unavailable
from .jwks import MAX_BYTES, READ_SECONDS, KeySet, reader_of

if TYPE_CHECKING:
    import ssl

__all__ = ["Metadata", "Provider", "Registration"]

logger = logging.getLogger("asgi_bridge.apps")

REFRESH = 3600.0
"""Seconds after which metadata are read again."""
STALE = 86400.0
"""Seconds more for which old metadata are used while they cannot be read."""
COOLDOWN = 10.0
"""Minimum time between two attempts to read metadata or keys, in seconds."""
EXCHANGES = 16
"""Maximum number of codes of one route that are exchanged at the same time."""
RETRY_SECONDS = 10
"""Seconds after which a client may try again when the provider does not answer."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What the provider knows of this client.

    Attributes:
        client_id: Its id.
        client_secret: Its secret; None: it is a public client.
        auth_method: How it proves who it is, as ``client_secret_basic``.
        redirect_uri: Where the provider sends the browser back to.
    """

    client_id: str
    client_secret: str | None
    auth_method: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself (OpenID Connect Discovery).

    Attributes:
        authorization_endpoint: Where a browser logs in.
        token_endpoint: Where the runner gets tokens.
        end_session_endpoint: Where a browser logs out; None: nowhere.
        names_itself: Whether the provider says in each answer who it is (RFC 9207).
        keys: Its keys.
    """

    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None
    names_itself: bool
    keys: KeySet


class _Client(AsyncOAuth2Client):  # type: ignore[misc]
    """Authlib's client, which reads answers of bounded length only."""

    async def post(self, url: str, **options: Any) -> httpx2.Response:
        async with self.stream("POST", url, **options) as answer:
            content = b""
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
            return httpx2.Response(answer.status_code, content=content, request=answer.request)


class Provider:
    """One provider.

    Args:
        issuer: Its issuer, the URL that its metadata are below.
        may_call: Returns whether the runner may call a URL that the metadata name.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, issuer: str, may_call: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._may_call = may_call
        self._clock = clock
        url = issuer.removesuffix("/") + "/.well-known/openid-configuration"
        self._read, self._name = reader_of(None, url)
        self._metadata: Metadata | None = None
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._exchanging = 0
        self._certificates: ssl.SSLContext | None = None

    async def metadata(self) -> Metadata:
        """Return what the provider says of itself.

        Raises:
            Unavailable: It cannot be read, and what was read before is too old.
        """
        if self._clock() - self._read_at >= REFRESH:
            await self._read_again()
        if self._metadata is None or self._clock() - self._read_at >= REFRESH + STALE:
            raise Unavailable("The login service does not answer", RETRY_SECONDS)
        return self._metadata

    async def _read_again(self) -> None:
        if self._reading is None or self._reading.done():
            now = self._clock()
            if now - self._tried_at < COOLDOWN:
                return
            self._tried_at = now
            self._reading = asyncio.get_running_loop().create_task(self._attempt())
        # shielded, because other requests wait for the same attempt
        await asyncio.shield(self._reading)

    async def _attempt(self) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._metadata = self._checked(json.loads(await self._read()))
            self._read_at = started
        except _Unfit as exc:
            logger.error("oidc: the metadata at %s cannot be used: %s", self._name, exc)
        except Exception as exc:  # of connections, TLS, HTTP or JSON
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            logger.error("oidc: the metadata at %s cannot be read (%s)", self._name, reason)

    def _checked(self, found: Any) -> Metadata:
        """Return metadata whose URLs the runner may use. Raises _Unfit."""
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise _Unfit("they name another issuer than the route")
        secure = self._issuer.startswith("https://")

        def url(name: str) -> str | None:
            value = found.get(name)
            if value is None:
                return None
            if not isinstance(value, str) or not value.startswith("https://" if secure else ("https://", "http://")):
                raise _Unfit(f"{name} is no URL of https")
            if not all("!" <= character <= "~" for character in value):
                raise _Unfit(f"{name} is no URL")
            return value

        def called(name: str) -> str:
            value = url(name)
            if value is None:
                raise _Unfit(f"there is no {name}")
            if not self._may_call(value):
                raise _Unfit(
                    f'{name} is not allowed; the operator can allow it: allow=["{_origin(value)}"], or --allow'
                )
            return value

        authorize = url("authorization_endpoint")
        if authorize is None:
            raise _Unfit("there is no authorization_endpoint")
        return Metadata(
            authorize,
            called("token_endpoint"),
            url("end_session_endpoint"),
            found.get("authorization_response_iss_parameter_supported") is True,
            self._keys_at(called("jwks_uri")),
        )

    def _keys_at(self, url: str) -> KeySet:
        """Return the keys at a URL: those that there are already, unless the URL is another one."""
        read, name = reader_of(None, url)
        known = self._metadata
        full_name = f"oidc: the keys of {name}"
        if known is not None and known.keys.name == full_name:
            return known.keys
        return KeySet(read, full_name, refresh=300, stale=3600, cooldown=COOLDOWN, clock=self._clock)

    async def exchange(self, registration: Registration, code: str, verifier: str) -> Mapping[str, Any]:
        """Return the tokens for a code.

        Args:
            registration: This client.
            code: What the provider gave the browser.
            verifier: The secret whose hash the login began with (PKCE).

        Raises:
            Refused: The provider does not accept the code.
            Unavailable: The provider does not answer, or too many codes are being exchanged.
        """
        url = (await self.metadata()).token_endpoint
        if self._exchanging >= EXCHANGES:
            raise Unavailable("Too many logins at once", 1)
        self._exchanging += 1
        try:
            if self._certificates is None:  # reads them from disk
                self._certificates = await asyncio.to_thread(httpx2.create_ssl_context)
            client = _Client(
                registration.client_id,
                registration.client_secret,
                token_endpoint_auth_method=registration.auth_method,
                redirect_uri=registration.redirect_uri,
                timeout=READ_SECONDS,
                verify=self._certificates,
            )
            async with asyncio.timeout(READ_SECONDS), client:
                tokens: Mapping[str, Any] = await client.fetch_token(
                    url, grant_type="authorization_code", code=code, code_verifier=verifier,
                    redirect_uri=registration.redirect_uri,
                )  # fmt: skip
        except OAuthError as exc:
            logger.warning("oidc: %s refuses a code: %.100r", self._name, exc.error)
            raise Refused("the login service refuses the code") from None
        except Exception as exc:  # of connections, TLS, HTTP or JSON
            logger.error("oidc: the token endpoint of %s does not answer (%s)", self._name, type(exc).__name__)
            raise Unavailable("The login service does not answer", RETRY_SECONDS) from None
        finally:
            self._exchanging -= 1
        return tokens


class _Unfit(Exception):
    """Metadata cannot be used."""


def _origin(url: str) -> str:
    """Return the beginning of a URL that names the server, with the slash behind it."""
    parts = httpx2.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}/"
