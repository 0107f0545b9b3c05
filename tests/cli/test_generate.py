"""``asgi-bridge generate``: its options, what it takes from a TARGET, and its messages about mistakes."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml

from asgi_bridge.cli import cli, main

Command = Callable[..., tuple[int, str, str]]

PLUGINS = """
import os
from pydantic import BaseModel
from asgi_bridge import Bridge

bridge = Bridge()

async def app(scope, receive, send): ...

class Conf(BaseModel):
    key: str

bridge.mount("hello", app)

@bridge.plugin(os.environ.get("NAME_OF_PLUGIN", "keyed"), phase="both")
def keyed(conf: Conf):
    return app
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in a folder with a module of plugins. Returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"plugins_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(PLUGINS)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "argv", ["asgi-bridge", *(each.replace("MODULE", name) for each in arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return exit.value.code or 0, out.replace(name, "MODULE"), err.replace(name, "MODULE")  # type: ignore[return-value]

    return command


def test_a_route_from_a_target_with_all_options(command: Command, tmp_path: Path) -> None:
    (tmp_path / "keyed.json").write_text('{"key": "secret"}\n')
    code, out, err = command(
        "generate", "route", "MODULE.py", "--plugin", "keyed=@keyed.json", "--plugin", "hello=[1]", "--plugin", "more",
        "--mount", "more=MODULE:app", "--post-req", "hello", "--post-resp", "more", "--name", "shop", "--uri", "/a/*",
        "--uri", "/b", "--host", "a.test", "--upstream", "https://a:1", "--upstream", "https://b:2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    keyed = {"name": "keyed", "value": '{"key": "secret"}'}
    assert json.loads(out) == {
        "id": "shop",
        "uris": ["/a/*", "/b"],
        "hosts": ["a.test"],
        "plugins": {
            "ext-plugin-pre-req": {"conf": [keyed]},
            "ext-plugin-post-req": {"conf": [{"name": "hello", "value": "[1]"}]},
            "ext-plugin-post-resp": {"conf": [keyed, {"name": "more", "value": "{}"}]},
        },
        "upstream": {
            "type": "roundrobin",
            "scheme": "https",
            "nodes": [{"host": "a", "port": 1, "weight": 1}, {"host": "b", "port": 2, "weight": 1}],
        },
    }


def test_the_same_route_in_each_form(command: Command) -> None:
    options = ["MODULE:bridge", "--plugin", "hello"]
    _, route, _ = command("generate", "route", *options)
    _, standalone, _ = command("generate", "standalone", *options)
    _, adc, _ = command("generate", "adc", *options)
    _, config, _ = command("generate", "plugin-config", *options, "--ingress-class", "mine")
    plugins = {"ext-plugin-pre-req": {"conf": [{"name": "hello", "value": "{}"}]}}
    upstream = {"type": "roundrobin", "nodes": [{"host": "127.0.0.1", "port": 1980, "weight": 1}]}

    assert json.loads(route) == {"id": "gate", "uri": "/*", "plugins": plugins, "upstream": upstream}
    assert yaml.safe_load(standalone) == {"routes": [json.loads(route)]}
    assert standalone.endswith("\n#END\n")
    assert yaml.safe_load(adc) == {
        "services": [
            {"name": "gate", "upstream": upstream, "routes": [{"name": "gate", "uris": ["/*"], "plugins": plugins}]}
        ]
    }
    assert yaml.safe_load(config)["spec"] == {
        "ingressClassName": "mine",
        "plugins": [{"name": name, "enable": True, "config": conf} for name, conf in plugins.items()],
    }


def test_the_environment_of_the_plugins_is_read_first(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME_OF_PLUGIN", "")  # so that it is not set after this test
    monkeypatch.delenv("NAME_OF_PLUGIN")
    (tmp_path / ".env").write_text("NAME_OF_PLUGIN=other\n")
    code, out, _ = command(
        "generate", "standalone", "MODULE:bridge", "--env-file", ".env", "--plugin", 'other={"key": "x"}'
    )
    assert (code, "name: other" in out) == (0, True)


def test_the_command_that_starts_the_runner_has_the_options_of_the_target(command: Command) -> None:
    _, out, _ = command(
        "generate", "config", "a.b:c", "--mount", "x=d:e", "--allow", "/etc/keys/", "--allow", "https://a.test/",
        "--home", "/srv/shop", "--workers", "3", "--standalone", "--env", "TOKEN", "--env", "DATABASE_URL",
    )  # fmt: skip
    assert yaml.safe_load(out) == {
        "deployment": {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}},
        "ext-plugin": {
            "cmd": [
                "/srv/shop/.venv/bin/asgi-bridge", "run", "a.b:c", "--mount", "x=d:e", "--allow", "/etc/keys/",
                "--allow", "https://a.test/", "--app-dir", "/srv/shop", "--workers", "3",
            ],
        },
        "nginx_config": {"envs": ["TOKEN", "DATABASE_URL"]},
    }  # fmt: skip
    _, out, _ = command("generate", "config", "--sidecar", "--uds", "unix:/run/x/y.sock")
    assert yaml.safe_load(out) == {"ext-plugin": {"path_for_test": "/run/x/y.sock"}}


def test_a_dockerfile_copies_the_modules_that_are_in_the_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    code, out, _ = command(
        "generate", "dockerfile", "MODULE:bridge", "--mount", "a=shop.deep:x",
        "--mount", "b=starlette.middleware.gzip:x", "--mount", "c=MODULE:app",
    )  # fmt: skip
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("COPY ") and "--" not in line] == [
        "COPY requirements.txt /tmp/requirements.txt",
        "COPY MODULE.py /opt/gate/",
        "COPY shop/ /opt/gate/shop",
    ]
    _, out, _ = command(
        "generate", "dockerfile", "--copy", "pyproject.toml", "--copy", "src/", "--requirements", "all.txt", "--wheels",
        "dist/", "--home", "/srv",
    )  # fmt: skip
    assert [line for line in out.splitlines() if line.startswith("COPY ") and "--" not in line] == [
        "COPY all.txt /tmp/requirements.txt",
        "COPY dist /tmp/wheels",
        "COPY pyproject.toml /srv/",
        "COPY src/ /srv/src",
    ]
    assert "/srv/.venv/bin/pip install --no-cache-dir --find-links /tmp/wheels -r /tmp/requirements.txt" in out


def test_the_document_has_each_kind_of_file() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operation.md").read_text()
    table = text.partition("## Files for a deployment")[2].partition("\n### ")[0]
    group = cli.commands["generate"]
    assert isinstance(group, click.Group)
    assert set(re.findall(r"^\| `([a-z-]+)` ", table, re.MULTILINE)) == set(group.commands)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["route", "MODULE:bridge"], "asgi-bridge: plugin keyed: field 'key': "),
        (["route", "MODULE:bridge", "--plugin", "=1"], "'=1' is not of the form NAME[=JSON|=@FILE]"),
        (["route", "MODULE:bridge", "--plugin", "hello="], "'hello=' is not of the form NAME[=JSON|=@FILE]"),
        (["route", "MODULE:bridge", "--plugin", "hello=@no.json"], "no.json cannot be read: "),
        (["adc", "MODULE:bridge", "--plugin", "hello", "--uri", "a"], "--uri a: a path begins with a slash"),
        (["standalone", "MODULE:bridge", "--plugin", "hello", "--name", "A"], "--name A: lower-case letters, digits"),
        (["route", "nowhere:bridge"], "cannot import 'nowhere:bridge'"),
        (["config", "--home", "here"], "--home here: an absolute path of letters, digits, dots"),
        (["config", "--home", "/a b"], "--home /a b: an absolute path of letters, digits, dots"),
        (["config", "--uds", "/run/a.sock"], "--uds is for --sidecar: without it APISIX starts the runner"),
        (["config", "--sidecar", "--env", "A"], "--env is not for --sidecar: such a runner has the environment"),
        (["dockerfile", "a:b", "--uds", "/run/a.sock"], "--uds is for --sidecar"),
        (["config", "a:b", "--sidecar"], "TARGET is not for --sidecar: this file then has the socket alone"),
        (["config", "--sidecar", "--home", "/a"], "--home is not for --sidecar: this file then has the socket alone"),
        (["dockerfile", "a:b", "--allow", "/a/"], "--allow is not for this file: APISIX starts the runner"),
        (["config", "--sidecar", "--workers", "2"], "--workers is not for --sidecar: this file then has the socket"),
        (["dockerfile", "a:b", "--workers", "2"], "--workers is not for this file: APISIX starts the runner"),
        (["config", "a:b", "--workers", "0"], "'0' is neither a number of processes, 1 or more, nor auto"),
        (["helm", "a:b", "--admin-port", "0"], "0 is not in the range 1<=x<=65535"),
        (["compose", "--uds", "/run/a/b.sock"], "--uds is for --sidecar: without it APISIX starts the runner"),
        (["compose", "a:b"], "Got unexpected extra argument (a:b)"),
        (["dockerfile"], "without a TARGET nobody knows which files are your code; name them: --copy"),
        (["dockerfile", "--mount", "a=b:c"], "without a TARGET nobody knows which files are your code"),
        (["systemd", "a:b", "--uds", "/r.sock"], "--uds /r.sock: the socket needs a folder of its own"),
        (["kubernetes", "a:b", "--replicas", "0"], "0 is not in the range x>=1"),
        (["systemd", "a:b", "--sidecar"], "No such option"),
        (["route", "a:b", "--home", "/opt"], "No such option"),
        (["ansible"], "No such command 'ansible'"),
    ],
)
def test_what_generate_refuses(command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command("generate", *arguments)
    assert (code, out) == (2, "")
    assert said in err
