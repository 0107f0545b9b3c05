"""All ready-made plugins are mounted and documented, and Starlette's middleware works by configuration alone."""

import json
import subprocess
import sys
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient


def test_all_are_mounted_under_their_names() -> None:
    assert sorted(bridge.plugins) == [
        "basic-auth",
        "cors",
        "etag",
        "fault-injection",
        "forward-auth",
        "gzip",
        "hmac-auth",
        "https-redirect",
        "ip-access",
        "jwt-auth",
        "key-auth",
        "limit-count",
        "limit-req",
        "oidc",
        "otel",
        "request-body-rewrite",
        "request-id",
        "response-rewrite",
        "rewrite",
        "say",
        "server-timing",
        "session",
        "stop",
        "trusted-host",
    ]


@pytest.mark.parametrize("plugin", [name for name, each in bridge.plugins.items() if each.kind == "factory"])
def test_every_field_of_our_factories_is_documented(plugin: str) -> None:
    schema = bridge.plugins[plugin].describe()["schema"]

    assert schema["additionalProperties"] is False
    assert all(field["description"].endswith(".") for field in schema["properties"].values())


def test_every_field_of_forward_auth_is_documented() -> None:
    fields = bridge.plugins["forward-auth"].describe()["schema"]["properties"]

    assert sorted(fields) == ["client_headers", "request_headers", "upstream_headers", "uri"]
    assert all(field["description"].endswith(".") for field in fields.values())


@pytest.mark.parametrize("name", ["bridge", "ready_made"])
@pytest.mark.parametrize("package", ["argon2", "itsdangerous", "re2"])
def test_a_missing_package_is_named_at_the_first_use(package: str, name: str) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
from asgi_bridge import ConfigurationError
try:
    from asgi_bridge_apps import {name}
except ConfigurationError as exc:
    print(exc)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == f'asgi_bridge_apps needs {package}: pip install "asgi_bridge[apps]"\n'


STARLETTE = {"cors", "trusted-host", "https-redirect", "session", "gzip"}
BEFORE_THE_UPSTREAM = [
    "basic-auth", "forward-auth", "hmac-auth", "https-redirect", "ip-access", "jwt-auth", "key-auth", "limit-count",
    "limit-req", "oidc", "request-id", "request-body-rewrite", "rewrite", "trusted-host",
]  # fmt: skip


@pytest.mark.parametrize("plugin", BEFORE_THE_UPSTREAM)
def test_who_may_pass_is_not_decided_after_the_upstream_has_answered(plugin: str) -> None:
    assert bridge.plugins[plugin].phases == ["request"]


def test_the_command_lists_all_with_kind_phase_and_schema() -> None:
    command = [sys.executable, "-m", "asgi_bridge", "plugins", "--json", "asgi_bridge_apps:bridge"]
    listed = {each["name"]: each for each in json.loads(subprocess.check_output(command))}

    assert set(listed) == set(bridge.plugins)
    assert {name for name, each in listed.items() if each["phase"] == "request"} == set(BEFORE_THE_UPSTREAM)
    assert {name for name, each in listed.items() if each["phase"] == "both"} == {"etag", "otel", "server-timing"}
    assert {name for name, each in listed.items() if each["kind"] == "middleware"} == {
        "forward-auth", *STARLETTE
    }  # fmt: skip
    assert all(each["schema"]["type"] == "object" for each in listed.values())
    assert set(listed["cors"]["schema"]["properties"]) == {
        "allow_origins", "allow_methods", "allow_headers", "allow_credentials", "allow_origin_regex",
        "allow_private_network", "expose_headers", "max_age",
    }  # fmt: skip


def test_cors() -> None:
    client = PluginClient(bridge, "cors", {"allow_origins": ["https://a.test"], "max_age": 60})
    preflight = {"origin": "https://a.test", "access-control-request-method": "GET"}

    assert client.options("/", headers=preflight).headers["access-control-max-age"] == "60"
    allowed = client.get("/", headers={"origin": "https://a.test"}).headers
    assert allowed["access-control-allow-origin"] == "https://a.test"
    assert "access-control-allow-origin" not in client.get("/", headers={"origin": "https://b.test"}).headers


def test_trusted_host() -> None:
    client = PluginClient(bridge, "trusted-host", {"allowed_hosts": ["a.test", "*.b.test"]})

    statuses = [client.get("/", headers={"host": host}).status_code for host in ("a.test", "x.b.test", "c.test")]
    assert statuses == [200, 200, 400]


def test_https_redirect() -> None:
    plain = PluginClient(bridge, "https-redirect", base_url="http://a.test", follow_redirects=False)
    secure = PluginClient(bridge, "https-redirect", base_url="https://a.test", follow_redirects=False)

    answer = plain.get("/x?y=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "https://a.test/x?y=1")
    assert secure.get("/x").status_code == 200


SECRET = "sixteen letters!"


def test_session() -> None:
    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            session = Request(scope).session
            session["visits"] = session.get("visits", 0) + 1
            await PlainTextResponse(str(session["visits"]))(scope, receive, send)

    client = PluginClient(bridge, "session", {"secret_key": SECRET}, upstream=upstream)

    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("plugin", "conf", "reason"),
    [
        ("cors", {"allow_origins": "*"}, "field 'allow_origins': "),
        ("cors", {"allow_origin": ["*"]}, "field 'allow_origin': Extra inputs are not permitted"),
        ("cors", {"max_age": "60"}, "field 'max_age': Input should be a valid integer"),
        ("trusted-host", {"allowed_hosts": ["a.test", "a.*"]}, "field 'allowed_hosts.1': .*a host has to be a name, "),
        ("trusted-host", {"allowed_hosts": ["*.*.test"]}, "field 'allowed_hosts.0': .*a host has to be a name, "),
        ("trusted-host", {"allowed_hosts": ["**"]}, "field 'allowed_hosts.0': .*a host has to be a name, "),
        ("trusted-host", {"allowed_hosts": ["*a.test"]}, "field 'allowed_hosts.0': .*a host has to be a name, "),
        ("https-redirect", {"status": 301}, "field 'status': Extra inputs are not permitted"),
        ("session", {}, "field 'secret_key': Field required"),
        ("session", {"secret_key": SECRET, "same_site": "no"}, "field 'same_site': Input should be 'lax'"),
    ],
)
def test_refuses_a_bad_configuration(plugin: str, conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin {plugin}: {reason}"):
        PluginClient(bridge, plugin, conf).get("/")


@pytest.mark.parametrize(
    "cookie", ["session={}", "a=1; session={}", "session=old; session={};b=2", " session={} ", "a=1;\tsession={};"]
)
def test_session_reads_its_own_cookie_and_the_upstream_gets_all(cookie: str) -> None:
    seen: list[tuple[Any, list[str]]] = []

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            seen.append((dict(request.session), request.headers.getlist("cookie")))
            request.session["user"] = "ada"
            await PlainTextResponse("")(scope, receive, send)

    client = PluginClient(bridge, "session", {"secret_key": SECRET}, upstream=upstream)
    value = client.get("/").cookies["session"]
    client.cookies.clear()
    sent = cookie.format(value)
    client.get("/", headers={"cookie": sent, "x-other": "1"})

    assert seen == [({}, []), ({"user": "ada"}, [sent])]
