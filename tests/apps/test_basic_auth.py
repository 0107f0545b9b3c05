"""``basic-auth`` checks passwords against Argon2 hashes, in threads, and at most a fixed number at once."""

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import argon2
import pytest
from asgi_bridge_apps import basic_auth, bridge
from asgi_bridge_apps._shared.turns import Turns
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient

from .routes import gateway, sent

# the cheapest parameters of Argon2, which itself is not tested here
HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse"
USERS = {"ada": HASHER.hash(PASSWORD), "bob": HASHER.hash(""), "Jürgen": HASHER.hash("pässwörd")}
CONF: dict[str, Any] = {"users": USERS, "user_header": "X-User"}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def client(conf: Any = CONF, **kwargs: Any) -> PluginClient:
    return PluginClient(bridge, "basic-auth", conf, **kwargs)


class Verifications:
    """Records what is verified and in which thread. A verification waits until `gate` is open."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.hashes: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def verify(self, hashed: str, password: bytes) -> bool:
        self.threads.append(threading.get_ident())
        self.hashes.append(hashed)
        self.started.release()
        self.gate.wait(20)
        return HASHER.verify(hashed, password)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> Iterator[Verifications]:
    seen = Verifications()
    monkeypatch.setattr(basic_auth, "_hasher", seen)
    yield seen
    seen.gate.set()


@pytest.mark.parametrize(
    ("user", "password"),
    [("ada", PASSWORD), ("bob", ""), ("Jürgen", "pässwörd"), ("ada", PASSWORD)],  # noqa: PT014  # one of them signs in again
)
def test_a_known_user_passes(user: str, password: str) -> None:
    spoofed = [("x-user", "root"), ("X_User", "root"), ("x_user", "root")]

    answer = client().post("/", content=b"body", headers=[*spoofed, ("authorization", basic(user, password))])

    assert sent(answer, "x-user", "x_user") == [["x-user", user.encode().decode("latin-1")]]
    assert (answer.json()["body"], len(sent(answer, "authorization"))) == ("body", 1)


def test_a_password_may_contain_colons_and_the_scheme_has_any_case() -> None:
    gate = client({"users": {"ada": HASHER.hash("a:b:c")}, "hide_credentials": True})

    answer = gate.get("/", headers={"authorization": basic("ada", "a:b:c").replace("Basic", "bASIC")})

    assert sent(answer, "authorization") == []


BAD = [
    ("nothing", None, "user name and password are required"),
    ("another scheme", "Bearer YTpi", "user name and password are required"),
    ("no credentials", "Basic", "the credentials are malformed"),
    ("wrong password", basic("ada", "wrong"), "wrong user name or password"),
    ("prefix of the password", basic("ada", PASSWORD[:-1]), "wrong user name or password"),
    ("longer password", basic("ada", PASSWORD + "\0"), "wrong user name or password"),
    ("no password", basic("ada", ""), "wrong user name or password"),
    ("another's password", basic("bob", PASSWORD), "wrong user name or password"),
    ("unknown user with the first one's password", basic("eve", PASSWORD), "wrong user name or password"),
    ("user in another case", basic("Ada", PASSWORD), "wrong user name or password"),
    ("no user", basic("", PASSWORD), "wrong user name or password"),
    ("user with a NUL", basic("ada\0", PASSWORD), "wrong user name or password"),
    ("the hash as password", basic("ada", USERS["ada"]), "wrong user name or password"),
    ("no colon", "Basic " + base64.b64encode(b"ada").decode(), "the credentials are malformed"),
    ("not base64", "Basic !!!!", "the credentials are malformed"),
    ("base64 with a blank", "Basic YWRh OnB3", "the credentials are malformed"),
    ("base64 cut off", basic("ada", PASSWORD)[:-1], "the credentials are malformed"),
    ("user not UTF-8", "Basic " + base64.b64encode(b"\xff:x").decode(), "the credentials are malformed"),
    ("latin-1", "Basic \xff\xfe", "the credentials are malformed"),
    ("oversized", basic("ada", "x" * 1000), "the credentials are too long"),
    ("two joined", f"{basic('ada', PASSWORD)}, {basic('ada', PASSWORD)}", "the credentials are malformed"),
]


@pytest.mark.parametrize(("credentials", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_credentials_are_refused(credentials: str | None, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    headers = [] if credentials is None else [(b"authorization", credentials.encode("latin-1"))]

    answer = client().get("/", headers=headers)

    assert (answer.status_code, answer.text) == (401, reason + "\n")
    assert answer.headers["www-authenticate"] == 'Basic realm="apisix", charset="UTF-8"'
    output = answer.text + caplog.text
    assert PASSWORD not in output and not any(hashed in output for hashed in USERS.values())


def test_several_authorization_headers_are_refused() -> None:
    good = ("authorization", basic("ada", PASSWORD))

    answer = client().get("/", headers=[good, good])

    assert (answer.status_code, answer.text) == (401, "more than one Authorization header\n")


def test_an_unknown_user_costs_as_much_as_a_known_one(verifications: Verifications) -> None:
    client().get("/", headers={"authorization": basic("eve", "x")})

    assert verifications.hashes == [USERS["ada"]]


def test_an_unknown_user_costs_as_much_as_the_most_expensive_hash(verifications: Verifications) -> None:
    dear = argon2.PasswordHasher(time_cost=3, memory_cost=64, parallelism=1).hash("x")
    conf = {"users": {"cheap": USERS["ada"], "dear": dear}}
    PluginClient(bridge, "basic-auth", conf).get("/", headers={"authorization": basic("eve", "x")})

    assert verifications.hashes == [dear]


def test_passwords_are_verified_outside_the_event_loop(verifications: Verifications) -> None:
    loops = []

    async def upstream(scope: Any, receive: Any, send: Any) -> None:
        loops.append(threading.get_ident())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client(upstream=upstream).get("/", headers={"authorization": basic("ada", PASSWORD)})

    assert len(verifications.threads) == 1 and verifications.threads != loops


def test_good_credentials_are_remembered_and_bad_ones_are_not(verifications: Verifications) -> None:
    now = [1000.0]
    made = Bridge()
    made.plugin("basic-auth")(partial(basic_auth.basic_auth, clock=lambda: now[0]))
    gate = PluginClient(made, "basic-auth", {**CONF, "remember": 60})
    good, bad = {"authorization": basic("ada", PASSWORD)}, {"authorization": basic("ada", "x")}

    assert [gate.get("/", headers=each).status_code for each in (good, good, bad, bad)] == [200, 200, 401, 401]
    assert len(verifications.hashes) == 3
    now[0] += 60
    assert gate.get("/", headers=good).status_code == 200
    assert len(verifications.hashes) == 4


def test_a_route_can_turn_remembering_off(verifications: Verifications) -> None:
    gate = client({**CONF, "remember": 0})

    assert [gate.get("/", headers={"authorization": basic("bob", "")}).status_code for _ in range(2)] == [200, 200]
    assert len(verifications.hashes) == 2


def test_the_number_of_remembered_credentials_is_bounded(
    verifications: Verifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basic_auth, "MAX_REMEMBERED", 1)
    gate = client()
    for user, password in (("ada", PASSWORD), ("bob", ""), ("ada", PASSWORD)):
        assert gate.get("/", headers={"authorization": basic(user, password)}).status_code == 200

    assert len(verifications.hashes) == 3


def test_a_password_of_many_simultaneous_requests_is_verified_once(verifications: Verifications) -> None:
    verifications.gate.clear()
    with client() as gate, ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(gate.get, "/", headers={"authorization": basic("ada", PASSWORD)}) for _ in range(20)]
        assert verifications.started.acquire(timeout=20)
        verifications.gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * 20

    assert len(verifications.hashes) == 1


def test_a_request_gets_503_when_too_many_passwords_wait(
    verifications: Verifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basic_auth, "_turns", Turns("test", 2, 2))
    verifications.gate.clear()
    with client() as gate, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(gate.get, "/", headers={"authorization": basic("ada", each)}) for each in "ab"]
        for _ in waiting:
            assert verifications.started.acquire(timeout=20)
        busy = gate.get("/", headers={"authorization": basic("ada", "c")})
        verifications.gate.set()
        statuses = [each.result().status_code for each in waiting]
        again = gate.get("/", headers={"authorization": basic("ada", PASSWORD)})

    assert (busy.status_code, busy.headers["retry-after"], busy.text) == (503, "1", "Too many passwords to check\n")
    assert (statuses, again.status_code) == ([401, 401], 200)


def test_through_the_gateway() -> None:
    with TestClient(gateway(bridge, "basic-auth", {**CONF, "hide_credentials": True})) as gate:
        good = gate.get("/a", headers=[("x_user", "root"), ("authorization", basic("ada", PASSWORD))])
        bad = gate.get("/a", headers={"authorization": basic("ada", "x")})

    assert sent(good, "x-user", "x_user", "authorization") == [["x-user", "ada"]]
    assert (bad.status_code, bad.headers["www-authenticate"]) == (401, 'Basic realm="apisix", charset="UTF-8"')


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'users': Field required"),
        ({"users": {}}, "field 'users': Dictionary should have at least 1 item"),
        ({"users": {"ada": PASSWORD}}, "field 'users.ada': Value error, give the Argon2 hash of the password"),
        (
            {"users": {"ada": USERS["ada"][:-40]}},
            "field 'users.ada': Value error, give the Argon2 hash of the password",
        ),
        ({"users": {"ada": USERS["ada"].replace("m=8,", "m=99999999,")}}, "field 'users.ada': Value error, an Argon2"),
        ({"users": {"a:b": USERS["ada"]}}, "field 'users.a:b.*': String should match pattern"),
        ({"users": {" ada": USERS["ada"]}}, "field 'users. ada.*': String should match pattern"),
        (
            {**CONF, "user_header": "Authorization"},
            "field 'user_header': Value error, authorization has another meaning",
        ),
        ({**CONF, "remember": -1}, "field 'remember': Input should be greater"),
        ({**CONF, "password": PASSWORD}, "field 'password': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration_and_repeats_no_secret(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin basic-auth: {reason}") as caught:
        client(conf).get("/")
    assert PASSWORD not in str(caught.value) and "$argon2id$v=19$m=8" not in str(caught.value)
