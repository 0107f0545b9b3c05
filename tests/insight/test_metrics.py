"""What ``/metrics`` counts, against what a load generator has counted."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed
from starlette.testclient import TestClient

from asgi_bridge.insight.app import admin_app
from asgi_bridge.insight.insight import Insight, Report
from asgi_bridge.insight.tally import BUCKETS, PASSED_OVER, Histogram, Tally, action_of
from asgi_bridge.plugins import ConfigurationStore
from asgi_bridge.wire import (
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    PrepareConfResp,
    Rewrite,
    Stop,
    Var,
)

from ..doubles.connection import Connection
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from .stage import PLUGINS, Admin, admin_of, runner_process

LISTS = {
    ("passing",): 40,
    ("rewriting",): 30,
    ("stopping",): 20,
    ("asking",): 10,
    ("failing",): 5,
    ("slow",): 3,
    ("passing", "rewriting"): 25,
    ("rewriting", "stopping", "passing"): 15,
    ("optional", "stopping"): 7,
}
"""Lists of plugins, and the number of calls of each."""
CONNECTIONS = 4


def answered(connection: Connection) -> Message | None:
    """Return the answer to a call. The gateway's part of each ask is played."""
    while isinstance(answer := connection.receive(), ExtraInfoReq):
        connection.send(ExtraInfoResp(b"3f2a"))
    return answer


def action(answer: Message | None) -> str:
    """What the load generator makes of an answer."""
    if isinstance(answer, ErrResp):
        return "error"
    if isinstance(answer, HTTPRespCallResp):
        return "response"
    assert isinstance(answer, HTTPReqCallResp), answer
    return {Stop: "stop", Rewrite: "rewrite", type(None): "pass"}[type(answer.action)]


def samples(text: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Return the values of a counter or gauge, summed by these labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for family in parsed(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return found


@pytest.fixture(scope="module")
def load(runner: RunnerProcess, admin: Admin) -> Counter[tuple[str, str]]:
    """Make the calls. Returns their number by list and action, as the load generator has counted it."""
    counted: Counter[tuple[str, str]] = Counter()
    connections = [runner.connect() for _ in range(CONNECTIONS)]
    for number, (names, calls) in enumerate(LISTS.items()):
        key = f"route#{number}#ext-plugin-pre-req#1"
        prepared = connections[0].prepare(*((name, {}) for name in names), key=key)
        assert isinstance(prepared, PrepareConfResp)
        for first in range(0, calls, CONNECTIONS):
            busy = connections[: min(CONNECTIONS, calls - first)]
            for connection in busy:
                connection.begin(prepared.conf_token)
            for connection in busy:
                counted["+".join(names), action(answered(connection))] += 1
    # the response phase
    token = connections[0].token("passing", {}, key="route#20#ext-plugin-post-resp#1")
    connections[0].send(HTTPRespCallReq(1, 200, [], token))
    counted["passing", action(answered(connections[0]))] += 1
    # what cannot be called, and what cannot be prepared
    assert isinstance(connections[0].prepare(("nobody", {})), ErrResp)
    assert isinstance(connections[0].call(12345), ErrResp)
    connections[0].sock.sendall(b"\xff\0\0\0")
    assert connections[0].receive() is None  # closed, since no next frame can be found
    for connection in connections:
        connection.close()
    return counted


def test_the_load_generator_has_seen_every_action(load: Counter[tuple[str, str]]) -> None:
    assert load == {
        ("passing", "pass"): 40,
        ("rewriting", "rewrite"): 30,
        ("stopping", "stop"): 20,
        ("asking", "stop"): 10,
        ("failing", "error"): 5,
        ("slow", "error"): 3,
        ("passing+rewriting", "rewrite"): 25,
        ("rewriting+stopping+passing", "stop"): 15,
        ("optional+stopping", "stop"): 7,
        ("passing", "response"): 1,
    }


def test_metrics_equal_the_load_generators_counts(load: Counter[tuple[str, str]], admin: Admin) -> None:
    """A plugin behind one that stops is not entered, so it has no call. One that is passed over did nothing."""
    entered: Counter[tuple[str, str]] = Counter()
    for (names, did), number in load.items():
        for name in names.split("+"):
            entered[name, "none" if name == "optional" else did] += number
            if name == "stopping":
                break
    status, kind, text = admin.get("/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert samples(text, "asgi_bridge_plugin_calls_total", "plugin", "action") == entered

    actions: Counter[tuple[str, ...]] = Counter()
    for (_, did), number in load.items():
        actions[did,] += number
    actions["error",] += 1  # the unknown token
    assert samples(text, "asgi_bridge_calls_total", "action") == actions


def test_faults_and_outcomes_are_told_apart(load: Counter[tuple[str, str]], admin: Admin) -> None:
    _, _, text = admin.get("/metrics")
    assert samples(text, "asgi_bridge_faults_total", "plugin", "phase", "kind") == {
        ("failing", "request", "error"): 5,
        ("optional", "request", "passed over"): 7,
        ("slow", "request", "timeout"): 3,
    }
    outcomes = samples(text, "asgi_bridge_calls_total", "phase", "outcome")
    assert outcomes == {
        ("request", "pass"): 40,
        ("request", "rewrite"): 55,
        ("request", "stop 200"): 10,
        ("request", "stop 403"): 42,
        ("request", "error"): 5,
        ("request", "error timeout"): 3,
        ("request", "error unknown token"): 1,
        ("response", "response 200"): 1,
    }


def test_durations_are_histograms(load: Counter[tuple[str, str]], admin: Admin) -> None:
    _, _, text = admin.get("/metrics")
    assert samples(text, "asgi_bridge_call_seconds_count", "phase") == {("request",): 155, ("response",): 1}
    counts = samples(text, "asgi_bridge_plugin_seconds_count", "plugin", "phase")
    assert counts["slow", "request"] == 3 and counts["passing", "request"] == 65
    (family,) = [family for family in parsed(text) if family.name == "asgi_bridge_plugin_seconds"]
    slow = {
        sample.labels["le"]: sample.value
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["plugin"] == "slow"
    }
    assert list(slow) == [*map(str, BUCKETS), "+Inf"]
    assert (slow["0.025"], slow["+Inf"]) == (0, 3)  # its timeout is 0.05 s


def test_what_else_is_counted(load: Counter[tuple[str, str]], admin: Admin) -> None:
    _, _, text = admin.get("/metrics")
    values = {family.name: family.samples[0].value for family in parsed(text) if len(family.samples) == 1}
    assert values["asgi_bridge_round_trips"] == 11  # 10 for asking, one for the response phase
    assert values["asgi_bridge_protocol_errors"] == 1
    assert values["asgi_bridge_configurations_prepared"] == len(LISTS) + 1
    assert values["asgi_bridge_configurations_refused"] == 1
    assert values["asgi_bridge_configurations"] == len(LISTS) + 1
    assert values["asgi_bridge_calls_in_flight"] == 0
    assert values["asgi_bridge_parked_calls"] == 0
    assert values["asgi_bridge_workers"] == 1
    (lag,) = [family for family in parsed(text) if family.name == "asgi_bridge_loop_lag_seconds"]
    assert lag.type == "histogram"


def test_what_shadows_would_have_done_is_counted_and_nothing_else_of_them(folder: Path) -> None:
    with runner_process(folder, PLUGINS, "--admin", "127.0.0.1:0") as runner, runner.connect() as connection:
        admin = admin_of(runner)
        for key in ("route#1#ext-plugin-pre-req#1", "route#1#ext-plugin-post-resp#1"):
            prepared = connection.prepare(("watching", {}), ("passing", {}), key=key)
            assert isinstance(prepared, PrepareConfResp)
            token = prepared.conf_token
            for _ in range(3):
                connection.send(HTTPRespCallReq(1, 200, [], token)) if "resp" in key else connection.begin(token)
                answered(connection)

        def counts() -> Counter[tuple[str, ...]]:
            return samples(admin.get("/metrics")[2], "asgi_bridge_shadow_requests_total", "plugin", "outcome")

        until(lambda: counts().total() == 6)  # a shadow may end after the answer
        assert counts() == {("watching", "stop 403"): 3, ("watching", "response 403"): 3}
        text = admin.get("/metrics")[2]
    assert samples(text, "asgi_bridge_plugin_calls_total", "plugin", "phase") == {
        ("passing", "request"): 3,
        ("passing", "response"): 3,
    }


VARIABLES = {
    b"scheme": b"http", b"server_port": b"80", b"server_addr": b"10.0.0.1", b"host": b"a.test", b"uri": b"/",
    b"request_id": b"3f2a", b"server_protocol": b"HTTP/1.1", b"request_method": b"GET", b"request_uri": b"/",
}  # fmt: skip


def told(connection: Connection) -> Message | None:
    """Return the answer to a call. Each variable that is asked for has its value of VARIABLES."""
    while isinstance(answer := connection.receive(), ExtraInfoReq):
        assert isinstance(answer.info, Var)
        connection.send(ExtraInfoResp(VARIABLES.get(answer.info.name or b"")))
    return answer


def test_what_is_in_flight_and_what_is_parked(folder: Path) -> None:
    def now() -> dict[str, float]:
        text = admin.get("/metrics")[2]
        families = {family.name: family.samples[0].value for family in parsed(text) if family.type == "gauge"}
        return {name: families[f"asgi_bridge_{name}"] for name in ("calls_in_flight", "parked_calls", "configurations")}

    with runner_process(folder, PLUGINS, "--admin", "127.0.0.1:0") as runner, runner.connect() as connection:
        admin = admin_of(runner)
        assert now() == {"calls_in_flight": 0, "parked_calls": 0, "configurations": 0}
        request = connection.token("waiting", {}, key="route#1#ext-plugin-pre-req#1")
        response = connection.token("waiting", {}, key="route#1#ext-plugin-post-resp#1")
        connection.begin(request)
        assert isinstance(connection.receive(), ExtraInfoReq)
        assert now() == {"calls_in_flight": 1, "parked_calls": 0, "configurations": 2}
        connection.close()
        until(lambda: now()["calls_in_flight"] == 0)
        with runner.connect() as connection:
            connection.begin(request)
            assert action(told(connection)) == "pass"
            assert now() == {"calls_in_flight": 0, "parked_calls": 1, "configurations": 2}
            connection.send(HTTPRespCallReq(2, 200, [], response))
            assert action(told(connection)) == "response"
            assert now() == {"calls_in_flight": 0, "parked_calls": 0, "configurations": 2}
        text = admin.get("/metrics")[2]
    outcomes = samples(text, "asgi_bridge_plugin_calls_total", "plugin", "phase", "outcome")
    assert outcomes == {
        ("waiting", "request", "parked"): 1,
        ("waiting", "response", "response 200"): 1,
    }
    assert samples(text, "asgi_bridge_calls_total", "phase", "action") == {
        ("request", "gone"): 1, ("request", "pass"): 1, ("response", "response"): 1,
    }  # fmt: skip


def test_prometheus_may_ask_for_openmetrics(load: Counter[tuple[str, str]], admin: Admin) -> None:
    status, kind, text = admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert "asgi_bridge_plugin_calls" in {family.name for family in parsed_openmetrics(text)}  # type: ignore[no-untyped-call]


def test_without_prometheus_client_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith(("prometheus_client", "asgi_bridge.insight.expo"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    insight = Insight(ConfigurationStore({}), lambda: 0, lambda: 0, lambda: None)

    async def reports() -> list[Report]:
        return [insight.report()]

    client = TestClient(admin_app(insight, reports), base_url="http://127.0.0.1")
    answer = client.get("/metrics")
    assert (answer.status_code, answer.text) == (501, 'needs prometheus_client: pip install "asgi_bridge[metrics]"\n')
    assert client.get("/status").json()["calls"] == 0


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        ("stop 403", "stop"),
        ("rewrite", "rewrite"),
        ("pass", "pass"),
        ("parked", "pass"),
        ("rewrite, parked", "rewrite"),
        ("response 200", "response"),
        ("error", "error"),
        ("error timeout", "error"),
        ("error overload", "error"),
        ("gone", "gone"),
        (PASSED_OVER, "none"),
    ],
)
def test_action_of_an_outcome(outcome: str, action: str) -> None:
    assert action_of(outcome) == action


def filled(factor: int) -> Tally:
    tally = Tally()
    for number in range(1, 4):
        tally.calls["request", f"stop {number}"] += number * factor
        tally.plugin_calls[f"p{number}", "request", "pass"] += number * factor
        tally.faults[f"p{number}", "request", "error"] += factor
        tally.plugin_seconds.setdefault(("p", "request"), Histogram()).observe(0.25 * factor)
    tally.seconds["request",] = Histogram()
    tally.seconds["request",].observe(0.5)
    tally.turned(0.125)
    tally.asked()
    tally.broken()
    tally.prepared(True)
    tally.prepared(False)
    return tally


def test_tallies_of_several_processes_are_summed() -> None:
    total: Any = Tally()
    for each in (filled(1), filled(2)):
        total.add(each.dump())
    assert total.calls == {("request", "stop 1"): 3, ("request", "stop 2"): 6, ("request", "stop 3"): 9}
    assert total.plugin_calls == {(f"p{n}", "request", "pass"): 3 * n for n in (1, 2, 3)}
    assert total.faults == {(f"p{n}", "request", "error"): 3 for n in (1, 2, 3)}
    assert total.counts == {"round_trips": 2, "protocol_errors": 2, "prepared": 2, "refused": 2}
    assert total.plugin_seconds["p", "request"].seconds == 0.25 * 3 + 0.5 * 3
    assert sum(total.plugin_seconds["p", "request"].counts) == 6
    assert (total.seconds["request",].seconds, total.lag.seconds) == (1.0, 0.25)
    again = Tally()
    again.add(total.dump())
    assert again.dump() == total.dump()


def test_a_duration_counts_in_the_first_bucket_that_it_fits_in() -> None:
    histogram = Histogram()
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] * 1.01, BUCKETS[-1], BUCKETS[-1] + 1):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BUCKETS) - 3), 1, 1]
