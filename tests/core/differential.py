"""Compare the compiled core with its pure twin: the same message or scope, or an exception of the same type.

As a program it tries random payloads for some seconds, prints how many there were, and ends with exit code 1 at the
first difference: ``python -m tests.core.differential SECONDS [SEED]``.
"""

import random
import struct
from collections.abc import Callable
from typing import Any

from asgi_bridge.errors import RemoteProtocolError
from asgi_bridge.wire import HEADER_SIZE, HTTPReqCallReq, Role
from asgi_bridge.wire import _decode as compiled_decode  # type: ignore[attr-defined]
from asgi_bridge.wire.decode import decode as pure_decode
from asgi_bridge.wire.encode import encode

from ..wire.damage import RECORDED, damaged
from ..wire.generate import MESSAGES, Source
from .trying import Difference, run_program, try_out

__all__ = [
    "Difference",
    "compare_payload",
    "compare_scope",
    "generated",
    "main",
    "shared_entries",
    "small_offsets",
    "words_of_headers",
]

from asgi_bridge.adapter import _request_scope as compiled_scope  # type: ignore[attr-defined]
from asgi_bridge.adapter import request_scope as pure_scope

_ROLES = tuple(Role)
_WORDS = (0, 1, 2, 4, 6, 8, 12, 16, 0xFFFFFFFC, 0x00080004, 0x000C0008, 0x0008000A, 0x00040008, 0x00080008, 24, 32)
_ORIGIN = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"transfer-encoding")
_LETTERS = b"-abcdefghijklmnopqrstuvwxyz"


def _outcome(function: Callable[..., Any], *args: Any) -> tuple[object, ...]:
    """Return what a function gives, or the type of the exception that it raises."""
    try:
        result = function(*args)
    except RemoteProtocolError as exc:
        return RemoteProtocolError, exc.recoverable
    except Exception as exc:
        return (type(exc),)
    return "gives", result, repr(result)  # 1 == True, but they look different


def compare_payload(frame_type: int, payload: bytes, role: Role) -> Any:
    """Decode on both, and make the scope of a request on both.

    Returns:
        The message; None: there is none.

    Raises:
        Difference: The twins do not agree.
    """
    pure = _outcome(pure_decode, frame_type, payload, role)
    compiled = _outcome(compiled_decode.decode, frame_type, payload, role)
    if pure != compiled:
        raise Difference(f"decode({frame_type}, {payload!r}, {role!r})\npure:     {pure}\ncompiled: {compiled}")
    if pure[0] != "gives":
        return None
    if type(compiled[1]) is HTTPReqCallReq:
        compare_scope(compiled[1])
    return compiled[1]


def _scope(module: Any, message: HTTPReqCallReq) -> tuple[object, ...]:
    headers, args, index = module.checked_fields(message)
    origin = module.forwarded_origin(index)
    scope = module.build_scope(message, headers, args, origin or ("http", ("", 80)), None)
    return index, origin, module.encode_query(args), scope


def compare_scope(message: HTTPReqCallReq) -> None:
    """Make a scope on both.

    Raises:
        Difference: The twins do not agree.
    """
    pure, compiled = _outcome(_scope, pure_scope, message), _outcome(_scope, compiled_scope, message)
    if pure != compiled:
        raise Difference(f"scope of {message}\npure:     {pure}\ncompiled: {compiled}")


# what is tried


def generated(data: bytes, kind: int) -> tuple[int, bytes, Role]:
    """Return frame type, payload and reader of a valid message that is made of `data`."""
    message_type = list(MESSAGES)[kind % len(MESSAGES)]
    frame = encode(MESSAGES[message_type](Source(data)))
    answers = message_type.__name__.endswith("Resp") != message_type.__name__.startswith("ExtraInfo")
    return frame[0], frame[HEADER_SIZE:], Role.GATEWAY if answers else Role.RUNNER


def small_offsets(choices: bytes) -> bytes:
    """Return a payload of small words, which may be offsets and vtables. Random bytes seldom get past the root."""
    return struct.pack(f"<{len(choices)}I", *(_WORDS[choice % len(_WORDS)] for choice in choices))


def words_of_headers(chance: random.Random) -> tuple[int, bytes, Role]:
    """Return a request whose headers have names of which one begins as the other does, and those of the origin."""
    word = bytes(chance.choice(_LETTERS) for _ in range(45))
    names = [word[: chance.randrange(1, 45)] for _ in range(12)] + [chance.choice(_ORIGIN) for _ in range(3)]
    chance.shuffle(names)
    values = (b"https", b"http", b"a.test:81", b"[::1]:8", b"443", b"", chance.randbytes(chance.randrange(300)))
    message = HTTPReqCallReq(
        chance.getrandbits(32),
        chance.randbytes(chance.choice((0, 3, 4, 5, 16, 17))),
        "POST",
        b"/" + bytes(chance.choices(range(256), k=chance.randrange(20))),
        [(chance.randbytes(chance.randrange(9)), chance.choice((None, b"", b"a b", b"\xff=&+"))) for _ in range(3)],
        [(name, chance.choice(values)) for name in names],
        chance.getrandbits(32),
    )
    return 2, encode(message)[HEADER_SIZE:], Role.RUNNER


def shared_entries(chance: random.Random) -> tuple[int, bytes, Role]:
    """Return a list of plugins whose entries all lead to the same one, up to the budget for that and beyond."""
    count = chance.randrange(1, 80)
    name, value = chance.randbytes(chance.randrange(40)), chance.randbytes(chance.randrange(40))
    table = 24 + 4 * count + 8
    parts = [
        struct.pack("<IHHHHiII", 12, 8, 8, 4, 0, 8, 4, count),  # root, its vtable and table, the length of the vector
        struct.pack(f"<{count}I", *(table - position for position in range(24, 24 + 4 * count, 4))),
        struct.pack("<HHHHiII", 8, 12, 8, 4, 8, 8, 8 + len(value)),  # vtable and table of the entry
        *(struct.pack("<I", len(text)) + text for text in (value, name)),
    ]
    return 1, b"".join(parts), Role.RUNNER


def _random_payload(chance: random.Random) -> tuple[int, bytes, Role]:
    match chance.randrange(9):
        case 0:
            return chance.randrange(-1, 7), chance.randbytes(chance.randrange(200)), chance.choice(_ROLES)
        case 1:
            return chance.randrange(5), small_offsets(chance.randbytes(chance.randrange(100))), chance.choice(_ROLES)
        case 2 | 3:
            case = chance.choice(RECORDED)
        case 4 | 5:
            case = generated(chance.randbytes(chance.randrange(60)), chance.randrange(9))
        case 6:
            case = shared_entries(chance)
        case _:
            case = words_of_headers(chance)
    frame_type, payload, role = case
    return (frame_type, payload if chance.randrange(4) == 0 else damaged(payload, chance), role)


def main(seconds: float, seed: int | None = None) -> None:
    """Try random payloads. See `try_out`."""
    try_out(
        "payloads", "messages", 100, lambda chance: compare_payload(*_random_payload(chance)) is not None, seconds, seed
    )


if __name__ == "__main__":
    run_program(main)
