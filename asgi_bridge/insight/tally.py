"""What a runner process counts while ``--admin`` is on.

A tally is plain data: :meth:`Tally.dump` makes JSON of it, and :meth:`Tally.add` sums the tallies of several processes.
Counting is all that a call pays for. What Prometheus reads is made of it when somebody asks (:mod:`.exposition`).
"""

from bisect import bisect_left
from collections import Counter, deque
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..adapter import Call
    from ..plugins import Chain

__all__ = ["BUCKETS", "PASSED_OVER", "Histogram", "Tally", "action_of"]

BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets of all histograms, in seconds. One more bucket has what took longer."""
PASSED_OVER = "passed over"
"""Outcome of a plugin with ``on_error="open"`` that failed: the request went on without it."""
RECENT_TURNS = 100
"""Number of looks at the event loop's lag that count as recent. There are ten a second."""

_ACTIONS = {"parked": "pass", "rewrite, parked": "rewrite", PASSED_OVER: "none"}
_Labels: TypeAlias = tuple[str, ...]


def action_of(outcome: str) -> str:
    """Return the action in an outcome.

    Args:
        outcome: The word or two of the access log, such as ``"stop 403"``.

    Returns:
        ``"stop"``, ``"rewrite"``, ``"pass"``, ``"response"``, ``"error"``, ``"gone"`` (the gateway has closed the
        connection), or ``"none"`` (the plugin was passed over).
    """
    return _ACTIONS.get(outcome) or outcome.partition(" ")[0]


class Histogram:
    """Durations, counted by size.

    Attributes:
        counts: Number of durations in each bucket of BUCKETS, and last those that took longer.
        seconds: Sum of all durations.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add(self, counts: list[int], seconds: float) -> None:
        """Add the durations of another histogram.

        Args:
            counts: Its counts.
            seconds: Its sum.
        """
        self.counts = [own + other for own, other in zip(self.counts, counts, strict=True)]
        self.seconds += seconds


class Tally:
    """The counts of one process, or of several in sum.

    Attributes:
        calls: Calls of the gateway, by phase and outcome.
        plugin_calls: The same for each plugin that a call entered, by plugin, phase and outcome.
        faults: Faults by plugin, phase and kind: ``"error"``, ``"timeout"`` or PASSED_OVER.
        seconds: Durations of calls until their answer, by phase.
        plugin_seconds: Durations from entering a plugin to the answer, by plugin and phase.
        hits: Calls that were answered, by chain. They are of this process, and not in a sum.
        shadows: Requests by plugin with ``shadow=True`` and by what it would have done.
        lag: How much later than planned the event loop came to a timer.
        counts: Other things: ``round_trips`` (ExtraInfo), ``protocol_errors``, ``prepared`` and ``refused``
            (configurations).
    """

    def __init__(self) -> None:
        self.calls: Counter[_Labels] = Counter()
        self.plugin_calls: Counter[_Labels] = Counter()
        self.faults: Counter[_Labels] = Counter()
        self.hits: WeakKeyDictionary[Chain, int] = WeakKeyDictionary()
        self.shadows: Counter[_Labels] = Counter()
        self.seconds: dict[_Labels, Histogram] = {}
        self.plugin_seconds: dict[_Labels, Histogram] = {}
        self.lag = Histogram()
        self.counts: Counter[str] = Counter()
        self._lags: deque[float] = deque(maxlen=RECENT_TURNS)

    # what the connections and the runner note

    def answered(self, call: "Call", outcome: str) -> None:
        """Count a call that has its answer, or will have none.

        Args:
            call: The call. It still knows the plugins that it has entered.
            outcome: The answer, in the words of the access log.
        """
        now = monotonic()
        phase, chain = call.phase, call.chain
        self.hits[chain] = self.hits.get(chain, 0) + 1
        self.calls[phase, outcome] += 1
        started = now if call.started is None else call.started
        _observe(self.seconds, (phase,), now - started)
        entered = call.entered()
        if phase == "response":  # some run in sections of their own, or in the request halves that are resumed
            entered = {**dict.fromkeys(chain.acting, (started, False)), **entered}
        for layer, (since, passed_over) in entered.items():
            name = layer.name
            self.plugin_calls[name, phase, PASSED_OVER if passed_over else outcome] += 1
            _observe(self.plugin_seconds, (name, phase), now - since)
            if passed_over:
                self.faults[name, phase, PASSED_OVER] += 1
        if outcome == "error timeout":
            self.faults[call.overdue, phase, "timeout"] += 1
        elif outcome == "error":
            self.faults[chain.names if call.failed is None else call.failed[1], phase, "error"] += 1

    def refused(self, phase: str, chain: "Chain | None", outcome: str) -> None:
        """Count a call that did not run.

        Args:
            phase: Its phase.
            chain: Its plugins; None: its token is unknown.
            outcome: The answer, in the words of the access log.
        """
        self.calls[phase, outcome] += 1
        for name in {layer.name for layer in chain.acting} if chain is not None else ():
            self.plugin_calls[name, phase, outcome] += 1

    def asked(self) -> None:
        """Count a round trip to the gateway (ExtraInfo)."""
        self.counts["round_trips"] += 1

    def broken(self) -> None:
        """Count a message that broke the protocol."""
        self.counts["protocol_errors"] += 1

    def prepared(self, accepted: bool) -> None:
        """Count a configuration that the gateway has prepared.

        Args:
            accepted: False: it was refused.
        """
        self.counts["prepared" if accepted else "refused"] += 1

    def turned(self, lag: float) -> None:
        """Note how much later than planned the event loop has come to a timer.

        Args:
            lag: Seconds.
        """
        self.lag.observe(lag)
        self._lags.append(lag)

    @property
    def recent_lag(self) -> float:
        """The longest lag of the last ten seconds, in seconds."""
        return max(self._lags, default=0.0)

    # several processes

    def dump(self) -> dict[str, Any]:
        """Return all counts as data for JSON."""
        return {
            **{name: [[*key, number] for key, number in getattr(self, name).items()] for name in _COUNTERS},
            **{
                name: [[*key, each.counts, each.seconds] for key, each in getattr(self, name).items()]
                for name in _HISTOGRAMS
            },
            "lag": [self.lag.counts, self.lag.seconds],
            "counts": dict(self.counts),
        }

    def add(self, dumped: dict[str, Any]) -> None:
        """Add the counts of another process.

        Args:
            dumped: What its :meth:`dump` has returned.
        """
        for name in _COUNTERS:
            for *key, number in dumped[name]:
                getattr(self, name)[tuple(key)] += number
        for name in _HISTOGRAMS:
            for *key, counts, seconds in dumped[name]:
                getattr(self, name).setdefault(tuple(key), Histogram()).add(counts, seconds)
        self.lag.add(*dumped["lag"])
        self.counts.update(dumped["counts"])


_COUNTERS = ("calls", "plugin_calls", "faults", "shadows")
_HISTOGRAMS = ("seconds", "plugin_seconds")


def _observe(histograms: dict[_Labels, Histogram], key: _Labels, seconds: float) -> None:
    histogram = histograms.get(key)
    if histogram is None:
        histogram = histograms[key] = Histogram()
    histogram.observe(seconds)
