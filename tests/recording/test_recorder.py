"""The recorder: its file, its bounds, and that no call ever suffers from it."""

import contextlib
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asgi_bridge import ConfigurationError
from asgi_bridge.cli import cli
from asgi_bridge.recording import RecordOptions, recorder
from asgi_bridge.recording.lines import text
from asgi_bridge.replay import Reader
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.recording_protocol import RecordingProtocol
from asgi_bridge.server.runner import Runner
from asgi_bridge.server.serve import serve
from asgi_bridge.wire import ErrCode, ErrResp, HTTPReqCallReq, HTTPReqCallResp

from ..doubles.connection import HEADERS, Connection
from ..doubles.runner_process import BIN, runner_process
from ..doubles.waiting import until
from .test_replay import recorded, replayed
from .traffic import TOKEN, ask_gateway, make_bridge, prepare

PLUGINS = """
from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse
bridge = Bridge()
bridge.mount("say", PlainTextResponse("hello"))
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def calls_of(path: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(path) if "action" in line]


def call(token: int, path: bytes = b"/x", **fields: Any) -> HTTPReqCallReq:
    return HTTPReqCallReq(1, b"\x7f\0\0\1", "GET", path, [], HEADERS, token, **fields)


@contextlib.contextmanager
def connected(path: Path, **options: Any) -> Iterator[Connection]:
    with recorded(path, make_bridge(), **options) as runner, runner.connect() as connection:
        yield connection


def test_the_lines_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    with connected(path) as connection:
        token = prepare(connection, ("vars",), "7", conf='{"a": 1}')
        answer = ask_gateway(connection, call(token), {b"remote_user": b"bob"})
    assert isinstance(answer, HTTPReqCallResp)
    first, preparation, line = lines_of(path)
    assert first == {"recording": 1, "asks_origin": False}
    assert preparation == {
        "preparation": preparation["preparation"],
        "key": "route#7#ext-plugin-pre-req#1",
        "plugins": [["vars", '{"a": 1}']],
        "redacted": [],
    }
    assert {**line, "at": 0, "milliseconds": 0} == {
        "at": 0,
        "milliseconds": 0,
        "preparation": preparation["preparation"],
        "request": {
            "id": 1,
            "src_ip": "127.0.0.1",
            "method": "GET",
            "path": "/x",
            "args": [],
            "headers": [[text(name), text(value)] for name, value in HEADERS],
        },
        "extra": [["$remote_user", "bob"]],
        "parked": None,
        "halves": 0,
        "redacted": [],
        "action": {"kind": "rewrite", "headers": [["x-user", "bob"]]},
    }


def test_only_its_owner_may_read_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    with connected(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_runner_appends_behind_the_line_that_a_killed_one_began(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    with connected(path) as connection:
        ask_gateway(connection, call(prepare(connection, ("tag",), "1")))
    with path.open("a") as file:
        file.write('{"at": 1.0, "act')
    with connected(path) as connection:
        ask_gateway(connection, call(prepare(connection, ("tag",), "1")))
    reader = Reader(path)
    assert (len(reader), reader.unreadable, len(reader.preparations)) == (2, [4], 1)


def test_several_processes_write_to_one_recording(tmp_path: Path) -> None:
    path, number = tmp_path / "calls", 0
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(path, key=b"k" * 32)) for _ in range(3)]
        tokens = [prepare(connection, ("guard", "tag"), "1") for connection in connections]
        for number in range(60):
            message = call(tokens[number % 3], b"/%d" % number)
            message.headers = [*HEADERS, (b"authorization", b"Bearer " + TOKEN)]
            assert isinstance(ask_gateway(connections[number % 3], message), HTTPReqCallResp)
    reader = Reader(path)
    calls = [line for _, line in reader]
    assert [line["request"]["path"] for line in calls] == [f"/{each}" for each in range(number + 1)]
    assert (reader.unreadable, len(reader.preparations)) == ([], 1)
    assert len({line["request"]["headers"][-1][1] for line in calls}) == 1  # the same secret, the same placeholder


def test_a_recording_ends_at_its_size_with_whole_lines_and_one_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calls"
    with recorded(path, make_bridge(), size=20_000) as runner, runner.connect() as connection:
        token = prepare(connection, ("tag",), "1")
        recording = runner.runner.recording
        assert recording is not None
        sent = 0
        while recording.recorder.active:
            sent += 1
            assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
        for _ in range(100):
            assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
    size = path.stat().st_size
    line = len(path.read_bytes().splitlines()[-1]) + 1
    assert 20_000 - 2 * line < size <= 20_000
    assert 10 < len(calls_of(path)) <= sent
    assert [each.getMessage() for each in caplog.records if "Recording" in each.getMessage()] == [
        f"Recording {path} has ended: it has reached 20000 bytes (--record-size); calls go on"
    ]


def test_a_full_disk_ends_the_recording_and_no_call(caplog: pytest.LogCaptureFixture) -> None:
    with recorded(Path("/dev/full"), make_bridge()) as runner, runner.connect() as connection:
        token = prepare(connection, ("tag",), "1")
        recording = runner.runner.recording
        assert recording is not None
        until(lambda: not recording.recorder.active)
        for _ in range(100):
            assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
    assert [each.getMessage() for each in caplog.records if "Recording" in each.getMessage()] == [
        "Recording /dev/full has ended: No space left on device; calls go on"
    ]


def test_a_file_that_cannot_be_opened_any_more_is_one_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(tmp_path / "away" / "calls") as connection:
        token = prepare(connection, ("tag",), "1")
        assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
    (found,) = [each.getMessage() for each in caplog.records if "Recording" in each.getMessage()]
    assert found.startswith(f"Recording {tmp_path}/away/calls has ended: ")
    assert "No such file or directory" in found


def test_a_fault_of_the_recorder_refuses_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(recorder.Recorder, "take", failing)
    with connected(tmp_path / "calls") as connection:
        token = prepare(connection, ("tag",), "1")
        for _ in range(3):
            assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
    assert [each.getMessage() for each in caplog.records if "Recording" in each.getMessage()] == [
        "Recording has ended; calls go on"
    ]


def test_too_large_bodies_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "calls"
    body = b"a=1" + b"x" * recorder.MAX_CALL_BYTES
    with connected(path) as connection:
        token = prepare(connection, ("form",), "1")
        for content in (body, body[: recorder.MAX_CALL_BYTES // 2 - 8]):
            message = call(token)
            message.headers = [*HEADERS, (b"content-length", b"%d" % len(content))]
            ask_gateway(connection, message, {b"server_protocol": b"HTTP/1.1"}, content)
    assert len(calls_of(path)) == 1
    assert lines_of(path)[-1] == {"left_out": 0, "too_large": 1}
    assert Reader(path).left_out == 1
    assert "1 because their bodies have more than 262144 bytes" in caplog.text


def test_calls_that_the_thread_cannot_keep_up_with_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING_BYTES", 10 * recorder.CALL_BYTES)
    monkeypatch.setattr(recorder, "BATCH_SECONDS", 60.0)  # it waits until the end
    path = tmp_path / "calls"
    with connected(path) as connection:
        token = prepare(connection, ("tag",), "1")
        for _ in range(50):
            assert isinstance(ask_gateway(connection, call(token)), HTTPReqCallResp)
    calls, left_out = len(calls_of(path)), lines_of(path)[-1]["left_out"]
    assert (calls + left_out, 10 <= calls <= 13) == (50, True)


def test_calls_that_no_plugin_has_answered_are_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    with connected(path) as connection:
        assert ask_gateway(connection, call(12345)) == ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND)
        token = prepare(connection, ("form",), "1")
        message = call(token)
        message.headers = [*HEADERS, (b"content-length", b"3")]
        assert connection.say(message) is not None  # it asks for the body, and the gateway goes away
    assert calls_of(path) == []


def test_without_a_recording_connections_are_as_ever() -> None:
    assert Runner(make_bridge().plugins).recording is None
    own = {name for name in vars(RecordingProtocol) if callable(getattr(RecordingProtocol, name))}
    assert own == {"_run", "ask", "answer"}
    assert all(getattr(RunnerProtocol, name) is not getattr(RecordingProtocol, name) for name in own)


def test_options_of_a_recorder_do_not_show_its_key() -> None:
    assert "key" not in repr(RecordOptions("f"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"record": "/proc/none"}, "--record /proc/none: the file cannot be written: "),
        ({"record": "/tmp"}, "--record /tmp: the file cannot be written: Is a directory"),
        ({"record": "/dev/null", "record_size": 0}, "record_size must be a number of bytes, 1 or more, not 0"),
    ],
)
def test_what_cannot_be_recorded_is_an_error_at_the_start(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        serve(make_bridge().plugins, uds="/tmp/none.sock", **options)


def test_the_command_records_and_replays(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with runner_process(tmp_path, PLUGINS, "--record", str(path)) as runner, runner.connect() as connection:
        runner.logged(f"Calls are recorded in {path}, up to 104857600 bytes")
        token = connection.token("say")
        for _ in range(20):
            connection.call(token)
        until(lambda: path.read_text().count('"action"') == 20)
    assert len(calls_of(path)) == 20
    command = [BIN, "replay", "plugins_of_test:bridge", str(path), "--app-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "20 calls: 20 the same, 0 differ, 0 cannot be compared\n")
    (tmp_path / "plugins_of_test.py").write_text(PLUGINS.replace("hello", "good day"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    name = "GET / - request phase, route 1, plugin say"
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [f"{name} (line 3)", "  - body hello", "  + body good day"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, " cannot be read: No such file or directory"),
        ("", " is no recording: write one with asgi-bridge run --record"),
        ("hello\n", " is no recording: write one with asgi-bridge run --record"),
        ('{"recording": 2}\n', ":1: version 2 of a recording, and this is 1"),
        ('{"recording": 1}\n', " has no calls"),
    ],
)
def test_what_cannot_be_replayed_is_an_error(
    content: str | None, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls"
    if content is not None:
        path.write_text(content)
    (tmp_path / "plugins_of_test.py").write_text(PLUGINS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{path}{error}')}$"):
        CliRunner().invoke(
            cli, ["replay", "plugins_of_test:bridge", str(path), "--app-dir", str(tmp_path)], catch_exceptions=False
        )


def test_a_recording_without_its_beginning_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    with connected(path) as connection:
        ask_gateway(connection, call(prepare(connection, ("tag",), "1")))
    first, _, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{last}\n")
    with pytest.raises(ConfigurationError, match=r"^line 2: the recording has no preparation '[0-9a-f]{16}'; is its"):
        replayed(path, make_bridge().plugins)
