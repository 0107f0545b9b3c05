"""JSON text of routes: read strictly, and bounded before it is decoded.

An object with the same name twice is an error. So are ``NaN`` and infinite numbers. The depth of nesting and the length
of integers are bounded.
"""

import itertools
import json
import math
import re
from collections import Counter
from typing import Any

from .reasons import shortened
from .refused import RefusedConfiguration

__all__ = ["parse_json"]

MAX_DEPTH = 200
"""Maximum number of nested levels, which is pydantic's own limit."""

MAX_DIGITS = 308
"""Maximum number of digits of an integer. No float is longer, and reading many digits takes more than linear time."""


def parse_json(text: str) -> Any:
    """Parse a JSON text. Blank text is an empty object, because APISIX requires a string even for no configuration.

    Raises:
        RefusedConfiguration: It is not JSON, or beyond a bound.
    """
    if not text.strip():
        return {}
    if _depth(text) > MAX_DEPTH:
        raise RefusedConfiguration("the configuration is nested too deeply")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except ValueError as exc:
        index = exc.pos if isinstance(exc, json.JSONDecodeError) else None
        raise RefusedConfiguration(f"the configuration is not JSON: {exc}", index=index) from None
    except RecursionError:
        raise RefusedConfiguration("the configuration is nested too deeply") from None


_strings = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)  # the last string may lack its end
_brackets = re.compile(r"[^\[\]{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def _depth(text: str) -> int:
    """Return how deeply JSON is nested; 0 if it is certainly not too deep."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0  # this quick check is enough for nearly all
    brackets = _brackets.sub("", _strings.sub("", text))
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. Of two equal names one would have no effect, and nobody could see which."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"an object has the name {shortened(names.most_common(1)[0][0], 100)!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)
