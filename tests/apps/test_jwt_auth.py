"""``jwt-auth`` lets valid tokens pass and answers 401 to all others, whatever a token says about itself."""

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from asgi_bridge_apps import ready_made
from asgi_bridge_apps._shared import jwks
from asgi_bridge_apps._shared.jwks import KeySet, KeysUnavailable
from asgi_bridge_apps.jwt_auth import jwt_auth
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient

from .routes import gateway, sent

bridge = ready_made(allow=["/"])

SECRET = "a secret of thirty-two bytes or more"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

HS = {"algorithms": ["HS256"], "keys": [{"secret": SECRET}]}


def public(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


RS = {"algorithms": ["RS256"], "keys": [{"public_key": public(RSA_KEY)}]}


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ada", "exp": int(time.time()) + 600, **more}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers)


def forged(header: Any, payload: Any, secret: bytes | None = None) -> str:
    """Return a token that a sound library would refuse to make."""
    parts = [
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")
        for part in (header, payload)
    ]
    signature = b"" if secret is None else hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def client(conf: Any, **kwargs: Any) -> PluginClient:
    return PluginClient(bridge, "jwt-auth", conf, **kwargs)


# --- good tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "key", "conf"),
    [
        ("HS256", SECRET, {"secret": SECRET}),
        ("HS512", SECRET * 2, {"secret": SECRET * 2}),
        ("RS256", RSA_KEY, {"public_key": public(RSA_KEY)}),
        ("PS384", RSA_KEY, {"public_key": public(RSA_KEY)}),
        ("ES256", EC_KEY, {"public_key": public(EC_KEY)}),
        ("EdDSA", ED_KEY, {"public_key": public(ED_KEY)}),
    ],
)
def test_a_good_token_passes(algorithm: str, key: Any, conf: dict[str, str]) -> None:
    answer = client({"algorithms": [algorithm], "keys": [conf]}).get("/a?b=1", headers=bearer(token(key, algorithm)))

    assert (answer.status_code, answer.json()["target"]) == (200, "/a?b=1")


def test_kid_chooses_the_key_and_without_one_all_keys_of_the_algorithm_are_tried() -> None:
    old, new = SECRET + "old", SECRET + "new"
    gate = client({"algorithms": ["HS256"], "keys": [{"kid": "1", "secret": old}, {"kid": "2", "secret": new}]})

    tokens = [token(old, headers={"kid": "1"}), token(new, headers={"kid": "2"}), token(new), token(old)]
    assert [gate.get("/", headers=bearer(each)).status_code for each in tokens] == [200] * 4
    assert gate.get("/", headers=bearer(token(new, headers={"kid": "1"}))).status_code == 401


def test_issuer_audience_and_clock_skew() -> None:
    conf = {**HS, "issuer": ["https://a.test", "https://b.test"], "audience": "shop", "clock_skew": 60}
    good = token(iss="https://b.test", aud=["desk", "shop"], exp=int(time.time()) - 10, nbf=int(time.time()) + 10)

    assert client(conf).get("/", headers=bearer(good)).status_code == 200


def test_the_scheme_is_read_in_any_case() -> None:
    assert client(HS).get("/", headers={"authorization": f"bEARER  {token()}"}).status_code == 200


@pytest.mark.parametrize(("hide", "left"), [(False, 1), (True, 0)])
def test_the_upstream_gets_the_token_unless_it_is_hidden(hide: bool, left: int) -> None:
    answer = client({**HS, "hide_credentials": hide}).post("/", content=b"body", headers=bearer(token()))

    assert (len(sent(answer, "authorization")), answer.json()["body"]) == (left, "body")


# --- bad ones ---------------------------------------------------------------------------------------------------------

now = int(time.time())
FIRST, PAYLOAD, SIGNATURE = token().split(".")
NONE = {"alg": "none", "typ": "JWT"}
PEM = public(RSA_KEY).encode()
NUMBERS = RSA_KEY.public_key().public_numbers()
STRICT = {"issuer": "https://a.test", "audience": "shop"}

BAD: list[tuple[str, dict[str, Any], str, str]] = [
    # name, configuration, token, reason
    ("alg none", HS, forged(NONE, claims()), "the token's algorithm is not allowed"),
    ("alg None", HS, forged({"alg": "None"}, claims()), "the token's algorithm is not allowed"),
    ("alg none, signed", HS, forged(NONE, claims(), SECRET.encode()), "the token's algorithm is not allowed"),
    ("alg null", HS, forged({"alg": None}, claims(), SECRET.encode()), "the token's algorithm is not allowed"),
    ("alg list", HS, forged({"alg": ["HS256"]}, claims(), SECRET.encode()), "the token's algorithm is not allowed"),
    ("no alg", HS, forged({"typ": "JWT"}, claims(), SECRET.encode()), "the token's algorithm is not allowed"),
    ("another alg", HS, token(SECRET * 2, "HS512"), "the token's algorithm is not allowed"),
    ("RS256 key as secret", RS, forged({"alg": "HS256"}, claims(), PEM), "the token's algorithm is not allowed"),
    (
        "RS256 key as secret, both allowed",
        {"algorithms": ["RS256", "HS256"], "keys": [{"public_key": public(RSA_KEY)}, {"secret": SECRET}]},
        forged({"alg": "HS256"}, claims(), PEM),
        "no key verifies the token's signature",
    ),
    (
        "RS256 key as secret, stripped",
        {"algorithms": ["RS256", "HS256"], "keys": [{"public_key": public(RSA_KEY)}, {"secret": SECRET}]},
        forged({"alg": "HS256"}, claims(), PEM.strip()),
        "no key verifies the token's signature",
    ),
    ("wrong secret", HS, token(SECRET + "x"), "no key verifies the token's signature"),
    ("wrong RSA key", RS, token(OTHER_RSA_KEY, "RS256"), "no key verifies the token's signature"),
    ("changed payload", HS, ".".join([FIRST, token(sub="root").split(".")[1], SIGNATURE]), "no key verifies"),
    ("no signature", HS, f"{FIRST}.{PAYLOAD}.", "no key verifies the token's signature"),
    ("expired", HS, token(exp=now - 10), "the token has expired"),
    ("expired, beyond the skew", {**HS, "clock_skew": 60}, token(exp=now - 120), "the token has expired"),
    ("not valid yet", HS, token(nbf=now + 600), "the token is not valid yet"),
    ("issued in the future", HS, token(iat=now + 600), "the token is not valid yet"),
    ("no exp", HS, jwt.encode({"sub": "ada"}, SECRET), "the token lacks a claim that is required"),
    ("exp null", HS, forged({"alg": "HS256"}, {"exp": None}, SECRET.encode()), "the token lacks a claim"),
    ("exp text", HS, forged({"alg": "HS256"}, {"exp": "soon"}, SECRET.encode()), "the token is malformed"),
    ("exp Infinity", HS, forged({"alg": "HS256"}, b'{"exp": 1e999}', SECRET.encode()), "the token"),
    ("exp NaN", HS, forged({"alg": "HS256"}, b'{"exp": NaN}', SECRET.encode()), "the token"),
    (
        "exp of many digits",
        HS,
        forged({"alg": "HS256"}, b'{"exp": ' + b"9" * 5000 + b"}", SECRET.encode()),
        "malformed",
    ),
    ("header of many digits", HS, forged(b'{"alg": ' + b"9" * 5000 + b"}", {}), "the token is malformed"),
    ("exp list", HS, forged({"alg": "HS256"}, {"exp": [now + 60]}, SECRET.encode()), "the token is malformed"),
    ("wrong audience", {**HS, **STRICT}, token(iss="https://a.test", aud="desk"), "the token is for another audience"),
    ("no audience", {**HS, **STRICT}, token(iss="https://a.test"), "the token lacks a claim"),
    ("audience nobody asked for", HS, token(aud="desk"), "the token is for another audience"),
    ("wrong issuer", {**HS, **STRICT}, token(iss="https://a.test.evil", aud="shop"), "the token is of another issuer"),
    ("no issuer", {**HS, **STRICT}, token(aud="shop"), "the token lacks a claim"),
    ("oversized", HS, token(filler="x" * 8192), "the token is too long"),
    ("oversized, no token", HS, "a" * 9000, "the token is too long"),
    ("empty", HS, "", "the token is malformed"),
    ("garbage", HS, "garbage", "the token is malformed"),
    ("dots", HS, "..", "the token is malformed"),
    ("four parts", HS, token() + ".x", "the token is malformed"),
    ("two tokens", HS, f"{token()}, {token()}", "the token is malformed"),
    ("not base64", HS, "!!!.???.***", "the token is malformed"),
    ("not UTF-8", HS, forged(b"\xff\xfe", claims()), "the token is malformed"),
    ("header is a list", HS, forged([], claims()), "the token is malformed"),
    ("header nested deeply", HS, forged(b"[" * 5000, {}), "the token is malformed"),
    ("payload nested deeply", HS, forged({"alg": "HS256"}, b"[" * 5000, SECRET.encode()), "the token is malformed"),
    ("payload is no object", HS, forged({"alg": "HS256"}, [1], SECRET.encode()), "the token is malformed"),
    ("latin-1", HS, "tökén.\xff.\xfe", "the token is malformed"),
    ("kid number", HS, forged({"alg": "HS256", "kid": 1}, claims(), SECRET.encode()), "the token is malformed"),
    ("kid object", HS, forged({"alg": "HS256", "kid": {}}, claims(), SECRET.encode()), "the token is malformed"),
    (
        "kid is a path, signed with what is there",
        {"algorithms": ["HS256"], "keys": [{"kid": "1", "secret": SECRET}]},
        forged({"alg": "HS256", "kid": "../../../../dev/null"}, claims(), b""),
        "no key verifies the token's signature",
    ),
    (
        "kid is SQL",
        {"algorithms": ["HS256"], "keys": [{"kid": "1", "secret": SECRET}]},
        token("x" * 40, headers={"kid": f"' UNION SELECT '{'x' * 40}"}),
        "no key verifies the token's signature",
    ),
    (
        "brings its own key",
        RS,
        jwt.encode(
            claims(),
            OTHER_RSA_KEY,
            "RS256",
            {"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA_KEY.public_key()))},
        ),
        "no key verifies the token's signature",
    ),
    ("says where its key is", RS, token(OTHER_RSA_KEY, "RS256", {"jku": "https://evil.test"}), "no key verifies"),
    ("unknown crit", HS, forged({"alg": "HS256", "crit": ["x"], "x": 1}, claims(), SECRET.encode()), "malformed"),
    ("detached", HS, forged({"alg": "HS256", "crit": ["b64"], "b64": False}, b"", SECRET.encode()), "malformed"),
    ("claim with a line break", {**HS, "claims_to_headers": {"sub": "x-u"}}, token(sub="a\r\nx: y"), "cannot be a"),
    ("claim with a blank", {**HS, "claims_to_headers": {"sub": "x-u"}}, token(sub=" root"), "cannot be a header"),
    ("claim of half a pair", {**HS, "claims_to_headers": {"sub": "x-u"}}, token(sub="\ud800"), "cannot be a header"),
]


@pytest.mark.parametrize(("conf", "sent", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_token_is_refused(conf: Any, sent: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    answer = client(conf).get("/", headers=[(b"authorization", f"Bearer {sent}".encode("latin-1"))])

    assert (answer.status_code, reason in answer.text) == (401, True), answer.text
    assert answer.headers["www-authenticate"] == (
        f'Bearer realm="apisix", error="invalid_token", error_description="{answer.text.strip()}"'
    )
    assert SECRET not in answer.text + caplog.text
    assert not sent or sent not in answer.text + caplog.text


@pytest.mark.parametrize("headers", [[], [("authorization", "Basic YTpi")], [("authorization", "Bearer")]])
def test_without_a_token_the_challenge_names_no_error(headers: list[tuple[str, str]]) -> None:
    answer = client({**HS, "realm": "shop"}).get("/", headers=headers)

    assert (answer.status_code, answer.headers["www-authenticate"].startswith('Bearer realm="shop"')) == (401, True)


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_several_authorization_headers_are_refused(name: str) -> None:
    headers = [("authorization", f"Bearer {token()}"), (name, f"Bearer {token()}")]

    answer = client(HS).get("/", headers=headers)

    assert (answer.status_code, answer.text) == (401, "more than one Authorization header\n")
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]


# --- claims to headers ------------------------------------------------------------------------------------------------


def test_claims_become_headers_and_the_clients_own_are_removed() -> None:
    names = {"sub": "X-User-Id", "roles": "x-roles", "name": "x-name", "level": "x-level", "none": "x-none"}
    spoofed = [(name, "root") for name in ("x-user-id", "X-USER-ID", "x_user_id", "x_user-id", "x-none", "x_none")]
    good = token(sub="ada", roles=["a", "b,c"], name="Ädä", level=3)

    answer = client({**HS, "claims_to_headers": names}).get(
        "/", headers=[*spoofed, ("x-user", "kept"), ("authorization", f"Bearer {good}")]
    )

    got = sorted(pair for pair in answer.json()["headers"] if pair[0].startswith("x"))
    assert got == [
        ["x-level", "3"],
        ["x-name", "Ädä".encode().decode("latin-1")],
        ["x-roles", '["a","b,c"]'],
        ["x-user", "kept"],
        ["x-user-id", "ada"],
    ]


@pytest.mark.parametrize("both_underscored", [False, True])
def test_through_the_gateway(both_underscored: bool) -> None:
    conf = {**RS, "claims_to_headers": {"sub": "x-user", "none": "x-none"}, "hide_credentials": True}
    spoofed = [("x_user", "root"), ("x_none", "root")] if both_underscored else [("x-user", "root"), ("x-none", "root")]

    with TestClient(gateway(bridge, "jwt-auth", conf)) as gate:
        good = gate.get("/a", headers=[*spoofed, ("authorization", f"Bearer {token(RSA_KEY, 'RS256')}")])
        bad = gate.get("/a", headers=bearer(forged(NONE, claims())))

    assert sent(good, "x-user", "x_user", "x-none", "x_none", "authorization") == [["x-user", "ada"]]
    assert (bad.status_code, bad.text) == (401, "the token's algorithm is not allowed\n")
    assert bad.headers["www-authenticate"].startswith('Bearer realm="apisix", error="invalid_token"')


# --- key sets ---------------------------------------------------------------------------------------------------------


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    if isinstance(key, bytes):
        made = {"kty": "oct", "k": base64.urlsafe_b64encode(key).rstrip(b"=").decode()}
    elif isinstance(key, rsa.RSAPrivateKey):
        made = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    else:
        made = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
    made.pop("key_ops", None)
    return {**made, **({} if kid is None else {"kid": kid}), **more}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def timed(clock: Clock, **mounted: Any) -> Bridge:
    made = Bridge()
    made.plugin("jwt-auth", **{"allow": ["/"], **mounted})(partial(jwt_auth, clock=clock))
    return made


def write(path: Path, *keys: Any) -> None:
    path.write_text(json.dumps({"keys": keys}))


def test_keys_in_a_file_rotate_without_a_restart(tmp_path: Path) -> None:
    file, clock = tmp_path / "jwks.json", Clock()
    write(file, jwk(RSA_KEY, "1"))
    gate = PluginClient(timed(clock), "jwt-auth", {"algorithms": ["RS256"], "jwks_file": str(file)})
    old, new = token(RSA_KEY, "RS256", {"kid": "1"}), token(OTHER_RSA_KEY, "RS256", {"kid": "2"})

    def statuses() -> list[int]:
        return [gate.get("/", headers=bearer(each)).status_code for each in (old, new)]

    assert statuses() == [200, 401]
    write(file, jwk(RSA_KEY, "1"), jwk(OTHER_RSA_KEY, "2"))
    assert statuses() == [200, 401]  # it has just been read for the unknown key
    clock.now += 10
    assert statuses() == [200, 200]
    write(file, jwk(OTHER_RSA_KEY, "2"))
    clock.now += 299
    assert statuses() == [200, 200]
    clock.now += 1
    assert statuses() == [401, 200]


def test_keys_of_a_file_that_is_gone_remain_valid_for_a_while_and_then_nobody_passes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "jwks.json", Clock()
    write(file, jwk(RSA_KEY, "1"))
    conf = {"algorithms": ["RS256"], "jwks_file": str(file), "jwks_refresh": 100, "jwks_stale": 50}
    gate = PluginClient(timed(clock), "jwt-auth", conf)
    good = bearer(token(RSA_KEY, "RS256", {"kid": "1"}))

    assert gate.get("/", headers=good).status_code == 200
    file.unlink()
    clock.now += 149
    assert gate.get("/", headers=good).status_code == 200
    assert (
        f"jwt-auth: the keys of {file} cannot be read (No such file or directory): the old keys remain valid for 1 s"
        in (caplog.text)
    )
    clock.now += 1
    refused = gate.get("/", headers=good)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    write(file, jwk(RSA_KEY, "1"))
    clock.now += 10
    assert gate.get("/", headers=good).status_code == 200


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": {}}', '{"keys": []}', '{"keys": [1, {"kty": "x"}]}', "[" * 100000, "\0" * 300000]
)
def test_a_file_that_is_no_key_set_changes_no_keys_and_lets_nobody_pass(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "jwks.json", Clock()
    file.write_text(text)
    gate = PluginClient(timed(clock), "jwt-auth", {"algorithms": ["RS256"], "jwks_file": str(file)})
    good = bearer(token(RSA_KEY, "RS256", {"kid": "1"}))

    assert gate.get("/", headers=good).status_code == 503
    assert "no token can be verified" in caplog.text
    write(file, jwk(RSA_KEY, "1"))
    clock.now += 10
    assert gate.get("/", headers=good).status_code == 200
    file.write_text(text)
    clock.now += 300
    assert gate.get("/", headers=good).status_code == 200


@pytest.mark.parametrize(
    ("key", "algorithm", "status"),
    [
        (jwk(RSA_KEY, "1"), "RS256", 200),
        (jwk(RSA_KEY, "1"), "PS256", 200),
        (jwk(RSA_KEY, None), "RS256", 200),
        (jwk(RSA_KEY, "1", alg="RS256", use="sig", key_ops=["verify"]), "RS256", 200),
        (jwk(EC_KEY, "1"), "ES256", 200),
        (jwk(ED_KEY, "1"), "EdDSA", 200),
        (jwk(SECRET.encode(), "1"), "HS256", 200),
        (jwk(RSA_KEY, "2"), "RS256", 401),
        (jwk(RSA_KEY, "1", alg="PS256"), "RS256", 401),
        (jwk(RSA_KEY, "1", alg="HS256"), "RS256", 401),
        (jwk(RSA_KEY, "1", alg="none"), "RS256", 401),
        (jwk(RSA_KEY, "1", alg=["RS256"]), "RS256", 401),
        (jwk(RSA_KEY, "1", use="enc"), "RS256", 401),
        (jwk(RSA_KEY, "1", key_ops=["sign"]), "RS256", 401),
        (jwk(RSA_KEY, "1", key_ops="verify"), "RS256", 401),
        ({**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY)), "kid": "1", "key_ops": ["verify"]}, "RS256", 401),
        (jwk(b"too short", "1"), "HS256", 401),
        ({**jwk(RSA_KEY, None), "kid": 1}, "RS256", 401),
    ],
)
def test_what_a_set_says_about_a_key_is_obeyed(key: Any, algorithm: str, status: int, tmp_path: Path) -> None:
    write(tmp_path / "jwks.json", key, jwk(OTHER_RSA_KEY, "other"))
    signing = {"ES256": EC_KEY, "EdDSA": ED_KEY, "HS256": SECRET}.get(algorithm, RSA_KEY)
    if status == 401 and algorithm == "HS256":
        signed = forged({"alg": "HS256", "kid": "1"}, claims(), b"too short")
    else:
        signed = token(signing, algorithm, {"kid": "1"})
    conf = {"algorithms": [algorithm], "jwks_file": str(tmp_path / "jwks.json")}

    assert client(conf).get("/", headers=bearer(signed)).status_code == status


def test_a_public_key_of_a_set_is_never_used_as_a_secret(tmp_path: Path) -> None:
    write(tmp_path / "jwks.json", jwk(RSA_KEY, "1"), jwk(SECRET.encode(), "2"))
    gate = client({"algorithms": ["RS256", "HS256"], "jwks_file": str(tmp_path / "jwks.json")})

    der = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for secret in (PEM, PEM.strip(), der, NUMBERS.n.to_bytes(256)):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "1"}):
            assert gate.get("/", headers=bearer(forged(header, claims(), secret))).status_code == 401


class Reading:
    """Source of a key set that counts its reads, and fails when the test wants it."""

    def __init__(self, *keys: Any) -> None:
        self.keys = keys
        self.reads = 0
        self.fails: Exception | None = None
        self.clock = Clock()

    async def __call__(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        return json.dumps({"keys": self.keys}).encode()

    def set(self, **seconds: float) -> KeySet:
        bounds = {"refresh": 300.0, "stale": 100.0, "cooldown": 10.0, **seconds}
        return KeySet(self, "test", clock=self.clock, **bounds)


def test_unknown_keys_do_not_shorten_the_cooldown() -> None:
    async def run() -> list[int]:
        reading = Reading(jwk(RSA_KEY, "1"))
        keys, counts = reading.set(), []
        for seconds in (0.0, 9.0, 1.0, 0.0, 10.0):
            reading.clock.now += seconds
            for number in range(100):
                assert await keys.find(f"unknown {number}", "RS256") == []
            counts.append(reading.reads)
        return counts

    assert asyncio.run(run()) == [1, 1, 2, 2, 3]


def test_simultaneous_requests_wait_for_one_read() -> None:
    async def run() -> tuple[list[int], int]:
        reading = Reading(jwk(RSA_KEY, "1"))
        keys = reading.set()
        found = await asyncio.gather(*[keys.find("1", "RS256") for _ in range(50)])
        return [len(each) for each in found], reading.reads

    assert asyncio.run(run()) == ([1] * 50, 1)


def test_a_request_that_is_cancelled_does_not_end_the_read_of_the_others() -> None:
    async def run() -> int:
        reading = Reading(jwk(RSA_KEY, "1"))
        keys = reading.set()
        first, second = (asyncio.ensure_future(keys.find("1", "RS256")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return len(await second)

    assert asyncio.run(run()) == 1


def test_while_reading_fails_the_old_keys_remain_valid_and_the_cooldown_holds() -> None:
    async def run() -> tuple[list[int], int]:
        reading = Reading(jwk(RSA_KEY, "1"))
        keys, found = reading.set(), []
        await keys.find("1", "RS256")
        reading.fails = OSError("down")
        for seconds in (300, 5, 5, 89):
            reading.clock.now += seconds
            found.append(len(await keys.find("1", "RS256")))
        reading.clock.now += 1
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                await keys.find("1", "RS256")
        return found, reading.reads

    assert asyncio.run(run()) == ([1, 1, 1, 1], 4)


def test_a_read_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "READ_SECONDS", 0.0)

    async def hanging() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        keys = KeySet(hanging, "test", refresh=300, stale=100, cooldown=10)
        with pytest.raises(KeysUnavailable):
            await keys.find("1", "RS256")

    asyncio.run(run())


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_without_keys_nobody_passes_even_with_on_error_open(on_error: Any, tmp_path: Path) -> None:
    made = Bridge()
    made.plugin("jwt-auth", on_error=on_error, allow=["/"])(jwt_auth)
    conf = {"algorithms": ["RS256"], "jwks_file": str(tmp_path / "none")}

    with TestClient(gateway(made, "jwt-auth", conf)) as gate:
        answer = gate.get("/", headers=bearer(token(RSA_KEY, "RS256")))

    assert (answer.status_code, answer.text) == (503, "No keys to check the token with\n")


class KeyServer:
    """Serve a key set over HTTP, in a thread."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"")
        self.paths: list[str] = []
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.paths.append(self.path)
                status, body = served.answer
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def serve(self, *keys: Any) -> None:
        self.answer = (200, json.dumps({"keys": keys}).encode())


@contextmanager
def key_server() -> Iterator[KeyServer]:
    served = KeyServer()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


def test_keys_behind_a_url_rotate_and_their_server_may_be_down_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    clock = Clock()
    old, new = (bearer(token(key, "RS256", {"kid": kid})) for key, kid in ((RSA_KEY, "1"), (OTHER_RSA_KEY, "2")))
    with key_server() as served:
        url = f"http://user:hidden@127.0.0.1:{served.port}/keys?token=hidden"
        # given by the operator: a route may neither give a password nor name this address
        gate = PluginClient(timed(clock, defaults={"jwks_url": url}), "jwt-auth", {"algorithms": ["RS256"]})
        served.serve(jwk(RSA_KEY, "1"))
        assert gate.get("/", headers=old).status_code == 200
        served.serve(jwk(OTHER_RSA_KEY, "2"))
        clock.now += 10
        assert [gate.get("/", headers=each).status_code for each in (new, old)] == [200, 401]
        for answer in [(500, b""), (302, b""), (200, b"<html>"), (200, b" " * (jwks.MAX_BYTES + 1))]:
            served.answer = answer
            clock.now += 300 if answer[0] == 500 else 10
            assert gate.get("/", headers=new).status_code == 200
        assert served.paths == ["/keys?token=hidden"] * 6
    clock.now += 3600
    assert gate.get("/", headers=new).status_code == 503
    assert f"jwt-auth: the keys of http://127.0.0.1:{served.port}/keys cannot be read" in caplog.text
    assert "hidden" not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("asgi"))


# --- configuration ----------------------------------------------------------------------------------------------------

PRIVATE = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'algorithms': Field required"),
        ({"algorithms": ["HS256"]}, "Value error, give exactly one of keys, jwks_file and jwks_url"),
        ({**HS, "jwks_file": "/a"}, "Value error, give exactly one of keys"),
        ({**HS, "algorithms": []}, "field 'algorithms': List should have at least 1 item"),
        ({**HS, "algorithms": ["none"]}, "field 'algorithms.0': Input should be 'HS256'"),
        ({**HS, "algorithms": ["RS256"]}, "Value error, a key fits none of the algorithms"),
        (
            {**HS, "algorithms": ["HS512"]},
            "Value error, a key fits none of the algorithms, or is a secret",
        ),
        ({**HS, "keys": []}, "field 'keys': List should have at least 1 item"),
        ({**HS, "keys": [{}]}, "field 'keys.0': Value error, give exactly one of secret and public_key"),
        ({**HS, "keys": [{"secret": "hidden"}]}, "field 'keys.0': Value error, a secret needs 32 bytes or more"),
        (
            {**HS, "keys": [{"secret": public(RSA_KEY)}]},
            "field 'keys.0': Value error, this secret is the text of a key",
        ),
        ({**RS, "keys": [{"public_key": SECRET}]}, "field 'keys.0': Value error, a public key has to be PEM text"),
        ({**RS, "keys": [{"public_key": PRIVATE}]}, "field 'keys.0': Value error, a public key has to be PEM text"),
        (
            {**RS, "keys": [{"public_key": public(rsa.generate_private_key(65537, 1024))}]},
            "field 'keys.0': Value error, a public key has to be RSA of 2048 to 8192 bits",
        ),
        ({"algorithms": ["RS256"], "jwks_file": "a"}, "field 'jwks_file': String should match pattern"),
        ({"algorithms": ["RS256"], "jwks_url": "file:///etc/passwd"}, "field 'jwks_url': String should match pattern"),
        ({**HS, "clock_skew": -1}, "field 'clock_skew': Input should be greater"),
        ({**HS, "claims_to_headers": {"sub": "Host"}}, "field 'claims_to_headers.sub': Value error, host has a"),
        ({**HS, "claims_to_headers": {"a": "x-a", "b": "X_A"}}, "field 'claims_to_headers': Value error, two claims"),
        ({**HS, "realm": 'a"b'}, "field 'realm': String should match pattern"),
        ({**HS, "algorithm": "HS256"}, "field 'algorithm': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration_and_repeats_no_secret(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin jwt-auth: {reason}") as caught:
        client(conf).get("/")
    assert SECRET not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert PRIVATE[60:90] not in str(caught.value)
