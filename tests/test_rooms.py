"""Who may import whom: no two files import each other in a circle, and each room knows only the rooms in its row."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import LONGEST

ROOT = Path(__file__).parent.parent
PACKAGES = {"asgi_bridge": "asgi_bridge", "apps": "asgi_bridge_apps"}
"""Folder → the name that it is imported by."""

TEMPLATES = ROOT / "asgi_bridge" / "new" / "templates"
"""Projects of their own, which `asgi-bridge new` copies."""

Graph = dict[str, dict[str, int]]
"""Module → the modules that it imports, each with a line of its that does."""

SMALL = {
    "apisix_constants",
    "compiled",
    "echo",
    "environment",
    "errors",
    "extras",
    "hiding",
    "lifespan",
    "logs",
    "spelling",
    "streams",
    "trace_headers",
    "tracebacks",
}
"""Modules with one small subject, which any room may use."""
BELOW_THE_FACE = {
    "wire",
    "plugins",
    "adapter",
    "passing",
    "wsgi",
    "insight",
    "recording",
    "tracing",
    "succession",
    "supervisor",
    "server",
}

MAY_IMPORT = {
    # the shared modules
    "apisix_constants": set(),
    "compiled": set(),
    "echo": set(),
    "environment": {"errors", "extras"},
    "errors": set(),
    "extras": set(),
    "hiding": set(),
    "lifespan": set(),
    "logs": {"hiding"},
    "spelling": set(),
    "streams": set(),
    "trace_headers": set(),
    "tracebacks": {"errors"},
    # the runner
    "wire": {"compiled", "errors"},
    "plugins": SMALL,
    "adapter": {"wire", "plugins"} | SMALL,
    "passing": {"plugins"} | SMALL,
    "wsgi": {"wire", "plugins", "passing"} | SMALL,
    "insight": {"plugins"} | SMALL,
    "recording": {"wire"} | SMALL,
    "succession": SMALL,
    "supervisor": {"succession", "insight"} | SMALL,
    "tracing": {"wire", "plugins", "adapter"} | SMALL,
    "server": {"wire", "plugins", "adapter", "insight", "recording", "tracing", "succession", "supervisor"} | SMALL,
    # APISIX's half
    "gateway": {"wire"} | SMALL,
    # the public face
    "mounting": {"plugins", "wsgi"} | SMALL,
    "django": {"passing", "wsgi"} | SMALL,
    "bridge": {"mounting", "plugins", "server"} | SMALL,
    "loading": {"bridge", "plugins"} | SMALL,
    "__init__": {"bridge", "passing", "plugins"} | SMALL,
    # what plugin authors and operators use
    "answers": {"wire"} | SMALL,
    "check": {"plugins", "gateway"} | SMALL,
    "compat": {"bridge", "plugins", "adapter", "wsgi"} | SMALL,
    "testing": {"bridge", "check", "gateway", "plugins", "server"} | SMALL,
    "dev_runner": {"adapter", "plugins", "server", "wire"} | SMALL,
    "inspector": {"gateway", "dev_runner", "wire"} | SMALL,
    "dev": {"loading", "check", "gateway", "inspector", "plugins", "server", "succession", "dev_runner"} | SMALL,
    "health": set(),
    "doctor": {"gateway", "wire"} | SMALL,
    "one_call": {"answers", "plugins", "adapter", "gateway", "wire"} | SMALL,
    "generate": {"loading", "plugins"} | SMALL,
    "new": set(SMALL),
    "reference": {"generate", "plugins"} | SMALL,
    "replay": {"wire", "plugins", "adapter", "recording", "server"} | SMALL,
    "cli": {
        "loading",
        "plugins",
        "server",
        "check",
        "compat",
        "dev",
        "doctor",
        "generate",
        "health",
        "new",
        "one_call",
        "reference",
        "replay",
        "dev_runner",
        "succession",
        "supervisor",
    }
    | SMALL,
    "worker": {"loading", "plugins", "server", "supervisor"} | SMALL,
    "__main__": {"cli", "succession", "supervisor", "worker"},
    "apps": {"__init__", "plugins"} | SMALL,
}
"""Room → the other rooms that its files may import. A room is a folder or a module of ``asgi_bridge``, or ``apps``."""


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.is_relative_to(TEMPLATES):
                continue
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports of a module, those inside functions too, but not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for other in node.orelse:
                yield from statements(ast.Module([other], []))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from statements(node)


def targets(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """What a statement in a module of `package` names, as long as nobody knows which of it are modules."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    parts = package.split(".")
    base = parts[: len(parts) + 1 - statement.level] if statement.level else []
    whole = ".".join([*base, *([statement.module] if statement.module else [])])
    yield from (f"{whole}.{alias.name}" for alias in statement.names)


def graph_of(sources: dict[str, tuple[str, bool]]) -> Graph:
    """Who imports whom.

    Args:
        sources: module → its text, and whether it is a package's ``__init__.py``.
    """
    graph: Graph = {}
    for name, (text, is_package) in sources.items():
        imported = graph[name] = {}
        for statement in statements(ast.parse(text)):
            for target in targets(statement, name if is_package else name.rpartition(".")[0]):
                # a name is a module of its own, or is in the module before its last dot
                found = target if target in sources else target.rpartition(".")[0]
                if found in sources and found != name:
                    imported.setdefault(found, statement.lineno)
    return graph


def circle_in(graph: Graph) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty: there is no circle."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in graph[name]:
                found = search(other, [*path, name])
                if found:
                    return found
            done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in graph)), [])


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    return "apps" if package == PACKAGES["apps"] else rest.partition(".")[0] or "__init__"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of({name: (path.read_text("utf-8"), path.name == "__init__.py") for name, path in modules().items()})


def test_no_two_files_import_each_other_in_a_circle(graph: Graph) -> None:
    assert circle_in(graph) == []


def test_each_room_knows_only_the_rooms_in_its_row(graph: Graph) -> None:
    paths = modules()
    assert [
        f"{paths[name].relative_to(ROOT)}:{line}: {room_of(name)} imports {room_of(other)} ({other})"
        for name, imported in graph.items()
        for other, line in imported.items()
        if room_of(other) != room_of(name) and room_of(other) not in MAY_IMPORT[room_of(name)]
    ] == []


def test_every_room_has_a_row(graph: Graph) -> None:
    assert {room_of(name) for name in graph} == MAY_IMPORT.keys()


def test_the_rows_allow_no_circle_between_rooms() -> None:
    assert circle_in({room: dict.fromkeys(others, 0) for room, others in MAY_IMPORT.items()}) == []


def test_nothing_of_the_runner_may_import_the_public_face_or_the_gateway() -> None:
    known = {room: set(others) for room, others in MAY_IMPORT.items()}
    for room in known:
        todo = list(known[room])
        while todo:
            new = MAY_IMPORT[todo.pop()] - known[room]
            known[room] |= new
            todo += new
    below = SMALL | BELOW_THE_FACE
    assert set().union(*(known[room] for room in below)) <= below
    assert known["gateway"] == {"wire"} | SMALL


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        ("import pkg.a.deep", {"pkg.a.deep": 1}),
        ("\nfrom .a import name", {"pkg.a": 2}),
        ("from .a import deep", {"pkg.a.deep": 1}),
        ("from . import a, name", {"pkg.a": 1, "pkg": 1}),
        ("from pkg import a as other", {"pkg.a": 1}),
        ("def f():\n    if x:\n        from .a.deep import name", {"pkg.a.deep": 3}),
        ("if TYPE_CHECKING:\n    from .a import name\nelse:\n    from .a.deep import name", {"pkg.a.deep": 4}),
        ("if typing.TYPE_CHECKING:\n    from .a import name", {}),
        ("try:\n    from .a import name\nexcept ImportError:\n    import other", {"pkg.a": 2}),
    ],
)
def test_what_counts_as_an_import(text: str, imported: dict[str, int]) -> None:
    sources = {"pkg": ("", True), "pkg.a": ("", True), "pkg.a.deep": ("", False), "pkg.b": (text, False)}
    assert graph_of(sources)["pkg.b"] == imported


def test_a_relative_import_starts_at_the_package_of_its_file() -> None:
    sources = {
        "pkg": ("", True),
        "pkg.a": ("from . import deep\nfrom .. import b", True),
        "pkg.a.deep": ("from . import name\nfrom ..b import name", False),
        "pkg.b": ("", False),
    }
    graph = graph_of(sources)
    assert graph["pkg.a"] == {"pkg.a.deep": 1, "pkg.b": 2}
    assert graph["pkg.a.deep"] == {"pkg.a": 1, "pkg.b": 2}
    assert circle_in(graph) == ["pkg.a", "pkg.a.deep", "pkg.a"]


def test_the_test_modules_that_begin_first_exist() -> None:
    assert [module for module in LONGEST if not (ROOT / module).exists()] == []
