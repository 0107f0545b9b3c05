"""Loading routes: which files can be read, and what the errors about the others say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import load_routes, parse_routes
from asgi_bridge.tracebacks import own_lines


def test_empty_file() -> None:
    assert parse_routes("#END").routes == ()


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere.yaml: the route file cannot be read"):
        load_routes(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_bytes("routes:\n  - uri: /\xe4\n#END\n".encode(encoding))
    with pytest.raises(ConfigurationError) as caught:
        load_routes(file)
    line = 1 if encoding == "utf-16" else 2
    assert str(caught.value) == f"{file}:{line}: the route file cannot be read: it is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n",
])  # fmt: skip
def test_byte_order_mark_and_line_ends_of_windows_change_nothing(change: Callable[[str], str]) -> None:
    text = "routes:\n  - id: a\n    uri: /a\n    plugins: {}\n#END\n"
    assert parse_routes(change(text)).routes == parse_routes(text).routes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("routes: []\n", "apisix.yaml: the last line has to be #END; APISIX does not read a file without it"),
        ("routes: [\n#END\n", "apisix.yaml:3: this is not YAML: "),
        ("", "apisix.yaml: the file is empty; one without routes has at least the line #END"),
        (" \r\n", "apisix.yaml: the file is empty; one without routes has at least the line #END"),
        (
            "a: b\nc: \x01\n#END\n",
            "apisix.yaml:2: this is not YAML: it may not contain the character U+0001; take it out",
        ),
        ("routes: []\nroutes: []\n#END\n", "apisix.yaml:2: 'routes' is there twice; the first is on line 1"),
        ("1.5: []\n#END\n", "apisix.yaml:1: a key has to be a string; put it in quotes"),
        ("a: 1\non: []\n#END\n", "apisix.yaml:2: a key has to be a string; put it in quotes"),
        (
            "a:\n  b: 0x_\n#END\n",
            "apisix.yaml:2: this is not YAML: '0x_' is not of type int; if it is a text",
        ),
        ("a: !!bool maybe\n#END\n", "apisix.yaml:1: this is not YAML: 'maybe' is not of type bool; if it is a text"),
        ("a: [!!float x]\n#END\n", "apisix.yaml:1: this is not YAML: 'x' is not of type float; if it is a text"),
        (
            "\na: !!timestamp x\n#END\n",
            "apisix.yaml:2: this is not YAML: 'x' is not of type timestamp; if it is a text",
        ),
        (
            f"a: {'9' * 5000}\n#END\n",
            "apisix.yaml:1: this is not YAML: '999999999999999999999999999999999999999 is not of type int",
        ),
        (
            '\ufeff{"routes": []}',
            "apisix.yaml:1: the file begins with a byte order mark, which APISIX's reader of JSON",
        ),
        ('{"routes": [],\n"routes": []}', "apisix.yaml:2: 'routes' is there twice; the first is on line 1"),
        (
            '{"routes": [{"uri": "/", "priority": %s}]}' % ("9" * 5000),
            "apisix.yaml:1: route number 1: priority: this has to be a whole number, not inf",
        ),
        (
            "a: /${{NOPE}\nb: {c: {d: 1}}\n#END\n",
            "apisix.yaml:1: there is no environment variable 'NOPE}\\nb: {c: {d: 1'; a variable is written ${{NAME}}",
        ),
        (
            "routes:\n- uri: /\n  upstream:\n    nodes: {'x:\u00b2': 1, 'y:': 1, 'z:70000': 1}\n#END\n",
            "apisix.yaml:4: route number 1: upstream.nodes.z:70000: a node has a host and a port from 1 to 65535",
        ),
        ("[]\n#END\n", "apisix.yaml: this has to be a mapping, not [] (list)"),
        (
            "route: []\n#END\n",
            "apisix.yaml:1: route: neither the stand-in nor APISIX knows this field; take it out. The stand-in knows",
        ),
        ("routes: {}\n#END\n", "apisix.yaml:1: routes: this has to be a list, not {} (mapping)"),
        (
            "routes:\n  - id: x\n    uri: /\n    plugins:\n      limit-req: {}\n#END\n",
            "apisix.yaml:5: route 'x': plugins.limit-req: the stand-in does not have this plugin of APISIX",
        ),
        (
            "routes:\n  - id: x\n    uri: /\n    plugins:\n      ext-plugin-pre-req:\n        conf:\n"
            "          - name: a\n            value: {b: 1}\n#END\n",
            "apisix.yaml:8: route 'x': plugins.ext-plugin-pre-req.conf[0].value: this has to be a string that",
        ),
    ],
)
def test_messages_say_what_is_wrong_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_routes(text)
    assert str(caught.value).startswith(message)
    # nothing of a library's innards is shown with it
    assert own_lines(caught.value) == ""
