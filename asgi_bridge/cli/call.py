"""``asgi-bridge call``: one call of plugins, looked at from all sides."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigurationError
from ..extras import NamesExtra
from .options import env_file_option, find_source, listed, mount_options, plugin_options, read_environment

__all__ = ["call"]


class _Pair(click.ParamType[tuple[str, str]]):
    """An option's value of a name, a separator and a text, as a tuple."""

    def __init__(self, separator: str, name: str) -> None:
        self._separator = separator
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Convert the value, as click wants it. Fails with click's usage error."""
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition(self._separator)
        if not (name.strip() and separator):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return name.strip(), text.strip() if self._separator == ":" else text


_HEADER = _Pair(":", "NAME:VALUE")


@click.command()
@plugin_options
@click.option("--target", help="Where the plugins come from: TARGET of run. The call is made in this process.")
@mount_options
@click.option("--uds", metavar="PATH", help="Socket of a running runner, which is called instead.")
@click.option(
    "--phase",
    type=click.Choice(["request", "response"]),
    default="request",
    show_default=True,
    help="Phase of the call.",
)
@click.option("--method", default="GET", show_default=True, help="HTTP method.")
@click.option("--path", default="/", show_default=True, help="Path, percent-encoded, with or without a query.")
@click.option("--query", help="Query, in place of that in --path.")
@click.option("--header", "headers", type=_HEADER, multiple=True, help="Request header. May be given several times.")
@click.option("--body", default="", metavar="TEXT|@FILE", help="Request body.")
@click.option(
    "--var", "variables", type=_Pair("=", "NAME=VALUE"), multiple=True,
    help="Variable of nginx or APISIX that plugins may ask for. May be given several times.",
)  # fmt: skip
@click.option(
    "--status", type=click.IntRange(100, 999), default=200, show_default=True,
    help="Status of the upstream's response, for --phase response.",
)  # fmt: skip
@click.option("--response-header", "response_headers", type=_HEADER, multiple=True, help="Its header, likewise.")
@click.option("--response-body", default="", metavar="TEXT|@FILE", help="Its body, likewise.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
    help="Seconds that a running runner has for each answer.",
)  # fmt: skip
@env_file_option
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
def call(
    plugins: tuple[str, ...], confs: tuple[str, ...], target: str | None, mounts: tuple[tuple[str, str], ...],
    allow: tuple[str, ...], app_dir: str, uds: str | None, path: str, query: str | None, body: str,
    variables: tuple[tuple[str, str], ...], response_body: str, timeout: float, env_file: str | None, as_json: bool,
    **fields: Any,
) -> None:  # fmt: skip
    """Make one call of each PLUGIN, the first outermost, and show what came of it.

    In this process it shows what each plugin changed; with --uds, what a running runner answers. Exit code 1: the call
    was refused.
    """
    if not plugins:
        raise click.UsageError("name a plugin")
    if uds is not None and (target is not None or mounts):
        raise click.UsageError("with --uds the runner has its plugins already: leave --target and --mount out")
    with NamesExtra("call", ConfigurationError):
        from ..one_call import Request, as_text, call_in_process, call_over_socket
        from ..one_call import as_json as values_of
    read_environment(env_file)
    path, question, own = path.partition("?")
    request = Request(
        listed(plugins, confs), path=path or "/", query=query if query is not None else own if question else None,
        body=_content(body), variables=dict(variables), response_body=_content(response_body), **fields,
    )  # fmt: skip
    if uds is not None:
        outcome = call_over_socket(request, os.path.abspath(uds.removeprefix("unix:")), timeout)
    else:
        outcome = call_in_process(request, find_source(target, mounts, app_dir, allow).load())
    if as_json:
        click.echo(json.dumps(values_of(request, outcome), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(as_text(request, outcome)))
    if outcome.error is not None:
        sys.exit(1)


def _content(text: str) -> bytes:
    """Return a body: a text, or what the file behind an ``@`` holds."""
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{text[1:]} cannot be read: {exc.strerror}") from None
