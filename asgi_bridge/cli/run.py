"""``asgi-bridge run``: serves the gateway."""

import functools
import os
import sys
from typing import Any

import click

from .options import FILE, FOLDER, Permissions, Workers, find_source, is_given, log_level_option, source_options

__all__ = ["run"]


@click.command()
@source_options
@click.option("--uds", help="Unix socket to listen on.  [default: APISIX_LISTEN_ADDRESS]")
@click.option(
    "--uds-permissions", type=Permissions(), default="666", show_default=True, help="Mode of the socket, octal."
)
@click.option(
    "--workers",
    type=Workers(),
    default="1",
    show_default=True,
    help="Processes that serve; auto: one for each usable core.",
)
@click.option(
    "--limit-max-requests", type=click.IntRange(min=1), help="Replace a worker after so many calls, without a pause."
)
@click.option("--reload", is_flag=True, help="Start anew when a Python file changes.")
@click.option(
    "--reload-dir", "reload_dirs", type=FOLDER, multiple=True, help="Folder to watch.  [default: that of --app-dir]"
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
@click.option(
    "--record", type=click.Path(dir_okay=False), metavar="FILE",
    help="Record the calls in FILE, for asgi-bridge replay. Secrets are redacted.",
)  # fmt: skip
@click.option(
    "--record-size", type=click.IntRange(min=1), default=104_857_600, show_default=True,
    help="Bytes of FILE at which the recording ends.",
)  # fmt: skip
@click.option("--record-secrets", is_flag=True, help="Record secrets too.")
@log_level_option("info")
@click.option("--log-config", type=FILE, help="Logging configuration file: .ini, .json, .yaml.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="json: one JSON object a line.",
)  # fmt: skip
@click.option(
    "--admin", metavar="HOST:PORT|unix:PATH", help="Where /livez, /readyz, /metrics and a page for people are served."
)
@click.option("--admin-public", is_flag=True, help="Allow an address of --admin that other machines reach.")
@click.option(
    "--otel/--no-otel", default=None,
    help="A span of OpenTelemetry for each call and plugin.  [default: if a TracerProvider is set]",
)  # fmt: skip
@click.option("--env-file", type=FILE, help="Environment configuration file (needs python-dotenv).")
def run(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    reload_dirs: tuple[str, ...], workers: int, limit_max_requests: int | None, **options: Any,
) -> None:  # fmt: skip
    """Serve the gateway."""
    if options.pop("reload"):
        if workers > 1 or limit_max_requests is not None:
            raise click.UsageError("--reload works with one process: leave out --workers and --limit-max-requests")
        from ..server.serve import serve

        make_runner = click.get_current_context().obj
        if make_runner is not None:
            options["make_runner"] = make_runner
        source = find_source(target, mounts, app_dir, allow)
        serve(source, reload=True, reload_dirs=list(reload_dirs) or None, **options)
        return
    from ..supervisor.run import supervise

    origin = {"target": target, "mounts": mounts, "app_dir": app_dir, "allow": allow, "given": is_given("app_dir")}
    payload = {
        "source": origin,
        "options": options,
        "limit_max_requests": limit_max_requests,
        # of the hashes that stand for secrets in a recording: the same in all workers
        "record_key": os.urandom(32).hex(),
    }
    names = ("uds", "uds_permissions", "timeout_graceful_shutdown", "log_level", "log_format", "env_file")
    configure = None if options["log_config"] is None else functools.partial(_configure, options)
    sys.exit(supervise(payload, workers=workers, configure=configure, **{name: options[name] for name in names}))


def _configure(options: dict[str, Any]) -> None:
    """Set up logging with a configuration of the operator's own. Only that needs uvicorn."""
    from ..server.serve import log_as_uvicorn

    log_as_uvicorn(options["log_config"], options["log_level"])
