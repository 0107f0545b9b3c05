"""The number of examples that property tests try: few in ``make test``, twenty times as many in ``make fuzz``."""

import os

__all__ = ["examples"]


def examples(number: int = 500) -> int:
    """Return `number` times the environment variable ``FUZZ_FACTOR``."""
    return int(number * float(os.environ.get("FUZZ_FACTOR", "1")))
