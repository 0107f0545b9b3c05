"""The documents: their links lead somewhere, their code compiles, and the commands and files that they name exist."""

import ast
import contextlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest

from asgi_bridge.cli import cli, options
from tests.test_rooms import MAY_IMPORT, SMALL

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asgi_bridge"
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "benchmarks/*.md") for page in ROOT.glob(pattern)
)
WRITTEN = [page for page in PAGES if page.name not in ("CHANGELOG.md", "compatibility.md")]
"""Pages that describe the code as it is: not its history, and not a page that a program has made."""

OF_OTHERS = {"--root-path", "--config-settings", "--limit", "--profile", "--write"}
"""Options of other programs that a page names by themselves: uvicorn's, pip's, those of the benchmarks."""
OF_READERS = {"gate.py"}
"""Files that a page tells its reader to write."""


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """The code blocks of a page, each with the line that it begins on."""
    text = text_of(page)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if found[1] in languages:
            yield text.count("\n", 0, found.start(2)) + 1, found[2]


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


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
            found = re.search(r"(?:^|[ =/])(asgi-bridge (?:run|dev|plugins|compat)\b.*)", line)
            if found:
                yield found[1].partition(" #")[0]
    yield from (span for span in spans(page) if re.match(r"asgi-bridge [a-z]", span))


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
        # folders and files stand for the reader's own
        with (
            mock.patch.object(options.FOLDER, "exists", False),
            mock.patch.object(options.FILE, "exists", False),
            contextlib.suppress(click.MissingParameter),  # a sentence may name the command alone
        ):
            cli.commands[subcommand].make_context(subcommand, arguments, parent=parent)


@every_page
def test_options_named_by_themselves_exist(page: Path) -> None:
    known = {option for command in cli.commands.values() for each in command.params for option in each.opts}
    known |= {option for command in cli.commands.values() for each in command.params for option in each.secondary_opts}
    named = {span.split()[0].partition("=")[0] for span in spans(page) if span.startswith("--")}
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
    for row in re.findall(
        r"^\| `([\w.]+)/?` \|.*\| ([^|]+) \|$", text_of(ROOT / "docs" / "architecture.md"), re.MULTILINE
    ):
        table[row[0].removesuffix(".py")] = set(re.findall(r"`(\w+)`", row[1]))
    assert table == {
        room: others - SMALL if others >= SMALL else others for room, others in MAY_IMPORT.items() if room not in SMALL
    }
