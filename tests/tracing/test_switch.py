"""Who traces, and who pays nothing for it."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asgi_bridge import Bridge
from asgi_bridge.recording import RecordOptions
from asgi_bridge.server.runner import Runner, RunnerOptions

from ..doubles.runner_process import RunnerProcess, serving_alone
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import SECONDS, until
from .spans import Spans, attributes_of, route
from .test_spans import passing, slow, stopping

PLUGINS = """
import os
import time

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from starlette.responses import PlainTextResponse

from asgi_bridge import Bridge


class ToFile(SpanExporter):
    def export(self, spans):
        if SECONDS:
            time.sleep(SECONDS)
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                print(span.name, file=file)
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ToFile(), schedule_delay_millis=600_000))
trace.set_tracer_provider(provider)
bridge = Bridge()
bridge.mount("stopping", PlainTextResponse("no", 403))
"""
"""A module that sets a TracerProvider. It exports when it is told to, and hardly ever by itself."""


def test_without_a_provider_nothing_is_traced_and_opentelemetry_is_not_loaded() -> None:
    code = (
        "import sys; from asgi_bridge.server.runner import Runner; assert Runner({}).tracing is None; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'asgi_bridge.tracing.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['asgi_bridge.tracing.switch']", done.stderr


def test_loading_the_api_alone_switches_nothing_on() -> None:
    assert not isinstance(trace.get_tracer_provider(), trace.NoOpTracerProvider)  # a proxy, until somebody sets one
    assert Runner({}).tracing is None


def test_a_provider_that_does_nothing_does_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    assert Runner({}).tracing is None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Spans().provider)
    assert Runner({}).tracing is None


def test_a_provider_can_be_left_alone(spans: Spans) -> None:
    bridge = Bridge()
    bridge.mount("stopping", stopping)

    assert spans.request(bridge, [route("stopping")], options=RunnerOptions(otel=False)) == 403

    assert spans.all == []


def test_tracing_without_a_provider_says_that_it_records_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "asgi_bridge.tracing"):
        assert Runner({}, RunnerOptions(otel=True)).tracing is not None
    (line,) = caplog.messages
    assert line.startswith("--otel: no TracerProvider is set, so no span is recorded until a plugin sets one: ")


def test_a_provider_that_a_lifespan_sets_counts_if_tracing_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    spans = Spans()
    bridge = Bridge()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await stopping(scope, receive, send)

    bridge.mount("app", app)
    assert spans.request(bridge, [route("app")], options=RunnerOptions(otel=True)) == 403

    assert spans.trees() == [("request r", [("plugin app", [])])]


def test_without_the_api_the_option_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text("from asgi_bridge import Bridge\nbridge = Bridge()\n")
    code = serving_alone(
        "import sys; sys.modules['opentelemetry'] = None; "
        f"sys.argv[1:] = ['run', 'gate', '--uds', {str(tmp_path / 's')!r}, '--otel']; "
        "from asgi_bridge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    said = 'asgi-bridge: --otel needs opentelemetry-api: pip install "asgi_bridge[otel]"'
    assert done.stderr.splitlines()[-1] == said
    assert not (tmp_path / "s").exists()


def test_a_call_whose_connection_is_closed(spans: Spans, folder: Path) -> None:
    bridge = Bridge()
    bridge.mount("slow", slow)
    runner = ThreadRunner(str(folder / "s"), "asyncio", bridge)
    try:
        with runner.connect() as connection:
            connection.begin(connection.token("slow"))
            until(lambda: any(call.task is not None and call.scope for call in list(runner.runner.calls)))
        until(lambda: bool(spans.all))
    finally:
        runner.stop()

    attributes = attributes_of(spans.of("request 1"))
    assert (attributes["asgi_bridge.action"], attributes["asgi_bridge.outcome"]) == ("gone", "gone")


class Broken(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no start")


class BrokenAtTheEnd(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("no end")


class BrokenPropagator(TraceContextTextMapPropagator):
    def extract(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no parent")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Broken(), "OpenTelemetry: a sampler or span processor failed, so there is no span"),
        (BrokenAtTheEnd(), "OpenTelemetry: a span processor failed, so a span is lost"),
        (BrokenPropagator(), "OpenTelemetry: the propagator failed, so a new trace begins"),
    ],
)
def test_what_fails_in_opentelemetry_fails_no_request(
    spans: Spans, caplog: pytest.LogCaptureFixture, broken: Any, said: str
) -> None:
    bridge = Bridge()
    bridge.mount("stopping", stopping)
    bridge.mount("passing", passing, phase="both")
    before = propagate.get_global_textmap()
    try:
        if isinstance(broken, SpanProcessor):
            spans.provider.add_span_processor(broken)
        else:
            propagate.set_global_textmap(broken)
        assert spans.request(bridge, [route("stopping")]) == 403
        assert spans.request(bridge, [route("passing", post_resp=["passing"])]) == 200
    finally:
        propagate.set_global_textmap(before)

    assert set(caplog.messages) == {said}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path, because that of a unix socket must be short."""
    path = tempfile.mkdtemp(prefix="ab-", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


def test_a_call_is_recorded_and_traced(spans: Spans, folder: Path) -> None:
    bridge = Bridge()
    bridge.mount("stopping", stopping)
    record = RecordOptions(str(folder / "calls"), 1_000_000, False)
    runner = ThreadRunner(str(folder / "s"), "asyncio", bridge, record=record)
    try:
        with runner.connect() as connection:
            connection.call(connection.token("stopping"))
    finally:
        runner.stop()

    assert spans.trees() == [("request 1", [("plugin stopping", [])])]
    assert sum('"stop"' in line for line in (folder / "calls").read_text().splitlines()) == 1


def log_of_a_run(folder: Path, source: str) -> str:
    """Run a process, make a call, and stop it with SIGTERM. Returns its log. Nothing is exported before the end."""
    (folder / "plugins_of_test.py").write_text(source)
    runner = RunnerProcess(
        str(folder / "s"),
        target="plugins_of_test:bridge",
        app_dir=str(folder),
        watchdog=SECONDS,
        env={**os.environ, "SPANS": str(folder / "spans")},
    )
    try:
        with runner.connect() as connection:
            connection.call(connection.token("stopping"))
        assert not (folder / "spans").exists()
        runner.stop()
        return runner.log
    finally:
        runner.end()


def test_a_signal_loses_no_span(folder: Path) -> None:
    patient = f"import asgi_bridge.tracing.tracer as t\nt.FLUSH_SECONDS = {SECONDS}\nSECONDS = 0\n"

    log = log_of_a_run(folder, patient + PLUGINS)

    names = (folder / "spans").read_text().splitlines()
    assert (sorted(names), "may be lost" in log) == (["plugin stopping", "request 1"], False)


def test_an_exporter_that_hangs_does_not_hold_up_the_end(folder: Path) -> None:
    log = log_of_a_run(folder, f"SECONDS = {10 * SECONDS}\n" + PLUGINS)

    assert not (folder / "spans").exists()
    assert "OpenTelemetry: spans may be lost: the exporter took more than 0.2 s" in log
