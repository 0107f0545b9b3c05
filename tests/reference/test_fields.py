"""The fields of a configuration in words, and an example of a route."""

from pathlib import Path

import yaml
from asgi_bridge_apps import ready_made

from asgi_bridge.gateway.routes.load import load_routes
from asgi_bridge.reference import Field, example_of, fields_of, summary_of

from .plugins import bridge


def test_fields_of_all_kinds_are_described() -> None:
    assert fields_of(bridge.plugins["strict"].configuration.schema()) == [
        Field("name", "text", True, None, 'Its "name".'),
        Field("rules", "list of object", False, "[]", ""),
        Field("rules[].paths", "list of text", True, None, "Paths that it is for."),
        Field("rules[].rate", "object", True, None, "How often."),
        Field("rules[].rate.per", '"second" or "minute"', False, '"minute"', ""),
        Field("rules[].rate.count", "integer, 1 to 100", True, None, "How many."),
        Field("rules[].inner", "list of object", False, "[]", ""),
        Field("rules[].inner[].paths", "list of text", True, None, "Paths that it is for."),
        Field("rules[].inner[].rate", "object", True, None, "How often."),
        Field("rules[].inner[].rate.per", '"second" or "minute"', False, '"minute"', ""),
        Field("rules[].inner[].rate.count", "integer, 1 to 100", True, None, "How many."),
        Field("rules[].inner[].inner", "list of object", False, "[]", ""),
        Field("rules[].inner[].inner[].paths", "list of text", True, None, "Paths that it is for."),
        Field("rules[].inner[].inner[].rate", "object", True, None, "How often."),
        Field("rules[].inner[].inner[].inner", "list of object", False, "[]", ""),
        Field("weight", "number", False, None, ""),
        Field("mode", '"on" or "off" or null', False, '"on"', ""),
        Field("labels", "object, name → text", False, "{}", ""),
        Field("either", "integer or text", False, "0", ""),
        Field("anything", "anything", False, None, ""),
    ]
    assert fields_of(bridge.plugins["open"].configuration.schema()) == [
        Field("size", "integer, above 0", True, None, "")
    ]
    assert fields_of(bridge.plugins["counts"].configuration.schema()) == [Field("limit", "integer", False, "10", "")]
    assert fields_of(bridge.plugins["plain"].configuration.schema()) == []


def test_the_summary_is_the_first_paragraph_of_the_own_docstring() -> None:
    assert {name: summary_of(plugin) for name, plugin in bridge.plugins.items()} == {
        "plain": "", "counts": "Counts.", "strict": "Do something to a request.", "open": ""
    }  # fmt: skip


def test_an_example_has_what_is_required_and_what_the_author_gives_examples_for() -> None:
    found = {name: example_of(plugin) for name, plugin in bridge.plugins.items()}

    assert {name: (each.conf, each.lists, each.complete) for name, each in found.items()} == {
        "plain": ({}, ("ext-plugin-pre-req",), True),
        "counts": ({}, ("ext-plugin-post-resp",), True),
        "strict": ({"name": "it's $1"}, ("ext-plugin-pre-req",), True),
        "open": ({"size": 1}, ("ext-plugin-pre-req", "ext-plugin-post-resp"), True),
    }
    assert yaml.safe_load(found["strict"].text)["routes"] == [found["strict"].route]


def test_the_example_of_each_ready_made_plugin_is_a_route_that_apisix_and_the_plugin_accept(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    for plugin in ready_made(allow=["https://idp.example.com/"]).plugins.values():
        example = example_of(plugin)
        assert example.complete, example
        file.write_text(example.text)
        assert load_routes(file).findings == ()
