"""Attacks on ready-made plugins: one route, or one client, hardly slows the others.

Tests compare counts where possible. Otherwise they compare processor time with that of an undisturbed run at the same
moment. So no test depends on the speed or the load of the machine.
"""

import asyncio
import base64
import hashlib
import hmac as hmac_module
import http.server
import json
import os
import pty
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import argon2
import jwt
import pytest
from asgi_bridge_apps import basic_auth, bridge, ready_made, response_rewrite
from asgi_bridge_apps._shared import jwks
from asgi_bridge_apps._shared.jwks import MAX_TRIED, KeySet, reader_of
from asgi_bridge_apps._shared.turns import Full, Turns
from asgi_bridge_apps.jwt_auth import jwt_auth
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError, PluginError
from asgi_bridge.plugins import ConfigurationStore, PlainCall
from asgi_bridge.testing import PluginClient

Headers = list[tuple[str, str]]
KEY = "route#1#ext-plugin-pre-req#1"


def ratio(disturbed: Callable[[], object], undisturbed: Callable[[], object], rounds: int = 5) -> float:
    """Return the processor time of the first in multiples of the second: the minimum of each over all rounds."""

    def seconds(run: Callable[[], object]) -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    pairs = [(seconds(disturbed), seconds(undisturbed)) for _ in range(rounds)]
    return min(one for one, _ in pairs) / min(other for _, other in pairs)


def wait_of_an_innocent(plugin: str, conf: Any, attack: Headers, honest: Headers | None = None) -> float:
    """Return the time of innocent calls, each behind an attacking call, in multiples of their undisturbed time.

    All run on one event loop, so an innocent call waits while the attacked plugin computes.

    Args:
        plugin: The attacked plugin.
        conf: Its configuration.
        attack: Headers of the attacking calls.
        honest: Headers of calls of the same plugin in the undisturbed run; None: there are none.
    """
    attacked = PluginClient(bridge, plugin, conf).app
    innocent = PluginClient(bridge, "request-id", {}).app
    host = [(b"host", b"a.test")]

    def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in headers]

    async def call(app: Any, headers: Any) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None: ...

        await app(
            {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"",
             "headers": headers, "client": ("192.0.2.1", 1), "extensions": {}}, receive, send,
        )  # fmt: skip

    def run(app: Any, headers: Any) -> Callable[[], None]:
        async def several() -> None:
            for _ in range(100):
                await call(app, headers)
                await call(innocent, host)

        return lambda: asyncio.run(several())

    undisturbed = run(innocent, host) if honest is None else run(attacked, encoded(honest))
    return ratio(run(attacked, encoded(attack)), undisturbed)


# --- key sets: whatever hangs, hangs alone ----------------------------------------------------------------------------


@contextmanager
def odd_files(folder: Path) -> Iterator[dict[str, str]]:
    """Yield paths that are no regular files, by kind. Opening or reading some of them would block."""
    with ExitStack() as stack:
        os.mkfifo(folder / "fifo")
        (folder / "link").symlink_to("fifo")
        (folder / "folder").mkdir()
        reader, writer = os.pipe()
        first, second = pty.openpty()
        for descriptor in (reader, writer, first, second):
            stack.callback(os.close, descriptor)
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(folder / "socket"))
        yield {
            "fifo": str(folder / "fifo"),
            "link": str(folder / "link"),
            "folder": str(folder / "folder"),
            "pipe": f"/proc/self/fd/{reader}",
            "terminal": os.ttyname(second),
            "socket": str(folder / "socket"),
            "endless": "/dev/zero",
            "random": "/dev/random",
        }


RSA = rsa.generate_private_key(65537, 2048)


def signed(key: Any, algorithm: str, headers: dict[str, Any] | None = None) -> Headers:
    token = jwt.encode({"sub": "ada", "exp": int(time.time()) + 600}, key, algorithm, headers)
    return [("authorization", f"Bearer {token}")]


def test_reading_no_regular_file_blocks_no_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = ready_made(allow=["/"])
    good = tmp_path / "jwks.json"
    good.write_text(json.dumps({"keys": [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))]}))
    with odd_files(tmp_path) as odd, ExitStack() as stack:
        # for each kind, more routes than there are threads
        for name, path in odd.items():
            for number in range(jwks.MAX_READS + 1):
                conf = {"algorithms": ["RS256"], "jwks_file": path}
                client = stack.enter_context(PluginClient(made, "jwt-auth", conf, route_id=f"{name}{number}"))
                assert client.get("/", headers=signed(RSA, "RS256")).status_code == 503
        conf = {"algorithms": ["RS256"], "jwks_file": str(good)}
        client = stack.enter_context(PluginClient(made, "jwt-auth", conf))
        assert client.get("/", headers=signed(RSA, "RS256")).status_code == 200

    reasons = [message.partition(" cannot be read ")[2] for message in caplog.messages if "cannot be read" in message]
    assert len(reasons) == len(odd) * (jwks.MAX_READS + 1)
    # open() itself refuses sockets and folders
    assert {reason.partition(")")[0] for reason in reasons} == {
        "(it is not a regular file", "(No such device or address", "(Is a directory",
    }  # fmt: skip


def test_a_read_that_hangs_blocks_one_thread_and_its_own_set_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network disk that is unreachable."""
    gone, begun = threading.Event(), []

    def read(path: str) -> bytes:
        begun.append(path)
        if "gone" in path:
            gone.wait(60)
        return json.dumps({"keys": [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))]}).encode()

    monkeypatch.setattr(jwks, "_read", read)
    monkeypatch.setattr(jwks, "_turns", Turns("test", jwks.MAX_READS, 1))
    monkeypatch.setattr(jwks, "READ_SECONDS", 0.01)
    now = [0.0]

    def key_set(path: str) -> KeySet:
        return KeySet(reader_of(path, None)[0], path, refresh=300, stale=0, cooldown=10, clock=lambda: now[0])

    async def run() -> list[int]:
        hanging = [key_set(f"/gone/{number}") for number in range(jwks.MAX_READS - 1)]
        for _ in range(5):
            for each in hanging:
                with pytest.raises(jwks.KeysUnavailable):
                    await each.find(None, "RS256")
            now[0] += 10
        monkeypatch.setattr(jwks, "READ_SECONDS", 60.0)
        return [len(await key_set(f"/there/{number}").find(None, "RS256")) for number in range(3)]

    try:
        assert asyncio.run(run()) == [1, 1, 1]
    finally:
        gone.set()
    assert len([path for path in begun if "gone" in path]) == jwks.MAX_READS - 1


# --- patterns ---------------------------------------------------------------------------------------------------------

CARELESS = [
    ("(a+)+b", "a" * 28),
    ("(a|aa)+$", "a" * 40 + "!"),
    ("(.*)*x", "http://" + "a" * 28),
    (r"https://([a-z]+)*\.test", "https://" + "a" * 28),
    ("([ab]*a){12}[ab]{100}c", "ab" * 200),
]


@pytest.mark.parametrize(("pattern", "origin"), CARELESS)
def test_a_careless_pattern_of_cors_costs_no_more_than_a_careful_one(pattern: str, origin: str) -> None:
    assert wait_of_an_innocent("cors", {"allow_origin_regex": pattern}, [("origin", origin)]) < 3


def test_a_pattern_of_cors_decides_and_too_long_an_origin_is_not_tried() -> None:
    client = PluginClient(bridge, "cors", {"allow_origin_regex": r"https://[a-z]+\.test", "allow_origins": ["null"]})
    origins = {"https://a.test": True, "https://a.test.b": False, "https://A.test": False, "null": True,
               "https://" + "a" * 300 + ".test": False, "https://\xe4.test": False, "": False}  # fmt: skip

    def allowed(origin: str) -> bool:
        answer = client.get("/", headers=[(b"origin", origin.encode("latin-1"))])
        return "access-control-allow-origin" in answer.headers

    assert {origin: allowed(origin) for origin in origins} == origins


@pytest.mark.parametrize(("plugin", "field"), [("cors", "allow_origin_regex"), ("response-rewrite", "filters.0.regex")])
@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a+)\\1", "not a regular expression of RE2: invalid escape sequence"),
        ("a(?=b)", "not a regular expression of RE2: invalid perl operator"),
        ("a{1001}", "not a regular expression of RE2: invalid repetition size"),
        ("((a{30}){30}){30}", "not a regular expression of RE2: invalid repetition size"),
        (r"\pL{1000}", "not a regular expression of RE2: pattern too large - compile failed"),
        (".{999}", "the regular expression compiles to 7996 instructions; 2000 are allowed"),
        ("(hidden", "not a regular expression of RE2: missing )"),
        ("hidden" * 100, "String should have at most 512 characters"),
        ("\ud800", ""),
    ],
)
def test_a_pattern_that_is_too_large_is_refused_and_not_repeated(
    plugin: str, field: str, pattern: str, reason: str
) -> None:
    conf: Any = {"allow_origin_regex": pattern} if plugin == "cors" else {"filters": [{"regex": pattern}]}

    with pytest.raises(ConfigurationError, match=f"^plugin {plugin}: ") as caught:
        PluginClient(bridge, plugin, conf).get("/")
    assert reason in str(caught.value) and "hidden" not in str(caught.value)
    if reason:
        assert str(caught.value).startswith(f"plugin {plugin}: field '{field}': ")


# --- credentials ------------------------------------------------------------------------------------------------------


def now() -> str:
    """Return the Date header of a request that is signed now."""
    return formatdate(usegmt=True)


def signature(names: str, key: str = "eve", value: str = "AAAA") -> Headers:
    line = f'Signature keyId="{key}",algorithm="hmac-sha256",headers="{names}",signature="{value}"'
    return [("date", now()), ("authorization", line)]


MANY = [(f"x-header-{number}", "v" * 60) for number in range(95)]
ALL = " ".join(["@request-target", "date", *(name for name, _ in MANY)])
HMAC_ATTACKS: dict[str, Headers] = {
    "an unknown key that signs one header a thousand times": [
        *MANY,
        *signature("@request-target date" + " x-header-94" * 600),
    ],
    "a known key that does so": [*MANY, *signature("@request-target date" + " x-header-94" * 600, "ada")],
    "in other writings": [*MANY, *signature("@request-target date" + " x-header_1 X-HEADER-1 x_header-1" * 200, "ada")],
    "all headers": [*MANY, *signature(ALL, "ada")],
    "as many as may be": [*MANY, *signature(" ".join(ALL.split()[:64]), "ada")],
    "an endless header": signature("@request-target date", "ada", "A" * 60_000),
    "many parameters": [("authorization", "Signature " + ",".join(f'a{"b" * n}="x"' for n in range(120)))],
    "commas": [("authorization", "Signature " + "," * 8000)],
    "blanks": [("authorization", "Signature keyId=" + " " * 8000)],
    "quotes": [("authorization", "Signature a=" + '"' * 8000)],
}


@pytest.mark.parametrize("attack", HMAC_ATTACKS.values(), ids=HMAC_ATTACKS.keys())
def test_an_attack_on_hmac_auth_hardly_slows_another_route(attack: Headers) -> None:
    honest = [*MANY, *signature("@request-target date", "ada")]

    assert wait_of_an_innocent("hmac-auth", {"keys": {"ada": "a secret of Ada's"}}, attack, honest) < 3


def test_hmac_auth_signs_each_header_once_and_64_at_most() -> None:
    client = PluginClient(bridge, "hmac-auth", {"keys": {"ada": "a secret of Ada's"}})

    def status(extra: list[str]) -> int:
        names = ["@request-target", "date", *extra]
        lines = ["ada", "GET /", f"date: {now()}", *(f"{name}: v" for name in extra)]
        text = "".join(f"{line}\n" for line in lines).encode()
        mac = base64.b64encode(hmac_module.digest(b"a secret of Ada's", text, hashlib.sha256)).decode()
        values = [(name, "v") for name in dict.fromkeys(name.lower() for name in extra)]
        return client.get("/", headers=[*values, *signature(" ".join(names), "ada", mac)]).status_code

    numbered = [f"x-{number}" for number in range(63)]
    assert [status(numbered[:62]), status(numbered), status(["x-a", "x-a"]), status(["x-a", "X-A"])] == [
        200, 401, 401, 401,
    ]  # fmt: skip


def ec_keys(count: int) -> list[Any]:
    return [ec.generate_private_key(ec.SECP521R1()) for _ in range(count)]


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def verifications(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the keys that tokens are tried with."""
    tried: list[Any] = []
    real = jwt.decode

    def decode(token: Any, key: Any, **more: Any) -> Any:
        tried.append(key)
        return real(token, key, **more)

    monkeypatch.setattr(jwt, "decode", decode)
    return tried


def test_a_token_is_tried_with_a_few_keys_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ec_keys(100)
    tried = verifications(monkeypatch)
    named = [{"kid": str(number), "public_key": pem(key)} for number, key in enumerate(keys)]
    sets = {
        "a.json": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) for key in keys],
        "b.json": [{**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "1"} for key in keys],
    }
    for name, jwk in sets.items():
        (tmp_path / name).write_text(json.dumps({"keys": jwk}))
    made = ready_made(allow=[str(tmp_path)])

    def statuses(conf: dict[str, Any]) -> list[int]:
        with PluginClient(made, "jwt-auth", {"algorithms": ["ES512"], **conf}) as client:
            headers = [signed(keys[99], "ES512", kid) for kid in (None, {"kid": "1"}, {"kid": "99"})]
            return [client.get("/", headers=each).status_code for each in headers]

    assert (statuses({"keys": named}), len(tried)) == ([401, 401, 200], 2)
    assert (statuses({"jwks_file": str(tmp_path / "a.json")}), len(tried)) == ([401, 401, 401], 2)
    assert (statuses({"jwks_file": str(tmp_path / "b.json")}), len(tried)) == ([401, 401, 401], 2)
    assert (statuses({"keys": named[-MAX_TRIED:]}), len(tried)) == ([200, 401, 200], 2 + MAX_TRIED + 1)
    nameless = [{"public_key": each["public_key"]} for each in named]
    with pytest.raises(ConfigurationError, match=f"at most {MAX_TRIED} keys without kid may fit one algorithm"):
        statuses({"keys": nameless[: MAX_TRIED + 1]})


def test_an_attack_on_a_route_with_a_hundred_keys_hardly_slows_another_route() -> None:
    keys = ec_keys(101)
    named = [{"kid": str(number), "public_key": pem(key)} for number, key in enumerate(keys[:100])]
    conf = {"algorithms": ["ES512"], "keys": named}

    assert wait_of_an_innocent("jwt-auth", conf, signed(keys[100], "ES512")) < 3


def deep(what: bytes) -> str:
    return base64.urlsafe_b64encode(what).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "token",
    [
        deep(b'{"alg":"HS256","x":' + b"[" * 5000) + ".e30.x",
        deep(b'{"alg":"HS256","x":' + b"9" * 5000 + b"}") + ".e30.x",
        deep(b'{"alg":"HS256","kid":"' + b"k" * 5000 + b'"}') + ".e30.x",
        "." * 8000,
        "A" * 60_000,
    ],
)
def test_an_attack_on_jwt_auth_hardly_slows_another_route(token: str) -> None:
    conf = {"algorithms": ["HS256"], "keys": [{"secret": "s" * 32}]}
    good = jwt.encode({"exp": int(time.time()) + 600, "x": "x" * 5000}, "s" * 32, "HS256")

    # the time of PyJWT grows with the token, up to max_length
    headers: list[Headers] = [[("authorization", f"Bearer {each}")] for each in (token, good)]
    assert wait_of_an_innocent("jwt-auth", conf, *headers) < 2


LONG_HEADERS: list[tuple[str, Any, str, str, str]] = [
    ("otel", {}, "baggage", ",".join(f"k{n}=v{n}" for n in range(900)), "a=b"),
    ("otel", {}, "tracestate", ",".join(f"k{n}=v{n}" for n in range(900)), "a=b"),
    ("otel", {}, "tracestate", "a" + " " * 8000 + "=", "a=b"),
    ("otel", {}, "traceparent", "0" * 8000, "00-" + "1" * 32 + "-" + "1" * 16 + "-01"),
    ("session", {"secret_key": "k" * 32}, "cookie", 'session="' + "\\a" * 4000 + '"', "session=abc"),
    ("session", {"secret_key": "k" * 32}, "cookie", 'other="' + "\\012" * 2000 + '"', "session=abc"),
    ("session", {"secret_key": "k" * 32}, "cookie", ";".join(f"a{n}=b" for n in range(1300)), "session=abc"),
    ("etag", {}, "if-none-match", "," * 8000, '"a"'),
    ("request-id", {}, "x-request-id", "a" * 8000, "a"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plugin", "conf", "name", "value", "honest"), LONG_HEADERS, ids=[f"{row[0]} {row[2]}" for row in LONG_HEADERS]
)
def test_a_long_header_costs_not_much_more_than_a_short_one(
    plugin: str, conf: Any, name: str, value: str, honest: str, caplog: pytest.LogCaptureFixture
) -> None:
    trace = [("traceparent", "00-" + "1" * 32 + "-" + "1" * 16 + "-01")] if name == "tracestate" else []

    assert wait_of_an_innocent(plugin, conf, [*trace, (name, value)], [*trace, (name, honest)]) < 3
    assert caplog.messages == []


# --- passwords --------------------------------------------------------------------------------------------------------

HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASHES = {name: HASHER.hash(f"{name}'s password") for name in ("ada", "bob", "eve")}


def basic(user: str, password: str) -> Headers:
    return [("authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())]


class Gated:
    """Password hasher that verifies one password each time the test releases a step."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.started = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)

    def verify(self, hashed: str, password: bytes) -> bool:
        self.order.append(hashed)
        self.started.release()
        assert self.steps.acquire(timeout=60)
        return HASHER.verify(hashed, password)


def test_a_flood_of_wrong_passwords_affects_its_own_route_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = Gated()
    monkeypatch.setattr(basic_auth, "_hasher", gated)
    monkeypatch.setattr(basic_auth, "_turns", Turns("test", 1, basic_auth.MAX_WAITING))
    apps = {
        name: basic_auth.basic_auth(basic_auth.BasicAuthConf.model_validate({"users": {name: hashed}}))
        for name, hashed in HASHES.items()
    }

    async def call(route: str, password: str) -> int:
        """Return the status; 200 if the request passes."""
        headers = [(name.encode(), value.encode()) for name, value in basic(route, password)]
        scope = {"type": "http", "headers": headers}
        statuses: list[int] = []

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        try:
            await apps[route](scope, receive, send)
        except PluginError:  # there is no upstream in this test
            return 200
        return statuses[0]

    async def run() -> list[int]:
        floods = [
            asyncio.ensure_future(call(route, f"wrong {number}"))
            for number in range(basic_auth.MAX_WAITING + 10)
            for route in ("eve", "bob")
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        innocent = asyncio.ensure_future(call("ada", "ada's password"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(4):  # before it come the running job, and at most one of each flood
            gated.steps.release()
        assert await innocent == 200
        assert gated.order.index(HASHES["ada"]) <= 3
        for _ in floods:
            gated.steps.release()
        return [await each for each in floods]

    statuses = asyncio.run(run())
    # each flooded route has its own places only
    assert [statuses.count(401), statuses.count(503)] == [2 * basic_auth.MAX_WAITING, 20]


def test_one_processor_is_left_to_the_event_loop() -> None:
    assert 1 <= basic_auth.THREADS <= max(1, (os.cpu_count() or 1) - 1)


@pytest.mark.parametrize(
    "parameters", ["m=1048576,t=2,p=1", "m=65536,t=17,p=4", "m=8,t=9999,p=99", "m=1024,t=1025,p=1", "m=65536,t=3,p=17"]
)
def test_a_hash_that_takes_too_long_to_verify_is_refused(parameters: str) -> None:
    hashed = HASHES["ada"].replace("m=8,t=1,p=1", parameters)

    with pytest.raises(ConfigurationError, match="^plugin basic-auth: field 'users.a': Value error, an Argon2 hash"):
        PluginClient(bridge, "basic-auth", {"users": {"a": hashed}}).get("/")


# --- turns ------------------------------------------------------------------------------------------------------------


def test_owners_are_served_in_turn_and_each_has_its_own_places() -> None:
    order: list[str] = []
    gate = threading.Event()
    turns = Turns("test", 1, 5)
    one, two, three = object(), object(), object()
    first = turns.submit(one, lambda: gate.wait(60))
    work = [turns.submit(one, lambda n=n: order.append(f"one {n}")) for n in range(4)]  # type: ignore[misc]
    work += [turns.submit(two, lambda n=n: order.append(f"two {n}")) for n in range(3)]  # type: ignore[misc]
    work += [turns.submit(three, lambda: order.append("three"))]
    with pytest.raises(Full):
        turns.submit(one, lambda: None)
    assert work.pop(1).cancel()
    gate.set()
    assert first.result(60)
    for each in work:
        each.result(60)

    assert order == ["one 0", "two 0", "three", "two 1", "one 2", "two 2", "one 3"]
    # all places are free again, also after a failed job
    failing = [turns.submit(one, lambda: 1 // 0) for _ in range(5)]
    assert [type(each.exception(60)) for each in failing] == [ZeroDivisionError] * 5
    assert turns.submit(one, lambda: "done").result(60) == "done"
    assert turns._taken == {}


# --- memory of a route ------------------------------------------------------------------------------------------------


class Routes:
    """Routes of one runner. Each call prepares its configuration anew, as if the gateway had forgotten it."""

    def __init__(self, made: Bridge = bridge) -> None:
        self.store = ConfigurationStore(made.plugins)

    async def status(self, plugin: str, conf: Any, headers: Headers = [], key: str = KEY) -> int:  # noqa: B006
        token = await self.store.prepare(key.encode(), [(plugin.encode(), json.dumps(conf).encode())])
        chain = self.store.find(token)
        assert chain is not None
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        call = PlainCall("request", chain, body_of(b""), {}, {})
        scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"",
                 "headers": [(name.encode(), value.encode()) for name, value in headers]}  # fmt: skip
        await chain.enter(call, scope, receive, send)
        return statuses[0]

    def run(self, *calls: dict[str, Any]) -> list[int]:
        async def several() -> list[int]:
            found = [await self.status(**call) for call in calls]
            await self.store.close()
            return found

        return asyncio.run(several())


LIMITED: dict[str, Any] = {"plugin": "limit-req", "conf": {"rate": 1e-3}}


def test_a_route_has_one_bucket_for_all_consumers_and_all_its_lists() -> None:
    """If the gateway authenticates consumers, each has its own key of the configuration, and so its own chain."""
    keys = [
        "route&consumer#1&ada#ext-plugin-post-req#1&2",
        "route&consumer#1&bob#ext-plugin-post-req#1&2",
        "route&consumer#1&ada#ext-plugin-post-req#3&4",
        "route#1#ext-plugin-pre-req#5",
        "route#1#ext-plugin-post-req#6",
    ]

    assert Routes().run(*({**LIMITED, "key": key} for key in keys)) == [200, 503, 503, 503, 503]
    other = {**LIMITED, "key": "route#2#ext-plugin-pre-req#1"}
    assert Routes().run(LIMITED, other, LIMITED, other) == [200, 200, 503, 503]


def test_building_other_chains_does_not_empty_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.plugins.store.MAX_CHAINS", 4)
    others = [{"plugin": "say", "conf": {}, "key": f"route#{number}#ext-plugin-pre-req#1"} for number in range(20)]

    found = Routes().run(LIMITED, *others, LIMITED, *others, LIMITED)
    assert [status for status in found if status != 200] == [503, 503]
    assert (found[0], found[21], found[-1]) == (200, 503, 503)


def test_the_cooldown_of_a_key_set_outlives_its_chain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_bridge.plugins.store.MAX_CHAINS", 1)
    conf = {"algorithms": ["RS256"], "jwks_file": str(tmp_path / "none")}
    calls = [
        {"plugin": "jwt-auth", "conf": conf, "headers": signed(RSA, "RS256"), "key": key}
        for key in ("route#1#ext-plugin-pre-req#1", "route#1#ext-plugin-post-req#2", "route#2#ext-plugin-pre-req#1")
    ]
    other = {"plugin": "say", "conf": {}}

    assert Routes(ready_made(allow=[str(tmp_path)])).run(
        calls[0], other, calls[0], calls[1], other, calls[1], calls[2]
    ) == [503, 200, 503, 503, 200, 503, 503]  # fmt: skip
    # one attempt for each route
    assert caplog.text.count("cannot be read") == 2


def test_remembered_passwords_outlive_their_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.plugins.store.MAX_CHAINS", 1)
    gated = Gated()
    gated.steps.release()
    monkeypatch.setattr(basic_auth, "_hasher", gated)
    call: dict[str, Any] = {"plugin": "basic-auth", "conf": {"users": {"ada": HASHES["ada"]}}}
    call["headers"] = basic("ada", "ada's password")

    assert Routes().run(call, {"plugin": "say", "conf": {}}, call, call) == [200] * 4
    assert len(gated.order) == 1


# --- what a route may name --------------------------------------------------------------------------------------------


def test_no_byte_reaches_a_socket_that_the_operator_does_not_allow(tmp_path: Path) -> None:
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)

    with (
        http.server.HTTPServer(("127.0.0.1", 0), Handler) as web,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        unix.setblocking(False)
        tcp.setblocking(False)
        web.timeout = 0
        port, web_port = tcp.getsockname()[1], web.server_port
        allow = [f"redis://127.0.0.1:{port}/1", f"http://127.0.0.1:{web_port}/keys/", "http://localhost/"]
        made = ready_made(allow=allow)
        attempts: list[tuple[str, Any]] = [
            *[
                ("limit-req", {"rate": 1, "redis": url})
                for url in (
                    f"unix://{tmp_path}/s",
                    f"unix://x:%0aSET%20a%20b%0a@{tmp_path}/s",
                    f"redis://127.0.0.1:{port}/1?path={tmp_path}/s",
                    f"redis://127.0.0.1:{port}/1?socket_timeout=600",
                    f"redis://x:%0d%0aSET%20a%20b%0d%0a@127.0.0.1:{port}/1",
                    f"redis://127.0.0.1:{port}/2",
                    f"redis://localhost:{port}/1",
                )
            ],
            *[
                ("jwt-auth", {"algorithms": ["RS256"], "jwks_url": url})
                for url in (
                    f"http://127.0.0.1:{web_port}/",
                    f"http://127.0.0.1:{web_port}/keys/../admin",
                    f"http://127.0.0.1:{web_port}/keys/%2e%2e/admin",
                    f"http://localhost@127.0.0.1:{web_port}/keys/",
                    f"http://localhost:{web_port}/",
                    f"http://127.1:{web_port}/keys/",
                )
            ],
        ]
        for plugin, conf in attempts:
            with pytest.raises(ConfigurationError, match=f"^plugin {plugin}: field '[a-z_]+': a route "):
                PluginClient(made, plugin, conf).get("/", headers=signed(RSA, "RS256"))
        for listening in (unix, tcp):
            with pytest.raises(BlockingIOError):
                listening.accept()
        web.handle_request()
    assert reached == []


@pytest.mark.parametrize(
    "url", ["https://idp.test:hunter2/keys", "https://u:hunter2@[idp.test/", "https://hunter2:x:y@idp.test:hunter2/"]
)
def test_a_password_in_a_malformed_url_is_in_no_message(url: str) -> None:
    made = Bridge()
    made.plugin("jwt-auth", defaults={"jwks_url": url})(jwt_auth)
    for plugin_bridge, conf in ((made, {}), (ready_made(allow=["https://idp.test/"]), {"jwks_url": url})):
        with pytest.raises(ConfigurationError, match="^plugin jwt-auth: field 'jwks_url': ") as caught:
            PluginClient(plugin_bridge, "jwt-auth", {"algorithms": ["RS256"], **conf}).get("/")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


# --- bodies -----------------------------------------------------------------------------------------------------------


def body_of(content: bytes) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": content})

    return app


BODY = b"ab" * 2**21
FITTING = [{"regex": "a", "scope": "global", "replace": "aaaaaaa"}]
EXPANDING = {
    "one letter": [{"regex": "a", "scope": "global", "replace": "x" * 300}],
    "each time a little more": [{"regex": "b", "scope": "global", "replace": "bbb"} for _ in range(16)],
    "two letters of a kind": [{"regex": "(?i)AB", "scope": "global", "replace": "y" * 50_000}],
    "what another filter made": [
        {"regex": "a", "scope": "global", "replace": "zz"},
        {"regex": "zz", "scope": "global", "replace": "z" * 40},
    ],
}


@pytest.mark.parametrize("filters", EXPANDING.values(), ids=EXPANDING.keys())
def test_a_body_that_filters_make_too_long_is_refused_before_it_is_made(filters: Any) -> None:
    def peak(conf: Any) -> int:
        with PluginClient(bridge, "response-rewrite", conf, upstream=body_of(BODY)) as client:
            tracemalloc.start()
            try:
                if conf["filters"] is filters:
                    with pytest.raises(
                        PluginError, match="the filters make a body of [0-9]+ bytes; the protocol allows 16777216"
                    ):
                        client.get("/")
                else:
                    assert client.get("/").status_code == 200
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    assert peak({"filters": filters}) < 2 * peak({"filters": FITTING})


def test_a_body_that_filters_make_just_short_enough_passes() -> None:
    with PluginClient(bridge, "response-rewrite", {"filters": FITTING}, upstream=body_of(BODY)) as client:
        assert len(client.get("/").content) == 2**24


def test_a_search_that_may_be_long_runs_outside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[bool, int]] = []
    real = response_rewrite._Filters.apply

    def apply(self: Any, body: bytes, encoding: str) -> Any:
        threads.append((threading.current_thread().name.startswith("response-rewrite"), len(body)))
        return real(self, body, encoding)

    monkeypatch.setattr(response_rewrite._Filters, "apply", apply)
    hard = {"filters": [{"regex": "[ab]*a[ab]{500}c"}]}
    for conf, body in ((hard, b"ab" * 500), (hard, b"ab" * 5000), ({"filters": [{"regex": "x"}]}, b"ab" * 5000)):
        assert PluginClient(bridge, "response-rewrite", conf, upstream=body_of(body)).get("/").content == body

    assert threads == [(False, 1000), (True, 10000), (False, 10000)]


def test_searches_of_one_route_have_their_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = response_rewrite._Filters.apply
    monkeypatch.setattr(response_rewrite._Filters, "apply", lambda *args: gate.wait(60) and real(*args))
    monkeypatch.setattr(response_rewrite, "_turns", Turns("test", 2, 3))
    body = b"ab" * 10000
    conf = {"filters": [{"regex": "[ab]*a[ab]{500}c"}]}

    async def run() -> tuple[list[str], str]:
        first, second = (
            response_rewrite.response_rewrite(body_of(body), response_rewrite.ResponseRewriteConf.model_validate(conf))
            for _ in range(2)
        )

        async def call(app: ASGIApp) -> str:
            async def send(message: Any) -> None: ...

            try:
                await app({"type": "http", "method": "GET"}, None, send)  # type: ignore[arg-type]
            except PluginError as exc:
                return str(exc)
            return "done"

        calls = [asyncio.ensure_future(call(first)) for _ in range(5)] + [asyncio.ensure_future(call(second))]
        _refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        found = await asyncio.gather(*calls)
        return found[:-1], found[-1]

    several, other = asyncio.run(run())
    full = "too many bodies of this route are being searched"
    assert (several, other) == (["done"] * 3 + [full] * 2, "done")


# --- configuration ----------------------------------------------------------------------------------------------------


def unbounded(node: Any, where: str, defs: dict[str, Any]) -> Iterator[str]:
    """Yield the places of a JSON Schema where a text, list or object may have any length."""
    if isinstance(node, list):
        for each in node:
            yield from unbounded(each, where, defs)
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield from unbounded(defs[node["$ref"].rpartition("/")[2]], where, defs)
    kind = node.get("type")
    if (
        (kind == "string" and not {"maxLength", "enum", "const"} & set(node))
        or (kind == "array" and "maxItems" not in node)
        or (kind == "object" and "properties" not in node and "maxProperties" not in node)
        or (kind is None and not {"$ref", "anyOf", "oneOf", "enum", "const"} & set(node))
    ):
        yield where
    for key in ("anyOf", "oneOf", "allOf", "items", "additionalProperties"):
        if not isinstance(node.get(key), bool | None):
            yield from unbounded(node[key], where, defs)
    for patterned in node.get("patternProperties", {}).values():
        yield from unbounded(patterned, where, defs)
    for name, each in node.get("properties", {}).items():
        yield from unbounded(each, f"{where}.{name}", defs)


@pytest.mark.parametrize("plugin", [name for name in bridge.plugins if name != "https-redirect"])
def test_everything_in_a_configuration_is_bounded(plugin: str) -> None:
    schema = bridge.plugins[plugin].describe()["schema"]

    assert list(unbounded(schema, plugin, schema.get("$defs", {}))) == []


LONG: list[tuple[str, Any, str]] = [
    ("ip-access", {"deny": ["1.2.3.4/1"] * 60_000}, "field 'deny.0': Value error, write an address, or a network with "
     "no bits set after its prefix"),
    ("ip-access", {"allow": ["1.2.3.4"] * 60_000}, "field 'allow': List should have at most 4096 items after "
     "validation, not 60000"),
    ("response-rewrite", {"filters": [{"regex": r"\pL{1000}"}] * 300}, "field 'filters.0.regex': Value error, not a "
     "regular expression of RE2: pattern too large - compile failed"),
    ("response-rewrite", {"headers": {f"x-{n}": "a\n" for n in range(60_000)}}, "field 'headers': at most 99 entries"),
    ("rewrite", {"args": {str(n): 1 for n in range(60_000)}}, "field 'args': at most 100 entries"),
    ("jwt-auth", {"algorithms": ["none"] * 60_000, "keys": [{"secret": "s" * 32}]}, "field 'algorithms.0': Input "
     "should be 'HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', "
     "'ES512' or 'EdDSA'"),
    ("basic-auth", {"users": {f"u{n}": "x" for n in range(60_000)}}, "field 'users': at most 1000 entries"),
    ("hmac-auth", {"keys": {f"k{n}": "x" for n in range(60_000)}}, "field 'keys': at most 1000 entries"),
    ("cors", {"allow_origins": ["a b"] * 60_000}, "field 'allow_origins.0': String should match pattern '^[!-~]*$'"),
    ("stop", {"body": "x" * (2**20 + 1)}, "field 'body': String should have at most 1048576 characters"),
    ("otel", {"attributes": {str(n): "x" for n in range(60_000)}}, "field 'attributes': at most 100 entries"),
]  # fmt: skip


@pytest.mark.parametrize(("plugin", "conf", "reason"), LONG, ids=[f"{row[0]} {next(iter(row[1]))}" for row in LONG])
def test_only_the_first_error_of_a_configuration_is_reported(plugin: str, conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        bridge.plugins[plugin].configuration.check(json.dumps(conf))

    assert str(caught.value) == reason


@pytest.mark.parametrize("secret", ["", " ", "a", "secret", " " * 40, "fifteen letters"])
def test_a_session_key_that_can_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(
        ConfigurationError, match="^plugin session: field 'secret_key': Value error, a secret_key needs"
    ):
        PluginClient(bridge, "session", {"secret_key": secret}).get("/")
