"""The command line, ``asgi-bridge``.

Each command is a module. A command imports what it works with when it runs: ``asgi-bridge --help`` loads every command,
and is quick because none of them has loaded uvicorn, Starlette or pydantic by then.
"""

import sys
from collections.abc import Sequence

import click

from ..errors import BridgeError
from ..tracebacks import own_lines
from . import call, check, compat, completion, dev, doctor, generate, health, plugins, replay, run

__all__ = ["cli", "main"]


@click.group(context_settings={"auto_envvar_prefix": "ASGI_BRIDGE", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asgi_bridge")
def cli() -> None:
    """ASGI applications and middleware as plugins of the Apache APISIX gateway.

    TARGET is "module:attr" of a Bridge, of a function that returns one, or of an ASGI application; a module or a file
    stands for its Bridge, else its application. Without it the [tool.asgi_bridge] table of the nearest pyproject.toml
    says what to run, else the entry points of the group asgi_bridge.plugins.
    """


cli.add_command(run.run)
cli.add_command(dev.dev)
cli.add_command(check.check)
cli.add_command(plugins.plugins)
cli.add_command(compat.compat)
cli.add_command(call.call)
cli.add_command(doctor.doctor)
cli.add_command(health.health)
cli.add_command(generate.generate)
cli.add_command(completion.completion)
cli.add_command(replay.replay)


def main(arguments: Sequence[str] | None = None, make_runner: object = None) -> None:
    """Run the command line.

    An error of this package is printed to stderr in one line, after the lines of the user's own files that led to it,
    and ends the process with exit code 2.

    Args:
        arguments: Of the command line; None: those of this process.
        make_runner: Makes the runner of the command ``run``; None: the usual one.
    """
    try:
        cli(arguments, prog_name="asgi-bridge", obj=make_runner)
    except BridgeError as exc:
        click.echo(f"{own_lines(exc)}asgi-bridge: {exc}", err=True)
        sys.exit(2)
