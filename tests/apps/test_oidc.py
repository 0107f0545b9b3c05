"""``oidc`` lets people log in with a real OpenID provider, and no attacker."""

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from asgi_bridge_apps import ready_made
from asgi_bridge_apps._shared import jwks, oidc_provider
from asgi_bridge_apps._shared.sealed import Sealed
from asgi_bridge_apps.oidc import oidc
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient

from .openid_provider import CLIENT, SECRET, OpenIDProvider, openid_provider
from .routes import gateway, sent

SECRETS = ["a secret of thirty-two characters or more"]
SESSION = {"secrets": SECRETS, "secure": False}
PAGE = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture(scope="module")
def running() -> Iterator[OpenIDProvider]:
    with openid_provider() as provider:
        yield provider


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the provider may be slow."""
    for module in (jwks, oidc_provider):
        monkeypatch.setattr(module, "READ_SECONDS", 60.0)


@pytest.fixture
def provider(running: OpenIDProvider) -> OpenIDProvider:
    running.control()
    return running


def conf_of(provider: OpenIDProvider, **more: Any) -> dict[str, Any]:
    return {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "redirect_uri": "http://shop.test/.oidc/callback",
        "session": SESSION,
        "claims_to_headers": {"sub": "X-User", "groups": "X-Groups"},
        "logout": {},
        **more,
    }


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def browser(provider: OpenIDProvider, clock: Clock | None = None, **more: Any) -> PluginClient:
    """Return a client at http://shop.test that keeps cookies and follows no redirect."""
    made = Bridge()
    factory = oidc if clock is None else partial(oidc, clock=clock)
    made.plugin("oidc", phase="request", allow=[f"{provider.issuer}/"])(factory)
    return PluginClient(
        made, "oidc", conf_of(provider, **more), base_url="http://shop.test", follow_redirects=False, headers=PAGE
    )


def logged_in(provider: OpenIDProvider, client: Any, path: str = "/") -> httpx2.Response:
    """Log in, and return the answer of the callback."""
    begun = client.get(path)
    assert begun.status_code == 302, begun.text
    answer: httpx2.Response = client.get(provider.authorize(begun.headers["location"]))
    return answer


def identity(answer: httpx2.Response) -> list[list[str]]:
    return sent(answer, "x-user", "x_user", "x-groups", "cookie")


def test_a_person_logs_in_and_the_upstream_learns_who_it_is(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        begun = client.get("/shop/a%20b?x=1&y=%2F")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
        back = provider.authorize(begun.headers["location"])
        ended = client.get(back)
        page = client.get("/shop", headers={"x-user": "root", "X_Groups": "all", "cookie": ""})

    assert (begun.status_code, begun.headers["cache-control"]) == (302, "no-store")
    assert set(asked) == {
        "client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge",
        "code_challenge_method",
    }  # fmt: skip
    assert (asked["client_id"], asked["redirect_uri"]) == (CLIENT, "http://shop.test/.oidc/callback")
    assert (asked["response_type"], asked["scope"], asked["code_challenge_method"]) == ("code", "openid", "S256")
    assert (ended.status_code, ended.headers["location"]) == (302, "http://shop.test/shop/a%20b?x=1&y=%2F")
    assert provider.seen()["auth_method"] == "client_secret_basic"
    assert page.status_code == 302  # an empty cookie header is no session
    cookie = ended.headers.get_list("set-cookie")[1]
    assert re.fullmatch(r"oidc=[\w=-]+; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax", cookie)


def test_with_the_session_requests_pass_without_the_cookie(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        logged_in(provider, client)
        client.cookies.set("theme", "dark")
        answers = [client.get("/"), client.post("/a?b", headers={"x-user": "root", "X_User": "root"})]
        client.cookies.delete("theme")
        alone = client.get("/")

    for answer in answers:
        assert identity(answer) == [["cookie", "theme=dark"], ["x-user", "ada"], ["x-groups", '["admins","ops"]']]
    assert identity(alone) == [["x-user", "ada"], ["x-groups", '["admins","ops"]']]
    assert provider.seen()["token"] == 1


def test_through_the_gateway(provider: OpenIDProvider) -> None:
    made = ready_made(allow=[f"{provider.issuer}/"])
    app = gateway(made, "oidc", conf_of(provider))
    with TestClient(app, base_url="http://shop.test", follow_redirects=False, headers=PAGE) as client:
        ended = logged_in(provider, client, "/x?y=1")
        answer = client.get("/x", headers={"x-user": "root", "x_user": "root"})
        over = client.get("/.oidc/logout")
        refused = client.get("/x", headers={"accept": "*/*"})

    assert (ended.status_code, ended.headers["location"]) == (302, "http://shop.test/x?y=1")
    assert len(ended.headers.get_list("set-cookie")) == 2
    assert identity(answer) == [["x-user", "ada"], ["x-groups", '["admins","ops"]']]
    assert over.headers["location"] == f"{provider.issuer}/logout?a=1&client_id={CLIENT}"
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="apisix"')


def test_secure_cookies_belong_to_one_host_and_https(provider: OpenIDProvider) -> None:
    uri = "https://shop.test/.oidc/callback"
    with browser(provider, session={"secrets": SECRETS}, redirect_uri=uri) as client:
        client.base_url = "https://shop.test"
        ended = logged_in(provider, client)
        answer = client.get("/")

    names = []
    for cookie in ended.headers.get_list("set-cookie"):
        name, *attributes = cookie.split("; ")
        names.append(name.partition("=")[0])
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= {*attributes}
        assert not any(each.startswith("Domain") for each in attributes)
    assert [name.split(".")[0] for name in names] == ["__Host-oidc"] * 2
    assert identity(answer)[0] == ["x-user", "ada"]


def test_a_public_client_and_a_secret_in_the_body(provider: OpenIDProvider) -> None:
    methods = []
    for more in ({"client_secret": None}, {"client_auth": "client_secret_post"}):
        with browser(provider, **more) as client:
            assert logged_in(provider, client).status_code == 302
        methods.append(provider.seen()["auth_method"])

    assert methods == ["none", "client_secret_post"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"accept": "text/html"}, 302),
        ("HEAD", {"accept": "text/html"}, 302),
        ("GET", {"accept": "*/*", "sec-fetch-mode": "navigate"}, 302),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "cors"}, 401),
        ("GET", {"accept": "application/json"}, 401),
        ("GET", {"accept": "*/*"}, 401),
        ("POST", {"accept": "text/html"}, 401),
    ],
)
def test_browsers_log_in_and_programs_get_401(
    provider: OpenIDProvider, method: str, headers: dict[str, str], status: int
) -> None:
    with browser(provider) as client:
        assert client.request(method, "/", headers=headers).status_code == status


def test_a_route_may_deny_or_pass_in_place_of_a_login(provider: OpenIDProvider) -> None:
    spoofed = {"x-user": "root", "x_groups": "all"}
    with browser(provider, unauth_action="deny") as client:
        assert client.get("/", headers=spoofed).status_code == 401
    with browser(provider, unauth_action="pass") as client:
        assert identity(client.get("/", headers=spoofed)) == []


# --- attackers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["//evil.test/a", "/%5cevil.test", "/\\evil.test", "//evil.test/%2e%2e?x=//evil.test", "/" + "a" * 3000],
)
def test_a_login_leads_back_to_the_own_host_only(provider: OpenIDProvider, path: str) -> None:
    with browser(provider) as client:
        request = client.build_request("GET", "http://shop.test/")
        request.url = httpx2.URL("http://shop.test/").copy_with(raw_path=path.encode())
        begun = client.send(request)
        ended = client.get(provider.authorize(begun.headers["location"]))

    location = ended.headers["location"]
    assert location.startswith("http://shop.test/")
    assert urlsplit(location).netloc == "shop.test"
    assert re.fullmatch(r"[!-~]{1,2100}", location)


@pytest.mark.parametrize(
    "query", ["next=https://evil.test", "redirect_uri=https://evil.test", "post_logout_redirect_uri=https://evil.test"]
)
def test_no_parameter_names_another_place(provider: OpenIDProvider, query: str) -> None:
    with browser(provider) as client:
        begun = client.get("/")
        back = provider.authorize(begun.headers["location"])
        ended = client.get(f"{back}&{query}")
        over = client.get(f"/.oidc/logout?{query}")

    assert ended.headers["location"] == "http://shop.test/"
    assert over.headers["location"] == f"{provider.issuer}/logout?a=1&client_id={CLIENT}"


TOO_OLD = (400, "This login is too old, or began in another browser. Open the page again.\n")


def test_a_login_ends_only_in_the_browser_that_began_it(provider: OpenIDProvider) -> None:
    """An attacker sends a victim the link that ends the attacker's own login."""
    with browser(provider) as attacker:
        back = provider.authorize(attacker.get("/").headers["location"])
        mine = dict(attacker.cookies)
    with browser(provider) as victim:
        answer = victim.get(back)
        victim.get("/")  # a login of the victim's own is under way
        other = victim.get(back)

    assert (answer.status_code, answer.text) == (other.status_code, other.text) == TOO_OLD
    assert "set-cookie" not in answer.headers
    assert provider.seen().get("token") is None
    assert len(mine) == 1


def test_the_state_of_one_login_does_not_go_with_the_cookie_of_another(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        first, second = (client.get("/").headers["location"] for _ in range(2))
        names = sorted(client.cookies)
        swapped = {names[0]: client.cookies[names[1]], names[1]: client.cookies[names[0]]}
        client.cookies.clear()
        client.cookies.update(swapped)
        answers = [client.get(provider.authorize(each)) for each in (first, second)]

    assert [(answer.status_code, answer.text) for answer in answers] == [TOO_OLD] * 2


def test_a_code_of_another_login_is_refused_by_nonce_and_verifier(provider: OpenIDProvider) -> None:
    """An attacker injects a stolen code into a login of its own."""
    with browser(provider) as client:
        stolen = parse_qs(urlsplit(provider.authorize(client.get("/").headers["location"])).query)["code"][0]
        own = provider.authorize(client.get("/").headers["location"])
        answer = client.get(re.sub("code=[^&]*", f"code={stolen}", own))

    assert (answer.status_code, answer.text) == (403, "The login failed: the login service refuses the code\n")


def test_a_code_counts_once(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        back = provider.authorize(client.get("/").headers["location"])
        cookies = dict(client.cookies)
        statuses = [client.get(back).status_code, client.get(back).status_code]
        client.cookies.update(cookies)
        statuses.append(client.get(back).status_code)

    assert statuses == [302, 400, 403]


def test_two_logins_in_two_tabs_both_end(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        backs = [provider.authorize(client.get(f"/{number}").headers["location"]) for number in range(2)]
        ended = [client.get(back).headers["location"] for back in reversed(backs)]

    assert ended == ["http://shop.test/1", "http://shop.test/0"]


def test_a_browser_keeps_a_few_logins_only(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        counts = []
        for _ in range(12):
            client.get("/")
            counts.append(len(client.cookies))

    assert counts == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]


def test_sessions_and_logins_end(provider: OpenIDProvider) -> None:
    clock = Clock()
    with browser(provider, clock, session={**SESSION, "seconds": 100}, clock_skew=600) as client:
        back = provider.authorize(client.get("/").headers["location"])
        clock.ahead = 601
        late = client.get(back)
        clock.ahead = 0
        client.cookies.clear()
        logged_in(provider, client)
        session = client.cookies["oidc"]
        statuses = []
        for ahead in (0.0, 99.0, 101.0):
            clock.ahead = ahead
            statuses.append(client.get("/", headers={"cookie": f"oidc={session}", "accept": "*/*"}).status_code)

    assert (late.status_code, late.text) == TOO_OLD
    assert statuses == [200, 200, 401]


def test_only_what_the_plugin_sealed_for_this_route_is_a_session(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        client.get("/")
        login = next(iter(dict(client.cookies).values()))
        client.cookies.clear()
        logged_in(provider, client)
        session = client.cookies["oidc"]
    middle = len(session) // 2
    forged = [
        "", "x", session[:-1], "A" + session, session[:middle] + "A" + session[middle + 1 :], session.upper(),
        login, Sealed(["another secret of thirty-two characters"], "session").seal({"sub": "root"}, time.time() + 60),
        Sealed(SECRETS, "session").seal({"sub": "root"}, time.time() + 60), "A" * 100_000, "\x80\xff", "=" * 50,
    ]  # fmt: skip

    def statuses(client: PluginClient, *values: str) -> list[int]:
        client.cookies.clear()
        cookies = [f"oidc={value}".encode("latin-1") for value in values]
        return [client.get("/", headers=[(b"accept", b"*/*"), (b"cookie", each)]).status_code for each in cookies]

    with browser(provider) as client:
        assert statuses(client, session, *forged) == [200, *[401] * len(forged)]
    others: list[dict[str, Any]] = [
        {"client_id": "another"}, {"claims_to_headers": {"email": "x-user"}},
        {"session": {**SESSION, "secrets": ["b" * 32]}},
    ]  # fmt: skip
    for more in others:
        with browser(provider, **more) as client:
            assert statuses(client, session) == [401]
    with browser(
        provider, session={**SESSION, "secrets": ["a newer secret of thirty-two characters", *SECRETS]}
    ) as client:
        assert statuses(client, session) == [200]


def test_many_and_huge_cookies_are_passed_over(provider: OpenIDProvider) -> None:
    with browser(provider) as client:
        logged_in(provider, client)
        session = client.cookies["oidc"]
        client.cookies.clear()
        others = "; ".join([*(f"c{number}=\\\\\\" for number in range(2000)), "oidc_x=1", f"oidc={'A' * 9000}"])
        found = client.get("/", headers={"cookie": f"{others}; oidc={session}; last=1"})
        logins = client.get("/", headers={"cookie": "; ".join(f"oidc.{number}=x" for number in range(5000))})

    assert identity(found)[1] == ["x-user", "ada"]
    kept = dict(found.json()["headers"])["cookie"]
    assert kept.endswith("\\\\\\; oidc_x=1; last=1")
    assert logins.status_code == 302 and len(logins.headers.get_list("set-cookie")) == 9


TAMPERED: list[tuple[str, dict[str, Any], str]] = [
    ("another nonce", {"claims": {"nonce": "x"}}, "the ID token is invalid (InvalidClaimError)"),
    ("no nonce", {"without": ["nonce"]}, "the ID token is invalid (MissingClaimError)"),
    ("another client", {"claims": {"aud": "other"}}, "the token is for another audience"),
    ("several clients, issued to another", {"claims": {"aud": [CLIENT, "other"], "azp": "other"}},
     "the ID token is invalid (InvalidClaimError)"),
    ("several clients, issued to nobody", {"claims": {"aud": [CLIENT, "other"]}},
     "the ID token is invalid (MissingClaimError)"),
    ("another issuer", {"claims": {"iss": "http://evil.test"}}, "the token is of another issuer"),
    ("expired", {"claims": {"exp": 1_600_000_000}}, "the token has expired"),
    ("no end", {"without": ["exp"]}, "the token lacks a claim that is required"),
    ("from the future", {"claims": {"iat": 4_000_000_000}}, "the token is not valid yet"),
    ("another access token", {"claims": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
     "the ID token is invalid (InvalidClaimError)"),
    ("another key", {"key": "other"}, "no key verifies the token's signature"),
    ("an unknown key", {"key": "other", "kid": "other"}, "no key verifies the token's signature"),
    ("signed with the secret", {"alg": "HS256"}, "the token's algorithm is not allowed"),
    ("not for a header", {"claims": {"sub": "ada\r\nx-admin: 1"}}, "a claim of the token cannot be a header"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "reason"), [row[1:] for row in TAMPERED], ids=[row[0] for row in TAMPERED])
def test_a_bad_id_token_is_refused(provider: OpenIDProvider, tamper: dict[str, Any], reason: str) -> None:
    provider.control(tamper=tamper)
    with browser(provider) as client:
        answer = logged_in(provider, client)
        cookies = dict(client.cookies)

    assert (answer.status_code, answer.text) == (403, f"The login failed: {reason}\n")
    assert cookies == {}


@pytest.mark.parametrize(
    ("settings", "status", "text"),
    [
        ({"error": "access_denied"}, 403, "The login failed: access_denied\n"),
        ({"error": "<script>alert(1)</script>"}, 403, "The login failed: the login service refuses it\n"),
        ({"iss": "http://evil.test"}, 403, "The login failed: the answer is of another issuer\n"),
        ({"metadata": {"authorization_response_iss_parameter_supported": True}}, 403,
         "The login failed: the answer is of another issuer\n"),
        ({"token_body": "{}"}, 403, "The login failed: the login service gives no ID token\n"),
        ({"token_body": '{"id_token": 1}'}, 403, "The login failed: the login service gives no ID token\n"),
        ({"token_body": '{"id_token": "x.y.z"}'}, 403, "The login failed: the token is malformed\n"),
        ({"token_body": "<p>"}, 503, "The login service does not answer\n"),
        ({"token_body": "[]"}, 503, "The login service does not answer\n"),
        ({"token_body": "x", "token_status": 500}, 503, "The login service does not answer\n"),
        ({"token_body": "x" * 1000, "times": 2000}, 503, "The login service does not answer\n"),
    ],
)  # fmt: skip
def test_a_provider_that_fails_lets_nobody_in(
    provider: OpenIDProvider, settings: dict[str, Any], status: int, text: str
) -> None:
    provider.control(**settings)
    with browser(provider) as client:
        answer = logged_in(provider, client)
        assert (answer.status_code, answer.text) == (status, text)
        assert "oidc" not in client.cookies
        if status == 503:
            assert answer.headers["retry-after"] == "10"


def test_the_provider_may_say_who_it_is(provider: OpenIDProvider) -> None:
    provider.control(iss=provider.issuer, metadata={"authorization_response_iss_parameter_supported": True})
    with browser(provider) as client:
        assert logged_in(provider, client).status_code == 302


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"issuer": "http://evil.test"}, "they name another issuer than the route"),
        ({"token_endpoint": "http://169.254.169.254/a"}, "token_endpoint is not allowed; the operator can allow it: "
         'allow=["http://169.254.169.254/"], or --allow'),
        ({"jwks_uri": "http://127.0.0.1:1/keys"}, "jwks_uri is not allowed; the operator can allow it: "
         'allow=["http://127.0.0.1:1/"], or --allow'),
        ({"token_endpoint": "file:///etc/passwd"}, "token_endpoint is no URL of https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no URL of https"),
        ({"authorization_endpoint": "http://a.test/\r\nset-cookie: a=b"}, "authorization_endpoint is no URL"),
        ({"authorization_endpoint": None}, "there is no authorization_endpoint"),
        ({"jwks_uri": None}, "there is no jwks_uri"),
    ],
)  # fmt: skip
def test_metadata_lead_the_runner_nowhere_else(
    provider: OpenIDProvider, metadata: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider.control(metadata=metadata)
    with browser(provider) as client:
        answers = [client.get("/") for _ in range(3)]

    assert [(answer.status_code, answer.text) for answer in answers] == [
        (503, "The login service does not answer\n")
    ] * 3
    assert [message for message in caplog.messages if message.startswith("oidc: ")] == [
        f"oidc: the metadata at {provider.issuer}/.well-known/openid-configuration cannot be used: {reason}"
    ]
    assert provider.seen() == {"metadata": 1}


def test_an_issuer_of_the_operator_needs_no_entry_but_a_route_may_not_name_one(provider: OpenIDProvider) -> None:
    conf = conf_of(provider)
    issuer = conf.pop("issuer")
    own = Bridge()
    own.plugin("oidc", phase="request", defaults={"issuer": issuer})(oidc)
    options: Any = {"base_url": "http://shop.test", "follow_redirects": False, "headers": PAGE}
    with PluginClient(own, "oidc", conf, **options) as client:
        assert logged_in(provider, client).status_code == 302
    with pytest.raises(ConfigurationError, match="^plugin oidc: field 'issuer': a route may not name this"):
        PluginClient(own, "oidc", {**conf, "issuer": "http://127.0.0.1:1"}).get("/")


def test_a_provider_that_is_away_is_asked_now_and_then_only(
    provider: OpenIDProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.control(metadata_status=500)
    with browser(provider) as client:
        statuses = [client.get("/").status_code for _ in range(5)]

    assert (statuses, provider.seen()) == ([503] * 5, {"metadata": 1})
    assert [message for message in caplog.messages if message.startswith("oidc: ")] == [
        f"oidc: the metadata at {provider.issuer}/.well-known/openid-configuration cannot be read (ValueError)"
    ]


# --- bearer tokens ----------------------------------------------------------------------------------------------------


def test_a_program_may_send_an_access_token_where_the_route_says_so(provider: OpenIDProvider) -> None:
    bearer = {"authorization": f"Bearer {provider.token()}", "x-user": "root", "accept": "*/*"}
    with browser(provider, bearer={"audience": "api"}) as client:
        shown = client.get("/", headers=bearer)
    with browser(provider, bearer={"audience": "api", "hide_credentials": True}) as client:
        hidden = client.get("/", headers=bearer)
    with browser(provider) as client:
        refused = client.get("/", headers=bearer)

    assert sent(shown, "x-user", "authorization") == [["authorization", bearer["authorization"]], ["x-user", "robot"]]
    assert sent(hidden, "x-user", "authorization") == [["x-user", "robot"]]
    assert (refused.status_code, refused.text) == (401, "a login is required\n")


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        ({"claims": {"aud": CLIENT}}, "the token is for another audience"),  # an ID token is no access token
        ({"claims": {"iss": "http://evil.test"}}, "the token is of another issuer"),
        ({"claims": {"exp": 1_600_000_000}}, "the token has expired"),
        ({"key": "other"}, "no key verifies the token's signature"),
        ({"alg": "HS256"}, "the token's algorithm is not allowed"),
        ({"without": ["sub"]}, "the token lacks a claim that is required"),
    ],
)
def test_a_bad_access_token_is_refused_whatever_session_comes_with_it(
    provider: OpenIDProvider, tamper: dict[str, Any], reason: str
) -> None:
    token = provider.token(**tamper)
    with browser(provider, bearer={"audience": "api"}) as client:
        logged_in(provider, client)
        answer = client.get("/", headers={"authorization": f"Bearer {token}"})

    assert (answer.status_code, answer.text) == (401, f"{reason}\n")
    assert answer.headers["www-authenticate"] == (
        f'Bearer realm="apisix", error="invalid_token", error_description="{reason}"'
    )


# --- logout -----------------------------------------------------------------------------------------------------------


def test_a_logout_deletes_the_session_and_goes_on_to_the_provider(provider: OpenIDProvider) -> None:
    after = "http://shop.test/bye?a=1"
    with browser(provider, logout={"redirect_uri": after}) as client:
        logged_in(provider, client)
        client.get("/", headers={"cookie": ""})  # begins another login
        foreign = client.get("/.oidc/logout", headers={"sec-fetch-site": "cross-site"})
        cookies = len(client.cookies)
        over = client.get("/.oidc/logout", headers={"sec-fetch-site": "same-origin"})
        left = dict(client.cookies)
        again = client.get("/", headers={"accept": "*/*"})

    assert (foreign.status_code, foreign.text) == (403, "Another site cannot log you out.\n")
    assert cookies == 2
    question = "client_id=gateway&post_logout_redirect_uri=http%3A%2F%2Fshop.test%2Fbye%3Fa%3D1"
    assert (over.status_code, over.headers["location"]) == (302, f"{provider.issuer}/logout?a=1&{question}")
    assert (left, again.status_code) == ({}, 401)


@pytest.mark.parametrize(
    ("settings", "more", "status", "location"),
    [
        ({"metadata": {"end_session_endpoint": None}}, {}, 200, None),
        ({"metadata": {"end_session_endpoint": None}}, {"logout": {"redirect_uri": "https://a.test/"}}, 302,
         "https://a.test/"),
        ({"metadata_status": 500}, {}, 200, None),
    ],
)  # fmt: skip
def test_a_logout_works_without_the_provider(
    provider: OpenIDProvider, settings: Any, more: Any, status: int, location: str | None
) -> None:
    provider.control(**settings)
    with browser(provider, **more) as client:
        answer = client.get("/.oidc/logout")

    assert (answer.status_code, answer.headers.get("location")) == (status, location)
    assert answer.headers["set-cookie"] == "oidc=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"issuer": "https://b.test"}, "field 'issuer': a route may not name this"),
        ({"issuer": "file:///etc"}, "field 'issuer': String should match"),
        ({"redirect_uri": "/callback"}, "field 'redirect_uri': String should match"),
        ({"redirect_uri": "http://user@shop.test/x"}, "field 'redirect_uri': String should match"),
        ({"redirect_uri": "http://shop.test/"}, "Value error, redirect_uri needs a path of its own"),
        ({"redirect_uri": "http://shop.test/x?y"}, "Value error, redirect_uri needs a path of its own, and no query"),
        (
            {"redirect_uri": "http://shop.test/a", "logout": {"path": "/a"}},
            "Value error, redirect_uri and logout.path need",
        ),
        ({"session": {"secrets": SECRETS}}, "Value error, redirect_uri has to begin with https://"),
        ({"session": {"secrets": []}}, "field 'session.secrets': List should have at least 1 item"),
        ({"session": {"secrets": ["short"]}}, "field 'session.secrets.0': Value error, a secret for cookies needs 32"),
        ({"scope": "email"}, "field 'scope': Value error, the scope has to contain openid"),
        ({"session": {**SESSION, "cookie": "a;b"}}, "field 'session.cookie': String should match"),
        ({"algorithms": ["HS256"]}, "field 'algorithms.0': Input should be"),
        ({"algorithms": ["none"]}, "field 'algorithms.0': Input should be"),
        (
            {"claims_to_headers": {"sub": "Host"}},
            "field 'claims_to_headers.sub': Value error, host has",
        ),
        ({"claims_to_headers": {"sub": "x-a", "aud": "X_A"}}, "field 'claims_to_headers': Value error, two claims"),
        ({"unauth_action": "login"}, "field 'unauth_action': Input should be"),
        ({"discovery": "x"}, "field 'discovery': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration_and_repeats_no_secret(more: Any, reason: str) -> None:
    class Provider:
        issuer = "https://a.test"

    conf = conf_of(Provider(), **more)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        PluginClient(ready_made(allow=["https://a.test/"]), "oidc", conf).get("/")
    assert str(caught.value).startswith(f"plugin oidc: {reason}")
    assert SECRET not in str(caught.value) and SECRETS[0] not in str(caught.value)
