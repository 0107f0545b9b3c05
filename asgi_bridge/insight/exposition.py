"""Tallies as metrics for Prometheus, by ``prometheus-client``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .tally import BUCKETS, Histogram, Tally, action_of

__all__ = ["render"]


class _Exposed(Collector):
    def __init__(self, tally: Tally, workers: Sequence[dict[str, Any]], version: str) -> None:
        self._tally = tally
        self._workers = workers
        self._version = version

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        yield InfoMetricFamily("asgi_bridge", "The runner.", value={"version": self._version})
        calls = CounterMetricFamily("asgi_bridge_calls", "Calls of the gateway.", labels=["phase", "action", "outcome"])
        for (phase, outcome), number in sorted(tally.calls.items()):
            calls.add_metric([phase, action_of(outcome), outcome], number)
        yield calls
        plugin_calls = CounterMetricFamily(
            "asgi_bridge_plugin_calls",
            "Calls by plugin that they have entered.",
            labels=["plugin", "phase", "action", "outcome"],
        )
        for (plugin, phase, outcome), number in sorted(tally.plugin_calls.items()):
            plugin_calls.add_metric([plugin, phase, action_of(outcome), outcome], number)
        yield plugin_calls
        faults = CounterMetricFamily("asgi_bridge_faults", "Faults of plugins.", labels=["plugin", "phase", "kind"])
        for key, number in sorted(tally.faults.items()):
            faults.add_metric(key, number)
        yield faults
        shadows = CounterMetricFamily(
            "asgi_bridge_shadow_requests",
            "Requests by plugin with shadow=True, and by what it would have done.",
            labels=["plugin", "outcome"],
        )
        for key, number in sorted(tally.shadows.items()):
            shadows.add_metric(key, number)
        yield shadows
        yield _histograms("asgi_bridge_call_seconds", "From the call to its answer.", ["phase"], tally.seconds)
        yield _histograms(
            "asgi_bridge_plugin_seconds",
            "From entering the plugin to the answer, plugins further inside included.",
            ["plugin", "phase"],
            tally.plugin_seconds,
        )
        yield _histograms(
            "asgi_bridge_loop_lag_seconds", "How much too late the event loop came to a timer.", [], {(): tally.lag}
        )
        for name, help_, counted in (
            ("round_trips", "Round trips to the gateway for variables and bodies (ExtraInfo).", "round_trips"),
            ("protocol_errors", "Messages that broke the protocol.", "protocol_errors"),
            ("configurations_prepared", "Configurations that the gateway has prepared.", "prepared"),
            ("configurations_refused", "Configurations that were refused.", "refused"),
        ):
            yield CounterMetricFamily(f"asgi_bridge_{name}", help_, value=tally.counts[counted])
        for name, help_ in (
            ("calls_in_flight", "Calls that have no answer yet."),
            ("parked_calls", "Request halves that wait for their response."),
            ("configurations", "Configurations that are in use."),
        ):
            yield GaugeMetricFamily(f"asgi_bridge_{name}", help_, value=sum(worker[name] for worker in self._workers))
        yield GaugeMetricFamily("asgi_bridge_workers", "Processes that serve.", value=len(self._workers))


def render(tally: Tally, workers: Sequence[dict[str, Any]], version: str, accept: str) -> tuple[bytes, str]:
    """Return the metrics, and their content type.

    Args:
        tally: The counts of all workers.
        workers: What :meth:`.Insight.worker` says of each.
        version: Of this package.
        accept: The request's Accept header. Prometheus asks for OpenMetrics there.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Exposed(tally, workers, version))
    encode: Callable[[Any], bytes]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _histograms(name: str, help_: str, labels: list[str], found: dict[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, help_, labels=labels)
    for key, histogram in sorted(found.items()):
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
            total += number
            buckets.append((bound, total))
        family.add_metric(key, buckets, histogram.seconds)
    return family
