"""`asgi-bridge new`: what it makes works at once, and a name that cannot work is refused."""

import contextlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import pytest

from asgi_bridge.cli import cli, main, options
from asgi_bridge.gateway import load_routes
from asgi_bridge.new import KINDS, make_project

from ..doubles.untraced import untraced

TEMPLATES = Path(__file__).parent.parent.parent / "asgi_bridge" / "new" / "templates"
FLAT = ["README.md", "apisix.yaml", "pyproject.toml", "shop_gate.py", "tests/test_shop_gate.py"]
FILES = dict.fromkeys(KINDS, FLAT) | {
    "django": [
        "README.md", "apisix.yaml", "pyproject.toml", *(f"shop_gate/{name}.py" for name in (
            "__init__", "conf", "gate", "settings", "urls",
        )), "tests/test_shop_gate.py",
    ],
}  # fmt: skip

TESTED_AND_CHECKED = """
import sys, pytest
code = pytest.main(["-q", "-p", "no:cacheprovider"])
if code:
    sys.exit(code)
from asgi_bridge.cli import main
sys.argv[1:] = ["check", "--strict", "apisix.yaml"]
main()
"""
"""What a person types in the new folder, in one process: `pytest`, and `asgi-bridge check`."""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``asgi-bridge new`` in a folder of the test. Returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asgi-bridge", "new", *arguments])
        with pytest.raises(SystemExit) as raised:
            main()
        return (int(raised.value.code or 0), *capsys.readouterr())

    return command


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, env=untraced()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_project_pass_and_its_routes_fit(kind: str, command: Command, tmp_path: Path) -> None:
    code, out, err = command("shop-gate", "--kind", kind)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        *(f"  shop-gate/{name}" for name in FILES[kind]),
        *("", "Next:", "  cd shop-gate", "  pytest", "  asgi-bridge dev"),
    ]
    folder = tmp_path / "shop-gate"
    made = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(made) == sorted(FILES[kind])

    assert re.search(r"^[4-9] passed.*\n0 errors, 0 warnings\n$", run("-c", TESTED_AND_CHECKED, folder=folder), re.M)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_template_is_left(kind: str, tmp_path: Path) -> None:
    project = make_project("shop", kind, tmp_path)
    assert (project.folder, project.missing) == (tmp_path / "shop", [])
    for file in project.files:
        text = (project.folder / file).read_text()
        assert not re.search("my.?plugin", f"{file} {text}", re.IGNORECASE), file
    assert load_routes(project.folder / "apisix.yaml").findings == ()
    described = tomllib.loads((project.folder / "pyproject.toml").read_text())
    (target,) = described["project"]["entry-points"]["asgi_bridge.plugins"].values()
    assert (described["tool"]["asgi_bridge"], described["project"]["name"]) == ({"bridge": target}, "shop")


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_of_its_readme_exist(kind: str) -> None:
    text = (TEMPLATES / kind / "README.md").read_text()
    found = re.findall(r"^asgi-bridge .*|(?<=`)asgi-bridge [a-z][^`]*", text, re.MULTILINE)
    assert len(found) == 5
    for line in found:
        _, name, *arguments = shlex.split(line)
        with (
            mock.patch.object(options.FOLDER, "exists", False),
            mock.patch.object(options.FILE, "exists", False),
            contextlib.suppress(click.exceptions.NoArgsIsHelpError),  # a sentence may name the command alone
        ):
            cli.commands[name].make_context(name, arguments, parent=click.Context(cli, **cli.context_settings))


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_ruff_finds_nothing_in_a_project_of_another_name(tmp_path: Path) -> None:
    for kind in KINDS:
        make_project(f"a-longer-name-for-the-{kind}", kind, tmp_path)
    run("-m", "ruff", "check", "--no-cache", ".", folder=tmp_path)
    run("-m", "ruff", "format", "--no-cache", "--check", ".", folder=tmp_path)


def test_the_default_is_a_middleware(command: Command, tmp_path: Path) -> None:
    assert command("shop_gate")[0] == 0
    assert 'bridge.add_middleware("shop_gate"' in (tmp_path / "shop_gate" / "shop_gate.py").read_text()


def test_what_is_missing_is_to_be_installed_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = {"h11", "flask", "pytest"}
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("asgi_bridge.new.project.find_spec", lambda name: None if name in absent else find_spec(name))
    assert make_project("shop-gate", "flask", tmp_path).missing == [
        'pip install "asgi_bridge[dev]"', "pip install flask pytest",
    ]  # fmt: skip
    assert make_project("shop-app", "app", tmp_path).missing == ['pip install "asgi_bridge[dev]"', "pip install pytest"]


def no_name(name: str, example: str = "shop-gate") -> str:
    return (
        f"{name!r} is no name for a plugin: it has lower-case letters, digits and single hyphens, a letter first, and "
        f"at most 40 characters, such as {example}"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Shop", no_name("Shop", "shop")),
        ("ShopGate", no_name("ShopGate")),
        ("shop gate", no_name("shop gate")),
        ("shop--gate", no_name("shop--gate")),
        ("shop.gate", no_name("shop.gate")),
        ("shop-", no_name("shop-", "shop")),
        ("7shops", no_name("7shops")),
        ("läden", no_name("läden", "l-den")),
        ("", no_name("")),
        (".", no_name(".")),
        ("shop\n", no_name("shop\n", "shop")),
        ("a" * 41, no_name("a" * 41)),
        ("plugins/shop", "plugins/shop is a path: run the command in the folder where the new one belongs"),
        ("/tmp/shop", "/tmp/shop is a path: run the command in the folder where the new one belongs"),
        ("../shop", "../shop is a path: run the command in the folder where the new one belongs"),
        ("class", "class: class is a word of Python's own: take another name, such as class-gate"),
        ("json", "json: the module json would hide another one of that name: take another name, such as json-gate"),
        ("tests", "tests: the module tests would hide another one of that name: take another name, such as tests-gate"),
        (
            "asgi-bridge",
            "asgi-bridge: the module asgi_bridge would hide another one of that name: take another name, such as "
            "asgi-bridge-gate",
        ),
        (
            "fastapi",
            f"fastapi: the module fastapi is installed already ({importlib.util.find_spec('fastapi').origin}): take "  # type: ignore[union-attr]
            "another name, such as fastapi-gate",
        ),
    ],
)
def test_a_name_that_cannot_work_is_refused(name: str, message: str, command: Command, tmp_path: Path) -> None:
    assert command("--", name) == (2, "", f"asgi-bridge: {message}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_left_alone(make: Callable[[Path], object], command: Command, tmp_path: Path) -> None:
    make(tmp_path / "shop-gate")
    message = "asgi-bridge: shop-gate exists already: take another name, or remove it\n"
    assert command("shop-gate") == (2, "", message)
    assert [path.name for path in tmp_path.rglob("*")] == ["shop-gate"]


def test_a_folder_that_does_not_exist_or_cannot_be_written(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        assert command("shop-gate") == (2, "", "asgi-bridge: shop-gate cannot be made: Permission denied\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        assert command("shop-gate") == (2, "", "asgi-bridge: shop-gate cannot be written: Permission denied\n")
    assert not Path("shop-gate").exists()


def test_an_unknown_kind_names_the_known_ones(command: Command) -> None:
    code, _, err = command("shop-gate", "--kind", "falcon")
    assert code == 2
    assert "'falcon' is not one of 'middleware', 'app', 'fastapi', 'flask', 'django', 'auth'" in err
    assert TEMPLATES.is_dir() and {path.name for path in TEMPLATES.iterdir()} == set(KINDS)
