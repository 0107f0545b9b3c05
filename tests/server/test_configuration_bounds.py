"""What a configuration may cost other routes: calls go on while the worst configurations are prepared."""

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from asgi_bridge.wire import HTTPReqCallResp, Message, PrepareConfReq, PrepareConfResp

from ..doubles.connection import BAD_REQUEST
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until

StartRunner = Callable[..., RunnerProcess]

SECOND_CALLS = 100
MEBIBYTE = 1 << 20
SIZE = 125_000
LIMIT = ("--limit-configuration-size", str(MEBIBYTE))


def _list(item: str, count: int, name: str) -> str:
    return f'{{"{name}": [' + ", ".join([item] * count) + "]}"


def _keys(count: int, value: str = "1") -> str:
    return "{" + ", ".join(f'"key{number}": {value}' for number in range(count)) + "}"


PRE, RESPONSE = "route#9#ext-plugin-pre-req#1", "route#9#ext-plugin-post-resp#1"
_PATTERN = r"\\pL{1000}"
WORST: dict[str, tuple[str, str, str]] = {
    "60,000 bad networks": ("ip-access", PRE, _list('"999.1.1.1/8"', 60_000, "allow")),
    "300 patterns too large": (
        "response-rewrite",
        RESPONSE,
        _list(f'{{"regex": "{_PATTERN}", "replace": ""}}', 300, "filters"),
    ),
    "deep nesting": ("numbers", PRE, "[" * 100_000),
    "14 MB of unknown keys": ("say", PRE, _keys(900_000)),
    "a validator that sleeps": ("slow", PRE, '{"seconds": 2}'),
    # as long as a configuration may be by default
    "unknown keys": ("numbers", PRE, _keys(8_000)),
    "bad items": ("numbers", PRE, _list('""', SIZE // 4, "numbers")),
    "bad values": ("numbers", PRE, '{"by_name": ' + _keys(7_000, '""') + "}"),
    "bad choices": ("numbers", PRE, _list('""', SIZE // 4, "either")),
    "nested objects": ("numbers", PRE, '{"a":' * (SIZE // 5)),
    "digits": ("numbers", PRE, '{"numbers": [' + "9" * SIZE + "]}"),
    "one name again and again": ("numbers", PRE, "{" + ", ".join(['"numbers": 1'] * (SIZE // 14)) + "}"),
    "a string without an end": ("numbers", PRE, '{"numbers": "' + '\\"' * (SIZE // 2)),
    "a long name": ("numbers", PRE, '{"' + "x" * SIZE + '": 1}'),
    # plugins beside it in the list
    "a plugin's name of a MiB": ("x" * MEBIBYTE, PRE, "{}"),
    "a route's id of a MiB": ("unknown", f"route#{'9' * MEBIBYTE}#ext-plugin-pre-req#1", "{}"),
}


class Caller:
    """Calls another route 100 times a second. A call's time begins when it was due, and ends with its answer."""

    def __init__(self, runner: RunnerProcess) -> None:
        self._connection = runner.connect()
        self._token = self._connection.token("passing", key="route#1#ext-plugin-pre-req#1")
        self._over = threading.Event()
        self.times: list[float] = []

    def call(self, count: int | None = None) -> float:
        """Return the 99th percentile of so many calls, or of all until :meth:`stop`."""
        self.times = []
        due = time.monotonic()
        while (count is None and not self._over.is_set()) or (count is not None and len(self.times) < count):
            time.sleep(max(0.0, due - time.monotonic()))
            answer = self._connection.call(self._token)
            assert isinstance(answer, HTTPReqCallResp), answer
            self.times.append(time.monotonic() - due)
            due += 1 / SECOND_CALLS
        return statistics.quantiles(self.times, n=100)[-1]

    def during(self, work: Callable[[], None]) -> float:
        """Return the 99th percentile while another thread does `work`."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as exc:
                failed.append(exc)
            finally:
                self._over.set()

        self._over.clear()
        thread = threading.Thread(target=run)
        thread.start()
        found = self.call()
        thread.join()
        assert not failed, failed
        return found

    def close(self) -> None:
        self._connection.close()


def test_the_worst_configurations_are_refused_or_built_while_others_are_called(start: StartRunner) -> None:
    runner = start(*LIMIT, target="bounds:bridge")
    caller = Caller(runner)
    quiet = caller.call(SECOND_CALLS)
    before = runner.rss()
    messages = {
        name: PrepareConfReq([(plugin.encode(), text.encode())], key.encode())
        for name, (plugin, key, text) in WORST.items()
    }
    answers: dict[str, Message | None] = {}

    def prepare() -> None:
        with runner.connect() as connection:
            for name, message in messages.items():
                answers[name] = connection.say(message)

    disturbed = caller.during(prepare)
    caller.close()

    refused = {name for name, answer in answers.items() if answer == BAD_REQUEST}
    assert {name for name, answer in answers.items() if isinstance(answer, PrepareConfResp)} == answers.keys() - refused
    assert answers.keys() - refused == {"a validator that sleeps"}
    # of an undisturbed call's 2 ms that is 100 ms
    assert disturbed <= 50 * max(quiet, 0.002), (quiet, disturbed)
    lines = runner.log.encode().splitlines()
    assert [len(line) for line in lines if len(line) > 8192] == []
    assert len([line for line in lines if b" refused: " in line]) == len(refused)
    until(lambda: runner.rss() < before + 100 * MEBIBYTE)


def test_a_list_of_too_many_plugins_is_refused(start: StartRunner) -> None:
    runner = start(target="bounds:bridge")
    with runner.connect() as connection:
        assert isinstance(connection.prepare(*[("passing", None)] * 100), PrepareConfResp)
        assert connection.prepare(*[("passing", None)] * 101) == BAD_REQUEST
        token = connection.token("passing")
        assert isinstance(connection.call(token), HTTPReqCallResp)
    assert "the list has 101 plugins, and at most 100 can be nested" in runner.log


@pytest.mark.parametrize("count", [1001, 300_000])
def test_a_list_beyond_all_reason_is_refused_as_a_bad_frame(start: StartRunner, count: int) -> None:
    runner = start(target="bounds:bridge")
    with runner.connect() as connection:
        assert connection.say(PrepareConfReq([(b"passing", b"{}")] * count, PRE.encode())) == BAD_REQUEST
        assert isinstance(connection.call(connection.token("passing")), HTTPReqCallResp)
    assert f"a configuration lists {count} plugins; the maximum is 1000" in runner.log


def test_the_chain_of_the_longest_list_runs(start: StartRunner) -> None:
    with start(target="bounds:bridge").connect() as connection:
        answer = connection.prepare(*[("passing", None)] * 100)
        assert isinstance(answer, PrepareConfResp)
        assert connection.call(answer.conf_token) == HTTPReqCallResp(1, None)


def test_the_size_of_each_configuration_is_bounded_before_it_is_decoded(start: StartRunner) -> None:
    runner = start("--limit-configuration-size", "20", target="bounds:bridge")
    with runner.connect() as connection:
        fits, longer = b'{"body": "%s"}' % (b"x" * 8), b'{"body": "%s"}' % (b"x" * 9)
        assert isinstance(connection.say(PrepareConfReq([(b"say", fits)] * 3, PRE.encode())), PrepareConfResp)
        assert connection.say(PrepareConfReq([(b"say", fits), (b"say", longer)], PRE.encode())) == BAD_REQUEST
        for _ in range(3):  # logged once only, because the failure is remembered for a while
            key = b"route#8#ext-plugin-pre-req#1"
            assert connection.say(PrepareConfReq([(b"say", b"\xff" * 21)], key)) == BAD_REQUEST
        key = b"route#" + b"7" * 1100 + b"#ext-plugin-pre-req#1"
        assert connection.say(PrepareConfReq([(b"say", fits)], key)) == BAD_REQUEST
    words = "refused: plugin say: its configuration has 21 bytes, and at most 20 are taken (--limit-configuration-size)"
    assert [runner.log.count(f"route {number} {words}") for number in (9, 8)] == [1, 1]
    assert "route ? refused: its key has 1127 bytes, and at most 1024 are taken" in runner.log


def test_a_check_that_never_ends_keeps_nobody_else_from_being_checked(start: StartRunner) -> None:
    """The plugins after it, the same plugin on another route and the end of the process do not wait for it."""
    runner = start(target="bounds:bridge")
    with runner.connect() as hung, runner.connect() as connection:
        hung.send(PrepareConfReq([(b"hanging", b'{"value": 1}')], b"route#8#ext-plugin-pre-req#1"))
        for seconds in (0, 0.01):
            key = f"route#{seconds}#ext-plugin-pre-req#1"
            assert isinstance(connection.prepare(("slow", {"seconds": seconds}), key=key), PrepareConfResp)
        assert hung.receive() == BAD_REQUEST
    assert "route 8 refused: plugin hanging: building took more than 4 s" in runner.log
    runner.stop()


@pytest.mark.parametrize("exception", ["KeyboardInterrupt", "SystemExit", "Odd"])
def test_whatever_a_plugin_raises_while_it_is_built_the_runner_goes_on(start: StartRunner, exception: str) -> None:
    runner = start(target="bounds:bridge")
    with runner.connect() as connection:
        for lifespan in (False, True):
            assert connection.prepare(("raises", {"raises": exception, "lifespan": lifespan})) == BAD_REQUEST
        assert isinstance(connection.call(connection.token("passing")), HTTPReqCallResp)
    lines = [line for line in runner.log.splitlines() if "route 1 refused: plugin raises: " in line]
    assert [line.partition("plugin raises: ")[2] for line in lines] == [
        f"it could not be built: {exception}: no",
        f"its lifespan start-up failed: {exception}: no",
    ]
    assert "never retrieved" not in runner.log
