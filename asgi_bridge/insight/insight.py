"""What one runner process tells of itself."""

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..hiding import hidden
from ..plugins import ConfigurationStore, Plugin
from .last_lines import LastLines
from .tally import Tally

__all__ = ["Insight", "Report", "summed"]

MAX_SHOWN = 4096
"""Maximum length of a configuration that is shown, in characters of its JSON."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a process tells at one moment. It is plain data, so that it can be sent to another process.

    Attributes:
        worker: ``pid``, ``seconds`` since it started, ``calls`` so far, ``calls_in_flight``, ``parked_calls``,
            ``configurations`` and ``recent_lag`` in seconds. Empty: these are the counts of processes that have ended.
        tally: What :meth:`.Tally.dump` returns.
        lines: The last warnings and errors, the newest first.
    """

    worker: dict[str, Any]
    tally: dict[str, Any]
    lines: list[dict[str, Any]]


class Insight:
    """Counts, and reports.

    Args:
        store: Tokens and chains.
        in_flight: Returns the number of calls that have no answer yet.
        parked: Returns the number of parked calls.
        obstacle: Returns why the process is not ready to take calls; None: it is.

    Attributes:
        tally: The counts.
        lines: The last warnings and errors.
        obstacle: As the argument.
    """

    def __init__(
        self,
        store: ConfigurationStore,
        in_flight: Callable[[], int],
        parked: Callable[[], int],
        obstacle: Callable[[], str | None],
    ) -> None:
        self.tally = Tally()
        self.lines = LastLines()
        self.obstacle = obstacle
        self._store = store
        self._in_flight = in_flight
        self._parked = parked
        self._since = time.monotonic()

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """The mounted plugins, by name."""
        return self._store.plugins

    def report(self) -> Report:
        """Return what the process has to tell now."""
        records = [plugin.shadow for plugin in self.plugins.values() if plugin.shadow is not None]
        self.tally.shadows = Counter(
            {(record.name, outcome): number for record in records for outcome, number in record.counts.items()}
        )
        worker = {
            "pid": os.getpid(),
            "seconds": round(time.monotonic() - self._since, 1),
            "calls": self.tally.calls.total(),
            "calls_in_flight": self._in_flight(),
            "parked_calls": self._parked(),
            "configurations": self._store.size,
            "recent_lag": self.tally.recent_lag,
        }
        return Report(worker, self.tally.dump(), self.lines.lines)

    def configurations(self, limit: int) -> Callable[[], list[dict[str, Any]]]:
        """Return a function that describes the configurations in use. It may be called on a thread.

        Args:
            limit: Maximum number, those that were used last.
        """
        in_use = self._store.in_use()[::-1][:limit]
        hits = {each.chain: self.tally.hits.get(each.chain, 0) for each in in_use}

        def describe() -> list[dict[str, Any]]:
            return [
                {
                    "of": each.owner,
                    "route": each.chain.route_id,
                    "phase": each.phase,
                    "seconds": round(each.seconds, 1),
                    "hits": hits[each.chain],
                    "running": each.chain.calls,
                    "plugins": [
                        {
                            "name": layer.name,
                            "configuration": shown(layer.conf, self.plugins[layer.name].secret_fields),
                            "instance": None if layer.instance is None else layer.instance.number,
                            "lists": None if layer.instance is None else layer.instance.users,
                        }
                        for layer in each.chain.layers
                    ],
                }
                for each in in_use
            ]

        return describe

    def describe_plugins(self) -> list[dict[str, Any]]:
        """Describe the mounted plugins. It may be called on a thread."""
        return [
            {**plugin.describe(), "options": hidden(dataclasses.asdict(plugin.options))}
            for _, plugin in sorted(self.plugins.items())
        ]


def shown(conf: Any, fields: Collection[str]) -> Any:
    """Return a configuration as it is shown: without secrets, and cut off if it is long.

    Args:
        conf: Parsed JSON.
        fields: Names of the fields that are secrets, beside those that look like it.
    """
    safe = hidden(conf, fields)
    text = json.dumps(safe, ensure_ascii=False)
    return safe if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text)} characters in all)"


def summed(reports: list[Report]) -> Tally:
    """Return the sum of all counts.

    Args:
        reports: One of each process.
    """
    tally = Tally()
    for report in reports:
        tally.add(report.tally)
    return tally
