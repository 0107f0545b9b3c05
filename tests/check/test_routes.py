"""What routes ask of plugins, and these cannot give: said when the routes are read."""

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.check import Finding, check_routes
from asgi_bridge.dev.routes import RouteFile
from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import parse_routes, read_routes
from asgi_bridge.loading import Source
from asgi_bridge.testing import Gateway

FILES = Path(__file__).parent.parent / "data" / "routes"


class Nothing:
    def __init__(self, app: ASGIApp, **conf: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def make_bridge() -> Bridge:
    bridge = Bridge()
    bridge.add_middleware("hello", Nothing)
    bridge.add_middleware("asks", Nothing, phase="request")
    bridge.add_middleware("answers", Nothing, phase="response")
    bridge.add_middleware("session", Nothing, phase="both")
    bridge.add_middleware("strict-session", Nothing, phase="both", on_missing="refuse")
    return bridge


def listed(*names: str, **more: Any) -> dict[str, Any]:
    return {"conf": [{"name": name, "value": "{}"} for name in names], **more}


def found(plugins: dict[str, Any], **sections: Any) -> list[tuple[str, str | None, str | None, str]]:
    data = {"routes": [{"id": "r", "uri": "/*", "plugins": plugins}], **sections}
    findings = check_routes(read_routes(data), make_bridge().plugins)
    return [(each.severity, each.route, each.plugin, each.message) for each in findings]


class Conditional(Nothing):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"if-none-match") != b"*":
            await self.app(scope, receive, send)


@pytest.mark.parametrize(
    ("place", "options", "notes"),
    [
        (
            "ext-plugin-post-resp",
            {},
            [
                "plugin etag: in ext-plugin-post-resp it gets only these headers of the request: host, "
                "accept-encoding, authorization, cookie, origin; its code names if-none-match: if it reads that "
                'header there, mount it with request_headers=["host", "accept-encoding", "authorization", "cookie", '
                '"origin", "if-none-match"]'
            ],
        ),
        ("ext-plugin-post-resp", {"request_headers": ["host"]}, []),
        ("ext-plugin-pre-req", {}, []),
    ],
)
def test_a_header_that_a_plugin_of_the_response_phase_names_and_does_not_get(
    place: str, options: Any, notes: list[str]
) -> None:
    bridge = Bridge()
    bridge.add_middleware("etag", Conditional, **options)
    plugins = {place: listed("etag")}
    routes = [{"id": each, "uri": f"/{each}", "plugins": plugins} for each in "ab"]
    findings = check_routes(read_routes({"routes": routes}), bridge.plugins)
    where = "route 'a': ext-plugin-post-resp.conf[0]: "
    assert [(each.severity, each.message) for each in findings] == [("note", where + text) for text in notes]


@pytest.mark.parametrize(
    "plugins",
    [
        {},
        {"ext-plugin-pre-req": listed("hello", "asks"), "ext-plugin-post-resp": listed("hello", "answers")},
        {"ext-plugin-pre-req": listed("session"), "ext-plugin-post-resp": listed("session")},
        {"ext-plugin-post-req": listed("session"), "ext-plugin-post-resp": listed("answers", "session")},
        {"ext-plugin-pre-req": {}, "ext-plugin-post-req": {**listed("nowhere"), "_meta": {"disable": True}}},
    ],
)
def test_what_is_right_is_not_mentioned(plugins: dict[str, Any]) -> None:
    assert found(plugins) == []


@pytest.mark.parametrize(
    ("plugins", "severity", "plugin", "message"),
    [
        (
            {"ext-plugin-pre-req": listed("hello", "sesion")},
            "error", "sesion",
            "route 'r': ext-plugin-pre-req.conf[1]: plugin sesion is not mounted, so requests get 503; mounted are: "
            "answers, asks, hello, session, strict-session; did you mean 'session'?",
        ),
        (
            {"ext-plugin-post-req": listed("zzz", allow_degradation=True)},
            "error", "zzz",
            "route 'r': ext-plugin-post-req.conf[0]: plugin zzz is not mounted, so requests go on without the "
            "plugins of "
            "this list (allow_degradation); mounted are: answers, asks, hello, session, strict-session",
        ),
        (
            {"ext-plugin-post-resp": listed("asks")},
            "error", "asks",
            "route 'r': ext-plugin-post-resp.conf[0]: plugin asks is for the request phase, so requests get 503; "
            "list it "
            "under ext-plugin-pre-req or ext-plugin-post-req",
        ),
        (
            {"ext-plugin-pre-req": listed("answers")},
            "error", "answers",
            "route 'r': ext-plugin-pre-req.conf[0]: plugin answers is for the response phase, so requests get "
            "503; list it "
            "under ext-plugin-post-resp",
        ),
        (
            {"ext-plugin-pre-req": listed("session"), "ext-plugin-post-resp": listed("answers")},
            "warning", "session",
            "route 'r': ext-plugin-pre-req.conf[0]: plugin session has phase=\"both\" and stands in the request "
            "phase only, "
            "so it sees no responses; list it under ext-plugin-post-resp too",
        ),
        (
            {"ext-plugin-post-resp": listed("session")},
            "warning", "session",
            "route 'r': ext-plugin-post-resp.conf[0]: plugin session has phase=\"both\" and stands in "
            "ext-plugin-post-resp "
            "only: it has no request half, so it runs in the form of the response phase, and cannot change what goes "
            "upstream; list it under ext-plugin-pre-req or ext-plugin-post-req too",
        ),
        (
            {"ext-plugin-post-resp": listed("strict-session"), "ext-plugin-pre-req": listed("session")},
            "warning", "strict-session",
            "route 'r': ext-plugin-post-resp.conf[0]: plugin strict-session has phase=\"both\" and stands in "
            "ext-plugin-post-resp only: it has no request half, so each request is refused; list it under "
            "ext-plugin-pre-req or ext-plugin-post-req too",
        ),
    ],
)  # fmt: skip
def test_what_a_route_lists_and_cannot_have(plugins: dict[str, Any], severity: str, plugin: str, message: str) -> None:
    assert (severity, "r", plugin, message) in found(plugins)


def test_lists_come_from_services_and_plugin_configurations_too() -> None:
    text = """\
routes:
  - {id: a, uri: /a, service_id: s, plugin_config_id: p}
  - {id: b, uri: /b, service_id: s}
  - {id: c, uri: /c, service_id: s}
services:
  - id: s
    plugins:
      ext-plugin-pre-req:
        conf:
          - {name: hello, value: "{}"}
          - {name: session, value: "{}"}
plugin_configs:
  - id: p
    plugins:
      ext-plugin-post-resp: {conf: [{name: session, value: "{}"}]}
consumers:
  - username: ada
    plugins:
      key-auth: {key: k}
      ext-plugin-pre-req:
        conf: [{name: session, value: "{}"},
               {name: nowhere, value: "{}"}]
global_rules:
  - id: 1
    plugins:
      ext-plugin-post-req: {conf: [{name: answers, value: "{}"}]}
#END
"""
    findings = check_routes(parse_routes(text), make_bridge().plugins)
    assert [(each.severity, each.route, each.plugin, each.where) for each in findings] == [
        ("error", None, "answers", "apisix.yaml:26"),
        # route a has both halves, one of them from elsewhere
        ("warning", "b", "session", "apisix.yaml:11"),
        ("warning", "c", "session", "apisix.yaml:11"),
        # the other half of the consumer's session is a route's
        ("error", None, "nowhere", "apisix.yaml:22"),
    ]


def test_the_gateway_of_tests_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    routes = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": listed("session"), "ext-plugin-post-resp": listed("x")}}]
    Gateway(make_bridge(), routes)
    assert [(record.levelno, record.name) for record in caplog.records] == [
        (logging.WARNING, "asgi_bridge.testing"),
        (logging.ERROR, "asgi_bridge.testing"),
    ]
    assert "so it sees no responses" in caplog.text and "plugin x is not mounted" in caplog.text


def test_the_gateway_of_tests_refuses_what_it_does_not_have_unless_told_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    routes = {"routes": [{"uri": "/*", "plugins": {"limit-count": {}, "ext-plugin-pre-req": listed("hello")}}]}
    with pytest.raises(ConfigurationError, match="limit-count: the stand-in does not have this plugin of APISIX"):
        Gateway(make_bridge(), routes)
    Gateway(make_bridge(), routes, strict=False)
    assert [record.getMessage() for record in caplog.records] == [
        "routes: route number 1: plugins.limit-count: the stand-in does not have this plugin of APISIX; it "
        "is passed over"
    ]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    monkeypatch.setattr(Source, "load", lambda self: make_bridge().plugins)
    return Source("gate:bridge", app_dir=str(tmp_path))


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir() if path.is_file()))
def test_dev_reads_a_users_own_file_and_prints_what_it_passes_over(
    name: str, source: Source, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.gateway.routes.test_forms import ENVIRONMENT

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    routes = RouteFile(FILES / name, source, 1980).load()
    printed = capsys.readouterr().err.splitlines()
    assert printed == [str(finding) for finding in routes.findings]
    assert [line for line in printed if not line.startswith(f"{FILES / name}:")] == []


def test_dev_says_what_the_plugins_cannot_give(
    tmp_path: Path, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(
        "routes:\n  - id: a\n    uri: /\n    plugins:\n      ext-plugin-pre-req:\n        conf:\n"
        "          - {name: sesion, value: '{}'}\n#END\n"
    )
    RouteFile(file, source, 1980).load()
    assert capsys.readouterr().err.startswith(
        f"{file}:7: route 'a': ext-plugin-pre-req.conf[0]: plugin sesion is not mounted, so requests get 503; "
        f"mounted are: "
    )


def test_a_finding_as_text() -> None:
    assert str(Finding("error", "r", None, "apisix.yaml:3", "route 'r': no")) == "apisix.yaml:3: route 'r': no"
    assert str(Finding("warning", None, None, "", "something")) == "something"
