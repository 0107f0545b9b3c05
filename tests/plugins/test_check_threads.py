"""Checks on threads: one runs at a time, none holds up the others for ever, and not every check needs a thread."""

import asyncio
import contextvars
import dataclasses
import enum
import ipaddress
import re
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pydantic
import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.plugins import ConfigurationStore, build_chain
from asgi_bridge.plugins import check_threads as module
from asgi_bridge.plugins.check_threads import Checks
from asgi_bridge.plugins.configuration import AnyConfiguration, KeywordConfiguration, TypedConfiguration

from .calls import KEY


def test_a_check_gives_and_raises_what_it_does_on_a_thread_in_its_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="")

    def check() -> tuple[str, bool]:
        return variable.get(), threading.current_thread() is threading.main_thread()

    def fails() -> None:
        raise KeyboardInterrupt("why")

    async def main() -> None:
        variable.set("set")
        checks = Checks()
        assert await checks.run("a", check) == ("set", False)
        with pytest.raises(KeyboardInterrupt, match="^why$"):
            await checks.run("a", fails)
        assert checks._running["a"] == 0

    asyncio.run(main())


def test_one_runs_at_a_time() -> None:
    running: list[int] = []
    most: list[int] = []

    def check() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    async def main() -> None:
        checks = Checks()
        await asyncio.gather(*[checks.run(str(number), check) for number in range(50)])

    asyncio.run(main())

    assert most == [1] * 50


def test_one_that_takes_longer_than_its_turn_goes_on_beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.01)
    may_end = threading.Event()

    async def main() -> None:
        checks = Checks()
        slow = asyncio.get_running_loop().create_task(checks.run("slow", lambda: may_end.wait(60)))
        assert await checks.run("quick", lambda: 5) == 5
        assert not slow.done()
        may_end.set()
        assert await slow

    asyncio.run(main())


def test_too_many_that_do_not_end_refuse_their_plugin_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.001)
    may_end = threading.Event()

    async def main() -> None:
        checks = Checks()
        loop = asyncio.get_running_loop()
        hanging = [loop.create_task(checks.run("hangs", lambda: may_end.wait(60))) for _ in range(module.MAX_CHECKS)]
        await checks.run("other", lambda: None)  # each of these has had its turn
        with pytest.raises(ConfigurationError, match="^4 checks of its configurations run and do not end: its validat"):
            await checks.run("hangs", lambda: None)
        assert await checks.run("other", lambda: 5) == 5
        hanging[0].cancel()  # nobody waits any more, but the thread goes on
        with pytest.raises(ConfigurationError):
            await checks.run("hangs", lambda: None)
        may_end.set()
        await asyncio.gather(*hanging[1:])
        assert await checks.run("hangs", lambda: 5) == 5

    asyncio.run(main())


def test_checks_for_which_there_is_no_thread_do_not_count_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        checks = Checks()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2 * module.MAX_CHECKS):
                with pytest.raises(RuntimeError, match="^can't start new thread$"):
                    await checks.run("p", lambda: None)
        assert await checks.run("p", lambda: 5) == 5

    asyncio.run(main())


# which checks need a thread


class Color(enum.Enum):
    RED = "red"


class Misses(enum.Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> "Misses":
        return cls.RED


class Plain(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    number: int = 1
    color: Color = Color.RED
    names: Sequence[str] = ()
    either: list[int | str] = []
    pattern: Annotated[str, pydantic.Field(pattern="^a+$")] = "a"
    kind: Literal["a", "b"] = "a"
    call: int = 1  # fields whose names are words of a core schema
    missing: int = 1
    more: "list[Plain]" = []


@dataclasses.dataclass
class Data:
    number: int
    plain: Plain


class Validated(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def even(cls, number: int) -> int:
        return number


class ModelValidated(pydantic.BaseModel):
    inner: list[Validated] = []


class AfterInit(pydantic.BaseModel):
    def model_post_init(self, context: Any) -> None: ...


class MadeDefault(pydantic.BaseModel):
    number: int = pydantic.Field(default_factory=lambda: 1)


class OwnInit(pydantic.BaseModel):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


@dataclasses.dataclass
class PostInit:
    number: int = 1

    def __post_init__(self) -> None: ...


def _kind(value: Any) -> str:
    return "a"


Told = Annotated[
    Annotated[Plain, pydantic.Tag("a")] | Annotated[Data, pydantic.Tag("b")], pydantic.Discriminator(_kind)
]


@pytest.mark.parametrize("annotation", [Plain, Data, dict[str, Plain], int, Any, list[Plain | Data], Color])
def test_what_pydantic_checks_alone_needs_no_thread(annotation: Any) -> None:
    assert not TypedConfiguration(annotation).runs_code
    assert not AnyConfiguration().runs_code
    assert not KeywordConfiguration(lambda app, number=1: app).runs_code


@pytest.mark.parametrize(
    "annotation",
    [
        Validated,
        ModelValidated,
        AfterInit,
        MadeDefault,
        OwnInit,
        PostInit,
        Misses,
        Told,
        dict[str, list[Validated]],
        Annotated[int, pydantic.AfterValidator(abs)],
        Annotated[int, pydantic.BeforeValidator(abs)],
        Annotated[int, pydantic.PlainValidator(abs)],
        Annotated[int, pydantic.WrapValidator(lambda value, handler: handler(value))],
        pydantic.ImportString,
        ipaddress.IPv4Network,
        re.Pattern[str],
    ],
)
def test_what_calls_functions_in_python_needs_one(annotation: Any) -> None:
    assert TypedConfiguration(annotation).runs_code

    def middleware(app: ASGIApp, value: Any = None) -> ASGIApp:
        return app

    middleware.__annotations__["value"] = annotation
    assert KeywordConfiguration(middleware).runs_code


def thread_of(bridge: Bridge, threads: list[threading.Thread]) -> Callable[[Any], Any]:
    def note(value: Any) -> Any:
        threads.append(threading.current_thread())
        return value

    return note


def test_code_of_a_plugins_author_checks_on_a_thread_and_builds_on_the_loop() -> None:
    bridge, threads = Bridge(), list[threading.Thread]()
    note = thread_of(bridge, threads)

    @bridge.plugin("noted")
    def noted(conf: Annotated[int, pydantic.AfterValidator(note)]) -> ASGIApp:
        note(conf)
        return upstream

    asyncio.run(build_chain(bridge.plugins, KEY, [(b"noted", b"1")], None))

    assert [thread is threading.main_thread() for thread in threads] == [False, True]


def test_a_validator_that_takes_long_is_refused_in_time_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.plugins.build.BUILD_SECONDS", 0.05)
    monkeypatch.setattr(module, "TURN_SECONDS", 0.01)
    bridge, may_end = Bridge(), threading.Event()

    def hang(value: int) -> int:
        if value:
            may_end.wait(60)
        return value

    @bridge.plugin("hangs")
    def hangs(conf: Annotated[int, pydantic.AfterValidator(hang)]) -> ASGIApp:
        return upstream

    bridge.add_middleware("cors", CORSMiddleware)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        with pytest.raises(ConfigurationError, match="^plugin hangs: building took more than 0.05 s$"):
            await store.prepare(KEY, [(b"hangs", b"1")])
        monkeypatch.setattr("asgi_bridge.plugins.build.BUILD_SECONDS", 60.0)
        assert await store.prepare(KEY, [(b"cors", b"{}")])
        assert await store.prepare(KEY, [(b"hangs", b"0")])
        may_end.set()
        await store.close()

    asyncio.run(main())
