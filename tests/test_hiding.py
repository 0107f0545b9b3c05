"""What counts as a secret, and where it is taken out."""

import logging
from collections import OrderedDict
from typing import Any, NoReturn

import pytest

from asgi_bridge import logs
from asgi_bridge.hiding import HIDDEN, MAX_SECRETS, Secrets, hidden, looks_secret


@pytest.mark.parametrize(
    "name",
    [
        "password", "passwd", "PASSWORD", "redis_password", "redis-password", "dbPassword", "secret", "client_secret",
        "clientSecret", "token", "access_token", "api_key", "apiKey", "API-KEY", "apikey", "private_key", "signing_key",
        "credentials", "authorization", "auth", "basic_auth", "salt", "password_salt", "passphrase", "pass", "db_pass",
        "bearer", "jwt", "hmac_key", "hmac", "shared-key", "dbpwd", "access_keys",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name, "x")


@pytest.mark.parametrize(
    "name",
    [
        "realm",
        "url",
        "author",
        "token_type",
        "token_header",
        "passthrough",
        "bypass_paths",
        "keyword",
        "status",
        "bypass",
        "secret_name",
        "password_file",
        "tokenUrl",
        "hmac_algorithm",
        "basalt",
        "session_cookie",
    ],
)
def test_names_of_other_fields(name: str) -> None:
    assert not looks_secret(name, "a value that is long enough")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("auth", {"user": "x"}, False),
        ("key", "remote_addr", False),
        ("key", "k" * 16, True),
        ("keys", ["a"], True),
        ("hash_password", True, False),
    ],
)
def test_the_value_decides_where_a_name_does_not(name: str, value: Any, secret: bool) -> None:
    assert looks_secret(name, value) == secret


def test_a_configuration_is_shown_without_its_secrets() -> None:
    conf = {
        "realm": "shop",
        "users": [{"name": "jack", "password": "x"}, {"name": "jill", "password": ""}],
        "secrets": {"a": 1},
        "urls": ["https://h/p", "redis://:pw@h:1/0", "postgres://u:p%40w@h"],
        "count": 5,
    }
    before = repr(conf)
    assert hidden(conf) == {
        "realm": "shop",
        "users": [{"name": "jack", "password": HIDDEN}, {"name": "jill", "password": ""}],
        "secrets": HIDDEN,
        "urls": ["https://h/p", f"redis://:{HIDDEN}@h:1/0", f"postgres://u:{HIDDEN}@h"],
        "count": 5,
    }
    assert repr(conf) == before


def test_what_is_nested_too_deep_is_hidden() -> None:
    conf: Any = "open"
    for _ in range(1000):
        conf = [conf]
    assert HIDDEN in repr(hidden(conf)) and "open" not in repr(hidden(conf))
    Secrets().learn(conf)


@pytest.mark.parametrize(
    ("conf", "text", "left"),
    [
        ({"password": "sesame"}, "sesame and sesame", f"{HIDDEN} and {HIDDEN}"),
        ({"tokens": ["abcd", {"x": "efgh"}]}, "abcd efgh", f"{HIDDEN} {HIDDEN}"),
        ({"url": "redis://u:sesame@h"}, "no answer of redis://u:sesame@h", f"no answer of redis://u:{HIDDEN}@h"),
        ({"password": 'a"b\\c'}, repr({"p": 'a"b\\c'}), "{'p': '" + HIDDEN + "'}"),
        ({"secret": "abcd", "token": "abcdef"}, "abcdef", HIDDEN),
        ({"password": "on"}, "on and on", "on and on"),
        # a short one counts as a whole word
        ({"password": "decide"}, "plugin decide: undecided, decides", f"plugin {HIDDEN}: undecided, decides"),
        ({"password": "orders"}, "GET /orders/orders_2?x=orders", f"GET /{HIDDEN}/orders_2?x={HIDDEN}"),
        ({"password": "hunter2"}, repr("a\nhunter2") + " %22hunter2%22", f"'a\\n{HIDDEN}' %22{HIDDEN}%22"),
        ({"password": "a$b!"}, "xa$b!x a$b!", f"xa$b!x {HIDDEN}"),
        ({"password": "!pa$$!"}, "x!pa$$!x", f"x{HIDDEN}x"),
        # a long one counts wherever it stands
        ({"password": "decide-1"}, "undecide-12", f"un{HIDDEN}2"),
        # where secrets overlap, nothing of either is left
        ({"passwords": ["abcdefgh", "efghijkl"]}, "abcdefghijkl", HIDDEN),
        ({"passwords": ["abcdefgh", "ijklmnop"]}, "abcdefghijklmnop", HIDDEN),
        ({"passwords": ["abcdefgh", "abcdefgh-more"]}, "abcdefgh-more, abcdefgh-mor", f"{HIDDEN}, {HIDDEN}-mor"),
        ({"token": "long" * 1500}, "x" + "long" * 1500 + "x", f"x{HIDDEN}x"),
        ({"token": "long" * 1500}, "long" * 1500 + "long", f"{HIDDEN}"),
        ({"pem": ["-----BEGIN PRIVATE KEY-----\nMIIBVQIBADAN\n"]}, "MIIBVQIBADAN", HIDDEN),
        ({"auth": {"user": "admin", "password": "sesame"}}, "admin: sesame", f"admin: {HIDDEN}"),
        ({"\u00fcbertoken": "gr\u00fc\u00dfe-an"}, "gr\u00fc\u00dfe-an gr\\xfc\\xdfe-an", f"{HIDDEN} gr\\xfc\\xdfe-an"),
        ({"realm": "sesame"}, "sesame", "sesame"),
        (
            {"private_key": "-----BEGIN KEY-----\nMIIBVQ\nIBADANBg\n-----END KEY-----"},
            "MIIBVQ IBADANBg",
            f"{HIDDEN} {HIDDEN}",
        ),
    ],
)
def test_secrets_are_taken_out_of_texts(conf: Any, text: str, left: str) -> None:
    secrets = Secrets()
    secrets.learn(conf)
    assert secrets.taken_out(text) == left


def test_secrets_are_bounded_and_the_oldest_goes_first() -> None:
    secrets = Secrets()
    for number in range(MAX_SECRETS + 1):
        secrets.learn({"password": f"sesame {number:06}"})
    assert secrets.taken_out("sesame 000000, sesame 000001") == f"sesame 000000, {HIDDEN}"


def test_a_secret_that_is_configured_again_is_not_the_oldest_any_more() -> None:
    secrets = Secrets()
    for number in range(MAX_SECRETS):
        secrets.learn({"password": f"sesame {number:06}"})
    secrets.learn({"password": "sesame 000000"})
    secrets.learn({"password": "another one"})
    assert secrets.taken_out("sesame 000000, sesame 000001") == f"{HIDDEN}, sesame 000001"


class Counted(OrderedDict[str, None]):
    """Counts the looks into it, and cannot be walked through."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)

    def __iter__(self) -> NoReturn:
        raise AssertionError("it walks through all secrets")


@pytest.mark.parametrize("secret", ["{:016x}", "sk_live_{:09}", "key-{:06}" + "x" * 50])
def test_many_secrets_make_no_line_slow(secret: str) -> None:
    secrets = Secrets()
    for number in range(MAX_SECRETS):
        secrets.learn({"password": secret.format(number)})
    secrets._texts = counted = Counted(secrets._texts)
    text = "/sk_live_0000 key-0000 0000000000000000 " * 100
    assert secrets.taken_out(text + secret.format(77)).endswith(HIDDEN)
    assert counted.looks <= len(text) + len(secret) + 20


def test_all_that_was_hidden_is_forgotten() -> None:
    secrets = Secrets()
    secrets.learn({"password": "sesame"})
    secrets.forget()
    assert secrets.taken_out("sesame") == "sesame"


def test_fields_that_a_schema_marks_are_hidden_too() -> None:
    secrets = Secrets()
    secrets.learn({"redis": "sesame", "a": [{"redis": {"x": "street"}}]}, {"redis"})
    assert secrets.taken_out("sesame street") == f"{HIDDEN} {HIDDEN}"
    assert hidden({"redis": "sesame", "a": [{"redis": {"x": 1}}], "b": 1}, {"redis"}) == {
        "redis": HIDDEN,
        "a": [{"redis": HIDDEN}],
        "b": 1,
    }


def test_log_lines_and_tracebacks_have_no_secrets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Secrets()
    secrets.learn({"password": "sesame"})
    monkeypatch.setattr(logs, "SECRETS", secrets)
    try:
        raise RuntimeError("sesame is wrong") from ValueError("not sesame")
    except RuntimeError:
        logging.getLogger("asgi_bridge.adapter").exception("plugin %s: %s", "a", "sesame")
    assert caplog.records[0].getMessage() == f"plugin a: {HIDDEN}"
    traceback = caplog.records[0].exc_text or ""
    assert f"RuntimeError: {HIDDEN} is wrong" in traceback and f"ValueError: not {HIDDEN}" in traceback
    # the test's own line of source has the word
    assert [line for line in traceback.splitlines() if "sesame" in line and "raise RuntimeError" not in line] == []
