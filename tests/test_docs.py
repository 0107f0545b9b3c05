"""The documents: their links lead somewhere, their code compiles, and the commands and files that they name exist."""

import ast
import contextlib
import inspect
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
from flask import Flask

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.cli import cli, options
from asgi_bridge.loading import load_bridge
from asgi_bridge.testing import PluginClient
from tests.test_rooms import MAY_IMPORT, SMALL

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asgi_bridge"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PASSING = ROOT / "docs" / "passing.md"
PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md") for page in ROOT.glob(pattern)
)
WRITTEN = [
    page
    for page in PAGES
    if page.name not in ("CHANGELOG.md", "compatibility.md", "command-line.md") and page.parent.name != "plugins"
]
"""Pages that describe the code as it is: not its history, and not a page that a program has made."""

OF_OTHERS = {
    *("--root-path", "--config-settings"),
    *("--imports", "--limit", "--list", "--only", "--profile", "--write"),
}
"""Options of other programs that a page names by themselves: uvicorn's, pip's, those of the benchmarks."""
OF_READERS = {"gate.py", "build/docs"}
"""Files that a page tells its reader to write, or to let make build."""


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """The code blocks of a page, each with the line that it begins on."""
    text = text_of(page)
    for found in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if found[1] in languages:
            yield text.count("\n", 0, found.start(2)) + 1, found[2]


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$|^<!-- also run:.*?^-->$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """What stands between backticks in the prose of a page."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page have on GitHub."""
    headings = [re.sub(r"`|\[([^]]*)\]\([^)]*\)", r"\1", text) for text in re.findall(r"^#+ +(.*)", prose(page), re.M)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """The `asgi-bridge` commands of a page, those in its prose too."""
    for _, block in blocks(page, "console", "toml", "yaml"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(rf"(?:^|[ =/])(asgi-bridge (?:{'|'.join(cli.commands)})\b.*)", line)
            if found:
                yield re.split(" [#>|] ?", found[1])[0]
    # a usage line is no command
    yield from (span for span in spans(page) if re.match(r"asgi-bridge [a-z]", span) and "[OPTIONS]" not in span)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


@every_page
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@every_page
def test_code_blocks_can_be_read(page: Path) -> None:
    for line, block in blocks(page, "python"):
        compile(block, f"{page}:{line}", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for _, block in blocks(page, "toml"):
        tomllib.loads(block)


@every_page
def test_commands_have_the_options_that_they_are_given(page: Path) -> None:
    for command in commands(page):
        program, subcommand, *arguments = shlex.split(command)
        assert (program, subcommand in cli.commands) == ("asgi-bridge", True), command
        parent = click.Context(cli, **cli.context_settings)
        named = cli.commands[subcommand]
        if isinstance(named, click.Group):
            if not arguments:
                continue  # a sentence may name the command alone
            assert arguments[0] in named.commands, command
            subcommand, *arguments = arguments
            named = named.commands[subcommand]
        # folders and files stand for the reader's own
        with (
            mock.patch.object(options.FOLDER, "exists", False),
            mock.patch.object(options.FILE, "exists", False),
            contextlib.suppress(click.MissingParameter),  # a sentence may name the command alone
        ):
            named.make_context(subcommand, arguments, parent=parent)


@every_page
def test_options_named_by_themselves_exist(page: Path) -> None:
    of_groups = [group.commands for group in cli.commands.values() if isinstance(group, click.Group)]
    every = [command for commands in (cli.commands, *of_groups) for command in commands.values()]
    known = {option for command in every for each in command.params for option in [*each.opts, *each.secondary_opts]}
    named = {span.split()[0].partition("=")[0].removesuffix(":") for span in spans(page) if span.startswith("--")}
    assert named - known - OF_OTHERS == set()


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_files_of_this_repository_that_a_page_names_exist(page: Path) -> None:
    missing = []
    for span in spans(page):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) or span in OF_READERS:
            continue
        first, slash, _ = span.partition("/")
        if slash and (ROOT / first).is_dir():
            found = [ROOT / span]
        elif slash and (PACKAGE / first).is_dir():
            found = [PACKAGE / span]
        elif page.name == "architecture.md" and span.endswith(".py"):
            found = [*PACKAGE.rglob(span)]
        else:
            continue
        if not any(path.exists() for path in found):
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_targets_of_make_that_a_page_names_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    text = "\n".join([*spans(page), *(block for _, block in blocks(page, "console"))])
    named = re.findall(r"^(?:\$ )?(?:[A-Z]+=\S+ )?make ([a-z][a-z-]*)", text, re.MULTILINE)
    assert set(named) - {*targets} == set()


def test_the_table_of_rooms_says_what_each_may_import() -> None:
    table: dict[str, set[str]] = {}
    for row in re.findall(r"^\| `([\w.]+)/?` \|.*\| ([^|]+) \|$", text_of(ARCHITECTURE), re.MULTILINE):
        table[row[0].removesuffix(".py")] = set(re.findall(r"`(\w+)`", row[1]))
    assert table == {
        room: others - SMALL if others >= SMALL else others for room, others in MAY_IMPORT.items() if room not in SMALL
    }


SHORT = [ROOT / "docs" / f"{each}.md" for each in ("architecture", "mapping", "operation", "phases")]
"""Pages with examples of a few lines. `tests/manual` runs those of all other pages."""
NAMES_OF_EXAMPLES = """
from typing import Annotated
from asgi_bridge import Bridge
from asgi_bridge_apps.limit_req import limit_req
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
bridge = Bridge()
"""
"""What the short examples of the documents leave out."""


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page in SHORT for _, block in blocks(page, "python")],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_short_examples_run(page: Path, block: str) -> None:
    names: dict[str, Any] = {"__name__": "gate"}
    exec(NAMES_OF_EXAMPLES, names)
    before = len(names["bridge"].plugins)
    exec(block, names)
    # Django's views are mounted in a project
    assert len(names["bridge"].plugins) > before or "Conf" in names or "urlpatterns" in names


def test_the_wrong_and_the_right_guard_do_as_the_page_says() -> None:
    wrong, right = (block for _, block in blocks(PASSING, "python") if "def login" in block)
    statuses = []
    for block in (wrong, right):
        names: dict[str, Any] = {"__name__": "gate"}
        exec(block, names)
        with PluginClient(names["bridge"], "login") as client:
            statuses.append([client.get("/x", headers=headers).status_code for headers in ({}, {"x-api-key": "a"})])
    assert statuses == [[200, 200], [401, 200]]


MODULES = {
    "gate.py": "from asgi_bridge import Bridge\nbridge = Bridge()",
    "shop/hello.py": "async def app(scope, receive, send): ...",
    "shop/auth.py": """
        from starlette.authentication import AuthenticationBackend
        backend = AuthenticationBackend()
        def make(conf: dict[str, str]):
            from asgi_bridge import upstream
            return upstream
    """,
    "shop/flask.py": "def app(environ, start_response): ...",
}
"""The modules that the table in the document names."""


def test_the_table_of_a_pyproject_mounts_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, table),) = blocks(ARCHITECTURE, "toml")
    (tmp_path / "pyproject.toml").write_text(table)
    (tmp_path / "shop").mkdir()
    for path, text in MODULES.items():
        (tmp_path / path).write_text(inspect.cleandoc(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("gate", "shop", "shop.hello", "shop.auth", "shop.flask"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    try:
        plugins = load_bridge(None, start=tmp_path).plugins
    finally:
        for module in ("gate", "shop", "shop.hello", "shop.auth", "shop.flask"):
            sys.modules.pop(module, None)

    assert {name: plugin.source for name, plugin in plugins.items()} == {
        "hello": "app", "cors": "middleware", "login": "middleware", "legacy": "wsgi", "proxy": "wsgi_middleware",
        "auth": "factory",
    }  # fmt: skip


def test_the_message_about_a_wrong_mount_is_as_shown() -> None:
    (message,) = re.findall(r"^```\n(plugin x: .*)\n```$", text_of(ARCHITECTURE), re.MULTILINE)
    with pytest.raises(ConfigurationError) as raised:
        Bridge().mount("x", Flask("shop"))  # type: ignore[arg-type]
    assert str(raised.value) == message
