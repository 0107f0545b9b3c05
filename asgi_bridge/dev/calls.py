"""What ``asgi-bridge dev`` prints about each call of the runner."""

from collections.abc import Iterator

import click

from ..answers import describe
from ..gateway import Call

__all__ = ["explain", "print_call"]


def print_call(call: Call) -> None:
    """Print what a call did.

    Args:
        call: One call of the runner, as the gateway saw it.
    """
    click.echo("\n".join(explain(call)))


def explain(call: Call) -> Iterator[str]:
    """Write what a call did: a line for the call, and an indented one for each change that it made.

    Args:
        call: One call of the runner, as the gateway saw it.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    phase = call.phase.removeprefix("ext-plugin-")
    answer = call.answer
    if call.again:
        what = click.style("prepared again", fg="yellow") + f": {call.error}; the gateway repeats the call"
        details: list[str] = []
    elif call.error is not None:
        what = click.style("failed", fg="red") + f": {call.error}"
        if call.degraded:
            what += ", the request goes on without the plugins"
        elif call.status:
            what += f", the client gets {call.status}"
        details = []
    else:
        what, details = describe(answer)
    yield (
        f"{call.request_line}  {click.style(phase, dim=True)} {click.style(', '.join(call.plugins), bold=True)}: {what}"
        + click.style(f"  {call.milliseconds:.1f} ms", dim=True)
    )
    for detail in details:
        yield f"    {detail}"
