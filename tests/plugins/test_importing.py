"""``module:attr`` strings."""

from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.plugins.importing import import_string, is_import_string


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


def test_an_error_inside_the_module_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacks_a_dependency.py").write_text("import nowhere_at_all")
    (tmp_path / "divides_by_zero.py").write_text("1 / 0")
    (tmp_path / "has_no_name.py").write_text("raise ModuleNotFoundError('odd')")

    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        import_string("lacks_a_dependency:x")
    with pytest.raises(ZeroDivisionError):
        import_string("divides_by_zero:x")
    with pytest.raises(ModuleNotFoundError, match="odd"):
        import_string("has_no_name:x")
