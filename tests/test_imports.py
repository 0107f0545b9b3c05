"""What the imports of the package load, and what they leave for later."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_bridge

HEAVY = {"asyncio", "pydantic", "pydantic_core", "starlette", "uvicorn"}


def loaded(program: str) -> set[str]:
    """Top-level names of the modules that a program loads in an interpreter of its own."""
    code = (
        f"import json, sys\nbefore = set(sys.modules)\n{program}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    # -S would lose the package, which an editable installation finds through site-packages.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


@pytest.mark.parametrize(
    "program",
    [
        "import asgi_bridge",
        "import asgi_bridge.wire",
        "from asgi_bridge.wire import Role, Session; Session(Role.RUNNER)",
        "from asgi_bridge import ConfigurationError, RemoteProtocolError",
        "import asgi_bridge; asgi_bridge.__version__; dir(asgi_bridge)",
        "import asgi_bridge.__main__",  # a runner says HELLO before it loads what is slow
        "from click.testing import CliRunner; from asgi_bridge.cli import cli\n"
        "assert not CliRunner().invoke(cli, ['--help']).exit_code",
        "from click.testing import CliRunner; from asgi_bridge.cli import cli\n"
        "assert not CliRunner().invoke(cli, ['run', '--help']).exit_code",
    ],
)
def test_nothing_heavy_is_loaded(program: str) -> None:
    assert loaded(program) & HEAVY == set()


def test_a_worker_loads_what_it_needs() -> None:
    program = "import asgi_bridge.worker, asgi_bridge.loading, asgi_bridge.server.serve"
    rooms = "cli", "gateway", "insight", "passing", "replay", "tracing.tracing", "wsgi", "recording.recorder"
    program += f"\nassert not {{f'asgi_bridge.{{each}}' for each in {rooms!r}}} & set(sys.modules)"
    assert not loaded(program) & {"difflib", "flatbuffers", "numpy", "opentelemetry", "tomllib", "yaml"}


def test_the_plugin_client_needs_no_gateway_and_no_server() -> None:
    program = (
        "from asgi_bridge.testing import PluginClient\n"
        "assert not {'asgi_bridge.gateway', 'asgi_bridge.server'} & set(sys.modules)\n"
        "from asgi_bridge.testing import Gateway\n"
        "import asgi_bridge.testing.gateway as home; assert Gateway is home.Gateway"
    )
    assert "starlette" in loaded(program)


@pytest.mark.parametrize("name", [name for name in asgi_bridge.__all__ if name != "__version__"])
def test_each_public_name_is_there_at_its_first_use(name: str) -> None:
    program = f"from asgi_bridge import {name} as first; import asgi_bridge\nassert asgi_bridge.{name} is first"
    assert "asgi_bridge" in loaded(program)


def test_public_names_are_listed_before_their_first_use() -> None:
    loaded("import asgi_bridge; assert set(asgi_bridge.__all__) <= set(dir(asgi_bridge))")
    loaded("from asgi_bridge import *; assert {'Bridge', 'apisix', 'upstream', 'PluginError'} <= set(globals())")


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert asgi_bridge.__version__ == importlib.metadata.version("asgi_bridge")


@pytest.mark.parametrize("name", ["Brige", "plugin", "__path", "configure"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'asgi_bridge' has no attribute '{name}'"):
        getattr(asgi_bridge, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'asgi_bridge'"):
        exec(f"from asgi_bridge import {name}")
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'asgi_bridge.testing'"):
        exec(f"from asgi_bridge.testing import {name}")


def test_type_checkers_see_the_public_names() -> None:
    """They do not run the module's `__getattr__`, so the module imports the same names for them."""
    tree = ast.parse(Path(asgi_bridge.__file__).read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING")
    imported = {
        alias.name: f".{each.module}" for each in block.body if isinstance(each, ast.ImportFrom) for alias in each.names
    }
    declared = [ast.unparse(each) for each in block.body if isinstance(each, ast.AnnAssign)]
    assert imported == asgi_bridge._HOMES
    assert declared == ["__version__: str"]
    assert sorted([*imported, "__version__"]) == sorted(asgi_bridge.__all__)
