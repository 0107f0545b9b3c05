"""What a recording hides: by the names of headers, arguments, variables and fields, and wherever the value stands."""

import json
from typing import Any

import pytest
from asgi_bridge_apps import bridge as apps
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from asgi_bridge.hiding import secret_fields
from asgi_bridge.recording.redact import MASK, Redactor, redacted_conf

KEY = b"k" * 32


def hidden(value: bytes) -> bytes:
    return Redactor(KEY).replaced(value, "it")


def test_a_placeholder_has_the_length_of_the_secret_and_is_the_same_for_the_same() -> None:
    for secret in (b"1", b"12345678", b"x" * 11, b"x" * 12, b"x" * 500, b"\xff\0" * 40):
        assert len(hidden(secret)) == len(secret)
        assert hidden(secret) == hidden(secret) != Redactor(b"other").replaced(secret, "it")
    assert hidden(b"a" * 40) != hidden(b"b" * 40)
    assert hidden(b"a" * 40).startswith(b"redacted-")
    assert hidden(b"") == b""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"authorization", b"Bearer abc.def", b"Bearer %b"),
        (b"Authorization", b"abcdef", b"%b"),
        (b"proxy-authorization", b"Basic YTpi", b"Basic %b"),
        (b"cookie", b"a=1; b=22;c", b"a=%b; b=%b;c"),
        (b"set-cookie", b"sid=abc; Path=/; HttpOnly", b"sid=%b; Path=/; HttpOnly"),
        (b"x-api-key", b"k1", b"%b"),
        (b"X-Auth-Token", b"k1", b"%b"),
        (b"x_access_key", b"k1", b"%b"),
        (b"x-amz-security-token", b"k1", b"%b"),
        (b"x-csrf-token", b"k1", b"%b"),
        (b"referer", b"https://a.test/?page=2&access_token=t1#x", b"https://a.test/?page=2&access_token=%b#x"),
        (b"location", b"/login?sig=t1&next=/", b"/login?sig=%b&next=/"),
        (b"x-request-id", b"abc", b"abc"),
        (b"content-type", b"text/html; charset=utf-8", b"text/html; charset=utf-8"),
        (b"accept", b"*/*", b"*/*"),
    ],
)
def test_headers(name: bytes, value: bytes, expected: bytes) -> None:
    parts = expected.split(b"%b")
    shown = Redactor(KEY).header(name, value)
    if len(parts) == 1:
        assert shown == value == expected
        return
    assert len(shown) == len(value)
    assert shown != value
    for part in parts:
        assert part in shown
    # masked twice is masked once, so a recorded action and one of today can be compared
    mask = Redactor(None)
    assert mask.header(name, shown) == mask.header(name, value) == expected.replace(b"%b", MASK)


def test_arguments_and_variables() -> None:
    redactor = Redactor(KEY)
    assert redactor.args([(b"page", b"2"), (b"access_token", b"t"), (b"key", b"k"), (b"token", None)]) == [
        (b"page", b"2"), (b"access_token", hidden(b"t")), (b"key", hidden(b"k")), (b"token", None),
    ]  # fmt: skip
    assert redactor.variable(b"http_authorization", b"Bearer t") == b"Bearer " + hidden(b"t")
    assert redactor.variable(b"http_x_api_key", b"t") == hidden(b"t")
    assert redactor.variable(b"cookie_sid", b"t") == hidden(b"t")
    assert redactor.variable(b"arg_token", b"t") == hidden(b"t")
    assert redactor.variable(b"real_request_uri", b"/a?b=1&token=t") == b"/a?b=1&token=" + hidden(b"t")
    assert redactor.variable(b"args", b"key=t&b=1") == b"key=" + hidden(b"t") + b"&b=1"
    assert redactor.variable(b"request_id", b"abc") == b"abc"
    assert redactor.variable(b"remote_user", b"alice") == b"alice"
    assert list(redactor.found) == [
        "argument access_token", "argument key", "header authorization", "header x-api-key", "variable cookie_sid",
        "variable arg_token", "variable real_request_uri", "variable args",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "secret"),
    [
        (b'{"user": "al", "password": "pa\\"ss w", "n": 1}', b'pa\\"ss w'),
        (b' [{"a": {"client_secret" : "xyz"}}]', b"xyz"),
        (b"user=al&password=p%20w&x=1", b"p%20w"),
        (b"access_token=abc", b"abc"),
        (b'--x\r\ncontent-disposition: form-data; name="passwd"\r\n\r\np w\r\n--x--\r\n', b"p w"),
    ],
)
def test_bodies(body: bytes, secret: bytes) -> None:
    redactor = Redactor(KEY)
    assert redactor.body(body, "request body") == body.replace(secret, hidden(secret))
    assert list(redactor.found) == ["request body"]


@pytest.mark.parametrize("body", [b"", b"hello", bytes(range(256)), b'{"name": "al"}', b"a=1&b=2", b'{"token": 5}'])
def test_other_bodies_stay_as_they_are(body: bytes) -> None:
    assert Redactor(KEY).body(body, "request body") == body


def test_a_secret_is_hidden_wherever_it_stands_in_the_call() -> None:
    redactor = Redactor(KEY)
    redactor.header(b"authorization", b"Basic YWxpY2U6cGEkJHdvcmQx")  # alice:pa$$word1
    redactor.args([(b"token", b"12345678"), (b"key", b"short")])
    text = b"YWxpY2U6cGEkJHdvcmQx pa$$word1 12345678 short alice"
    assert redactor.rest(text) == b" ".join([
        hidden(b"YWxpY2U6cGEkJHdvcmQx"), hidden(b"pa$$word1"), hidden(b"12345678"), b"short", b"alice",
    ])  # fmt: skip


@pytest.mark.parametrize("body", [b'{"' * 40_000, b'"a' * 80_000, b"a" * 200_000, b"a.=" * 60_000, b'name="' * 40_000])
def test_no_body_makes_the_search_slow(body: bytes) -> None:
    # linear: a search that is not would take minutes
    Redactor(KEY).body(body, "request body")
    Redactor(KEY).body(b"{" + body, "request body")
    Redactor(KEY).body(b"--" + body, "request body")


class Inner(BaseModel):
    value: SecretStr


class Conf(BaseModel):
    redis: SecretStr | None = None
    keys: dict[str, SecretStr] = {}
    inner: list[Inner] = []
    path: str = ""


def test_fields_that_pydantic_knows_as_secrets_are_found_in_the_schema() -> None:
    assert secret_fields(Conf.model_json_schema()) == {"redis", "keys", "value"}
    assert secret_fields({}) == frozenset()


@pytest.mark.parametrize(
    ("conf", "fields", "found"),
    [
        ({"secret_key": "abc", "jwt_secret": "d", "n": 1}, [], ["secret_key", "jwt_secret"]),
        ({"auth": {"password": "p", "user": "u"}}, [], ["auth.password"]),
        ({"keys": {"k1": "abc", "k2": "def"}}, ["keys"], ["keys.k1", "keys.k2"]),
        ({"api_keys": ["a", "b"]}, [], ["api_keys"]),
        ({"url": "redis://user:pw@10.0.0.5:6379/2"}, [], ["url"]),
        ({"hook": "https://hooks.test/T0/B0/x"}, ["hook"], ["hook"]),
        ({"key": "-----BEGIN PRIVATE KEY-----abc"}, [], ["key"]),
        (
            {
                "token_header": "x-t",
                "password_file": "/f",
                "key": "remote_addr",
                "cookie": "sid",
                "url": "https://a.test/x",
            },
            [],
            [],
        ),
        ({"password": 5, "secret": None}, [], []),
        ([1, "a"], [], []),
    ],
)
def test_configurations(conf: Any, fields: list[str], found: list[str]) -> None:
    redactor = Redactor(KEY)
    text = json.dumps(conf).encode()
    shown = redacted_conf(redactor, text, fields)
    assert list(redactor.found) == found
    assert (shown == text) is (not found)
    assert len(json.dumps(json.loads(shown))) == len(text)


def test_what_is_redacted_in_a_configuration_keeps_its_form() -> None:
    hashed = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA"
    conf = {"users": {"alice": hashed}, "redis": "redis://u:pw@10.0.0.5:6379/2", "hook": "https://h.test/T0/B0"}
    shown = json.loads(redacted_conf(Redactor(KEY), json.dumps(conf).encode(), ["users", "redis", "hook"]))
    assert shown["users"] == {"alice": "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAA$AAAAAA"}
    assert shown["redis"] == f"redis://{hidden(b'u:pw').decode()}@10.0.0.5:6379/2"
    assert shown["hook"] == f"https://h.test/{hidden(b'T0/B0').decode()}"
    assert redacted_conf(Redactor(KEY), b"no json", ["x"]) == b"no json"


def test_the_secrets_of_the_ready_made_plugins_are_hidden() -> None:
    found = {name: secret_fields(plugin.describe()["schema"]) for name, plugin in apps.plugins.items()}
    assert {name: set(fields) for name, fields in found.items() if fields} == {
        "basic-auth": {"users"},
        "hmac-auth": {"keys"},
        "jwt-auth": {"secret"},
        "key-auth": {"keys"},
        "limit-count": {"redis"},
        "limit-req": {"redis"},
        "oidc": {"client_secret", "secrets"},
    }
    redactor = Redactor(KEY)  # a text in its schema, and known by its name
    redacted_conf(redactor, b'{"secret_key": "0123456789abcdef0123456789abcdef", "cookie": "sid"}', found["session"])
    assert list(redactor.found) == ["secret_key"]


names = st.sampled_from([b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"referer", b"host", b"x-token"])
texts = st.lists(
    st.sampled_from([b"Bearer ", b"Basic YWxpY2U6cGEkJHdvcmQx", b"?token=", b"; ", b"=", b"&key=", b'"', b"{", b"--x"])
    | st.sampled_from([b'"password"', b'name="token"\r\n\r\n', b"\r\n", b"redacted-", b"\\", b"secret=12345678", b":"])
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)  # fmt: skip


@given(name=names, value=texts, body=texts)
@example(name=b"referer", value=b"&key=?token=", body=b"")
def test_what_is_redacted_keeps_its_length_and_is_masked_like_what_was_not(
    name: bytes, value: bytes, body: bytes
) -> None:
    redactor = Redactor(KEY)
    header, content = redactor.header(name, value), redactor.body(body, "body")
    assert (len(header), len(content)) == (len(value), len(body))
    assert len(redactor.rest(value + body)) == len(value + body)
    assert Redactor(None).header(name, header) == Redactor(None).header(name, value)
    assert Redactor(None).body(content, "body") == Redactor(None).body(body, "body")
