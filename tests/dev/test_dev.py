"""``asgi-bridge dev`` as a person uses it: a process, curl, an editor, Ctrl-C."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from asgi_bridge.dev import invitations
from asgi_bridge.dev.routes import RouteFile
from asgi_bridge.gateway import read_routes
from asgi_bridge.loading import Source

from ..doubles.dev_process import SECONDS, dev

ROOT = Path(__file__).parents[2]
PLAYGROUND = ROOT / "examples/playground/apisix.yaml"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl (apt-get install curl; .ci/run does)")
def test_each_printed_line_does_what_the_text_beside_it_says(tmp_path: Path) -> None:
    with dev(tmp_path, "asgi_bridge_apps:bridge", "--routes", str(PLAYGROUND)) as running:
        running.wait_for("/anything?a=1")
        commands = [line for line in running.text.splitlines() if line.startswith(("curl ", "for "))]
        said = {}
        for command in commands:
            result = subprocess.run(["bash", "-c", command], capture_output=True, timeout=SECONDS, check=True)
            said[command.split("/")[-1] if "/old" not in command else "old"] = result.stdout.decode()
        replies = list(said.values())
        assert len(replies) == len(commands) == 9
        say, cors, old, body, limited, host, secure, typo, echo = replies
        assert say.endswith("hello from the gateway\n")
        assert "access-control-allow-origin: https://shop.test" in cors
        assert '"target": "/new?page=2"' in old and '"x-from",\n   "gateway"' in old
        assert '"body": "new"' in body
        assert sorted(set(limited.split())) == ["200", "503"] and len(limited.split()) == 5
        assert host.startswith("HTTP/1.1 400")
        assert secure.startswith("HTTP/1.1 307") and "location: https://" in secure
        assert typo.startswith("HTTP/1.1 503")
        assert '"method": "POST"' in echo and '"target": "/anything?a=1"' in echo and '"body": "some=body"' in echo
        running.wait_for("plugin corse is not mounted")
        running.wait_for("pre-req   cors  changed the response")
        # the routes name port 1980, and the echo upstream listens somewhere else
        assert "127.0.0.1:1980" in PLAYGROUND.read_text()
        assert httpx2.get(running.url + "/anything?a=1", timeout=SECONDS).json()["target"] == "/anything?a=1"


PLUGIN = """
from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse

bridge = Bridge()
bridge.mount("hello", PlainTextResponse("{text}"))
"""
ROUTES = """
routes:
  - uri: {uri}
    plugins:
      ext-plugin-pre-req:
        conf: [{{name: hello, value: ""}}]
    upstream: {{type: roundrobin, nodes: {{"127.0.0.1:1980": 1}}}}
#END
"""


def test_code_and_routes_are_reloaded(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN.format(text="first"))
    (tmp_path / "apisix.yaml").write_text(ROUTES.format(uri="/a"))
    with dev(tmp_path, "plugin:bridge") as running, httpx2.Client(base_url=running.url, timeout=SECONDS) as client:
        assert client.get("/a").text == "first"

        written = -3.0

        def edited() -> bool:
            """Write the file from time to time: the runner answers before its reloader begins to watch the files."""
            nonlocal written
            if time.monotonic() > written + 3:
                written = time.monotonic()
                (tmp_path / "plugin.py").write_text(PLUGIN.format(text="the second"))
            return client.get("/a").text == "the second"

        running.wait_for(edited)
        running.wait_for("Code reloaded: plugin.py changed")
        running.wait_for("hello  answered 200")

        (tmp_path / "apisix.yaml").write_text(ROUTES.format(uri="/b"))
        running.wait_for("Routes reloaded from apisix.yaml: changed arr_1")
        assert (client.get("/a").status_code, client.get("/b").text) == (404, "the second")

        (tmp_path / "apisix.yaml").write_text("routes: 1\n#END\n")
        running.wait_for("Routes not reloaded, the old ones stay")
        assert client.get("/b").text == "the second"


APPLICATION = """
from starlette.responses import PlainTextResponse
app = PlainTextResponse("the application")
"""


def test_an_application_is_a_target_and_gets_all_paths(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    with dev(tmp_path, "main.py") as running:
        assert httpx2.get(running.url + "/any/path", timeout=SECONDS).text == "the application"


def test_without_a_route_file_each_plugin_has_a_route(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN.format(text="here"))
    (tmp_path / "main.py").write_text(APPLICATION)
    with dev(tmp_path, "plugin:bridge", "--mount", "more=main:app") as running:
        answers = {path: httpx2.get(running.url + path, timeout=SECONDS) for path in ("/hello", "/more", "/x")}
    assert {path: answer.status_code for path, answer in answers.items()} == {"/hello": 200, "/more": 200, "/x": 404}
    assert (answers["/hello"].text, answers["/more"].text) == ("here", "the application")


@pytest.mark.parametrize(
    ("target", "mounts", "uris"),
    [
        ("plugin:bridge", {}, {"hello": "/*"}),
        ("main:app", {}, {"app": "/*"}),
        ("main:app", {"more": "main:app"}, {"app": "/app*", "more": "/more*"}),
    ],
)
def test_the_routes_that_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, mounts: dict[str, str], uris: dict[str, str]
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN.format(text="here"))
    (tmp_path / "main.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("plugin", "main"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = RouteFile(Path("apisix.yaml"), Source(target, mounts=mounts, app_dir=str(tmp_path)), 1980).load()
    assert {route.id: list(route.uris) for route in made.routes} == {name: [uri] for name, uri in uris.items()}


ECHOING = """
from asgi_bridge import Bridge, upstream
bridge = Bridge()
bridge.mount("hello", upstream)
"""


def test_without_the_echo_upstream_requests_go_where_the_routes_say(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(ECHOING)
    with socket.create_server(("127.0.0.1", 0)) as own:
        routes = ROUTES.format(uri="/a").replace("1980", str(own.getsockname()[1]))
        (tmp_path / "apisix.yaml").write_text(routes)
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nown"

        def serve() -> None:
            connection, _ = own.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with dev(tmp_path, "plugin:bridge", "--no-upstream") as running:
            assert httpx2.get(running.url + "/a", timeout=SECONDS).text == "own"
        thread.join(SECONDS)


ALL_OF = """
import contextlib, io, json, sys
from asgi_bridge.cli import main

ends = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["dev", *arguments])
        except SystemExit as exc:
            ends.append([exc.code, out.getvalue(), err.getvalue()])
print(json.dumps(ends))
"""


def refused(tmp_path: Path, *commands: list[str]) -> list[str]:
    """Return what dev prints when it does not start, for each of several command lines, in one process."""
    result = subprocess.run(
        [sys.executable, "-c", ALL_OF, json.dumps(commands)],
        cwd=tmp_path, capture_output=True, timeout=3 * SECONDS, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    ends = json.loads(result.stdout)
    assert [end[:2] for end in ends] == [[2, ""]] * len(commands)
    return [end[2] for end in ends]


def test_what_dev_cannot_start_with_is_said(tmp_path: Path) -> None:
    uds = str(tmp_path / "own.sock")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        playground = ["asgi_bridge_apps:bridge", "--routes", str(PLAYGROUND)]
        ports = [*playground, "--port", "0", "--upstream-port", "0"]
        expected = {
            # a taken upstream port is an error, and what listens there never is the upstream
            (*ports, "--upstream-port", port): (
                f"cannot listen on 127.0.0.1:{port}: Address already in use; give another --upstream-port "
                "(0: any), or --no-upstream if your own upstream listens there"
            ),
            (*playground, "--port", port): (
                f"cannot listen on 127.0.0.1:{port}: Address already in use; give another --port"
            ),
            (*ports, "--host", "nosuchhost.invalid"): (
                "there is no host 'nosuchhost.invalid'; --host must be an address of this machine"
            ),
            (*ports, "--host", "a..b"): "there is no host 'a..b'; --host must be an address of this machine",
            (*ports, "--host", "127.0.0.1.5"): (
                "there is no host '127.0.0.1.5'; --host must be an address of this machine"
            ),
            (*ports, "--host", "192.0.2.1"): (
                "cannot listen on 192.0.2.1:0: Cannot assign requested address; --host must be an address of this "
                "machine"
            ),
            (*ports, "--uds", uds): (
                f"no runner listens on {uds}: start it first, with asgi-bridge run --uds {uds}"
            ),
            ("nowhere:bridge",): (
                "cannot import 'nowhere:bridge': no module named 'nowhere'; is it installed, and does --app-dir point "
                "to it?"
            ),
            ("asgi_bridge_apps:bridge", "--port", "0", "--routes", "none.yaml"): (
                "no route file none.yaml; --routes names APISIX's standalone apisix.yaml"
            ),
        }  # fmt: skip
        told = refused(tmp_path, *map(list, expected))
    assert dict(zip(expected, told, strict=True)) == {
        command: f"asgi-bridge: {text}\n" for command, text in expected.items()
    }


def test_an_error_ends_the_process_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "apisix.yaml").write_text(ROUTES.format(uri="/a"))
    result = subprocess.run(
        [sys.executable, "-m", "asgi_bridge", "dev", "nowhere:bridge"],
        cwd=tmp_path, capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"asgi-bridge: cannot import 'nowhere:bridge': no module named 'nowhere'")


BREAKING = """
import os, sys
from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse

bridge = Bridge()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    seen = os.environ["WORD_OF_TEST"]
    breakpoint()
    await PlainTextResponse(seen)(scope, receive, send)

bridge.mount("hello", app)
"""


class Terminal:
    """A process on a terminal, and what is on the screen."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._controller, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asgi_bridge", *command], cwd=folder, stdin=terminal, stdout=terminal,
            stderr=terminal, start_new_session=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        os.close(terminal)
        self.screen = ""

    def wait_for(self, text: str, start: int = 0) -> None:
        """Read until `text` is on the screen, after the character `start`."""
        while text not in self.screen[start:]:
            readable, _, _ = select.select([self._controller], [], [], SECONDS)
            assert readable, f"no {text!r} in:\n{self.screen}"
            self.screen += os.read(self._controller, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)  # the debugger takes SIGINT for itself
            try:
                self.process.wait(SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self._controller)


@contextmanager
def terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    found = Terminal(folder, *command)
    try:
        yield found
    finally:
        found.stop()


def step_through(of_runner: Terminal, url: str) -> str:
    """Make a request, and step through the debugger that its plugin opens. Returns what the client got."""
    answers: list[str] = []
    request = threading.Thread(target=lambda: answers.append(httpx2.get(url + "/hello", timeout=SECONDS).text))
    request.start()
    of_runner.wait_for("(Pdb) ")
    of_runner.type("seen = seen.upper()\n")
    of_runner.wait_for("(Pdb) ", start=of_runner.screen.index("(Pdb) ") + 6)
    of_runner.type("c\n")
    request.join(SECONDS)
    return answers[0]


def listening(of_gateway: Terminal) -> str:
    of_gateway.wait_for("Try:")
    found = re.search(r"listens on (http://\S+) ", of_gateway.screen)
    assert found is not None
    return found[1]


def test_a_breakpoint_in_a_plugin_opens_the_debugger_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(BREAKING)
    (tmp_path / "my.env").write_text("WORD_OF_TEST=word\n")
    with terminal(
        tmp_path, "dev", "plugin.py", "--port", "0", "--upstream-port", "0", "--env-file", "my.env"
    ) as running:
        assert step_through(running, listening(running)) == "WORD"


def test_a_runner_that_somebody_else_has_started_is_used(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(BREAKING)
    (tmp_path / "my.env").write_text("WORD_OF_TEST=other\n")
    uds = str(tmp_path / "own.sock")
    with terminal(tmp_path, "run", "plugin.py", "--uds", uds, "--env-file", "my.env") as runner:
        runner.wait_for("Application startup complete")
        command = ("dev", "plugin.py", "--port", "0", "--upstream-port", "0", "--uds", uds)
        with terminal(tmp_path, *command) as gateway:
            assert step_through(runner, listening(gateway)) == "OTHER"
        assert runner.process.poll() is None, "dev has ended a runner that it did not start"


def test_a_route_without_a_description_gets_a_curl_line() -> None:
    routes = read_routes(
        {"routes": [{"id": "r", "uri": "/r/*", "upstream": {"type": "roundrobin", "nodes": {"a:1": 1}}}]}
    )
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in invitations(routes, "http://g")]
    assert lines[1:] == ["", "# Route r", "curl -i 'http://g/r/'"]
