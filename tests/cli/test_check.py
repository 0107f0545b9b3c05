"""``asgi-bridge check``: its arguments, its exit codes, and what it needs."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.cli import main

Check = Callable[..., tuple[int, str, str]]

PLUGINS = """
from pydantic import BaseModel
from asgi_bridge import Bridge

bridge = Bridge()

class Conf(BaseModel):
    status: int = 200

@bridge.plugin("say")
def say(conf: Conf):
    raise AssertionError("a check builds no plugin")

class Session:
    def __init__(self, app): ...
    async def __call__(self, scope, receive, send): ...

bridge.add_middleware("session", Session, phase="both")
"""
ROUTES = """\
routes:
- id: r
  uri: /*
  plugins:
    ext-plugin-pre-req:
      conf:
      - {{name: {name}, value: '{value}'}}
#END
"""
ROOT = Path(__file__).parent.parent.parent
REFUSED = "route 'r': ext-plugin-pre-req.conf[0]: plugin say refuses field 'status', so requests get 503: "


WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys(["dotenv", "httpx2", "watchfiles", "httptools", "uvloop", "argon2", "jwt", "redis"]))
from asgi_bridge.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gate.py").write_text(PLUGINS)
    (tmp_path / "pyproject.toml").write_text('[tool.asgi_bridge]\nbridge = "gate:bridge"\n')
    for name, plugin, value in (
        ("good.yaml", "say", "{}"), ("bad.yaml", "say", '{"status": []}'), ("warned.yaml", "session", "{}"),
    ):  # fmt: skip
        (tmp_path / name).write_text(ROUTES.format(name=plugin, value=value))
    return tmp_path


@pytest.fixture
def check(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Check]:
    """Run the command in the folder. Returns exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def check(*arguments: str, text: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asgi-bridge", "check", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code: Any = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code
        return code, *capfd.readouterr()

    yield check
    sys.modules.pop("gate", None)


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["good.yaml"], 0, "0 errors, 0 warnings\n"),
        (["gate.py", "good.yaml", "good.yaml"], 0, "0 errors, 0 warnings\n"),
        (
            ["gate:bridge", "bad.yaml", "good.yaml"], 1,
            f"bad.yaml:7: error: {REFUSED}Input should be a valid integer\n1 error, 0 warnings\n",
        ),
        (
            ["gate", "./bad.yaml", "--format", "github"], 1,
            f"::error title=asgi-bridge check,file=./bad.yaml,line=7::{REFUSED}Input should be a valid integer\n"
            "1 error, 0 warnings\n",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_printed(check: Check, arguments: list[str], code: int, printed: str) -> None:
    assert check(*arguments) == (code, printed, "")


def test_warnings_count_only_strictly(check: Check) -> None:
    code, printed, _ = check("warned.yaml", "--format", "json")
    found = json.loads(printed)
    assert (code, found["errors"], found["warnings"]) == (0, 0, 1)
    assert {key: found["findings"][0][key] for key in ("severity", "file", "line", "plugin")} == {
        "severity": "warning", "file": "warned.yaml", "line": 7, "plugin": "session",
    }  # fmt: skip
    assert check("warned.yaml", "--format", "json", "--strict") == (1, printed, "")


def test_an_answer_of_the_admin_api_on_standard_input(check: Check) -> None:
    conf: dict[str, Any] = {"conf": [{"name": "say", "value": '{"stauts": 1}'}]}
    value = {"uri": "/*", "upstream_id": "u", "plugins": {"ext-plugin-pre-req": conf}}
    answer = json.dumps({"total": 1, "list": [{"key": "/apisix/routes/r", "value": value}]})
    refused = REFUSED.replace("status", "stauts")
    line = f"<stdin>:1: error: {refused}Extra inputs are not permitted; did you mean 'status'?"
    assert check("-", text=answer) == (1, f"{line}\n1 error, 0 warnings\n", "")
    assert check("gate.py", "-", text=answer.replace("stauts", "status"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml"], "nothing.yaml: the route file cannot be read: No such file or directory"),
        (["gate.py"], "no route file: gate.py names plugins; write a route file behind it, or - for standard input"),
        (["gate:nothing", "good.yaml"], "cannot import 'gate:nothing': 'gate' has no attribute 'nothing'"),
        (["nowhere:bridge", "good.yaml"], "cannot import 'nowhere:bridge': no module named "
         "'nowhere'; is it installed, and does --app-dir point to it?"),
    ],
)  # fmt: skip
def test_a_check_that_cannot_run_says_why(check: Check, arguments: list[str], said: str) -> None:
    code, printed, error = check(*arguments)
    assert (code, printed, error.splitlines()[-1]) == (2, "", f"asgi-bridge: {said}")


def test_the_size_of_a_configuration_is_the_runners_option(check: Check) -> None:
    code, printed, _ = check("good.yaml", "--limit-configuration-size", "1")
    assert (code, "its configuration has 2 bytes, and at most 1 are taken" in printed) == (1, True)


def test_what_the_documents_show(check: Check, folder: Path) -> None:
    """A typing error in the README's example is found as docs/operation.md says."""
    readme, page = (ROOT / "README.md").read_text("utf-8"), (ROOT / "docs" / "operation.md").read_text("utf-8")
    (gate, *_) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (routes,) = (each for each in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if each.startswith("routes:"))
    (folder / "gate.py").write_text(gate)
    (folder / "apisix.yaml").write_text(routes)
    assert check("gate.py", "apisix.yaml") == (0, "0 errors, 0 warnings\n", "")
    (folder / "apisix.yaml").write_text(routes.replace("allow_origins", "allow_orgins"))
    code, printed, _ = check("gate.py", "apisix.yaml")
    assert (code, f"$ asgi-bridge check gate.py apisix.yaml\n{printed}```" in page) == (1, True), printed


@pytest.mark.parametrize(("value", "code", "last"), [("{}", 0, "0 errors"), ("{", 1, "1 error")])
def test_a_process_in_a_pipe_needs_no_extra(folder: Path, value: str, code: int, last: str) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, "check", "gate.py", "-"]
    text = ROUTES.format(name="say", value=value)
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (code, f"{last}, 0 warnings", "")
