"""Count references around many rounds of the compiled core, in a Python built for debugging (``Py_DEBUG``).

``python3-dbg -m tests.core.references`` ends with exit code 1 if each round leaves references behind.
"""

import asyncio
import gc
import random
import sys
from collections.abc import Callable

from ..wire.damage import RECORDED, damaged
from .calls import compare_call, compare_connection, compare_reads
from .differential import compare_payload, generated, words_of_headers
from .doings import KEPT

__all__ = ["main"]

ROUNDS = 20
"""Rounds that are counted. What one round leaves once, such as a name that is kept, is less than one reference each."""


def _one_round() -> None:
    chance = random.Random(7)
    for number in range(300):
        for frame_type, payload, role in (
            RECORDED[number % len(RECORDED)],
            generated(chance.randbytes(60), number),
            words_of_headers(chance),
        ):
            compare_payload(frame_type, payload, role)
            compare_payload(frame_type, damaged(payload, chance), role)


def _one_round_of_calls() -> None:
    with asyncio.Runner() as runner:
        for seed in range(200):
            runner.run(compare_call(seed))
            runner.run(compare_connection(seed))
            compare_reads(seed)
    KEPT.clear()


def main() -> int:
    """Run the rounds. Returns the references that each left behind."""
    return sum(_count(each) for each in (_one_round, _one_round_of_calls))


def _count(one_round: Callable[[], None]) -> int:
    count = sys.gettotalrefcount
    for _ in range(3):  # caches fill
        one_round()
    gc.collect()
    before: int = count()
    for _ in range(ROUNDS):
        one_round()
    gc.collect()
    left: int = count() - before
    print(f"{ROUNDS} rounds left {left} references", flush=True)
    return max(0, left // ROUNDS)


if __name__ == "__main__":
    sys.exit(main() > 0)
