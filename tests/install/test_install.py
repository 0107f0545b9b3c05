"""The README's commands in fresh environments and fresh clones, as somebody meets them who has nothing yet.

They take minutes and fetch packages: ``make test-install`` runs them.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.wire import (
    HTTPReqCallReq,
    HTTPReqCallResp,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Session,
    Stop,
    TextEntry,
)

ROOT = Path(__file__).parents[2]
SECONDS = 900.0
"""What anything may take on a slow machine."""

pytestmark = [
    pytest.mark.install,
    pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="there is nothing to clone"),
]


def run(*command: str, folder: Path, expect: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "asgi_bridge"
    run("git", "clone", "--quiet", str(ROOT), str(folder), folder=ROOT)
    return folder


@pytest.fixture(scope="module")
def user(clone: Path) -> Path:
    """A user's folder, with an environment into which the README's command has installed this package."""
    folder = clone.parent / "user"
    folder.mkdir()
    (command,) = re.findall(r"^\$ (pip install .*?)(?: +#.*)?$", (clone / "README.md").read_text(), re.MULTILINE)
    assert "path/to/asgi_bridge" in command
    run(sys.executable, "-m", "venv", ".venv", folder=folder)
    run("bash", "-c", f".venv/bin/{command.replace('path/to/asgi_bridge', str(clone))}", folder=folder)
    return folder


TYPED = """
from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.testing import PluginClient
from asgi_bridge_apps import bridge as ready, ready_made
from asgi_bridge_apps.etag import EtagConf
from starlette.types import Receive, Scope, Send

bridge = Bridge()
bridge.include(ready_made())
reveal_type(ready)
reveal_type(EtagConf(weak=True).weak)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    reveal_type(await apisix(scope).var("remote_addr"))
    await upstream(scope, receive, send)


bridge.mount("app", app, phase="request", timeout=2.0, request_headers=["accept"])
reveal_type(bridge)
reveal_type(PluginClient(bridge, "app"))
"""
MISTAKES = """
from asgi_bridge import Bridge, apisix, upstream

bridge = Bridge()
bridge.mount("a", upstream, tiemout=2.0)
bridge.mount("b", upstream, phase="requests")
bridge.mount("c", upstream, timeout="2")
bridge.plugin("d", fase="both")
apisix({}).vra("remote_addr")
from asgi_bridge import Brige
from asgi_bridge_apps import readymade
from asgi_bridge_apps.etag import EtagConf, etags

EtagConf(waek=True)
"""


@pytest.fixture(scope="module")
def developer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose environment has an editable installation, with the options that the README names for types."""
    text = (ROOT / "README.md").read_text()
    assert "`pip install -e`" in text and "`--config-settings editable_mode=strict`" in text
    folder = tmp_path_factory.mktemp("editable")
    run("git", "clone", "--quiet", str(ROOT), "asgi_bridge", folder=folder)
    run(sys.executable, "-m", "venv", ".venv", folder=folder)
    install = (".venv/bin/python", "-m", "pip", "install", "--quiet", "--config-settings", "editable_mode=strict")
    run(*install, "-e", "./asgi_bridge[dev,apps]", folder=folder)
    return folder


@pytest.mark.parametrize("environment", ["user", "developer"])
def test_a_users_own_file_is_type_checked_against_the_installed_package(
    environment: str, request: pytest.FixtureRequest
) -> None:
    user: Path = request.getfixturevalue(environment)
    (checker,) = re.findall(r'"(mypy[^"]*)"', (ROOT / "pyproject.toml").read_text())
    run(".venv/bin/python", "-m", "pip", "install", "--quiet", checker, folder=user)
    (user / "typed.py").write_text(TYPED)
    (user / "mistakes.py").write_text(MISTAKES)

    said = run(".venv/bin/mypy", "--strict", "typed.py", folder=user)
    assert re.findall(r'Revealed type is "(.*)"', said) == [
        "asgi_bridge.bridge.Bridge",
        "bool",
        "bytes | None",
        "asgi_bridge.bridge.Bridge",
        "asgi_bridge.testing.client.PluginClient",
    ]
    said = run(".venv/bin/mypy", "--strict", "mistakes.py", folder=user, expect=1)
    assert re.findall(r"^mistakes.py:(\d+): error: .*\[(.*)\]$", said, re.MULTILINE) == [
        ("5", "call-arg"),
        ("6", "arg-type"),
        ("7", "arg-type"),
        ("8", "call-arg"),
        ("9", "attr-defined"),
        ("10", "attr-defined"),
        ("11", "attr-defined"),
        ("12", "attr-defined"),
        ("14", "call-arg"),
    ]


def test_the_readmes_example_and_its_tests_work_as_installed(user: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (user / "gate").mkdir()
    gate, tests = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (routes,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "routes:" in block)
    for name, content in (("gate.py", gate), ("apisix.yaml", routes), ("test_gate.py", tests)):
        (user / "gate" / name).write_text(content)
    run(".venv/bin/python", "-m", "pip", "install", "--quiet", "pytest", folder=user)
    assert "2 passed" in run("../.venv/bin/python", "-m", "pytest", "-q", "test_gate.py", folder=user / "gate")
    installed = run(".venv/bin/python", "-m", "pip", "list", "--format=freeze", folder=user)
    assert not {"httptools", "uvloop"} & {line.partition("==")[0] for line in installed.splitlines()}


@pytest.fixture
def running(clone: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """``make run`` in the clone, and the gateway's address."""
    process = subprocess.Popen(
        ["make", "run", "PORT=0"], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            found = re.search(r"listens on (http://\S+) ", line)
            if found:
                yield process, found[1]
                break
        else:
            raise AssertionError("".join(said))
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.close()
        process.wait(SECONDS)


def test_make_run_in_a_fresh_clone(running: tuple["subprocess.Popen[str]", str]) -> None:
    process, url = running
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url + "/anything?a=1", timeout=SECONDS) as answer:
                assert answer.status == 200 and b'"target": "/anything?a=1"' in answer.read()
                return
        except urllib.error.URLError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


# without any extra


@pytest.fixture(scope="module")
def plain(clone: Path) -> Path:
    """A user's folder, with an environment that has this package without extras, and one plugin."""
    folder = clone.parent / "plain"
    folder.mkdir()
    run(sys.executable, "-m", "venv", ".venv", folder=folder)
    run(".venv/bin/python", "-m", "pip", "install", "--quiet", str(clone), folder=folder)
    (folder / "gate.py").write_text(
        "from asgi_bridge import Bridge\n"
        "from starlette.responses import PlainTextResponse\n"
        "bridge = Bridge()\n"
        "bridge.mount('hello', PlainTextResponse('hello'))\n"
    )
    return folder


def test_the_commands_work_without_extras(plain: Path) -> None:
    assert "compat" in run(".venv/bin/asgi-bridge", "--help", folder=plain)
    assert run(".venv/bin/asgi-bridge", "plugins", "gate:bridge", folder=plain) == "hello  application  auto\n"
    said = run(".venv/bin/asgi-bridge", "compat", "starlette.middleware.gzip:GZipMiddleware", folder=plain)
    assert 'Mount it with phase="response": it changes the real response.' in said.splitlines()
    listed = "{conf: [{name: hello, value: '{}'}]}"
    (plain / "apisix.yaml").write_text(f"routes: [{{uri: /*, plugins: {{ext-plugin-pre-req: {listed}}}}}]\n#END\n")
    assert run(".venv/bin/asgi-bridge", "check", "gate:bridge", "apisix.yaml", folder=plain) == "0 errors, 0 warnings\n"


def test_the_runner_answers_without_extras(plain: Path) -> None:
    path = plain / "runner.sock"
    command = [".venv/bin/asgi-bridge", "run", "gate:bridge", "--uds", str(path)]
    process = subprocess.Popen(command, cwd=plain, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listens on" in line:
                break
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(path))
            session = Session(Role.GATEWAY)

            def answer_to(message: Message) -> Message:
                connection.sendall(session.send(message))
                while (answer := session.next_message()) is None:
                    session.receive_data(connection.recv(65536))
                return answer

            # with these the runner has nothing to ask
            origin: list[TextEntry] = [
                (b"host", b"gateway.test"),
                (b"x-forwarded-proto", b"http"),
                (b"x-forwarded-host", b"gateway.test"),
                (b"x-forwarded-port", b"80"),
            ]
            prepared = answer_to(PrepareConfReq([(b"hello", b"{}")], b"route#1#ext-plugin-pre-req#1"))
            assert isinstance(prepared, PrepareConfResp)
            answer = answer_to(HTTPReqCallReq(7, b"\x7f\0\0\1", "GET", b"/", [], origin, prepared.conf_token))
        assert isinstance(answer, HTTPReqCallResp) and isinstance(answer.action, Stop)
        assert (answer.id, answer.action.status, answer.action.body) == (7, 200, b"hello")
    finally:
        process.send_signal(signal.SIGINT)
        process.stderr.close()
        assert process.wait(SECONDS) == 0


def test_the_plugin_client_needs_only_what_starlettes_client_needs(plain: Path) -> None:
    code = (
        "from gate import bridge; from asgi_bridge.testing import PluginClient\n"
        "bridge.mount('passing', __import__('asgi_bridge').upstream)\n"
        "with PluginClient(bridge, 'hello') as client: assert client.get('/').text == 'hello'\n"
        "with PluginClient(bridge, 'passing') as client: assert client.get('/a?b=c').json()['target'] == '/a?b=c'\n"
    )
    (extra,) = {*re.findall(r'"(httpx2[^"]*)"', (ROOT / "pyproject.toml").read_text())}
    run(".venv/bin/python", "-m", "pip", "install", "--quiet", extra, folder=plain)
    run(".venv/bin/python", "-c", code, folder=plain)
    installed = run(".venv/bin/python", "-m", "pip", "list", "--format=freeze", folder=plain)
    assert not {"python-dotenv", "watchfiles", "PyJWT"} & {line.partition("==")[0] for line in installed.splitlines()}
