"""``module:attr`` strings."""

from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.plugins.importing import import_string, is_import_string, located


@pytest.mark.parametrize("text", ["a:b", "a.b.c:d.e", "_a1:_b2"])
def test_what_reads_as_module_and_attribute(text: str) -> None:
    assert is_import_string(text)


@pytest.mark.parametrize("value", ["", "a", "a:", ":b", "a:b:c", "a b:c", "a.:b", "1a:b", "http://a", "a:b\n", 5, None])
def test_what_does_not(value: object) -> None:
    assert not is_import_string(value)


def test_imports_attributes_of_attributes() -> None:
    assert import_string("pathlib:Path.cwd") == Path.cwd


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("pathlib", '\'pathlib\' is not of the form "module:attr", such as "myapp.main:bridge"'),
        (
            "nowhere_at_all.sub:x",
            "cannot import 'nowhere_at_all.sub:x': no module named 'nowhere_at_all'; "
            "is it installed, and does --app-dir point to it?",
        ),
        (
            "json.nowhere:x",
            "cannot import 'json.nowhere:x': no module named 'json.nowhere'; "
            "is it installed, and does --app-dir point to it?",
        ),
        (
            "pathlib:Path.nothing.at_all",
            "cannot import 'pathlib:Path.nothing.at_all': 'pathlib' has no attribute 'Path.nothing.at_all'",
        ),
    ],
)
def test_what_cannot_be_imported_is_said(target: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_string(target)

    assert str(caught.value) == reason


def test_an_error_inside_the_module_is_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacks_a_dependency.py").write_text("import nowhere_at_all")
    (tmp_path / "divides_by_zero.py").write_text("1 / 0")
    (tmp_path / "has_no_name.py").write_text("raise ModuleNotFoundError('odd')")

    (tmp_path / "ends_the_process.py").write_text("raise SystemExit(3)")

    causes = {}
    for name in ("lacks_a_dependency", "divides_by_zero", "has_no_name", "ends_the_process"):
        with pytest.raises(ConfigurationError) as caught:
            import_string(f"{name}:x")
        causes[str(caught.value)] = type(caught.value.__cause__)
    assert causes == {
        "cannot import 'lacks_a_dependency:x': ModuleNotFoundError: No module named 'nowhere_at_all'":
            ModuleNotFoundError,
        "cannot import 'divides_by_zero:x': ZeroDivisionError: division by zero": ZeroDivisionError,
        "cannot import 'has_no_name:x': ModuleNotFoundError: odd": ModuleNotFoundError,
        "cannot import 'ends_the_process:x': SystemExit: 3": SystemExit,
    }  # fmt: skip


def test_a_mistake_of_the_modules_own_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mounts_a_number.py").write_text("from asgi_bridge import Bridge\nb = Bridge()\n\nb.mount('x', 5)\n")

    with pytest.raises(ConfigurationError) as caught:
        import_string("mounts_a_number:b")
    assert str(caught.value).endswith(f" ({tmp_path}/mounts_a_number.py, line 4)")


@pytest.mark.parametrize(
    ("target", "guess"), [("pathlib:path", "Path"), ("pathlib:Path.exist", "exists"), ("json:dump_s", "dumps")]
)
def test_a_misspelt_attribute_is_guessed(target: str, guess: str) -> None:
    with pytest.raises(ConfigurationError, match=f"; did you mean '{guess}'"):
        import_string(target)


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("target", "app_dir", "module", "folder"),
    [
        ("gate:bridge", None, "gate:bridge", "."),
        ("gate", None, "gate", "."),
        ("gate", "src", "gate", "src"),
        ("gate.py", None, "gate", "HERE"),
        ("./gate.py:bridge", None, "gate:bridge", "HERE"),
        ("src/main.py:app.inner", None, "main:app.inner", "HERE/src"),
        ("src/../gate.py", None, "gate", "HERE"),
        ("HERE/shop/deep/gate.py", None, "shop.deep.gate", "HERE"),
        ("shop/__init__.py", None, "shop", "HERE"),
        ("src/main.py", ".", "src.main", "HERE"),
        ("shop/deep/gate.py:x", "shop", "deep.gate:x", "HERE/shop"),
    ],
)
def test_a_file_is_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, app_dir: str | None, module: str, folder: str
) -> None:
    files(tmp_path, "gate.py", "src/main.py", "shop/__init__.py", "shop/deep/__init__.py", "shop/deep/gate.py")
    monkeypatch.chdir(tmp_path)

    assert located(target.replace("HERE", str(tmp_path)), app_dir) == (module, folder.replace("HERE", str(tmp_path)))


@pytest.mark.parametrize(
    ("target", "app_dir", "reason"),
    [
        ("nothing.py", None, "nothing.py: there is no such Python file"),
        ("src/main.py:app", None, "src/main.py: there is no such Python file"),
        ("src", None, None),
        ("src/", None, "src/: there is no such Python file"),
        ("my-gate.py", None, "my-gate.py: 'my-gate' is no name of a module; rename the file"),
        ("gate.py", "src", "gate.py is outside of --app-dir src"),
        ("", None, '\'\' names no module; it has to be like "gate", "gate.py" or "gate:bridge"'),
        (".", None, '\'.\' names no module; it has to be like "gate", "gate.py" or "gate:bridge"'),
        ("..:app", None, '\'..:app\' names no module; it has to be like "gate", "gate.py" or "gate:bridge"'),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, app_dir: str | None, reason: str | None
) -> None:
    files(tmp_path, "gate.py", "my-gate.py", "src/other.py")
    monkeypatch.chdir(tmp_path)

    if reason is None:
        assert located(target, app_dir) == (target, ".")
        return
    with pytest.raises(ConfigurationError) as caught:
        located(target, app_dir)
    assert str(caught.value) == reason
