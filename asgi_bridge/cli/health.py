"""``asgi-bridge health``: says by its exit code whether a runner answers, for the probes of an orchestrator."""

import sys

import click

from .options import uds_option

__all__ = ["health"]


@click.command()
@uds_option("Socket of the runner.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Seconds that the runner has for each step.",
)  # fmt: skip
def health(uds: str | None, timeout: float) -> None:
    """Say whether a runner answers: exit code 0, or 1 and the reason.

    For the probes of Kubernetes, Docker and others. No plugin is called.
    """
    from ..health import probe

    path = (uds or "").removeprefix("unix:")
    if not path:
        raise click.UsageError("no socket: give --uds PATH")
    reason = probe(path, timeout)
    if reason is not None:
        click.echo(f"asgi-bridge: {path}: {reason}", err=True)
        sys.exit(1)
