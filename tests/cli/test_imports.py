"""What the command line loads before a command runs."""

import json
import subprocess
import sys

import pytest

HEAVY = ["asgiref", "h11", "pydantic", "starlette", "uvicorn", "watchfiles", "yaml"]
LOADED = """
import json, runpy, sys
sys.argv[1:] = {arguments}
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as exit:
    print(json.dumps([exit.code, sorted({heavy} & set(sys.modules))]))
"""


def ended(module: str, *arguments: str) -> tuple[str, list[object]]:
    """Run ``python -m module arguments``. Returns its output, its exit code and the heavy packages it has loaded."""
    code = LOADED.format(arguments=list(arguments), module=module, heavy=set(HEAVY))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return printed, json.loads(last)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["run", "--help"], 0),
        (["dev", "-h"], 0),
        (["plugins", "--help"], 0),
        (["compat", "--help"], 0),
        (["check", "--help"], 0),
        (["call", "--help"], 0),
        (["doctor", "--help"], 0),
        (["health", "--help"], 0),
        (["generate", "--help"], 0),
        (["generate", "route", "--help"], 0),
        (["completion", "--help"], 0),
        (["completion", "bash"], 0),
        (["replay", "--help"], 0),
        (["run", "--workers", "none"], 2),
        (["deploy"], 2),
    ],
)
def test_no_heavy_package_is_loaded_before_a_command_runs(arguments: list[str], code: int) -> None:
    assert ended("asgi_bridge", *arguments)[1] == [code, []]


def test_a_command_loads_what_it_works_with() -> None:
    printed, (code, loaded) = ended("asgi_bridge", "plugins", "starlette.middleware.gzip:GZipMiddleware")
    assert printed.split()[:3] == ["gzip", "middleware", "auto"]
    assert (code, loaded) == (0, ["pydantic", "starlette"])


def test_the_packages_public_names_are_there_although_they_are_imported_late() -> None:
    code = "import asgi_bridge; names = dir(asgi_bridge); from asgi_bridge import *; print(set(asgi_bridge.__all__) <= "
    code += "set(names), all(getattr(asgi_bridge, name) is globals()[name] for name in asgi_bridge.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    import asgi_bridge

    with pytest.raises(AttributeError, match="module 'asgi_bridge' has no attribute 'Brigde'"):
        asgi_bridge.Brigde  # type: ignore[attr-defined]  # noqa: B018
