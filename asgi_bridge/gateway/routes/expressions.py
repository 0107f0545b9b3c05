"""Expressions over variables (``vars``, ``_meta.filter``), as lua-resty-expr 1.3 reads and evaluates them."""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..nginx.uri import raw
from .places import shown

__all__ = ["Expression", "Lookup", "parse_expression"]

Lookup: TypeAlias = Callable[[str], Awaitable[bytes | None]]
"""Gives the value of a variable by its name; None: it has none."""

_LOGIC = ("AND", "OR", "!AND", "!OR")
_OPERATORS = ("==", "~=", ">", ">=", "<", "<=", "~~", "~*", "in", "has", "ipmatch")
# what Lua's tonumber accepts: no sign before hexadecimal digits, white space around the number
_NUMBER = re.compile(r"\s*([+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)|0[xX][0-9a-fA-F]+)\s*", re.ASCII)
# the beginning of a named group, which Python writes (?P<
_GROUP_NAME = re.compile(r"\(\?<(?=[A-Za-z_])")


@dataclass(frozen=True, slots=True)
class _Comparison:
    variable: str
    operator: str
    value: Any
    negated: bool

    async def holds(self, lookup: Lookup) -> bool:
        return self._compare(await lookup(self.variable)) is not self.negated

    def _compare(self, found: bytes | None) -> bool:
        value = self.value
        match self.operator:
            case "==":
                return _equal(found, value)
            case "~=":
                # trap: a value that is no number is unequal to every number
                return not _equal(found, value)
            case "~~" | "~*":
                return found is not None and value.search(found) is not None
            case "in":
                return isinstance(value, list | tuple) and any(_same(found, each) for each in value)
            case "has":
                # only Lua has variables that are lists
                return False
            case "ipmatch":
                return _in_networks(found, value)
        left, right = _number(found), _number(value)
        if left is None or right is None:
            return False
        return {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[self.operator]


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression, ready to be evaluated.

    Attributes:
        logic: How the parts are joined: ``AND``, ``OR``, ``!AND`` or ``!OR``.
        parts: Comparisons, and expressions inside this one.
    """

    logic: str
    parts: tuple["Expression | _Comparison", ...]

    async def holds(self, lookup: Lookup) -> bool:
        """Evaluate the expression. Parts after the one that decides it are not evaluated.

        Args:
            lookup: Gives the variables.
        """
        wanted = "OR" in self.logic
        result = not wanted
        for part in self.parts:
            if await part.holds(lookup) is wanted:
                result = wanted
                break
        return result is not self.logic.startswith("!")


def parse_expression(rule: Any) -> Expression:
    """Read an expression of a route file.

    Args:
        rule: The expression, as ``[["arg_v", "==", "2"], ["http_x", "!", "in", ["a", "b"]]]``.

    Raises:
        ValueError: It is no expression. The message says why.
        NotImplementedError: It has a regular expression that Python does not understand.
    """
    if not isinstance(rule, list | tuple):
        raise ValueError(f"an expression is a list, not {shown(rule)}")
    if not rule:
        return Expression("AND", ())
    if not isinstance(rule[0], list | tuple) and str(rule[0]).upper() not in _LOGIC:
        raise ValueError('each comparison needs brackets of its own: [["arg_v", "==", "2"]]')
    parsed = _parse(rule)
    return parsed if isinstance(parsed, Expression) else Expression("AND", (parsed,))


def _parse(rule: Any) -> "Expression | _Comparison":
    if not isinstance(rule, list | tuple) or not rule:
        raise ValueError(f'a comparison is a list like ["arg_v", "==", "2"], not {shown(rule)}')
    if isinstance(rule[0], list | tuple):
        return Expression("AND", tuple(_parse(part) for part in rule))
    logic = str(rule[0]).upper()
    if logic in _LOGIC:
        if len(rule) < 3:
            raise ValueError(f"{logic} needs at least two parts")
        return Expression(logic, tuple(_parse(part) for part in rule[1:]))
    return _comparison(rule)


def _comparison(rule: Sequence[Any]) -> _Comparison:
    negated = len(rule) == 4
    if negated and rule[1] != "!":
        raise ValueError(f"of four parts the second has to be !, in {shown(list(rule))}")
    variable, *rest = [rule[0], *rule[2:]] if negated else rule[:3]
    operator = str(rest[0]).lower() if rest and rest[0] is not None else None
    value = rest[1] if len(rest) > 1 else None
    if value is None and operator is not None and operator not in _OPERATORS:
        # of two parts the second is the value, not an operator
        operator, value = "==", operator
    if not isinstance(variable, str) or operator is None:
        raise ValueError(f"a comparison has a variable, an operator and a value, not {shown(list(rule))}")
    if operator not in _OPERATORS:
        raise ValueError(f"there is no operator {shown(operator)}; there are: ! {' '.join(_OPERATORS)}")
    if operator in ("~~", "~*"):
        value = _pattern(value, re.IGNORECASE if operator == "~*" else 0)
    elif operator == "ipmatch":
        value = _networks(value)
    return _Comparison(variable, operator, value, negated)


def _pattern(value: Any, flags: int) -> re.Pattern[bytes]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a regular expression is a string, not {shown(value)}")
    try:
        return re.compile(raw(_GROUP_NAME.sub("(?P<", str(value))), flags)
    except (re.error, OverflowError, RecursionError) as exc:
        raise NotImplementedError(f"the stand-in cannot read the regular expression {shown(value)}: {exc}") from exc


def _networks(value: Any) -> list[Any]:
    entries = value if isinstance(value, list | tuple) else [value]
    try:
        if not entries or not all(isinstance(each, str) for each in entries):
            raise ValueError
        return [ipaddress.ip_network(each, strict=False) for each in entries]
    except ValueError:
        raise ValueError(f"ipmatch needs addresses, or a list of them, not {shown(value)}") from None


def _in_networks(found: bytes | None, networks: Sequence[Any]) -> bool:
    try:
        address = ipaddress.ip_address((found or b"").decode("latin-1"))
    except ValueError:
        return False
    return any(address in network for network in networks)


def _equal(found: bytes | None, value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(found) == value
    return _same(found, value)


def _same(found: bytes | None, value: Any) -> bool:
    """Compare as Lua's ``==`` does: a variable is a string or nil, so no number, boolean or table equals it."""
    if value is None or isinstance(value, Mapping):
        return found is None and value is None
    return isinstance(value, str) and found == raw(value)


def _number(value: Any) -> float | None:
    """Convert as Lua's ``tonumber`` does; None: it is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match[1]
    return float(int(digits, 16)) if digits[:2].lower() == "0x" else float(digits)
