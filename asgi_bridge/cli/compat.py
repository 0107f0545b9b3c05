"""``asgi-bridge compat``: tries one plugin on probe requests, and says in which phase to mount it."""

import sys

import click

from ..errors import ConfigurationError
from .options import FOLDER, Mount, complete_file, env_file_option, find_source, read_environment

__all__ = ["compat"]


@click.command()
@click.argument("target", shell_complete=complete_file)
@click.option("--conf", default="{}", show_default=True, help="Its configuration, JSON.")
@click.option(
    "--default", "defaults", type=Mount(), multiple=True,
    help="An object as a keyword argument of a middleware. May be given several times.",
)  # fmt: skip
@click.option("--app-dir", type=FOLDER, default=".", show_default=True, help="Folder to look for modules in.")
@env_file_option
def compat(target: str, conf: str, defaults: tuple[tuple[str, str], ...], app_dir: str, env_file: str | None) -> None:
    """Try a plugin on probe requests, and say what it does and in which phase to mount it.

    TARGET is "module:attr" of a middleware, a factory or an application, ASGI or WSGI.
    """
    from ..compat import PROBES, examine, load, missing_objects, report
    from ..plugins.json_text import parse_json

    read_environment(env_file)
    source = find_source(target, (), app_dir)
    sys.path.insert(0, source.app_dir or "")
    subject = load(source.target or "", dict(defaults))
    try:
        subject, findings = examine(subject, conf)
    except ConfigurationError as exc:
        objects = [f"--default {name}=module:attr" for name in missing_objects(subject, str(exc))]
        advice = f", and objects with {' '.join(objects)}" if objects else ""
        raise ConfigurationError(f"{exc}; give its configuration with --conf{advice}") from exc.__cause__
    for line in report(subject, parse_json(conf), findings):
        click.echo(line)
    if len(findings.errors) == len(PROBES):
        sys.exit(1)
