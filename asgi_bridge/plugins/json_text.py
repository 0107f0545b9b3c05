"""JSON text of routes: read strictly, and bounded before it is decoded.

A name twice in one object, ``NaN`` and infinite numbers are errors. The depth of nesting and the digits of integers are
bounded.
"""

import itertools
import json
import math
import re
from collections import Counter
from typing import Any

from ..errors import ConfigurationError
from .reasons import shortened

__all__ = ["parse_json"]

MAX_DEPTH = 200
"""Levels of nesting, which is pydantic's own limit."""

MAX_DIGITS = 308
"""Of an integer: no float is longer, and reading one costs more than its length."""


def parse_json(text: str) -> Any:
    """`text` as JSON; blank text is an empty object, since APISIX requires a string where there is nothing to say.

    Raises:
        ConfigurationError: it is not JSON.
    """
    if not text.strip():
        return {}
    if _depth(text) > MAX_DEPTH:
        raise ConfigurationError("the configuration is nested too deeply")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except ValueError as exc:
        raise ConfigurationError(f"the configuration is not JSON: {exc}") from None
    except RecursionError:
        raise ConfigurationError("the configuration is nested too deeply") from None


_strings = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)  # the last one may have no end
_brackets = re.compile(r"[^\[\]{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def _depth(text: str) -> int:
    """Levels of nesting of JSON."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0  # it cannot be too deep, and most are not
    brackets = _brackets.sub("", _strings.sub("", text))
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Of two equal names one would be without effect, and nobody could see which."""
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
