"""The configuration of ``oidc``."""

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationInfo, model_validator

from asgi_bridge.plugins import Allowed
from asgi_bridge.plugins.allow import may_call

from .conf import Conf, few
from .guard import HideCredentials, Realm
from .oidc_provider import Provider, Registration
from .tokens import ClaimsToHeaders

__all__ = ["OidcConf"]


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().strip()) < 32:
        raise ValueError(
            "a secret for cookies needs 32 characters or more: whoever guesses it can be anybody "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one)"
        )
    return secret


def _with_openid(scope: str) -> str:
    if "openid" not in scope.split():
        raise ValueError("the scope has to contain openid")
    return scope


Url = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9._\[\]:-]+(/[!-~]*)?$", max_length=2048)]
Path = Annotated[str, Field(pattern=r'^/[!-"$->@-~]*$', max_length=1024)]
CookieSecret = Annotated[SecretStr, Field(max_length=1024), AfterValidator(_long_enough)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class SessionConf(Conf):
    """What remembers who has logged in."""

    secrets: Annotated[list[CookieSecret], *few(4)] = Field(
        min_length=1,
        description="Secrets that protect the cookies, the newest first: the others still open old cookies.",
        examples=[["an example to change: 32 random characters"]],
    )
    seconds: int = Field(
        default=3600, ge=60, le=30 * 86400, description="Seconds after which a session ends, however it is used."
    )
    cookie: str = Field(default="oidc", pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="Name of the cookie.")
    secure: bool = Field(
        default=True,
        description="False: cookies are sent over plain HTTP, too, and other hosts of the domain can set them. For "
        "tests.",
    )


class BearerConf(Conf):
    """Access tokens that are accepted in place of a session: JWTs of the same issuer."""

    audience: str = Field(
        min_length=1,
        max_length=1024,
        description="Audience (aud) that a token has to be for. If it is the client_id, ID tokens are accepted too.",
    )
    hide_credentials: HideCredentials = False


class LogoutConf(Conf):
    """How a browser logs out."""

    path: Path = Field(default="/.oidc/logout", description="Path at which a browser logs out.")
    redirect_uri: Url | None = Field(
        default=None, description="URL that a logout leads to. Left out: the provider's page, or a short text."
    )


class OidcConf(Conf):
    """What ``oidc`` takes."""

    issuer: Annotated[Url, Allowed("https", "http")] = Field(
        description="Issuer of the provider, as its metadata name it; the operator allows it. Its metadata are at "
        "/.well-known/openid-configuration below.",
        examples=["https://idp.example.com/"],
    )
    client_id: str = Field(
        min_length=1, max_length=1024, description="Id that the provider knows the gateway by.", examples=["gateway"]
    )
    client_secret: Annotated[SecretStr, Field(max_length=4096)] | None = Field(
        default=None, description="Secret that goes with it. Left out: the gateway is a public client."
    )
    client_auth: Literal["client_secret_basic", "client_secret_post"] = Field(
        default="client_secret_basic", description="How the secret is sent to the provider."
    )
    redirect_uri: Url = Field(
        description="URL that the provider sends browsers back to. The provider knows it, the route matches its path, "
        "and nothing else answers there.",
        examples=["https://shop.test/.oidc/callback"],
    )
    scope: Annotated[str, Field(pattern=r"^[!#-\[\]-~ ]+$", max_length=1024), AfterValidator(_with_openid)] = Field(
        default="openid", description="What the provider is asked for, as `openid email`."
    )
    session: SessionConf = Field(description="The session, and its cookie.")
    claims_to_headers: ClaimsToHeaders = Field(default={}, examples=[{"sub": "X-User"}])
    unauth_action: Literal["auth", "deny", "pass"] = Field(
        default="auth",
        description="What happens without a session. `auth`: a browser logs in, and a program gets 401. `deny`: both "
        "get 401. `pass`: the request passes, without claims.",
    )
    bearer: BearerConf | None = Field(
        default=None,
        description="Access tokens that are accepted in place of a session: JWTs of the same issuer. Left out: none "
        "are.",
    )
    logout: LogoutConf | None = Field(
        default=None, description="How a browser logs out. Left out: it cannot.", examples=[{"path": "/.oidc/logout"}]
    )
    algorithms: Annotated[list[Algorithm], *few(10)] = Field(
        default=["RS256", "ES256", "PS256", "EdDSA"],
        min_length=1,
        description="Algorithms that the provider may sign with.",
    )
    clock_skew: float = Field(default=10, ge=0, le=600, description="Seconds that exp, nbf and iat may be off.")
    realm: Realm = "apisix"
    _may_call: Callable[[str], bool] = PrivateAttr()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "OidcConf":
        logout_path = None if self.logout is None else unquote(self.logout.path)
        if not urlsplit(self.redirect_uri).path.strip("/") or "?" in self.redirect_uri or "#" in self.redirect_uri:
            raise ValueError("redirect_uri needs a path of its own, and no query")
        if self.callback_path == logout_path:
            raise ValueError("redirect_uri and logout.path need different paths")
        if self.session.secure and not self.redirect_uri.startswith("https://"):
            raise ValueError("redirect_uri has to begin with https:// unless session.secure is false")
        self._may_call = may_call(info, self.issuer)
        return self

    @property
    def callback_path(self) -> str:
        """The path of ``redirect_uri``, decoded."""
        return unquote(urlsplit(self.redirect_uri).path)

    @property
    def origin(self) -> str:
        """Scheme, host and port of ``redirect_uri``."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def registration(self) -> Registration:
        """What the provider knows of this client."""
        secret = None if self.client_secret is None else self.client_secret.get_secret_value()
        return Registration(self.client_id, secret, "none" if secret is None else self.client_auth, self.redirect_uri)

    def provider(self, clock: Callable[[], float]) -> Provider:
        """Make the provider."""
        return Provider(self.issuer, self._may_call, clock)
