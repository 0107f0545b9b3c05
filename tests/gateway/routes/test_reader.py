from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import ExtPlugin, Node, Plugins, Route, Upstream, load_routes, parse_routes, read_routes
from asgi_bridge.gateway.routes.route import Consumer
from asgi_bridge.tracebacks import own_lines

GOOD = """\
routes:
  - id: one
    uri: /hello/*
    host: Hello.test
    methods: [GET, POST]
    priority: 3
    name: greeting
    desc: says hello
    timeout: {connect: 6, send: 60, read: 1.5}
    plugins:
      ext-plugin-pre-req:
        conf:
          - name: hello
            value: '{"a": 1}'
        allow_degradation: true
      cors: {}
      ext-plugin-post-req:
        _meta: {disable: true}
    upstream:
      type: roundrobin
      nodes: {"127.0.0.1:8000": 1, "backend": 2, "[::1]": 0, "[::2]:81": 0}
      pass_host: rewrite
      upstream_host: up.test
  - uris: [/a, /b*]
    hosts: [a.test, "*.b.test"]
    service_id: 7
    plugin_config_id: pc
    upstream_id: up
  - {id: "off", uri: /off, status: 0, plugins: {}}
  - {id: bare, uri: /bare, service_id: 7}
upstreams:
  - {id: up, scheme: https, nodes: [{host: h, port: 8443, weight: 5}, {host: i, weight: 1}]}
services:
  - id: 7
    name: svc
    hosts: [svc.test]
    upstream: {nodes: {"127.0.0.1:9": 1}}
    plugins: {ext-plugin-post-resp: {}, cors: {}}
plugin_configs:
  - {id: pc, plugins: {request-id: {}}}
consumers:
  - {username: bob, plugins: {key-auth: {key: k}, ext-plugin-pre-req: {conf: [{name: a, value: "{}"}]}}}
#END
"""


def test_good_file(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(GOOD)
    routes = load_routes(file)
    nodes = (Node("127.0.0.1", 8000, 1), Node("backend", 80, 2), Node("::1", 80, 0), Node("::2", 81, 0))
    assert routes.routes == (
        Route(
            "one", ("/hello/*",), ("hello.test",), frozenset({"GET", "POST"}), 3, "greeting", "says hello",
            Plugins(
                {"ext-plugin-pre-req": ExtPlugin([(b"hello", b'{"a": 1}')], True)}, {"cors": {}},
                frozenset({"ext-plugin-post-req"}),
            ),
            Upstream(nodes, "http", "rewrite", "up.test", read=1.5),
        ),
        Route(
            "arr_2", ("/a", "/b*"), ("a.test", "*.b.test"),
            plugins=Plugins({"ext-plugin-post-resp": ExtPlugin()}, {"cors": {}, "request-id": {}}),
            upstream=Upstream((Node("h", 8443, 5), Node("i", 443, 1)), "https"),
            service_id="7", service_name="svc", plugin_config_id="pc",
        ),
        Route(
            "bare", ("/bare",), ("svc.test",), plugins=Plugins({"ext-plugin-post-resp": ExtPlugin()}, {"cors": {}}),
            upstream=Upstream((Node("127.0.0.1", 9, 1),)), service_id="7", service_name="svc",
        ),
    )  # fmt: skip
    pre_req = ExtPlugin([(b"a", b"{}")])
    assert routes.consumers == {"k": Consumer("bob", "k", Plugins({"ext-plugin-pre-req": pre_req}))}


def test_global_rules_are_merged() -> None:
    rules = [
        {"id": 1, "plugins": {"ext-plugin-pre-req": {}, "request-id": {"_meta": {"disable": True}}}},
        {"id": "two", "plugins": {"cors": {}, "ext-plugin-post-resp": {"_meta": {"priority": 5}}}, "create_time": 1},
    ]
    ext = {"ext-plugin-pre-req": ExtPlugin(), "ext-plugin-post-resp": ExtPlugin(priority=5)}
    assert read_routes({"global_rules": rules}).global_rules == Plugins(ext, {"cors": {}}, frozenset({"request-id"}))
    assert read_routes({}).global_rules == Plugins()


def test_empty_file() -> None:
    assert parse_routes("#END").routes == ()


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere.yaml: the route file cannot be read"):
        load_routes(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_bytes("routes:\n  - uri: /\xe4\n#END\n".encode(encoding))
    with pytest.raises(ConfigurationError) as caught:
        load_routes(file)
    line = 1 if encoding == "utf-16" else 2
    assert str(caught.value) == f"{file}:{line}: the route file cannot be read: it is no UTF-8; save it as that"


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n",
])  # fmt: skip
def test_marks_and_line_ends_of_windows_change_nothing(change: Callable[[str], str]) -> None:
    text = "routes:\n  - id: a\n    uri: /a\n    plugins: {}\n#END\n"
    assert parse_routes(change(text)).routes == parse_routes(text).routes


def test_a_list_of_many_hosts_is_looked_through_once() -> None:
    compared: list[str] = []

    class Host(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str.__eq__(self, other)

    hosts = [Host(f"h{number}.test") for number in range(2000)]
    assert read_routes({"routes": [{"uri": "/", "plugins": {}, "hosts": hosts}]}).routes[0].hosts == tuple(hosts)
    # once each would be a list that is searched for each entry: 2,000,000
    assert len(compared) < 20_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("routes: []\n", "apisix.yaml: the last line has to be #END; APISIX does not read a file without it"),
        ("routes: [\n#END\n", "apisix.yaml:3: this is no YAML: "),
        ("", "apisix.yaml: the file is empty; one without routes has at least the line #END"),
        (" \r\n", "apisix.yaml: the file is empty; one without routes has at least the line #END"),
        (
            "a: b\nc: \x01\n#END\n",
            "apisix.yaml:2: this is no YAML: the character U+0001 may not stand in it; take it out",
        ),
        ("routes: []\nroutes: []\n#END\n", "apisix.yaml:2: 'routes' stands twice; the first is on line 1"),
        ("1.5: []\n#END\n", "apisix.yaml:1: a key has to be a string; put it in quotes"),
        ("a: 1\non: []\n#END\n", "apisix.yaml:2: a key has to be a string; put it in quotes"),
        ("a:\n  b: 0x_\n#END\n", "apisix.yaml:2: this is no YAML: '0x_' is no int; if it is a text, put it in quotes"),
        ("a: !!bool maybe\n#END\n", "apisix.yaml:1: this is no YAML: 'maybe' is no bool; if it is a text"),
        ("a: [!!float x]\n#END\n", "apisix.yaml:1: this is no YAML: 'x' is no float; if it is a text"),
        ("\na: !!timestamp x\n#END\n", "apisix.yaml:2: this is no YAML: 'x' is no timestamp; if it is a text"),
        (
            f"a: {'9' * 5000}\n#END\n",
            "apisix.yaml:1: this is no YAML: '999999999999999999999999999999999999999 is no int",
        ),
        (
            '\ufeff{"routes": []}',
            "apisix.yaml:1: the file begins with a byte order mark, which APISIX's reader of JSON",
        ),
        ('{"routes": [],\n"routes": []}', "apisix.yaml:2: 'routes' stands twice; the first is on line 1"),
        (
            '{"routes": [{"uri": "/", "priority": %s}]}' % ("9" * 5000),
            "apisix.yaml:1: route number 1: priority: this has to be a number, not inf",
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
            "apisix.yaml:1: route: the stand-in does not know this field; take it out. It knows consum",
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
def test_messages_say_what_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_routes(text)
    assert str(caught.value).startswith(message)
    # nothing of a library's innards is shown with it
    assert own_lines(caught.value) == ""


def route(**fields: Any) -> dict[str, Any]:
    return {"routes": [{"id": "x", "uri": "/", "plugins": {}, **fields}]}


def ext(**conf: Any) -> dict[str, Any]:
    return route(plugins={"ext-plugin-pre-req": conf})


def upstream(**fields: Any) -> dict[str, Any]:
    return route(upstream={"nodes": {"h:1": 1}, **fields})


def builtin(name: str, **conf: Any) -> dict[str, Any]:
    return route(plugins={name: conf})


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"routes": [3]}, "route number 1: this has to be a mapping, not 3 (int)"),
        (
            {"routes": [{"uri": "/", "plugins": {}}, {"id": "arr_1", "uri": "/", "plugins": {}}]},
            "route 'arr_1': there is another route with this id; ids are unique",
        ),
        (route(id=[1]), "an id is a string or a number, not [1] (list)"),
        (route(script="x"), "script: the stand-in does not know this field"),
        (route(enable_websocket=True), "the stand-in does not proxy WebSockets"),
        (route(uris=["/"]), "it needs either uri or uris, and not both"),
        ({"routes": [{"id": "x"}]}, "it needs either uri or uris, and not both"),
        (route(uri=None), "uri: this has to be a string, not nothing; put it in quotes"),
        (route(uri="x"), "'x' has to begin with a slash"),
        ({"routes": [{"uris": []}]}, "this has to be a list of strings, with one at least"),
        (route(host="a", hosts=["b"]), "it has host as well; keep one of them"),
        (route(host="a:80"), "'a:80' has to be a name without a port"),
        (route(hosts=["a*"]), "'a*' has to be a name without a port"),
        (route(methods=["get"]), "APISIX does not know get; methods are upper case"),
        (route(priority="1"), "priority: this has to be a number, not '1' (str)"),
        (route(service_id=1), "there is no service '1'; there are: none"),
        (route(upstream_id=1, upstream={}), "it has an upstream as well; keep one of them"),
        (route(plugins=[]), "plugins: this has to be a mapping, not [] (list)"),
        ({"services": [{"plugins": {}}]}, "service number 1: it has no id; routes refer to it by that"),
        (ext(conf=[]), "the list is empty; name a plugin, or take conf out"),
        (ext(conf=[{"name": "", "value": ""}]), "a plugin's name has 1 to 128 characters"),
        (ext(conf=[{"name": "a"}]), "conf[0]: it has no value, which APISIX wants; give its configuration: '{}' where"),
        (ext(conf=[None]), "conf[0]: it has no name, which APISIX wants; give the plugin's name"),
        (ext(conf=[{"value": ""}]), "conf[0]: it has no name, which APISIX wants; give the plugin's name"),
        (ext(conf=[{"name": "a", "value": None}]), "conf[0].value: this has to be a string, not nothing; put it in"),
        (ext(allow_degradation="yes"), "this has to be true or false, not 'yes' (str)"),
        (upstream(nodes=[]), "there is no node; give one at least"),
        (route(upstream={}), 'it needs nodes, as {"127.0.0.1:8000": 1} or [{host'),
        (upstream(nodes={"h:0": 1}), "a node has a host and a port from 1 to 65535, not 'h' and 0"),
        (upstream(nodes=[{"host": "h", "port": 1, "weight": -1}]), "a weight is a number from 0, not -1"),
        (upstream(scheme="grpc"), "the stand-in speaks http and https, not 'grpc'"),
        (upstream(pass_host="all"), "this is pass, node or rewrite, not 'all'"),
        (upstream(pass_host="rewrite"), "pass_host is rewrite, so it needs an upstream_host"),
        (upstream(timeout={"read": 0}), "timeout.read: this has to be a number of seconds, not 0 (int)"),
        (upstream(timeout={"reed": 1}), "timeout: APISIX wants connect and send and read here too"),
        ({"consumers": [{"username": "a"}]}, "without key-auth no request finds this consumer"),
        ({"global_rules": [{"id": 1}]}, "global rule '1': it has no plugins; name them, or take the rule out"),
        ({"global_rules": [{"plugins": []}]}, "global rule number 1: plugins: this has to be a mapping, not [] (list)"),
        ({"global_rules": [{"plugins": {"x": {}}}]}, "plugins.x: the stand-in does not have this plugin"),
        ({"global_rules": [{"plugins": {}, "name": "x"}]}, "name: the stand-in does not know this field"),
        (
            {"global_rules": [{"id": 1, "plugins": {"cors": {}}}, {"id": 2, "plugins": {"cors": {}}}]},
            "global rule '2': plugins.cors: global rule '1' has this plugin as well, and APISIX then runs neither",
        ),
        (builtin("cors", allow_origins="*"), "only an empty configuration here, not allow_origins"),
        (
            builtin("cors", _meta={"disable": True, "filter": [["arg_a", "is", "b"]]}),
            "plugins.cors._meta.filter: there is no operator 'is'; there are: ! ==",
        ),
        (builtin("cors", _meta={"filter": {}}), "plugins.cors._meta.filter: this has to be a list, not {} (dict)"),
        (builtin("cors", _meta={"priority": "1"}), "_meta.priority: this has to be a number, not '1' (str)"),
        (builtin("cors", _meta={"priorty": 1}), "_meta.priorty: APISIX does not know this; there are disable, error_"),
        (builtin("cors", _meta={"pre_function": "return 1"}), "_meta.pre_function: the stand-in runs no Lua"),
        (builtin("proxy-rewrite", uri="/$a"), "uri has to be a string without variables"),
        (builtin("proxy-rewrite", uri="a"), "uri has to begin with a slash"),
        (builtin("proxy-rewrite", scheme="http"), "only uri, regex_uri, method, host, headers here, not scheme"),
        (builtin("proxy-rewrite", regex_uri=["^/x"]), "regex_uri has to be a list of patterns"),
        (builtin("proxy-rewrite", regex_uri=["(", "/"]), "regex_uri: '(' is no regular expression"),
        (builtin("proxy-rewrite", regex_uri=["a{99999999999}", "/"]), "regex_uri: 'a{99999999999}' is no regular exp"),
        (
            builtin("proxy-rewrite", regex_uri=["(" * 9000 + ")" * 9000, "/"]),
            "is no regular expression: maximum recurs",
        ),
        (
            {"routes": [{"uri": "/", "plugins": {}, "vars": [["uri", "~~", "a{99999999999}"]]}]},
            "vars: the stand-in cannot read the regular expression 'a{99999999999}': the repetition number is too",
        ),
        (builtin("key-auth", realm="x"), "only header, query, hide_credentials here, not realm"),
        (builtin("key-auth", header=["X-Key"]), "header or query has to be a mapping of names to strings"),
        (builtin("key-auth", hide_credentials="yes"), "hide_credentials has to be true or false"),
        (builtin("proxy-rewrite", headers=[]), "headers has to be a mapping of names to strings, or one of set"),
        (
            builtin("proxy-rewrite", headers={"add": {}, "X-A": "1"}),
            "understands set, add and remove in headers, not X-A",
        ),
        (builtin("proxy-rewrite", headers={"set": []}), "headers.set has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"X-A": True}), "headers has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"add": ["X-A: 1"]}), "headers.add has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"add": {"X-A": "$host"}}), "take the $ out of headers.add"),
        (builtin("proxy-rewrite", headers={"remove": [1]}), "headers.remove has to be a list of names"),
        (
            builtin("response-rewrite", headers={"content_length": 5}),
            "a Content-Length in headers would not fit the body",
        ),
        (builtin("response-rewrite", headers={"add": {"X-A": "1"}}), "headers.add has to be a list of strings like"),
        (builtin("response-rewrite", headers={"add": ["X-A: b:c"]}), "headers.add has to be a list of strings like"),
        (builtin("response-rewrite", headers={"add": ["X-A: $host"]}), "take the $ out of headers.add"),
        ({"routes": [{"uri": "/a", "desc": 5}]}, "desc: this has to be a string, not 5 (int); put it in quotes"),
        ({"routes": [{"uri": "/a", "name": ["a"]}]}, "name: this has to be a string, not ['a'] (list)"),
        ({"routes": [{"uri": "/a", "status": "0"}]}, "status: this has to be 1, or 0 to switch the route off, not '0'"),
        (ext(_meta={"filter": [["a", "===", 1]]}), "_meta.filter: there is no operator"),
        (ext(_meta={"priority": True}), "_meta.priority: this has to be a number, not True (bool)"),
        (ext(_meta={"error_response": 3}), "_meta.error_response: this has to be a string or a mapping, not 3 (int)"),
        (builtin("response-rewrite", status_code=99), "status_code has to be a number from 200 to 598"),
        (builtin("response-rewrite", body=1), "body has to be a string"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(data)
    assert part in str(caught.value)


# --- the text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["#END", "#END\n", "#END\r\n\r\n", "# ...#END  \n", "[] #END"])
def test_the_end_is_looked_for_in_the_last_ten_bytes(end: str) -> None:
    assert parse_routes(f"routes: {end if end.startswith('[') else chr(10) + end}").routes == ()


@pytest.mark.parametrize("end", ["#END\n\n\n\n\n\n\n", "#END\n# more", "#END\n" + " " * 6, "#end", ""])
def test_an_end_further_in_front_is_none(end: str) -> None:
    with pytest.raises(ConfigurationError, match="the last line has to be #END"):
        parse_routes(f"routes: []\n{end}")


def test_a_missing_variable_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "C"):
        monkeypatch.delenv(name, raising=False)
    text = "# ${{A}}\nroutes:\n  - uri: ${{ B }}\n    desc: ${{C:=}}\n#END\n"
    with pytest.raises(ConfigurationError) as caught:
        parse_routes(text, "f.yaml")
    first, second = str(caught.value).splitlines()
    assert first.startswith(
        "f.yaml:1: the environment variable A is not set; APISIX then does not read the file. Set it"
    )
    assert second.startswith("f.yaml:3: the environment variable B is not set")


def test_variables_are_put_in_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM", "\n      type: roundrobin\n      nodes: {'h:1': 1}\n")
    monkeypatch.setenv("NUMBER", "5")
    monkeypatch.setenv("SPACED ", "never found by a name with a blank")
    text = (
        "routes:\n  - id: '${{NUMBER}}'\n    uri: /${{NUMBER:=6}}\n    priority: ${{NUMBER}}\n"
        "    upstream:${{UPSTREAM}}\n    desc: ${{NUMBER := 7}}${{nothing:=a:=b}}\n    hosts: []\n#END"
    )
    # the lines after a variable of several lines are still those of the file
    with pytest.raises(ConfigurationError, match=r"^f:7: route '5': hosts: this has to be a list"):
        parse_routes(text, "f")
    (found,) = parse_routes(text.replace("    hosts: []\n", ""), "f").routes
    assert (found.id, found.uris, found.priority, found.desc) == ("5", ("/5",), 5, "7a:=b")
    assert found.upstream == Upstream((Node("h", 1),))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  - {id: a, uri: /a, upstream: &u {nodes: {'h:1': 1}}}\n  - {id: b, uri: /b, upstream: *u}\n", 3),
        ("  - {id: a, uri: /a, plugins: &p {cors: {}}}\n  - id: b\n    uri: /b\n    plugins: *p\n", 5),
        ("  - &r {id: a, uri: /a, plugins: {}}\n  - <<: *r\n    id: b\n", 3),
        (
            "  - id: a\n    uri: /a\n    plugins:\n      ext-plugin-pre-req: {conf: &c [{name: n, value: ''}]}\n"
            "      ext-plugin-post-req: {conf: *c}\n",
            6,
        ),
        ("  - {id: a, uri: /a, plugins: {cors: &c {}}}\n  - {id: b, uri: /b, plugins: {cors: *c}}\n", 3),
        ("  - &r {id: a, uri: /a, plugins: {}}\n  - *r\n", 3),
    ],
)
def test_an_alias_of_a_mapping_is_refused_with_its_line(text: str, line: int) -> None:
    text = f"routes:\n{text}#END"
    with pytest.raises(
        ConfigurationError, match=rf"^apisix.yaml:{line}: .*an alias puts a mapping here that stands else"
    ):
        parse_routes(text)
    assert [finding.where for finding in parse_routes(text, strict=False).findings] == [f"apisix.yaml:{line}"]


def test_aliases_of_scalars_and_merges_of_them_are_right() -> None:
    text = (
        "x: &methods [GET, POST]\ny: &common {priority: 3, desc: same}\nroutes:\n"
        "  - {<<: *common, id: &id one, uri: /a, methods: *methods, plugins: {}, desc: own}\n"
        "  - {<<: [*common, {priority: 4}], id: two, uri: /b, methods: *methods, name: *id, plugins: {}}\n#END"
    )
    one, two = parse_routes(text, strict=False).routes
    assert (one.methods, one.priority, one.desc) == (frozenset({"GET", "POST"}), 3, "own")
    assert (two.methods, two.priority, two.desc, two.name) == (frozenset({"GET", "POST"}), 3, "same", "one")


def test_aliases_cannot_blow_up() -> None:
    lists = "".join(f"l{n + 1}: &l{n + 1} [*l{n}, *l{n}, *l{n}, *l{n}]\n" for n in range(40))
    merges = "".join(f"m{n + 1}: &m{n + 1} {{<<: [*m{n}, *m{n}, *m{n}], k{n}: 1}}\n" for n in range(40))
    routes = parse_routes(f"l0: &l0 [[x]]\nm0: &m0 {{a: 1}}\n{lists}{merges}routes: []\n#END", strict=False)
    assert len(routes.findings) == 82
    with pytest.raises(ConfigurationError, match="lists and mappings stand too deep inside each other"):
        parse_routes("routes: " + "[" * 1200 + "]" * 1200 + "\n#END")
    with pytest.raises(ConfigurationError, match="lists and mappings stand too deep inside each other"):
        parse_routes("[" * 100_000 + "]" * 100_000)


def test_yaml_as_apisix_reads_it() -> None:
    text = (
        "routes:\n- {id: a, uri: /a, plugins: , desc: 2026-11-29}\n- {id: b, uri: /b, plugins: {cors: }}\n---\nx: #END"
    )
    routes = parse_routes(text, strict=False)
    assert [(route.id, route.desc, route.plugins) for route in routes.routes] == [
        ("a", "2026-11-29", Plugins()),
        ("b", None, Plugins({}, {"cors": {}})),
    ]
    assert list(map(str, routes.findings)) == [
        "apisix.yaml: the file has several YAML documents, and APISIX reads the first one only"
    ]


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"desc": "x" * 257}, "desc: this has 257 characters; APISIX takes 256 at most"),
        ({"name": ""}, "name: this is empty; APISIX takes one character at least"),
        ({"name": "n" * 257}, "name: this has 257 characters; APISIX takes 256 at most"),
        ({"id": "a b"}, "id: 'a b' is no id: it has 1 to 64 of letters, digits, - _ and ."),
        ({"id": "i" * 65}, "is no id: it has 1 to 64 of letters, digits, - _ and ."),
        ({"id": 0}, "id: an id that is a number begins at 1, so not 0"),
        ({"id": True}, "id: an id is a string or a number, not True (bool)"),
        ({"uri": "/" + "u" * 4096}, "uri: this has 4097 characters; APISIX takes 4096 at most"),
        ({"labels": ["a"]}, "labels: this has to be a mapping, not ['a'] (list)"),
        ({"labels": {"a": "b c"}}, "labels.a: 'b c' is no label: it has no spaces"),
        ({"labels": {"a": 1}}, "labels.a: this has to be a string, not 1 (int); put it in quotes"),
        ({"methods": ["GET", "GET"]}, "methods[1]: 'GET' stands here twice; APISIX takes it once only"),
        ({"hosts": ["a", "b", "a"]}, "hosts[2]: 'a' stands here twice; APISIX takes it once only"),
        ({"host": "a_b.test/x"}, "host: 'a_b.test/x' has to be a name without a port"),
        ({"host": "b\u00fccher.test"}, "has to be a name without a port"),
        ({"remote_addr": "$env://ADDRESS"}, "remote_addr: this has to be an IP address, or one with /BITS"),
        ({"remote_addr": "10.0.0.0/33"}, "remote_addr: this has to be an IP address, or one with /BITS"),
        ({"remote_addrs": ["::1", "::1"]}, "remote_addrs[1]: '::1' stands here twice"),
        ({"remote_addr": "::1", "remote_addrs": ["::1"]}, "remote_addrs: it has remote_addr as well; keep one of them"),
        ({"vars": "x"}, "vars: this has to be a list, not 'x' (str)"),
        ({"vars": [["a", "=", "b"]]}, "vars: there is no operator '='; there are: ! == ~="),
        ({"vars": ["arg_a", "==", "b"]}, "vars: each comparison stands in brackets of its own"),
        ({"priority": 1.5}, "priority: this has to be a number, not 1.5 (float)"),
        ({"timeout": {"connect": 1, "send": 1}}, "timeout: APISIX wants read here too"),
        ({"timeout": 5}, "timeout: this has to be a mapping, not 5 (int)"),
        ({"create_time": "now"}, "create_time: this has to be a number, not 'now' (str)"),
        ({"enable_websocket": "yes"}, "enable_websocket: this has to be true or false, not 'yes' (str)"),
        ({"service_id": ""}, "service_id: '' is no id"),
        ({"filter_func": "return true"}, "filter_func: the stand-in runs no Lua"),
        ({"valid": 1}, "valid: the stand-in does not know this field, and APISIX neither, so it drops what has it"),
    ],
)
def test_limits_of_a_route(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(route(**fields))
    assert message in str(caught.value)
    assert read_routes(route(**fields), strict=False).routes == () or "filter_func" in fields


def test_values_at_their_limits_are_taken() -> None:
    fields = {
        "id": "A-z_0.9" + "i" * 57, "desc": "\u00fc" * 256, "name": "n" * 256, "uri": "/" + "u" * 4095,
        "labels": {"a": "b"},
        "methods": [], "hosts": ["*", "*.b.test", "[::1]"], "priority": 2.0, "remote_addrs": ["10.0.0.1/8", "::1"],
        "vars": [], "create_time": 1, "status": 1, "timeout": {"connect": 0.1, "send": 1, "read": 2, "more": 3},
    }  # fmt: skip
    (found,) = read_routes(route(**fields)).routes
    assert (found.priority, found.methods, found.hosts) == (2, frozenset(), ("*", "*.b.test", "[::1]"))
    assert list(map(str, found.remote_addrs)) == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": [{"host": "h", "port": 1}]}, "upstream.nodes[0]: APISIX wants weight here too"),
        ({"nodes": [{"host": "h_/", "port": 1, "weight": 1}]}, "upstream.nodes[0].host: 'h_/' has to be a name"),
        ({"nodes": [{"host": "h", "port": 65536, "weight": 1}]}, "nodes[0].port: this has to be a number up to 65535"),
        ({"nodes": {"h:1": 1.5}}, "upstream.nodes.h:1: a weight is a number from 0, not 1.5"),
        ({"retries": -1}, "upstream.retries: this has to be a number from 0, not -1"),
        ({"retry_timeout": "1"}, "upstream.retry_timeout: this has to be a number, not '1' (str)"),
        ({"hash_on": "ip"}, "upstream.hash_on: this is vars, header, cookie, consumer or vars_combinations, not 'ip'"),
        ({"keepalive_pool": {"size": 0}}, "upstream.keepalive_pool.size: this has to be a number from 1, not 0"),
        ({"checks": {"passive": {}}}, "upstream.checks: APISIX wants active here too"),
        (
            {"checks": {"active": {"healthy": {"successes": 255}}}},
            "successes: this has to be a number up to 254, not 255",
        ),
        ({"tls": {"client_cert": "c" * 128}}, "upstream.tls: client_cert and client_key belong together; give both"),
        ({"tls": {"client_cert": "c"}}, "upstream.tls.client_cert: this has 1 characters; APISIX takes 128 at least"),
        (
            {"tls": {"client_cert": "c" * 128, "client_key": "k" * 64}},
            "upstream.tls: certificate and key cannot be used",
        ),
        ({"tls": {"client_cert_id": 1}}, "upstream.tls.client_cert_id: there is no client_cert '1'; there are: none"),
        ({"upstream_host": "a b"}, "upstream.upstream_host: 'a b' has to be a name"),
        ({"load": 1}, "upstream.load: the stand-in does not know this field, and APISIX neither"),
    ],
)
def test_limits_of_an_upstream(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(upstream(**fields))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"routes": [{"uri": "/"}]}, "route number 1: it needs plugins, an upstream, an upstream_id or a service_id"),
        ({"consumers": [{"username": "a.b", "plugins": {}}]}, "username: 'a.b' is no username: it has letters"),
        ({"consumers": [{"plugins": {}}]}, "consumer number 1: it has no username, which APISIX wants"),
        (
            {"consumers": [{"username": "a", "plugins": {"key-auth": {}}}]},
            "key-auth: it has no key, which APISIX wants",
        ),
        ({"global_rules": [{"plugins": {}}]}, "global rule number 1: it has no id, which APISIX wants"),
        ({"plugin_configs": [{"id": 1}]}, "plugin config '1': it has no plugins; name them, or take it out"),
        (
            {"services": [{"id": 1, "host": "a"}]},
            "service '1': host: the stand-in does not know this field, and APISIX",
        ),
        (builtin("proxy-rewrite"), "plugins.proxy-rewrite: APISIX wants one field at least"),
        (builtin("proxy-rewrite", host="a b"), "plugins.proxy-rewrite: host has to be a name, or one with a port"),
        (builtin("proxy-rewrite", method="get"), "plugins.proxy-rewrite: method is one of GET, POST, PUT"),
        (builtin("proxy-rewrite", uri="/" + "u" * 4096), "plugins.proxy-rewrite: uri has 4097 characters"),
    ],
)
def test_limits_of_the_rest(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(data)
    assert message in str(caught.value)


def test_a_dropped_entry_leaves_the_others_alone() -> None:
    data = {
        "routes": [
            {"id": "bad", "uri": "/", "desc": "x" * 300, "plugins": {}},
            {"id": "good", "uri": "/", "plugins": {}},
        ],
        "consumers": [{"username": "a b"}, {"username": "c", "plugins": {"key-auth": {"key": "k"}}}],
        "global_rules": [{"id": 1, "plugins": {"cors": {"_meta": 1}}}, {"id": 2, "plugins": {"request-id": {}}}],
    }
    routes = read_routes(data, strict=False)
    assert [route.id for route in routes.routes] == ["good"]
    assert (list(routes.consumers), routes.global_rules) == (["k"], Plugins({}, {"request-id": {}}))
    assert [(found.severity, found.route, found.plugin) for found in routes.findings] == [
        ("error", "bad", None), ("error", None, None), ("error", None, "cors"),
    ]  # fmt: skip


# --- plugins --------------------------------------------------------------------------------------------------------


def test_keys_that_a_plugin_does_not_have_are_ignored() -> None:
    conf = [{"name": "a", "value": "{}", "enabled": True}]
    plugins = {
        "ext-plugin-pre-req": {"conf": conf, "disable": False, "whatever": 1},
        "ext-plugin-post-req": {"conf": conf, "disable": True},
        "cors": {"disable": False, "own": {}},
    }
    routes = read_routes(route(plugins=plugins))
    listed = ExtPlugin([(b"a", b"{}")])
    (found,) = routes.routes
    assert dict(found.plugins.ext) == {"ext-plugin-pre-req": listed, "ext-plugin-post-req": listed}
    assert list(map(str, routes.findings)) == [
        "routes: route 'x': plugins.ext-plugin-post-req.disable: disable: true does nothing, and the plugin runs; what "
        "switches it off is _meta: {disable: true}"
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ext-plugin-pre-request", "did you mean 'ext-plugin-pre-req'?"),
        ("ext_plugin_post_resp", "did you mean 'ext-plugin-post-resp'?"),
        ("ext-plugin-post-response", "did you mean 'ext-plugin-post-resp'?"),
        ("ext-plugin", "there are ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp"),
    ],
)
def test_a_misspelt_place_of_plugins_drops_the_route(name: str, hint: str) -> None:
    (found,) = read_routes(builtin(name), strict=False).findings
    assert (found.severity, found.route, found.plugin) == ("error", "x", name)
    assert hint in found.message
    with pytest.raises(ConfigurationError, match="APISIX has no plugin of this name, and drops what has it"):
        read_routes(builtin(name))


def test_other_plugins_are_said_once_each() -> None:
    data = {"routes": [{"id": name, "uri": "/", "plugins": {"prometheus": {}, "ours": {}}} for name in "abc"]}
    text = "routes:" + "".join(f"\n  - id: {name}\n    uri: /\n    plugins: {{prometheus: {{}}}}" for name in "abc")
    assert len(read_routes(data, strict=False).findings) == 2
    assert list(map(str, parse_routes(f"{text}\n#END", strict=False).findings)) == [
        "apisix.yaml:4: route 'a': plugins.prometheus: the stand-in does not have this plugin of APISIX (here and on "
        "line 7, 10); it is passed over"
    ]


def test_values_of_the_environment_in_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONF", '{"a": 1}')
    monkeypatch.setenv("KEYS", '{"ada": "k1"}')
    monkeypatch.delenv("GONE", raising=False)
    names = ["$env://CONF", "$ENV://KEYS/ada", "$env://GONE", "$secret://vault/1/key", "no $env://CONF"]
    routes = read_routes(ext(conf=[{"name": f"n{n}", "value": value} for n, value in enumerate(names)]))
    assert routes.routes[0].plugins.ext["ext-plugin-pre-req"].conf == [
        (b"n0", b'{"a": 1}'), (b"n1", b"k1"), (b"n2", b"$env://GONE"), (b"n3", b"$secret://vault/1/key"),
        (b"n4", b"no $env://CONF"),
    ]  # fmt: skip
    assert [found.message.partition("value: ")[2] for found in routes.findings] == [
        "the environment has no GONE: APISIX takes '$env://GONE' itself for it",
        "the stand-in reaches no secret manager: '$secret://vault/1/key' stays as it is",
    ]
