"""What our loggers write: lines that nobody can forge, none too long, and floods that are counted."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asgi_bridge
from asgi_bridge import logs
from asgi_bridge.logs import BURST, GUARD, LOGGERS, MAX_LINE, MAX_TRACEBACK, Guard, one_line
from asgi_bridge.plugins.shadow_record import ShadowRecord, Verdict

logger = logging.getLogger("asgi_bridge.server")


class Lines(logging.Handler):
    """What a plain handler of somebody else's writes."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    @property
    def lines(self) -> list[str]:
        return "\n".join(self.texts).splitlines()


@pytest.fixture
def written() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger("asgi_bridge").addHandler(handler)
    yield handler
    logging.getLogger("asgi_bridge").removeHandler(handler)


def test_every_logger_of_the_package_is_guarded() -> None:
    folders = [Path(asgi_bridge.__file__).parent, Path(asgi_bridge.__file__).parents[1] / "apps"]
    sources = [file.read_text() for folder in folders for file in folder.rglob("*.py")]
    names = {name for source in sources for name in re.findall(r'getLogger\("(asgi_bridge\..*?)"\)', source)}
    assert names == set(LOGGERS)
    assert all(GUARD in logging.getLogger(name).filters for name in names)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gate\nERROR:    forged", r"gate\nERROR:    forged"),
        ("gate\r\x1b[2K\x00\x85\u2028x", r"gate\r\x1b[2K\x00\x85\u2028x"),
        ("\u202egate\ud800", r"\u202egate\ud800"),
        ("Grüße, 日本", "Grüße, 日本"),
    ],
)
def test_a_text_stays_one_line(written: Lines, text: str, line: str) -> None:
    logger.warning("plugin %s: refused", text)
    assert written.lines == [f"WARNING asgi_bridge.server plugin {line}: refused"]


def test_an_ordinary_record_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("plugin %s: %d requests", "gate", 3)
    (record,) = caplog.records
    assert (record.msg, record.args) == ("plugin %s: %d requests", ("gate", 3))


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_value_that_has_no_text(written: Lines) -> None:
    logger.warning("plugin %s: %s", "gate", Unspeakable())
    assert written.lines == ["WARNING asgi_bridge.server plugin %s: %s (the values cannot be shown: RuntimeError)"]


def forging() -> BaseException:
    inner = KeyError("no such key\nERROR:    forged cause")
    inner.add_note("a note\nERROR:    forged note\x1b[31m")
    group = ExceptionGroup("several\nERROR:    forged group", [ValueError("part\nERROR:    forged part"), inner])
    try:
        try:
            raise inner
        except KeyError as exc:
            raise group from exc
    except ExceptionGroup as exc:
        return exc


def test_a_traceback_keeps_its_lines_and_its_exceptions_make_none(written: Lines) -> None:
    logger.error("plugin %s: refused", "gate", exc_info=forging())
    forged = [line for line in written.lines if "forged" in line]
    assert not [line for line in written.lines if line.startswith("ERROR:")]
    assert r"ValueError: part\nERROR:    forged part" in "".join(forged)
    assert r"several\nERROR:    forged group" in "".join(forged)
    place = next(line for line in written.lines if line.endswith(", in forging"))
    assert f'File "{__file__}", line ' in place
    assert "\x1b" not in "".join(written.lines)


class Attributes(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Ending(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Group(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise KeyboardInterrupt


def broken_syntax() -> SyntaxError:
    error = SyntaxError("x", ("f", 1, 2, "t"))
    error.text = 5  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    "raised",
    [Attributes("x"), Ending("x"), Group("x", [ValueError()]), broken_syntax()],
    ids=lambda exc: str(type(exc)),
)
def test_whatever_an_exceptions_own_code_does_its_line_and_its_place_are_logged(
    written: Lines, raised: Exception
) -> None:
    try:
        raise raised
    except Exception as exc:
        logger.error("plugin %s: refused: %s", "gate", exc, exc_info=exc)
    text = "\n".join(written.lines)
    assert text.startswith("ERROR asgi_bridge.server plugin ")
    assert "\nTraceback (most recent call last):\n" in text
    assert "in test_whatever_an_exceptions_own_code_does" in text
    assert type(raised).__name__ in written.lines[-1]


def test_a_syntax_error_keeps_its_place(written: Lines) -> None:
    with pytest.raises(SyntaxError) as found:
        compile("x = (\n", "user\nERROR:    forged.py", "exec")
    logger.error("refused", exc_info=found.value)
    assert written.lines[-3:] == ["    x = (", "        ^", "SyntaxError: '(' was never closed"]
    assert not [line for line in written.lines if line.startswith("ERROR:")]


@pytest.mark.parametrize("text", ["x" * 10**7, "ü" * 10**5, "\n" * 10**5, "\U0001f600" * 4000])
def test_no_line_is_longer_than_its_bound(written: Lines, text: str) -> None:
    logger.error("plugin %s: refused", "gate", exc_info=ValueError(text))
    logger.error("plugin %s: %s", "gate", text)
    assert max(len(line.encode()) for line in written.lines) < MAX_LINE
    assert "characters in all)" in written.lines[-1]


def test_a_traceback_is_bounded(written: Lines) -> None:
    exc: Exception = ValueError("first")
    for number in range(2000):
        following = ValueError(f"number {number} " + "x" * 100)
        following.__context__ = exc
        exc = following
    logger.error("refused", exc_info=exc)
    (text,) = written.texts
    assert len(text.encode()) < MAX_TRACEBACK + MAX_LINE
    assert "ValueError: first" in text and "number 1999" in text and "  … (lines left out)" in text


def test_a_text_that_just_fits_is_whole() -> None:
    text = "x" * (MAX_LINE - 1024)
    assert one_line(text) == text
    assert one_line(text + "x") == f"{text}… ({len(text) + 1} characters in all)"


# floods


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The guard counts, and its clock is the list's last value."""
    clock = [0.0]
    monkeypatch.setattr(logs, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(GUARD, "counts", True)
    monkeypatch.setattr(GUARD, "_kinds", {})
    return clock


def test_lines_that_repeat_are_counted(written: Lines, counting: list[float]) -> None:
    for number in range(1000):
        logger.error("connection: %s; broken", ValueError(number))
    assert len(written.lines) == BURST
    GUARD.sweep(9.9)
    assert len(written.lines) == BURST
    counting.append(10.0)
    GUARD.sweep(10.0)
    assert written.lines[BURST:] == [
        f"ERROR asgi_bridge.server and {1000 - BURST} more like it in 10 s: connection: 19; broken"
    ]
    logger.error("connection: %s; broken", "again")
    GUARD.sweep(float("inf"))
    assert written.lines[BURST + 1 :] == ["ERROR asgi_bridge.server connection: again; broken"]


def test_the_next_line_tells_the_count_where_nobody_sweeps(written: Lines, counting: list[float]) -> None:
    for _ in range(BURST + 5):
        logger.warning("connection: cut off")
    counting.append(12.5)
    logger.warning("connection: cut off")
    assert written.lines[BURST:] == [
        "WARNING asgi_bridge.server and 5 more like it in 12.5 s: connection: cut off",
        "WARNING asgi_bridge.server connection: cut off",
    ]


def test_plugins_do_not_hide_each_others_lines(written: Lines, counting: list[float]) -> None:
    for _ in range(1000):
        logger.error("plugin %s: refused: %s", "noisy", "x")
    logger.error("plugin %s: refused: %s", "rare", "y")
    assert written.lines[BURST:] == ["ERROR asgi_bridge.server plugin rare: refused: y"]


def test_made_up_names_do_not_make_the_guard_grow(written: Lines, counting: list[float]) -> None:
    for number in range(5000):
        logger.error("route %s refused", str(number))
    assert len(GUARD._kinds) == logs.MAX_KINDS + 1
    assert len(written.lines) == logs.MAX_KINDS + BURST


def test_what_asyncio_says_of_tasks_that_nobody_awaits_is_counted(counting: list[float]) -> None:
    asyncio_logger, handler = logging.getLogger("asyncio"), Lines()
    asyncio_logger.addHandler(handler)
    asyncio_logger.addFilter(GUARD)
    try:
        for number in range(1000):
            asyncio_logger.error(f"Task exception was never retrieved\nfuture: <Task finished name='Task-{number}'>")
    finally:
        asyncio_logger.removeFilter(GUARD)
        asyncio_logger.removeHandler(handler)
    assert len(handler.lines) == BURST


@pytest.mark.parametrize("number", [1, 10])
def test_made_up_messages_do_not_make_the_guard_grow(counting: list[float], number: int) -> None:
    guard = Guard()
    guard.counts = True
    for each in range(5000 * number):
        guard.filter(logging.LogRecord("x", logging.ERROR, "", 0, f"Exception in callback {each}", None, None))
    assert len(guard._kinds) == 2 * logs.MAX_KINDS + 1


@pytest.mark.parametrize("message", [{"a": 1}, [1], None, 5, ValueError("x")])
def test_a_message_may_be_any_object(counting: list[float], message: Any) -> None:
    guard = Guard()
    guard.counts = True
    record = logging.LogRecord("x", logging.ERROR, "", 0, message, None, None)
    assert [guard.filter(record) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert record.getMessage() == str(message)


def test_what_was_asked_for_is_not_counted(written: Lines, counting: list[float]) -> None:
    logging.getLogger("asgi_bridge").setLevel("INFO")
    try:
        for _ in range(100):
            logging.getLogger("asgi_bridge.access").info("%s - route %s", "hello", "1")
    finally:
        logging.getLogger("asgi_bridge").setLevel("NOTSET")
    assert len(written.lines) == 100


def test_a_guard_does_not_count_by_itself() -> None:
    guard: Any = Guard()
    records = [logging.LogRecord("x", logging.ERROR, "", 0, "again", None, None) for _ in range(100)]
    assert all(guard.filter(record) for record in records)


def test_lines_of_shadows_are_counted_by_outcome_whatever_their_level(
    written: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GUARD, "counts", True)
    monkeypatch.setattr(GUARD, "_kinds", {})
    monkeypatch.setattr(logging.getLogger("asgi_bridge.shadow"), "level", logging.INFO)
    record = ShadowRecord("auth")
    for number in range(BURST + 5):
        record.note(Verdict("rewrite", "changed", f"GET /{number}", logging.INFO), "7")
    record.note(Verdict("stop 401", "refused", "GET /"), None)
    assert len(written.lines) == BURST + 1
    assert written.lines[-1] == "WARNING asgi_bridge.shadow plugin auth: shadow: stop 401: refused: GET /, route ?"
    GUARD.sweep(float("inf"))
    (line,) = written.lines[BURST + 1 :]
    assert re.sub(r"in [\d.]+ s:", "in 0 s:", line) == (
        f"INFO asgi_bridge.shadow and 5 more like it in 0 s: plugin auth: shadow: rewrite: changed: GET /{BURST - 1}, "
        "route 7"
    )
    assert record.counts == {"rewrite": BURST + 5, "stop 401": 1}
