import asyncio
from typing import Any

import pytest

from asgi_bridge.gateway.routes.expressions import Expression, parse_expression

VARIABLES = {
    "arg_n": b"10", "arg_text": b"abc", "arg_empty": b"", "http_x": b"Yes", "remote_addr": b"10.1.2.3", "six": b"::1",
    "utf": "grün".encode(), "hex": b"0x10", "spaced": b" 7 ",
}  # fmt: skip


def holds(rule: Any) -> bool:
    asked: list[str] = []

    async def lookup(name: str) -> bytes | None:
        asked.append(name)
        return VARIABLES.get(name)

    return asyncio.run(parse_expression(rule).holds(lookup))


@pytest.mark.parametrize(
    ("comparison", "result"),
    [
        (["arg_n", "==", "10"], True),
        (["arg_n", "==", 10], True),
        (["arg_n", "==", "\ud800"], False),  # half a character, which JSON can write
        (["arg_n", "~~", "\ud800|1"], True),
        (["arg_n", "in", ["\udfff", "10"]], True),
        (["arg_n", "==", 10.0], True),
        (["hex", "==", 16], True),
        (["spaced", "==", 7], True),
        (["arg_text", "==", 10], False),
        (["arg_n", "==", ["10"]], False),
        (["arg_n", "==", True], False),
        (["arg_none", "==", None], True),  # nil, as JSON's null
        (["arg_none", "==", {}], False),  # a table, as YAML's null
        (["arg_none", "~=", {}], True),
        (["arg_n", "10"], True),  # of two parts the second is the value
        (["arg_text", "ABC"], True),  # and is in lower case, whatever it was
        (["arg_none", "=="], True),
        (["arg_n", "~=", "10"], False),
        (["arg_text", "~=", 10], True),
        (["arg_none", "~=", "x"], True),
        (["arg_n", ">", 9], True),
        (["arg_n", ">", "9"], True),
        (["arg_n", ">=", 10], True),
        (["arg_n", "<", 10], False),
        (["arg_n", "<=", 10], True),
        (["arg_text", "<", 10], False),
        (["arg_none", ">", 0], False),
        (["arg_text", "~~", "^a.c$"], True),
        (["arg_text", "~~", "^A"], False),
        (["http_x", "~*", "^yes$"], True),
        (["arg_none", "~~", ".*"], False),
        (["arg_n", "~~", r"^(?<digits>\d+)$"], True),
        (["utf", "~~", "^gr..n$"], True),  # bytes, not characters
        (["utf", "==", "grün"], True),
        (["arg_n", "in", ["9", "10"]], True),
        (["arg_n", "in", [9, 10]], False),
        (["arg_n", "IN", ["10"]], True),
        (["arg_n", "in", "10"], False),
        (["arg_n", "has", "10"], False),
        (["remote_addr", "ipmatch", ["10.0.0.0/8", "::1"]], True),
        (["remote_addr", "ipmatch", "10.1.2.0/24"], True),
        (["six", "ipmatch", ["::1"]], True),
        (["arg_text", "ipmatch", ["::/0", "0.0.0.0/0"]], False),
        (["arg_none", "ipmatch", ["::/0"]], False),
        (["arg_n", "!", "==", "10"], False),
        (["arg_none", "!", "==", "x"], True),
        (["arg_n", "!", "in", ["9"]], True),
        (["remote_addr", "!", "ipmatch", ["10.0.0.0/8"]], False),
        (["arg_none", "!", "~~", "x"], True),
    ],
)
def test_comparisons(comparison: list[Any], result: bool) -> None:
    assert holds([comparison]) is result


YES, NO = ["arg_n", "==", "10"], ["arg_n", "==", "11"]


@pytest.mark.parametrize(
    ("rule", "result"),
    [
        ([], True),
        ([YES, YES], True),
        ([YES, NO], False),
        (["AND", YES, NO], False),
        (["OR", NO, YES], True),
        (["or", NO, NO], False),
        (["!OR", NO, NO], True),
        (["!OR", NO, YES], False),
        (["!AND", YES, NO], True),
        (["!AND", YES, YES], False),
        ([YES, ["OR", NO, ["AND", YES, ["!AND", YES, NO]]]], True),
        (["OR", [YES, NO], NO], False),
        (["OR", [YES, YES], NO], True),
        ([[YES], [YES, [YES]]], True),
    ],
)
def test_logic(rule: list[Any], result: bool) -> None:
    assert holds(rule) is result


def test_what_decides_nothing_any_more_is_not_asked() -> None:
    asked = []

    async def lookup(name: str) -> bytes | None:
        asked.append(name)
        return None

    rule = ["OR", ["first", "~=", "x"], ["second", "==", "x"]]
    assert asyncio.run(parse_expression(rule).holds(lookup)) is True
    assert asyncio.run(parse_expression([["third", "==", "x"], ["fourth", "==", "x"]]).holds(lookup)) is False
    assert asked == ["first", "third"]
    assert parse_expression([]) == Expression("AND", ())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("arg_a", "an expression is a list, not 'arg_a'"),
        (["arg_a", "==", "b"], "each comparison stands in brackets of its own"),
        ([["arg_a"]], "a comparison has a variable, an operator and a value, not ['arg_a']"),
        ([[]], 'a comparison is a list like ["arg_v", "==", "2"], not []'),
        ([["arg_a", "==", "b"], "and"], 'a comparison is a list like ["arg_v", "==", "2"], not \'and\''),
        ([["arg_a", "=~", "b"]], "there is no operator '=~'; there are: ! == ~= > >= < <= ~~ ~* in has ipmatch"),
        ([["arg_a", "not", "==", "b"]], "of four parts the second has to be !"),
        ([[5, "==", "b"]], "a comparison has a variable, an operator and a value, not [5, '==', 'b']"),
        (["OR", ["arg_a", "==", "b"]], "OR wants two parts at least"),
        ([["arg_a", "ipmatch", "nowhere"]], "ipmatch wants addresses, or a list of them, not 'nowhere'"),
        ([["arg_a", "ipmatch", []]], "ipmatch wants addresses, or a list of them, not []"),
        ([["arg_a", "~~", ["a"]]], "a regular expression is a string, not ['a']"),
    ],
)
def test_what_is_wrong_is_named(rule: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_expression(rule)
    assert str(caught.value).startswith(message)


def test_a_regular_expression_of_pcre_alone() -> None:
    with pytest.raises(NotImplementedError, match="cannot read the regular expression"):
        parse_expression([["uri", "~~", "(?R)"]])
