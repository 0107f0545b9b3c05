"""``asgi-bridge new``: makes the folder of a new plugin."""

import shlex
from pathlib import Path

import click

from ..new import KINDS

__all__ = ["new"]


@click.command(help=f"""Make a folder NAME with a plugin: code, configuration, routes and tests.

The tests pass at once, and "asgi-bridge dev" in the folder runs the plugin.

\b
{chr(10).join(f"{kind:12}{text}" for kind, text in KINDS.items())}
""")  # fmt: skip
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="middleware", show_default=True, help="What the plugin is."
)
def new(name: str, kind: str) -> None:
    from ..new import make_project

    project = make_project(name, kind, Path())
    for file in project.files:
        click.echo(f"  {project.folder / file}")
    click.echo("\nNext:")
    for command in (*project.missing, f"cd {shlex.quote(name)}", "pytest", "asgi-bridge dev"):
        click.echo(f"  {command}")
