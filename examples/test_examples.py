"""Each example starts in its own folder, as its README says, and its routes are right for APISIX."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asgi_bridge.cli import cli
from asgi_bridge.gateway import load_routes, parse_routes, read_routes

EXAMPLES = Path(__file__).parent


def run(*command: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("folder", "target", "plugins"),
    [
        ("django_sessions", ["gate:bridge"], {"site": "application"}),
        ("fastapi_auth", ["gate:bridge"], {"orders": "application"}),
        ("flask_legacy", [], {"proxy-fix": "middleware", "shop": "application"}),
        ("same_gate", ["starlette_gate"], {"gate": "application"}),
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


@pytest.mark.parametrize("folder", ["django_sessions", "same_gate"])
def test_what_has_django_settings_in_a_process_of_its_own(folder: str) -> None:
    run("pytest", "-p", "no:cacheprovider", f"{folder}/test_example.py", folder=EXAMPLES)


DEPLOY = EXAMPLES / "deploy"
WRITTEN = re.findall(r"^\$ (asgi-bridge generate .*) > (.*)$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
"""The commands of the README of examples/deploy/, and the file that each of them writes."""


@pytest.mark.parametrize(("command", "path"), WRITTEN, ids=[path for _, path in WRITTEN])
def test_generate_writes_what_stands_there(command: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DEPLOY)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "gate", raising=False)
    try:
        done = CliRunner().invoke(cli, shlex.split(command)[1:], prog_name="asgi-bridge", catch_exceptions=False)
    finally:
        sys.modules.pop("gate", None)
    assert (done.exit_code, done.stdout) == (0, Path(path).read_text())


def test_the_readme_names_every_file_of_a_deployment() -> None:
    there = [path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    own = {"README.md", "__init__.py", "gate.py", "requirements.txt", "test_example.py"}
    assert sorted(path for _, path in WRITTEN) == sorted(
        str(path.relative_to(DEPLOY)) for path in there if path.name not in own
    )


SHIPPED = sorted(EXAMPLES.glob("*/apisix.yaml"))
DOCUMENTS = [
    *EXAMPLES.parent.glob("*.md"),
    *(path for name in ("docs", "examples", "apps", "asgi_bridge") for path in (EXAMPLES.parent / name).rglob("*.md")),
]


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
