"""``asgi-bridge compat``: what it finds out about middleware that is known."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.cli import cli, main
from asgi_bridge.compat import PROBES, Findings, advise, examine, load, report
from asgi_bridge.plugins import Plugin

STARLETTE = "starlette.middleware"


def plugin(middleware: object, name: str = "x") -> Plugin:
    bridge = Bridge()
    bridge.add(name, middleware)
    return bridge.plugins[name]


@pytest.mark.parametrize(
    ("target", "conf", "phase", "found"),
    [
        (
            f"{STARLETTE}.cors:CORSMiddleware", '{"allow_origins": ["*"]}', "request",
            {"answers": {"CORS preflight": 400}, "headers": {"access-control-allow-origin", "vary"}},
        ),
        (
            f"{STARLETTE}.gzip:GZipMiddleware", "{}", "response",
            {"headers": {"content-encoding", "content-length", "vary"}, "body": True},
        ),
        (
            f"{STARLETTE}.sessions:SessionMiddleware", '{"secret_key": "s"}', "both",
            {"wraps_send": True, "headers": set()},
        ),
        (
            f"{STARLETTE}.httpsredirect:HTTPSRedirectMiddleware", "{}", "request",
            {"answers": {probe.name: 307 for probe in PROBES}},
        ),
        (
            f"{STARLETTE}.trustedhost:TrustedHostMiddleware", '{"allowed_hosts": ["other.test"]}', "request",
            {"answers": {probe.name: 400 for probe in PROBES}},
        ),
    ],
)  # fmt: skip
def test_what_starlettes_middleware_does(target: str, conf: str, phase: str, found: dict[str, object]) -> None:
    findings = examine(load(target), conf)
    assert advise(findings)[0] == phase
    assert {name: getattr(findings, name) for name in found} == found
    assert findings.errors == {} and findings.request == set()


class Changes:
    """Changes everything that can be changed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def emptied() -> Message:
            return {**await receive(), "body": b""}

        async def teapot(message: Message) -> None:
            await send({**message, "status": 418} if message["type"] == "http.response.start" else message)

        headers = [*scope["headers"], (b"x-new", b"1")]
        changed = {**scope, "method": "PUT", "path": "/p", "query_string": b"q", "headers": headers}
        await self.app(changed, emptied, teapot)


def test_all_changes_of_a_request_are_found() -> None:
    findings = examine(plugin(Changes), "{}")
    assert findings.request == {"method", "path", "query", "body", "header x-new"}
    assert findings.unmappable == {"method", "an empty body"}
    assert (findings.status, findings.wraps_receive, findings.wraps_send) == (True, True, True)
    assert advise(findings)[0] == "both"


def test_a_middleware_that_watches_the_body_may_spare_fetching_it() -> None:
    class Counts:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def counted() -> Message:
                return await receive()

            await self.app(scope, counted, send)

    lines = list(report("counts", "m:Counts", "middleware", {}, examine(plugin(Counts), "{}")))
    assert "  request_body = false" in lines and advise(examine(plugin(Counts), "{}"))[0] == "request"


def test_a_lifespan_of_its_own_is_found() -> None:
    findings = examine(plugin(Starlette()), "{}")
    assert findings.lifespan
    assert set(findings.answers.values()) == {404}


def test_faults_are_named() -> None:
    class Raises:
        def __init__(self, app: ASGIApp) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST":
                raise ValueError("no posts")
            if scope["method"] == "GET":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body"})

    findings = examine(plugin(Raises), "{}")
    assert findings.errors == {
        "HEAD": "RuntimeError: no response",
        "POST of a form": "ValueError: no posts",
        "POST of JSON": "ValueError: no posts",
        "DELETE": "RuntimeError: no response",
        "CORS preflight": "RuntimeError: no response",
    }
    assert any(line == "  raised on HEAD: RuntimeError: no response" for line in report("r", "m:R", "x", {}, findings))


def test_an_async_factory_is_awaited() -> None:
    async def make(app: ASGIApp, conf: dict[str, str]) -> ASGIApp:
        return app

    bridge = Bridge()
    bridge.plugin("made")(make)
    assert examine(bridge.plugins["made"], "{}") == Findings()


def test_the_command_prints_lines_to_paste() -> None:
    result = CliRunner().invoke(cli, ["compat", f"{STARLETTE}.gzip:GZipMiddleware", "--conf", '{"minimum_size": 10}'])
    assert result.output.splitlines() == [
        f"{STARLETTE}.gzip:GZipMiddleware, a middleware, on {len(PROBES)} probe requests:",
        "  response headers: content-encoding, content-length, vary",
        "  changes the body of the response",
        "",
        'Mount it with phase="response": it changes the real response.',
        "",
        "  # [tool.asgi_bridge.plugins.gzip] in pyproject.toml",
        f'  middleware = "{STARLETTE}.gzip:GZipMiddleware"',
        '  phase = "response"',
        "",
        "  # the route",
        "  plugins:",
        "    ext-plugin-post-resp:",
        '      conf: [{"name": "gzip", "value": "{\\"minimum_size\\": 10}"}]',
    ]


def test_a_configuration_that_does_not_check_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["asgi-bridge", "compat", f"{STARLETTE}.sessions:SessionMiddleware"])
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        f"asgi-bridge: {STARLETTE}.sessions:SessionMiddleware: field 'secret_key': Field required; --conf gives its "
        "configuration\n"
    )


def test_a_bridge_is_no_middleware() -> None:
    with pytest.raises(ConfigurationError, match="is a Bridge; name one middleware or application"):
        load("asgi_bridge_apps:bridge")
