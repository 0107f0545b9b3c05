"""Configurations that plugins refuse: each wrong field, and the line on which it stands."""

import json
import textwrap
from typing import Any

import pytest

from asgi_bridge.check import Finding, check_routes, configurations
from asgi_bridge.check.configurations import index_of
from asgi_bridge.gateway import parse_routes, read_routes
from asgi_bridge.testing import Gateway
from tests.check.bridges import make_bridge

HEAD = """\
routes:
- id: r
  uri: /*
  plugins:
    ext-plugin-pre-req:
      conf:
"""
"""The lines of a route file before the entries of its list: the first entry is on line 7."""


def findings_of(entries: str, **options: int) -> list[Finding]:
    text = HEAD + textwrap.indent(textwrap.dedent(entries).lstrip("\n"), "      ") + "#END\n"
    return check_routes(parse_routes(text), make_bridge().plugins, **options)


def wrong(entries: str) -> list[tuple[int | None, str | None]]:
    return [(each.line, each.field) for each in findings_of(entries)]


def refused(configuration: Any, name: str = "limit") -> list[tuple[str | None, str]]:
    """Fields and messages, without what all messages begin with."""
    text = configuration if isinstance(configuration, str) else json.dumps(configuration)
    listed = {"conf": [{"name": name, "value": text}]}
    routes = read_routes({"routes": [{"id": "r", "uri": "/*", "plugins": {"ext-plugin-pre-req": listed}}]})
    start = f"route 'r': ext-plugin-pre-req.conf[0]: plugin {name} refuses "
    findings = check_routes(routes, make_bridge().plugins)
    assert {(each.severity, each.route, each.plugin) for each in findings} <= {("error", "r", name)}
    return [(each.field, each.message.removeprefix(start)) for each in findings]


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("limit", {"rate": {"per": 1}}),
        ("limit", {"rate": {"per": 1, "burst": 2}, "names": ["a"], "either": [1]}),
        ("per-minute", {}),
        ("per-minute", ""),
        ("per-minute", {"names": []}),
        ("odd", {}),
        ("limit", "$env://NOT_SET_HERE"),
        ("limit", "$secret://vault/1/limit"),
    ],
)
def test_what_is_right_is_not_mentioned(name: str, configuration: Any) -> None:
    assert refused(configuration, name) == []


def test_each_wrong_field_is_a_finding() -> None:
    consequence = ", so requests get 503: "
    assert refused({"rate": {"per": "x", "brst": 2}, "names": [5], "either": 1}) == [
        (
            "rate.per",
            f"field 'rate.per'{consequence}Input should be a valid integer, unable to parse string as an integer",
        ),
        ("rate.brst", f"field 'rate.brst'{consequence}Extra inputs are not permitted; did you mean 'burst'?"),
        ("names.0", f"field 'names.0'{consequence}Input should be a valid string"),
    ]
    assert refused({}) == [("rate", f"field 'rate'{consequence}Field required")]
    assert refused({"rate": {"per": None}}, "per-minute") == [
        ("rate.per", f"field 'rate.per'{consequence}Input should be a valid integer")
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"rate": NaN}', "it is not JSON: NaN is not JSON"),
        ('{"rate": {}, "rate": {}}', "it is not JSON: an object has the name 'rate' twice"),
        ("[" * 300 + "]" * 300, "it is nested too deeply"),
        ("[]", "Input should be an object"),
    ],
)
def test_a_configuration_may_be_wrong_as_a_whole(text: str, reason: str) -> None:
    assert refused(text) == [(None, f"its configuration, so requests get 503: {reason}")]


def test_of_many_wrong_fields_the_first_ten_are_named() -> None:
    found = refused({"rate": {"per": 1}} | {f"x{number}": 1 for number in range(30)})
    assert [field for field, _ in found] == [*(f"x{number}" for number in range(10)), None]
    assert found[-1][1] == "its configuration, so requests get 503: 20 more fields are wrong"


def test_a_validator_that_raises_is_a_finding() -> None:
    reason = "its configuration, so requests get 503: RuntimeError: no such thing"
    assert refused({"value": "x"}, "odd") == [(None, reason)]


def test_a_validator_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configurations, "BUILD_SECONDS", 0.01)
    reason = "its configuration, so requests get 503: checking it takes more than 0.01 s"
    assert refused({"value": "wait"}, "odd") == [(None, reason)]


def test_bytes_that_are_no_text_are_a_finding() -> None:
    reason = "its configuration, so requests get 503: it must be UTF-8"
    assert refused(json.dumps({"value": "x"})[:-1] + "\ud800", "odd") == [(None, reason)]


def test_the_line_is_that_of_the_entry_where_a_configuration_has_one_line() -> None:
    assert wrong("""
        - name: limit
          value: '{"rate": {"per": "x"}, "more": 1}'
        - {name: limit,
           value: '{}'}
        - {name: limit, value: "{\\"rate\\": 5}"}
        - name: limit

          value:
            '{'
    """) == [(8, "rate.per"), (8, "more"), (10, "rate"), (11, "rate"), (15, None)]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (
            """
            - name: limit
              value: |
                {
                  "more": 1,
                  "rate":
                    {"per": "x"},
                  "names": ["a",

                    "b", 5]
                }
            """,
            [(12, "rate.per"), (15, "names.2"), (10, "more")],
        ),
        ("- name: limit\n  value: >-\n    {\"rate\":\n      {'per': 1}}\n", [(10, None)]),
        (
            """
            - name: limit
              value: '{"rate": {"per": 1,
                "burst": "it''s \\"\\\\\\" "},

                "names": [
                1], "x":
                1}'
            """,
            [(9, "rate.burst"), (12, "names.0"), (12, "x")],
        ),
        (
            """
            - name: limit
              value: "{\\"rate\\": {\\"per\\": 1},\\n\\t\\u0020
                 \\x22\\U0000006eames\\": [\\"a\\", \\
                 \\"b\\",
                 5]}"
            """,
            [(11, "names.2")],
        ),
        ("- name: limit\n  value:\n\n    |\n    {\"rate\": {\"per\":\n\n    1}, \"x\": 1\n    }\n", [(13, "x")]),
    ],
)  # fmt: skip
def test_the_line_is_that_of_the_field_where_a_configuration_has_several(
    entry: str, found: list[tuple[int, str]]
) -> None:
    assert wrong(entry) == found


def test_a_shared_configuration_is_one_finding() -> None:
    listed = "{conf: [{name: limit, value: '{}'}]}"
    text = (
        f"services:\n- id: s\n  plugins:\n    ext-plugin-pre-req: {listed}\nroutes:\n"
        "- {id: a, uri: /a, service_id: s}\n- {id: b, uri: /b, service_id: s}\n"
        f"- id: c\n  uri: /c\n  plugins:\n    ext-plugin-pre-req: {listed}\n#END\n"
    )
    findings = check_routes(parse_routes(text), make_bridge().plugins)
    assert [(each.where, each.route) for each in findings] == [("apisix.yaml:4", "a"), ("apisix.yaml:11", "c")]


def test_the_sizes_of_a_list_are_bounded() -> None:
    entry = '- {name: limit, value: \'{"rate": {"per": 1}}\'}\n'
    (large,) = findings_of(entry * 2 + '- {name: limit,\n   value: \'{"rate": {"per": 1       }}\'}\n', limit=25)
    assert (large.severity, large.where, large.message) == (
        "error",
        "apisix.yaml:10",
        "route 'r': ext-plugin-pre-req.conf[2]: plugin limit: its configuration has 27 bytes, and at most 25 are taken "
        "(--limit-configuration-size), so requests get 503",
    )
    (many,) = findings_of(entry * 101)
    assert (many.severity, many.where, many.message) == (
        "error",
        "apisix.yaml:7",
        "route 'r': ext-plugin-pre-req: the list has 101 plugins, and at most 100 can be nested, so requests get 503",
    )


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ((), '{"a": '),
        (("a",), '"a": '),
        (("a", 1), "{"),
        (("a", 1, "é\n"), '"\\u00e9\\n"'),
        (("a", 2), '"x"'),
        (("b",), '"b"'),
        (("b", "tag", 0), "7"),
        (("a", 1, "missing"), "{"),
        (("missing", "more"), '{"a": '),
        (("a", 9), '"a": '),
    ],
)
def test_a_path_leads_to_a_key_or_a_value(path: tuple[str | int, ...], rest: str) -> None:
    text = ' {"a": [1, {"\\u00e9\\n" :{}, "c": "]}"}, "x"] ,\n"b":[7]}'
    assert text[index_of(text, path) :].startswith(rest)


def test_a_path_in_no_json_leads_to_its_begin() -> None:
    assert [index_of(text, ("a",)) for text in ("", " ", "{", '{"b": ', "nothing", "5")] == [0] * 6


def test_the_gateway_of_tests_logs_wrong_fields(caplog: pytest.LogCaptureFixture) -> None:
    listed = {"conf": [{"name": "limit", "value": '{"rate": {"per": 1}, "nmes": []}'}]}
    Gateway(make_bridge(), [{"id": "r", "uri": "/*", "plugins": {"ext-plugin-post-req": listed}}])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "ERROR",
            "routes: route 'r': ext-plugin-post-req.conf[0]: plugin limit refuses field 'nmes', so requests get 503: "
            "Extra inputs are not permitted; did you mean 'names'?",
        )
    ]
