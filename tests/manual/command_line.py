"""Writes the page of the command line out of the commands: ``python -m tests.manual.command_line``."""

import re
from collections.abc import Iterator

import click

from asgi_bridge.cli import cli

from .blocks import DOCS

__all__ = ["PAGE", "page"]

PAGE = DOCS / "reference" / "command-line.md"
HEAD = """# Command line

`python -m tests.manual.command_line` writes this page out of the commands themselves. Do not edit it by hand.

`asgi-bridge COMMAND --help` says the same. Each option may stand in an environment variable: `ASGI_BRIDGE_RUN_UDS` is
`--uds` of `run`. What goes wrong is printed in one line, and the exit code is 2.

"""


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


def _default(option: click.Option) -> str:
    if option.is_flag:
        return "on" if option.default is True else "off"
    if not option.show_default or option.default is None:
        found = re.search(r"\[default: (.*?)\]", option.help or "")
        return f"`{found[1]}`" if found else ""
    return f"`{option.default}`"


def _section(path: str, command: click.Command) -> Iterator[str]:
    # a command keeps the names of its help option, which are those of the first context
    context = click.Context(command, info_name=path, help_option_names=cli.context_settings["help_option_names"])
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `{path.removeprefix('asgi-bridge ')}`\n\n"
    yield f"Usage: `{path} {usage}`\n\n"
    if command.help:
        yield f"{_cell(command.help.split(chr(8))[0])}\n\n"
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield "| option | value | default | what it does |\n| --- | --- | --- | --- |\n"
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f"`{option.make_metavar(context).strip('[]').replace('|', ' or ')}`"
        help_ = re.sub(r"\s*\[default: .*?\]", "", option.help or "")
        yield f"| {names} | {value} | {_default(option)} | {_cell(help_)} |\n"
    if options:
        yield "\n"


def page() -> str:
    """Return the page."""
    text = HEAD
    for path, command in _commands(cli, "asgi-bridge"):
        text += "".join(_section(path, command))
    return text.rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
