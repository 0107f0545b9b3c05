"""No file and no class grows beyond what a reader can hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("asgi_bridge", "apps") for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 500
MAX_ATTRIBUTES = 15


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """The attributes of a class's instances: annotated, listed in ``__slots__``, or set on ``self``."""
    found = {
        item.target.id for item in cls.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for item in cls.body:
        if isinstance(item, ast.Assign) and [ast.unparse(target) for target in item.targets] == ["__slots__"]:
            slots = ast.literal_eval(item.value)
            found |= {slots} if isinstance(slots, str) else set(slots)
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found - {"__dict__", "__weakref__"}


def classes() -> Iterator[tuple[str, set[str]]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield f"{path.relative_to(ROOT)}: {node.name}", attributes_of(node)


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length >= MAX_LINES} == {}


def test_no_class_has_many_attributes() -> None:
    counted = {name: len(found) for name, found in classes()}
    assert {name: number for name, number in counted.items() if number > MAX_ATTRIBUTES} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class A:\n    a: int\n    b = 1", {"a"}),
        ("class A:\n    __slots__ = ('a', '__weakref__')", {"a"}),
        ("class A:\n    __slots__ = 'a'", {"a"}),
        (
            "class A:\n    def f(self):\n        self.a, other.b = 1, 2\n        self.c += 1\n        print(self.d)",
            {"a", "c"},
        ),
    ],
)
def test_what_counts(text: str, found: set[str]) -> None:
    (cls,) = ast.parse(text).body
    assert isinstance(cls, ast.ClassDef)
    assert attributes_of(cls) == found
