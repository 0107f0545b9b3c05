"""What the doctor finds in APISIX's config.yaml. Each finding is brought about here."""

import os
import socket
from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.doctor import Finding
from asgi_bridge.doctor.findings import error, good, warning

from .conftest import CONFIG, Look

FILE = "HOME/conf/config.yaml"
SECTION = "write ext-plugin: {cmd: [asgi-bridge, run, gate:bridge]}, or path_for_test with the runner's socket"
SHELL = "write a list of words, as cmd: [/opt/gate/.venv/bin/asgi-bridge, run, gate:bridge]"
PROGRAM = "write the path of the asgi-bridge of your environment"
DISABLED = "requests of routes from etcd pass without it, and routes from a file are dropped"
ALL = good(FILE, "it has no list plugins, so APISIX enables all external plugins")
STARTED = "no apisix-PID.sock of a process that runs: APISIX does not run, or its runner does not"
NOT_STARTED = [
    error(
        f"{FILE}:{line}",
        f"HOME/conf has {STARTED}",
        "start APISIX; its error log says why it could not start the runner",
    )
    for line in (1, 2)
]


def nowhere(path: str) -> Finding:
    return error(
        path,
        "there is nothing: no runner listens",
        f"start it with asgi-bridge run --uds {path}, or let APISIX start it (ext-plugin.cmd)",
    )


def unknown(name: str, line: int, guess: str) -> Finding:
    what = f"ext-plugin.{name}: APISIX does not know this; did you mean '{guess}'?"
    return warning(f"{FILE}:{line}", what, "take it out, or write cmd or path_for_test")


NEITHER = error(
    f"{FILE}:1",
    "ext-plugin has neither cmd nor path_for_test: APISIX starts no runner, and every call gets 503",
    SECTION,
)


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("", [error(FILE, "it has no section ext-plugin: APISIX looks for no runner", SECTION), ALL]),
        ("# APISIX\n#END\n", [error(FILE, "it has no section ext-plugin: APISIX looks for no runner", SECTION), ALL]),
        (
            "apisix: {}\next_plugin: {cmd: [sh]}",
            [
                error(f"{FILE}:2", "it has no section ext-plugin, but ext_plugin: APISIX looks for no runner", SECTION),
                ALL,
            ],
        ),
        ("- a", [error(FILE, "it is no mapping, so APISIX does not start", "write sections, as ext-plugin:")]),
        ("ext-plugin:", [error(f"{FILE}:1", "ext-plugin is empty: APISIX looks for no runner", SECTION), ALL]),
        ("ext-plugin: sh", [error(f"{FILE}:1", "ext-plugin is empty: APISIX looks for no runner", SECTION), ALL]),
        ("ext-plugin:\n  comand: [sh]", [unknown("comand", 2, "cmd"), NEITHER, ALL]),
        ("ext-plugin:\n  path-for-test: /x", [unknown("path-for-test", 2, "path_for_test"), NEITHER, ALL]),
    ],
)
def test_no_runner_is_named(look: Look, text: str, findings: list[Finding]) -> None:
    assert look(text) == findings


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (
            "unix:/run/x.sock",
            error(
                f"{FILE}:2",
                "path_for_test begins with unix:, which APISIX adds itself, so no connection succeeds",
                "write path_for_test: /run/x.sock",
            ),
        ),
        (
            "run/x.sock",
            error(
                f"{FILE}:2",
                "path_for_test is run/x.sock, which is relative to the folder that APISIX was started in",
                "write an absolute path",
            ),
        ),
        ("7", error(f"{FILE}:2", "path_for_test has to be a path, not 7 (int)", "write path_for_test: /run/r.sock")),
        ("''", error(f"{FILE}:2", "path_for_test has to be a path, not '' (str)", "write path_for_test: /run/r.sock")),
        (
            "${{NOT_SET}}/x.sock",
            warning(
                f"{FILE}:2",
                "ext-plugin.path_for_test has an environment variable that is not set here: ${{NOT_SET}}/x.sock",
                "run the doctor with APISIX's environment to see more",
            ),
        ),
    ],
)
def test_a_path_at_which_nobody_is_found(
    look: Look, monkeypatch: pytest.MonkeyPatch, path: str, found: Finding
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    assert look(f"ext-plugin:\n  path_for_test: {path}") == [found, ALL]


@pytest.mark.parametrize("path", ["HOME/r.sock", "${{RUNNERS}}/r.sock", "${{NOT_SET:=HOME}}/r.sock"])
def test_the_path_of_the_file_is_looked_at(look: Look, home: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("RUNNERS", str(home))
    expected = good(f"{FILE}:2", "APISIX expects the runner at HOME/r.sock (path_for_test)")
    assert look(f"ext-plugin:\n  path_for_test: {path}\n#END\n") == [expected, ALL, nowhere("HOME/r.sock")]


def test_gateway_and_operator_name_two_sockets(look: Look, home: Path) -> None:
    assert look("ext-plugin:\n  path_for_test: /run/gate.sock", socket=str(home / "r.sock")) == [
        error(
            f"{FILE}:2",
            "APISIX expects the runner at /run/gate.sock, and --uds names HOME/r.sock",
            "start the runner with --uds /run/gate.sock, or write path_for_test: HOME/r.sock",
        ),
        ALL,
        nowhere("HOME/r.sock"),
    ]


@pytest.mark.parametrize(
    ("cmd", "found"),
    [
        (
            "sh -c true",
            warning(
                f"{FILE}:2",
                "cmd is one text, so APISIX starts a shell, and it is the shell that gets SIGTERM at a reload",
                SHELL,
            ),
        ),
        ("[sh, 7]", error(f"{FILE}:2", "cmd has to be a list of texts, not ['sh', 7] (list)", SHELL)),
        ("[]", error(f"{FILE}:2", "cmd has to be a list of texts, not [] (list)", SHELL)),
        (
            "[HOME/asgi-bridge, run]",
            error(f"{FILE}:2", "cmd: there is no HOME/asgi-bridge, so APISIX cannot start the runner", PROGRAM),
        ),
        (
            "[conf/config.yaml]",
            error(
                f"{FILE}:2",
                "cmd: conf/config.yaml is no program that can be run, so APISIX cannot start the runner",
                PROGRAM,
            ),
        ),
        (
            "[asgi-brigde, run]",
            error(
                f"{FILE}:2", "cmd: there is no program asgi-brigde in PATH, so APISIX cannot start the runner", PROGRAM
            ),
        ),
        ("[sh, -c, 'true']", good(f"{FILE}:2", "APISIX starts the runner: sh -c true")),
    ],
)
def test_the_command_that_starts_the_runner(look: Look, cmd: str, found: Finding) -> None:
    assert look(f"ext-plugin:\n  cmd: {cmd}") == [found, NOT_STARTED[1], ALL]


def test_a_command_with_a_variable_that_is_not_set(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    words = ["${{NOT_SET}}/asgi-bridge", "run"]
    what = f"ext-plugin.cmd has an environment variable that is not set here: {words}"
    found = warning(f"{FILE}:2", what, "run the doctor with APISIX's environment to see more")
    assert look(f"ext-plugin:\n  cmd: {words}") == [found, NOT_STARTED[1], ALL]


def test_a_command_with_a_socket_of_its_own(look: Look) -> None:
    what = "cmd has --uds /run/x.sock, but APISIX connects to a socket of its own choice"
    found = error(f"{FILE}:1", what, "take --uds out: the runner learns the socket from APISIX_LISTEN_ADDRESS")
    for words in ("[sh, --uds, /run/x.sock]", "[sh, --uds=/run/x.sock]"):
        assert look(f"ext-plugin: {{cmd: {words}}}")[1:] == [found, NOT_STARTED[0], ALL]


def test_the_socket_of_an_apisix_that_runs_is_found(look: Look, home: Path) -> None:
    text = "ext-plugin: {cmd: [sh]}"
    ours, gone = home / "conf" / f"apisix-{os.getpid()}.sock", home / "conf" / "apisix-999999999.sock"
    for path in (ours, gone):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        path.chmod(0o666)
    assert [each.where for each in look(text)[2:]] == [str(ours).replace(str(home), "HOME")]
    other = home / "conf" / f"apisix-{os.getppid()}.sock"
    other.touch()
    both = ", ".join(sorted(f"HOME/conf/{each.name}" for each in (ours, other)))
    assert look(text)[1:] == [
        warning(
            f"{FILE}:1", f"several APISIX run here, with the sockets {both}", "name the one that you mean with --uds"
        ),
        ALL,
    ]
    assert look(text, socket=str(home / "r.sock"))[1:] == [ALL, nowhere("HOME/r.sock")]


@pytest.mark.parametrize(
    ("envs", "found"),
    [
        ("", []),
        ("nginx_config:\n  envs: [PATH, DATABASE_URL, KEY=1]", []),
        (
            "nginx_config:\n  envs:\n    - APISIX_LISTEN_ADDRESS\n    - APISIX_CONF_EXPIRE_TIME=60",
            [
                warning(
                    f"{FILE}:4",
                    "nginx_config.envs names APISIX_LISTEN_ADDRESS, but APISIX sets it for the runner itself",
                    "take it out: it has no effect",
                ),
                warning(
                    f"{FILE}:5",
                    "nginx_config.envs names APISIX_CONF_EXPIRE_TIME, but APISIX sets it for the runner "
                    "itself, always to 3600",
                    "take it out: it has no effect",
                ),
            ],
        ),
        (
            "nginx_config:\n  envs: KEY",
            [
                error(
                    f"{FILE}:3",
                    "nginx_config.envs has to be a list, not 'KEY' (str): APISIX does not start",
                    "write envs: [DATABASE_URL]",
                )
            ],
        ),
        (
            "envs: [KEY]",
            [
                warning(
                    f"{FILE}:2",
                    "envs stands at the top of the file, where APISIX does not look for it",
                    "put it under nginx_config",
                )
            ],
        ),
    ],
)
def test_environment_variables(look: Look, envs: str, found: list[Finding]) -> None:
    assert look(f"ext-plugin: {{cmd: [sh]}}\n{envs}")[2:-1] == found


@pytest.mark.parametrize(("envs", "where"), [("", FILE), ("nginx_config:\n  envs:\n    - KEY=1", f"{FILE}:3")])
def test_a_variable_that_the_plugins_need(look: Look, envs: str, where: str) -> None:
    what = "nginx_config.envs does not name DATABASE_URL, so the runner that APISIX starts does not get it"
    remedy = "add DATABASE_URL to nginx_config.envs, or start the runner with --env-file"
    found = look(f"ext-plugin: {{cmd: [sh]}}\n{envs}", variables=["DATABASE_URL"])
    assert found[2:-1] == [error(where, what, remedy)]
    # a runner that somebody else starts has the environment that it is given there
    found = look(f"ext-plugin: {{path_for_test: HOME/r.sock}}\n{envs}", variables=["DATABASE_URL"])
    assert found[1:] == [ALL, nowhere("HOME/r.sock")]


@pytest.mark.parametrize(
    ("listed", "findings"),
    [
        (
            "[cors, key-auth]",
            [
                error(
                    f"{FILE}:2",
                    f"the list plugins has none of the ext-plugins: {DISABLED}",
                    "add ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp",
                )
            ],
        ),
        (
            "",
            [
                error(
                    f"{FILE}:2",
                    f"the list plugins has none of the ext-plugins: {DISABLED}",
                    "add ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp",
                )
            ],
        ),
        ("cors", [error(f"{FILE}:2", "plugins has to be a list, not 'cors' (str)", "write a list of names")]),
        (
            "[cors, ext-plugin-pre-req, ext-plugin-post-req]",
            [
                warning(
                    f"{FILE}:2",
                    f"the list plugins lacks ext-plugin-post-resp: {DISABLED}",
                    "add ext-plugin-post-resp, unless no route uses it",
                )
            ],
        ),
        (
            "[ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp]",
            [good(f"{FILE}:2", "the list plugins has all ext-plugins")],
        ),
        (
            "\n  - ext-plugin-pre-request\n  - ext-plugin-post-req\n  - ext-plugin-post-resp",
            [
                error(f"{FILE}:3", "APISIX has no plugin ext-plugin-pre-request", "did you mean 'ext-plugin-pre-req'?"),
                warning(
                    f"{FILE}:2",
                    f"the list plugins lacks ext-plugin-pre-req: {DISABLED}",
                    "add ext-plugin-pre-req, unless no route uses it",
                ),
            ],
        ),
        (
            "\n  - cors\n  - ext-plugin-post-resp",
            [
                warning(
                    f"{FILE}:2",
                    f"the list plugins lacks ext-plugin-pre-req and ext-plugin-post-req: {DISABLED}",
                    "add ext-plugin-pre-req and ext-plugin-post-req, unless no route uses it",
                ),
                error(
                    f"{FILE}:4",
                    "the list plugins has ext-plugin-post-resp alone: APISIX then makes no shared memory "
                    "for tokens, and answers 503 to every call",
                    "add ext-plugin-pre-req to the list, or nginx_config.http.custom_lua_shared_dict: {ext-plugin: 1m}",
                ),
            ],
        ),
        (
            "[ext-plugin-post-resp]\nnginx_config: {http: {custom_lua_shared_dict: {ext-plugin: 1m}}}",
            [
                warning(
                    f"{FILE}:2",
                    f"the list plugins lacks ext-plugin-pre-req and ext-plugin-post-req: {DISABLED}",
                    "add ext-plugin-pre-req and ext-plugin-post-req, unless no route uses it",
                )
            ],
        ),
    ],
)
def test_an_explicit_list_of_plugins(look: Look, listed: str, findings: list[Finding]) -> None:
    found = look(f"ext-plugin: {{path_for_test: HOME/r.sock}}\nplugins: {listed}")
    assert found[1:-1] == findings


def test_a_file_that_cannot_be_read(look: Look, home: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        look("a:\n  b: [")
    assert str(raised.value).startswith(f"{home / CONFIG}:2: this is not YAML: ")
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read: No such file or directory"):
        look(config=str(home / "nowhere.yaml"))
    (home / "latin").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigurationError, match="latin cannot be read: it is not UTF-8"):
        look(config=str(home / "latin"))
    with pytest.raises(ConfigurationError, match="nothing to look at: give --uds PATH or --apisix-config FILE"):
        look()
