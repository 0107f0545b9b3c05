"""How many examples the property tests try: few in ``make test``, twenty times as many in ``make fuzz``."""

import os

__all__ = ["examples"]


def examples(number: int = 500) -> int:
    """`number`, times the environment's ``FUZZ_FACTOR``."""
    return int(number * float(os.environ.get("FUZZ_FACTOR", "1")))
