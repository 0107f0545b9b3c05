"""``asgi-bridge check``: compares route files with the plugins, before the routes are deployed."""

import sys
from pathlib import Path

import click

from ..errors import ConfigurationError
from .options import Workers, env_file_option, find_source, mount_options, read_environment

__all__ = ["check"]

STANDARD_INPUT = "-"
"""Name that stands for standard input."""


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[TARGET] ROUTES...")
@mount_options
@env_file_option
@click.option(
    "--limit-configuration-size", type=click.IntRange(min=1), default=131_072, show_default=True,
    help="Bytes that a route's configuration of one plugin may have.",
)  # fmt: skip
@click.option(
    "--workers", type=Workers(), default="1", show_default=True, help="Processes that will serve; auto: as for run."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True,
    help="Lines for people, one JSON object, or annotations for GitHub Actions.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
def check(
    arguments: tuple[str, ...], mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    env_file: str | None, limit_configuration_size: int, workers: int, form: str, strict: bool,
) -> None:  # fmt: skip
    """Check routes against the plugins, before they are deployed.

    ROUTES are files, or - for standard input: an apisix.yaml, JSON of the Admin API, ADC's YAML, or resources of the
    ingress controller for Kubernetes. The first argument is TARGET if it names no route file.

    The exit code is 0 if nothing is wrong, 1 if there are errors, and 2 if the check cannot run.
    """
    from ..check import check_files
    from ..check.output import FORMATS, count
    from ..check.workers import counted_apart

    read_environment(env_file)
    target, names = (None, arguments) if _is_route_file(arguments[0]) else (arguments[0], arguments[1:])
    if not names:
        raise ConfigurationError(
            f"no route file: {target} names plugins; write a route file behind it, or - for standard input"
        )
    files = [_read(name) for name in dict.fromkeys(names)]
    plugins = find_source(target, mounts, app_dir, allow).load()
    findings = [*check_files(files, plugins, limit=limit_configuration_size), *counted_apart(plugins, workers)]
    for line in FORMATS[form](findings):
        click.echo(line)
    errors, warnings = count(findings)
    if errors or (strict and warnings):
        sys.exit(1)


def _is_route_file(name: str) -> bool:
    path = Path(name)
    return (
        name == STANDARD_INPUT
        or path.suffix in (".yaml", ".yml", ".json")
        or (path.suffix != ".py" and path.exists() and not path.is_dir())
    )


def _read(name: str) -> tuple[str, bytes]:
    """Return the name of a route file for messages, and its content."""
    if name == STANDARD_INPUT:
        return "<stdin>", sys.stdin.buffer.read()
    try:
        return name, Path(name).read_bytes()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(f"{name}: the route file cannot be read: {reason}") from None
