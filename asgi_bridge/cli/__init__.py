"""The command line, ``asgi-bridge``.

Each command is a module. A command imports what it works with when it runs: ``asgi-bridge --help`` loads every command,
and is quick because none of them has loaded uvicorn, Starlette or pydantic by then.
"""

import sys
from collections.abc import Sequence

import click

from ..compiled import core_in_use
from ..errors import BridgeError
from ..tracebacks import own_lines
from . import call, check, compat, completion, dev, doctor, generate, health, new, plugins, replay, run

__all__ = ["cli", "main"]


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"asgi-bridge, version {version('asgi_bridge')}, core: {core_in_use()}")
        context.exit()


@click.group(context_settings={"auto_envvar_prefix": "ASGI_BRIDGE", "help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version, and whether the compiled core is in use.",
)  # fmt: skip
def cli() -> None:
    """ASGI applications and middleware as plugins of the Apache APISIX gateway.

    TARGET is "module:attr" of a Bridge, of a function that returns one, or of an ASGI application; a module or a file
    stands for its Bridge, else its application. Without it the [tool.asgi_bridge] table of the nearest pyproject.toml
    says what to run, else the entry points of the group asgi_bridge.plugins.
    """


cli.add_command(new.new)
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

    An error is printed to stderr in one line, and ends the process with exit code 2. Where lines of the user's own
    files led to it, they come first. That holds for a wrong command line too: it has the one line that says what to
    do, without click's lines about usage.

    Args:
        arguments: Of the command line; None: those of this process.
        make_runner: Makes the runner of the command ``run``; None: the usual one.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cli.main(arguments, prog_name="asgi-bridge", standalone_mode=False, obj=make_runner)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        path = _command_path(arguments) if context is None else context.command_path
        message = exc.format_message()
        if isinstance(exc, click.UsageError) and not message.endswith("?"):  # a question names what to write
            message = f"{message.rstrip('.')}; {path} --help says more"
        click.echo(f"{path}: {message}", err=True)
        sys.exit(exc.exit_code)
    except click.Abort:
        click.echo("Aborted!", err=True)
        sys.exit(1)
    except BridgeError as exc:
        click.echo(f"{own_lines(exc)}asgi-bridge: {exc}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _command_path(arguments: Sequence[str]) -> str:
    """Return the command that the command line names, for an error of click that does not know it."""
    path, group = "asgi-bridge", cli
    for argument in arguments:
        command = group.commands.get(argument)
        if command is None:
            break
        path = f"{path} {argument}"
        if not isinstance(command, click.Group):
            break
        group = command
    return path
