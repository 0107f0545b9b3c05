"""A small OpenID provider: Flask and Authlib's server, in a process of its own on 127.0.0.1.

It logs everybody in as ``ada``. ``POST /control`` takes JSON that makes it misbehave. ``GET /control`` tells what it
saw.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2

__all__ = ["CLIENT", "SECRET", "OpenIDProvider", "openid_provider"]

CLIENT, SECRET = "gateway", "a secret of the gateway & 1"


class OpenIDProvider:
    """A provider that runs.

    Attributes:
        issuer: Its issuer, a URL with its port.
    """

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        # without proxies of the environment
        self._client = httpx2.Client(base_url=self.issuer, trust_env=False, timeout=120)

    def control(self, **settings: Any) -> None:
        """Forget what was set before, and misbehave as `settings` say."""
        assert self._client.post("/control", json=settings).status_code == 200

    def seen(self) -> dict[str, Any]:
        """Return what the provider has seen since `control`: counts of calls, and the last ones."""
        found: dict[str, Any] = self._client.get("/control").json()
        return found

    def authorize(self, location: str) -> str:
        """Do what a browser does with a redirect to the provider. Returns where it is sent back to."""
        assert location.startswith(f"{self.issuer}/authorize?"), location
        answer = self._client.get(location)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def token(self, **tamper: Any) -> str:
        """Return an access token, a JWT for the audience ``api``."""
        return self._client.post("/sign", json=tamper).text

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def openid_provider() -> Iterator[OpenIDProvider]:
    """Run a provider."""
    environment = {**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.apps.openid_provider"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("port "), line
        provider = OpenIDProvider(int(line.split()[1]))
        try:
            yield provider
        finally:
            provider.close()
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def main() -> None:
    """Serve until the end of the process. The first line of the output has the port."""
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2.rfc6749 import ClientMixin
    from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
    from authlib.oauth2.rfc7636 import CodeChallenge
    from authlib.oidc.core import AuthorizationCodeMixin, OpenIDCode, UserInfo
    from flask import Flask, Response, jsonify, redirect, request
    from joserfc import jwt
    from joserfc.jwk import OctKey, RSAKey
    from werkzeug.serving import make_server

    app = Flask(__name__)
    settings: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    codes: dict[str, Any] = {}
    keys = {name: RSAKey.generate_key(2048, {"kid": name}) for name in ("main", "other")}

    def count(name: str) -> None:
        seen[name] = seen.get(name, 0) + 1

    def signed(claims: dict[str, Any]) -> str:
        """Sign claims, as ``settings["tamper"]`` says."""
        tamper = settings.get("tamper", {})
        claims = {**claims, **tamper.get("claims", {})}
        for name in tamper.get("without", ()):
            claims.pop(name, None)
        algorithm = tamper.get("alg", "RS256")
        header = {"alg": algorithm, "kid": tamper.get("kid", "main")}
        key: Any = keys[tamper.get("key", "main")]
        if algorithm == "HS256":
            key = OctKey.import_key(SECRET + SECRET)
        if algorithm == "none":
            key = OctKey.import_key("x" * 32)
        return jwt.encode(header, claims, key, [algorithm])

    class Client(ClientMixin):  # type: ignore[misc]
        def get_client_id(self) -> str:
            return CLIENT

        def get_allowed_scope(self, scope: str) -> str:
            return scope

        def check_redirect_uri(self, redirect_uri: str) -> bool:
            return redirect_uri.startswith(("http://shop.test/", "https://shop.test/"))

        def check_client_secret(self, client_secret: str) -> bool:
            return client_secret == SECRET

        def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
            seen["auth_method"] = method
            return True

        def check_response_type(self, response_type: str) -> bool:
            return response_type == "code"

        def check_grant_type(self, grant_type: str) -> bool:
            return grant_type == "authorization_code"

    class Code(AuthorizationCodeMixin):  # type: ignore[misc]
        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)

        def get_redirect_uri(self) -> Any:
            return self.__dict__["redirect_uri"]

        def get_scope(self) -> Any:
            return self.__dict__["scope"]

        def get_nonce(self) -> Any:
            return self.__dict__["nonce"]

        def get_auth_time(self) -> int:
            return int(time.time())

    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            codes[code] = Code(
                code=code, redirect_uri=request.payload.redirect_uri, scope=request.payload.scope,
                nonce=data.get("nonce"), code_challenge=data.get("code_challenge"),
                code_challenge_method=data.get("code_challenge_method"),
            )  # fmt: skip

        def query_authorization_code(self, code: str, client: Any) -> Any:
            return codes.get(code)

        def delete_authorization_code(self, authorization_code: Any) -> None:
            codes.pop(authorization_code.code)

        def authenticate_user(self, authorization_code: Any) -> str:
            return "ada"

    class OpenID(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(code.nonce == nonce for code in codes.values())

        def resolve_client_private_key(self, client: Any) -> Any:
            return keys["main"]

        def get_client_algorithm(self, client: Any) -> str:
            return "RS256"

        def get_client_claims(self, client: Any) -> dict[str, Any]:
            return {"iss": issuer, "aud": [CLIENT]}

        def get_encode_header(self, client: Any) -> dict[str, Any]:
            return {"alg": "RS256", "kid": "main"}

        def generate_user_info(self, user: str, scope: str) -> Any:
            return UserInfo(sub=user, name="Ada Lovelace", groups=["admins", "ops"], email="ada@shop.test")

        def encode_id_token(self, token: Any, request: Any) -> Any:
            proper = super().encode_id_token(token, request)
            return signed(jwt.decode(proper, keys["main"]).claims)

    server = AuthorizationServer(app, lambda client_id: Client() if client_id == CLIENT else None, lambda *args: None)
    server.register_grant(Grant, [CodeChallenge(required=True), OpenID(require_nonce=True)])

    @app.get("/.well-known/openid-configuration")
    def metadata() -> Any:
        count("metadata")
        if settings.get("metadata_status"):
            return Response(status=settings["metadata_status"])
        found = {
            "issuer": issuer, "authorization_endpoint": f"{issuer}/authorize", "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/keys", "end_session_endpoint": f"{issuer}/logout?a=1",
        }  # fmt: skip
        return jsonify({name: value for name, value in {**found, **settings.get("metadata", {})}.items() if value})

    @app.get("/keys")
    def jwks() -> Any:
        count("keys")
        return jsonify({"keys": [{**keys["main"].as_dict(private=False), "use": "sig"}]})

    @app.get("/authorize")
    def authorize() -> Any:
        count("authorize")
        seen["authorization"] = dict(request.args)
        if "error" in settings:
            back = {"error": settings["error"], "state": request.args["state"]}
            return redirect(f"{request.args['redirect_uri']}?{urlencode(back)}")
        grant = server.get_consent_grant(end_user="ada")
        answer = server.create_authorization_response(grant=grant, grant_user="ada")
        if "iss" in settings:
            answer.headers["location"] += "&" + urlencode({"iss": settings["iss"]})
        return answer

    @app.post("/token")
    def token() -> Any:
        count("token")
        seen["token_request"] = sorted(request.form)
        if "token_body" in settings:
            body = settings["token_body"]
            return Response(body * settings.get("times", 1), settings.get("token_status", 200), mimetype="text/html")
        return server.create_token_response()

    @app.post("/sign")
    def sign() -> Any:
        now = int(time.time())
        before = dict(settings)
        settings["tamper"] = request.json
        try:
            return signed({"iss": issuer, "aud": "api", "sub": "robot", "iat": now, "exp": now + 600})
        finally:
            settings.clear()
            settings.update(before)

    @app.route("/control", methods=["GET", "POST"])
    def control() -> Any:
        if request.method == "POST":
            settings.clear()
            seen.clear()
            settings.update(request.json or {})
        return jsonify(seen)

    http = make_server("127.0.0.1", 0, app, threaded=True)
    issuer = f"http://127.0.0.1:{http.server_port}"
    print("port", http.server_port, flush=True)
    http.serve_forever()


if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # a line for each request
    main()
