"""The JSON Schema of routes accepts what the plugins accept, and finds typing errors, also in JSON in a text."""

import json
import random
import re
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from asgi_bridge_apps import ready_made

from asgi_bridge import Bridge
from asgi_bridge.errors import ConfigurationError
from asgi_bridge.plugins import Plugin
from asgi_bridge.reference import example_of, route_schema
from asgi_bridge.reference.value_pattern import MAX_LENGTH, pattern_of

from .plugins import bridge

jsonschema: Any = pytest.importorskip("jsonschema", reason="check-jsonschema brings it: see the group test")


def routes(name: str, value: Any, place: str = "ext-plugin-pre-req") -> dict[str, Any]:
    return {"routes": [{"uri": "/*", "plugins": {place: {"conf": [{"name": name, "value": value}]}}}]}


def errors(schema: Any, document: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(document)]


READY_MADE = ready_made(allow=["https://idp.example.com/"]).plugins
SCHEMA = route_schema(READY_MADE)
OURS = route_schema(bridge.plugins)


def test_it_is_a_schema_of_draft_7() -> None:
    for schema in (SCHEMA, OURS):
        jsonschema.Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("plugin", READY_MADE.values(), ids=lambda plugin: str(plugin.name))
def test_the_example_of_each_plugin_is_right_and_a_misspelt_field_is_wrong(plugin: Plugin) -> None:
    example = example_of(plugin)

    for place in example.lists:
        assert errors(SCHEMA, routes(plugin.name, example.value, place)) == []
    wrong = json.dumps({**example.conf, "misspelt": 1})
    (message,) = errors(SCHEMA, routes(plugin.name, wrong, example.lists[0]))
    assert message.startswith(repr(wrong)) and "does not match" in message


RIGHT = [
    ("limit-count", '{"count": 1, "time_window": 0.5}'),
    ("limit-count", ' {"time_window":60 ,\n"count" : 1, "window":"sliding"}\t'),
    ("limit-count", r'{"co\u0075nt": 1, "time_window": 1, "window": "\u0066ixed", "rejected_msg": "a\"}{\\"}'),
    ("limit-count", '{"count": 1, "time_window": 1, "redis": null}'),
    ("limit-count", "$env://LIMIT"),
    ("limit-count", "$secret://vault/1/limit"),
    ("say", ""),
    ("say", " \n"),
    ("say", "{}"),
    ("say", '{"body": "[{\\"count"}'),
    ("stop", '{"headers": {"x-a": ["1", "2"], "x-b": "3"}}'),
    ("rewrite", '{"headers": {"x-a": null}, "args": {"a": ["1"], "b": "2"}}'),
    ("jwt-auth", '{"algorithms": ["HS256", "ES256"], "keys": [{"kid": "a", "secret": "s"}], "audience": ["a", "b"]}'),
]
WRONG = [
    ("limit-count", '{"count": 1}'),
    ("limit-count", "{}"),
    ("limit-count", ""),
    ("limit-count", "null"),
    ("limit-count", "[]"),
    ("limit-count", '{"count": 1, "time_windows": 1}'),
    ("limit-count", '{"count": "1", "time_window": 1}'),
    ("limit-count", '{"count": 1, "time_window": 1, "window": "slide"}'),
    ("limit-count", '{"count": 1, "time_window": 1,}'),
    ("limit-count", '{"count": 1 "time_window": 1}'),
    ("limit-count", '{"count": 1, "time_window": 1'),
    ("limit-count", "{'count': 1, 'time_window': 1}"),
    ("limit-count", '{"count": 1, "time_window": 1} x'),
    ("limit-count", {"count": 1, "time_window": 1}),
    ("limit-count", None),
    ("stop", '{"headers": {"x-a": 1'),
    ("stop", '{"headers": ["x-a"]}'),
    ("jwt-auth", '{"algorithms": ["none"], "keys": []}'),
    ("jwt-auth", '{"algorithms": ["HS256"], "keys": [{"id": "a", "secret": "s"}]}'),
    ("jwt-auth", '{"algorithms": ["HS256"], "hide_credentials": "yes"}'),
    ("limit-cuont", "{}"),
]


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_right_configurations_are_right(name: str, value: str) -> None:
    assert errors(SCHEMA, routes(name, value)) == []


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_configurations_are_wrong(name: str, value: Any) -> None:
    assert errors(SCHEMA, routes(name, value)) != []


@pytest.mark.parametrize("document", [
    routes("etag", "{}", "ext-plugin-post-req"),
    routes("gzip", "{}", "ext-plugin-post-resp"),
    {"services": routes("say", "{}")["routes"], "plugin_configs": [], "upstreams": [{"id": 1}]},
    {"global_rules": routes("say", "{}")["routes"]},
    {"routes": [{"uri": "/", "plugins": {"limit-count": {"count": 1}}}]},
])  # fmt: skip
def test_what_it_does_not_know_is_right(document: Any) -> None:
    assert errors(SCHEMA, document) == []


@pytest.mark.parametrize("document", [
    routes("jwt-auth", example_of(READY_MADE["jwt-auth"]).value, "ext-plugin-post-resp"),
    routes("gzip", "{}"),
    {"services": routes("say", '{"text": 1}')["routes"]},
    {"plugin_configs": routes("say", '{"text": 1}')["routes"]},
    {"routes": [{"plugins": {"ext-plugin-pre-req": {"conf": {"name": "say"}}}}]},
    {"routes": [{"plugins": {"ext-plugin-pre-req": {"conf": [{"name": "say"}]}}}]},
    {"routes": [{"plugins": {"ext-plugin-pre-req": {}}}]},
    {"routes": {}},
])  # fmt: skip
def test_a_plugin_in_a_list_of_another_phase_or_a_list_of_another_form_is_wrong(document: Any) -> None:
    assert errors(SCHEMA, document) != []


def values(chance: random.Random, depth: int = 3) -> Any:
    """A value of JSON, with texts that look like JSON."""
    texts = ["", "a", 'a"b', "\\", "{", "]", "name", "rules", "on", "\n", "é", "second"]
    simple = [None, True, 0, -1, 1.5, 1e30, chance.choice(texts), chance.choice(texts)]
    if not depth or chance.random() < 0.5:
        return chance.choice(simple)
    if chance.random() < 0.5:
        return [values(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(texts): values(chance, depth - 1) for _ in range(chance.randrange(4))}


def test_the_pattern_rejects_nothing_that_the_plugin_accepts() -> None:
    """Random configurations near right ones, written with random blanks and escapes."""
    plugin = bridge.plugins["strict"]
    pattern = re.compile(pattern_of(plugin.configuration.schema()) or "")
    chance = random.Random(3)
    rule = {"paths": ["/a", '"'], "rate": {"per": "second", "count": 5}, "inner": []}
    right = {"name": "x", "rules": [rule, {**rule, "inner": [rule, rule]}], "weight": 1, "mode": "off",
             "labels": {"a]": "{", "name": "b"}, "either": "1", "anything": [1, {"a": [None]}]}  # fmt: skip
    accepted = matched = 0
    for _ in range(3000):
        conf: dict[str, Any] = {name: each for name, each in right.items() if chance.random() < 0.8}
        if chance.random() < 0.6:
            conf[chance.choice([*right, "other"])] = values(chance)
        text = json.dumps(conf, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 0, 2]))
        if chance.random() < 0.3:
            letter = chance.choice(string.ascii_lowercase)
            text = text.replace(letter, f"\\u{ord(letter):04x}") if "true" not in text and "null" not in text else text
        matches = pattern.search(text) is not None
        matched += matches
        try:
            plugin.configuration.check(text)
        except ConfigurationError:
            continue
        accepted += 1
        assert matches, text
    assert accepted > 500
    assert matched < 2500  # it does reject


def test_a_type_that_contains_itself_has_a_pattern_that_is_not_too_long() -> None:
    for plugin in (*bridge.plugins.values(), *READY_MADE.values()):
        assert len(pattern_of(plugin.configuration.schema()) or "") < MAX_LENGTH + 200
    assert pattern_of(bridge.plugins["plain"].configuration.schema()) is None


@pytest.mark.parametrize("text", ['{"rules": ' + "[" * 3000, '{"anything": {' + '"a": [1, "b", {' * 300, '{"name": "' +
                                  '\\"' * 5000, '{"labels": {' + '"a": "b", ' * 2000 + "}", '{"a' * 3000])  # fmt: skip
def test_no_text_makes_the_search_run_away(text: str) -> None:
    pattern = re.compile(pattern_of(bridge.plugins["strict"].configuration.schema()) or "")
    started = time.process_time()
    assert pattern.search(text) is None
    assert time.process_time() - started < 10  # it would take years


def test_references_lead_to_definitions_of_their_own_plugin() -> None:
    text = json.dumps(OURS)
    names = set(re.findall(r'"\$ref": "#/definitions/([^"]+)"', text))

    assert "$defs" not in text
    assert {"conf.of.strict", "conf.of.strict.Rule", "conf.of.strict.Rate"} <= names <= OURS["definitions"].keys()


def test_an_editor_gets_descriptions_examples_and_whole_entries() -> None:
    found = OURS["definitions"]["conf.of.strict"]
    snippets = OURS["definitions"]["ext-plugin-pre-req"]["properties"]["conf"]["items"]["defaultSnippets"]

    assert found["examples"] == ['{"name": "it\'s $1"}']
    assert found["description"].startswith('Do something to a request.\n\nname (text; required): Its "name".\n\n')
    assert found["patternErrorMessage"].endswith('"anything"; required: "name"')
    assert [each["label"] for each in snippets] == ["plain", "strict", "open"]
    assert snippets[1]["body"] == {"name": "strict", "value": "'{\"name\": \"it''s \\$1\"}'"}


def test_the_command_line_tool_reads_it(tmp_path: Path) -> None:
    """check-jsonschema has regular expressions of ECMAScript, as editors have."""
    schema, right, wrong = (tmp_path / name for name in ("schema.json", "right.yaml", "wrong.yaml"))
    command = [sys.executable, "-m", "asgi_bridge", "plugins", "asgi_bridge_apps", "--route-schema"]
    schema.write_bytes(subprocess.check_output(command))
    entries = [{"name": name, "value": value} for name, value in RIGHT]
    document = {"routes": [{"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": entries}}}]}
    right.write_text(yaml.safe_dump(document))
    wrong.write_text(yaml.safe_dump(routes("limit-count", '{"count": 1, "time_windows": 1}')))

    def check(path: Path) -> tuple[int, str]:
        run = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(path)],
            capture_output=True, text=True,
        )  # fmt: skip
        return run.returncode, run.stdout + run.stderr

    assert check(right) == (0, "ok -- validation done\n")
    code, output = check(wrong)
    assert code == 1 and ".conf[0].value: " in output


def test_a_bridge_without_plugins_of_a_phase_has_a_schema() -> None:
    alone = Bridge()
    alone.mount("plain", bridge.plugins["plain"].found, phase="request")

    assert errors(route_schema(alone.plugins), routes("plain", "{}")) == []
    assert errors(route_schema(alone.plugins), routes("plain", "{}", "ext-plugin-post-resp")) != []
