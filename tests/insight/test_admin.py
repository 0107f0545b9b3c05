"""The admin application: its pages, who may read them, and its address."""

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.server.admin import AdminAddress, admin_address
from asgi_bridge.wire import ErrResp, HTTPReqCallResp, PrepareConfResp

from ..doubles.http_servers import listening, port_of
from ..doubles.runner_process import RunnerProcess, runner_process
from .stage import PLUGINS, Admin, admin_of


def test_plugins_are_described(admin: Admin) -> None:
    found = {each["name"]: each for each in admin.json("/plugins")}
    assert sorted(found) == [
        "asking", "failing", "made", "optional", "passing", "rewriting", "slow", "stopping", "waiting", "watching",
    ]  # fmt: skip
    slow = found["slow"]
    assert (slow["kind"], slow["phase"], slow["phases"]) == ("application", "auto", ["request", "response"])
    assert found["watching"]["options"]["shadow"] is True
    assert found["made"]["schema"]["properties"]["color"] == {"default": "red", "title": "Color", "type": "string"}
    assert (slow["options"]["timeout"], found["optional"]["options"]["on_error"]) == (0.05, "open")


def test_configurations_in_use_without_their_secrets(runner: RunnerProcess, admin: Admin) -> None:
    conf = {
        "password": "open sesame",
        "realm": "shop",
        "db": "redis://u:much-secret@h",
        "nested": [{"apiKey": "k" * 9}],
    }
    with runner.connect() as connection:
        token = connection.token("stopping", conf, key="route#r1#ext-plugin-pre-req#1")
        for _ in range(3):
            connection.call(token)
        connection.token("passing", {}, key="global_rule#g1#ext-plugin-post-resp#1")
    newest, older = admin.json("/configurations")[:2]
    assert (newest["of"], newest["route"], newest["phase"], newest["hits"]) == ("global_rule g1", None, "response", 0)
    seconds = older.pop("seconds")
    assert 0 <= seconds < 600
    assert older == {
        "of": "route r1",
        "route": "r1",
        "phase": "request",
        "hits": 3,
        "running": 0,
        "plugins": [
            {
                "name": "stopping",
                "configuration": {
                    "password": "(hidden)",
                    "realm": "shop",
                    "db": "redis://u:(hidden)@h",
                    "nested": [{"apiKey": "(hidden)"}],
                },
                "instance": None,
                "lists": None,
            }
        ],
    }
    assert len(admin.json("/configurations?limit=1")) == 1
    assert admin.get("/configurations?limit=all") == (400, "text/plain; charset=utf-8", "limit must be a number\n")


def test_lists_of_a_route_that_share_an_instance_show_it(runner: RunnerProcess, admin: Admin) -> None:
    conf = {"pin": "12345678", "color": "green"}
    with runner.connect() as connection:
        for phase in ("pre-req", "post-req"):
            connection.token("made", conf, key=f"route#shared#ext-plugin-{phase}#1")
        connection.token("made", conf, key="route#other#ext-plugin-pre-req#1")
    found = [each for each in admin.json("/configurations") if each["route"] in ("shared", "other")]
    other, *shared = [each["plugins"][0] for each in found]
    # a SecretStr is a secret whatever it is called
    assert other["configuration"] == {"pin": "(hidden)", "color": "green"}
    assert (other["lists"], [plugin["lists"] for plugin in shared]) == (1, [2, 2])
    assert shared[0] == shared[1]
    assert isinstance(other["instance"], int) and other["instance"] != shared[0]["instance"]


def test_the_configuration_of_a_shadow_is_shown_and_its_secrets_are_hidden(runner: RunnerProcess, admin: Admin) -> None:
    with runner.connect() as connection:
        key = "route#watched#ext-plugin-pre-req#1"
        prepared = connection.prepare(
            ("watching", {"password": "very-secret"}), ("failing", {"x": "very-secret"}), key=key
        )
        assert isinstance(prepared, PrepareConfResp)
        connection.call(prepared.conf_token)
    (found,) = [each for each in admin.json("/configurations") if each["route"] == "watched"]
    assert found["plugins"][0]["configuration"] == {"password": "(hidden)"}
    runner.logged("no database with {'x': '(hidden)'}")


def test_a_plugin_that_cannot_be_built_tells_no_secret(runner: RunnerProcess) -> None:
    with runner.connect() as connection:
        refused = connection.prepare(("made", {"pin": "87654321", "color": "blue"}), key="route#b#ext-plugin-pre-req#1")
        assert isinstance(refused, ErrResp)
    runner.logged("plugin made: it could not be built: ValueError: (hidden) is wrong")
    assert "87654321" not in runner.log


def test_a_long_configuration_is_cut_off(runner: RunnerProcess, admin: Admin) -> None:
    with runner.connect() as connection:
        connection.token("passing", {"x": "y" * 50_000}, key="route#long#ext-plugin-pre-req#1")
    (configuration,) = [each for each in admin.json("/configurations") if each["route"] == "long"]
    shown = configuration["plugins"][0]["configuration"]
    assert shown.endswith("… (50009 characters in all)") and len(shown) < 5000


def test_no_secret_gets_into_lines_or_pages(runner: RunnerProcess, admin: Admin) -> None:
    conf = {"password": "Tr0ub4dor", "url": "redis://jack:hunter22@db", "token": 'quo"ted\\', "keys": ["k" * 20]}
    with runner.connect() as connection:
        for _ in range(3):
            assert not isinstance(connection.call(connection.token("failing", conf)), HTTPReqCallResp)
    runner.logged("no database with {'password': '(hidden)', 'url': 'redis://jack:(hidden)@db', 'token': '(hidden)'")
    told = [runner.log, *(admin.get(path)[2] for path in ("/status", "/configurations", "/metrics"))]
    for text in told:
        assert [secret for secret in ("Tr0ub4dor", "hunter22", "ted\\", "k" * 20) if secret in text] == []
    (line, *_) = [line for line in admin.json("/status")["lines"] if "no database" in line["message"]]
    assert (line["plugin"], line["method"], line["path"], line["route"]) == ("failing", "GET", "/", "1")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:9092", 200), ("localhost:1", 200), ("[::1]:9092", 200), ("LOCALHOST", 200),
        ("evil.test", 421), ("evil.test:9092", 421), ("127.0.0.1.evil.test", 421), ("localhost.evil.test", 421),
    ],
)  # fmt: skip
def test_a_name_of_another_site_does_not_lead_in(admin: Admin, host: str, status: int) -> None:
    assert admin.get("/status", Host=host)[0] == status


def test_only_gets_of_known_pages_are_answered(admin: Admin) -> None:
    assert admin.get("/nothing")[0] == 404
    sock = socket.create_connection(("127.0.0.1", int(admin.url.rpartition(":")[2])))
    with sock:
        sock.sendall(b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert sock.makefile("rb").readline() == b"HTTP/1.1 405 Method Not Allowed\r\n"


def test_every_answer_forbids_scripts_of_others_and_caches(admin: Admin) -> None:
    import urllib.request

    with urllib.request.urlopen(admin.url + "/") as answer:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_ready_as_long_as_the_socket_is_ours(folder: Path) -> None:
    with runner_process(folder, PLUGINS, "--admin", "127.0.0.1:0") as runner:
        admin = admin_of(runner)
        assert [admin.get(path)[::2] for path in ("/livez", "/readyz")] == [(200, "ok\n"), (200, "ok\n")]
        os.rename(runner.path, runner.path + ".moved")
        obstacle = f"the socket at {runner.path} is not this runner's any more\n"
        assert [admin.get(path)[::2] for path in ("/livez", "/readyz")] == [(200, "ok\n"), (503, obstacle)]
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(runner.path)
            assert admin.get("/readyz")[::2] == (503, obstacle)


def test_a_unix_socket_is_for_its_user_alone_and_is_removed(folder: Path) -> None:
    path = folder / "admin.sock"
    with runner_process(folder, PLUGINS, "--admin", f"unix:{path}") as runner:
        runner.logged(f"Admin listens on unix:{path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert sock.makefile("rb").read().endswith(b"\r\n\r\nok\n")
    assert not path.exists()


def test_a_taken_port_is_tried_again_and_the_runner_works_meanwhile(folder: Path) -> None:
    with listening() as sock:
        port = port_of(sock)
        with runner_process(folder, PLUGINS, "--admin", f"127.0.0.1:{port}") as runner:
            runner.logged(f"Admin: http://127.0.0.1:{port} cannot be had yet, and is tried again: ")
            with runner.connect() as connection:
                assert isinstance(connection.call(connection.token("stopping")), HTTPReqCallResp)
            sock.close()
            admin = admin_of(runner)
            assert admin.url == f"http://127.0.0.1:{port}"
            assert admin.json("/status")["calls"] == 1


def test_without_admin_nothing_is_counted_and_nobody_listens(folder: Path) -> None:
    with runner_process(folder, PLUGINS) as runner:
        with runner.connect() as connection:
            connection.call(connection.token("stopping"))
        assert "Admin" not in runner.log
        inodes = []
        for each in Path(f"/proc/{runner.worker}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                inodes.append(os.readlink(each))
        tcp = Path(f"/proc/{runner.worker}/net/tcp").read_text()
        assert [inode for inode in inodes if f" {inode[8:-1]} " in tcp and inode.startswith("socket:")] == []


@pytest.mark.parametrize(
    ("text", "public", "address", "shown"),
    [
        ("127.0.0.1:9092", False, ("127.0.0.1", 9092, ""), "http://127.0.0.1:9092"),
        ("127.8.8.8:0", False, ("127.8.8.8", 0, ""), "http://127.8.8.8:0"),
        ("localhost:80", False, ("127.0.0.1", 80, ""), "http://127.0.0.1:80"),
        ("[::1]:9092", False, ("::1", 9092, ""), "http://[::1]:9092"),
        ("0.0.0.0:9092", True, ("0.0.0.0", 9092, ""), "http://0.0.0.0:9092"),
        ("unix:/run/x.sock", False, (None, 0, "/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_addresses(text: str, public: bool, address: tuple[str | None, int, str], shown: str) -> None:
    host, port, path = address
    found = admin_address(text, public)
    assert found == AdminAddress(host, port, path, public)
    assert str(found) == shown


@pytest.mark.parametrize("text", ["0.0.0.0:9092", "[::]:9092", "10.1.2.3:80", "[fe80::1]:80"])
def test_an_address_that_others_reach_has_to_be_asked_for(text: str) -> None:
    with pytest.raises(ConfigurationError, match="other machines reach this address, and nothing there asks for"):
        admin_address(text)


@pytest.mark.parametrize(
    "text", ["9092", ":9092", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "runner.test:80", "127.0.0.1:-1", "unix:"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="^--admin "):
        admin_address(text, True)


def test_a_wrong_address_ends_the_command(folder: Path) -> None:
    runner = RunnerProcess(str(folder / "r.sock"), "--admin", "0.0.0.0:0", target="asgi_bridge_apps:bridge")
    try:
        assert runner.wait() == 2
        assert runner.log.startswith("asgi-bridge: --admin 0.0.0.0:0: other machines reach this address")
    finally:
        runner.end()


def test_json_lines_name_the_call(folder: Path, patient: Callable[..., None]) -> None:
    with runner_process(folder, PLUGINS, "--log-format", "json", "--access-log") as runner:
        with runner.connect() as connection:
            patient(connection, connection.token("asking", {}, key="route#a#ext-plugin-pre-req#1"), path=b"/or\nders")
            connection.call(connection.token("failing", {}, key="route#b#ext-plugin-pre-req#1"), method="PUT")
        runner.logged("failing - route b - error")
        entries = [json.loads(line) for line in runner.log.splitlines()]
    access = [entry for entry in entries if entry["logger"] == "asgi_bridge.access"]
    for entry in access:
        assert entry.pop("time").endswith("+00:00") and entry.pop("milliseconds") >= 0
        assert entry.pop("message")
    assert access == [
        {
            "level": "info", "logger": "asgi_bridge.access", "method": "GET", "path": "/or\nders", "route": "a",
            "plugin": "asking", "phase": "request", "request_id": "3f2a", "outcome": "stop 200", "action": "stop",
            "status": 200,
        },
        {
            "level": "info", "logger": "asgi_bridge.access", "method": "PUT", "path": "/", "route": "b",
            "plugin": "failing", "phase": "request", "outcome": "error", "action": "error",
        },
    ]  # fmt: skip
    (failed,) = [entry for entry in entries if entry["level"] == "error"]
    assert failed["message"] == "plugin failing: request refused: RuntimeError: no database with {}"
    assert (failed["method"], failed["path"], failed["route"]) == ("PUT", "/", "b")
    assert failed["traceback"].splitlines()[-1] == "RuntimeError: no database with {}"
    # a plugin's own line
    (asked,) = [entry for entry in entries if entry["logger"] == "shop"]
    assert (asked["message"], asked["plugin"], asked["request_id"]) == ("asked", "asking", "3f2a")
