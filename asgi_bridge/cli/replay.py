"""``asgi-bridge replay``: runs a recording on today's plugins, and shows where an action differs."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from .options import env_file_option, find_source, log_level_option, read_environment, source_options

if TYPE_CHECKING:
    from ..replay import Replayed

__all__ = ["replay"]


@click.command()
@source_options
@click.argument("file", required=False, metavar="FILE")
@env_file_option
@click.option(
    "--show", type=click.IntRange(min=0), default=20, show_default=True,
    help="Calls to show of those that differ, and of those that cannot be compared. 0: all.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: those calls, and the counts at last.")
@click.option("--strict", is_flag=True, help="Exit code 1 also where calls cannot be compared.")
@log_level_option("critical")
def replay(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str, file: str | None,
    env_file: str | None, show: int, as_json: bool, strict: bool, log_level: str | None,
) -> None:  # fmt: skip
    """Run the calls of a recording on today's plugins, and show where an action differs.

    FILE is what asgi-bridge run --record has written. Exit code 1: an action differs.
    """
    from ..replay import Reader, Verdict, json_line, replay_all, summary, text_lines

    if file is None:
        target, file = None, target
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    read_environment(env_file)
    logging.basicConfig(level=(log_level or "critical").upper(), format="%(levelname)s: %(message)s")
    recording = Reader(Path(file))
    plugins = find_source(target, mounts, app_dir, allow).load()
    counts: Counter[Verdict] = Counter()

    def take(call: "Replayed") -> None:
        counts[call.verdict] += 1
        if call.verdict is not Verdict.SAME and not (show and counts[call.verdict] > show):
            for line in [json_line(call)] if as_json else text_lines(call):
                click.echo(line)

    replay_all(plugins, recording, take)
    if not counts.total():
        raise ConfigurationError(f"{file} has no calls")
    found = summary(counts, recording)
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(
            f"{found['calls']} calls: {found['same']} the same, {found['differ']} differ, "
            f"{found['unknown']} cannot be compared"
        )
        if found["unreadable_lines"]:
            click.echo(f"{found['unreadable_lines']} lines cannot be read, the first is line {recording.unreadable[0]}")
        if found["left_out"]:
            click.echo(f"{found['left_out']} calls were left out of the recording")
    if counts[Verdict.DIFFERS] or (strict and counts[Verdict.UNKNOWN]):
        sys.exit(1)
