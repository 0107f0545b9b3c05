"""What ``serve`` does around the server: logs, environment, reload, and the call from Python code."""

import contextlib
import json
import logging
import os
import queue
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.loading import Source
from asgi_bridge.server.output import LOG_CONFIG
from asgi_bridge.server.process import RunnerServer, runner_config
from asgi_bridge.server.runner import conf_expire_of_environment
from asgi_bridge.server.serve import serve
from asgi_bridge.tracebacks import own_lines
from asgi_bridge.wire import ExtraInfoReq, PrepareConfReq, Var

from ..doubles.connection import BAD_REQUEST, Connection, body_of
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from . import HERE

Start = Callable[..., RunnerProcess]

PLUGIN = """
from asgi_bridge import Bridge

bridge = Bridge()

async def say(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})

bridge.mount("say", say)
"""


def say(connection: Connection) -> bytes:
    return body_of(connection.call(connection.token("say")))


# logs


def test_logs_look_like_uvicorns_and_go_to_stderr(start: Start, path: str) -> None:
    runner = start()
    with runner.connect() as connection:
        connection.call(connection.token("raising"))
    runner.stop(signal.SIGINT)
    assert runner.process.stdout is not None
    assert runner.process.stdout.read() == b""
    log = runner.log
    assert f"INFO:     Runner listens on unix socket {path} (Press CTRL+C to quit)\n" in log
    assert "INFO:     Application startup complete.\n" in log
    refused = (
        r"ERROR:    plugin raising: request refused: RuntimeError: as it was told \[GET /, route 1, \d+\.\d ms\]\n"
    )
    assert re.search(refused + r"Traceback", log)
    assert "stop 200" not in log


def test_one_line_for_each_call_when_asked_for(start: Start) -> None:
    runner = start("--access-log", target="sample:bridge")
    with runner.connect() as connection:
        connection.call(connection.token("hello", key="route#7#ext-plugin-pre-req#1"))
        connection.call(connection.token("passing", key="route#8#ext-plugin-pre-req#1"))
        connection.call(connection.token("silent", key="unheard of"))
    runner.logged("silent - route")
    lines = re.findall(r"^INFO: +(.*) - \d+\.\d ms - (.*)$", runner.log, re.M)
    assert lines == [
        ("hello - route 7 - stop 200", "GET / - request ?"),
        ("passing - route 8 - pass", "GET / - request ?"),
        ("silent - route ? - error", "GET / - request ?"),
    ]


def test_a_log_level(start: Start) -> None:
    runner = start("--log-level", "error")
    with runner.connect() as connection:
        connection.prepare(("nobody", {}))
    runner.stop(signal.SIGINT)
    (line,) = runner.log.splitlines()
    assert line.startswith("ERROR:    route 1 refused: plugin nobody is not mounted")


def configuration(path: Path, kind: str) -> None:
    """Write a logging configuration for uvicorn, without our loggers."""
    if kind == "json":
        handler = {"class": "logging.StreamHandler", "formatter": "short"}
        formatter = {"format": "[%(levelname)s %(name)s] %(message)s"}
        config = {"version": 1, "handlers": {"h": handler}, "formatters": {"short": formatter}}
        path.write_text(json.dumps({**config, "root": {"handlers": ["h"], "level": "INFO"}}))
    else:
        path.write_text(
            "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=f\n"
            "[logger_root]\nlevel=INFO\nhandlers=h\n[handler_h]\nclass=StreamHandler\nformatter=f\nargs=()\n"
            "[formatter_f]\nformat=[%(levelname)s %(name)s] %(message)s\n"
        )


@pytest.mark.parametrize("kind", ["json", "ini"])
def test_a_logging_configuration(start: Start, folder: Path, kind: str) -> None:
    config = folder / f"log.{kind}"
    configuration(config, kind)
    runner = start("--log-config", str(config))
    with runner.connect() as connection:
        connection.prepare(("nobody", {}))
    runner.logged("[ERROR asgi_bridge.plugins] route 1 refused: plugin nobody is not mounted")
    assert "[INFO asgi_bridge.server] Runner listens on" in runner.log


# what plugins print and log

TALKING = """
import logging, sys, time
from asgi_bridge import Bridge

%s
log = logging.getLogger("shop.gate")
log.info("imported")
bridge = Bridge()

async def talk(scope, receive, send):
    assert scope["type"] == "http"
    print("printed")
    print("half a line", end="")
    print("complaint", file=sys.stderr)
    logging.info("said by root")
    log.info("said by shop")
    log.debug("too much")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"said"})

async def block(scope, receive, send):
    assert scope["type"] == "http"
    print("unfinished", end="")
    time.sleep(60)

bridge.mount("talk", talk)
bridge.mount("block", block)
"""


def talking(start: Start, folder: Path, *arguments: str, setup: str = "") -> RunnerProcess:
    """Start a runner whose plugin has printed and logged once."""
    (folder / "talking.py").write_text(TALKING % setup)
    runner = start(*arguments, target="talking:bridge", app_dir=str(folder))
    with runner.connect() as connection:
        assert body_of(connection.call(connection.token("talk"))) == b"said"
    return runner


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_what_plugins_print_arrives(start: Start, folder: Path, reload: bool, sig: int) -> None:
    runner = talking(start, folder, *(["--reload"] if reload else []))
    assert runner.process.stdout is not None
    assert runner.process.stdout.readline() == b"printed\n"  # at once, and not at the end of the process
    runner.logged("complaint\n")
    runner.stop(sig)
    assert runner.process.stdout.read() == b"half a line"


def test_what_plugins_print_arrives_although_the_process_is_ended_hard(start: Start, folder: Path) -> None:
    runner = talking(start, folder)
    with runner.connect() as connection:
        connection.begin(connection.token("block"))
        runner.logged("plugin block, route 1, blocks the event loop")
        runner.stop(signal.SIGTERM)
    assert runner.process.returncode == 128 + signal.SIGTERM
    assert runner.process.stdout is not None
    assert runner.process.stdout.read() == b"printed\nhalf a lineunfinished"


@pytest.mark.parametrize("reload", [False, True])
def test_what_plugins_log_is_shown_once_in_our_format(start: Start, folder: Path, reload: bool) -> None:
    runner = talking(start, folder, *(["--reload"] if reload else []))
    runner.stop(signal.SIGINT)
    lines = runner.log.splitlines()
    said = [line for line in lines if re.search(r"imported|said by|too much", line)]
    assert said == ["INFO:     imported", "INFO:     said by root", "INFO:     said by shop"]
    ours = [line for line in lines if "Runner listens" in line or "Application startup complete" in line]
    assert len(ours) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log-level", "warning"], []),
        (
            ["--log-level", "debug"],
            ["INFO:     imported", "INFO:     said by root", "INFO:     said by shop", "DEBUG:    too much"],
        ),
    ],
)
def test_what_plugins_log_has_the_runners_level(
    start: Start, folder: Path, arguments: list[str], said: list[str]
) -> None:
    runner = talking(start, folder, *arguments)
    runner.stop(signal.SIGINT)
    assert [line for line in runner.log.splitlines() if re.search(r"imported|said by|too much", line)] == said


def test_a_plugin_that_sets_up_logging_has_it(start: Start, folder: Path) -> None:
    setup = "logging.basicConfig(format='MINE %(levelname)s %(message)s', level='DEBUG')"
    runner = talking(start, folder, setup=setup)
    runner.stop(signal.SIGINT)
    said = [line for line in runner.log.splitlines() if re.search(r"imported|said by|too much", line)]
    assert said == ["MINE INFO imported", "MINE INFO said by root", "MINE INFO said by shop", "MINE DEBUG too much"]
    assert "INFO:     Application startup complete.\n" in runner.log
    assert "MINE INFO Application startup complete" not in runner.log


@pytest.mark.parametrize("kind", ["json", "ini"])
def test_a_logging_configuration_says_what_plugins_log(start: Start, folder: Path, kind: str) -> None:
    configuration(folder / f"log.{kind}", kind)
    runner = talking(start, folder, "--log-config", str(folder / f"log.{kind}"))
    runner.stop(signal.SIGINT)
    said = [line for line in runner.log.splitlines() if re.search(r"imported|said by|too much", line)]
    assert said == ["[INFO shop.gate] imported", "[INFO root] said by root", "[INFO shop.gate] said by shop"]


@pytest.mark.parametrize("config", ["", "json", "ini"])
def test_nobody_forges_a_line(start: Start, folder: Path, config: str) -> None:
    arguments = []
    if config:
        configuration(folder / f"log.{config}", config)
        arguments = ["--log-config", str(folder / f"log.{config}")]
    (folder / "raising.py").write_text(
        "from asgi_bridge import Bridge\n\nbridge = Bridge()\n\n"
        "async def app(scope, receive, send):\n"
        "    raise ValueError(scope['path'])\n\nbridge.mount('raising', app)\n"
    )
    runner = start(*arguments, target="raising:bridge", app_dir=str(folder))
    forged = "x\r\n[ERROR asgi_bridge.server] forged\nERROR:    forged\x1b[2J"
    with runner.connect() as connection:
        connection.prepare((forged, {}))
        connection.prepare(("raising", {}), key=f"route#{forged}#ext-plugin-pre-req#1")
        connection.prepare((forged, {}), key=f"route#{forged}#ext-plugin-pre-req#1")
        connection.call(connection.token("raising"), path=forged.encode())
    runner.stop(signal.SIGINT)
    assert "forged" in runner.log and "\x1b" not in runner.log
    assert not re.search(r"^(ERROR: +|\[ERROR asgi_bridge\.server\] )forged", runner.log, re.M)


def test_a_flood_of_broken_frames_is_counted(start: Start) -> None:
    runner = start()
    with runner.connect() as connection:
        for _ in range(500):
            connection.sock.sendall(b"\x01\0\0\x04\xff\xff\xff\xff")
            connection.session.send(PrepareConfReq())
            assert connection.receive() == BAD_REQUEST
    for _ in range(500):
        with runner.connect() as connection:
            connection.sock.sendall(b"\x09\0\0\0")
            assert connection.receive() is None
    for _ in range(500):
        with runner.connect() as connection:
            connection.sock.sendall(b"\x01\0")
            connection.sock.shutdown(socket.SHUT_WR)
            assert connection.receive() is None
    runner.stop(signal.SIGINT)
    lines = [line for line in runner.log.splitlines() if "connection: " in line]
    counts = [int(count) for count in re.findall(r"and (\d+) more like it in [\d.]+ s: connection: ", runner.log)]
    assert len(lines) - len(counts) + sum(counts) == 1500
    assert len(lines) < 300


@pytest.mark.parametrize(
    "options",
    [{"log_config": "{FOLDER}/broken.json"}, {"log_config": "{FOLDER}/broken.ini"}, {"log_level": "chatty"}],
)
def test_logging_that_cannot_be_set_up(options: dict[str, Any], folder: Path, path: str) -> None:
    (folder / "broken.json").write_text("{")
    (folder / "broken.ini").write_text("loggers")
    options = {name: value.replace("{FOLDER}", str(folder)) for name, value in options.items()}
    with pytest.raises(ConfigurationError, match="logging cannot be set up with log_(level|config) '") as found:
        serve({}, uds=path, **options)
    assert len(str(found.value).splitlines()) == 1
    assert own_lines(found.value) == ""


def test_a_fault_of_our_own_stays_visible(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(uvicorn, "Config", fail)
    with pytest.raises(ValueError, match="a fault"):
        serve({}, uds=path)


def test_our_loggers_stand_beside_uvicorns() -> None:
    assert LOG_CONFIG["loggers"]["asgi_bridge"] == {"handlers": ["default"], "level": "INFO", "propagate": False}
    assert LOG_CONFIG["handlers"]["default"]["stream"] == "ext://sys.stderr"


# the environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("APISIX_LISTEN_ADDRESS", raising=False)
    monkeypatch.delenv("APISIX_CONF_EXPIRE_TIME", raising=False)
    return monkeypatch


@pytest.mark.parametrize(("text", "seconds"), [(None, 3600.0), ("60", 60.0), ("0.5", 0.5)])
def test_how_long_the_gateway_keeps_tokens(environment: pytest.MonkeyPatch, text: str | None, seconds: float) -> None:
    if text is not None:
        environment.setenv("APISIX_CONF_EXPIRE_TIME", text)
    assert conf_expire_of_environment() == seconds


@pytest.mark.parametrize("text", ["", "an hour", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none(environment: pytest.MonkeyPatch, text: str, path: str) -> None:
    environment.setenv("APISIX_CONF_EXPIRE_TIME", text)
    with pytest.raises(
        ConfigurationError, match=f"APISIX_CONF_EXPIRE_TIME is '{text}'; it must be a positive number of seconds"
    ):
        serve({}, uds=path)
    assert not os.path.exists(path)


def test_an_environment_file(start: Start, folder: Path, path: str) -> None:
    (folder / "my.env").write_text(f"APISIX_LISTEN_ADDRESS=unix:{path}\nAPISIX_CONF_EXPIRE_TIME=17\n")
    runner = start("--env-file", str(folder / "my.env"), path=None)
    Connection(path, patient=True).close()
    runner.stop()


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), (b"A=\xff", "it is not UTF-8")])
def test_an_environment_file_that_cannot_be_read(folder: Path, path: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (folder / "my.env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"my.env cannot be read: .*{reason}"):
        serve({}, uds=path, env_file=str(folder / "my.env"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"forwarded_headers": "aks"}, 'forwarded_headers must be "trust" or "ask", not \'aks\''),
        ({"limit_concurrency": 0}, "limit_concurrency must be a number of calls, 1 or more, not 0"),
        ({"limit_configuration_size": 0}, "limit_configuration_size must be a number of bytes, 1 or more, not 0"),
        ({"limit_configuration_size": "1"}, "limit_configuration_size must be a number of bytes, 1 or more, not '1'"),
        ({"uds_permissions": "660"}, "uds_permissions must be a mode such as 0o660, not '660'"),
        ({"timeout_graceful_shutdown": -1.0}, "timeout_graceful_shutdown must be a number of seconds, not -1.0"),
    ],
)
def test_options_that_cannot_work(path: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Bridge().run(uds=path, **options)
    assert str(caught.value) == reason
    assert not os.path.exists(path)


def test_an_environment_file_without_python_dotenv(monkeypatch: pytest.MonkeyPatch, folder: Path, path: str) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(ConfigurationError, match="needs python-dotenv: pip install .asgi_bridge.dev."):
        serve({}, uds=path, env_file=str(folder / "my.env"))


@pytest.mark.parametrize("option", ["trust", "ask"])
def test_scheme_and_server_are_trusted_or_asked_for(start: Start, option: str) -> None:
    runner = start("--forwarded-headers", option)
    with runner.connect() as connection:
        connection.begin(connection.token("hello"))
        first = connection.receive()
    asked = ExtraInfoReq(Var(b"scheme"))
    assert (first == asked) is (option == "ask")
    runner.stop()


# reload


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_reload(start: Start, folder: Path, path: str, sig: int) -> None:
    code = folder / "app"
    code.mkdir()
    plugin = code / "plugin.py"
    plugin.write_text(PLUGIN % "one")
    runner = start("--reload", "--log-level", "info", target="plugin:bridge", app_dir=str(code))
    with runner.connect() as connection:
        assert say(connection) == b"one"
    inode = os.stat(path).st_ino
    if sig == signal.SIGINT:
        edit_until(plugin, "import nowhere\n", lambda: "Reloading..." in runner.log)
        runner.logged("No module named 'nowhere'")
        runner.logged("Calls are refused until the next change")
        with runner.connect() as connection:  # APISIX learns it at once, and not after a minute in the backlog
            assert connection.receive() is None
        plugin.write_text("bridge = None\n")
        runner.logged("ERROR:    plugin:bridge is no Bridge")

    def changed() -> bool:
        with runner.connect() as connection:
            return say_if_there(connection) == b"two"

    edit_until(plugin, PLUGIN % "two", changed)
    assert os.stat(path).st_ino == inode
    with runner.connect() as connection:
        # Ctrl-C reaches all processes of the terminal
        os.killpg(runner.pid, sig) if sig == signal.SIGINT else os.kill(runner.pid, sig)
        assert runner.wait() == 0
        assert connection.receive() is None
    until(lambda: not runner.left())  # multiprocessing's resource tracker ends last
    assert sorted(os.listdir(folder)) == ["app", "r.sock.d"]


def test_it_says_that_it_listens_once_it_does(start: Start, folder: Path, path: str) -> None:
    (folder / "slow.py").write_text(PLUGIN % "one" + "\nimport sys, time\nprint('importing', file=sys.stderr)\n")
    runner = start(target="slow:bridge", app_dir=str(folder))
    runner.logged("Runner listens on")
    lines = [line.removeprefix("INFO:     ") for line in runner.log.splitlines()]
    assert [line for line in lines if line.startswith(("importing", "Application startup complete", "Runner"))] == [
        "importing",
        "Application startup complete.",
        f"Runner listens on unix socket {path} (Press CTRL+C to quit)",
    ]


def test_reload_of_another_folder(start: Start, folder: Path, path: str) -> None:
    code, other = folder / "app", folder / "other"
    code.mkdir()
    other.mkdir()
    (other / "part.py").write_text("TEXT = b'one'\n")
    (code / "plugin.py").write_text(
        f"import sys\nsys.path.insert(0, {str(other)!r})\nfrom part import TEXT\n" + PLUGIN.replace('b"%s"', "TEXT")
    )
    runner = start("--reload", "--reload-dir", str(other), target="plugin:bridge", app_dir=str(code))
    with runner.connect() as connection:
        assert say(connection) == b"one"

    def changed() -> bool:
        with runner.connect() as connection:
            return say_if_there(connection) == b"two"

    edit_until(other / "part.py", "TEXT = b'two'\n", changed)
    runner.stop()


def edit_until(file: Path, text: str, condition: Callable[[], bool]) -> None:
    """Write `text` until the reloader notices: a runner answers before its reloader begins to watch the files."""
    for _ in range(20):
        file.write_text(text)
        with contextlib.suppress(AssertionError):
            until(condition, 3)
            return
    raise AssertionError("nobody noticed the change")


def say_if_there(connection: Connection) -> bytes:
    """Return the text; empty if the process has just ended."""
    try:
        return say(connection)
    except (AssertionError, OSError):
        return b""


def test_reload_needs_a_name(path: str) -> None:
    with pytest.raises(ConfigurationError, match='needs their "module:attr"'):
        Bridge().run(uds=path, reload=True)
    assert not os.path.exists(path)


# called from Python code


def test_as_a_library(start: Start, folder: Path, path: str) -> None:
    script = folder / "main.py"
    script.write_text(
        "import asyncio, sys, time\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from sample import bridge\n"
        f"bridge.run(uds={path!r}, uds_permissions=0o600, log_level='warning', access_log=True)\n"
        "time.sleep(1.5)\n"
        "print('afterwards')\n"
    )
    runner = start(command=[sys.executable, str(script)])
    with runner.connect() as connection:
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    runner.stop(signal.SIGINT)
    # the watchdog does not end what runs after the server
    assert runner.process.returncode == 0
    assert runner.process.stdout is not None
    assert runner.process.stdout.read() == b"afterwards\n"
    assert runner.log == ""


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_grace_that_is_no_time(seconds: float, path: str) -> None:
    with pytest.raises(ConfigurationError, match="timeout_graceful_shutdown must be a number of seconds"):
        Bridge().run(uds=path, timeout_graceful_shutdown=seconds)


# loading


@pytest.mark.parametrize("error", ["TypeError", "ValueError"])
def test_an_error_inside_a_module_shows_its_traceback(start: Start, folder: Path, path: str, error: str) -> None:
    (folder / "broken.py").write_text(f"def f():\n    raise {error}('in the module')\n\nf()\n")
    runner = start(target="broken:bridge", app_dir=str(folder))
    assert runner.wait() == 2
    where = f'  File "{folder}/broken.py", line'
    lines = runner.log.partition("Traceback")[2].splitlines()
    # Python 3.13 marks the place in each line of code
    assert [line for line in lines if line.strip(" ~^")] == [
        " (most recent call last):",
        f"{where} 4, in <module>",
        "    f()",
        f"{where} 2, in f",
        f"    raise {error}('in the module')",
        f"{error}: in the module",
        f"asgi-bridge: cannot import 'broken:bridge': {error}: in the module",
    ]
    assert not os.path.exists(path)


def test_an_operators_error_is_one_line(start: Start, path: str) -> None:
    runner = start(target="nowhere:bridge")
    assert runner.wait() == 2
    last = runner.log.splitlines()[-1]
    assert last == (
        "asgi-bridge: cannot import 'nowhere:bridge': no module named 'nowhere'; is it installed, and does --app-dir "
        "point to it?"
    )
    assert "Traceback" not in runner.log
    assert not os.path.exists(path)


@pytest.fixture
def restored() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def test_a_source_puts_its_folder_in_front(folder: Path, restored: None) -> None:
    (folder / "found_by_source.py").write_text(PLUGIN % "one")
    source = Source("found_by_source:bridge", app_dir=str(folder))
    assert list(source.load()) == ["say"]
    assert list(source.load()) == ["say"]
    assert sys.path.count(str(folder)) == 1


# the watchdog


class Stopped(Exception):
    pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunnerServer]:
    def exit(status: int) -> None:
        raise Stopped(status)

    monkeypatch.setattr(os, "_exit", exit)
    yield RunnerServer(runner_config(), "", seconds=0.01)
    monkeypatch.undo()


def test_the_watchdog_ends_the_process_after_a_signal(
    server: RunnerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("asgi_bridge"), "handlers", [logging.NullHandler()])
    server.handle_exit(signal.SIGTERM, None)
    server.handle_exit(signal.SIGINT, None)
    with pytest.raises(Stopped) as stopped:
        server._watch()
    assert stopped.value.args == (128 + signal.SIGTERM,)
    assert server.force_exit
    assert "Not stopped in time" in caplog.text


@pytest.mark.parametrize("signals", [[None], [signal.SIGTERM, None]])
def test_the_watchdog_goes_when_it_is_sent_away(server: RunnerServer, signals: list[int | None]) -> None:
    server._seconds = 60
    for sig in signals:
        server._signals.put(sig)
    server._watch()
    with pytest.raises(queue.Empty):
        server._signals.get_nowait()
