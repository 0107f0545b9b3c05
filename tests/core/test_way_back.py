"""The way back: compiled and pure Python give the same, for usual answers and for odd ones."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from asgi_bridge.adapter.headers import checked_headers
from asgi_bridge.compiled import core_in_use
from asgi_bridge.errors import PluginError
from tests.fuzzing import examples

if core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1":
    pytest.skip("the compiled core is not in use", allow_module_level=True)

from . import way_back
from .way_back import KINDS, Difference, compare, compare_while_lists_change


@pytest.mark.parametrize("name", KINDS)
def test_both_give_the_same(name: str) -> None:
    given = [compare(name, seed) for seed in range(examples(400))]
    assert set(given) == {False, True} or name == "response_headers"


@pytest.mark.parametrize("length", [*range(1, 19), 39, 40, 41])
def test_each_byte_at_each_position_of_a_header(length: int) -> None:
    """Values are looked at 8 bytes at a time, and names that came before are not looked at again."""
    _, compiled, _, _ = KINDS["checked_headers"]
    right = b"x" * length
    for at in range(length):
        for number in range(256):
            text = right[:at] + bytes((number,)) + right[at + 1 :]
            for pair in ((text, b"v"), (b"n", text)):
                assert outcome(compiled, pair) == outcome(checked_headers, pair), pair


def outcome(check: Callable[..., Any], pair: tuple[bytes, bytes]) -> object:
    try:
        return check([pair])
    except PluginError as exc:
        return str(exc)


def test_a_finalizer_may_change_the_list_that_is_read() -> None:
    compare_while_lists_change()


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, compiled, make, warns = KINDS["encode"]
    monkeypatch.setitem(way_back.KINDS, "encode", (lambda message: b"", compiled, make, warns))
    with pytest.raises(Difference, match=r"^compare\('encode', 3\)\npure:     .*b''.*\ncompiled: "):
        compare("encode", 3)
