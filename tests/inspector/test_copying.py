"""A request as a curl command, and as a test."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.dev_runner.body import BODY_LIMIT, Body
from asgi_bridge.inspector.copying import Project, as_curl, as_test
from asgi_bridge.inspector.record import Exchanged, Record, Upstreamed

PLUGINS = "tests.inspector.plugins"
ROUTES = [
    {
        "id": "r", "uri": "/*",
        "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "mark", "value": "{}"}, {"name": "more", "value": "{}"}]}},
        "upstream": {"type": "roundrobin", "nodes": {"127.0.0.1:1980": 1}},
    }
]  # fmt: skip


def record(method: str = "GET", body: bytes = b"", **more: Any) -> Record:
    headers = [(b"Host", b"h"), (b"X-A", b'it\'s "quoted"'), (b"Content-Length", b"9"), (b"X-Empty", b"")]
    return Record(1, Exchanged(method, b"/a%20b?c='d'&e", headers, Body(body), **more))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("POST", b"plain"),
        ("POST", b'it\'s $HOME `x` "y"\n\\'),
        ("PUT", b"@/etc/passwd"),
        ("POST", b"\xff\xfe no text"),
        ("POST", b"with \x00 in it"),
        ("PATCH", bytes(range(1, 256))),
    ],
)
def test_curl_gets_the_body_byte_for_byte(method: str, body: bytes) -> None:
    command = as_curl(record(method, body), "http://127.0.0.1:9080")
    # in place of curl: the arguments, and the content of the file behind an @
    script = (
        'curl() { for each; do case "$each" in @*) cat "${each#@}";; *) printf %s "$each";; esac; echo "|"; done; }\n'
    )
    done = subprocess.run(["bash", "-c", script + command], capture_output=True, timeout=60, check=True)
    arguments = done.stdout.split(b"|\n")
    assert b"--data-binary|\n" + body + b"|\n" in done.stdout
    assert b"http://127.0.0.1:9080/a%20b?c='d'&e" in arguments
    assert (b"-X" in arguments) == (method != "POST")
    headers = [arguments[index + 1] for index, each in enumerate(arguments) if each == b"-H"]
    assert headers == [b"Host: h", b'X-A: it\'s "quoted"', b"X-Empty;", b"accept:", b"user-agent:", b"content-type:"]


def test_a_head_request_and_one_without_a_body() -> None:
    assert as_curl(record("HEAD"), "http://g").startswith("curl -I --path-as-is -g -H 'Host: h'")
    assert "--data-binary" not in as_curl(record("DELETE"), "http://g")


@pytest.mark.parametrize(
    ("project", "lines"),
    [
        (
            Project(f"{PLUGINS}:bridge", folder="/p", is_bridge=True, routes="conf/apisix.yaml"),
            [f"from {PLUGINS} import bridge", "ROUTES = Path(__file__).parent / 'conf/apisix.yaml'"],
        ),
        (
            Project("main:app", routes="/etc/apisix.yaml"),
            ["bridge = load_bridge('main:app', start=Path(__file__).parent)", "ROUTES = Path('/etc/apisix.yaml')"],
        ),
        (
            Project(None, {"more": "x:y"}, ("/data",), routes=ROUTES),
            ["bridge = load_bridge(None, {'more': 'x:y'}, start=Path(__file__).parent, allow=['/data'])"],
        ),
    ],
)
def test_a_test_names_plugins_and_routes_as_dev_got_them(project: Project, lines: list[str]) -> None:
    text = as_test(record(status=200), project)
    compile(text, "test_copied.py", "exec")
    assert [line for line in lines if line not in text.splitlines()] == []


def run(made: Record) -> None:
    """Run the test of a request that the plugins refuse."""
    source = as_test(made, Project(f"{PLUGINS}:bridge", {"more": f"{PLUGINS}:gate"}, routes=ROUTES))
    found: dict[str, Any] = {"__file__": str(Path(__file__))}
    exec(compile(source, "test_copied.py", "exec"), found)
    found["test_post_a_20b"]()


def test_a_test_asserts_status_headers_and_body() -> None:
    made = record("POST", b"\x00'\"", status=401, response_body=Body(b'{"title":"no key"}'))
    right = [(b"Date", b"now"), (b"Content-Type", b"application/problem+json"), (b"x-mark", b"seen")]
    made.client.response_headers = right
    made.upstreams.append(Upstreamed("POST", b"/", [], status=200, response_headers=[(b"Content-Length", b"0")]))
    run(made)
    for name, value in (
        ("status", 403),
        ("response_body", Body(b"{}")),
        ("response_headers", [*right, (b"x-more", b"1")]),
        ("response_headers", [(b"x-mark", b"other")]),
        ("headers", [(b"Host", b"h"), (b"X-Key", b"right")]),
    ):
        before = getattr(made.client, name)
        setattr(made.client, name, value)
        with pytest.raises((AssertionError, KeyError)):
            run(made)
        setattr(made.client, name, before)


def test_what_is_not_kept_whole_gives_no_command_and_no_test() -> None:
    long = Body(b"x" * (BODY_LIMIT + 1))
    cut = record(status=200)
    cut.client.body = long
    said = "the body of the request has 131,073 bytes, and only the first 131,072 are kept"
    with pytest.raises(ValueError) as caught:
        as_curl(cut, "http://g")
    assert str(caught.value) == said
    with pytest.raises(ValueError) as caught:
        as_test(cut, Project())
    assert str(caught.value) == said
    with pytest.raises(ValueError, match="there is no answer that a test could assert"):
        as_test(record(), Project())
    upstream = record(status=200)
    upstream.upstreams.append(Upstreamed("GET", b"/", [], status=200, response_body=long))
    with pytest.raises(ValueError, match="the response of the upstream has 131,073 bytes"):
        as_test(upstream, Project())
    answer = record(status=200, response_body=long)
    assert "    assert len(response.content) == 131073" in as_test(answer, Project()).splitlines()
