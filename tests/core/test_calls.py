"""Whole calls, and the reads of a connection: the compiled core and pure Python do the same."""

import asyncio
import gc
import os

import pytest
from starlette.types import Message

from asgi_bridge.adapter import Call
from asgi_bridge.compiled import core_in_use
from asgi_bridge.wire.dialogue import DIALOGUES
from tests.fuzzing import examples

if core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1":
    pytest.skip("the compiled core is not in use", allow_module_level=True)

from . import calls
from .calls import Difference, compare_call, compare_connection, compare_reads
from .doings import KEPT

# A plugin that breaks its call may leave a coroutine that cannot end, in both.
broken = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@broken
def test_both_do_the_same_in_a_call() -> None:
    with asyncio.Runner() as runner:
        answered = [runner.run(compare_call(seed)) for seed in range(examples(1000))]
    assert set(answered) == {False, True}
    KEPT.clear()
    gc.collect()


def test_a_layer_whose_extension_begins_with_nothing_is_entered_as_in_python() -> None:
    """Found by a long run: a plugin had put a list in place of the entries."""
    with asyncio.Runner() as runner:
        runner.run(compare_call(1625328795))


def test_both_read_and_answer_the_same() -> None:
    found = [compare_reads(seed) for seed in range(examples(1000))]
    assert set(found) == {True}


def test_both_do_the_same_on_a_connection() -> None:
    with asyncio.Runner() as runner:
        written = [runner.run(compare_connection(seed)) for seed in range(examples(1000))]
    assert set(written) == {False, True}


@broken
def test_a_difference_in_a_call_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Call.send

    async def broken_send(call: Call, message: Message) -> None:
        if message.get("status") != 403:
            await send(call, message)

    monkeypatch.setattr(Call, "send", broken_send)  # calls in pure Python have one of their own
    with pytest.raises(Difference, match=r"^compare_call\(\d+\)\npure:     .*\ncompiled: "), asyncio.Runner() as runner:
        for seed in range(1000):
            runner.run(compare_call(seed))
    KEPT.clear()
    gc.collect()


def test_a_difference_in_a_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, pure = DIALOGUES
    broken = compiled._replace(send=lambda session, message: b"")
    monkeypatch.setattr(calls, "DIALOGUES", (broken, pure))
    with pytest.raises(Difference, match=r"^compare_reads\(\d+\)\npure:     .*\ncompiled: "):
        for seed in range(1000):
            compare_reads(seed)
