"""``asgi-bridge compat``: what it finds out about middleware that is known."""

import sys
from operator import attrgetter
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.cli import cli, main
from asgi_bridge.compat import PROBES, Findings, Subject, advise, examine, load, report

STARLETTE = "starlette.middleware"


def findings_of(found: object, conf: str = "{}") -> Findings:
    bridge = Bridge()
    bridge.add("x", found)
    return examine(Subject("m:x", bridge.plugins["x"], "middleware"), conf)[1]


@pytest.mark.parametrize(
    ("target", "conf", "phase", "found"),
    [
        (
            f"{STARLETTE}.cors:CORSMiddleware", '{"allow_origins": ["*"]}', "both",
            {"answers": {"CORS preflight": 400}, "response.headers": {"access-control-allow-origin", "vary"}},
        ),
        (
            f"{STARLETTE}.gzip:GZipMiddleware", "{}", "response",
            {"response.headers": {"content-encoding", "content-length", "vary"}, "response.body": True},
        ),
        (
            f"{STARLETTE}.sessions:SessionMiddleware", '{"secret_key": "s"}', "both",
            {"wraps_send": True, "response.headers": set()},
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
    _, findings = examine(load(target), conf)
    assert advise(findings)[0] == phase
    assert {name: attrgetter(name)(findings) for name in found} == found
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
    findings = findings_of(Changes)
    assert findings.request == {"method", "path", "query", "body", "header x-new"}
    assert findings.unmappable == {"method", "an empty body"}
    assert (findings.response.status, findings.wraps_receive, findings.wraps_send) == (True, True, True)
    assert advise(findings)[0] == "both"


def test_a_middleware_that_watches_the_body_may_spare_fetching_it() -> None:
    class Counts:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def counted() -> Message:
                return await receive()

            await self.app(scope, counted, send)

    bridge = Bridge()
    bridge.add("counts", Counts)
    subject, findings = examine(Subject("m:Counts", bridge.plugins["counts"], "middleware"), "{}")
    assert "  request_body = false" in list(report(subject, {}, findings)) and advise(findings)[0] == "request"


def test_a_lifespan_of_its_own_is_found() -> None:
    findings = findings_of(Starlette())
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

    bridge = Bridge()
    bridge.add("raises", Raises)
    subject, findings = examine(Subject("m:R", bridge.plugins["raises"], "middleware"), "{}")
    assert findings.errors == {
        "HEAD": "RuntimeError: no response",
        "POST of a form": "ValueError: no posts",
        "POST of JSON": "ValueError: no posts",
        "DELETE": "RuntimeError: no response",
        "CORS preflight": "RuntimeError: no response",
    }
    assert any(line == "  raised on HEAD: RuntimeError: no response" for line in report(subject, {}, findings))


def test_an_async_factory_is_awaited() -> None:
    async def make(app: ASGIApp, conf: dict[str, str]) -> ASGIApp:
        return app

    bridge = Bridge()
    bridge.plugin("made")(make)
    assert examine(Subject("m:make", bridge.plugins["made"], "factory"), "{}")[1] == Findings()


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
        '  request_headers = ["accept-encoding"]',
        "",
        "  # the route",
        "  plugins:",
        "    ext-plugin-post-resp:",
        '      conf: [{"name": "gzip", "value": "{\\"minimum_size\\": 10}"}]',
    ]


def translated(app: ASGIApp) -> ASGIApp:
    """Puts every body into capitals, and looks for headers in its own way."""

    async def capitals(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if "body" in message:
                message["body"] = message["body"].upper()
            else:
                message["headers"] = [*message["headers"], (b"content-encoding", b"capitals")]
            await send(message)

        wanted = [value for name, value in scope["headers"] if name.lower() == b"accept-language"]
        other = any(name != b"save-data" for name, _ in scope["headers"])
        await app(scope, receive, sending if other and not wanted else send)

    return capitals


def listing(app: ASGIApp) -> ASGIApp:
    """The same, but nothing tells which headers it looks at."""
    inner = translated(app)

    async def listed(scope: Scope, receive: Receive, send: Send) -> None:
        dict(scope["headers"])
        await inner(scope, receive, send)

    return listed


def test_the_headers_that_a_plugin_of_the_response_phase_reads() -> None:
    result = CliRunner().invoke(cli, ["compat", f"{__name__}:translated"])
    assert '  request_headers = ["accept-language", "save-data"]' in result.output.splitlines()


def test_a_plugin_that_looks_at_all_headers_is_told_which_it_gets() -> None:
    result = CliRunner().invoke(cli, ["compat", f"{__name__}:listing"])
    assert 'phase="response"' in result.output
    assert "request_headers = " not in result.output
    assert (
        "It looks at all request headers, so the probes cannot tell which it needs. In the response phase it gets only "
        "host, accept-encoding, authorization, cookie, origin: name others with request_headers."
    ) in result.output.splitlines()


def test_a_configuration_that_does_not_check_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["asgi-bridge", "compat", f"{STARLETTE}.sessions:SessionMiddleware"])
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        "asgi-bridge: plugin session: field 'secret_key': Field required; give its configuration with --conf\n"
    )


def test_a_bridge_is_no_middleware() -> None:
    with pytest.raises(ConfigurationError, match="is a Bridge; name one middleware, factory or application"):
        load("asgi_bridge_apps:bridge")


# factories, applications and WSGI


@pytest.mark.parametrize(
    ("target", "conf", "source", "phase", "found"),
    [
        ("asgi_bridge_apps.say:say", "{}", "factory", "request", {}),
        (
            "asgi_bridge_apps.say:say", '{"body": "x"}', "factory", "request",
            {"answers": {probe.name: 200 for probe in PROBES}},
        ),
        ("asgi_bridge_apps.request_id:request_id", "{}", "factory", "request", {"response.headers": {"x-request-id"}}),
        (
            "asgi_bridge_apps.server_timing:server_timing", "{}", "factory", "both",
            {"response.headers": {"server-timing"}},
        ),
        ("werkzeug.middleware.proxy_fix:ProxyFix", "{}", "wsgi_middleware", "request", {}),
        ("paste.gzipper:middleware", "{}", "wsgi_middleware", "response", {"response.body": True}),
        ("tests.wsgi.compat_app:app", "{}", "wsgi", "request", {"answers": {probe.name: 404 for probe in PROBES}}),
    ],
)  # fmt: skip
def test_plugins_of_this_project_and_wsgi(
    target: str, conf: str, source: str, phase: str, found: dict[str, object]
) -> None:
    subject, findings = examine(load(target), conf)
    assert (subject.source, advise(findings)[0]) == (source, phase)
    assert findings.errors == {} and not findings.lifespan
    assert {name: attrgetter(name)(findings) for name in found} == found
    assert f'  {source} = "{target}"' in list(report(subject, {}, findings))


def test_a_configuration_is_any_json_for_an_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"]["apisix"]["conf"] == [1]
        await upstream(scope, receive, send)

    bridge = Bridge()
    bridge.mount("app", app)
    subject, findings = examine(Subject("m:app", bridge.plugins["app"], "app"), "[1]")
    assert findings.errors == {}
    assert list(report(subject, [1], findings))[-1] == '      conf: [{"name": "app", "value": "[1]"}]'


def test_nothing_is_said_of_what_raises_always(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "always.py").write_text("async def app(scope, receive, send):\n    raise ValueError\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    result = CliRunner().invoke(cli, ["compat", "always:app", "--app-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.endswith("\n\nIt raised on every request, so nothing can be said of it.\n")


def test_what_cannot_be_built_is_an_error_in_one_line() -> None:
    def make(app: ASGIApp, conf: dict[str, int]) -> ASGIApp:
        raise ValueError("level is 1 or more")

    bridge = Bridge()
    bridge.plugin("made")(make)
    with pytest.raises(ConfigurationError, match="plugin made: it could not be built: ValueError: level is 1 or more"):
        examine(Subject("m:make", bridge.plugins["made"], "factory"), "{}")


# what the probes cannot show


SUBJECTS = "tests.compat.subjects"


@pytest.mark.parametrize(
    ("name", "conf", "source", "phase", "reason"),
    [
        ("StoreAndReplay", "{}", "middleware", "both", "it keeps responses and answers with them"),
        ("StoreAndReplay", '{"header_name": "X-Unheard-Of"}', "middleware", "both", "it did nothing with any probe"),
        ("Cache", "{}", "middleware", "both", "it keeps responses and answers with them"),
        ("Limiter", "{}", "middleware", "both", "it sets x-ratelimit-remaining to another value each time"),
        ("Limiter", '{"tell": false}', "middleware", "request", "it acts before the upstream"),
        ("Limiter", '{"limit": 100000}', "middleware", "both", "it sets x-ratelimit-remaining to another value"),
        ("Limiter", '{"limit": 100000, "tell": false}', "middleware", "both", "it did nothing with any probe"),
        ("LimiterWithVary", "{}", "middleware", "both", "it acts on the request and changes the real response"),
        ("LimiterWithVary", '{"limit": 100000}', "middleware", "both", "cannot tell whether it also refuses"),
        ("StripsHeadBody", "{}", "middleware", "both", "it sets x-ratelimit-remaining"),
        ("StripsHeadBody", '{"limit": 100000, "tell": false}', "middleware", "both", "cannot tell what for"),
        ("Challenge", "{}", "middleware", "both", "what it does depends on the response: it is different with 401"),
        ("Wrapped", "{}", "middleware", "request", "it acts before the upstream"),
        ("Digest", "{}", "middleware", "both", "it sets x-digest to another value each time"),
        ("Constant", "{}", "middleware", "request", "it adds headers beside the upstream's"),
        ("RaisesWithoutKey", "{}", "middleware", "request", "it acts before the upstream"),
        ("Dispatching", "{}", "middleware", "both", "it may watch the response"),
        ("WSGITiming", "{}", "wsgi_middleware", "both", "it sets x-time to another value each time"),
        ("WSGIWatching", "{}", "wsgi_middleware", "both", "it may watch the response"),
        ("WSGIWatchingBody", "{}", "wsgi_middleware", "both", "it may watch the response"),
        ("WSGIUser", "{}", "wsgi_middleware", "request", "it acts before the upstream, and looked at no response"),
        ("limiter", "{}", "wsgi", "both", "it acts on the request"),
        ("Limiter", '{"limit": 20}', "middleware", "both", "it sets x-ratelimit-remaining to another value each time"),
        ("Limiter", '{"limit": 7}', "middleware", "both", "it sets x-ratelimit-remaining to another value each time"),
        ("HTMLOnly", "{}", "middleware", "both", "it is different with JSON"),
        ("RaisesAtLast", "{}", "middleware", "request", "it acts before the upstream, and looked at no response"),
        ("CachesAfterAWhile", "{}", "middleware", "both", "it keeps responses and answers with them"),
        ("CachesAfterAWhile", '{"limit": 60}', "middleware", "both", "it keeps responses and answers with them"),
        ("RefusesKeys", "{}", "middleware", "both", "it did nothing with any probe"),
        ("wsgi_function", "{}", "wsgi_middleware", "both", "it may watch the response"),
    ],
)
def test_no_phase_is_advised_that_the_probes_do_not_show_to_be_enough(
    name: str, conf: str, source: str, phase: str, reason: str
) -> None:
    subject, findings = examine(load(f"{SUBJECTS}:{name}"), conf)
    advised, why = advise(findings)
    assert (subject.source, advised) == (source, phase)
    assert reason in why


def test_a_limit_is_found_and_told() -> None:
    subject, findings = examine(load(f"{SUBJECTS}:Limiter"), '{"tell": false}')
    assert findings.limit is not None and findings.limit[1] == 429
    assert f"  answers 429 by itself to number {findings.limit[0]} of equal requests" in list(
        report(subject, {}, findings)
    )


def test_a_head_request_changes_no_body() -> None:
    assert not examine(load(f"{SUBJECTS}:StripsHeadBody"), "{}")[1].response.body


@pytest.mark.parametrize("name", ["StoreAndReplay", "Challenge", "WSGIWatching"])
def test_where_the_probes_cannot_tell_the_lines_to_paste_list_both_phases(name: str) -> None:
    subject, findings = examine(load(f"{SUBJECTS}:{name}"), "{}")
    lines = list(report(subject, {}, findings))
    assert '  phase = "both"' in lines
    assert [line for line in lines if line.startswith("    ext-plugin")] == [
        "    ext-plugin-pre-req:",
        "    ext-plugin-post-resp:",
    ]


def test_objects_that_a_middleware_needs_are_given_as_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["asgi-bridge", "compat", f"{SUBJECTS}:NeedsObject"]
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        "asgi-bridge: plugin needs-object: field 'backend': Field required; field 'clock': Field required; field "
        "'text': Field required; give its configuration with --conf, and objects with --default "
        "backend=module:attr --default clock=module:attr\n"
    )

    given = [
        "--default",
        "backend=time:sleep",
        "--default",
        "clock=tests.compat.subjects:limiting",
        "--conf",
        '{"text": "a"}',
    ]
    result = CliRunner().invoke(cli, [*command[1:], *given])
    assert result.exit_code == 0
    assert (
        '  defaults = { backend = "time:sleep", clock = "tests.compat.subjects:limiting" }'
        in result.output.splitlines()
    )

    result = CliRunner().invoke(cli, ["compat", "asgi_bridge_apps.say:say", "--default", "a=time:sleep"])
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == "plugin say: default 'a': Extra inputs are not permitted"


def test_webobs_decorator_is_wsgi() -> None:
    dec = pytest.importorskip("webob.dec", reason="WebOb is not installed")

    @dec.wsgify  # type: ignore[untyped-decorator]
    def app(request: object) -> str:
        return "here"

    class Middleware:
        def __init__(self, application: object) -> None:
            self.application = application

        @dec.wsgify  # type: ignore[untyped-decorator]
        def __call__(self, request: object) -> object:
            return self.application

    bridge = Bridge()
    bridge.add("app", app)
    bridge.add("middleware", Middleware)
    assert [plugin.source for plugin in bridge.plugins.values()] == ["wsgi", "wsgi_middleware"]


@pytest.mark.parametrize("target", ["wsgiref.validate:validator", "paste.lint:middleware", f"{SUBJECTS}:wsgi_any"])
def test_what_takes_any_arguments_is_tried_as_both(target: str) -> None:
    subject, findings = examine(load(target), "{}")
    assert (subject.source, findings.errors) == ("wsgi_middleware", {})
    assert f'  wsgi_middleware = "{target}"' in list(report(subject, {}, findings))


def test_what_raises_as_either_is_reported_as_what_it_was_taken_for() -> None:
    subject, findings = examine(load(f"{SUBJECTS}:raises_as_either"), "{}")
    assert (subject.source, len(findings.errors)) == ("middleware", len(PROBES))


def test_a_probe_that_is_not_answered_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.compat.trial.PROBE_SECONDS", 0.5)
    assert examine(load(f"{SUBJECTS}:HangsOnPost"), "{}")[1].errors == {
        "POST of a form": "no answer within 0.5 s",
        "POST of JSON": "no answer within 0.5 s",
    }
    assert examine(load(f"{SUBJECTS}:TimesOut"), "{}")[1].errors == {
        probe.name: "TimeoutError: its own" for probe in PROBES
    }


def test_a_middleware_of_wsgi_that_makes_something_else() -> None:
    with pytest.raises(ConfigurationError, match="WSGIReturnsNothing made 5, which is not a WSGI application"):
        examine(load(f"{SUBJECTS}:WSGIReturnsNothing"), "{}")
