"""Options that several commands have, and what their values stand for."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..loading import Source

__all__ = [
    "FILE",
    "FOLDER",
    "Mount",
    "Permissions",
    "Workers",
    "complete_file",
    "env_file_option",
    "find_source",
    "is_given",
    "listed",
    "log_level_option",
    "mount_options",
    "plugin_options",
    "read_environment",
    "source_options",
    "uds_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(exists=True, file_okay=False)
"""Type of an option whose value is a folder that exists."""
FILE = click.Path(exists=True, dir_okay=False)
"""Type of an option whose value is a file that exists."""
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
"""Values of ``--log-level``."""


class Mount(click.ParamType[tuple[str, str]]):
    """An option's value ``NAME=module:attr``, as the tuple (name, target)."""

    name = "NAME=module:attr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Convert the value, as click wants it. Fails with click's usage error."""
        if isinstance(value, tuple):
            return value
        name, equals, target = value.partition("=")
        if not (name and equals and target):
            self.fail(f"{value!r} is not of the form NAME=module:attr", param, ctx)
        return name, target


class Permissions(click.ParamType[int]):
    """An option's value that is a file mode in octal digits, as an int."""

    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert the value, as click wants it. Fails with click's usage error."""
        if isinstance(value, int):
            return value
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            self.fail(f"{value!r} is not an octal mode such as 660", param, ctx)
        return mode


def complete_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete a value that may be the path of a file, as TARGET may. The shell knows the files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


class Workers(click.ParamType[int]):
    """An option's value that is a number of processes, or ``auto``: one for each usable core."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert the value, as click wants it. Fails with click's usage error."""
        if value == "auto":
            from ..supervisor.cores import usable_cores

            return usable_cores()
        with contextlib.suppress(ValueError):
            if int(value) >= 1:
                return int(value)
        self.fail(f"{value!r} is neither a number of processes, 1 or more, nor auto", param, ctx)


def source_options(command: Command) -> Command:
    """Add the argument and the options that say where the plugins come from: see `find_source`."""
    return click.argument("target", required=False, shell_complete=complete_file)(mount_options(command))


def mount_options(command: Command) -> Command:
    """Add the options of `source_options`, and no argument."""
    for decorate in (
        click.option(
            "--mount", "mounts", type=Mount(), multiple=True, help="One more plugin. May be given several times."
        ),
        click.option(
            "--allow", multiple=True, metavar="PATH|URL",
            help="File, folder or server that routes may name. May be given several times.",
        ),
        click.option(
            "--app-dir", type=FOLDER, default=".", show_default=True,
            help="Folder to look for modules and pyproject.toml in.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


env_file_option = click.option("--env-file", type=FILE, help="Environment configuration file, read first.")


def plugin_options(command: Command) -> Command:
    """Add the arguments and the option that name plugins with their configurations: see `listed`."""
    command = click.option(
        "--conf", "confs", multiple=True, metavar="JSON",
        help="Configuration of a PLUGIN: the first is for the first PLUGIN, and so on.  [default: {}]",
    )(command)  # fmt: skip
    return click.argument("plugins", nargs=-1, metavar="[PLUGIN]...")(command)


def listed(plugins: Sequence[str], confs: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names and configurations that `plugin_options` gave. A plugin without a configuration gets ``{}``.

    Raises:
        click.UsageError: There are more configurations than plugins.
    """
    if len(confs) > len(plugins):
        raise click.UsageError(f"--conf is given {len(confs)} times, and there are {len(plugins)} plugins")
    return [(name, confs[number] if number < len(confs) else "{}") for number, name in enumerate(plugins)]


def uds_option(text: str) -> Callable[[Command], Command]:
    """Make the option ``--uds`` of a command that speaks with a running runner.

    Args:
        text: What the help says of it.
    """
    return click.option(
        "--uds", envvar="APISIX_LISTEN_ADDRESS", metavar="PATH", help=f"{text}  [default: APISIX_LISTEN_ADDRESS]"
    )


def log_level_option(default: str) -> Callable[[Command], Command]:
    """Make the option ``--log-level``.

    Args:
        default: What the help shows as the default. The command gets None where the option is not given.
    """
    return click.option(
        "--log-level", type=click.Choice(LOG_LEVELS), default=None, help=f"Log level.  [default: {default}]"
    )


def find_source(
    target: str | None, mounts: tuple[tuple[str, str], ...], app_dir: str, allow: tuple[str, ...] = ()
) -> "Source":
    """Make the source of the plugins from the values of `source_options`. Call it while a command runs.

    Args:
        target: ``module:attr``, a module or a file; None: pyproject.toml or entry points.
        mounts: Values of ``--mount``: names and targets.
        app_dir: Value of ``--app-dir``.
        allow: Values of ``--allow``.

    Raises:
        ConfigurationError: ``--mount`` names a plugin twice, or a file does not exist or is not a module.
    """
    from ..loading import make_source

    return make_source(target, mounts, app_dir, allow, given=is_given("app_dir"))


def is_given(name: str) -> bool:
    """Return whether the user gives an option, on the command line or in the environment. Call it while a command runs.

    Args:
        name: The option's parameter.
    """
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def read_environment(env_file: str | None) -> None:
    """Read the file of ``--env-file`` into the environment.

    Args:
        env_file: Path of the file; None does nothing.

    Raises:
        ConfigurationError: The file cannot be read, or python-dotenv is not installed.
    """
    if env_file is not None:
        from ..environment import load_environment

        load_environment(env_file)
