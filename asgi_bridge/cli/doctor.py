"""``asgi-bridge doctor``: finds out why APISIX and the runner do not work together."""

import dataclasses
import json
import os
import sys

import click

from ..errors import ConfigurationError
from ..extras import NamesExtra
from .options import FILE, listed, plugin_options, uds_option

__all__ = ["doctor"]


@click.command()
@plugin_options
@uds_option("Socket of the runner.")
@click.option("--apisix-config", type=FILE, help="APISIX's config.yaml.")
@click.option("--apisix-version", metavar="VERSION", help="Such as 3.18.0.  [default: looked for beside config.yaml]")
@click.option(
    "--worker-user", metavar="USER", help="User of nginx's workers.  [default: that of config.yaml, or nobody]"
)
@click.option(
    "--env", "variables", multiple=True, metavar="NAME",
    help="An environment variable that the plugins need. May be given several times.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
    help="Seconds that the runner has for each answer.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(
    plugins: tuple[str, ...], confs: tuple[str, ...], uds: str | None, apisix_config: str | None,
    apisix_version: str | None, worker_user: str | None, variables: tuple[str, ...], timeout: float, as_json: bool,
) -> None:  # fmt: skip
    """Find out why APISIX and the runner do not work together.

    Looks at the socket and the folders above it, at APISIX's config.yaml and version, and makes a call as APISIX does.
    It then prepares each PLUGIN, and calls none. Exit code 1: there is an error among the findings.
    """
    from ..doctor import Questions, examine

    path = None if not uds else os.path.abspath(uds.removeprefix("unix:"))
    plugins_to_try = listed(plugins, confs)
    questions = Questions(path, apisix_config, apisix_version, worker_user, variables, plugins_to_try, timeout)
    findings = []
    with NamesExtra("doctor", ConfigurationError):
        for finding in examine(questions):
            findings.append(finding)
            if not as_json:
                click.echo(str(finding))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in findings], indent=2, ensure_ascii=False))
    if any(each.severity == "error" for each in findings):
        sys.exit(1)
