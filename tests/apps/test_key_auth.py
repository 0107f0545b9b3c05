"""``key-auth`` lets requests with a known key pass, tells the upstream whose it is, and can hide the key."""

import hashlib
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.testclient import TestClient

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient

from .routes import gateway, sent

ADA, OLD, BOB = "ada-key-0123456789", "ada-old-0123456789", "bob-key-0123456789"
HASHED = "sha256:" + hashlib.sha256(BOB.encode()).hexdigest()
CONF: dict[str, Any] = {"keys": {"ada": [ADA, OLD], "bob & co": [HASHED]}, "consumer_header": "X-Consumer"}


def client(**more: Any) -> PluginClient:
    return PluginClient(bridge, "key-auth", {**CONF, **more})


@pytest.mark.parametrize(("key", "consumer"), [(ADA, "ada"), (OLD, "ada"), (BOB, "bob & co"), (f" {ADA} ", "ada")])
def test_a_known_key_passes_and_the_upstream_learns_whose_it_is(key: str, consumer: str) -> None:
    spoofed = [("x-consumer", "root"), ("X_Consumer", "root")]

    answer = client().post("/", content=b"body", headers=[*spoofed, ("APIKEY", key)])

    assert sent(answer, "x-consumer", "x_consumer") == [["x-consumer", consumer]]
    assert sent(answer, "apikey") == [["apikey", key]]
    assert answer.json()["body"] == "body"


BAD: list[tuple[str, list[tuple[str, str]], str]] = [
    ("nothing", [], "an API key is required"),
    ("empty", [("apikey", "")], "unknown API key"),
    ("unknown", [("apikey", "eve-key-0123456789")], "unknown API key"),
    ("another case", [("apikey", ADA.upper())], "unknown API key"),
    ("prefix", [("apikey", ADA[:-1])], "unknown API key"),
    ("longer", [("apikey", ADA + "x")], "unknown API key"),
    ("the text of the hash", [("apikey", HASHED)], "unknown API key"),
    ("the hash", [("apikey", HASHED.removeprefix("sha256:"))], "unknown API key"),
    ("name of the consumer", [("apikey", "ada")], "unknown API key"),
    ("oversized", [("apikey", "x" * 5000)], "unknown API key"),
    ("another header", [("x-api-key", ADA)], "an API key is required"),
    ("two", [("apikey", ADA), ("apikey", ADA)], "more than one API key"),
    ("joined", [("apikey", f"{ADA}, {ADA}")], "unknown API key"),
]


@pytest.mark.parametrize(("headers", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_key_is_refused(headers: list[tuple[str, str]], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    answer = client(realm="shop").get(f"/?apikey={ADA}", headers=headers)

    assert (answer.status_code, answer.text) == (401, reason + "\n")
    assert (answer.headers["www-authenticate"], answer.headers["cache-control"]) == ('ApiKey realm="shop"', "no-store")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("asgi_bridge")]
    assert ADA not in answer.text + "".join(ours)


def test_one_header_written_in_two_ways_is_two_keys() -> None:
    answer = client(header="X-Key").get("/", headers=[("x-key", ADA), ("X_Key", BOB)])

    assert (answer.status_code, answer.text) == (401, "more than one API key\n")


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        (f"apikey={ADA}", ""),
        (f"a=1&apikey={ADA}&b=%20", "a=1&b=%20"),
        (f"a=%2B+&api%6bey={ADA.replace('-', '%2d')}", "a=%2B+"),
        (f"apikeys=1&apikey={ADA}&&=&x", "apikeys=1&&=&x"),
    ],
)
def test_a_route_may_take_the_key_from_the_query_and_hide_it(query: str, rest: str) -> None:
    shown = client(query="apikey").get(f"/p?{query}").json()
    hidden = client(query="apikey", hide_credentials=True).get(f"/p?{query}").json()

    assert (shown["query"], hidden["query"]) == (query, rest)
    assert ["x-consumer", "ada"] in hidden["headers"]


def test_one_key_in_the_header_and_one_in_the_query_are_two() -> None:
    answer = client(query="k").get(f"/?k={ADA}", headers={"apikey": ADA})
    twice = client(query="k").get(f"/?k={ADA}&%6b={BOB}")

    assert [(each.status_code, each.text) for each in (answer, twice)] == [(401, "more than one API key\n")] * 2


@pytest.mark.parametrize("header", ["apikey", "Authorization", "X-Key"])
def test_the_upstream_does_not_get_a_hidden_key(header: str) -> None:
    hiding = client(header=header, hide_credentials=True)

    assert sent(hiding.get("/", headers={header: ADA}), header.lower(), "x-consumer") == [["x-consumer", "ada"]]


def test_a_request_without_a_key_is_anonymous_where_the_route_says_so() -> None:
    anonymous = client(anonymous_consumer="guest", hide_credentials=True)

    assert sent(anonymous.get("/", headers={"x-consumer": "root"}), "x-consumer") == [["x-consumer", "guest"]]
    assert sent(anonymous.get("/", headers={"apikey": ADA}), "x-consumer") == [["x-consumer", "ada"]]
    assert anonymous.get("/", headers={"apikey": "wrong"}).status_code == 401


def test_through_the_gateway() -> None:
    conf = {**CONF, "query": "apikey", "hide_credentials": True}
    with TestClient(gateway(bridge, "key-auth", conf)) as http:
        refused = http.get("/")
        answer = http.get(f"/p?x=1&apikey={BOB}", headers={"x-consumer": "root"})

    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'ApiKey realm="apisix"')
    assert sent(answer, "x-consumer", "apikey") == [["x-consumer", "bob & co"]]
    assert answer.json()["query"] == "x=1"


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'keys': Field required"),
        ({"keys": {}}, "field 'keys': Dictionary should have at least 1 item"),
        ({"keys": {"ada": "k" * 16}}, "field 'keys.ada': Input should be a valid"),
        ({"keys": {ADA: ["ada"]}}, "field 'keys.(hidden).0': Value error, a key has 16 to 1024 characters"),
        ({"keys": {BOB: "bob"}}, "field 'keys.(hidden)': Input should be a valid"),
        ({"keys": {f"{ADA} ü": ["ada"]}}, "field 'keys.(hidden).[key]': String should match"),
        ({"keys": {"ada": ["short"]}}, "field 'keys.ada.0': Value error, a key has 16 to 1024 characters"),
        ({"keys": {"ada": ["x" * 20 + " y"]}}, "field 'keys.ada.0': Value error, a key has 16 to 1024 characters"),
        ({"keys": {"ada": ["sha256:" + "A" * 64]}}, "field 'keys.ada.0': Value error, after \"sha256:\" come the 64"),
        ({"keys": {"ada\n": ["k" * 16]}}, "field 'keys.ada\\n.[key]': String should match"),
        ({"keys": {"ada": ["k" * 16] * 9}}, "field 'keys.ada': List should have at most 8 items"),
        ({"keys": {"ada": [BOB], "bob": [HASHED]}}, "Value error, a key is listed twice"),
        ({**CONF, "header": "Cookie"}, "field 'header': Value error, cookie has another meaning"),
        ({**CONF, "header": "a b"}, "field 'header': String should match"),
        ({**CONF, "query": "a&b"}, "field 'query': String should match"),
        ({**CONF, "consumer_header": "apikey"}, "Value error, consumer_header and header have to be different"),
        ({**CONF, "consumer_header": "Host"}, "field 'consumer_header': Value error, host has another meaning"),
        ({**CONF, "anonymous_consumer": " x"}, "field 'anonymous_consumer': String should match"),
        ({**CONF, "key": "x"}, "field 'key': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PluginClient(bridge, "key-auth", conf).get("/")

    message = str(caught.value)
    assert message.startswith(f"plugin key-auth: {reason}")
    assert not any(key in message for key in (ADA, BOB, HASHED))
