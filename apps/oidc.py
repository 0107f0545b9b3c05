"""``oidc``: lets people log in with an OpenID provider, at the gateway, and tells the upstream who they are.

A browser without a session is sent to the provider (authorization code with PKCE, state and nonce). It comes back to
``redirect_uri``, the plugin gets an ID token for the code, verifies it, and sets the session cookie. With this cookie
requests pass, and the upstream gets the claims in headers. A program, which cannot log in, gets 401. Where the route
sets ``bearer``, it may send an access token in place of a cookie.

What protects a login:

- The cookies are encrypted and authenticated, with ``session.secrets``. Scripts cannot read them (``HttpOnly``), other
  sites cannot send them along with a POST (``SameSite=Lax``), and other hosts of the domain cannot set them
  (``__Host-``).
- ``state``, ``nonce`` and the verifier of PKCE are in a cookie of their own, for each login. So a login ends only in
  the browser that began it, once, and within ten minutes.
- The browser returns to the page that it came from, on the host of ``redirect_uri``. Nothing in a request names
  another place.
- A client's own headers with the names of the claims are removed, whoever the client is. The plugin's cookies do not
  reach the upstream.

The plugin calls the provider to read its metadata and keys, and for each login. The operator allows its URL
(``allow``). The ``token_endpoint`` and ``jwks_uri`` in the metadata have to be allowed too, where they are elsewhere.

The session is in the cookie alone, so all gateways with the same route know it. It ends after ``session.seconds``. A
logout deletes it in the browser, and leads to the provider's own logout. A copy of the cookie stays valid until its
end.

Routes share a session if they have the same issuer, client, secrets and claims. Other routes of the same host give
``session.cookie`` another name. The route has to match the paths of ``redirect_uri`` and of the logout, and the browser
has to use the gateway under the host of ``redirect_uri``.
"""

import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from authlib.common.security import generate_token
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream
from asgi_bridge.plugins.memory import remembered

from ._shared.guard import Refused, Unavailable, credentials
from ._shared.headers import Headers, encoded, without
from ._shared.jwks import KeysUnavailable, TooManyKeys
from ._shared.oidc_conf import OidcConf
from ._shared.oidc_provider import Metadata, Provider
from ._shared.sealed import MAX_COOKIE, Sealed, cookies_of, set_cookie, without_cookies
from ._shared.tokens import claims_of, header_of, identity_of

__all__ = ["OidcConf", "oidc"]

logger = logging.getLogger("asgi_bridge.apps")

LOGIN_SECONDS = 600
"""Seconds that a login may take."""
MAX_LOGINS = 4
"""Maximum number of logins that one browser has begun and not ended. Another one ends them all."""
MAX_PATH = 2048
"""Maximum length of the path and query that a login leads back to; from a longer one it leads to ``/``."""
MAX_ANSWER = 8192
"""Maximum length of the query with which the provider sends a browser back."""
MAX_TOKEN = 16_384
"""Maximum length of an ID token, and of a bearer token."""
MAX_SESSIONS = 3
"""Number of session cookies of a request that are tried. A browser sends one."""


def oidc(
    conf: OidcConf, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> ASGIApp:
    """Let people pass who have logged in with an OpenID provider.

    Args:
        conf: The route's configuration.
        clock: Returns seconds since 1970.
        monotonic: Returns monotonic seconds, for the age of metadata and keys.
    """
    provider = remembered(lambda: conf.provider(monotonic))
    gate = _Gate(conf, provider, clock)
    identity_names = encoded(conf.claims_to_headers.values())

    async def login(scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = upstream
        if scope["type"] == "http":
            headers = scope["headers"]
            scope["headers"] = without_cookies(without(headers, identity_names), gate.cookie)
            try:
                found = await gate.decide(scope, headers)
            except Refused as exc:
                found = _answer(401, f"{exc}\n", [(b"www-authenticate", gate.challenge(exc))])
            except Unavailable as exc:
                found = _answer(503, f"{exc}\n", [(b"retry-after", b"%d" % exc.seconds)])
            if isinstance(found, PlainTextResponse):
                app = found
            else:
                scope["headers"] += found
        await app(scope, receive, send)

    return login


class _Gate:
    """Decides about requests.

    Args:
        conf: The route's configuration.
        provider: The provider.
        clock: Returns seconds since 1970.

    Attributes:
        cookie: Name of the session cookie. Those of logins have this name with a dot and more.
    """

    def __init__(self, conf: OidcConf, provider: Provider, clock: Callable[[], float]) -> None:
        self._conf = conf
        self._provider = provider
        self._clock = clock
        self.cookie = f"__Host-{conf.session.cookie}" if conf.session.secure else conf.session.cookie
        secrets = [secret.get_secret_value() for secret in conf.session.secrets]
        # sessions of another client, or with other claims, do not open here
        whose = json.dumps([conf.issuer, conf.client_id, sorted(conf.claims_to_headers)])
        self._sessions = Sealed(secrets, f"session {whose}")
        self._logins = Sealed(secrets, f"login {whose}")

    async def decide(self, scope: Scope, headers: Headers) -> Headers | PlainTextResponse:
        """Return the headers with which a request passes, or what it is answered with.

        Args:
            scope: The request, without the headers that the client may not set.
            headers: All headers of the client.

        Raises:
            Refused: The client has to prove who it is.
            Unavailable: The provider does not answer.
        """
        conf = self._conf
        if scope["path"] == conf.callback_path:
            return await self._callback(scope, headers)
        if conf.logout is not None and scope["path"] == unquote(conf.logout.path):
            return await self._logout(headers, conf.logout.redirect_uri)
        bearer = None if conf.bearer is None else credentials(scope, b"bearer")
        if conf.bearer is not None and bearer is not None:
            claims = await self._claims(bearer, conf.bearer.audience)
            if conf.bearer.hide_credentials:
                scope["headers"] = without(scope["headers"], {b"authorization"})
            return identity_of(claims, conf.claims_to_headers)
        session = self._session(headers)
        if session is not None:
            return identity_of(session, conf.claims_to_headers)
        if conf.unauth_action == "pass":
            return []
        if conf.unauth_action == "auth" and scope["method"] in ("GET", "HEAD") and _is_navigation(headers):
            return await self._begin(scope, headers)
        raise Refused("a login is required", None)

    def challenge(self, refused: Refused) -> bytes:
        """Return the WWW-Authenticate header of a refusal."""
        text = f'Bearer realm="{self._conf.realm}"'
        if refused.error:
            text += f', error="{refused.error}", error_description="{refused}"'
        return text.encode("ascii")

    def _session(self, headers: Headers) -> dict[str, Any] | None:
        """Return the claims of the session; None: there is none."""
        found = [value for name, value in cookies_of(headers, self.cookie) if name == self.cookie]
        opened = (self._sessions.open(value, self._clock()) for value in found[:MAX_SESSIONS])
        return next((session for session in opened if session is not None), None)

    async def _begin(self, scope: Scope, headers: Headers) -> PlainTextResponse:
        """Send a browser to the provider."""
        metadata = await self._provider.metadata()
        state, nonce, verifier = generate_token(32), generate_token(32), generate_token(64)
        values = {"state": state, "nonce": nonce, "verifier": verifier, "back": _target(scope)}
        sealed = self._logins.seal(values, self._clock() + LOGIN_SECONDS)
        url = prepare_grant_uri(
            metadata.authorization_endpoint,
            self._conf.client_id,
            "code",
            redirect_uri=self._conf.redirect_uri,
            scope=self._conf.scope,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        begun = self._begun(headers)
        old = [self._set(name, "", 0) for name in begun] if len(begun) >= MAX_LOGINS else []
        return _redirect(url, [*old, self._set(self._login_name(state), sealed, LOGIN_SECONDS)])

    async def _callback(self, scope: Scope, headers: Headers) -> PlainTextResponse:
        """End a login with which the provider has sent a browser back."""
        query = scope["query_string"]
        answer = dict(parse_qsl(query.decode("latin-1"))) if len(query) <= MAX_ANSWER else {}
        state = answer.get("state", "")
        name = self._login_name(state)
        sealed = dict(cookies_of(headers, self.cookie)).get(name, b"")
        login = self._logins.open(sealed, self._clock())
        if scope["method"] != "GET" or login is None or not hmac.compare_digest(login["state"], state):
            return _answer(400, "This login is too old, or began in another browser. Open the page again.\n")
        over = self._set(name, "", 0)
        try:
            claims = await self._finish(answer, login)
            kept = {claim: claims[claim] for claim in self._conf.claims_to_headers if claim in claims}
            identity_of(kept, self._conf.claims_to_headers)
        except Refused as exc:
            return _answer(403, f"The login failed: {exc}\n", [over])
        session = self._sessions.seal(kept, self._clock() + self._conf.session.seconds)
        if len(session) > MAX_COOKIE:
            logger.error("oidc: the claims in claims_to_headers do not fit into a cookie; name fewer")
            return _answer(500, "The login failed: there is too much to remember\n", [over])
        set_session = self._set(self.cookie, session, self._conf.session.seconds)
        return _redirect(self._conf.origin + login["back"], [over, set_session])

    async def _finish(self, answer: Mapping[str, str], login: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the claims of the ID token to which the provider's answer leads.

        Raises:
            Refused: The provider refuses the login, or its token is invalid.
            Unavailable: The provider does not answer.
        """
        metadata = await self._provider.metadata()
        issuer = answer.get("iss")
        if (issuer or metadata.names_itself) and issuer != self._conf.issuer:  # RFC 9207
            raise Refused("the answer is of another issuer")
        if "error" in answer:
            error = answer["error"]
            raise Refused(error if re.fullmatch("[a-z_]{1,64}", error) else "the login service refuses it")
        if "code" not in answer:
            raise Refused("the answer has no code")
        tokens = await self._provider.exchange(self._conf.registration, answer["code"], login["verifier"])
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise Refused("the login service gives no ID token")
        encoded_token = token.encode("utf-8", "replace")
        claims = await self._claims(encoded_token, self._conf.client_id)
        params = {
            "nonce": login["nonce"], "client_id": self._conf.client_id, "access_token": tokens.get("access_token")
        }  # fmt: skip
        algorithm = header_of(encoded_token, self._conf.algorithms, MAX_TOKEN)[1]
        try:
            CodeIDToken(claims, {"alg": algorithm}, {}, params).validate(self._clock(), self._conf.clock_skew)
        except (JoseError, TypeError, ValueError) as exc:
            raise Refused(f"the ID token is invalid ({type(exc).__name__})") from None
        return claims

    async def _claims(self, token: bytes, audience: str) -> dict[str, Any]:
        """Return the claims of a token of the provider for an audience.

        Raises:
            Refused: It is invalid.
            Unavailable: There are no keys.
        """
        kid, algorithm = header_of(token, self._conf.algorithms, MAX_TOKEN)
        metadata = await self._provider.metadata()
        try:
            keys = await metadata.keys.find(kid, algorithm)
        except KeysUnavailable:
            raise Unavailable("No keys to check the token with", 10) from None
        except TooManyKeys:
            raise Refused("the token has to name its key (kid): too many could have signed it") from None
        return claims_of(
            token,
            keys,
            algorithm,
            issuer=self._conf.issuer,
            audience=audience,
            required=["iss", "sub", "aud", "exp"],
            clock_skew=self._conf.clock_skew,
        )

    async def _logout(self, headers: Headers, after: str | None) -> PlainTextResponse:
        """Delete the session, and lead the browser on: in the end to the URL `after`."""
        if dict(headers).get(b"sec-fetch-site") == b"cross-site":
            return _answer(403, "Another site cannot log you out.\n")
        over = [self._set(name, "", 0) for name in (self.cookie, *self._begun(headers))]
        metadata: Metadata | None = None
        try:
            metadata = await self._provider.metadata()
        except Unavailable:
            logger.warning("oidc: a logout does not reach the provider")
        if metadata is not None and metadata.end_session_endpoint is not None:
            question = {"client_id": self._conf.client_id}
            question |= {} if after is None else {"post_logout_redirect_uri": after}
            glue = "&" if "?" in metadata.end_session_endpoint else "?"
            return _redirect(f"{metadata.end_session_endpoint}{glue}{urlencode(question)}", over)
        return _answer(200, "You are logged out.\n", over) if after is None else _redirect(after, over)

    def _login_name(self, state: str) -> str:
        """Return the name of the cookie of a login. Each login of a browser has its own."""
        return f"{self.cookie}.{state[:8]}"

    def _begun(self, headers: Headers) -> list[str]:
        """Return the names of the cookies of a browser's logins, at most a few."""
        names = (name for name, _ in cookies_of(headers, self.cookie) if name != self.cookie)
        return [name for name in names if re.fullmatch(r"[A-Za-z0-9_.-]+", name)][: 2 * MAX_LOGINS]

    def _set(self, name: str, value: str, seconds: int) -> tuple[bytes, bytes]:
        return set_cookie(name, value, seconds, self._conf.session.secure)


def _target(scope: Scope) -> str:
    """Return path and query of a request, to come back to; ``/`` if no browser could have sent them."""
    path: bytes = scope.get("raw_path") or b"/"
    target = path + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    return target.decode("ascii") if re.fullmatch(rb"/[!-~]{0,%d}" % MAX_PATH, target) else "/"


def _is_navigation(headers: Headers) -> bool:
    """Return whether a browser loads a page, so that a person is there to log in."""
    found = dict(headers)
    mode = found.get(b"sec-fetch-mode")
    return mode == b"navigate" if mode is not None else b"text/html" in found.get(b"accept", b"")


def _answer(status: int, text: str, headers: Headers | None = None) -> PlainTextResponse:
    """Return a response that nobody stores."""
    answer = PlainTextResponse(text, status, {"cache-control": "no-store"})
    answer.raw_headers += headers or []
    return answer


def _redirect(url: str, headers: Headers) -> PlainTextResponse:
    return _answer(302, "Go on in a browser.\n", [(b"location", url.encode("ascii")), *headers])
