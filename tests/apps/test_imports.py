"""What an import of this package, and of each plugin's module, loads, and which third-party packages it needs."""

import json
import subprocess
import sys
from pathlib import Path

import asgi_bridge_apps
import pytest
from asgi_bridge_apps import ready_made
from asgi_bridge_apps._mounts import NEEDED

from asgi_bridge.plugins.deferred import DeferredPlugin

OPTIONAL = {
    "argon2",
    "authlib",
    "cryptography",
    "httpx2",
    "itsdangerous",
    "jwt",
    "opentelemetry",
    "re2",
    "redis",
    "yaml",
}
"""Packages that only some plugins need, or none."""
NEEDS = {
    "basic_auth": {"argon2"},
    "cors": {"re2"},
    "etag": set(),
    "fault_injection": set(),
    "forward_auth": set(),
    "gzip": set(),
    "hmac_auth": set(),
    "ip_access": set(),
    "jwt_auth": {"cryptography", "httpx2", "jwt"},
    "key_auth": set(),
    "limit_count": set(),
    "limit_req": set(),  # redis-py is imported when a route names a Redis
    "oidc": {"authlib", "cryptography", "httpx2", "jwt"},
    "otel": {"opentelemetry"},
    "request_body_rewrite": set(),
    "request_id": set(),
    "response_rewrite": {"re2"},
    "rewrite": set(),
    "say": set(),
    "server_timing": set(),
    "session": {"itsdangerous"},
    "stop": set(),
    "trusted_host": set(),
}
"""Plugin's module → the packages among `OPTIONAL` that its import needs."""


def loaded(program: str, blocked: set[str]) -> set[str]:
    """Return the modules that a program loads in a new interpreter without the packages in `blocked`."""
    code = (
        f"import json, sys\nsys.modules.update(dict.fromkeys({sorted(blocked)}))\n"
        f"before = set(sys.modules)\n{program}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def refused(program: str, missing: str) -> str:
    """Return the last line of the error of a program that fails without the package `missing`."""
    code = f"import sys\nsys.modules[{missing!r}] = None\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    return done.stderr.splitlines()[-1]


def test_each_plugin_has_a_module_in_the_table() -> None:
    modules = {path.stem for path in Path(asgi_bridge_apps.__file__).parent.glob("[!_]*.py")}

    assert modules == NEEDS.keys()
    # https-redirect is mounted straight from Starlette
    assert {name.replace("_", "-") for name in modules} == asgi_bridge_apps.bridge.plugins.keys() - {"https-redirect"}


@pytest.mark.parametrize("module", sorted(NEEDS))
def test_a_plugins_module_needs_no_package_of_another_plugin(module: str) -> None:
    found = loaded(f"from asgi_bridge_apps.{module} import *", OPTIONAL - NEEDS[module])

    ours = {name for name in found if name.startswith("asgi_bridge_apps") and "._shared" not in name}
    assert ours == {"asgi_bridge_apps", f"asgi_bridge_apps.{module}"}


@pytest.mark.parametrize(
    ("module", "package"), [(name, each) for name in sorted(NEEDS) for each in sorted(NEEDS[name])]
)
def test_a_plugins_module_needs_its_own_packages(module: str, package: str) -> None:
    message = refused(f"import asgi_bridge_apps.{module}", package)

    assert message.startswith(("ModuleNotFoundError: ", "ImportError: ")) and package in message


@pytest.mark.parametrize(
    ("module", "package"), [("basic_auth", "argon2"), ("jwt_auth", "httpx2"), ("jwt_auth", "cryptography")]
)
def test_the_command_line_names_the_package_that_one_plugin_needs(module: str, package: str) -> None:
    program = (
        f"sys.argv[1:] = ['plugins', '--mount', 'x=asgi_bridge_apps.{module}:{module}']\n"
        "from asgi_bridge.cli import main; main()"
    )
    code = f"import sys\nsys.modules[{package!r}] = None\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert f"asgi_bridge_apps.{module} needs {package}" in line and 'pip install "asgi_bridge[apps]"' in line


def test_the_package_alone_loads_nothing_heavy() -> None:
    found = loaded("import asgi_bridge_apps; dir(asgi_bridge_apps)", OPTIONAL)

    assert {name for name in found if name.startswith("asgi_bridge")} == {"asgi_bridge_apps"}
    assert not found & {"asyncio", "pydantic", "starlette", "uvicorn"}


def test_the_bridge_is_made_at_its_first_use_and_once() -> None:
    loaded(
        "import asgi_bridge_apps\n"
        "assert 'bridge' not in vars(asgi_bridge_apps) and {'bridge', 'ready_made'} <= set(dir(asgi_bridge_apps))\n"
        "from asgi_bridge_apps import bridge, ready_made\n"
        "assert asgi_bridge_apps.bridge is bridge and ready_made() is not bridge\n"
        "from asgi_bridge_apps import *\n"
        "assert ready_made is asgi_bridge_apps.ready_made and bridge is asgi_bridge_apps.bridge",
        set(),
    )


def test_the_bridge_loads_a_plugin_when_a_route_lists_it() -> None:
    found = loaded("from asgi_bridge_apps import bridge; bridge.plugins['say'].load()", {"redis", "yaml"})

    ours = {name for name in found if name.startswith("asgi_bridge_apps") and "._shared" not in name}
    assert ours == {"asgi_bridge_apps", "asgi_bridge_apps._mounts", "asgi_bridge_apps.say"}
    assert not {name.partition(".")[0] for name in found} & OPTIONAL


def test_every_deferred_plugin_is_what_its_mount_says() -> None:
    for name, plugin in ready_made().plugins.items():
        assert isinstance(plugin, DeferredPlugin) and not plugin.is_loaded
        mounted = plugin._mount()
        assert (mounted.name, mounted.source, mounted.options) == (name, plugin.source, plugin.options)


def test_all_packages_are_there_before_a_plugin_is_mounted() -> None:
    assert set(NEEDED) == set().union(*NEEDS.values())


@pytest.mark.parametrize("name", ["brige", "readymade", "_private", "jwt"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'asgi_bridge_apps' has no attribute '{name}'"):
        getattr(asgi_bridge_apps, name)


def test_the_package_alone_stands_for_its_bridge() -> None:
    command = [sys.executable, "-m", "asgi_bridge", "plugins"]

    assert subprocess.check_output([*command, "asgi_bridge_apps"]) == subprocess.check_output(
        [*command, "asgi_bridge_apps:bridge"]
    )
