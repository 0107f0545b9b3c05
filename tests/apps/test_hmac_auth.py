"""``hmac-auth`` lets requests pass that are signed as for APISIX's own plugin, and is stricter than that."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterable
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest
from asgi_bridge_apps import bridge, hmac_auth
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient

from .routes import gateway, sent

SECRET = "john-secret-key"
NOW = 1725604889  # Fri, 06 Sep 2024 06:41:29 GMT
DATE = formatdate(NOW, usegmt=True)
CONF: dict[str, Any] = {"keys": {"john-key": SECRET, "ada": "another secret"}, "user_header": "X-Key"}

Headers = list[tuple[str, str]]


def timed(now: float = NOW) -> Bridge:
    made = Bridge()
    made.plugin("hmac-auth", exact=True, request_body=False)(partial(hmac_auth.hmac_auth, clock=lambda: now))
    return made


def client(conf: Any = CONF, now: float = NOW, **kwargs: Any) -> PluginClient:
    return PluginClient(timed(now), "hmac-auth", conf, **kwargs)


def authorization(
    lines: Iterable[str], names: str, key: str = "john-key", secret: str = SECRET, algorithm: str = "sha256"
) -> str:
    """Return the header of a client that signs `lines`, as APISIX documents it. It shares no code with the plugin."""
    text = "".join(line + "\n" for line in (key, *lines)).encode("latin-1")
    signature = base64.b64encode(hmac.new(secret.encode(), text, getattr(hashlib, algorithm)).digest()).decode()
    return f'Signature keyId="{key}",algorithm="hmac-{algorithm}",headers="{names}",signature="{signature}"'


def signed(target: str = "GET /get", *, date: str = DATE, **kwargs: Any) -> Headers:
    return [
        ("date", date),
        ("authorization", authorization([target, f"date: {date}"], "@request-target date", **kwargs)),
    ]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_signed_request_passes_and_the_upstream_gets_the_keys_id(algorithm: str) -> None:
    spoofed = [("x-key", "root"), ("x_key", "root")]

    answer = client().get("/get", headers=[*spoofed, *signed(algorithm=algorithm, key="ada", secret="another secret")])

    assert sent(answer, "x-key", "x_key") == [["x-key", "ada"]]
    assert len(sent(answer, "authorization")) == 1


@pytest.mark.parametrize("key", ["a,b", ",", "x,headers=", "a, b"])
def test_the_id_of_a_key_may_contain_a_comma(key: str) -> None:
    conf = {"keys": {key: SECRET}, "user_header": "X-Key"}

    assert sent(client(conf).get("/get", headers=signed(key=key)), "x-key") == [["x-key", key]]


def test_sha1_is_accepted_only_if_the_route_allows_it() -> None:
    headers = signed(algorithm="sha1")

    assert client().get("/get", headers=headers).status_code == 401
    assert client({**CONF, "allowed_algorithms": ["hmac-sha1"]}).get("/get", headers=headers).status_code == 200


@pytest.mark.parametrize("target", ["/a%20b", "/a//b", "/x?b=2&a=1", "/x?a=%2f&a=+", "/x?flag&e=", "/%2F?"])
@pytest.mark.parametrize("real", [False, True])
def test_path_and_query_are_signed_as_they_were_sent(target: str, real: bool) -> None:
    # an ASGI scope does not show a "?" without a query
    headers = signed(f"POST {target.removesuffix('?')}")

    if real:
        with TestClient(gateway(timed(), "hmac-auth", CONF)) as gate:
            answer = gate.post(target, headers=headers, content=b"body")
    else:
        answer = client().post(target, headers=headers, content=b"body")

    assert (answer.status_code, answer.json()["body"]) == (200, "body")


def test_signed_headers_are_compared_and_repeated_ones_are_joined() -> None:
    line = authorization(
        ["PUT /x", f"date: {DATE}", "x-amount: 1, 2", "host: shop.test"], "@request-target date x-amount host"
    )
    headers = [("date", DATE), ("host", "shop.test"), ("x-amount", "1"), ("x-amount", "2"), ("authorization", line)]

    assert client({**CONF, "signed_headers": ["X-Amount"]}).put("/x", headers=headers).status_code == 200


def test_clients_may_write_header_names_in_their_own_case() -> None:
    line = authorization(["GET /x", f"Date: {DATE}"], "@request-target Date")

    assert client().get("/x", headers=[("date", DATE), ("authorization", line)]).status_code == 200


# --- bad ones ---------------------------------------------------------------------------------------------------------

GOOD = signed()[1][1]
MATCH = "the signature does not match"
MALFORMED = "the Authorization header is malformed"
TO_SIGN = "what has to be signed is not: @request-target date"

BAD: list[tuple[str, Headers, str]] = [
    ("nothing", [], "a signature is required"),
    ("another scheme", [("authorization", "Basic YTpi")], "a signature is required"),
    ("nothing behind the scheme", [("authorization", "Signature")], MALFORMED),
    ("garbage", [("authorization", "Signature garbage")], MALFORMED),
    ("unquoted", [("authorization", "Signature keyId=a,algorithm=b,headers=c,signature=d")], MALFORMED),
    ("a parameter less", [("date", DATE), ("authorization", GOOD.replace(',algorithm="hmac-sha256"', ""))], MALFORMED),
    ("a parameter twice", [("date", DATE), ("authorization", GOOD + ',keyId="ada"')], MALFORMED),
    ("latin-1", [("date", DATE), ("authorization", GOOD.replace("john-key", "j\xf6hn"))], MATCH),
    ("unknown key", signed(key="eve"), MATCH),
    ("no key", signed(key=""), MATCH),
    ("another's key", signed(key="ada"), MATCH),
    ("wrong secret", signed(secret="john-secret-kez"), MATCH),
    ("no secret", signed(secret=""), MATCH),
    ("wrong method", signed("POST /get"), MATCH),
    ("wrong path", signed("GET /get/"), MATCH),
    ("query that is not there", signed("GET /get?a=1"), MATCH),
    ("algorithm that is not allowed", signed(algorithm="sha1"), "the algorithm is not allowed"),
    ("algorithm nobody has", [("date", DATE), ("authorization", GOOD.replace("sha256", "md5"))], "the algorithm is"),
    ("another algorithm", [("date", DATE), ("authorization", GOOD.replace("sha256", "sha512"))], MATCH),
    (
        "signature too long",
        [("date", DATE), ("authorization", GOOD.replace('signature="', 'signature="AAAA'))],
        "the signature",
    ),
    ("signature empty", [("date", DATE), ("authorization", GOOD.rpartition("signature")[0] + 'signature=""')], MATCH),
    (
        "signature no base64",
        [("date", DATE), ("authorization", GOOD.rpartition("signature")[0] + 'signature="\xff!"')],
        "the signature is malformed",
    ),
    ("date changed", [("date", formatdate(NOW + 1, usegmt=True)), ("authorization", GOOD)], MATCH),
    ("date not signed", [("date", DATE), ("authorization", authorization(["GET /get"], "@request-target"))], TO_SIGN),
    ("target not signed", [("date", DATE), ("authorization", authorization([f"date: {DATE}"], "date"))], TO_SIGN),
    ("nothing signed", [("date", DATE), ("authorization", authorization([], ""))], TO_SIGN),
    ("no date", signed()[1:], "a header that is signed is not there"),
    ("two dates", [("date", DATE), *signed()], "the Date header is malformed"),
    ("date under another name", [("Date_", DATE), *signed()[1:]], "a header that is signed is not there"),
    ("replayed", signed(date=formatdate(NOW - 301, usegmt=True)), "the Date header is too far from now"),
    ("from the future", signed(date=formatdate(NOW + 301, usegmt=True)), "the Date header is too far from now"),
    ("date no date", signed(date="yesterday"), "the Date header is malformed"),
    ("date impossible", signed(date="Fri, 99 Sep 2024 06:41:29 GMT"), "the Date header is malformed"),
    ("date empty", signed(date=""), "the Date header is malformed"),
    ("date with a zone", signed(date="Fri, 06 Sep 2024 06:41:29 +0000"), "the Date header is malformed"),
    (
        "signed header that is not there",
        [
            ("date", DATE),
            ("authorization", authorization(["GET /get", f"date: {DATE}"], "@request-target date x-none")),
        ],
        "a header that is signed is not there",
    ),
    ("two lines", [*signed(), signed()[1]], "more than one Authorization header"),
    ("signature cut off", [("date", DATE), ("authorization", GOOD[:-5] + '"')], MATCH),
]


@pytest.mark.parametrize(("headers", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_signature_is_refused(headers: Headers, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = client().get("/get", headers=encoded)

    assert (answer.status_code, reason in answer.text) == (401, True), answer.text
    assert answer.headers["www-authenticate"] == 'Signature realm="apisix", headers="@request-target date"'
    assert SECRET not in answer.text + caplog.text


@pytest.mark.parametrize("name", ["x-amount", "x_amount", "X-AMOUNT"])
def test_a_second_header_of_a_signed_name_breaks_the_signature(name: str) -> None:
    line = authorization(["GET /x", f"date: {DATE}", "x-amount: 1"], "@request-target date x-amount")
    good = [("date", DATE), ("x-amount", "1"), ("authorization", line)]

    assert client().get("/x", headers=good).status_code == 200
    assert client().get("/x", headers=[*good, (name, "1000")]).status_code == 401


def test_a_header_that_the_route_wants_signed_has_to_be_signed() -> None:
    answer = client({**CONF, "signed_headers": ["X-Amount"]}).get("/get", headers=[*signed(), ("x-amount", "1")])

    assert (answer.status_code, answer.text) == (401, "what has to be signed is not: @request-target date x-amount\n")
    assert answer.headers["www-authenticate"].endswith('headers="@request-target date x-amount"')


@pytest.mark.parametrize(("seconds", "status"), [(-300, 200), (300, 200), (-301, 401), (301, 401)])
def test_the_date_has_to_be_within_the_clock_skew(seconds: int, status: int) -> None:
    assert client(now=NOW + seconds).get("/get", headers=signed()).status_code == status


# --- bodies -----------------------------------------------------------------------------------------------------------


def with_digest(body: bytes, digest: str | None = None, names: str = "@request-target date digest") -> Headers:
    if digest is None:
        digest = "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()
    lines = ["POST /x", f"date: {DATE}", f"digest: {digest}"][: len(names.split())]
    return [("date", DATE), ("digest", digest), ("authorization", authorization(lines, names))]


BODY = {**CONF, "validate_request_body": True}


@pytest.mark.parametrize("body", [b"", b"body", b"x" * (hmac_auth.IN_A_THREAD + 1)])
@pytest.mark.parametrize("real", [False, True])
def test_a_body_that_matches_its_signed_digest_passes_whole(body: bytes, real: bool) -> None:
    if real:
        with TestClient(gateway(timed(), "hmac-auth", BODY)) as gate:
            answer = gate.post("/x", content=body, headers=with_digest(body))
    else:
        answer = client(BODY).post("/x", content=iter([body[:2], body[2:]]), headers=with_digest(body))

    assert (answer.status_code, answer.json()["body"]) == (200, body.decode())


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"changed", with_digest(b"body"), "the body does not match the Digest header"),
        (b"", with_digest(b"body"), "the body does not match the Digest header"),
        (b"body", with_digest(b"body", "SHA-256="), "the body does not match the Digest header"),
        (b"body", with_digest(b"body", "MD5=hBotaJrYa9FhFEdFPCLG/A=="), "the body does not match the Digest header"),
        (b"body", [*with_digest(b"body"), ("digest", "SHA-256=x")], "the signature does not match"),
        # APISIX accepts this: the digest is not signed, so whoever changes the body can change it too
        (b"body", with_digest(b"body", names="@request-target date"), "what has to be signed is not"),
    ],
)
def test_a_body_that_does_not_match_is_refused(body: bytes, headers: Headers, reason: str) -> None:
    with TestClient(gateway(timed(), "hmac-auth", BODY)) as gate:
        answer = gate.post("/x", content=body, headers=headers)

    assert (answer.status_code, reason in answer.text) == (401, True), answer.text


def test_after_the_body_comes_the_disconnect() -> None:
    received: list[Any] = []

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        received.append(await receive())

    client(BODY, upstream=upstream).post("/x", content=b"body", headers=with_digest(b"body"))

    assert received == [{"type": "http.request", "body": b"body", "more_body": False}, {"type": "http.disconnect"}]


def test_a_client_that_disconnects_before_its_body_is_complete_reaches_nothing() -> None:
    conf = hmac_auth.HmacAuthConf.model_validate(BODY)
    app = hmac_auth.hmac_auth(conf, clock=lambda: NOW)
    headers = [(name.encode(), value.encode()) for name, value in with_digest(b"body")]
    scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": headers}
    messages = iter([{"type": "http.request", "body": b"bo", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def run() -> None:
        await app(scope, receive, send)

    with pytest.raises(OSError, match="the client went away"):
        asyncio.run(run())


# --- constant time ----------------------------------------------------------------------------------------------------


def test_the_signature_is_compared_by_compare_digest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def lying(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return len(compared) % 2 == 1

    monkeypatch.setattr(hmac, "compare_digest", lying)
    gate, good, bad = client(), signed(), signed(secret="wrong secret")

    # its result decides, and it is called once for each request, with whole digests
    assert [gate.get("/get", headers=each).status_code for each in (bad, good)] == [200, 401]
    assert [(len(one), len(other)) for one, other in compared] == [(32, 32)] * 2


def test_an_unknown_key_is_refused_whatever_the_comparison_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: True)

    assert client().get("/get", headers=signed(key="eve")).status_code == 401


def test_through_the_gateway() -> None:
    with TestClient(gateway(timed(), "hmac-auth", {**CONF, "hide_credentials": True})) as gate:
        good = gate.get("/get", headers=[("x_key", "root"), *signed()])
        bad = gate.get("/get?a=1", headers=signed())

    assert sent(good, "x-key", "x_key", "authorization") == [["x-key", "john-key"]]
    assert (bad.status_code, bad.text) == (401, "the signature does not match\n")
    assert bad.headers["www-authenticate"] == 'Signature realm="apisix", headers="@request-target date"'


def test_it_is_mounted_with_the_exact_target() -> None:
    options = bridge.plugins["hmac-auth"].options

    assert (options.exact, options.request_body, options.phase) == (True, False, "request")


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'keys': Field required"),
        ({"keys": {}}, "field 'keys': Dictionary should have at least 1 item"),
        ({"keys": {"a": "short"}}, "field 'keys.a': Value should have at least 8 items"),
        ({"keys": {'a"b': SECRET}}, "field 'keys.a\"b.*': String should match pattern"),
        ({**CONF, "allowed_algorithms": ["hmac-md5"]}, "field 'allowed_algorithms.0': Input should be 'hmac-sha1'"),
        ({**CONF, "allowed_algorithms": []}, "field 'allowed_algorithms': List should have at least 1 item"),
        ({**CONF, "clock_skew": 0}, "field 'clock_skew': Input should be greater"),
        ({**CONF, "signed_headers": ["a b"]}, "field 'signed_headers.0': String should match pattern"),
        ({**CONF, "user_header": "connection"}, "field 'user_header': Value error, connection belongs to one"),
        ({**CONF, "secret_key": SECRET}, "field 'secret_key': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration_and_repeats_no_secret(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin hmac-auth: {reason}") as caught:
        client(conf).get("/")
    assert SECRET not in str(caught.value) and "short" not in str(caught.value)
