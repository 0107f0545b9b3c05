"""Packages that an extra brings: where one is missing, the message says which extra."""

import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "import sys; sys.argv[1:] = {arguments}; from asgi_bridge.cli import main; main()"
DEV = MAIN.format(arguments=["dev", "asgi_bridge_apps:bridge"])
PLUGINS = MAIN.format(arguments=["plugins", "asgi_bridge_apps:bridge"])
ENVIRONMENT = MAIN.format(arguments=["plugins", "asgi_bridge_apps:bridge", "--env-file", ".env"])
SESSION = MAIN.format(arguments=["plugins", "starlette.middleware.sessions:SessionMiddleware"])


@pytest.mark.parametrize(
    ("missing", "code", "said"),
    [
        ("httpx2", "import asgi_bridge.testing", 'asgi_bridge.testing needs httpx2: pip install "asgi_bridge[dev]"'),
        ("h11", "import asgi_bridge.gateway", 'asgi_bridge.gateway needs h11: pip install "asgi_bridge[dev]"'),
        ("watchfiles", DEV, 'asgi-bridge: dev needs watchfiles: pip install "asgi_bridge[dev]"'),
        ("h11", DEV, 'asgi-bridge: dev needs h11: pip install "asgi_bridge[dev]"'),
        ("dotenv", ENVIRONMENT, "asgi-bridge: an environment file needs python-dotenv: pip install "
         '"asgi_bridge[dev]"'),
        ("argon2", PLUGINS, 'asgi-bridge: asgi_bridge_apps needs argon2: pip install "asgi_bridge[apps]"'),
        ("itsdangerous", SESSION, 'asgi-bridge: starlette.middleware.sessions needs itsdangerous: pip install '
         '"asgi_bridge[apps]"'),
    ],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, missing: str, code: str, said: str) -> None:
    (tmp_path / ".env").touch()
    # h11 stands for itself: uvicorn would want it first
    hidden = f"import sys, uvicorn.protocols.http.auto; sys.modules[{missing!r}] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].removeprefix("ModuleNotFoundError: ") == said


def test_a_package_that_the_users_own_file_wants_is_the_users_to_install(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text("import redis\n")
    code = "import sys; sys.modules['redis'] = None\n" + MAIN.format(arguments=["plugins", "gate"])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install" not in done.stderr and "gate.py" in done.stderr
