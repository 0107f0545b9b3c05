"""Compare the compiled way back with its pure twin: the same frame, headers or Rewrite, the same warnings, or an
exception of the same type.

As a program it tries random answers for some seconds, prints how many there were, and ends with exit code 1 at the
first difference: ``python -m tests.core.way_back SECONDS [SEED]``.
"""

import gc
import itertools
import random
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from asgi_bridge.adapter import _headers as compiled_headers  # type: ignore[attr-defined]
from asgi_bridge.adapter import answer, changes, headers
from asgi_bridge.errors import LocalProtocolError, PluginError
from asgi_bridge.wire import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop
from asgi_bridge.wire import _encode as compiled_encode  # type: ignore[attr-defined]
from asgi_bridge.wire.encode import encode as pure_encode

from ..wire.generate import MESSAGES, Source
from .trying import Difference, run_program, try_out

__all__ = ["KINDS", "Difference", "compare", "compare_while_lists_change", "main"]


class Octets(bytes):
    """What is bytes, but not exactly."""


class Text(str):
    """What is a string, but not exactly."""


class Pair(tuple[Any, ...]):
    """What is a tuple, but not exactly."""

    __slots__ = ()


class Pairs(list[Any]):
    """What is a list, but not exactly."""


class Answer(Stop):
    """What is a Stop, but not exactly."""


class Number(IntEnum):
    """What is an int, but not exactly."""

    TWO_HUNDRED = 200
    NO_CONTENT = 204


NAMES = (
    b"host", b"cookie", b"x-a", b"x-b", b"x-ab", b"X-A", b"content-type", b"content-length", b"transfer-encoding",
    b"server", b"connection", b"keep-alive", b"te", b"x-real-ip", b"vary", b"etag", b"location", b"content-language",
    b"content-security-policy", b"content-", b"content", b"", b"bad name", b"x:", b"\xff", b"x-" + b"n" * 300,
)  # fmt: skip
VALUES = (
    b"", b" ", b"\t", b"a", b"b", b"ab", b" a", b"a ", b"\t a b \t", b"\x00", b"a\r\nb", b"a\x7f", b"\xff\xe9", b"5",
    b"0", b"05", b"10", b"12345", b"a/b", b"..", b"v" * 3000,
)  # fmt: skip
BODIES = (b"", b"5", b"hello", b"0123456789", b"x" * 12345, b"x" * 65536)
ACTIONS: tuple[Any, ...] = (None, None, 5, Answer(), Rewrite, object())
Chance = random.Random


def _odd(chance: Chance, octets: bytes) -> Any:
    """Return something that stands for `octets`, or does not."""
    odd: tuple[Callable[[], Any], ...] = (
        lambda: bytearray(octets),
        lambda: memoryview(octets),
        lambda: memoryview(octets * 8).cast("Q"),
        lambda: memoryview(octets + b"\0")[::2],
        lambda: Octets(octets),
        lambda: octets.decode("latin-1"),
        lambda: None,
        lambda: len(octets),
    )
    return chance.choice(odd)()


def _pair(chance: Chance, odd: float) -> Any:
    name, value = chance.choice(NAMES[:9] if chance.random() < 0.7 else NAMES), chance.choice(VALUES)
    if chance.random() >= odd:
        return bytes(bytearray(name)), bytes(bytearray(value))  # objects of their own
    match chance.randrange(9):
        case 0:
            return [name, value]
        case 1:
            return name, value, b""
        case 2:
            return Pair((name, value))
        case 3:
            return (name,)
        case 4:
            return None
        case 5 | 6:
            return _odd(chance, name), value
        case _:
            return name, _odd(chance, value)


def _pairs(chance: Chance, odd: float = 0.0) -> list[Any]:
    count = chance.choice((0, 1, 1, 2, 2, 3, 5, 14, 14, 40 if chance.random() < 0.9 else 300))
    return [_pair(chance, odd) for _ in range(count)]


def _container(chance: Chance, pairs: list[Any]) -> Any:
    match chance.randrange(20):
        case 0:
            return tuple(pairs)
        case 1:
            return iter(pairs)
        case 2:
            return Pairs(pairs)
        case 3:
            return dict.fromkeys(map(repr, pairs)) if chance.randrange(4) == 0 else pairs
        case _:
            return pairs


def _changed(chance: Chance, before: list[Any], odd: float) -> list[Any]:
    """Return what a plugin makes of the headers `before`."""
    after = list(before)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 6, 40 if chance.random() < 0.2 else 1))):
        where = chance.randrange(len(after) + 1)
        match chance.randrange(9):
            case 0 | 1 | 2:
                after.append(_pair(chance, odd))
            case 3:
                after.insert(where, _pair(chance, odd))
            case 4:
                del after[where : where + 1]
            case 5:
                after[where : where + 1] = [_pair(chance, odd)]
            case 6:  # equal, but another object
                after[where : where + 1] = [
                    tuple(part[:1] + part[1:] if type(part) is bytes else part for part in each)
                    if type(each) is tuple else each
                    for each in after[where : where + 1]
                ]  # fmt: skip
            case 7:
                chance.shuffle(after)
            case _:
                if after and type(each := chance.choice(after)) is tuple and len(each) == 2:
                    after.append((each[0], chance.choice(VALUES)))
    return after


def _scopes(chance: Chance) -> tuple[Any, ...]:
    odd = chance.choice((0.0, 0.0, 0.1))
    before: Any = {
        "method": chance.choice(("GET", "HEAD")),
        "path": chance.choice(("/x", "/", "/\ufffd")),
        "raw_path": b"/x",
        "query_string": chance.choice((b"", b"a=1&b")),
        "headers": _pairs(chance),
    }
    after = dict(before)
    after["headers"] = _changed(chance, before["headers"], odd)
    changes: dict[str, tuple[Any, ...]] = {
        "path": ("/y", "/x"[:1] + "x", "", "y", "/\ufffd", "/\udc80", "/é", Text("/x"), Text("/y"), b"/x", None, 1),
        "raw_path": (b"/x"[:1] + b"x", b"/y", None, "/x", Octets(b"/x")),
        "query_string": (b"", b"a=1&b"[:2] + b"1&b", b"a=2", b"c&a=%20+", "a=1", None, bytearray(b"a=1&b")),
        "method": ("GET"[:1] + "ET", "POST", Text("GET"), b"GET", None),
        "headers": (None, (), "abc", 5),
    }
    while chance.random() < 0.4:
        key = chance.choice(("path", "path", "path", "raw_path", "query_string", "method", "headers"))
        if key == "headers" and chance.random() < 0.9:
            continue
        after[key] = chance.choice(changes[key])
    if chance.random() < 0.1:
        after["headers"] = _container(chance, after["headers"]) if type(after["headers"]) is list else ()
    if chance.random() < 0.05:
        del after[chance.choice(list(after))]
    args = chance.choice((None, [], [(b"a", b"1"), (b"b", None)]))
    return before, Pairs(after) if chance.random() < 0.01 else after, args, chance.choice((None, None, b"", b"body"))


def _number(chance: Chance, usual: int) -> Any:
    if chance.random() < 0.9:
        return usual
    return chance.choice((0, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**70, -1, True, 1.5, None, "1", *Number))


def _octets(chance: Chance, odd: float) -> Any:
    if chance.random() < 0.3:
        return None
    octets = chance.choice(BODIES)
    return octets if chance.random() >= odd else _odd(chance, octets)


def _entries(chance: Chance, odd: float) -> Any:
    """Return entries of a message, names and values perhaps absent."""
    if chance.random() < 0.2:
        return None
    entries = _pairs(chance, odd)
    for index, entry in enumerate(entries):
        if chance.random() < 0.2 and type(entry) is tuple and len(entry) == 2:
            entries[index] = chance.choice(((entry[0], None), (None, entry[1]), (None, None)))
    return _container(chance, entries) if chance.random() < odd else entries


def _message(chance: Chance) -> tuple[Any]:
    odd = chance.choice((0.0, 0.0, 0.1))
    match chance.randrange(8):
        case 0:
            kinds = list(MESSAGES.values())
            return (chance.choice(kinds)(Source(chance.randbytes(96))),)
        case 1:
            return (HTTPReqCallResp(_number(chance, 7), chance.choice(ACTIONS)),)
        case 2 | 3:
            stop = Stop(_number(chance, 200), _entries(chance, odd), _octets(chance, odd))
            return (HTTPReqCallResp(_number(chance, 7), stop),)
        case 4 | 5:
            lists = [_entries(chance, odd) for _ in range(3)]
            rewrite = Rewrite(_octets(chance, odd), lists[0], lists[1], lists[2], _octets(chance, odd))
            return (HTTPReqCallResp(_number(chance, 7), rewrite),)
        case 6:
            message = HTTPRespCallResp(
                _number(chance, 7), _number(chance, 200), _entries(chance, odd), _octets(chance, odd)
            )
            return (message,)
        case _:
            huge = b"x" * chance.choice((2**24 - 1 - 76, 2**24 - 76, 2**24 - 1, 2**24, 2**23))
            if chance.random() < 0.97:  # it takes long
                return (chance.choice((object(), HTTPReqCallResp.__new__(HTTPReqCallResp), Stop())),)
            where = chance.choice(
                (Stop(200, None, huge), Stop(200, [(huge, huge)]), Rewrite(huge), Rewrite(args=[(huge, None)]))
            )
            return (chance.choice((HTTPReqCallResp(7, where), HTTPRespCallResp(7, 200, [(b"a", huge)], huge[:9]))),)


def _stop(chance: Chance) -> tuple[Any, ...]:
    given = _pairs(chance)
    if chance.random() < 0.8:  # as the function gets them
        given = [(name.lower(), value.strip(b" \t")) for name, value in given]
    body = chance.choice(BODIES)
    if chance.random() < 0.5:
        given.append((b"content-length", b"%d" % len(body)))
    method = chance.choice(("GET", "GET", "HEAD", "POST"))
    status = chance.choice((200, 200, 204, 304, 302, 404, 503, *Number))
    return method, status, given, body, chance.random() < 0.8


def _outcome(function: Callable[..., Any], args: tuple[Any, ...], warns: bool) -> tuple[object, ...]:
    """Return what a function gives and warns of, or the exception that it raises."""
    warnings: list[tuple[str, str]] = []

    def warn(about: str, text: str) -> None:
        warnings.append((about, text))

    try:
        result = function(*args, warn) if warns else function(*args)
    except (LocalProtocolError, PluginError) as exc:  # their texts are for people
        return type(exc), str(exc).partition(" at 0x")[0], warnings
    except Exception as exc:
        return type(exc), warnings
    return "gives", result, repr(result), warnings  # 1 == True, but they look different


KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[Chance], tuple[Any, ...]], bool]] = {
    "encode": (pure_encode, compiled_encode.encode, _message, False),
    "checked_headers": (
        headers.checked_headers,
        compiled_headers.checked_headers,
        lambda chance: (_container(chance, _pairs(chance, chance.choice((0.0, 0.1)))), _pairs(chance)),
        False,
    ),
    "differences": (changes.differences, compiled_headers.differences, _scopes, True),
    "stop": (answer.stop, compiled_headers.stop, _stop, True),
    "response_headers": (
        answer.response_headers, compiled_headers.response_headers, lambda chance: (_pairs(chance),), True,
    ),
}  # fmt: skip
"""Function → its pure twin, the compiled one, what makes its arguments, and whether it is given `warn` as the last."""


def compare(name: str, seed: int) -> bool:
    """Call one function of `KINDS` on both.

    Args:
        name: Of the function.
        seed: Of its arguments. They are made twice, because a function may use them up.

    Returns:
        Whether it gave something. If not, it raised an exception.

    Raises:
        Difference: The twins do not agree.
    """
    pure, compiled, make, warns = KINDS[name]
    expected = _outcome(pure, make(random.Random(seed)), warns)
    found = _outcome(compiled, make(random.Random(seed)), warns)
    if found != expected:
        raise Difference(f"compare({name!r}, {seed})\npure:     {expected!r:.2000}\ncompiled: {found!r:.2000}")
    return expected[0] == "gives"


def compare_while_lists_change() -> None:
    """Look at headers whose list is emptied meanwhile. To make a list or a pair may run the garbage collector, which
    runs the finalizer of a plugin's object.

    Raises:
        Difference: What was found is not the beginning of the list.
    """
    given: list[Any] = []

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            given.clear()

    def changed(headers: list[Any]) -> Any:
        scope = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
        found = compiled_headers.differences(scope | {"headers": []}, scope | {"headers": headers}, [], None, print)
        return [] if found is None else found.headers

    checked = [(b"x-%d" % number, b"%d" % number) for number in range(30)]
    as_given = [(b"X-%d" % number, b"%d " % number) for number in range(30)]
    looks: list[tuple[Callable[[list[Any]], Any], list[Any]]] = [
        (compiled_headers.checked_headers, checked),
        (changed, checked),
        (lambda headers: compiled_headers.response_headers(headers, print), as_given),
    ]
    threshold = gc.get_threshold()
    try:
        for (look, expected), after in itertools.product(looks, range(1, 40)):
            given[:] = as_given
            gc.set_threshold(0)
            gc.collect()
            Cyclic()
            gc.set_threshold(after)
            found = look(given)
            gc.set_threshold(0)
            if found != expected[: len(found)]:
                raise Difference(f"a list that changes\ncompiled: {found!r}")
    finally:
        gc.set_threshold(*threshold)


def main(seconds: float, seed: int | None = None) -> None:
    """Try random answers. See `try_out`."""
    names = itertools.cycle(KINDS)
    compare_while_lists_change()
    try_out(
        "answers",
        "without an error",
        len(KINDS),
        lambda chance: compare(next(names), chance.getrandbits(64)),
        seconds,
        seed,
    )


if __name__ == "__main__":
    run_program(main)
