"""The way back: compiled and pure Python give the same, for usual answers and for odd ones."""

import gc
import os
from typing import Any

import pytest

from asgi_bridge.adapter.way_back import WAYS_BACK
from asgi_bridge.compiled import core_in_use
from tests.fuzzing import examples

if core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1":
    pytest.skip("the compiled core is not in use", allow_module_level=True)

from tests.core.way_back import KINDS, compare


@pytest.mark.parametrize("name", KINDS)
def test_both_give_the_same(name: str) -> None:
    given = [compare(name, seed) for seed in range(examples(400))]
    assert set(given) == {False, True} or name == "response_headers"


def test_a_finalizer_may_change_the_list_that_is_read() -> None:
    """Making a pair may run the garbage collector, and that the finalizer of a plugin's object."""

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            headers.clear()

    threshold = gc.get_threshold()
    headers: list[Any] = []
    try:
        for after in range(1, 40):
            headers[:] = [(b"X-%d" % number, b"%d " % number) for number in range(50)]
            gc.set_threshold(0)
            gc.collect()
            Cyclic()
            gc.set_threshold(after)
            checked = WAYS_BACK[0].checked_headers(headers, ())
            gc.set_threshold(0)
            assert checked == [(b"x-%d" % number, b"%d" % number) for number in range(len(checked))]
    finally:
        gc.set_threshold(*threshold)
