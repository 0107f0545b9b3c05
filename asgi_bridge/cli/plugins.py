"""``asgi-bridge plugins``: lists the plugins and what a route may configure."""

import importlib.util
import json
import os
import shutil
import sys

import click

from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .options import complete_file, env_file_option, find_source, mount_options, read_environment

__all__ = ["plugins"]

PIPED_WIDTH = 120
"""Columns of what is not printed to a terminal, unless the variable COLUMNS says another number."""


@click.command()
@click.argument("target", required=False, shell_complete=complete_file)
@click.argument("name", required=False)
@mount_options
@env_file_option
@click.option("--json", "as_json", is_flag=True, help="Name, kind, phase and JSON Schema of each, as JSON.")
@click.option(
    "--route-schema", "as_route_schema", is_flag=True,
    help="A JSON Schema for apisix.yaml with which an editor completes and checks the plugins in routes.",
)  # fmt: skip
def plugins(
    target: str | None, name: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    env_file: str | None, as_json: bool, as_route_schema: bool,
) -> None:  # fmt: skip
    """List the plugins and what a route may configure. NAME: all about one of them, with a route to paste.

    A single argument that is no file, no "module:attr" and no module is a NAME.
    """
    if as_json and as_route_schema:
        raise click.UsageError("--json and --route-schema exclude each other")
    read_environment(env_file)
    if name is None and target is not None and not _is_target(target, app_dir):
        target, name = None, target
    try:
        mounted = find_source(target, mounts, app_dir, allow).load()
    except ConfigurationError as exc:
        if name is None or target is not None:
            raise
        raise ConfigurationError(f"{name!r} is neither a file nor a module, and for a plugin's name: {exc}") from None
    if name is not None and name not in mounted:
        raise ConfigurationError(
            f"plugin {name} is not mounted; mounted are: {', '.join(sorted(mounted))}{did_you_mean(name, mounted)}"
        )
    chosen = mounted if name is None else {name: mounted[name]}
    if as_json:
        described = [plugin.describe() for plugin in chosen.values()]
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return

    from ..reference import route_schema
    from ..reference.terminal import list_of, page_of

    if as_route_schema:
        click.echo(json.dumps(route_schema(chosen), indent=2, ensure_ascii=False))
        return
    width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    lines = list_of(chosen, width) if name is None else page_of(chosen[name], width)
    for line in lines:
        click.echo(line)


def _is_target(text: str, app_dir: str) -> bool:
    """Return whether a single argument says where the plugins come from, and does not name one of them."""
    if ":" in text or "/" in text or text.endswith(".py"):
        return True
    first = text.partition(".")[0]
    if not first.isidentifier() or text in sys.stdlib_module_names:  # `gzip` is the plugin
        return False
    folder = os.path.abspath(app_dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as loading the plugins does
    try:
        return importlib.util.find_spec(first) is not None
    except ValueError:  # of __main__
        return True
