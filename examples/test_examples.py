"""Each example starts in its own folder, as its README says, and its routes are right for APISIX."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
import yaml

from asgi_bridge.cli import cli, options
from asgi_bridge.gateway import load_routes, parse_routes, read_routes

EXAMPLES = Path(__file__).parent


def run(*command: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("folder", "target", "plugins"),
    [
        ("django_sessions", ["gate:bridge"], {"site": "application"}),
        ("fastapi_auth", ["gate:bridge"], {"orders": "application"}),
        ("flask_legacy", [], {"proxy-fix": "middleware", "shop": "application"}),
        ("starlette_routes", ["gate:bridge"], {"front": "factory"}),
    ],
)
def test_the_command_line_lists_the_plugins_of_the_folder(
    folder: str, target: list[str], plugins: dict[str, str]
) -> None:
    listed = run("asgi_bridge", "plugins", *target, folder=EXAMPLES / folder).splitlines()

    assert {name: kind for name, kind, *_ in map(str.split, listed)} == plugins
    # and the README says the same
    assert f"asgi-bridge dev {' '.join(target)}".rstrip() in (EXAMPLES / folder / "README.md").read_text().splitlines()


def test_django_sessions_in_a_process_of_its_own() -> None:
    run("pytest", "-p", "no:cacheprovider", "django_sessions/test_example.py", folder=EXAMPLES)


def runner_options(command: list[str]) -> dict[str, Any]:
    """Return the options that our command line reads from a runner's command. Fails on an unknown option."""
    assert command[1] == "run"
    parent = click.Context(cli, **cli.context_settings)
    # its folders exist in the image only
    with mock.patch.object(options.FOLDER, "exists", False):
        return cli.commands["run"].make_context("run", command[2:], parent=parent).params


def test_docker_starts_what_the_image_has() -> None:
    config = yaml.safe_load((EXAMPLES / "docker/config.yaml").read_text())
    dockerfile = (EXAMPLES / "docker/Dockerfile").read_text()
    command = config["ext-plugin"]["cmd"]
    options = runner_options(command)

    assert config["deployment"] == {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}}
    assert f"python3 -m venv {Path(command[0]).parents[1]}" in dockerfile
    assert (options["target"], options["uds"]) == ("gate:bridge", None)  # APISIX names the socket in the environment
    assert f"COPY examples/starlette_routes/gate.py {options['app_dir']}/" in dockerfile


def test_in_kubernetes_gateway_and_runner_share_a_socket(tmp_path: Path) -> None:
    documents = yaml.safe_load_all((EXAMPLES / "kubernetes/gate.yaml").read_text())
    found = {document["kind"]: document for document in documents}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (runner,), gateway = pod["initContainers"], pod["containers"][0]
    config = yaml.safe_load(found["ConfigMap"]["data"]["config.yaml"])
    socket = Path(config["ext-plugin"]["path_for_test"])

    assert runner_options(runner["command"])["uds"] == str(socket)
    assert runner["startupProbe"]["exec"]["command"][-1] == str(socket)
    shared = {"name": "socket", "mountPath": str(socket.parent)}
    assert shared in runner["volumeMounts"] and shared in gateway["volumeMounts"]
    assert {"name": "socket", "emptyDir": {}} in pod["volumes"]
    (tmp_path / "apisix.yaml").write_text(found["ConfigMap"]["data"]["apisix.yaml"])
    assert [
        route.plugins.ext["ext-plugin-pre-req"].names for route in load_routes(tmp_path / "apisix.yaml").routes
    ] == [["front"]]


SHIPPED = sorted(EXAMPLES.glob("*/apisix.yaml"))
DOCUMENTS = [path for folder in ("docs", "examples", "apps", ".") for path in (EXAMPLES.parent / folder).rglob("*.md")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_route_file_is_right_for_apisix(path: Path) -> None:
    assert load_routes(path).findings == ()


def test_routes_in_the_documents_are_right_for_apisix() -> None:
    looked_at = 0
    for path in sorted({*DOCUMENTS}):
        if ".venv" in path.parts or "site-packages" in path.parts:
            continue
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            found = yaml.safe_load(block)
            if "routes" in found:
                routes = parse_routes(block if "#END" in block else f"{block}#END\n", str(path))
            elif any(str(key).startswith("ext-plugin-") for key in found):
                routes = read_routes({"routes": [{"uri": "/*", "plugins": found}]}, str(path))
            else:
                continue
            assert (path, routes.findings) == (path, ())
            looked_at += 1
    assert looked_at > 20
