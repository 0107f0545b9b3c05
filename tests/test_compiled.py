"""Which core is used, compiled or pure Python, and what is said about it."""

import os
import shutil
import subprocess
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import asgi_bridge.server.worker  # noqa: F401 - as a runner does: some modules cannot be loaded before their twins
from asgi_bridge import compiled
from asgi_bridge.compiled import MODULES, core_in_use, sources_digest, twin

NAME = MODULES[0]
PACKAGE = Path(compiled.__file__).parent
AGAIN = "install the package again (pip install -e .) to compile it"

pytestmark = pytest.mark.skipif(
    core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1",
    reason="the compiled core is not in use",
)


def core_with(**variables: str) -> tuple[int, str, str]:
    """Run a process that says which core it uses. Returns exit code, output, last line of errors."""
    code = (
        "from asgi_bridge.wire.codec import CODECS; from asgi_bridge.compiled import core_in_use\n"
        "print(CODECS[0].name, '|', core_in_use())"
    )
    environment = {**os.environ, "ASGI_BRIDGE_COMPILED": "", **variables}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    return done.returncode, done.stdout, (done.stderr.splitlines() or [""])[-1]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package, as it is installed."""
    ignored = shutil.ignore_patterns("__pycache__", "templates", "page")
    return Path(shutil.copytree(PACKAGE, tmp_path / "asgi_bridge", ignore=ignored))


@pytest.fixture
def folder(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for this process."""
    monkeypatch.setattr(compiled, "_FOLDER", copied)
    monkeypatch.setattr(compiled, "_reasons", {})
    monkeypatch.setattr(compiled.sources_digest, "__defaults__", (copied,))
    monkeypatch.delenv("ASGI_BRIDGE_COMPILED", raising=False)
    return copied


def binary(folder: Path) -> Path:
    spec = PathFinder.find_spec(NAME, [str(folder / NAME.partition(".")[0])])
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def test_the_compiled_core_is_in_use() -> None:
    assert core_with() == (0, "compiled | compiled\n", "")
    assert core_with(ASGI_BRIDGE_COMPILED="1") == (0, "compiled | compiled\n", "")
    for name in MODULES:
        module = twin(name)
        assert module is not None
        assert module.SOURCES == sources_digest() != ""


def test_the_sources_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def reading(place: Path) -> str:
        read.append(place)
        return sources_digest(place)

    monkeypatch.setattr(compiled, "sources_digest", reading)
    assert core_in_use() == "compiled"
    assert core_in_use() == "compiled"
    assert read == [folder]


def test_pure_python_is_forced() -> None:
    assert core_with(ASGI_BRIDGE_PURE="1") == (0, "python | pure Python: ASGI_BRIDGE_PURE is set\n", "")


def test_nobody_may_ask_for_both() -> None:
    said = "ImportError: ASGI_BRIDGE_PURE and ASGI_BRIDGE_COMPILED are both set: unset one of them"
    assert core_with(ASGI_BRIDGE_PURE="1", ASGI_BRIDGE_COMPILED="1") == (1, "", said)


def test_a_core_that_is_not_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.glob("*/*.so"):
        path.unlink()
    assert twin(NAME) is None
    assert core_in_use() == "pure Python: " + "; ".join(f"asgi_bridge.{each} is not built" for each in MODULES)
    monkeypatch.setenv("ASGI_BRIDGE_COMPILED", "1")
    with pytest.raises(ImportError) as caught:
        twin(NAME)
    assert str(caught.value) == f"ASGI_BRIDGE_COMPILED is set, but asgi_bridge.{NAME} is not built; {AGAIN}"


def test_a_core_that_is_built_in_part(folder: Path) -> None:
    binary(folder).unlink()
    rest = [each for each in MODULES if each != NAME]
    assert core_in_use().startswith("compiled in part: " if rest else "pure Python: ")
    assert core_in_use().endswith(f"asgi_bridge.{NAME} is not built")


def test_a_stale_core_is_not_used_and_warned_of_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / f"{NAME.replace('.', '/')}.pyx").open("a") as source:
        source.write("# changed\n")
    reason = f"asgi_bridge.{NAME} is stale: its sources have changed since it was compiled"
    with pytest.warns(RuntimeWarning) as caught:
        assert twin(NAME) is None
    assert [str(each.message) for each in caught] == [f"{reason}; pure Python is used. To use it, {AGAIN}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [twin(each) for each in MODULES] == [None] * len(MODULES)
    assert core_in_use().startswith(f"pure Python: {reason}")
    monkeypatch.setenv("ASGI_BRIDGE_COMPILED", "1")
    with pytest.raises(ImportError, match="is stale: its sources have changed"):
        twin(NAME)


def test_without_its_sources_no_core_is_stale(folder: Path) -> None:
    for path in folder.glob("*/*.p[yx][xd]"):
        path.unlink()
    assert sources_digest() == ""
    assert core_in_use() == "compiled"


def test_a_core_that_cannot_be_loaded(copied: Path) -> None:
    binary(copied).write_bytes(b"no library, but " + sources_digest().encode())
    code, out, err = core_with(PYTHONPATH=str(copied.parent))
    assert (code, err) == (0, "")
    name, _, core = out.strip().partition(" | ")
    assert name == "python"
    assert f"asgi_bridge.{NAME} cannot be loaded: " in core
    code, out, err = core_with(PYTHONPATH=str(copied.parent), ASGI_BRIDGE_COMPILED="1")
    assert (code, out) == (1, "")
    assert err.startswith(f"ImportError: ASGI_BRIDGE_COMPILED is set, but asgi_bridge.{NAME} cannot be loaded: ")
