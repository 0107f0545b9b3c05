"""The command line: ``asgi-bridge run``, ``dev``, ``plugins``, ``compat``."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import BridgeError, ConfigurationError
from .extras import install
from .plugins.importing import located
from .tracebacks import own_lines

if TYPE_CHECKING:
    from .server.serve import Source

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])
_FOLDER = click.Path(exists=True, file_okay=False)
_FILE = click.Path(exists=True, dir_okay=False)
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


class _Mount(click.ParamType[tuple[str, str]]):
    name = "NAME=module:attr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, target = value.partition("=")
        if not (name and equals and target):
            self.fail(f"{value!r} is not of the form NAME=module:attr", param, ctx)
        return name, target


class _Permissions(click.ParamType[int]):
    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            self.fail(f"{value!r} is not an octal mode such as 660", param, ctx)
        return mode


def _finding(command: Command) -> Command:
    """The options of all commands that look for a bridge."""
    for decorate in (
        click.argument("target", required=False),
        click.option(
            "--mount", "mounts", type=_Mount(), multiple=True, help="One more plugin. May be given several times."
        ),
        click.option(
            "--allow",
            multiple=True,
            metavar="PATH|URL",
            help="File, folder or server that routes may name. May be given several times.",
        ),
        click.option(
            "--app-dir",
            type=_FOLDER,
            default=".",
            show_default=True,
            help="Folder to look for modules and pyproject.toml in.",
        ),
    ):
        command = decorate(command)
    return command


_env_file = click.option("--env-file", type=_FILE, help="Environment configuration file, read first.")


def _source(
    target: str | None, mounts: tuple[tuple[str, str], ...], app_dir: str, allow: tuple[str, ...] = ()
) -> "Source":
    """Where to find the bridge. A file as TARGET is a module of its folder, or of --app-dir where that is given."""
    from .server.serve import Source

    names = [name for name, _ in mounts]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"--mount {name}: given twice")
    context = click.get_current_context()
    given = context.get_parameter_source("app_dir") is not click.core.ParameterSource.DEFAULT
    if target is not None:
        target, app_dir = located(target, app_dir if given else None)
    mounted = {name: located(each, app_dir)[0] for name, each in mounts}
    return Source(target, mounted, os.path.abspath(app_dir), allow)


def _load_environment(env_file: str | None) -> None:
    if env_file is not None:
        from .server.serve import load_environment

        load_environment(env_file)


def _log_level(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--log-level", type=click.Choice(LOG_LEVELS), default=None, help=f"Log level.  [default: {default}]"
    )


@click.group(context_settings={"auto_envvar_prefix": "ASGI_BRIDGE", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asgi_bridge")
def cli() -> None:
    """ASGI applications and middleware as plugins of the Apache APISIX gateway.

    TARGET is "module:attr" of a Bridge, of a function that returns one, or of an ASGI application; a module or a file
    stands for its Bridge, else its application. Without it the [tool.asgi_bridge] table of the nearest pyproject.toml
    says what to run, else the entry points of the group asgi_bridge.plugins.
    """


@cli.command()
@_finding
@click.option("--uds", help="Unix socket to listen on.  [default: APISIX_LISTEN_ADDRESS]")
@click.option(
    "--uds-permissions", type=_Permissions(), default="666", show_default=True, help="Mode of the socket, octal."
)
@click.option("--reload", is_flag=True, help="Start anew when a Python file changes.")
@click.option(
    "--reload-dir", "reload_dirs", type=_FOLDER, multiple=True, help="Folder to watch.  [default: that of --app-dir]"
)
@click.option("--limit-concurrency", type=click.IntRange(min=1), help="Calls at once; further ones are refused.")
@click.option(
    "--limit-configuration-size", type=click.IntRange(min=1), default=131_072, show_default=True,
    help="Bytes that a route's configuration of one plugin may have.",
)  # fmt: skip
@click.option(
    "--timeout-graceful-shutdown", type=click.FloatRange(min=0), default=0.3, show_default=True,
    help="Seconds that calls in flight have to end after SIGTERM.",
)  # fmt: skip
@click.option("--access-log/--no-access-log", default=False, show_default=True, help="One log line for each call.")
@click.option(
    "--forwarded-headers", type=click.Choice(["trust", "ask"]), default="trust", show_default=True,
    help="Scheme and server of a request: trust the x-forwarded-* headers, or ask the gateway. Before APISIX 3.14 "
    "clients can write these headers: ask.",
)  # fmt: skip
@_log_level("info")
@click.option("--log-config", type=_FILE, help="Logging configuration file: .ini, .json, .yaml.")
@click.option("--env-file", type=_FILE, help="Environment configuration file (needs python-dotenv).")
def run(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    reload_dirs: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Serve the gateway."""
    from .server.serve import serve

    serve(
        _source(target, mounts, app_dir, allow),
        reload_dirs=list(reload_dirs) or None,
        **options,
    )


@cli.command()
@_finding
@_env_file
@click.option("--json", "as_json", is_flag=True, help="Name, kind, phase and JSON Schema of each, as JSON.")
def plugins(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    env_file: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List the plugins and what a route may configure."""
    _load_environment(env_file)
    bridge = _source(target, mounts, app_dir, allow).load()
    described = [plugin.describe() for plugin in bridge.plugins.values()]
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    width = max(len(each["name"]) for each in described)
    for each in described:
        required = set(each["schema"].get("required", ()))
        fields = [name if name in required else f"[{name}]" for name in each["schema"].get("properties", {})]
        line = f"{each['name']:<{width}}  {each['kind']:<11}  {each['phase']:<8}  {' '.join(fields)}"
        click.echo(line.rstrip())


@cli.command()
@_finding
@click.option(
    "--routes", type=click.Path(dir_okay=False, path_type=Path), default="apisix.yaml", show_default=True,
    help="APISIX's standalone route file.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the gateway.")
@click.option("--port", type=click.IntRange(0, 65535), default=9080, show_default=True, help="Port of the gateway.")
@click.option(
    "--upstream-port", type=click.IntRange(0, 65535), default=1980, show_default=True,
    help="Port of the echo upstream, 0: any. Routes to 127.0.0.1:1980 go there.",
)  # fmt: skip
@click.option("--no-upstream", is_flag=True, help="Start no echo upstream: your own listens on 127.0.0.1:1980.")
@click.option("--uds", help="Socket of a runner that you have started yourself, in a debugger for example.")
@_env_file
@_log_level("warning")
def dev(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str, routes: Path,
    host: str, port: int, upstream_port: int, no_upstream: bool, uds: str | None, env_file: str | None,
    log_level: str | None,
) -> None:  # fmt: skip
    """Start runner, gateway and an echo upstream to play with, and reload on change."""
    try:
        from .dev import develop
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f"dev needs {exc.name}: {install('dev')}") from None
    _load_environment(env_file)
    develop(
        _source(target, mounts, app_dir, allow), routes, host, port, log_level,
        upstream_port=None if no_upstream else upstream_port, uds=uds and os.path.abspath(uds.removeprefix("unix:")),
    )  # fmt: skip


@cli.command()
@click.argument("target")
@click.option("--conf", default="{}", show_default=True, help="Its configuration, JSON.")
@click.option(
    "--default",
    "defaults",
    type=_Mount(),
    multiple=True,
    help="An object as a keyword argument of a middleware. May be given several times.",
)
@click.option("--app-dir", type=_FOLDER, default=".", show_default=True, help="Folder to look for modules in.")
@_env_file
def compat(target: str, conf: str, defaults: tuple[tuple[str, str], ...], app_dir: str, env_file: str | None) -> None:
    """Try a plugin on probe requests, and say what it does and in which phase to mount it.

    TARGET is "module:attr" of a middleware, a factory or an application, ASGI or WSGI.
    """
    from .compat import PROBES, examine, load, missing_objects, report
    from .plugins.configuration import parse_json

    _load_environment(env_file)
    source = _source(target, (), app_dir)
    sys.path.insert(0, source.app_dir or "")
    subject = load(source.target or "", dict(defaults))
    try:
        subject, findings = examine(subject, conf)
    except ConfigurationError as exc:
        objects = [f"--default {name}=module:attr" for name in missing_objects(subject, str(exc))]
        given = f", {', '.join(objects)} an object" if objects else ""
        raise ConfigurationError(f"{exc}; --conf gives its configuration{given}") from exc.__cause__
    for line in report(subject, parse_json(conf), findings):
        click.echo(line)
    if len(findings.errors) == len(PROBES):
        sys.exit(1)


def main() -> None:
    """The entry point: what went wrong stands in one line, after the lines of the user's own files that led to it."""
    try:
        cli(prog_name="asgi-bridge")
    except BridgeError as exc:
        click.echo(f"{own_lines(exc)}asgi-bridge: {exc}", err=True)
        sys.exit(2)
