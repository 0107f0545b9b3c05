"""The command line: what it reads, what it passes on, and its messages about mistakes."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from asgi_bridge import __version__
from asgi_bridge.cli import main
from asgi_bridge.cli.options import Mount, Permissions
from asgi_bridge.compiled import core_in_use
from asgi_bridge.loading import Source

Command = Callable[..., tuple[int, str, str]]

PLUGINS = """
from typing import Any
from pydantic import BaseModel
from asgi_bridge import Bridge

bridge = Bridge()

async def app(scope, receive, send): ...

class Conf(BaseModel):
    body: str
    status: int = 200

bridge.mount("hello", app)

@bridge.plugin("say")
def say(conf: Conf) -> Any:
    return app

class Middleware:
    def __init__(self, app, limit: int = 3):
        pass

bridge.add_middleware("limited", Middleware)

def make():
    return bridge

number = 3
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in a folder with a module of plugins. Returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"plugins_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(PLUGINS)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asgi-bridge", *(each.replace("MODULE", name) for each in arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, err.replace(name, "MODULE")  # type: ignore[return-value]

    return command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Collect what ``run`` would supervise: what the workers are told, and the options of the supervisor."""
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def supervise(payload: dict[str, Any], **options: Any) -> int:
        calls.append((json.loads(json.dumps(payload)), options))
        return 0

    monkeypatch.setattr("asgi_bridge.supervisor.run.supervise", supervise)
    return calls


@pytest.fixture
def reloading(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Source, dict[str, Any]]]:
    """Collect what ``run --reload`` would serve."""
    calls: list[tuple[Source, dict[str, Any]]] = []
    monkeypatch.setattr("asgi_bridge.server.serve.serve", lambda source, **options: calls.append((source, options)))
    return calls


Served = list[tuple[dict[str, Any], dict[str, Any]]]

DEFAULTS: dict[str, Any] = {
    "uds": None,
    "uds_permissions": 0o666,
    "limit_concurrency": None,
    "limit_configuration_size": 131_072,
    "timeout_graceful_shutdown": 0.3,
    "access_log": False,
    "forwarded_headers": "trust",
    "log_level": None,
    "log_config": None,
    "log_format": "text",
    "env_file": None,
    "record": None,
    "record_size": 104_857_600,
    "record_secrets": False,
    "admin": None,
    "admin_public": False,
    "otel": None,
}
OF_THE_SUPERVISOR = ("uds", "uds_permissions", "timeout_graceful_shutdown", "log_level", "log_format", "env_file")


def test_run_without_options(command: Command, served: Served) -> None:
    assert command("run", "a.b:c") == (0, "", "")
    source = {"target": "a.b:c", "mounts": [], "app_dir": ".", "allow": [], "given": False}
    assert served == [
        (
            {"source": source, "options": DEFAULTS, "limit_max_requests": None, "record_key": ANY},
            {"workers": 1, "configure": None, **{name: DEFAULTS[name] for name in OF_THE_SUPERVISOR}},
        )
    ]


def test_run_with_workers(command: Command, served: Served) -> None:
    assert command("run", "a.b:c", "--workers", "3", "--limit-max-requests", "9", "--mount", "d=e:f") == (0, "", "")
    ((payload, options),) = served
    assert (options["workers"], payload["limit_max_requests"]) == (3, 9)
    assert payload["source"]["mounts"] == [["d", "e:f"]]


def test_run_with_all_options(command: Command, reloading: list[tuple[Source, dict[str, Any]]], tmp_path: Path) -> None:
    for name in ("src", "x", "y"):
        (tmp_path / name).mkdir()
    (tmp_path / "log.json").touch()
    (tmp_path / ".env").touch()
    assert command(
        "run", "--mount", "one=a:b", "--mount", "two=c:d", "--app-dir", "src", "--uds", "/r.sock",
        "--uds-permissions", "660", "--reload", "--reload-dir", "x", "--reload-dir", "y", "--limit-concurrency", "7",
        "--timeout-graceful-shutdown", "1.5", "--access-log", "--forwarded-headers", "ask", "--log-level", "debug",
        "--log-config", "log.json", "--log-format", "json", "--env-file", ".env", "--admin", "[::]:1",
        "--admin-public", "--otel", "--limit-configuration-size", "9",
        "--record", "calls.jsonl", "--record-size", "5", "--record-secrets",
    ) == (0, "", "")  # fmt: skip
    assert reloading == [
        (
            Source(None, {"one": "a:b", "two": "c:d"}, str(tmp_path / "src")),
            {
                "uds": "/r.sock",
                "uds_permissions": 0o660,
                "reload": True,
                "reload_dirs": ["x", "y"],
                "limit_concurrency": 7,
                "limit_configuration_size": 9,
                "timeout_graceful_shutdown": 1.5,
                "access_log": True,
                "forwarded_headers": "ask",
                "log_level": "debug",
                "log_config": "log.json",
                "log_format": "json",
                "env_file": ".env",
                "record": "calls.jsonl",
                "record_size": 5,
                "record_secrets": True,
                "admin": "[::]:1",
                "admin_public": True,
                "otel": True,
            },
        )
    ]


def test_run_is_told_what_routes_may_name(
    command: Command, served: Served, reloading: list[tuple[Source, dict[str, Any]]], tmp_path: Path
) -> None:
    arguments = ("run", "a.b:c", "--allow", "/etc/keys/", "--allow", "https://idp.test/")
    assert command(*arguments) == (0, "", "")
    assert served[0][0]["source"]["allow"] == ["/etc/keys/", "https://idp.test/"]
    assert command(*arguments, "--reload") == (0, "", "")
    assert reloading[0][0] == Source("a.b:c", {}, str(tmp_path), ("/etc/keys/", "https://idp.test/"))


def test_what_routes_could_never_name_is_no_option(command: Command) -> None:
    status, out, err = command("plugins", "asgi_bridge_apps:bridge", "--allow", "/etc/keys/", "--allow", "idp.test")

    assert (status, out) == (2, "")
    assert err.startswith("asgi-bridge: option allow.1: an entry is the absolute path of a file or folder")


def test_options_come_from_the_environment_too(
    command: Command, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGI_BRIDGE_RUN_UDS", "/e.sock")
    monkeypatch.setenv("ASGI_BRIDGE_RUN_UDS_PERMISSIONS", "600")
    command("run", "a:b")
    assert served[0][1]["uds"] == "/e.sock"
    assert served[0][1]["uds_permissions"] == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--uds-permissions", "rw"], "'rw' is not an octal mode such as 660"),
        (["--uds-permissions", "1777"], "'1777' is not an octal mode such as 660"),
        (["--uds-permissions", "-1"], "'-1' is not an octal mode such as 660"),
        (["--mount", "a"], "'a' is not of the form NAME=module:attr"),
        (["--mount", "=a:b"], "'=a:b' is not of the form NAME=module:attr"),
        (["--mount", "a="], "'a=' is not of the form NAME=module:attr"),
        (["--limit-concurrency", "0"], "0 is not in the range x>=1"),
        (["--limit-configuration-size", "0"], "0 is not in the range x>=1"),
        (["--timeout-graceful-shutdown", "-1"], "-1.0 is not in the range x>=0"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--log-config", "missing.json"], "File 'missing.json' does not exist"),
        (["--env-file", "missing.env"], "File 'missing.env' does not exist"),
        (["--env-file", "."], "File '.' is a directory"),
        (["--app-dir", "missing"], "Directory 'missing' does not exist"),
        (["--reload-dir", "missing"], "Directory 'missing' does not exist"),
        (["--workers", "0"], "'0' is neither a number of processes, 1 or more, nor auto"),
        (["--workers", "-1"], "'-1' is neither a number of processes, 1 or more, nor auto"),
        (["--workers", "many"], "'many' is neither a number of processes, 1 or more, nor auto"),
        (["--workers", "2", "--reload"], "--reload works with one process"),
        (["--limit-max-requests", "0"], "0 is not in the range x>=1"),
        (["--processes", "2"], "No such option"),
    ],
)
def test_what_run_refuses(command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command("run", "a:b", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere:bridge"], "cannot import 'nowhere:bridge': no module named 'nowhere'; is it installed, and does "
         "--app-dir point to it?"),
        (["MODULE:nobody"], "cannot import 'MODULE:nobody': 'MODULE' has no attribute 'nobody'"),
        (["MODULE:a:b"], "'MODULE:a:b' is not of the form \"module:attr\", such as \"myapp.main:bridge\""),
        (["MODULE:number"],
         "MODULE:number is no Bridge, no function that returns one, and no ASGI application, but int"),
        (["nothing.py"], "nothing.py: there is no such Python file"),
        (["--mount", "a=MODULE:bridge", "--mount", "a=MODULE:say"], "--mount a: given twice; each plugin has "
         "a name of its own"),
        (["MODULE:bridge", "--mount", "hello=MODULE:app"], "plugin hello: the name is mounted already; "
         "each plugin has a name of its own"),
    ],
)  # fmt: skip
def test_an_operators_mistake_is_one_line(command: Command, arguments: list[str], said: str) -> None:
    assert command("plugins", *arguments) == (2, "", f"asgi-bridge: {said}\n")


BROKEN = {
    "a syntax error": ("def (:\n", "SyntaxError: invalid syntax (broken.py, line 1)", [
        '  File "HERE/broken.py", line 1', "    def (:", "        ^", "SyntaxError: invalid syntax",
    ]),
    "an import that fails": ("import helper\n", "ModuleNotFoundError: No module named 'nowhere'", [
        "Traceback (most recent call last):",
        '  File "HERE/broken.py", line 1, in <module>', "    import helper",
        '  File "HERE/helper.py", line 1, in <module>', "    import nowhere",
        "ModuleNotFoundError: No module named 'nowhere'",
    ]),
    "an error of a library": ("import json\n\njson.loads('')\n", "JSONDecodeError: Expecting value: line 1 column 1 "
     "(char 0)", [
        "Traceback (most recent call last):",
        '  File "HERE/broken.py", line 3, in <module>', "    json.loads('')",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    ]),
    "an error behind an error": ("try:\n    {}[1]\nexcept Exception:\n    raise OSError() from None\n", "OSError: ", [
        "Traceback (most recent call last):",
        '  File "HERE/broken.py", line 4, in <module>', "    raise OSError() from None",
        "OSError",
    ]),
    "an exit": ("import sys\n\nsys.exit(5)\n", "SystemExit: 5", [
        "Traceback (most recent call last):",
        '  File "HERE/broken.py", line 3, in <module>', "    sys.exit(5)",
        "SystemExit: 5",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", ["plugins", "compat", "dev", "run"])
@pytest.mark.parametrize(("text", "said", "lines"), BROKEN.values(), ids=BROKEN)
def test_an_error_of_a_module_shows_the_users_own_lines_only(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str, lines: list[str]
) -> None:
    for module in ("broken", "helper"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "helper.py").write_text("import nowhere\n")
    if name == "run":  # a worker says it, which is a process of its own
        with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
            arguments = [sys.executable, "-m", "asgi_bridge", "run", "broken:bridge", "--uds", f"{folder}/r.sock"]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            code, out, err = done.returncode, done.stdout, done.stderr
            assert os.listdir(folder) in ([], ["r.sock.d"])
    else:
        monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
        code, out, err = command(name, "broken:bridge")
    assert (code, out) == (2, "")
    assert unmarked(err.replace(str(tmp_path), "HERE")).splitlines() == [
        *unmarked("\n".join(lines)).splitlines(),
        f"asgi-bridge: cannot import 'broken:bridge': {said}",
    ]


def unmarked(text: str) -> str:
    """Drop the lines below the code in a traceback, which differ between versions of Python."""
    return re.sub(r"(?m)^ [ ~^]+\n", "", text)


def test_a_factory_of_a_bridge_that_fails_shows_its_lines_only(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("def make():\n    return open('missing')\n")
    code, out, err = command("plugins", "fails:make")
    assert (code, out, unmarked(err)) == (
        2,
        "",
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/fails.py", line 2, in make\n'
        "    return open('missing')\n"
        "FileNotFoundError: [Errno 2] No such file or directory: 'missing'\n"
        "asgi-bridge: fails:make() raised FileNotFoundError: [Errno 2] No such file or directory: 'missing'\n",
    )


def test_a_plugins_factory_that_fails_shows_its_lines_only(command: Command, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("def make(conf: dict):\n    return conf['missing']\n")
    code, out, err = command("compat", "made:make")
    assert (code, out, unmarked(err)) == (
        2,
        "",
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/made.py", line 2, in make\n'
        "    return conf['missing']\n"
        "KeyError: 'missing'\n"
        "asgi-bridge: plugin make: it could not be built: KeyError: 'missing'; give its configuration with --conf\n",
    )


@pytest.mark.parametrize("name", ["MODULE", "MODULE.py", "./MODULE.py:bridge", "MODULE.py:make"])
def test_a_module_or_a_file_may_be_the_target(command: Command, name: str) -> None:
    code, out, err = command("plugins", name)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["hello", "say", "limited"]


@pytest.mark.parametrize("arguments", [["plugins"], ["compat", "--conf", "{}"]])
def test_an_environment_file_is_read_first(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delitem(sys.modules, "wants", raising=False)
    monkeypatch.setenv("TOKEN_OF_TEST", "")
    monkeypatch.delenv("TOKEN_OF_TEST")
    (tmp_path / "wants.py").write_text(
        "import os\nos.environ['TOKEN_OF_TEST']\nasync def app(scope, receive, send): ...\n"
    )
    assert command(*arguments, "wants:app")[0] == 2
    monkeypatch.delitem(sys.modules, "wants", raising=False)
    (tmp_path / "my.env").write_text("TOKEN_OF_TEST=here\n")
    _code, out, err = command(*arguments, "wants:app", "--env-file", "my.env")
    assert ("application" in out, err) == (True, "")


@pytest.mark.parametrize("target", ["MODULE:bridge", "MODULE:make"])
def test_plugins_lists_them(command: Command, target: str) -> None:
    code, out, err = command("plugins", target)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [(row[0], row[1], row[3:]) for row in rows] == [
        ("hello", "application", []),
        ("say", "factory", ["body", "[status]"]),
        ("limited", "middleware", ["[limit]"]),
    ]


def test_plugins_as_json(command: Command) -> None:
    code, out, err = command("plugins", "MODULE:bridge", "--json")
    assert (code, err) == (0, "")
    hello, say, limited = json.loads(out)
    assert (hello["name"], hello["kind"]) == ("hello", "application")
    assert say["schema"]["required"] == ["body"]
    assert limited["schema"]["properties"]["limit"]["type"] == "integer"
    assert set(hello) >= {"name", "kind", "phases", "schema"}


def test_plugins_that_are_mounted_on_the_command_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.asgi_bridge]\n")
    code, out, err = command("plugins", "--mount", "one=MODULE:app", "--mount", "two=MODULE:Middleware")
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [["one", "application"], ["two", "middleware"]]


def test_plugins_of_a_pyproject(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module,) = (path.stem for path in tmp_path.glob("plugins_*.py"))
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.asgi_bridge]\nbridge = "{module}:bridge"\n[tool.asgi_bridge.plugins.more]\nfactory = "{module}:say"\n'
    )
    code, out, err = command("plugins")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["hello", "say", "limited", "more"]


def test_nothing_to_run(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.asgi_bridge]\n")
    code, out, err = command("plugins")
    assert (code, out) == (2, "")
    assert err.startswith("asgi-bridge: no plugins in [tool.asgi_bridge] in ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], ["plugins", "-h"]])
def test_help(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: asgi-bridge")


def test_the_command_is_installed() -> None:
    script = Path(sys.executable).with_name("asgi-bridge")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"asgi-bridge, version {__version__}, core: {core_in_use()}\n"


def test_types_that_are_converted_already() -> None:
    assert Mount().convert(("a", "b:c"), None, None) == ("a", "b:c")
    assert Permissions().convert(0o600, None, None) == 0o600
