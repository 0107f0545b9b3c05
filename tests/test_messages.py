"""What people do wrong, and what they are told: each message says what, where and what to do, in one line.

The table has a row for each mistake: on the command line, in Python, in ``pyproject.toml``, in the configuration of a
plugin, in a route file, and in the folders and files around. What a missing extra says is in ``tests/test_extras.py``,
and what the doctor says of folders and sockets in ``tests/doctor/test_way_in.py``. Messages that a running runner logs are in the manual's
page of trouble (``tests/manual/test_trouble.py``).
"""

import errno
import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from starlette.middleware.cors import CORSMiddleware

from asgi_bridge import Bridge, BridgeError, apisix, upstream
from asgi_bridge.cli import main
from asgi_bridge.testing import Gateway, PluginClient
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

GATE = """
from typing import Any
from pydantic import BaseModel
from asgi_bridge import Bridge, upstream

bridge = Bridge()

async def app(scope, receive, send): ...

class Conf(BaseModel):
    key: str
    status: int = 401

@bridge.plugin("key", phase="request")
def key(conf: Conf) -> Any:
    return upstream

class Middleware:
    def __init__(self, app, limit: int = 3): ...

bridge.add_middleware("limited", Middleware)
number = 3

def wsgi(environ, start_response):
    return []
"""
ROUTES = """routes:
  - id: r
    uri: /*
    plugins:
      ext-plugin-pre-req:
        conf: [{name: key, value: '{"key": "k"}'}]
    upstream: {type: roundrobin, nodes: {"127.0.0.1:1980": 1}}
#END
"""
FILES = {
    "gate.py": GATE,
    "no_bridge.py": "x = 1\n",
    "empty_bridge.py": "from asgi_bridge import Bridge\nbridge = Bridge()\n",
    "good.yaml": ROUTES,
    "log.txt": "not a logging configuration",
    "calls.jsonl": "nonsense\n",
    "folder/x": "",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the files that the mistakes are about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("APISIX_LISTEN_ADDRESS", raising=False)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.env").write_bytes(b"A=\xff\n")
    modules = [name.removesuffix(".py") for name in FILES if name.endswith(".py")]
    for name in modules:
        sys.modules.pop(name, None)
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a command prints to stderr, in lines."""
    monkeypatch.setattr(sys, "argv", ["asgi-bridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err.replace(f"{Path.cwd()}/", "").splitlines()


def told_by_a_process(arguments: list[str]) -> list[str]:
    """Return what a command prints to stderr, in lines, where a process that it starts prints it."""
    command = [sys.executable, "-m", "asgi_bridge", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    return ended.stderr.replace(f"{Path.cwd()}/", "").splitlines()


HELP = "; asgi-bridge {} --help says more"
COMMANDS = {
    # the command itself
    "rnu gate": "asgi-bridge: No such command 'rnu'. Did you mean 'run'?",
    "generate rute gate": "asgi-bridge generate: No such command 'rute'. Did you mean 'route'?",
    # options that are misspelt, lack a value, or have a wrong one
    "run gate --usd x": "asgi-bridge run: No such option '--usd'. Did you mean '--uds'?",
    "plugins gate --jsn": "asgi-bridge plugins: No such option '--jsn'. Did you mean '--json'?",
    "run gate --uds": "asgi-bridge run: Option '--uds' requires an argument" + HELP.format("run"),
    "run gate more": "asgi-bridge run: Got unexpected extra argument (more)" + HELP.format("run"),
    "compat": "asgi-bridge compat: Missing argument 'TARGET'" + HELP.format("compat"),
    "run gate --uds-permissions 999": "asgi-bridge run: Invalid value for '--uds-permissions': '999' is not an octal mode "
    "such as 660" + HELP.format("run"),
    "run gate --limit-concurrency 0": "asgi-bridge run: Invalid value for '--limit-concurrency': 0 is not in the range "
    "x>=1" + HELP.format("run"),
    "run gate --timeout-graceful-shutdown -1": "asgi-bridge run: Invalid value for '--timeout-graceful-shutdown': -1.0 is "
    "not in the range x>=0" + HELP.format("run"),
    "run gate --log-level loud": "asgi-bridge run: Invalid value for '--log-level': 'loud' is not one of 'critical', "
    "'error', 'warning', 'info', 'debug'" + HELP.format("run"),
    "run gate --forwarded-headers yes": "asgi-bridge run: Invalid value for '--forwarded-headers': 'yes' is not one of "
    "'trust', 'ask'" + HELP.format("run"),
    "dev gate --port 99999": "asgi-bridge dev: Invalid value for '--port': 99999 is not in the range 0<=x<=65535"
    + HELP.format("dev"),
    "check gate.py good.yaml --format xml": "asgi-bridge check: Invalid value for '--format': 'xml' is not one of 'text', "
    "'json', 'github'" + HELP.format("check"),
    "completion powershell": "asgi-bridge completion: Invalid value for '{bash|zsh|fish}': 'powershell' is not one of "
    "'bash', 'zsh', 'fish'" + HELP.format("completion"),
    "run gate --mount x": "asgi-bridge run: Invalid value for '--mount': 'x' is not of the form NAME=module:attr"
    + HELP.format("run"),
    "call key --target gate --header x": "asgi-bridge call: Invalid value for '--header': 'x' is not of the form "
    "NAME:VALUE" + HELP.format("call"),
    "run --mount x=gate:app --mount x=gate:app --uds r": "asgi-bridge: --mount x: given twice; each plugin has a name of "
    "its own",
    "run gate --uds r --admin 9092": "asgi-bridge: --admin 9092: it is HOST:PORT or unix:PATH, and HOST is an IP address "
    "or localhost, as in 127.0.0.1:9092",
    "run gate --uds r --admin 0.0.0.0:1": "asgi-bridge: --admin 0.0.0.0:1: other machines reach this address, and nothing "
    "there asks for a password: take 127.0.0.1:1 or a unix socket, or add --admin-public if you want that",
    "doctor --apisix-version three": "asgi-bridge: 'three' is no version of APISIX; write it as 3.18.0",
    "generate route gate --upstream shop:http": "asgi-bridge: --upstream shop:http: an upstream is like shop:8000 or "
    "https://shop:443",
    # something is left out
    "run gate": "asgi-bridge: no socket to listen on: give --uds PATH (APISIX's ext-plugin.path_for_test), or let APISIX "
    "start the runner (ext-plugin.cmd), which sets APISIX_LISTEN_ADDRESS",
    "call": "asgi-bridge call: name a plugin" + HELP.format("call"),
    "doctor": "asgi-bridge: nothing to look at: give --uds PATH or --apisix-config FILE",
    "health": "asgi-bridge health: no socket: give --uds PATH" + HELP.format("health"),
    "check gate.py": "asgi-bridge: no route file: gate.py names plugins; write a route file behind it, or - for standard "
    "input",
    "check apisx.yaml": "asgi-bridge: apisx.yaml: the route file cannot be read: No such file or directory",
    # what is to be run
    "plugins gate:brigde": "asgi-bridge: cannot import 'gate:brigde': 'gate' has no attribute 'brigde'; did you mean "
    "'bridge'?",
    "plugins gat:bridge": "asgi-bridge: cannot import 'gat:bridge': no module named 'gat'; is it installed, and does "
    "--app-dir point to it?",
    "plugins gatee.py": "asgi-bridge: gatee.py: there is no such Python file",
    "plugins gate:": 'asgi-bridge: \'gate:\' is not of the form "module:attr", such as "myapp.main:bridge"',
    "plugins gate:number": "asgi-bridge: gate:number is no Bridge, no function that returns one, and no ASGI application, "
    "but int",
    "plugins gate:key": "asgi-bridge: gate:key is no Bridge, no function that returns one, and no ASGI application, but "
    "function; --mount key=gate:key mounts a factory",
    "plugins no_bridge": "asgi-bridge: no_bridge has no Bridge, and nothing called app or application or api; name what "
    'to run as "no_bridge:attr"',
    "plugins gate --mount key=gate:app": "asgi-bridge: plugin key: the name is mounted already; each plugin has a name of "
    "its own",
    "plugins gate --allow nowhere": "asgi-bridge: option allow.0: an entry is the absolute path of a file or folder, or "
    "SCHEME://HOST[:PORT][/PATH]; a unix socket, or a URL with a password, is given as a default",
    "dev empty_bridge --routes good.yaml": "asgi-bridge: no plugins in the Bridge empty_bridge:bridge; add one with "
    "mount, add_middleware or plugin of a Bridge",
    "call nothing --target gate": "asgi-bridge: plugin nothing is not mounted; mounted are: key, limited",
    "generate route gate --plugin key={}": "asgi-bridge: plugin key: field 'key': Field required; give its configuration: "
    '--plugin \'key={"key": "…"}\'',
    # files, folders, sockets
    "run gate --app-dir nowhere": "asgi-bridge run: Invalid value for '--app-dir': Directory 'nowhere' does not exist"
    + HELP.format("run"),
    "run gate --log-config nowhere": "asgi-bridge run: Invalid value for '--log-config': File 'nowhere' does not exist"
    + HELP.format("run"),
    "run gate --uds r --log-config log.txt": "asgi-bridge: logging cannot be set up with log_config 'log.txt': "
    "RuntimeError: log.txt is invalid: File contains no section headers. file: 'log.txt', line: 1 'not a "
    "logging configuration'",
    "run gate --uds r --env-file latin.env": "asgi-bridge: the environment file latin.env cannot be read: it is not "
    "UTF-8; save it as UTF-8",
    "run gate --uds nowhere/r": "asgi-bridge: the socket's folder nowhere: No such file or directory; create it first",
    "run gate --uds folder": "asgi-bridge: folder exists and is no socket; remove it, or give another path",
    "run gate --uds r --record folder": "asgi-bridge run: Invalid value for '--record': File 'folder' is a directory"
    + HELP.format("run"),
    "run gate --uds r --record nowhere/x": "asgi-bridge: --record nowhere/x: the file cannot be written: No such file or "
    "directory",
    "dev gate --routes nowhere.yaml": "asgi-bridge: no route file nowhere.yaml; --routes names APISIX's standalone "
    "apisix.yaml",
    "check gate.py folder": "asgi-bridge: folder: the route file cannot be read: Is a directory",
    "replay gate nowhere.jsonl": "asgi-bridge: nowhere.jsonl cannot be read: No such file or directory",
    "replay gate calls.jsonl": "asgi-bridge: calls.jsonl is no recording: write one with asgi-bridge run --record",
    "health --uds nowhere.sock": "asgi-bridge: nowhere.sock: cannot connect: no such file or directory; does a runner "
    "listen there?",
    "health --uds gate.py": "asgi-bridge: gate.py: cannot connect: connection refused; does a runner listen there?",
}


SAID_BY_A_WORKER = {
    "run --mount x=gate:app --mount x=gate:app --uds r",
    "run gate --uds r --admin 9092",
    "run gate --uds r --admin 0.0.0.0:1",
    "run gate --uds r --record nowhere/x",
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if command in SAID_BY_A_WORKER:
        assert told_by_a_process(command.split()) == [COMMANDS[command]]
    else:
        # the first releases of Python 3.11 do not name the file of a logging configuration in front
        early = "MissingSectionHeaderError: ", "RuntimeError: log.txt is invalid: "
        assert [line.replace(*early) for line in told(capsys, command.split(), monkeypatch)] == [COMMANDS[command]]


@pytest.mark.parametrize("text", ["def (:\n", "import nowhere_at_all\n", "1 / 0\n"])
def test_an_error_in_a_users_file_has_its_own_lines_first(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "no_bridge.py").write_text(text)
    *lines, message = told(capsys, ["plugins", "no_bridge"], monkeypatch)
    assert message.startswith("asgi-bridge: cannot import 'no_bridge': ")
    assert any('"no_bridge.py", line 1' in line for line in lines) and len(lines) < 6


DENIED = {
    "check gate.py good.yaml": "asgi-bridge: good.yaml: the route file cannot be read: Permission denied",
    "replay gate calls.jsonl": "asgi-bridge: calls.jsonl cannot be read: Permission denied",
    "plugins gate --env-file log.txt": "asgi-bridge: the environment file log.txt cannot be read: Permission denied",
    "health --uds r": "asgi-bridge: r: cannot connect: permission denied; does a runner listen there?",
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", DENIED)
def test_no_permission(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses what the command opens. It is simulated, because root may open everything."""
    names = {"good.yaml", "calls.jsonl", "log.txt"}
    really: dict[str, Callable[..., Any]] = {"open": io.open, "os.open": os.open}

    def refusing(which: str) -> Callable[..., Any]:
        def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path) in names:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return really[which](path, *args, **kwargs)

        return opened

    def connect(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refusing("open"))
    monkeypatch.setattr("io.open", refusing("open"))
    monkeypatch.setattr("os.open", refusing("os.open"))
    monkeypatch.setattr("socket.socket.connect", connect)
    assert told(capsys, command.split(), monkeypatch) == [DENIED[command]]


# -- in Python

flask = Flask("shop")


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def unawaitable(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def with_factory(factory: Any) -> Callable[[Any], object]:
    """Mount a factory, and call its plugin."""

    def mistake(bridge: Any) -> object:
        bridge.plugin("x")(factory)
        with PluginClient(bridge, "x", {}) as client:
            return client.get("/")

    return mistake


def sync_made(conf: dict[str, str]) -> Any:
    return unawaitable


def curried(conf: dict[str, str]) -> Any:
    return lambda app: app


def forgetful(conf: dict[str, str]) -> Any: ...


def twice(bridge: Any) -> None:
    bridge.mount("x", app)
    bridge.mount("x", app)


PYTHON: dict[str, tuple[Callable[[Any], object], str]] = {
    "a WSGI application": (
        lambda bridge: bridge.mount("x", flask),
        "plugin x: this Flask is a WSGI application, not an ASGI application: write from asgi_bridge.wsgi import WSGIApp; "
        'bridge.mount("x", WSGIApp(app))',
    ),
    "no name": (
        lambda bridge: bridge.mount(app),
        "Bridge.mount: missing a required argument: 'app': write bridge.mount(\"app\", app)",
    ),
    "the name behind": (
        lambda bridge: bridge.mount(app, "x"),
        'plugin x: the name comes first: write bridge.mount("x", app)',
    ),
    "an empty name": (
        lambda bridge: bridge.mount("", app),
        "a plugin's name must be a string of 1 to 128 characters (APISIX's schema), not ''",
    ),
    "a name twice": (twice, "plugin x: the name is mounted already; each plugin has a name of its own"),
    "nothing": (
        lambda bridge: bridge.mount("x", None),
        "plugin x: None is not an ASGI application: write async def app(scope, receive, send)",
    ),
    "a middleware as an application": (
        lambda bridge: bridge.mount("x", CORSMiddleware),
        "plugin x: the class CORSMiddleware is a middleware, not an ASGI application: write bridge.add_middleware("
        '"x", CORSMiddleware)',
    ),
    "a text": (
        lambda bridge: bridge.mount("x", "gate:app"),
        "plugin x: 'gate:app' is not an ASGI application: write from gate import app; bridge.mount(\"x\", app)",
    ),
    "a Bridge": (
        lambda bridge: bridge.mount("x", Bridge()),
        "plugin x: this is a Bridge, not an ASGI application: write bridge.include(...)",
    ),
    "no Bridge": (
        lambda bridge: bridge.include(app),
        'Bridge.include: app is no Bridge: write bridge.mount("app", app)',
    ),
    "Starlette's way to add a middleware": (
        lambda bridge: bridge.add_middleware(CORSMiddleware, allow_origins=["*"]),
        "Bridge.add_middleware: missing a required argument: 'middleware': write bridge.add_middleware("
        '"cors", CORSMiddleware, defaults={"allow_origins": ...})',
    ),
    "its arguments as options": (
        lambda bridge: bridge.add_middleware("cors", CORSMiddleware, allow_origins=["*"]),
        "plugin cors: allow_origins is no option of a mount, but a parameter of CORSMiddleware: write "
        'bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_origins": ...})',
    ),
    "a default that is misspelt": (
        lambda bridge: bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_orgins": ["*"]}),
        "plugin cors: CORSMiddleware has no parameter 'allow_orgins'; did you mean 'allow_origins'?",
    ),
    "an application as a middleware": (
        lambda bridge: bridge.add_middleware("x", app),
        'plugin x: the function app is an ASGI application, not a middleware: write bridge.mount("x", app)',
    ),
    "a decorator on an application": (
        lambda bridge: bridge.plugin("x")(app),
        'plugin x: the function app is an ASGI application, not a factory: write bridge.mount("x", app)',
    ),
    "a decorator on a middleware": (
        lambda bridge: bridge.plugin("x")(CORSMiddleware),
        'plugin x: the class CORSMiddleware is a middleware, not a factory: write bridge.add_middleware("x", '
        "CORSMiddleware)",
    ),
    "a factory of an application without async": (
        with_factory(sync_made),
        "plugin x: its factory sync_made returned a function without async, not an ASGI application: write async def "
        "unawaitable(scope, receive, send)",
    ),
    "a factory of a factory": (
        with_factory(curried),
        "plugin x: its factory curried returned a middleware, not an ASGI application: write def curried(app, conf), and "
        "return app(app)",
    ),
    "a factory without a return": (
        with_factory(forgetful),
        "plugin x: its factory returned NoneType, not an application: write return in forgetful, before the application",
    ),
    "an ASGI application in WSGIApp": (
        lambda bridge: WSGIApp(app),  # type: ignore[arg-type]
        'the function app is an ASGI application, not a WSGI application: write bridge.mount("name", app)',
    ),
    "an application in WSGIMiddleware": (
        lambda bridge: WSGIMiddleware(flask),  # type: ignore[arg-type]
        "this Flask is a WSGI application, not a WSGI middleware: write from asgi_bridge.wsgi import WSGIApp; "
        'bridge.mount("name", WSGIApp(app))',
    ),
    "no threads": (lambda bridge: WSGIApp(wsgi, threads=0), "threads is a number of threads, not 0"),
    "upstream outside of a call": (
        lambda bridge: apisix({"type": "http"}),
        "this scope does not belong to the call of a plugin: hand on the one that the plugin got, or a copy with its "
        "extensions",
    ),
    # options of a mount
    "an option that is misspelt": (
        lambda bridge: bridge.mount("x", upstream, tiemout=2.0),
        "plugin x: option tiemout: there is no such option; did you mean 'timeout'?",
    ),
    "an option of nothing": (
        lambda bridge: bridge.mount("x", upstream, zzz=1),
        "plugin x: option zzz: there is no such option; there are phase, exact, request_body, response_body, "
        "request_headers, on_error, on_missing, cures, timeout, allow, allow_patterns, share, root_path, shadow, sample",
    ),
    "a phase": (
        lambda bridge: bridge.mount("x", upstream, phase="requests"),
        "plugin x: option phase: Input should be 'auto', 'request', 'response' or 'both'",
    ),
    "a timeout as text": (
        lambda bridge: bridge.mount("x", upstream, timeout="2"),
        "plugin x: option timeout: Input should be a valid number",
    ),
    "no time": (
        lambda bridge: bridge.mount("x", upstream, timeout=0),
        "plugin x: option timeout: Input should be greater than 0",
    ),
    "on_error": (
        lambda bridge: bridge.mount("x", upstream, on_error="pass"),
        "plugin x: option on_error: Input should be 'closed' or 'open'",
    ),
    "a root_path": (
        lambda bridge: bridge.mount("x", upstream, root_path="api/"),
        'plugin x: option root_path: it looks like "/api": a slash first and none last, and nothing that a URL would '
        "escape",
    ),
    "a text for a list": (
        lambda bridge: bridge.mount("x", upstream, request_headers="accept"),
        "plugin x: option request_headers: it is a list of strings, such as ['accept']",
    ),
    "a name that no header has": (
        lambda bridge: bridge.mount("x", upstream, request_headers=["x y"]),
        "plugin x: option request_headers.0: 'x y' is no name of a header: those have letters, digits and hyphens",
    ),
    "a sample of no shadow": (
        lambda bridge: bridge.mount("x", upstream, sample=0.5),
        "plugin x: option sample: it is the share of requests of a shadow: add shadow=True",
    ),
    "a shadow of both phases": (
        lambda bridge: bridge.mount("x", upstream, shadow=True, phase="both"),
        "plugin x: option shadow: a plugin of phase 'both' waits for the response inside of the request, which a shadow "
        "cannot: mount it with phase='request' or phase='response', or with phase='auto' and list it in both",
    ),
    # in a test
    "a phase of a client": (
        lambda bridge: PluginClient(bridge, "x", phase="pre"),  # type: ignore[arg-type]
        'phase must be "request", "response" or "both", not \'pre\'',
    ),
    "a route file of a test": (
        lambda bridge: Gateway(bridge, "nowhere.yaml"),
        "nowhere.yaml: the route file cannot be read: No such file or directory",
    ),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("mistake", PYTHON)
def test_a_mistake_in_python(mistake: str) -> None:
    make, message = PYTHON[mistake]
    with pytest.raises(BridgeError) as raised:
        make(Bridge())
    assert str(raised.value) == message


# -- in pyproject.toml

X = "[tool.asgi_bridge.plugins.x]"
ONE_OF = f'{X} must have one of app, middleware, factory, wsgi and wsgi_middleware, as "module:attr"'
TABLES = {
    "plugin = {}": "[tool.asgi_bridge] has no key plugin; it has bridge, plugins and allow; did you mean 'plugins'?",
    "bridge = 3": '[tool.asgi_bridge]: bridge must be a string, "module:attr", and allow a list of strings',
    'bridge = "gate:number"': "gate:number is no Bridge and no function that returns one, but int",
    "plugins = 3": "[tool.asgi_bridge.plugins] must be a table of tables, one for each plugin",
    'allow = ["/x/"]': "[tool.asgi_bridge] has allow, which is for the plugins of bridge; write the allow of other "
    "plugins into their tables",
    'plugins.x.phase = "both"': ONE_OF,
    'plugins.x = {app = "gate:app", factory = "gate:key"}': ONE_OF,
    'plugins.x.midleware = "gate:Middleware"': f"{ONE_OF}; did you mean 'middleware'?",
    'plugins.x.app = "gat:app"': f"{X} app: cannot import 'gat:app': no module named 'gat'; is it installed, and does "
    "--app-dir point to it?",
    'plugins.x.app = "gate"': f'{X} app: \'gate\' is not of the form "module:attr", such as "myapp.main:bridge"',
    'plugins.x.app = "gate:wsgi"': "plugin x: gate:wsgi is a WSGI application, not an ASGI application: write wsgi = "
    f'"gate:wsgi" in {X}',
    'plugins.x = {app = "gate:app", timout = 3}': "plugin x: option timout: there is no such option; did you mean "
    "'timeout'?",
    'plugins.x = {app = "gate:app", defaults = {a = 1}}': f"{X} has defaults, which only a middleware or a factory takes",
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("table", TABLES)
def test_a_mistake_in_a_table(table: str) -> None:
    with pytest.raises(BridgeError) as raised:
        Bridge().configure(tomllib.loads(table))
    assert str(raised.value) == TABLES[table]


# -- in the configuration of a plugin

CONFIGURATIONS: dict[str, tuple[str, Any, str]] = {
    "no such plugin": (
        "keey",
        {"key": "a"},
        "plugin keey is not mounted; mounted are: key, limited; did you mean 'key'?",
    ),
    "a field that is misspelt": (
        "key",
        {"kez": "a"},
        "plugin key: field 'key': Field required; field 'kez': Extra inputs are not permitted; did you mean 'key'?",
    ),
    "a type": ("key", {"key": 1}, "plugin key: field 'key': Input should be a valid string"),
    "nothing": ("key", None, "plugin key: field 'key': Field required"),
    "a list": ("key", [1], "plugin key: Input should be an object"),
    "half of a JSON": (
        "key",
        '{"key"',
        "plugin key: the configuration is not JSON: Expecting ':' delimiter: line 1 column 7 (char 6)",
    ),
    "a name twice": (
        "key",
        '{"key": "a", "key": "b"}',
        "plugin key: the configuration is not JSON: an object has the name 'key' twice",
    ),
    "a parameter's type": (
        "limited",
        {"limit": "many"},
        "plugin limited: field 'limit': Input should be a valid integer",
    ),
}


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_a_mistake_in_a_configuration(mistake: str, folder: Path) -> None:
    import gate

    name, conf, message = CONFIGURATIONS[mistake]
    with pytest.raises(BridgeError) as raised, PluginClient(gate.bridge, name, conf):
        pass
    assert str(raised.value) == message


# -- in a route file

DROPS = "; APISIX drops the route, so its requests get 404"
FIRST = "error: route 'r': ext-plugin-pre-req.conf[0]: "
FIELDS = (
    "There are create_time, desc, enable_websocket, host, hosts, id, labels, methods, name, plugin_config_id, plugins, "
    "priority, remote_addr, remote_addrs, service_id, status, timeout, update_time, upstream, upstream_id, uri, uris, vars"
)
UNKNOWN = "APISIX does not know this field; did you mean "
LINES = {
    ("name: key", "name: kez"): f"6: {FIRST}plugin kez is not mounted, so requests get 503; mounted are: key, limited; "
    "did you mean 'key'?",
    (
        '"key": "k"',
        '"key": 3',
    ): f"6: {FIRST}plugin key refuses field 'key', so requests get 503: Input should be a valid string",
    ('\'{"key": "k"}\'', "'{key: k}'"): f"6: {FIRST}plugin key refuses its configuration, so requests get 503: it is "
    "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ('\'{"key": "k"}\'', "{key: k}"): "6: error: route 'r': plugins.ext-plugin-pre-req.conf[0].value: this has to be a "
    f"string that holds JSON, so put the JSON in single quotes{DROPS}",
    (
        "ext-plugin-pre-req",
        "ext-plugin-pre-request",
    ): "5: error: route 'r': plugins.ext-plugin-pre-request: APISIX has no "
    f"plugin of this name; did you mean 'ext-plugin-pre-req'?{DROPS[1:]}",
    (
        "ext-plugin-pre-req",
        "ext-plugin-post-resp",
    ): "6: error: route 'r': ext-plugin-post-resp.conf[0]: plugin key is for "
    "the request phase, so requests get 503; list it under ext-plugin-pre-req or ext-plugin-post-req",
    ("conf: [{", "config: [{"): "6: warning: route 'r': plugins.ext-plugin-pre-req.config: APISIX does not know this "
    "field, and passes it over; did you mean 'conf'?",
    (
        "value:",
        "conf:",
    ): "6: error: route 'r': plugins.ext-plugin-pre-req.conf[0]: APISIX requires value here; give the "
    f"plugin's configuration, '{{}}' where there is none{DROPS}",
    ("name: key, ", ""): f"6: error: route 'r': plugins.ext-plugin-pre-req.conf[0]: APISIX requires name here{DROPS}",
    ("#END\n", ""): " error: the last line has to be #END; APISIX does not read a file without it (it may be half "
    "written)",
    ("uri: /*", "url: /*"): f"3: error: route 'r': url: {UNKNOWN}'uri'? {FIELDS}{DROPS}",
    ("plugins:", "plugin:"): f"4: error: route 'r': plugin: {UNKNOWN}'plugins'? {FIELDS}{DROPS}",
    ("upstream: {", "upstreams: {"): f"7: error: route 'r': upstreams: {UNKNOWN}'upstream'? {FIELDS}{DROPS}",
    ("uri: /*", "uri: '*'"): f"3: error: route 'r': uri: '*' has to begin with a slash, as the path of every request "
    f"does{DROPS}",
    (
        "id: r",
        "id: 'a b'",
    ): "2: error: route 'a b': id: 'a b' (str) is not an id: ids are numbers from 1, or have 1 to 64 "
    f"letters, digits, - _ and .{DROPS}",
    ("  - id: r", "  - id: r\n\tx: 1"): "3: error: this is not YAML: found character '\\t' that cannot start any token",
    (
        "routes:",
        "route:",
    ): " error: there are no routes in this: it is no apisix.yaml, no JSON of the Admin API, no file "
    "of ADC, and no resource of Kubernetes. Its fields are route",
    (ROUTES, ""): " error: the file is empty; one without routes has at least the line #END",
    (
        '"k"',
        '"${{NOWHERE_AT_ALL}}"',
    ): "6: error: the environment variable NOWHERE_AT_ALL is not set; APISIX then does not "
    "read the file. Set it, or give a default: ${{NOWHERE_AT_ALL:=default}}",
}


@pytest.mark.parametrize("change", LINES, ids=lambda change: " → ".join(change)[:60])
def test_a_mistake_in_a_route_file(
    change: tuple[str, str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.yaml").write_text(ROUTES.replace(*change))
    monkeypatch.setattr(sys, "argv", ["asgi-bridge", "check", "--strict", "gate.py", "bad.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    first, *_, _counts = capsys.readouterr().out.splitlines()
    assert (first, ended.value.code) == (f"bad.yaml:{LINES[change]}", 1)


def test_the_table_has_eighty_mistakes_and_more() -> None:
    assert len(COMMANDS) + len(PYTHON) + len(TABLES) + len(CONFIGURATIONS) + len(LINES) >= 120


def test_each_message_is_one_line() -> None:
    everything = [
        *COMMANDS.values(),
        *DENIED.values(),
        *(text for _, text in PYTHON.values()),
        *TABLES.values(),
        *LINES.values(),
    ]
    everything += [text for *_, text in CONFIGURATIONS.values()]
    assert [text for text in everything if "\n" in text or len(text) > 600] == []
