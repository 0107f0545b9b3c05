"""``asgi-bridge dev``: runner, gateway and an echo upstream in one command."""

import os
from pathlib import Path

import click

from ..errors import ConfigurationError
from ..extras import install
from .options import env_file_option, find_source, is_given, log_level_option, read_environment, source_options

__all__ = ["dev"]


@click.command()
@source_options
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
@click.option(
    "--inspector-port", type=click.IntRange(0, 65535), default=9081, show_default=True,
    help="Port of the inspector, a page on 127.0.0.1 that shows each request; 0: any.",
)  # fmt: skip
@click.option("--no-inspector", is_flag=True, help="Serve no inspector.")
@click.option("--uds", help="Socket of a runner that you have started yourself, in a debugger for example.")
@env_file_option
@log_level_option("warning")
def dev(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str, routes: Path,
    host: str, port: int, upstream_port: int, no_upstream: bool, inspector_port: int, no_inspector: bool,
    uds: str | None, env_file: str | None, log_level: str | None,
) -> None:  # fmt: skip
    """Start runner, gateway and an echo upstream to play with, show each request, and reload on change."""
    try:
        from ..dev import develop
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f"dev needs {exc.name}: {install('dev')}") from None
    read_environment(env_file)
    develop(
        find_source(target, mounts, app_dir, allow), routes, host, port, log_level,
        upstream_port=None if no_upstream else upstream_port, uds=uds and os.path.abspath(uds.removeprefix("unix:")),
        inspector_port=None if no_inspector else inspector_port, any_inspector_port=not is_given("inspector_port"),
    )  # fmt: skip
