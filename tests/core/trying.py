"""The loop of the programs that compare the compiled core with pure Python, and how they end."""

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable

__all__ = ["Difference", "compare_stories", "run_program", "try_out"]


class Difference(AssertionError):
    """The twins do not agree."""


def compare_stories(what: str, pure: Iterable[object], compiled: Iterable[object]) -> None:
    """Compare what has happened with each of the twins, step by step.

    Args:
        what: The call that does the same again.
        pure, compiled: The steps.

    Raises:
        Difference: They are not equal.
    """
    for one, other in itertools.zip_longest(pure, compiled):
        if one != other:
            raise Difference(f"{what}\npure:     {one!r}\ncompiled: {other!r}")


def try_out(
    what: str, good: str, batch: int, compare: Callable[[random.Random], bool], seconds: float, seed: int | None
) -> None:
    """Compare the twins on random input, and print how often.

    Args:
        what: What is compared, for the line that is printed.
        good: Those for which `compare` returns True, for that line.
        batch: Number of comparisons between two looks at the clock.
        compare: Compares the twins once.
        seconds: How long.
        seed: Of the random numbers; None: another one each time.

    Raises:
        Difference: The twins do not agree.
    """
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    chance = random.Random(seed)
    count = found = 0
    start = time.monotonic()
    try:
        while time.monotonic() < start + seconds:
            for _ in range(batch):
                count += 1
                found += compare(chance)
    finally:
        print(f"{count} {what}, {found} {good}, in {time.monotonic() - start:.1f} s, seed {seed}", flush=True)


def run_program(main: Callable[..., None]) -> None:
    """Run a program with the seconds and the seed of its command line. A difference is its exit message."""
    try:
        main(float(sys.argv[1]), *map(int, sys.argv[2:]))
    except Difference as difference:
        sys.exit(str(difference))
